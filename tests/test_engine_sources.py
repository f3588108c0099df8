"""Sources: everything that can be predicted on becomes the same frames; everything else is one sentence."""

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.engine.sources import Photo, Video, is_single, is_stream, list_sources
from perpixel.errors import InputError


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, photo):
    (tmp_path / "sub").mkdir()
    for name in ("b.png", "a.png", "sub/c.png"):
        Image.fromarray(photo).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photo")
    return tmp_path


def only(source) -> np.ndarray:
    (item,) = list_sources(source)
    (frame,) = item.frames()
    return frame.image


def names(source) -> list[str]:
    return [item.path.name for item in list_sources(source)]


def test_all_forms_of_a_photo_give_the_same_pixels(folder, photo):
    tensor = torch.from_numpy(photo).permute(2, 0, 1)
    for source in (
        photo,
        Image.fromarray(photo),
        tensor,
        tensor.float() / 255,
        folder / "a.png",
        str(folder / "a.png"),
    ):
        np.testing.assert_array_equal(only(source), photo)
        assert is_single(source) and not is_stream(source)


def test_grey_becomes_rgb(photo):
    grey = photo[:, :, 0]
    for source in (grey, grey[:, :, None], Image.fromarray(grey)):
        np.testing.assert_array_equal(only(source), np.repeat(grey[:, :, None], 3, 2))


def test_folders_patterns_and_lists(folder, photo):
    assert names(folder) == ["a.png", "b.png", "c.png"]
    assert names(str(folder / "*.png")) == ["a.png", "b.png"]
    assert names(str(folder / "**" / "*.png")) == ["a.png", "b.png", "c.png"]
    assert names([folder / "b.png", str(folder / "a.png")]) == ["b.png", "a.png"]
    assert len(list(list_sources([photo, [folder / "a.png", photo]]))) == 3
    for source in (folder, str(folder / "*.png"), [photo]):
        assert not is_single(source) and not is_stream(source)


def test_a_name_with_brackets_is_a_name(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "cat[1].png")
    assert names(str(tmp_path / "cat[1].png")) == ["cat[1].png"]
    assert is_single(tmp_path / "cat[1].png")


def test_nothing_is_opened_before_its_turn(tmp_path):
    listed = list(list_sources([tmp_path / "absent.jpg", tmp_path / "absent.mp4", 3]))
    assert [type(item) for item in listed] == [Photo, Video, Video]
    with pytest.raises(InputError, match=r"absent\.jpg"):
        next(listed[0].frames())
    with pytest.raises(InputError, match=r"absent\.mp4"):
        next(listed[1].frames())


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("https://example.org/a.jpg", "is a URL"),
        (np.zeros((4, 5, 3), np.float32), "float32"),
        (np.zeros((3, 4, 5), np.uint8), "shape"),
        (np.zeros((4, 5, 4), np.uint8), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (torch.zeros(2, 3, 4, 5), "as a list"),
        (torch.full((3, 4, 5), 128.0), "divide by 255"),
        (torch.full((3, 4, 5), float("nan")), "0..1"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "int64"),
        (3.5, "float is nothing"),
        (True, "True is nothing"),
    ],
)
def test_what_is_no_photo_is_one_sentence(source, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        list(list_sources(source))
    assert "\n" not in str(caught.value)


def test_empty_folders_and_patterns_are_named(tmp_path):
    for source in (tmp_path, str(tmp_path / "*.jpg")):
        with pytest.raises(InputError, match=r"holds no photo|no file matches"):
            list(list_sources(source))


def test_videos_stream(tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 12.0, (64, 48))
    for i in range(5):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[:, :, 2] = 40 * i  # OpenCV's red
        writer.write(frame)
    writer.release()
    (video,) = list_sources(tmp_path / "v.avi")
    assert is_stream(tmp_path / "v.avi") and not is_single(tmp_path / "v.avi")
    assert (video.rate(), video.length()) == (12.0, 5)
    frames = list(video.frames())
    assert [f.number for f in frames] == [0, 1, 2, 3, 4]
    for i, frame in enumerate(frames):
        red, _, blue = frame.image.reshape(-1, 3).mean(0)
        assert abs(red - 40 * i) < 12 and blue < 12
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"bad\.mp4"):
        next(next(list_sources(tmp_path / "bad.mp4")).frames())


def test_videos_need_opencv(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    (tmp_path / "v.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"perpixel\[video\]"):
        next(next(list_sources(tmp_path / "v.mp4")).frames())
