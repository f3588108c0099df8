"""Semantic segmentation of videos with a dynamic cell (thesis 004, chapter 6).

On a video's first frame the static network runs whole. On every later one the encoder runs, and in place of the decoder a
small cell, which sees layer 4 and ``dec`` of the frame before and layers 2, 3 and 4 of this one; its output is this frame's
``dec``, and the static network's classifier reads it.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from perpixel.errors import InputError
from perpixel.models.heads import Losses, VideoModel
from perpixel.models.mask_losses import pixel_cross_entropy
from perpixel.models.segmenter import Segmenter, SegmenterModel, class_truth
from perpixel.nn.dynamic_cell import CellGenotype, DynamicCell
from perpixel.structures import Batch, Detections

SIMPLE_CELL = CellGenotype.parse([[1, 2, 4, 0, 0], [5, 4, 4, 0, 0]])
"""Chosen by hand: ``dec`` of the frame before, layer 2 and layer 4 of this one, summed with a weight a channel."""


class Memory(NamedTuple):
    """What a frame leaves for the next one."""

    layer4: Float[Tensor, "b c32 h32 w32"]
    dec: Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class VideoSegmenter(Segmenter):
    """Settings: those of the static network, and the cell.

    Attributes:
        cell: what the dynamic cell is.
        static: how the static network trains: "fixed" while the cell alone learns (the first stage of 6.4.2), "trained" after.
        first_frame: weight of the static network's own losses on the first frame of each window, where it is trained and the
            frame is labelled; the thesis sums losses of later frames only (0).
    """

    cell: CellGenotype = field(default=SIMPLE_CELL)
    static: Literal["fixed", "trained"] = "trained"
    first_frame: float = 0.0

    def build(self, classes: int, stuff: int = 0) -> "VideoSegmenterModel":
        """The model for `stuff` classes of pixels.

        Raises:
            InputError: there are classes of objects, or none of stuff.
        """
        self.check(classes, stuff)
        return VideoSegmenterModel(self, stuff)


class VideoSegmenterModel(SegmenterModel, VideoModel):
    """A static network, whose weights have the names of `SegmenterModel`'s, and a cell."""

    def __init__(self, config: VideoSegmenter, classes: int):
        super().__init__(config, classes)
        self.cell = DynamicCell(config.cell, self.backbone.channels[1:], config.width)
        self.first_frame = config.first_frame
        self.fixed = config.static == "fixed"
        if self.fixed:
            for part in self._static():
                part.requires_grad_(False)

    def _static(self) -> tuple[torch.nn.Module, ...]:
        return self.backbone, self.decoder, self.classifier, self.auxiliary

    def train(self, mode: bool = True) -> "VideoSegmenterModel":
        """As of any module, but a fixed static network keeps its statistics."""
        super().train(mode)
        if self.fixed:
            for part in self._static():
                part.eval()
        return self

    def start(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Memory, list[Tensor]]:
        """The static network on normalised first frames: what the next frame sees, and the decoder's merges."""
        maps = self.encode(images)
        dec, merges = self.decoder(maps)
        return Memory(maps[-1], dec), merges

    def advance(self, memory: Memory, images: Float[Tensor, "b 3 h w"]) -> Memory:
        """The encoder and the cell on normalised next frames."""
        _, *layers = self._encoded(images)
        return Memory(layers[-1], self.cell(memory.layer4, memory.dec, layers))

    def _encoded(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad() if self.fixed else nullcontext():
            return self.encode(images)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
        """Logits of the images as first frames, and as second frames of videos that stand still: every weight in one graph."""
        memory, _ = self.start(images)
        return self.classifier(memory.dec), self.classifier(self.advance(memory, images).dec)

    def loss(self, batch: Batch) -> Losses:
        """The sum of the mean cross entropies of all frames of a window but the first."""
        if not batch.before:
            raise InputError(
                "a dynamic cell learns from windows of frames and the data came without: set data.frames=2"
            )
        first, *later = (*batch.before, batch)
        with torch.no_grad() if self.fixed else nullcontext():
            memory, merges = self.start(self.pixels.normalize(first.images, first.sizes))
        losses: Losses = {}
        if not self.fixed:
            own = self.losses(self.classifier(memory.dec), merges, class_truth(first))
            losses = {f"first_{name}": self.first_frame * value for name, value in own.items()}
        each = []
        for frame in later:
            memory = self.advance(memory, self.pixels.normalize(frame.images, frame.sizes))
            logits = self.classifier(memory.dec)
            with torch.autocast(logits.device.type, enabled=False):
                each.append(pixel_cross_entropy(logits.float(), class_truth(frame)))
        return losses | {"pixels": torch.stack(each).sum()}

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[Detections]:
        """The segments of the last frame of each window; of a photo alone those of the static network."""
        memory: Any = None
        for frame in batch.before:
            _, memory = self._step(frame, memory)
        return self.follow(batch, memory)[0]

    @torch.inference_mode()
    def follow(self, batch: Batch, memory: Memory | None) -> tuple[list[Detections], Memory]:
        """The segments of the next frame of each video."""
        logits, memory = self._step(batch, memory)
        return self.segmented(logits, batch), memory

    def _step(self, batch: Batch, memory: Memory | None) -> tuple[Tensor, Memory]:
        images = self.pixels.normalize(batch.images, batch.sizes)
        memory = self.start(images)[0] if memory is None else self.advance(memory, images)
        return self.classifier(memory.dec), memory
