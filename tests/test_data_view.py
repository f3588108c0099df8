"""Counts and pages of a data set, the rules for odd objects, near duplicates, and the commands around them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from perpixel.cli.main import main
from perpixel.data.check import check_dataset
from perpixel.data.near_duplicates import near_duplicates, signature
from perpixel.data.open import open_dataset
from perpixel.data.split import deal
from perpixel.data.suspicious import suspicions
from perpixel.engine.data_stats import measure
from perpixel.engine.data_view import write_view
from perpixel.errors import InputError


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Pillow.Image:
    """Soft random colours, others for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Pillow.fromarray(noise).resize(size, Pillow.Resampling.BICUBIC)


@pytest.fixture
def source(tmp_path) -> Path:
    """Four pictures of 64 x 48, the third a smaller copy of the first saved as JPEG; objects with one slip of each kind."""
    folder = tmp_path / "in/images"
    folder.mkdir(parents=True)
    picture(0).save(folder / "a.png")
    picture(1).save(folder / "b.png")
    picture(0).resize((32, 24)).save(folder / "c.jpg", quality=80)
    picture(2).save(folder / "d.png")
    files = [("a.png", 64, 48), ("b.png", 64, 48), ("c.jpg", 32, 24), ("d.png", 64, 48)]
    boxes = [
        (1, 0, [10, 10, 20, 20], {}),
        (2, 0, [10, 10, 20, 20.4], {}),  # twice
        (3, 0, [10, 10, 20, 20], {"category_id": 2}),  # of another class
        (4, 1, [50, 40, 30, 6], {}),  # ends at 80, 16 past 64
        (5, 1, [5, 5, 1.5, 9], {}),  # tiny
        (6, 1, [0, 0, 64, 48], {"iscrowd": 1}),  # a crowd may cover everything
        (7, 2, [0, 0, 32, 24], {}),  # the whole
        (8, 2, [4, 4, 8, 8], {"segmentation": [[4, 4, 16, 4, 16, 12]], "note": "x"}),  # 16 is 4 past 12
    ]
    annotations = [
        {"id": n, "image_id": image, "category_id": 1, "bbox": box, "iscrowd": 0} | more
        for n, image, box, more in boxes
    ]
    images = [{"id": n, "file_name": name, "width": w, "height": h} for n, (name, w, h) in enumerate(files)]
    categories = [{"id": 1, "name": "<b>ant"}, {"id": 2, "name": "bee"}, {"id": 3, "name": "cow"}]
    path = tmp_path / "in/set.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_slips_by_hand(source):
    dataset = open_dataset(source)
    found = [(row, *one[:2]) for row in range(4) for one in suspicions(dataset.record(row), dataset.stated_boxes(row))]
    assert found == [
        (0, 1, "annotated twice"),
        (1, 0, "box past the border"),
        (1, 1, "tiny box"),
        (2, 0, "box of the whole image"),
        (2, 1, "mask outside its box"),
    ]
    sentences = check_dataset(source).suspicions
    assert sentences[0] == "annotation 2 of image 0: has the class and the box of annotation 1"
    assert sentences[1] == "annotation 4 of image 1: its box reaches 16.0 pixels past the image" and len(sentences) == 5


def test_check_shows_them_and_still_finds_the_set_good(source, tmp_path, capsys):
    assert main(["check", str(source), "--sheet", str(tmp_path / "sheet.png")]) == 0
    shown = capsys.readouterr().out
    assert (
        "look at annotation 5 of image 1: its box is only 1.5 x 9.0 pixels large" in shown
        and "ready for training" in shown
    )


def test_counts_by_hand(source, capsys, tmp_path):
    """Seven objects, the crowd apart: 6 of class ant in images a, b, c; areas 400, 408, 84 (clipped to 14 x 6), 13.5, 768, 64:
    all below 32 x 32; ratios from 9 / 1.5 upside down = 0.17 to 14 / 6 = 2.3; d.png has none."""
    stats = measure(source)
    assert (stats.images, stats.objects, stats.crowds, stats.empty, stats.masks) == (4, 7, 1, 1, 1)
    assert stats.classes == {"<b>ant": (6, 3, 6, 0, 0), "bee": (1, 1, 1, 0, 0), "cow": (0, 0, 0, 0, 0)}
    assert dict(stats.histograms()["objects an image"])["2"] == 2  # b and c
    assert dict(stats.histograms()["objects an image"])["0"] == 1
    assert dict(stats.histograms()["shape of objects (width / height)"]) == {
        "0 to 0.2": 1,
        "0.2 to 0.333": 0,
        "0.333 to 0.5": 0,
        "0.5 to 0.8": 0,
        "0.8 to 1.25": 4,
        "1.25 to 2": 1,
        "2 to 3": 1,
        "3 to 5": 0,
        "5 and more": 0,
    }
    # Square roots: 20, 20.2, 20, 9.2, 3.7, 27.7, 8.
    assert stats.sides.tolist()[:4] == [1, 2, 4, 0]
    assert stats.fields["objects"]["segmentation"] == (1, 8) and stats.fields["objects"]["note"] == (1, 8)
    assert stats.sizes == {(48, 64): 3, (24, 32): 1}
    page = tmp_path / "stats.html"
    assert main(["data", "stats", str(source), "--page", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "segmentation                1        7" in shown and f"look at {page}" in shown
    text = page.read_text()
    assert "&lt;b&gt;ant" in text and "<b>ant" not in text and "http://" not in text.replace("http://www.w3.org", "")


def test_near_duplicates_by_hand(source, tmp_path):
    """The small JPEG of a.png is found; the pictures of other seeds, and a black and a grey one, stay apart."""
    assert near_duplicates(open_dataset(source)) == [[0, 2], [1], [3]]
    black, grey = (np.full((20, 30, 3), level, np.uint8) for level in (0, 90))
    assert (signature(black)[0] == signature(grey)[0]).all()  # the signs alone would take them for the same
    entries = []
    for n, level in enumerate((0, 90, 2)):
        Pillow.new("RGB", (30, 20), (level,) * 3).save(tmp_path / f"{n}.png")
        entries.append({"id": n, "file_name": f"{n}.png", "width": 30, "height": 20})
    path = tmp_path / "flat.json"
    path.write_text(json.dumps({"images": entries, "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    calls = []
    assert near_duplicates(open_dataset(path), lambda: calls.append(1)) == [[0, 2], [1]] and len(calls) == 3
    (tmp_path / "2.png").write_bytes(b"broken")
    assert near_duplicates(open_dataset(path)) == [[0], [1], [2]]


def test_near_pairs_equal_the_slow_loop():
    """Stretches of signs miss no pair: against all pairs, with rows that differ in 0 to 12 signs."""
    from perpixel.data.near_duplicates import MOST_GREY, MOST_SIGNS, _near_pairs

    random = np.random.default_rng(0)
    signs = np.repeat(random.integers(0, 2, (6, 64), dtype=np.uint8), 8, axis=0)
    for row in signs:
        row[random.choice(64, random.integers(0, 7), replace=False)] ^= 1
    pictures = random.uniform(0, 12, (48, 256)).astype(np.float32)
    wanted = {
        (a, b)
        for a in range(48)
        for b in range(a + 1, 48)
        if (signs[a] != signs[b]).sum() <= MOST_SIGNS and np.abs(pictures[a] - pictures[b]).mean() <= MOST_GREY
    }
    assert len(wanted) > 10 and _near_pairs(signs, pictures) == wanted


def test_dealing_by_hand():
    """12 images: class 1 in two of them, class 2 in three, class 0 in all. Each part of three gets a class 2, each of the first
    two a class 1 only if it goes there: with two images and three parts one part has none."""
    classes = [frozenset({0} | ({1} if n < 2 else set()) | ({2} if 2 <= n < 5 else set())) for n in range(12)]
    groups = [[n] for n in range(12)]
    parts = deal(groups, classes, {"train": 0.5, "val": 0.25, "test": 0.25}, 0)
    assert sorted(n for rows in parts.values() for n in rows) == list(range(12))
    assert [len(rows) for rows in parts.values()] == [6, 3, 3]
    for rows in parts.values():
        assert sum(2 in classes[n] for n in rows) == 1
    assert max(sum(1 in classes[n] for n in rows) for rows in parts.values()) == 1
    assert deal(groups, classes, {"train": 0.5, "val": 0.5}, 0) != deal(groups, classes, {"train": 0.5, "val": 0.5}, 1)


def test_many_images_are_dealt_in_proportion():
    """Six classes of which each image has some, by chance: no part is off its share of any class by more than 6 % of all."""
    random = np.random.default_rng(0)
    classes = [
        frozenset(np.flatnonzero(random.random(6) < [0.9, 0.5, 0.3, 0.1, 0.05, 0.02]).tolist()) for _ in range(600)
    ]
    parts = deal([[n] for n in range(600)], classes, {"train": 0.8, "val": 0.2}, 0)
    assert abs(len(parts["val"]) - 120) < 12
    for label in range(6):
        total = sum(label in found for found in classes)
        share = sum(label in classes[n] for n in parts["val"]) / total
        assert abs(share - 0.2) < 0.06, label


@pytest.mark.parametrize("shares", [{"train": 1.0}, {"train": 0.8, "val": 0.3}, {"train": 1.2, "val": -0.2}])
def test_wrong_shares_are_refused(shares):
    with pytest.raises(InputError, match="give two or more parts with shares above 0 that add up to 1"):
        deal([[0], [1]], [frozenset(), frozenset()], shares)
    with pytest.raises(InputError, match="2 parts cannot be made of 1 groups"):
        deal([[0, 1]], [frozenset(), frozenset()], {"a": 0.5, "b": 0.5})


def test_pages(source, tmp_path):
    """Two images a page; the slips' page has three images, the duplicates' two; names are escaped; nothing is fetched."""
    done = write_view(source, tmp_path / "view", on_page=2, progress=False)
    names = sorted(path.name for path in (tmp_path / "view").iterdir())
    listed = [
        "duplicates_001.html",
        "index.html",
        "look_at_001.html",
        "look_at_002.html",
        "page_001.html",
        "page_002.html",
    ]
    assert (
        names == listed and done.groups == 1 and done.shown == 4 and sum(done.odd.values()) == 5 and not done.problems
    )
    index = (tmp_path / "view/index.html").read_text()
    assert all(f'href="{name}"' in index for name in listed if name != "index.html")
    assert "a.png, c.jpg" in index and "its box reaches 16.0 pixels past the image" in index
    for name in names:
        text = (tmp_path / "view" / name).read_text()
        assert "<b>ant" not in text and "src=" not in text.split("<script")[0]
    page = (tmp_path / "view/page_001.html").read_text()
    assert page.count('class="item"') == 2 and "index.html" in page and "page_002.html" in page
    few = write_view(source, tmp_path / "few", most=1, progress=False)
    assert few.shown == 1 and sum(few.odd.values()) == 5


def test_a_broken_image_is_a_problem_not_an_end(source, tmp_path, capsys):
    (source.parent / "images/b.png").write_bytes(b"broken")
    assert main(["data", "view", str(source), "--out", str(tmp_path / "view")]) == 1
    shown = capsys.readouterr().out
    assert "problem:" in shown and "b.png" in shown
    assert "b.png: cannot be read" in (tmp_path / "view/index.html").read_text()


def test_masks_of_some_are_drawn(source, tmp_path):
    """c.jpg has one object with a mask and one without: the page has both, one with an empty mask."""
    write_view(source, tmp_path / "view", progress=False)
    text = (tmp_path / "view/page_001.html").read_text()
    items = [json.loads(part.partition("</script>")[0]) for part in text.split('class="item">')[1:]]
    masks = [one["mask"] for item in items if item["name"] == "c.jpg" for one in item["truth"]]
    assert len(masks) == 2 and [sum(mask) > 0 for mask in masks] == [False, True]


def test_commands(source, tmp_path, capsys):
    out = tmp_path / "voc"
    assert main(["data", "convert", str(source), "--to", "voc", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "4 images and 8 objects read, 4 and 8 written" in shown
    assert main(["data", "convert", str(source), "--to", "voc", "--out", str(out)]) == 2
    assert "holds something already" in capsys.readouterr().err
    assert (
        main(["data", "split", str(source), "--parts", "train=0.5", "val=0.5", "--out", str(tmp_path / "parts")]) == 0
    )
    shown = capsys.readouterr().out
    assert "2 images have near duplicates, which stayed in one part" in shown and "has no object of" in shown
    for wrong in ("train", "train=x", "../x=0.5", "a=-1"):
        assert main(["data", "split", str(source), "--parts", wrong, "--out", str(tmp_path / "no")]) == 2
        assert "write a name and a share above 0" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
