"""Exported files at work: ONNX, OpenVINO and AOTInductor files behind the same face as a checkpoint."""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from perpixel import __version__
from perpixel.config import ConfigError, from_dict, to_dict
from perpixel.data.geometry import resized_inside, whole
from perpixel.data.image import Image
from perpixel.data.settings import TestSize
from perpixel.engine.checkpoint import Checkpoint
from perpixel.engine.predict import AnyPredictor
from perpixel.errors import InputError
from perpixel.models.detector import DetectorConfig
from perpixel.models.panoptic import PanopticFPN, laid_on
from perpixel.ops.panoptic import Merge
from perpixel.structures import Batch, Detections, ImageMasks, Keypoints, Stuff

Found = dict[str, np.ndarray]


@dataclass(frozen=True)
class Facts:
    """What an exported file says of itself, each value as JSON in the file's own metadata.

    Attributes:
        recipe: name of the model's recipe.
        class_names: name of each class index.
        category_ids: what each class index is called in the data set's own results.
        short_side, max_side: the size photos are resized to (the long side never exceeds `max_side`).
        size: (height, width) of the only input the file takes, or None: then any.
        padding: RGB of the pixels around a photo that does not fill such a size.
        threshold: least score in the file; a request may ask for more.
        keep: rows an image at most.
        smallest: pixels of either side at least.
        keypoint_names: of the keypoints, if the file predicts any.
        skeleton: pairs of them that a limb joins in pictures, counted from 0.
        stuff: the classes without objects, if the file tells them.
        merge: how objects and stuff then share the pixels.
        version: of the library that wrote the file.
    """

    recipe: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    short_side: int
    max_side: int
    size: tuple[int, int] | None
    padding: tuple[float, ...]
    threshold: float
    keep: int
    smallest: int = 1
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    stuff: Stuff = field(default_factory=Stuff)
    merge: Merge = field(default_factory=Merge)
    version: str = __version__

    def to_metadata(self) -> dict[str, str]:
        """Name -> JSON."""
        return {name: json.dumps(value) for name, value in to_dict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> "Facts":
        """What `to_metadata` gave; other entries are left alone.

        Raises:
            InputError: the file was not made by this library.
        """
        known = {field.name for field in fields(cls)}
        try:
            return from_dict(cls, {name: json.loads(text) for name, text in metadata.items() if name in known})
        except (ConfigError, json.JSONDecodeError) as error:
            raise InputError(
                f"{path} does not say its classes and sizes: use a file that `perpixel export` wrote"
            ) from error


def facts_of(checkpoint: Checkpoint, size: tuple[int, int] | None = None) -> Facts:
    """What a checkpoint's exported file says of itself.

    Args:
        checkpoint: of a detector, or of a panoptic model around one.
        size: (height, width) of the only input the file takes.

    Raises:
        InputError: the checkpoint's model is another.
    """
    recipe = checkpoint.recipe
    panoptic = recipe.model if isinstance(recipe.model, PanopticFPN) else None
    model = recipe.model if panoptic is None else panoptic.detector
    if not isinstance(model, DetectorConfig):
        raise InputError(
            f"{checkpoint.path}: a {type(model).__name__} is not exported: only detectors are, alone or under a semantic branch"
        )
    return Facts(
        recipe.name,
        checkpoint.class_names,
        checkpoint.category_ids,
        recipe.data.test.short_side,
        recipe.data.test.max_side,
        size,
        model.pixels.mean,
        model.selection.threshold,
        model.selection.keep,
        keypoint_names=model.keypoint_names(),
        skeleton=checkpoint.skeleton,
        stuff=Stuff() if panoptic is None else checkpoint.stuff,
        merge=Merge() if panoptic is None else panoptic.merge,
    )


class ExportedFile(ABC):
    """A file in the hands of its runtime.

    Attributes:
        facts: what it says of itself.
    """

    facts: Facts

    @abstractmethod
    def run(self, images: Float[np.ndarray, "b 3 h w"], score: float) -> Found:
        """The file's outputs by name: see `perpixel.models.static.StaticDetector`."""


class OnnxFile(ExportedFile):
    """ONNX Runtime, on the GPU where it has one."""

    def __init__(self, path: Path, device: torch.device | None):
        runtime = needed("onnxruntime", "onnx", ".onnx")
        there = runtime.get_available_providers()
        wanted = {"CUDAExecutionProvider": "cuda", "CPUExecutionProvider": "cpu"}
        chosen = [name for name, kind in wanted.items() if name in there and (device is None or device.type == kind)]
        if not chosen:
            raise InputError(f"--device {device}: ONNX Runtime here runs on {', '.join(there)}; leave the option out")
        try:
            self.session = runtime.InferenceSession(str(path), providers=chosen)
        except runtime.capi.onnxruntime_pybind11_state.InvalidProtobuf as error:
            raise InputError(f"{path} is truncated, corrupt or no ONNX file: export it again") from error
        self.facts = Facts.from_metadata(self.session.get_modelmeta().custom_metadata_map, path)
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, images: Float[np.ndarray, "b 3 h w"], score: float) -> Found:
        """One call of the session."""
        values = self.session.run(None, {"images": images, "score": np.array([score], np.float32)})
        return dict(zip(self.names, values, strict=True))


class OpenVinoFile(ExportedFile):
    """OpenVINO on the processor, in the precision of the file: left to itself it computes in bfloat16 where it can."""

    def __init__(self, path: Path, device: torch.device | None):
        runtime = needed("openvino", "openvino", ".xml")
        if device is not None and device.type != "cpu":
            raise InputError(f"--device {device}: OpenVINO files run on the processor here; leave the option out")
        try:
            model = runtime.Core().read_model(str(path))
        except RuntimeError as error:
            raise InputError(f"{path} is truncated, corrupt or without its .bin file: export it again") from error
        info = model.get_rt_info()
        metadata = {name: value.value for name, value in info["perpixel"].items()} if "perpixel" in info else {}
        self.facts = Facts.from_metadata(metadata, path)
        self.model = runtime.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.names = [output.any_name for output in self.model.outputs]

    def run(self, images: Float[np.ndarray, "b 3 h w"], score: float) -> Found:
        """One call of the compiled model."""
        found = self.model({"images": images, "score": np.array([score], np.float32)})
        return {name: found[name] for name in self.names}


class InductorFile(ExportedFile):
    """A package that AOTInductor compiled for one kind of device; it needs PyTorch, but none of the model's code."""

    def __init__(self, path: Path, device: torch.device | None):
        importlib.import_module("torchvision")  # registers NMS
        try:
            self.package: Any = torch._inductor.aoti_load_package(str(path))
        except RuntimeError as error:
            raise InputError(f"{path} cannot be loaded ({str(error).splitlines()[0]}): export it again here") from error
        metadata = self.package.get_metadata()
        self.device = torch.device(metadata["AOTI_DEVICE_KEY"])
        if device is not None and device.type != self.device.type:
            raise InputError(f"{path} was compiled for {self.device.type}: export it again with --device {device}")
        self.facts = Facts.from_metadata(metadata, path)

    def run(self, images: Float[np.ndarray, "b 3 h w"], score: float) -> Found:
        """One call of the package.

        Raises:
            InputError: the images are too small for what was compiled.
        """
        if min(images.shape[2:]) < self.facts.smallest:
            raise InputError(
                f"a .pt2 file takes images of at least {self.facts.smallest} pixels a side, and these are "
                f"{images.shape[2]} x {images.shape[3]}: export with a larger data.test.short_side, or to .onnx"
            )
        found = self.package(torch.from_numpy(images).to(self.device), torch.tensor([score], device=self.device))
        return {name: value.cpu().numpy() for name, value in found.items()}


KINDS: dict[str, type[Any]] = {".onnx": OnnxFile, ".xml": OpenVinoFile, ".pt2": InductorFile}
"""How a file is run, by the ending of its name."""


def needed(module: str, extra: str, ending: str) -> Any:
    """The runtime's module.

    Raises:
        InputError: it is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{ending} files need {module}: pip install 'perpixel[{extra}]'") from error


class ExportedPredictor(AnyPredictor):
    """An exported file with what is needed to use it on photos."""

    def __init__(self, file: ExportedFile):
        facts = file.facts
        super().__init__(
            facts.class_names,
            TestSize(facts.short_side, facts.max_side),
            1,
            facts.category_ids,
            stuff=facts.stuff,
            keypoint_names=facts.keypoint_names,
            skeleton=facts.skeleton,
        )
        self.file = file

    def prepare(self, image: Image) -> tuple[Num[Tensor, "3 h w"], tuple[int, int]]:
        """The photo at the size that suits the file; of a file of one size, in its upper left corner."""
        size = self.file.facts.size
        if size is None:
            return super().prepare(image)
        inside = resized_inside(image.shape[:2], size)
        canvas = torch.tensor(self.file.facts.padding)[:, None, None].repeat(1, *size)
        pixels = whole(image.shape[:2], inside).image(image)
        canvas[:, : inside[0], : inside[1]] = torch.from_numpy(pixels).permute(2, 0, 1)
        return canvas, inside

    def detect(self, batch: Batch, score: float) -> list[Detections]:
        """One run for all images of a size."""
        found: list[Detections | None] = [None] * len(batch)
        # Objects below the score asked for may still own pixels.
        score = min(score, self.file.facts.merge.score) if self.stuff else score
        for size in dict.fromkeys(batch.sizes):
            rows = [row for row, other in enumerate(batch.sizes) if other == size]
            height, width = self.file.facts.size or size
            images = batch.images[rows, :, :height, :width].float().contiguous()
            values = self.file.run(images.numpy(), score)
            maps = values.pop("stuff") if self.stuff else None
            for place, (row, one) in enumerate(zip(rows, split(values, len(rows), size), strict=True)):
                found[row] = (
                    one if maps is None else self.segmented(one, maps[place], (batch.originals or batch.sizes)[row])
                )
        return [one for one in found if one is not None]

    def segmented(self, found: Detections, stuff: np.ndarray, original_size: tuple[int, int]) -> Detections:
        """The same detections with the segments of the photo, whose stuff is that of the nearest pixel of the input."""
        height, width = found.size
        there = torch.from_numpy(np.ascontiguousarray(stuff[:height, :width]))[None, None]
        nearest = functional.interpolate(there, size=original_size, mode="nearest-exact")[0, 0].long()
        facts = self.file.facts
        return replace(found, segments=laid_on(nearest, found, len(facts.class_names), facts.merge))


def split(found: Found, images: int, size: tuple[int, int]) -> list[Detections]:
    """A file's outputs as detections of each image, whose (height, width) inside the input is `size`."""
    values = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}
    parts = []
    for image in range(images):
        of_image = values["image"] == image
        one = {name: value[of_image] for name, value in values.items()}
        masks = ImageMasks(one["masks"], 1) if "masks" in one else None
        keypoints = Keypoints(one["keypoints"]) if "keypoints" in one else None
        parts.append(Detections(one["boxes"], one["scores"], one["classes"], size, masks, keypoints))
    return parts


def load_exported(path: str | Path, device: torch.device | str | None = None) -> ExportedPredictor:
    """The model of an exported file, ready to predict.

    Args:
        path: an .onnx, .xml (with the .bin beside it) or .pt2 file that `perpixel export` wrote. A .pt2 file holds compiled
            code: load only what you trust.
        device: where to compute; None takes what the runtime has.

    Raises:
        InputError: no such file, of another origin, or its runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    return ExportedPredictor(KINDS[path.suffix](path, None if device is None else torch.device(device)))


def is_exported(path: str | Path) -> bool:
    """Whether the file's ending is that of an exported file."""
    return Path(path).suffix in KINDS
