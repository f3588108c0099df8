"""A panoptic set from instance masks: the objects, and all the rest as one kind of stuff, "background".

Where objects overlap the smaller is on top; groups (crowds) lie below objects. An object of which nothing is left is left out.

python benchmarks/panoptic_set.py instances_train.json PHOTOS OUT.json
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from perpixel.data.dataset import Dataset
from perpixel.data.masks import draw_shape
from perpixel.data.open import open_dataset
from perpixel.data.panoptic_format import categories_of, to_coco
from perpixel.engine.bar import counting_bar
from perpixel.engine.files import write_atomically
from perpixel.structures import Segments, Stuff


def laid_out(dataset: Dataset, index: int) -> Segments:
    """The segments of an image; those without a pixel stay in the table."""
    record = dataset.record(index)
    masks = []
    for shape in record.shapes:
        if shape is None:
            raise SystemExit(f"{dataset.name}: image {record.id!r} has an object without a mask")
        masks.append(draw_shape(shape, record.size))
    areas = np.array([mask.sum() for mask in masks])
    owner = np.full(record.size, len(record), dtype=np.int32)
    for row in np.lexsort((-areas, ~record.crowd)).tolist():
        owner[masks[row]] = row
    labels = np.append(record.labels, len(dataset.classes))
    crowd = np.append(record.crowd, False)
    return Segments(torch.from_numpy(owner), torch.from_numpy(labels), torch.ones(len(labels)), torch.from_numpy(crowd))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a COCO json with masks")
    parser.add_argument("images", type=Path, help="its photos")
    parser.add_argument("out", type=Path, help="the panoptic json; pictures go into a folder of its name")
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.source, arguments.images)
    stuff = Stuff(("background",), (max(dataset.category_ids) + 1,))
    numbers = (*dataset.category_ids, *stuff.category_ids)
    pictures = arguments.out.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    with counting_bar("panoptic set", len(dataset)) as bar:
        for index in range(len(dataset)):
            record = dataset.record(index)
            assert record.path is not None
            colors, infos = to_coco(laid_out(dataset, index), numbers)
            picture = f"{record.path.stem}.png"
            Image.fromarray(colors).save(pictures / picture)
            file = str(record.path.relative_to(arguments.images))
            images.append({"id": record.id, "file_name": file, "height": record.size[0], "width": record.size[1]})
            annotations.append({"image_id": record.id, "file_name": picture, "segments_info": infos})
            bar.advance()
    categories = categories_of(dataset.classes, dataset.category_ids, stuff)
    document = {"images": images, "annotations": annotations, "categories": categories}

    def write(file: Path) -> None:
        file.write_text(json.dumps(document), encoding="utf-8")

    write_atomically(arguments.out, write)
    print(f"{len(images)} images, {sum(len(a['segments_info']) for a in annotations)} segments: {arguments.out}")


if __name__ == "__main__":
    main()
