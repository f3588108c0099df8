"""What a request is answered: everything found as JSON, COCO results, GeoJSON, or a picture."""

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import BaseModel, Field

from perpixel.engine.instances import Instances
from perpixel.engine.palette import hexadecimal
from perpixel.engine.predict import AnyPredictor
from perpixel.engine.segments_picture import segment_colors
from perpixel.engine.visualize import instance_colors
from perpixel.ops.contours import polygons
from perpixel.ops.runs import encode

Form = Literal["json", "coco", "geojson", "png"]
Masks = Literal["runs", "polygons", "none"]
Polygons = list[list[list[tuple[int, int]]]]


class Runs(BaseModel):
    """A mask as COCO's compressed run lengths."""

    size: tuple[int, int] = Field(description="height and width of the photo")
    counts: str


class Shape(BaseModel):
    """What an instance and a segment have in common; all lengths are in pixels of the photo."""

    class_name: str
    label: int = Field(description="row of the model's classes, those of stuff after those of objects")
    category_id: int = Field(description="the training data's own number of the class")
    score: float
    area: float = Field(description="of the mask, or of the box where there is no mask")
    color: str = Field(description="as pictures and the page show it, #rrggbb")
    runs: Runs | None = None
    polygons: Polygons | None = Field(
        None, description="parts of the mask; of each the outline, then its holes, as x, y along the edges of pixels"
    )


class InstanceAnswer(Shape):
    """An object."""

    box: tuple[float, float, float, float] = Field(description="left, top, right, bottom")
    keypoints: list[tuple[float, float, float]] | None = Field(None, description="x, y, score of each")


class SegmentAnswer(Shape):
    """A segment of a panoptic model: every pixel of the photo belongs to one or to none."""

    thing: bool = Field(description="an object, not stuff such as sky")


class PhotoAnswer(BaseModel):
    """One photo, best instances first."""

    name: str
    width: int
    height: int
    instances: list[InstanceAnswer]
    segments: list[SegmentAnswer] | None = Field(None, description="from a panoptic model only")


class Answer(BaseModel):
    """What a model found in the photos of a request, in their order."""

    model: str
    photos: list[PhotoAnswer]


class Told(BaseModel):
    """Why a request was refused, in one sentence."""

    error: str


def photo_answer(found: Instances, name: str, predictor: AnyPredictor, masks: Masks) -> PhotoAnswer:
    """One photo's part of the answer."""
    height, width = found.size
    ids = category_ids(predictor)
    instances = []
    colors = instance_colors(found.labels.tolist(), len(found.class_names))
    for row, (box, score, label) in enumerate(
        zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    ):
        mask = None if found.runs is None else found.mask(row)
        points = None if found.keypoints is None else [tuple(point) for point in found.keypoints[row].tolist()]
        shape = _shape(mask, masks, None if found.runs is None else found.runs[row])
        instances.append(
            InstanceAnswer(
                class_name=found.class_names[label],
                label=label,
                category_id=ids[label],
                score=score,
                area=(box[2] - box[0]) * (box[3] - box[1]) if mask is None else int(mask.sum()),
                color=hexadecimal(colors[row]),
                box=tuple(box),
                keypoints=points,
                **shape,
            )
        )
    segments = None if found.segments is None else _segment_answers(found, ids, masks)
    return PhotoAnswer(name=name, width=width, height=height, instances=instances, segments=segments)


def _segment_answers(found: Instances, ids: Sequence[int], masks: Masks) -> list[SegmentAnswer]:
    assert found.segments is not None
    things = len(found.class_names)
    owner, labels = found.segments.map.numpy(), found.segments.labels.tolist()
    answers = []
    colors = segment_colors(labels, things)
    for row, (label, score) in enumerate(zip(labels, found.segments.scores.tolist(), strict=True)):
        mask = owner == row
        answers.append(
            SegmentAnswer(
                class_name=found.segment_names[row],
                label=label,
                category_id=ids[label],
                score=score,
                area=int(mask.sum()),
                color=hexadecimal(colors[row]),
                thing=label < things,
                **_shape(mask, masks, None),
            )
        )
    return answers


def _shape(mask: Bool[np.ndarray, "h w"] | None, masks: Masks, run: dict[str, Any] | None) -> dict[str, Any]:
    if mask is None or masks == "none":
        return {}
    if masks == "runs":
        return {"runs": run or encode(mask[None])[0]}
    return {"polygons": [[part.outline, *part.holes] for part in polygons(mask)]}


def category_ids(predictor: AnyPredictor) -> tuple[int, ...]:
    """The training data's number of each label, those of stuff after those of objects."""
    things = predictor.category_ids or tuple(range(1, len(predictor.class_names) + 1))
    return (*things, *predictor.stuff.category_ids)


def geojson(photos: Sequence[PhotoAnswer]) -> str:
    """A FeatureCollection of all photos: coordinates are pixels, y down, and an outline's first corner is repeated at its end.

    An instance without a mask is its box. `photos` hold polygons.
    """
    features = []
    for photo in photos:
        for kind, shapes in (("instance", photo.instances), ("segment", photo.segments or [])):
            for shape in shapes:
                parts = shape.polygons
                if parts is None and isinstance(shape, InstanceAnswer):
                    left, top, right, bottom = shape.box
                    parts = [[[(left, top), (right, top), (right, bottom), (left, bottom)]]]
                closed = [[[*ring, ring[0]] for ring in part] for part in parts or []]
                rest = shape.model_dump(exclude={"polygons", "runs"}, exclude_none=True)
                features.append(
                    {
                        "type": "Feature",
                        "geometry": {"type": "MultiPolygon", "coordinates": closed},
                        "properties": {"photo": photo.name, "kind": kind, **rest},
                    }
                )
    return json.dumps({"type": "FeatureCollection", "features": features})


def coco(found: Sequence[Instances], names: Sequence[str], predictor: AnyPredictor) -> str:
    """What `perpixel predict` writes into results.json: `image_id` counts the photos from 1."""
    return json.dumps(
        [
            result | {"file_name": name}
            for number, (one, name) in enumerate(zip(found, names, strict=True), start=1)
            for result in one.to_coco(number, predictor.category_ids)
        ]
    )


def picture(found: Instances) -> bytes:
    """A PNG of the photo with everything drawn on it."""
    out = BytesIO()
    found.plot().save(out, "PNG")
    return out.getvalue()
