"""What was found in one photo, in pixels of that photo: the result users hold in their hands."""

import difflib
import importlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from perpixel.data.image import read_image
from perpixel.engine.segments_picture import draw_segments
from perpixel.engine.visualize import Style, draw, instance_colors, track_colors
from perpixel.errors import InputError
from perpixel.ops.mask_windows import encoded
from perpixel.ops.runs import Run, decode
from perpixel.structures import Detections, Segments


@dataclass(frozen=True, repr=False, eq=False)
class Instances:
    """Objects found in one photo, best first, in pixels of the ORIGINAL photo.

    Attributes:
        boxes: (n, 4) xyxy, inside the photo.
        scores: (n,) 0..1.
        labels: (n,) rows of `class_names`.
        class_names: all classes the model knows.
        size: (height, width) of the photo.
        runs: masks as COCO run lengths, one an instance, or None; `masks` decodes them.
        keypoints: (n, k, 3) x, y, score, or None.
        skeleton: pairs of keypoints that a limb joins in pictures, counted from 0.
        image: (h, w, 3) RGB pixels of the photo, or None: then `plot` reads `path` again.
        path: the file the photo came from, or None.
        frame: number of the video frame, or None.
        segments: every pixel of the photo, from a panoptic model, or None. They are the model's own choice: neither `keep` nor a
            choice of rows changes them.
        stuff_names: the classes without objects that the model knows: labels of segments go on with them.
        tracks: (n,) numbers of the objects over the frames of a video, from 1; 0 where an object is not followed (yet). None
            without tracking.
    """

    boxes: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    size: tuple[int, int]
    runs: tuple[Run, ...] | None = None
    keypoints: Float[np.ndarray, "n k 3"] | None = None
    skeleton: tuple[tuple[int, int], ...] = ()
    image: UInt8[np.ndarray, "h w 3"] | None = None
    path: Path | None = None
    frame: int | None = None
    segments: Segments | None = None
    stuff_names: tuple[str, ...] = ()
    tracks: Int[np.ndarray, " n"] | None = None

    @classmethod
    def from_detections(
        cls,
        detections: Detections,
        original_size: tuple[int, int],
        class_names: Sequence[str],
        score: float = 0.0,
        image: UInt8[np.ndarray, "h w 3"] | None = None,
        path: Path | None = None,
        frame: int | None = None,
        skeleton: tuple[tuple[int, int], ...] = (),
        stuff_names: Sequence[str] = (),
    ) -> "Instances":
        """Detections brought from the network's input to the photo.

        Boxes are scaled and clipped to the photo; those left empty, or below `score`, are dropped with their masks and
        keypoints. Box masks are spread over the whole box, the part outside the photo too: that is the box they were made for.

        Args:
            detections: of one image.
            original_size: (height, width) of the photo.
            class_names: name of each label.
            score: smallest score kept.
            image, path, frame, skeleton, stuff_names: as the attributes.
        """
        height, width = original_size
        scale = torch.tensor([width / detections.size[1], height / detections.size[0]])
        limit = torch.tensor([width, height, width, height], dtype=torch.float32)
        device = detections.boxes.device
        scaled = detections.boxes.float() * scale.repeat(2).to(device)
        boxes = scaled.clamp(min=0).minimum(limit.to(device))
        whole = (boxes[:, 2:] > boxes[:, :2]).all(1) & (detections.scores >= score)
        kept = whole.nonzero()[:, 0]
        boxes = boxes[kept]
        runs = keypoints = None
        if detections.masks is not None:
            runs = tuple(encoded(detections.masks.rows(kept), scaled[kept], detections.size, original_size))
        if detections.keypoints is not None:
            values = detections.keypoints.rows(kept).values.float()
            keypoints = torch.cat([values[..., :2] * scale.to(device), values[..., 2:]], -1).cpu().numpy()
        return cls(
            boxes=boxes.cpu().numpy(),
            scores=detections.scores[kept].float().cpu().numpy(),
            labels=detections.labels[kept].cpu().numpy(),
            class_names=tuple(class_names),
            size=original_size,
            runs=runs,
            keypoints=keypoints,
            skeleton=skeleton,
            image=image,
            path=path,
            frame=frame,
            segments=None if detections.segments is None else detections.segments.to("cpu"),
            stuff_names=tuple(stuff_names),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator["Instances"]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> "Instances":
        """The chosen rows as Instances; one number gives one instance."""
        index = np.arange(len(self))[[rows] if isinstance(rows, int | np.integer) else rows]
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            runs=None if self.runs is None else tuple(self.runs[row] for row in index),
            keypoints=None if self.keypoints is None else self.keypoints[index],
            tracks=None if self.tracks is None else self.tracks[index],
        )

    def __repr__(self) -> str:
        name = self.path.name if self.path else "a photo"
        name += f" frame {self.frame}" if self.frame is not None else ""
        counts = Counter(self.names).most_common()
        what = ", ".join(f"{count} {name}" for name, count in counts) or "nothing"
        if not self.class_names and self.segments is not None:
            what = largest_shares(self.pixels, self.size[0] * self.size[1])
        best = f"; best {self.scores.max():.2f}" if len(self) else ""
        extra = [word for word, value in (("masks", self.runs), ("keypoints", self.keypoints)) if value is not None]
        extra += [] if self.segments is None else [f"{len(self.segments)} segments"]
        return f"Instances({what} in {name}, {self.size[1]}x{self.size[0]}{best}{''.join(f'; {e}' for e in extra)})"

    @property
    def names(self) -> list[str]:
        """The class name of each instance."""
        return [self.class_names[label] for label in self.labels]

    @property
    def segment_names(self) -> list[str]:
        """The class name of each segment; empty without segments."""
        known = (*self.class_names, *self.stuff_names)
        return [] if self.segments is None else [known[label] for label in self.segments.labels.tolist()]

    @property
    def pixels(self) -> Counter[str]:
        """Number of pixels of each class that segments have; empty without segments."""
        if self.segments is None:
            return Counter()
        owners = self.segments.map
        counts = torch.bincount(owners[owners >= 0], minlength=len(self.segments)).tolist()
        pixels: Counter[str] = Counter()
        for name, count in zip(self.segment_names, counts, strict=True):
            pixels[name] += count
        return pixels

    @property
    def masks(self) -> Bool[np.ndarray, "n h w"] | None:
        """All masks at full size, decoded anew at each call; a loop over `mask(row)` needs less memory."""
        return None if self.runs is None else decode(self.runs, self.size)

    def mask(self, row: int) -> Bool[np.ndarray, "h w"]:
        """One instance's mask at full size."""
        if self.runs is None:
            raise InputError("these instances have no masks: the model predicts boxes only")
        return decode([self.runs[row]], self.size)[0]

    def keep(self, score: float = 0.0, classes: Iterable[str] | None = None) -> "Instances":
        """Only instances of at least this score and, where given, of these classes by name.

        Raises:
            InputError: a class the model does not know.
        """
        chosen = self.scores >= score
        if classes is not None:
            wanted = [classes] if isinstance(classes, str) else list(classes)
            for name in wanted:
                if name not in self.class_names:
                    close = difflib.get_close_matches(name, self.class_names, n=1)
                    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(self.class_names[:20])}"
                    raise InputError(f"{name!r} is not a class of this model; {hint}")
            chosen &= np.isin(self.labels, [self.class_names.index(name) for name in wanted])
        return self[chosen]

    def without_image(self) -> "Instances":
        """The same without the photo's pixels, where `plot` can read them again from `path`."""
        return self if self.path is None or self.frame is not None else replace(self, image=None)

    def plot(self, style: Style | None = None) -> Image.Image:
        """The photo with everything found drawn on it.

        Raises:
            InputError: neither the pixels nor a file to read them from are known.
        """
        image = self.image
        if image is None:
            if self.path is None or self.frame is not None:
                raise InputError("these instances do not hold their photo: give Instances(image=...) to draw on")
            image = read_image(self.path)
        if self.segments is not None:
            # Frames of a video keep their size, which a legend would change.
            things = len(self.class_names)
            return draw_segments(image, self.segments, self.segment_names, things, style, legend=self.frame is None)
        return draw(
            image,
            self.boxes,
            self._texts(),
            instance_colors(self.labels.tolist(), len(self.class_names))
            if self.tracks is None
            else track_colors(self.tracks.tolist()),
            None if self.runs is None else (self.mask(row) for row in range(len(self))),
            self.keypoints,
            self.skeleton,
            style,
        )

    def _texts(self) -> list[str]:
        """What is written at each instance."""
        if self.tracks is None:
            return [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)]
        return [f"{name} {number or '?'}" for name, number in zip(self.names, self.tracks.tolist(), strict=True)]

    def save(self, path: str | Path, style: Style | None = None) -> Path:
        """Writes `plot()` to a file; the ending chooses the format (jpg, png, webp).

        Raises:
            InputError: an ending that names no picture format.
        """
        target = Path(path)
        if target.suffix.lower() not in Image.registered_extensions():
            raise InputError(f"{target} has no ending that names a picture format: use .jpg or .png")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.plot(style).save(target, quality=92)
        return target

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results, a dict an instance: bbox as xywh, score, and segmentation, keypoints and track_id where there are any.

        Args:
            image_id: the photo in the data set.
            category_ids: the data set's id of each label; by default label + 1.
        """
        results = []
        for row, (box, score, label) in enumerate(
            zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        ):
            left, top, right, bottom = box
            result: dict[str, Any] = {
                "image_id": image_id,
                "category_id": category_ids[label] if category_ids is not None else label + 1,
                "bbox": [left, top, right - left, bottom - top],
                "score": score,
            }
            if self.runs is not None:
                result["segmentation"] = self.runs[row]
            if self.keypoints is not None:
                # COCO counts keypoints by pixel index; here a pixel's centre lies half a pixel further.
                result["keypoints"] = (self.keypoints[row] - (0.5, 0.5, 0)).reshape(-1).tolist()
            if self.tracks is not None:
                result["track_id"] = int(self.tracks[row])
            results.append(result)
        return results

    def to_supervision(self) -> Any:
        """`supervision.Detections` with boxes, masks, scores, class names and, with tracking, tracker ids.

        An object that is not followed (yet) has the tracker id -1, as supervision has it.

        Raises:
            InputError: supervision is not installed.
        """
        try:
            supervision = importlib.import_module("supervision")
        except ImportError as error:
            raise InputError(
                "to_supervision() needs the package supervision: pip install 'perpixel[supervision]'"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels.astype(int),
            tracker_id=None if self.tracks is None else np.where(self.tracks > 0, self.tracks, -1),
            data={"class_name": np.array(self.names, dtype=str)},
        )


def largest_shares(pixels: Counter[str], whole: int, most: int = 3) -> str:
    """The classes that most of `whole` pixels have, in words."""
    shares = [f"{name} {100 * count / whole:.0f} %" for name, count in pixels.most_common(most) if count]
    return f"{', '.join(shares)} of the pixels" if shares else "no pixel has a class"
