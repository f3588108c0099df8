"""Convolutions of an exported file in 8-bit integers, calibrated on the user's own photos, and what that changes on them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perpixel.engine.bar import counting_bar
from perpixel.engine.export import check_exportable, onnx_to_openvino, placed, trace, write_onnx
from perpixel.engine.exported import ExportedPredictor, Facts, load_exported, needed
from perpixel.engine.instances import Instances
from perpixel.engine.sources import Photo, list_sources
from perpixel.errors import InputError
from perpixel.models.detector import Detector
from perpixel.models.heads import Model
from perpixel.models.panoptic import PanopticModel
from perpixel.ops.boxes import pairwise_iou

PHOTOS = 100
"""Photos that calibration reads at most, evenly over the folder."""
SCORE = 0.3
"""Least score of the objects that are compared."""


@dataclass(frozen=True)
class Agreement:
    """What an int8 file finds of what the float32 file finds, objects of a score of at least `SCORE`.

    Attributes:
        photos: compared.
        objects: that float32 finds.
        found: of them, by int8: same class, IoU of boxes at least 0.5.
        others: what only int8 finds.
        box_iou, mask_iou: mean over the found; mask_iou None without masks. NaN where nothing is found.
        score: mean difference of their scores.
    """

    photos: int
    objects: int
    found: int
    others: int
    box_iou: float
    mask_iou: float | None
    score: float

    def __str__(self) -> str:
        text = f"int8 finds {self.found} of the {self.objects} objects that float32 finds on {self.photos} photos"
        text += f" (score {SCORE:g} or more), and {self.others} others"
        if self.found:
            masks = "" if self.mask_iou is None else f", of masks {self.mask_iou:.3f}"
            text += f"; mean IoU of boxes {self.box_iou:.3f}{masks}, scores differ by {self.score:.3f}"
        return text


def export_int8(model: Model, facts: Facts, path: Path, photos: Path, progress: bool = True) -> Agreement:
    """Writes an .onnx or .xml file whose convolutions, up to the choice of detections, compute in 8 bits.

    Weights have a scale a channel, activations one a map, from the least and largest value on the photos.

    Args:
        model, facts, path: as of `export_detector`.
        photos: folder to calibrate on, photos like those the file will see; `PHOTOS` of them are read.
        progress: whether to show bars.

    Raises:
        InputError: as `export_detector`; or no photos, or a .pt2 file.
    """
    check_exportable(model, path)
    assert isinstance(model, Detector | PanopticModel)
    if path.suffix == ".pt2":
        raise InputError(f"-o {path}: --int8 makes .onnx and .xml files")
    chosen = some_photos(photos)
    graph = trace(model.to("cpu"), facts.size)
    with placed(path) as file:
        floats, int8 = file.with_name("float32.onnx"), file.with_suffix(".onnx")
        write_onnx(graph, facts, floats)
        before = load_exported(floats, "cpu")
        quantize(floats, int8, before, chosen, progress)
        if path.suffix == ".xml":
            onnx_to_openvino(int8, facts, file)
            int8.unlink()
        agreement = agreement_of(before, load_exported(file, "cpu"), chosen, progress)
        floats.unlink()
    return agreement


def some_photos(folder: Path) -> list[Photo]:
    """At most `PHOTOS` photos of a folder, evenly over it.

    Raises:
        InputError: there is none.
    """
    listed = [item for item in list_sources(folder) if isinstance(item, Photo)]
    if not listed:
        raise InputError(f"--int8 {folder}: no photo to calibrate on")
    chosen = np.linspace(0, len(listed) - 1, min(PHOTOS, len(listed))).round().astype(int)
    return [listed[i] for i in chosen]


def quantize(floats: Path, int8: Path, predictor: ExportedPredictor, photos: Sequence[Photo], progress: bool) -> None:
    """Writes the file's int8 twin."""
    onnx = needed("onnx", "onnx", ".onnx")
    quantization = needed("onnxruntime.quantization", "onnx", ".onnx")
    with counting_bar("calibrate", len(photos), show=progress) as bar:

        class Inputs(quantization.CalibrationDataReader):
            """One photo after the other."""

            def __init__(self) -> None:
                self.frames = (frame for photo in photos for frame in photo.frames())

            def get_next(self) -> dict[str, np.ndarray] | None:
                """The next photo's input, None after the last."""
                frame = next(self.frames, None)
                if frame is None:
                    return None
                images = predictor.prepare(frame.image)[0][None].float().numpy()
                bar.advance()
                return {"images": images, "score": np.array([SCORE], np.float32)}

        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises a step that changes nothing here
        try:
            quantization.quantize_static(
                str(floats),
                str(int8),
                Inputs(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=after_the_choice(onnx.load(str(floats), load_external_data=False)),
            )
        finally:
            root.setLevel(level)


def after_the_choice(model: Any) -> list[str]:
    """Names of the nodes whose inputs depend on NMS: they work on as many rows as there are detections, perhaps none."""
    reached: set[str] = set()
    names = []
    for node in model.graph.node:  # in the order of computation
        if node.op_type == "NonMaxSuppression" or reached.intersection(node.input):
            reached.update(node.output)
            names.append(node.name)
    return names


def agreement_of(
    before: ExportedPredictor, after: ExportedPredictor, photos: Sequence[Photo], progress: bool = False
) -> Agreement:
    """What `after` finds of what `before` finds."""
    objects = others = 0
    pairs: list[tuple[float, float, float]] = []
    with counting_bar("compare", len(photos), show=progress) as bar:
        for frame in (frame for photo in photos for frame in photo.frames()):
            wanted, found = (predictor.predict_frames([frame], SCORE)[0] for predictor in (before, after))
            matched = match(wanted, found)
            objects, others = objects + len(wanted), others + len(found) - len(matched)
            for row, other, overlap in matched:
                masks = float("nan")
                if wanted.runs is not None:
                    one, two = wanted.mask(row), found.mask(other)
                    masks = float((one & two).sum() / max((one | two).sum(), 1))
                pairs.append((overlap, masks, abs(float(wanted.scores[row] - found.scores[other]))))
            bar.advance()
    box_iou, mask_iou, score = np.array(pairs).mean(axis=0).tolist() if pairs else (float("nan"),) * 3
    return Agreement(len(photos), objects, len(pairs), others, box_iou, None if np.isnan(mask_iou) else mask_iou, score)


def match(wanted: Instances, found: Instances) -> list[tuple[int, int, float]]:
    """Rows of both and the IoU of their boxes: best scored first, each takes the nearest free one of its class."""
    overlaps = pairwise_iou(torch.from_numpy(wanted.boxes), torch.from_numpy(found.boxes)).numpy()
    overlaps = np.where(wanted.labels[:, None] == found.labels[None], overlaps, 0)
    rows = []
    for row in range(len(wanted) if len(found) else 0):
        other = int(overlaps[row].argmax())
        if overlaps[row, other] >= 0.5:
            rows.append((row, other, float(overlaps[row, other])))
            overlaps[:, other] = 0
    return rows
