"""Names of keypoints, and which of them share a feature."""

from collections.abc import Sequence
from typing import Literal

from perpixel.errors import InputError
from perpixel.structures import COCO_KEYPOINTS

COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""Spread of each of COCO's keypoints between annotators, as its evaluation has it."""

BODY = (
    ("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    ("left_shoulder",),
    ("left_elbow", "left_wrist"),
    ("right_shoulder",),
    ("right_elbow", "right_wrist"),
    ("left_hip",),
    ("left_knee", "left_ankle"),
    ("right_hip",),
    ("right_knee", "right_ankle"),
)
"""The nine groups of thesis 002, 4.3.1, footnote 3."""

Groups = Literal["none", "body"] | tuple[tuple[str, ...], ...]


def sigmas_of(names: Sequence[str]) -> tuple[float, ...] | None:
    """COCO's spread of each of these keypoints; None where one is not COCO's."""
    known = dict(zip(COCO_KEYPOINTS, COCO_SIGMAS, strict=True))
    return tuple(known[name] for name in names) if known.keys() >= set(names) else None


def groups_of(names: Sequence[str], groups: Groups) -> tuple[tuple[int, ...], ...]:
    """The keypoints of each group, by number; every keypoint is in one.

    Args:
        names: of the keypoints.
        groups: lists of names; `body` the thesis's nine as far as their names are among these, every other keypoint alone;
            `none`: every keypoint alone.

    Raises:
        InputError: a list names what is no keypoint, or one twice, or leaves one out.
    """
    wanted = {"none": (), "body": BODY}[groups] if isinstance(groups, str) else groups
    if isinstance(groups, str):
        wanted = [[name for name in group if name in names] for group in wanted]
        wanted = [group for group in wanted if group]
        grouped = {name for group in wanted for name in group}
        wanted += [[name] for name in names if name not in grouped]
    listed = [name for group in wanted for name in group]
    if sorted(listed) != sorted(names) or not all(wanted):
        twice = {name for name in listed if listed.count(name) > 1}
        wrong = ", ".join(sorted(set(listed) ^ set(names) | twice)) or "a group without any"
        raise InputError(
            f"model.instance.align.groups hold each of model.instance.keypoints once, which is wrong of {wrong}"
        )
    return tuple(tuple(names.index(name) for name in group) for group in wanted)
