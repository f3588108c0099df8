"""Damaged annotations of every form; where the damaged file can still be counted, nothing may be lost without a word."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from mutations import VALUES, damage, damage_bytes, damage_text, damaged_json
from PIL import Image

from perpixel.data.check import check_dataset
from perpixel.data.loader import train_batches
from perpixel.data.open import open_dataset
from perpixel.data.settings import Augment, DataConfig
from perpixel.engine.label_compare import compare
from perpixel.engine.label_file import BoxFile

Target = Callable[[Random, Path], str | None]
SIZE = (17, 24)
NAMES = ("one", "two", "three")


def make_images(folder: Path) -> None:
    """Three pictures of 24x17."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")


def coco_document() -> dict[str, Any]:
    """Boxes, polygons, run-length codes of both kinds, a crowd, keypoints."""
    whole = {"segmentation": [[1, 1, 9, 1, 9, 8, 1, 8]], "area": 56}
    runs = {"segmentation": {"size": list(SIZE), "counts": [20, 5, 383]}, "area": 5}
    code = {"segmentation": {"size": list(SIZE), "counts": "d08Q<"}, "area": 8, "iscrowd": 1}
    points = {"keypoints": [3, 4, 2, 0, 0, 0], "num_keypoints": 1}
    shapes = [whole | points, runs | points, code, {"segmentation": []}, points]
    boxes = [[1, 1, 8, 7], [1.5, 2, 5.25, 8], [0, 0, 24, 17], [20, 10, 10, 10], [3, 3, 1, 1]]
    annotations = [
        {"id": 10 + place, "image_id": 1 + place % 2, "category_id": 3 + 2 * (place % 2), "bbox": box, "iscrowd": 0}
        | shape
        for place, (box, shape) in enumerate(zip(boxes, shapes, strict=True))
    ]
    return {
        "info": {"year": 2020},
        "images": [
            {"id": n, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
            for n, name in enumerate(NAMES, start=1)
        ],
        "categories": [
            {"id": 3, "name": "cat", "keypoints": ["left_eye", "right_eye"], "skeleton": [[1, 2]]},
            {"id": 5, "name": "dog", "supercategory": "animal"},
        ],
        "annotations": annotations,
    }


def use(source: str, images: Path | None, random: Random, *, masks: bool = True) -> tuple[int, int, list[str]]:
    """Opens a data set, looks at all of it and makes two batches; images, objects, notes of what was left out."""
    skip = random.random() < 0.8
    dataset = open_dataset(source, images, skip_bad=skip)
    counts = len(dataset), sum(len(dataset.record(index)) for index in range(len(dataset))), list(dataset.skipped)
    dataset.coco_truth()
    data = DataConfig(
        workers=0,
        skip_bad=skip,
        masks="some" if masks and dataset.object_counts.sum() > dataset.box_only_counts.sum() else False,
        augment=Augment(short_sides=(16,), max_side=64, crop=0.5),
    )
    batches = train_batches(dataset, data, batch_size=2, seed=random.randrange(9))
    for batch in (next(batches), next(batches)):
        for target in batch.truth():
            if not (bool(target.boxes.isfinite().all()) and bool((target.boxes[:, 2:] >= target.boxes[:, :2]).all())):
                return -1, -1, ["a box of a batch is no box"]
    if random.random() < 0.3:
        check_dataset(source, images)
    return counts


def _missing(content: bytes, counts: tuple[int, int, list[str]]) -> str | None:
    """Whether images and annotations that went in came out or were named; None too where the json cannot be counted."""
    images, objects, notes = counts
    if images < 0:
        return notes[0]
    try:
        document = json.loads(content)
        inside = [document[name] for name in ("images", "annotations")]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not all(isinstance(part, list) for part in inside):
        return None
    goes_with = sum(int(found[1]) for note in notes if (found := re.search(r"with its (\d+) annotations", note)))
    of_images = sum(bool(re.search(r"with its \d+ annotations|images\[\d+\]", note)) for note in notes)
    named = goes_with + len(notes) - of_images
    if images + of_images != len(inside[0]):
        return f"silent drop: {len(inside[0])} images in, {images} out, {of_images} named"
    if objects + named != len(inside[1]):
        return f"silent drop: {len(inside[1])} annotations in, {objects} out, {named} named: {notes}"
    return None


def coco(base: Path) -> Target:
    make_images(base / "images")

    def case(random: Random, folder: Path) -> str | None:
        content = damaged_json(coco_document(), random)
        (folder / "a.json").write_bytes(content)
        return _missing(content, use(str(folder / "a.json"), base / "images", random))

    return case


def lvis(base: Path) -> Target:
    make_images(base / "images")
    document = coco_document()
    lists = {"neg_category_ids": [5], "not_exhaustive_category_ids": [3]}
    document["images"] = [entry | lists for entry in document["images"]]
    document["categories"] = [
        {"id": 3, "name": "cat", "frequency": "f", "synset": "cat.n.01"},
        {"id": 5, "name": "dog", "frequency": "r", "synset": "dog.n.01"},
    ]
    document["annotations"] = [
        {name: value for name, value in entry.items() if "keypoints" not in name} for entry in document["annotations"]
    ]

    def case(random: Random, folder: Path) -> str | None:
        content = damaged_json(document, random)
        (folder / "a.json").write_bytes(content)
        return _missing(content, use(str(folder / "a.json"), base / "images", random))

    return case


def panoptic(base: Path) -> Target:
    make_images(base / "images")
    pictures = base / "a"
    pictures.mkdir()
    ids = np.zeros((*SIZE, 3), np.uint8)
    ids[:8, :, 0], ids[8:, :, 0], ids[2:5, 3:7, 1] = 1, 2, 1
    for name in NAMES:
        Image.fromarray(ids).save(pictures / f"{name}.png")
    segments = [
        {"id": 1, "category_id": 7, "bbox": [0, 0, 24, 8], "area": 180, "iscrowd": 0},
        {"id": 2, "category_id": 7, "bbox": [0, 8, 24, 9], "area": 216, "iscrowd": 0},
        {"id": 257, "category_id": 3, "bbox": [3, 2, 4, 3], "area": 12, "iscrowd": 0},
    ]
    document = {
        "images": coco_document()["images"],
        "annotations": [
            {"image_id": n, "file_name": f"{name}.png", "segments_info": segments} for n, name in enumerate(NAMES, 1)
        ],
        "categories": [{"id": 3, "name": "cat", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}],
    }
    original = (pictures / "one.png").read_bytes()

    def case(random: Random, folder: Path) -> str | None:
        (folder / "a.json").write_bytes(damaged_json(document, random))
        (pictures / "one.png").write_bytes(damage_bytes(original, random) if random.random() < 0.2 else original)
        dataset = open_dataset(folder / "a.json", base / "images", segments=pictures, skip_bad=random.random() < 0.8)
        for index in range(len(dataset)):
            dataset.record(index)
            dataset.stuff_map(index)
        dataset.coco_truth()
        return None

    return case


_OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{x}</xmin><ymin>3</ymin><xmax>12</xmax><ymax>9.5</ymax></bndbox></object>"""


def voc(base: Path) -> Target:
    make_images(base / "root" / "JPEGImages")
    annotations, masks = base / "root" / "Annotations", base / "root" / "SegmentationObject"
    annotations.mkdir()
    masks.mkdir()
    numbers = np.zeros(SIZE, np.uint8)
    numbers[2:10, 1:12] = 1
    Image.fromarray(numbers).save(masks / "one.png")
    drawn = (masks / "one.png").read_bytes()
    objects = "".join(
        _OBJECT.format(name=n, difficult=d, x=x) for n, d, x in (("cat", 0, 2), ("dog", 1, 5), ("cat", 0, 1))
    )
    text = (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotation><filename>one.png</filename>'
        f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>{objects}</annotation>"
    )
    (annotations / "two.xml").write_text(text.replace("one.png", "two.png"))

    def case(random: Random, folder: Path) -> str | None:
        file, changed = annotations / "one.xml", text
        if random.random() < 0.5:
            inner = random.choice([m for m in re.finditer(r">([^<>\n]+)<", text)])
            value = random.choice(VALUES)
            changed = text[: inner.start(1)] + f"{value}".replace("<", "&lt;") + text[inner.end(1) :]
            content = changed.encode("utf-8", "surrogatepass")
        else:
            content = damage_bytes(text.encode(), random)
        if random.random() < 0.1:
            content = content.replace(b"utf-8", random.choice((b"utf-16", b"klingon", b"latin-1", b"idna", b"big5")))
        file.write_bytes(content)
        (masks / "one.png").write_bytes(damage_bytes(drawn, random) if random.random() < 0.2 else drawn)
        source = base / "root"
        if random.random() < 0.3:
            source = base / "root" / "split.txt"
            lines = damage_text("one 1\ntwo -1\n../Annotations/two\n", random)
            source.write_text(lines, "utf-8", "surrogatepass")
        images, objects, notes = use(str(source), None, random)
        if images < 0:
            return notes[0]
        if source.is_dir():
            goes_with = sum(int(m[1]) for note in notes if (m := re.search(r"with its (\d+) objects", note)))
            named = sum("object " in note and "with its" not in note for note in notes)
            wanted = content.count(b"<object>") + 3
            unread = any("not valid xml" in note for note in notes)
            same = content.count(b"</object>") == content.count(b"<object>")
            if same and not unread and b"<!" not in content and objects + goes_with + named != wanted:
                return f"silent drop: {wanted} objects in, {objects} out, {goes_with + named} named: {notes}"
        return None

    return case


def yolo(base: Path) -> Target:
    make_images(base / "root" / "images")
    (base / "root" / "labels").mkdir()
    box_lines = "0 0.5 0.5 0.4 0.4\n1 0.2 0.3 0.1 0.2\n1 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9\n"
    point_lines = "0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 1\n1 0.2 0.3 0.1 0.2 0 0 0 0.2 0.3 2\n"
    plain = {"path": ".", "train": "images", "val": ["images"], "nc": 2, "names": {0: "cat", 1: "dog"}}
    points = plain | {"kpt_shape": [2, 3], "flip_idx": [1, 0], "kpt_names": {0: ["a", "b"]}, "names": ["cat", "dog"]}

    def case(random: Random, folder: Path) -> str | None:
        settings, lines = (points, point_lines) if random.random() < 0.4 else (plain, box_lines)
        label, file = base / "root" / "labels" / "one.txt", base / "root" / "data.yaml"
        content = lines.encode()
        if random.random() < 0.6:
            words = lines.split(" ")
            words[random.randrange(len(words))] = f"{random.choice(VALUES)}".replace("\n", " ")
            content = " ".join(words).encode("utf-8", "surrogatepass")
            content = damage_bytes(content, random) if random.random() < 0.5 else content
        label.write_bytes(content)
        if random.random() < 0.5:
            settings = damage(settings, random)
        text = yaml.safe_dump(settings, allow_unicode=True).encode("utf-8", "surrogatepass")
        file.write_bytes(damage_bytes(text, random) if random.random() < 0.3 else text)
        images, objects, notes = use(f"{file}:{random.choice(('train', 'val', 'train', '', 'x'))}", None, random)
        if images < 0:
            return notes[0]
        goes_with = sum(int(m[1]) for note in notes if (m := re.search(r"with its (\d+) objects", note)))
        named = sum(": line " in note for note in notes)
        wanted = len([line for line in content.decode("utf-8-sig", "replace").splitlines() if line.strip()])
        if images + sum("objects left out" in note for note in notes) == 3 and objects + goes_with + named != wanted:
            unread = any("is not UTF-8" in note for note in notes)
            return (
                None if unread else f"silent drop: {wanted} lines in, {objects} out, {goes_with + named} named: {notes}"
            )
        return None

    return case


def odgt(base: Path) -> Target:
    make_images(base / "images")
    person = {"tag": "person", "fbox": [1, 2, 8, 9], "vbox": [1, 2, 8, 5], "hbox": [2, 2, 3, 3], "extra": {"ignore": 0}}
    rows = [{"ID": name, "gtboxes": [person, person | {"tag": "mask"}, person]} for name in NAMES]

    def case(random: Random, folder: Path) -> str | None:
        lines = [json.dumps(row).encode() for row in rows]
        place = random.randrange(3)
        lines[place] = damaged_json(rows[place], random)
        content = b"\n".join(lines)
        (folder / "a.odgt").write_bytes(content)
        images, _, notes = use(str(folder / "a.odgt"), base / "images", random, masks=False)
        if images < 0:
            return notes[0]
        full = len([line for line in content.decode("utf-8", "replace").splitlines() if line.strip()])
        of_lines = sum("gtboxes[" not in note for note in notes)
        if images + of_lines != full:
            return f"silent drop: {full} lines in, {images} out, {of_lines} named: {notes}"
        return None

    return case


def label(base: Path) -> Target:
    """Files that masks are added to: every annotation comes out, labelled or counted under a reason."""
    make_images(base / "images")

    def case(random: Random, folder: Path) -> str | None:
        (folder / "a.json").write_bytes(damaged_json(coco_document(), random))
        file = BoxFile.read(folder / "a.json", base / "images", replace=random.random() < 0.7)
        total, done = len(file.annotations), 0
        for image in file.images:
            rows, boxes = file.boxes(image, SIZE)
            for row, (x1, y1, x2, y2) in zip(rows, boxes.tolist(), strict=True):
                if not 0 <= x1 < x2 <= SIZE[1] or not 0 <= y1 < y2 <= SIZE[0]:
                    return f"a box outside its image: {x1, y1, x2, y2}"
                file.class_name(row)
                file.put(row, np.ones(SIZE, dtype=bool), "test", 0.5)
                done += 1
        file.write(folder / "out.json")
        if done + sum(map(len, file.left.values())) != total:
            return f"silent drop: {total} annotations in, {done} labelled, {dict(file.left)} named"
        return None if len(json.loads((folder / "out.json").read_text("utf-8"))["annotations"]) == total else "lost"

    return case


def label_truth(base: Path) -> Target:
    """`label --compare`: the file with the truth, or one with masks, is damaged."""
    make_images(base / "images")
    whole = coco_document()
    drawn = {"mask": "test", "score": 0.5, "area": 3}
    masks = whole | {"annotations": [entry | {"perpixel": drawn} for entry in whole["annotations"]]}

    def case(random: Random, folder: Path) -> str | None:
        damaged = random.random() < 0.5
        files = folder / "truth.json", folder / "masks.json"
        for file, document, change in zip(files, (whole, masks), (damaged, not damaged), strict=True):
            file.write_bytes(damaged_json(document, random) if change else json.dumps(document).encode())
        compare(files[0], {"masks": files[1]})
        return None

    return case


ANNOTATIONS: dict[str, Callable[[Path], Target]] = {
    "coco": coco,
    "lvis": lvis,
    "panoptic": panoptic,
    "voc": voc,
    "yolo": yolo,
    "odgt": odgt,
    "label": label,
    "label-truth": label_truth,
}
