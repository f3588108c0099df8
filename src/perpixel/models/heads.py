"""The seam: what a box head and an instance head are, and the configs that build them.

A box head (FCOS, RetinaNet, NAS-FCOS) turns the pyramid into `DenseOutputs`. After assignment (training) or NMS
(inference) those become `Candidates`. An instance head (CondInst, PointINS, BlendMask ...) sees only candidates and dense
maps, so each one is a single file and runs on every box head alike.

Rules: `forward` is static and dense, so it compiles; every dynamic shape lives in `loss` and `predict`; modules hold weights
and no state of a step; n = 0 candidates flows through without a branch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.structures import (
    Batch,
    BoxMasks,
    Candidates,
    DenseOutputs,
    Detections,
    ImageMasks,
    Keypoints,
    Locations,
    Matches,
    Targets,
)

Losses = dict[str, Tensor]
Pyramid = tuple[Float[Tensor, "b c _ _"], ...]


class BoxHead(nn.Module, ABC):
    """Predicts a box, class scores and perhaps a quality at every location of the pyramid.

    Attributes:
        predicts_boxes: False where a variant leaves the box out: `DenseOutputs.boxes` then hold points, boxes of no size.
    """

    predicts_boxes: bool = True

    @abstractmethod
    def forward(self, pyramid: Pyramid) -> DenseOutputs:
        """Dense predictions from the pyramid's maps, finest first."""

    @abstractmethod
    def locate(self, shapes: tuple[tuple[int, int], ...], device: torch.device | str | None = None) -> Locations:
        """Where predictions stand on pyramid maps of these (height, width)."""

    @abstractmethod
    def assign(self, locations: Locations, targets: Sequence[Targets]) -> Matches:
        """Which target, if any, each location is trained on."""

    @abstractmethod
    def loss(self, outputs: DenseOutputs, matches: Matches, targets: Sequence[Targets]) -> Losses:
        """Scalar losses by name, already weighted: their sum is minimised."""


class InstanceHead(nn.Module, ABC):
    """Adds a mask or keypoints to candidates."""

    def retarget(self, targets: tuple[Targets, ...]) -> tuple[Targets, ...]:
        """The truth that the detector trains on, box head included: as it is, but for methods that learn without boxes."""
        return targets

    @abstractmethod
    def forward(self, pyramid: Pyramid, outputs: DenseOutputs) -> Any:
        """Image-level work, once a batch; whatever it returns arrives as `dense` below.

        `pyramid` holds the levels that the box head reads. `outputs.towers` are the box head's features: what is predicted of a
        candidate is read there, at candidates only (`perpixel.ops.sampling.patches_at`). `outputs.backbone` and `outputs.finer`
        are the maps that are neither.
        """

    @abstractmethod
    def choose(self, outputs: DenseOutputs, matches: Matches, batch: Batch) -> Candidates:
        """The candidates this head trains on; most heads return a `perpixel.models.candidates` policy's choice."""

    @abstractmethod
    def loss(self, dense: Any, candidates: Candidates, batch: Batch) -> Losses:
        """Scalar losses by name, already weighted."""

    @abstractmethod
    def predict(self, dense: Any, candidates: Candidates) -> BoxMasks | ImageMasks | Keypoints:
        """What the head says of each candidate, row by row."""


class Model(nn.Module, ABC):
    """What the engine knows of any model: its forward is dense and static, `loss` trains it, `predict` uses it."""

    @abstractmethod
    def loss(self, batch: Batch) -> Losses:
        """Scalar losses by name, already weighted."""

    @abstractmethod
    def predict(self, batch: Batch) -> list[Detections]:
        """What the model finds in each image, in pixels of the network's input."""


class VideoModel(Model):
    """A model that carries something from each frame of a video to the next."""

    @abstractmethod
    def follow(self, batch: Batch, memory: Any) -> tuple[list[Detections], Any]:
        """What is in the next frame of each video, and what to remember of it.

        Args:
            batch: a frame a video, all as large as those before.
            memory: what the call for the frames before returned; None for first frames.
        """


@dataclass(frozen=True)
class BoxHeadConfig(ABC):
    """Settings of a box head."""

    @abstractmethod
    def build(self, channels: int, strides: tuple[int, ...], classes: int) -> BoxHead:
        """The head for pyramid maps of `channels` channels at `strides`."""


@dataclass(frozen=True)
class InstanceHeadConfig(ABC):
    """Settings of an instance head."""

    @abstractmethod
    def build(self, channels: int, tower_channels: int, strides: tuple[int, ...], classes: int) -> InstanceHead:
        """The head for pyramid maps of `channels` and tower maps of `tower_channels` channels at `strides`."""

    def build_among(
        self, backbone: Mapping[int, int], pyramid: Mapping[int, int], strides: tuple[int, ...], classes: int
    ) -> InstanceHead:
        """As `build`; a head that reads more than the box head's levels overrides this.

        Args:
            backbone, pyramid: channels of the backbone's maps and of all of the pyramid's, by stride.
            strides: of the levels that the box head reads.
            classes: from the data set.
        """
        return self.build(pyramid[strides[0]], pyramid[strides[0]], strides, classes)

    def keypoint_names(self) -> tuple[str, ...]:
        """Names of the keypoints that the head learns, in the data's order; none for a head that learns something else."""
        return ()


@dataclass(frozen=True)
class ModelConfig(ABC):
    """Settings of a whole model."""

    def keypoint_names(self) -> tuple[str, ...]:
        """Names of the keypoints that the model learns; none for a model that learns something else."""
        return ()

    @abstractmethod
    def build(self, classes: int, stuff: int = 0) -> Model:
        """The model, its weights initialised; how many classes of objects and of stuff there are comes from the data set."""
