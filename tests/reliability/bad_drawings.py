"""Damaged files of annotation programs, LabelMe and CVAT; and damaged data sets of three forms written in another one."""

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
from bad_annotations import NAMES, SIZE, Target, coco_document, make_images, use
from mutations import VALUES, damage_bytes, damage_text, damaged_json
from PIL import Image

from perpixel.data.write import WRITERS
from perpixel.engine.convert_data import convert as convert_data


def labelme_document() -> dict[str, Any]:
    """A shape of each kind that bounds an area, and two more; none joins another."""
    picture = io.BytesIO()
    Image.fromarray(np.array([[255, 0, 255], [255, 255, 255]], np.uint8)).save(picture, "PNG")
    mask = base64.b64encode(picture.getvalue()).decode()
    kinds: list[tuple[str, list[list[float]], dict[str, Any]]] = [
        ("rectangle", [[9, 8], [2, 3]], {"description": "asleep"}),
        ("polygon", [[1, 1], [5, 1], [5.5, 5], [1, 5]], {"group_id": 4}),
        ("circle", [[14, 8], [17, 8]], {"flags": {"wet": True}}),
        ("mask", [[5, 6], [7, 7]], {"mask": mask, "difficult": True}),
        ("rotation", [[8, 2], [12, 6], [8, 10], [4, 6]], {}),
        ("rectangle", [[1, 1], [5, 1], [5, 4], [1, 4]], {}),
    ]
    shapes = [
        {"label": ("cat", "dog")[n % 2], "shape_type": kind, "points": points, "group_id": None, "flags": {}} | more
        for n, (kind, points, more) in enumerate(kinds)
    ]
    return {
        "version": "5.4.1",
        "flags": {"night": True},
        "shapes": shapes,
        "imagePath": "one.png",
        "imageData": None,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    }


def labelme(base: Path) -> Target:
    """One of three files is damaged; its shapes come out, or are named, or the file with their number is."""
    whole = labelme_document()
    folder = base / "root"
    make_images(folder)
    for name in NAMES[1:]:
        (folder / f"{name}.json").write_text(json.dumps(whole | {"imagePath": f"{name}.png"}))
    count = len(whole["shapes"])

    def case(random: Random, _: Path) -> str | None:
        content = damaged_json(whole, random)
        (folder / "one.json").write_bytes(content)
        images, objects, notes = use(str(folder), folder if random.random() < 0.2 else None, random)
        if images < 0:
            return notes[0]
        try:
            document = json.loads(content.decode("utf-8-sig"))
            inside, groups = len(document["shapes"]), json.dumps(document).count('"group_id": null')
        except (ValueError, KeyError, TypeError, RecursionError):
            return None if images == 2 and len(notes) == 1 else f"silent drop: 3 images in, {images} out: {notes}"
        if not isinstance(document["shapes"], list) or groups != inside - 1:  # what joins others cannot be counted
            return None
        return _missing((3, 2 * count + inside), images, objects, notes)

    return case


def _missing(wanted: tuple[int, int], images: int, objects: int, notes: list[str]) -> str | None:
    goes_with = [int(found[1]) for note in notes if (found := re.search(r"with its (\d+) shapes$", note))]
    named = len(notes) - len(goes_with) + sum(goes_with)
    if (images + len(goes_with), objects + named) == wanted:
        return None
    return f"silent drop: {wanted} images and shapes in, {images} and {objects} out, {named} shapes named: {notes}"


_SHAPES = """<box label="cat" source="manual" occluded="1" xtl="1.50" ytl="2.00" xbr="9.00" ybr="8.00" z_order="3">
<attribute name="mood">calm</attribute><attribute name="age">4</attribute></box>
<polygon label="dog" occluded="0" points="1,1;5,1;5,5;1,5" z_order="0" group_id="2"></polygon>
<mask label="cat" occluded="0" rle="1, 1, 2, 2" left="20" top="10" width="3" height="2" z_order="0">
<attribute name="is_crowd">true</attribute></mask>
<box label="dog" occluded="0" xtl="10" ytl="10" xbr="14" ybr="16" rotation="90.0" z_order="0"></box>
<ellipse label="cat" occluded="0" cx="15.0" cy="5.0" rx="4.0" ry="2.0" z_order="0"></ellipse>"""
_IMAGE = """<image id="{n}" name="{name}.png" width="24" height="17" subset="train">
{shapes}<tag label="dusk" source="manual"></tag></image>
"""
_CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>t</name><labels>
<label><name>dog</name><color>#ff0000</color></label><label><name>cat</name></label></labels></task></meta>
{images}</annotations>
"""


def cvat_text() -> str:
    """Three images with a shape of each kind that bounds an area; none joins another."""
    return _CVAT.format(images="".join(_IMAGE.format(n=n, name=name, shapes=_SHAPES) for n, name in enumerate(NAMES)))


def cvat(base: Path) -> Target:
    text = cvat_text()
    make_images(base / "images")

    def case(random: Random, folder: Path) -> str | None:
        content = _damaged_xml(text, random)
        (folder / "a.xml").write_bytes(content)
        images, objects, notes = use(str(folder / "a.xml"), base / "images", random)
        if images < 0:
            return notes[0]
        # What opens is well-formed; entities are no part of these files.
        pictures = list(ElementTree.fromstring(content).iter("image"))
        shapes = [[shape for shape in picture if shape.tag != "tag"] for picture in pictures]
        groups = [shape.get("group_id") for of_image in shapes for shape in of_image]
        if any(picture.find(".//image") is not None for picture in pictures) or groups.count(None) < len(groups) - 3:
            return None
        return _missing((len(pictures), sum(map(len, shapes))), images, objects, notes)

    return case


def _damaged_xml(text: str, random: Random) -> bytes:
    """A value of an attribute or a text exchanged, a piece doubled or taken out, or bytes changed."""
    kind = random.randrange(6)
    if kind < 3:
        place = random.choice(list(re.finditer(r'(?<==)"[^"]*"', text)))
        value = random.choice(VALUES)
        new = damage_text(place[0][1:-1], random) if random.random() < 0.4 else f"{value}"
        text = text[: place.start()] + quoteattr(new) + text[place.end() :]
    elif kind == 3:
        place = random.choice(
            list(re.finditer(r"<(image|box|polygon|mask|ellipse|label|tag)\b.*?</\1>", text, re.DOTALL))
        )
        text = text[: place.start()] + place[0] * random.choice((0, 2)) + text[place.end() :]
    elif kind == 4:
        place = random.choice(list(re.finditer(r"(?<=>)[^<>\n]+(?=<)", text)))
        text = text[: place.start()] + f"{random.choice(VALUES)}".replace("<", "&lt;") + text[place.end() :]
    content = text.encode("utf-8", "surrogatepass")
    return damage_bytes(content, random) if kind == 5 or random.random() < 0.1 else content


def convert(base: Path) -> Target:
    """What can be read is written whole in another form, or refused, and nothing of it stays; its counts add up."""
    make_images(base / "images")
    out, whole = base / "out", coco_document()
    whole["annotations"][2]["segmentation"]["counts"] = "h24=000]8"  # 3 x 4 pixels; the other code fits no image

    def case(random: Random, folder: Path) -> str | None:
        make_images(folder)
        form = random.choice(("coco", "labelme", "cvat"))
        source, inside = folder / "a.json", base / "images"
        if form == "coco":
            source.write_bytes(damaged_json(whole, random))
        elif form == "cvat":
            source = folder / "a.xml"
            source.write_bytes(_damaged_xml(cvat_text(), random))
        else:
            (folder / "one.json").write_bytes(damaged_json(labelme_document(), random))
            source = inside = folder
        try:
            done = convert_data(
                source, out, random.choice(sorted(WRITERS)), inside, skip_bad=random.random() < 0.9, progress=False
            )
            files = [path for path in out.rglob("*") if path.suffix.lower() == ".png" and "Object" not in str(path)]
            lost = done.objects - done.written - sum(done.losses.objects.values())
            if lost or len(files) < done.images:
                return f"silent drop: {done.images} images, {done.objects} objects read; {len(files)}, {done.written} written"
            return None
        finally:
            left = [
                path.name for path in base.iterdir() if path.name not in ("images", "out", "stderr") and path.is_dir()
            ]
            _remove(out)
            if any(name.endswith(".part") for name in left):
                raise AssertionError(f"half a folder is left: {left}")

    return case


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


DRAWINGS: dict[str, Callable[[Path], Target]] = {"labelme": labelme, "cvat": cvat, "convert": convert}
