"""CamVid's layout in miniature, every class as stuff, and windows of frames that change alike."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.cli.main import main
from perpixel.config import ConfigError
from perpixel.data.camvid import CamvidDataset
from perpixel.data.loader import test_batches, train_batches
from perpixel.data.open import open_dataset
from perpixel.data.settings import Augment, Color, DataConfig, TestSize
from perpixel.engine.steps import split_batch
from perpixel.errors import InputError
from perpixel.structures import VOID

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid"
NAMES = ("a_000010", "a_000040", "b_f00002", "b_f00004", "b_f00006")


@pytest.fixture
def root(tmp_path):
    """Two sequences; frame i's photo has the grey value 40 i + 10, its classes are i above and 11 (void) below."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}annot").mkdir()
        for number, name in enumerate(NAMES):
            Image.new("RGB", (48, 32), (40 * number + 10,) * 3).save(tmp_path / split / f"{name}.png")
            classes = np.full((32, 48), number, dtype=np.uint8)
            classes[16:] = 11
            Image.fromarray(classes).save(tmp_path / f"{split}annot" / f"{name}.png")
    return tmp_path


def test_the_layout_is_read(root):
    dataset = open_dataset(root / "train")
    assert isinstance(dataset, CamvidDataset) and len(dataset) == 5
    assert dataset.classes == () and dataset.stuff.names[:2] == ("sky", "building") and len(dataset.stuff) == 11
    assert dataset.record(1).id == "a_000040" and len(dataset.record(1)) == 0 and dataset.sizes[0].tolist() == [32, 48]
    stuff = dataset.stuff_map(3)
    assert (stuff[:16] == 4).all() and (stuff[16:] == VOID).all()
    truth = dataset.coco_truth()
    assert len(truth["images"]) == 5 and truth["annotations"] == truth["categories"] == []


def test_frames_before_stay_in_their_sequence(root):
    """Of index 4 (b's third): b's first and second. Of index 2 (b's first): itself, never a's last."""
    dataset = open_dataset(root / "train")

    def greys(index, count):
        return [int(frame.image[0, 0, 0]) for frame in dataset.before(index, count)]

    assert greys(4, 2) == [90, 130] and greys(3, 2) == [90, 90]
    assert greys(2, 2) == [90, 90] and greys(0, 1) == [10]
    assert [int(frame.stuff[0, 0]) for frame in dataset.before(4, 2)] == [3, 4]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda root: (root / "trainannot" / "a_000010.png").unlink(), "no picture of its classes"),
        (lambda root: Image.new("L", (9, 9)).save(root / "trainannot" / "a_000010.png"), "another size"),
        (lambda root: Image.new("L", (48, 32), 12).save(root / "trainannot" / "a_000010.png"), "class number 12"),
        (lambda root: Image.new("RGB", (48, 32)).save(root / "trainannot" / "a_000010.png"), "has colours"),
        (lambda root: (root / "trainannot" / "a_000010.png").write_text("no"), "cannot be read"),
    ],
)
def test_bad_files_are_said_in_a_sentence(root, spoil, what):
    spoil(root)
    with pytest.raises(InputError, match=what) as caught:
        open_dataset(root / "train").stuff_map(0)
    assert "a_000010" in str(caught.value)


def test_a_frame_without_classes_can_be_left_out(root):
    (root / "trainannot" / "a_000010.png").unlink()
    dataset = open_dataset(root / "train", skip_bad=True)
    assert len(dataset) == 4 and "a_000010" in dataset.skipped[0]


def settings(**changes):
    augment = Augment(short_sides=(32,), max_side=64, crop=0.6, color=Color(brightness=0.3, saturation=0.3))
    return DataConfig(augment=augment, test=TestSize(32, 64), stuff="all", frames=3, workers=0, **changes)


def test_windows_change_alike(root):
    """Each frame of a window is its photo with one brightness, cropped to one size, its classes in one place."""
    dataset = open_dataset(root / "train")
    batch = next(train_batches(dataset, settings(), batch_size=4, seed=1))
    assert len(batch.before) == 2 and all(past.images.shape == batch.images.shape for past in batch.before)
    assert all(past.sizes == batch.sizes for past in batch.before)
    for row, name in enumerate(batch.ids):
        index = NAMES.index(name)
        first = max(index - 2, 0 if name.startswith("a") else 2)
        window = (first, max(index - 1, first), index)
        frames = (*batch.before, batch)
        factors = [float(f.images[row, 0, 0, 0]) / (40 * i + 10) for f, i in zip(frames, window, strict=True)]
        assert max(factors) - min(factors) < 0.1  # whole grey values: 10 * 1.3 is 13
        for frame, i in zip(frames, window, strict=True):
            assert int(frame.targets[row].stuff[0, 0]) in (i + 1, VOID)
        voids = [(frame.targets[row].stuff == VOID) for frame in frames]
        assert all((void == voids[0]).all() for void in voids)


def test_evaluation_has_windows_without_truth(root):
    dataset = open_dataset(root / "val")
    batch = next(test_batches(dataset, settings(), batch_size=5))
    assert batch.targets is None and [past.targets for past in batch.before] == [None, None]
    assert batch.before[0].images[:, 0, 0, 0].tolist() == [10, 10, 90, 90, 90]
    assert batch.before[1].images[:, 0, 0, 0].tolist() == [10, 10, 90, 90, 130]


def test_parts_of_a_batch_keep_their_windows(root):
    batch = next(train_batches(open_dataset(root / "train"), settings(), batch_size=4, seed=1))
    parts = split_batch(batch, 2)
    assert len(parts) == 2 and all(len(part.before) == 2 for part in parts)
    assert (parts[1].before[0].images == batch.before[0].images[2:]).all()
    assert len(parts[1].before[1].targets) == 2


def test_one_frame_reads_no_others(root):
    batch = next(train_batches(open_dataset(root / "train"), settings(), batch_size=2, seed=1))
    alone = DataConfig(augment=Augment(short_sides=(32,), max_side=64), stuff="all", workers=0)
    assert batch.before and not next(train_batches(open_dataset(root / "train"), alone, batch_size=2, seed=1)).before


def test_data_without_videos_say_so():
    with pytest.raises(InputError, match="no frames of videos"):
        next(train_batches(open_dataset("scenes:3"), settings(), batch_size=1, seed=0))
    with pytest.raises(ConfigError, match="frames=0"):
        DataConfig(frames=0)


def test_scenes_with_objects_as_stuff():
    """Stuff keeps its numbers, an object's pixels get the number of its class after them; nothing is left of the objects."""
    plain, dataset = open_dataset("scenes:3:5"), open_dataset("scenes:3:5", all_stuff=True)
    assert dataset.classes == () and dataset.stuff.names == (*plain.stuff.names, *plain.classes)
    assert len(dataset.record(0)) == 0 and dataset.object_counts.sum() == 0
    stuff, every = plain.stuff_map(1), dataset.stuff_map(1)
    assert np.array_equal(every[stuff > 0], stuff[stuff > 0])
    record = plain.record(1)
    present = {len(plain.stuff) + 1 + label for label in record.labels.tolist()}
    assert set(np.unique(every[stuff == 0]).tolist()) == present


def test_data_that_do_not_say_what_pixels_are_cannot_be_all_stuff():
    with pytest.raises(InputError, match="says nothing of stuff"):
        open_dataset("shapes:3", all_stuff=True)


@pytest.mark.skipif(not REAL.is_dir(), reason="CamVid is not beside this checkout")
def test_the_published_split():
    """367, 101 and 233 frames; sequences of each as in the published split; some 3.6 % of all pixels are void."""
    splits = {name: open_dataset(REAL / name) for name in ("train", "val", "test")}
    assert {name: len(one) for name, one in splits.items()} == {"train": 367, "val": 101, "test": 233}
    starts = {
        name: sum(one.before(i, 1)[0].image.tobytes() == one.image(i).tobytes() for i in range(0, len(one), 40))
        for name, one in splits.items()
    }
    assert starts["val"] == 1  # one clip: every later frame has one before it
    shares = [(splits["train"].stuff_map(i) == VOID).mean() for i in range(0, 367, 20)]
    assert 0.01 < np.mean(shares) < 0.08


def test_it_can_be_checked(root, tmp_path, monkeypatch, capsys):
    """Every photo opens, and there are no objects to find fault with."""
    monkeypatch.chdir(tmp_path)  # the sheet is written there
    assert main(["check", str(root / "train")]) == 0
    assert "5 images, 0 objects" in capsys.readouterr().out
