"""Numbers for objects that stay the same over the frames of a video.

Written from the description of ByteTrack (Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box",
ECCV 2022, section 3 and algorithm 1): tracks are matched with confident detections first, what is left of them with doubtful
ones, as a low score often means an object half hidden; only confident detections found a track. Where an object will be is
guessed from its constant velocity, by an alpha-beta filter (P. Kalata, 1984: the steady state of a Kalman filter) in place of the
paper's own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import networkx
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int

from perpixel.engine.instances import Instances
from perpixel.errors import InputError
from perpixel.ops.boxes import pairwise_iou


@dataclass(frozen=True)
class TrackSettings:
    """How detections become tracks; the defaults are the paper's (section 4.1) where it has them.

    Attributes:
        high: smallest score of a confident detection.
        low: smallest score of a doubtful one.
        found: smallest score that founds a track.
        overlap: smallest IoU of a track's guess and a confident detection.
        second_overlap: the same with a doubtful detection.
        keep: frames that a track outlives without a detection.
        confirm: frames in a row that a new track must be seen in before it is shown, but in the first frame.
        position, velocity: share of an error of the guess that the filter takes over into each; the second detection of a track
            gives both whole.
    """

    high: float = 0.6
    low: float = 0.1
    found: float = 0.7
    overlap: float = 0.2
    second_overlap: float = 0.5
    keep: int = 30
    confirm: int = 2
    position: float = 0.8
    velocity: float = 0.3

    @classmethod
    def for_score(cls, score: float) -> "TrackSettings":
        """Where detections from `score` on are shown, and each of them can found a track."""
        return cls(high=score, low=min(cls.low, score), found=score)

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= self.found <= 1:
            raise InputError(
                f"scores of tracks are 0 <= low <= high <= found <= 1, not {self.low}, {self.high}, {self.found}"
            )
        if self.keep < 0 or self.confirm < 1:
            raise InputError(f"keep={self.keep} and confirm={self.confirm} are at least 0 and 1 frames")


@dataclass
class Track:
    """One object over time.

    Attributes:
        number: its id, from 1.
        label: its class.
        box: cx, cy, width, height where it is, or is guessed to be.
        speed: change of cx, cy a frame; a size is taken to stay.
        seen: frames with a detection.
        missed: frames since the last one.
        shown: whether it was confirmed.
    """

    number: int
    label: int
    box: Float64[np.ndarray, " 4"]
    speed: Float64[np.ndarray, " 2"]
    seen: int = 1
    missed: int = 0
    shown: bool = False


class Tracker:
    """Follows objects from frame to frame; one for each video.

    Args:
        settings: see there.
    """

    def __init__(self, settings: TrackSettings | None = None) -> None:
        self.settings = settings or TrackSettings()
        self.tracks: list[Track] = []
        self.frames = 0
        self._last = 0

    def update(
        self, boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], labels: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """The number of the track of each detection of the next frame; 0 for those of no track that is shown.

        Args:
            boxes: (n, 4) xyxy.
            scores, labels: (n,).
        """
        settings, self.frames = self.settings, self.frames + 1
        for track in self.tracks:
            track.box[:2] += track.speed
            track.missed += 1
        found = np.zeros(len(boxes), dtype=np.int64)
        free = np.ones(len(boxes), dtype=bool)
        sure = scores >= settings.high
        # A new track that is not confirmed waits until confident detections are given to old ones.
        for rows, tracks, overlap in (
            (sure, [track for track in self.tracks if track.shown], settings.overlap),
            (
                ~sure & (scores >= settings.low),
                [track for track in self.tracks if track.shown],
                settings.second_overlap,
            ),
            (sure, [track for track in self.tracks if not track.shown], settings.overlap),
        ):
            tracks = [track for track in tracks if track.missed]
            for row, track in self._match(boxes, labels, rows & free, tracks, overlap):
                self._move(track, boxes[row])
                free[row] = False
                found[row] = track.number if track.shown else 0
        self.tracks = [t for t in self.tracks if t.missed <= (settings.keep if t.shown else 0)]
        for row in np.flatnonzero(free & (scores >= settings.found)).tolist():
            found[row] = self._found(boxes[row], int(labels[row]))
        return found

    def _match(
        self,
        boxes: Float[np.ndarray, "n 4"],
        labels: Int[np.ndarray, " n"],
        rows: Bool[np.ndarray, " n"],
        tracks: list[Track],
        least: float,
    ) -> list[tuple[int, Track]]:
        """Pairs of detections and tracks with the greatest sum of IoU, each at least `least`."""
        chosen = np.flatnonzero(rows)
        if not len(chosen) or not tracks:
            return []
        guessed = torch.from_numpy(np.stack([_corners(track.box) for track in tracks])).float()
        overlaps = pairwise_iou(torch.from_numpy(boxes[chosen]).float(), guessed).numpy()
        graph = networkx.Graph()
        for one, other in zip(*np.nonzero(overlaps >= max(least, 1e-6)), strict=True):
            row, track = int(chosen[one]), tracks[other]
            if track.label == labels[row]:
                graph.add_edge(("detection", row), ("track", int(other)), weight=float(overlaps[one, other]))
        pairs = []
        for pair in networkx.max_weight_matching(graph):
            sides = dict(pair)
            pairs.append((sides["detection"], tracks[sides["track"]]))
        return pairs

    def _move(self, track: Track, box: Float[np.ndarray, " 4"]) -> None:
        """Takes a detection into the track: the filter's correction."""
        error = _middle(box) - track.box
        position, velocity = (1.0, 1.0) if track.seen == 1 else (self.settings.position, self.settings.velocity)
        track.box = track.box + position * error
        # The error grew over all frames since the last detection.
        track.speed = track.speed + velocity * error[:2] / track.missed
        track.seen, track.missed = track.seen + 1, 0
        track.shown = track.shown or track.seen >= self.settings.confirm
        if track.shown and not track.number:
            self._last += 1
            track.number = self._last

    def _found(self, box: Float[np.ndarray, " 4"], label: int) -> int:
        track = Track(0, label, _middle(box), np.zeros(2))
        self.tracks.append(track)
        if self.frames == 1 or self.settings.confirm == 1:
            self._last += 1
            track.number, track.shown = self._last, True
        return track.number


def tracked(frames: Iterable[Instances], settings: TrackSettings, score: float) -> Iterator[Instances]:
    """Instances of the frames of one video, each with the number of its track; those below `score` only help to find them.

    Args:
        frames: in order, with scores down to `settings.low`.
        settings: of the tracker.
        score: smallest score that is given back, unless a track was matched with it.
    """
    tracker = Tracker(settings)
    for frame in frames:
        numbers = tracker.update(frame.boxes, frame.scores, frame.labels)
        yield replace(frame, tracks=numbers)[np.flatnonzero((frame.scores >= score) | (numbers > 0))]


def _middle(box: Float[np.ndarray, " 4"]) -> Float64[np.ndarray, " 4"]:
    """xyxy as cx, cy, width, height."""
    x1, y1, x2, y2 = (float(end) for end in box)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def _corners(box: Float64[np.ndarray, " 4"]) -> Float64[np.ndarray, " 4"]:
    """cx, cy, width, height as xyxy."""
    cx, cy, width, height = box
    return np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
