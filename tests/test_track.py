"""Objects followed over frames: by hand, and through the command's own function."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine_fakes import BrightSquare, photo
from perpixel.cli.main import main
from perpixel.data.settings import TestSize as Size
from perpixel.engine.predict import Predictor
from perpixel.engine.prediction_folder import predict_to_folder
from perpixel.engine.sources import as_video
from perpixel.engine.track import Tracker, TrackSettings
from perpixel.engine.window import show_camera
from perpixel.errors import InputError


def follow(frames, **changes):
    """The numbers of each frame's detections, given as (cx, cy, score) or (cx, cy, score, label) of boxes of 20 x 20."""
    tracker, numbers = Tracker(TrackSettings(**changes)), []
    for frame in frames:
        rows = [(*row, 0)[:4] for row in frame]
        boxes = np.array([(x - 10, y - 10, x + 10, y + 10) for x, y, _, _ in rows], np.float32).reshape(-1, 4)
        scores = np.array([score for _, _, score, _ in rows], np.float32)
        labels = np.array([label for *_, label in rows], np.int64)
        numbers.append(tracker.update(boxes, scores, labels).tolist())
    return numbers


CROSSING = [
    [(8 * step, 50, 0.9), (84 - 8 * step, 50, 0.9)][:: 1 if step % 2 == 0 else -1]  # their order changes each frame
    for step in range(11)
]


def test_crossing_objects_keep_their_numbers():
    """8 pixels a frame towards each other, at 40 and 44 in frame 5, at 48 and 36 in frame 6: each is guessed exactly there."""
    assert follow(CROSSING) == [[1, 2] if step % 2 == 0 else [2, 1] for step in range(11)]


def test_without_a_guess_they_would_be_swapped(monkeypatch):
    """From 40 and 44 the nearest of 48 and 36 is the other's, 4 pixels away in place of 8."""
    move = Tracker._move

    def stand(self, track, box):
        move(self, track, box)
        track.speed[:] = 0

    monkeypatch.setattr(Tracker, "_move", stand)
    assert follow(CROSSING)[-1] == [2, 1]


def test_a_gap_of_frames():
    """Unseen in frames 4 to 8 while it goes on by 6 pixels each: found again at 6 * 9 = 54, 36 pixels from where it was last seen
    (18, no overlap with a box of 20), since the guess went on. With keep=4 it is dead by then and comes back as number 2."""
    frames = [[(6 * step, 50, 0.9)] if step < 4 or step > 8 else [] for step in range(12)]
    seen = [found[0] for found in follow(frames) if found]
    assert seen == [1] * 7
    late = [found[0] for found in follow(frames, keep=4) if found]
    assert late == [1, 1, 1, 1, 0, 2, 2]


def test_birth_and_death():
    """The first frame's objects count at once; a later one from its second frame on; one seen in a single frame never does."""
    frames = [
        [(20, 20, 0.9)],
        [(20, 20, 0.9), (80, 80, 0.9)],
        [(20, 20, 0.9), (80, 80, 0.9), (150, 20, 0.9)],
        [(20, 20, 0.9), (80, 80, 0.9)],
        [(80, 80, 0.9), (150, 20, 0.9)],
        [(80, 80, 0.9), (150, 20, 0.9)],
    ]
    assert follow(frames) == [[1], [1, 0], [1, 2, 0], [1, 2], [2, 0], [2, 3]]


def test_doubtful_detections_continue_but_never_found():
    """0.3 is between low = 0.1 and high = 0.6: it continues track 1 where it stands (second round), not one 12 pixels off, whose
    IoU is 8 / 32 < 0.5; at 0.05 nothing is continued; alone it founds no track."""
    frames = [[(20, 20, 0.9)], [(20, 20, 0.9)], [(20, 20, 0.3), (90, 90, 0.3)], [(32, 20, 0.3)], [(20, 20, 0.05)]]
    assert follow(frames) == [[1], [1], [1, 0], [0], [0]]
    assert follow([[(20, 20, 0.65)], [(20, 20, 0.65)]]) == [[0], [0]]  # confident, but below found = 0.7


def test_confident_detections_are_matched_first():
    """A doubtful detection right on the guess (IoU 1) does not take the track from a confident one 4 pixels off (16 / 24)."""
    assert follow([[(20, 20, 0.9)], [(20, 20, 0.5), (24, 20, 0.9)]]) == [[1], [0, 1]]


def test_the_best_sum_wins():
    """Tracks at 0 and 8, detections at 6 and 16: greedily 8 would take 6 (IoU 18 / 22) and leave 0 with nothing (16 is too far);
    together 0 with 6 (14 / 26) and 8 with 16 (12 / 28) are better: 0.54 + 0.43 > 0.82."""
    assert follow([[(0, 0, 0.9), (8, 0, 0.9)], [(6, 0, 0.9), (16, 0, 0.9)]]) == [[1, 2], [1, 2]]


def test_classes_stay_apart():
    frames = [[(20, 20, 0.9, 0)], [(20, 20, 0.9, 1)], [(20, 20, 0.9, 1)]]
    assert follow(frames) == [[1], [0], [2]]
    assert follow([[(20, 20, 0.9, 1)]] * 3) == [[1], [1], [1]]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.floats(0, 1), st.integers(0, 1)), max_size=5),
        max_size=8,
    )
)
def test_a_number_names_one_object(frames):
    """In no frame does a number occur twice; each keeps its class; new numbers go up by one."""
    numbers = follow(frames)
    classes: dict[int, int] = {}
    highest = 0
    for frame, found in zip(frames, numbers, strict=True):
        followed = [number for number in found if number]
        assert len(followed) == len(set(followed)) and len(found) == len(frame)
        for number, row in zip(found, frame, strict=True):
            assert not number or classes.setdefault(number, row[3]) == row[3]
        fresh = sorted(number for number in followed if number > highest)
        assert fresh == list(range(highest + 1, highest + 1 + len(fresh)))
        highest = max([highest, *followed])


@pytest.mark.parametrize("changes", [{"low": 0.7}, {"found": 0.5}, {"keep": -1}, {"confirm": 0}])
def test_settings_are_checked(changes):
    with pytest.raises(InputError):
        TrackSettings(**changes)


def test_settings_around_a_score():
    assert TrackSettings.for_score(0.6) == TrackSettings(found=0.6)
    assert TrackSettings.for_score(0.05).low == 0.05


@pytest.fixture
def frames(tmp_path):
    """A bright square that goes right by 4 pixels a frame, hidden in the third."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(6):
        box = None if i == 2 else (20 + 4 * i, 16, 60 + 4 * i, 56)
        Image.fromarray(photo((90, 120), box)).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(BrightSquare(masks=True), ["square"], Size(90, 200), device="cpu")


def test_a_folder_of_frames_becomes_a_video_with_numbers(predictor, frames, tmp_path):
    out = tmp_path / "out/clip.mp4"
    done = predict_to_folder(predictor, as_video(frames), out, track=TrackSettings(), progress=False)
    results = json.loads(done.results.read_text())
    assert done.results == tmp_path / "out/clip.json" and done.pictures == [out] and out.stat().st_size > 1000
    assert [(result["image_id"], result["track_id"]) for result in results] == [(1, 1), (2, 1), (4, 1), (5, 1), (6, 1)]
    found = next(iter(predictor.stream(as_video(frames))))
    assert found.tracks is None and "track_id" not in found.to_coco(1)[0]


def test_frames_are_sorted_by_number(tmp_path):
    for name in ("f10.png", "f2.png", "f1.png", "e3.png"):
        Image.fromarray(photo((20, 20), None)).save(tmp_path / name)
    paths = [frame.path.name for frame in as_video(tmp_path).frames()]
    assert paths == ["e3.png", "f1.png", "f2.png", "f10.png"]


def test_frames_as_pictures(predictor, frames, tmp_path):
    done = predict_to_folder(
        predictor, as_video(frames), tmp_path / "out", track=TrackSettings(), frames_apart=True, progress=False
    )
    assert done.pictures == [tmp_path / "out/clip_frames"]
    assert sorted(path.name for path in done.pictures[0].iterdir()) == [f"{i:03}.png" for i in range(6)]


def test_tracking_wants_a_video(predictor, frames, tmp_path):
    with pytest.raises(InputError, match="give a video, or a folder with its frames"):
        predict_to_folder(predictor, frames / "000.png", tmp_path / "out", track=TrackSettings(), progress=False)
    for out in ("out.mp4", "out.avi"):
        with pytest.raises(InputError, match=r"is written of one video, as \.mp4"):
            predict_to_folder(predictor, frames, tmp_path / out, progress=False)


def test_numbers_follow_rows_and_are_drawn(predictor):
    from dataclasses import replace

    found = predictor.predict(photo((90, 120), (20, 16, 60, 56)))
    first, other = (replace(found, tracks=np.array([number])) for number in (1, 2))
    assert first[[0, 0]].tracks.tolist() == [1, 1] and first._texts() == ["square 1"]
    assert np.asarray(first.plot()).tolist() != np.asarray(other.plot()).tolist()


def test_the_command_names_what_is_missing(frames, tmp_path, capsys):
    assert main(["predict", str(tmp_path / "no.safetensors")]) == 2
    assert "or a camera to look through with --webcam" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "no.safetensors"), str(frames), "--webcam"]) == 2
    assert "--webcam" in capsys.readouterr().err


class Screen:
    """As much of OpenCV as a window takes."""

    error = RuntimeError

    def __init__(self, windows: bool, keys: list[int]):
        self.windows, self.keys, self.shown = windows, keys, []

    def namedWindow(self, title):
        if not self.windows:
            raise self.error("no windows")

    def imshow(self, title, picture):
        self.shown.append(picture.shape)

    def setWindowTitle(self, *_):
        pass

    def waitKey(self, _):
        return self.keys.pop(0)

    def destroyAllWindows(self):
        self.shown.append("closed")


def test_a_window(predictor, frames, monkeypatch):
    """It shows frames until q; without windows one sentence names the page that can."""
    screen = Screen(True, [-1, -1, ord("q")])
    monkeypatch.setattr("perpixel.engine.window.opencv", lambda: screen)
    stream = predictor.stream
    monkeypatch.setattr(predictor, "stream", lambda number, score: stream(as_video(frames), score))
    assert show_camera(predictor, 0, 0.5, track=TrackSettings()) == 3
    assert len(screen.shown) == 4 and screen.shown[-1] == "closed"
    monkeypatch.setattr("perpixel.engine.window.opencv", lambda: Screen(False, []))
    with pytest.raises(InputError, match=r"cannot open windows .* `perpixel serve`"):
        show_camera(predictor, 0, 0.5)
