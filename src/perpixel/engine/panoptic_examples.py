"""Segments of an evaluation to look at: each example's photo, truth and prediction side by side."""

from pathlib import Path

from PIL import Image

from perpixel.data.dataset import Dataset
from perpixel.data.panoptic import segments_of
from perpixel.engine.evaluate import Evaluation
from perpixel.engine.segments_picture import draw_segments, side_by_side


def write_examples(folder: Path, dataset: Dataset, evaluation: Evaluation) -> Path:
    """Writes a picture an example; returns the folder.

    Args:
        folder: made where it is missing.
        dataset: gives photos and truth.
        evaluation: its examples have segments.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names, things = (*dataset.classes, *dataset.stuff.names), len(dataset.classes)
    for index, found in evaluation.examples.items():
        record, image = dataset.record(index), dataset.image(index)
        drawn = [
            draw_segments(image, segments, [names[label] for label in segments.labels.tolist()], things)
            for segments in (segments_of(dataset, index), found.segments)
            if segments is not None
        ]
        height, width = image.shape[:2]
        photo = Image.fromarray(image).resize((drawn[0].width, height * drawn[0].width // width))
        name = f"image_{record.id}" if record.path is None else record.path.stem
        side_by_side([photo, *drawn]).save(folder / f"{name}.jpg", quality=90)
    return folder
