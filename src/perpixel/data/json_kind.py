"""Which form a json of annotations has: told by its first image and its first annotation, in one walk."""

from pathlib import Path
from typing import Any, Literal

from perpixel.data.json_stream import members

LISTS_OF_LVIS = ("neg_category_ids", "not_exhaustive_category_ids")
"""Classes that are not in an image, and those of which not all objects are drawn: members of LVIS's images alone."""


def json_kind(path: Path) -> Literal["instances", "panoptic", "lvis"]:
    """COCO's instances, COCO's panoptic form (annotations list segments), or LVIS (images list classes that are not in them).

    Raises:
        InputError: the file cannot be read or is not json.
    """
    seen: dict[str, Any] = {}
    for member, items in members(path):
        for item in items:
            first = seen.setdefault(member, item)
            if not isinstance(first, dict):
                continue
            if member == "annotations" and "segments_info" in first:
                return "panoptic"
            if member == "images" and LISTS_OF_LVIS[0] in first:
                return "lvis"
            if {"images", "annotations"} <= seen.keys():
                return "instances"
    return "instances"
