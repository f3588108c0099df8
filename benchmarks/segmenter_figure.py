"""The picture of docs/methods/video_segmentation.md: generated scenes, their truth, and what a model of pixels says.

    uv run perpixel train arch2_scenes --out runs/arch2_scenes
    uv run python benchmarks/segmenter_figure.py runs/arch2_scenes/last.safetensors docs/images/segmenter.jpg

The scenes are those of another seed than the training's.
"""

import argparse
from pathlib import Path

from PIL import Image

from perpixel.data.open import open_dataset
from perpixel.data.panoptic import segments_of
from perpixel.engine.instances import Instances
from perpixel.engine.load import load
from perpixel.engine.segments_picture import draw_segments

GAP = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--scenes", default="scenes:3:7")
    asked = parser.parse_args()
    predictor, dataset = load(asked.checkpoint, "cpu"), open_dataset(asked.scenes, all_stuff=True)
    rows = []
    for index in range(len(dataset)):
        image = dataset.image(index)
        found, truth = predictor.predict(image), segments_of(dataset, index)
        assert isinstance(found, Instances)
        true = draw_segments(image, truth, [dataset.stuff.names[label] for label in truth.labels.tolist()], 0)
        photo = Image.fromarray(image).resize((true.width, true.width * image.shape[0] // image.shape[1]))
        rows.append([photo, true, found.plot()])
    width, heights = rows[0][0].width, [max(one.height for one in row) for row in rows]
    sheet = Image.new("RGB", (3 * width + 2 * GAP, sum(heights) + GAP * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, one in enumerate(row):
            sheet.paste(one, (column * (width + GAP), top))
        top += height + GAP
    sheet.thumbnail((900, 900), Image.Resampling.LANCZOS)
    sheet.save(asked.picture, quality=82, optimize=True)
    print(f"{asked.picture}: {asked.picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
