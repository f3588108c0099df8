"""Predictor and prediction to a folder: every kind of source, results on disk, broken photos named."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from engine_fakes import BrightSquare, photo
from perpixel.data.settings import TestSize as Size
from perpixel.engine.instances import Instances
from perpixel.engine.predict import Predictor
from perpixel.engine.prediction_files import ResultsFile, unique_names
from perpixel.engine.prediction_folder import predict_to_folder
from perpixel.errors import InputError

BOX = (20, 16, 60, 56)


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(BrightSquare(), ["square"], Size(90, 200), device="cpu")


@pytest.fixture
def folder(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        Image.fromarray(photo((90 + i, 120), BOX)).save(photos / f"{i}.png")
    return photos


def test_one_photo_gives_instances(predictor, folder):
    image = photo((90, 120), BOX)
    sources = (
        image,
        Image.fromarray(image),
        torch.from_numpy(image).permute(2, 0, 1),
        folder / "0.png",
        str(folder / "0.png"),
    )
    for source in sources:
        found = predictor.predict(source)
        assert isinstance(found, Instances)
        np.testing.assert_array_equal(found.boxes, [BOX])
        assert found.names == ["square"] and found.size == (90, 120)
        assert found.image is not None


def test_resized_photos_come_back_to_their_own_pixels():
    """A photo of 180x240 is halved for the network; its box comes back doubled."""
    predictor = Predictor(BrightSquare(), ["square"], Size(90, 200), device="cpu")
    found = predictor.predict(photo((180, 240), (40, 32, 120, 112)))
    np.testing.assert_array_equal(found.boxes, [(40, 32, 120, 112)])
    assert predictor.model.seen == [((90, 120),)]


@pytest.mark.parametrize("batch_size", [1, 3, 10])
def test_many_photos_give_a_list(predictor, folder, batch_size):
    found = predictor.predict(folder, batch_size=batch_size)
    assert [one.path.name for one in found] == ["0.png", "1.png", "2.png", "3.png"]
    assert [one.size for one in found] == [(90, 120), (91, 120), (92, 120), (93, 120)]
    for one in found:
        np.testing.assert_allclose(one.boxes, [BOX], atol=1.5)
        assert one.image is None and one.plot().size == (480, one.size[0] * 4)
    assert max(len(sizes) for sizes in predictor.model.seen) == min(batch_size, 4)


def test_arrays_in_a_list_keep_their_pixels(predictor):
    image = photo((90, 120), BOX)
    found = predictor.predict([image, image])
    assert len(found) == 2 and found[1].image is not None


def test_scores(predictor):
    assert len(predictor.predict(photo((90, 120), BOX), score=0.95)) == 0
    with pytest.raises(InputError, match="batch_size=0"):
        predictor.predict(photo((90, 120), BOX), batch_size=0)


def test_streams_read_one_after_the_other(predictor, folder):
    """The second photo is broken, yet the first result arrives before anyone notices."""
    (folder / "1.png").write_bytes(b"broken")
    stream = predictor.stream(folder)
    assert next(stream).path.name == "0.png"
    with pytest.raises(InputError, match=r"1\.png"):
        next(stream)


def test_a_folder_of_results(predictor, folder, tmp_path):
    """Counts in = pictures + named; results hold boxes as xywh of the photos that could be read."""
    (folder / "2.png").write_bytes(b"broken")
    Image.fromarray(photo((90, 120), None)).save(folder / "empty.jpg")
    out = tmp_path / "out"
    predictor.category_ids = (7,)
    done = predict_to_folder(predictor, folder, out, progress=False)
    assert [p.name for p in done.pictures] == ["0.png", "1.png", "3.png", "empty.jpg"]
    assert all(p.is_file() for p in done.pictures)
    assert len(done.refused) == 1 and "2.png" in done.refused[0]
    assert (done.photos, done.instances, done.status) == (4, 3, 1)
    results = json.loads(done.results.read_text())
    assert [(r["file_name"], r["image_id"], r["category_id"]) for r in results] == [
        ("0.png", 1, 7),
        ("1.png", 2, 7),
        ("3.png", 3, 7),
    ]
    assert results[0]["bbox"] == [20.0, 16.0, 40.0, 40.0]
    assert done.gallery.read_text().count('class="item"') == 4
    assert sorted(p.name for p in out.iterdir()) == [
        "0.png",
        "1.png",
        "3.png",
        "empty.jpg",
        "gallery.html",
        "results.json",
    ]


def test_all_well_is_status_zero(predictor, folder, tmp_path):
    done = predict_to_folder(predictor, folder, tmp_path / "out", gallery=0, progress=False)
    assert (done.status, done.refused, done.gallery, len(done.pictures)) == (0, [], None, 4)


def test_equal_names_do_not_hide_each_other(predictor, folder, tmp_path):
    (folder / "sub").mkdir()
    Image.fromarray(photo((90, 120), BOX)).save(folder / "sub" / "0.png")
    Image.fromarray(photo((90, 120), BOX)).save(folder / "0.gif")
    done = predict_to_folder(predictor, folder, tmp_path / "out", progress=False)
    assert len({p.name for p in done.pictures}) == len(done.pictures) == 6
    assert unique_names(["a.jpg", "a.png", "a_2.jpg", "b.jpg"]) == ["a.jpg", "a_3.png", "a_2.jpg", "b.jpg"]


def test_a_video_becomes_a_video(predictor, tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (120, 90))
    for i in range(4):
        writer.write(photo((90, 120), (20 + 8 * i, 16, 60 + 8 * i, 56)))
    writer.release()
    stream = predictor.predict(tmp_path / "v.avi")
    first, second, *_ = stream
    assert (first.frame, second.frame) == (0, 1)
    assert second.boxes[0, 0] - first.boxes[0, 0] == pytest.approx(8, abs=2)
    done = predict_to_folder(predictor, tmp_path / "v.avi", tmp_path / "out", progress=False)
    assert (done.photos, done.pictures) == (4, [tmp_path / "out" / "v.mp4"])
    reader = cv2.VideoCapture(str(done.pictures[0]))
    assert (reader.get(cv2.CAP_PROP_FRAME_COUNT), reader.get(cv2.CAP_PROP_FRAME_WIDTH)) == (4, 120)
    blue, _, red = reader.read()[1][36, 21].tolist()  # on the first box's left edge, drawn in red
    assert red > blue + 40
    assert {r["file_name"] for r in json.loads(done.results.read_text())} == {f"v.avi frame {i}" for i in range(4)}


def test_interrupted_work_keeps_its_results(tmp_path):
    with pytest.raises(KeyboardInterrupt), ResultsFile(tmp_path / "r.json") as results:
        results.add([{"image_id": 1}], "a.jpg")
        results.add([], "b.jpg")
        raise KeyboardInterrupt
    assert json.loads((tmp_path / "r.json").read_text()) == [{"image_id": 1, "file_name": "a.jpg"}]
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_out_that_cannot_be_made(predictor, folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        predict_to_folder(predictor, folder, tmp_path / "file", progress=False)
