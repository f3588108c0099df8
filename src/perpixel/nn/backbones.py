"""Backbones: any timm model that gives feature maps, with the adapters that detectors need.

Frozen batch normalisation, frozen early stages, the ResNet and the VoVNet of the published detectron2 weights (stride in the
1x1 convolution; squeeze and excitation after every block), deformable stages (thesis 002, 3.3.3) and blurred strides (thesis
004, 3.3.2). timm's DLA-34 is the published one as it is: equal at all six levels (docs/parity.md).
"""

import difflib
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, TypeVar

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError
from jaxtyping import Float
from timm.models.resnet import Bottleneck
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.nn.blur import blur_strided
from perpixel.nn.deform import DeformConv2d
from perpixel.nn.frozen import freeze_until, with_frozen_norms
from perpixel.nn.pretrained import GO_ON, check_available, load_backbone_file
from perpixel.nn.vovnet import squeeze_every_block

T = TypeVar("T")

# By timm's module. A Swin of 224 pixels would not shift the windows of its last stage, of which it has one, at any other size.
_ANY_SIZE: dict[str, dict[str, Any]] = {
    "timm.models.swin_transformer": {"dynamic_img_size": True, "always_partition": True},
    "timm.models.swin_transformer_v2": {"dynamic_img_size": True},
    "timm.models.swin_transformer_v2_cr": {"dynamic_img_size": True},
}
_TRIED = (96, 160)
"""Height and width of the image that every backbone is tried with: multiples of 32, as a detector pads to."""


@dataclass(frozen=True)
class Backbone:
    """Settings of a backbone.

    Attributes:
        name: any timm model with feature maps that takes images of every size, Swin transformers too; after a dot the tag of
            its weights, if certain ones are meant (`resnet50.tv_in1k`).
        stages: strides of the maps it returns, finest first.
        stride_in_1x1: a bottleneck's stride sits in its first 1x1 convolution, as in the published weights of detectron2 and
            AdelaiDet, in place of its 3x3.
        squeeze_every_block: a VoVNet's squeeze and excitation follows every block, as in the published weights of detectron2 and
            AdelaiDet, in place of a stage's last alone.
        norm: batch norms with fixed statistics and affine map, or trained ones.
        frozen_stages: halvings of the image whose layers get no gradient: 2 is the stem and the stride-4 stage (detectron2's
            FREEZE_AT 2), 0 none.
        deformable_stages: strides of stages whose 3x3 convolutions are deformable (modulated).
        deformable_interval: every how-manieth block of such a stage is, from the first on ("dcni3": 3).
        blur: M, side of the blur between each strided convolution and its stride (BlurConv, thesis 004, eq. 3.4). Not by timm's
            `aa_layer`: that blurs after norm and ReLU, leaves the 1x1 shortcuts as they are, and is there for few networks.
            What reads the image keeps its stride: the thesis blurs "features".
        weights: "imagenet": timm's; a file's path, of a backbone or of a checkpoint that has this one; None: random.
    """

    name: str = "resnet50"
    stages: tuple[int, ...] = (8, 16, 32)
    stride_in_1x1: bool = False
    squeeze_every_block: bool = False
    norm: Literal["frozen", "train"] = "frozen"
    frozen_stages: int = 2
    deformable_stages: tuple[int, ...] = ()
    deformable_interval: int = 1
    blur: Literal[3, 5, 7] | None = None
    weights: str | None = "imagenet"

    def build(self) -> "BackboneModule":
        """The module, its weights loaded.

        Raises:
            InputError: timm has no such model, it has no map of a wanted stride, an adapter does not fit it, or its weights
                cannot be had.
        """
        if self.squeeze_every_block and self.weights == "imagenet":
            raise InputError(f"timm's weights of {self.name} do not squeeze every block: {GO_ON}")
        network = _feature_network(self)
        if self.squeeze_every_block:
            squeeze_every_block(network, self.name)
        if self.weights not in (None, "imagenet"):
            _load_file(network, self)
        if self.stride_in_1x1:
            _move_stride(network, self.name)
        for stride in self.deformable_stages:
            _make_deformable(network, self, stride)
        if self.blur is not None:
            blur_strided(network, self.blur, self.name)
        # Last, so that the fixed statistics are those of the weights.
        if self.norm == "frozen":
            with_frozen_norms(network)
        if self.frozen_stages:
            freeze_until(network, _last_frozen(network, self))
        return BackboneModule(network, self)


class BackboneModule(nn.Module):
    """A network that returns maps.

    Attributes:
        channels, strides: of the maps, finest first.
        windowed: it lays windows over each image anew (Swin), so how many there are hangs on the size.
    """

    def __init__(self, network: nn.Module, config: Backbone):
        super().__init__()
        self.body = network
        self.windowed = timm.model_entrypoint(config.name).__module__ in _ANY_SIZE
        chosen = _stages_by_stride(network)
        self.strides = tuple(sorted(config.stages))
        self.channels = tuple(chosen[stride]["num_chs"] for stride in self.strides)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps of normalised images, finest first."""
        maps = tuple(self.body(images))
        # Window transformers keep channels last.
        return tuple(
            x.permute(0, 3, 1, 2).contiguous() if x.shape[1] != width and x.shape[3] == width else x
            for x, width in zip(maps, self.channels, strict=True)
        )


def without_pretrained(config: T) -> T:
    """The same settings with every backbone's weights random: for models whose weights come from a checkpoint anyway."""
    if isinstance(config, Backbone):
        return replace(config, weights=None)
    if not is_dataclass(config) or isinstance(config, type):
        return config
    parts = {f.name: without_pretrained(getattr(config, f.name)) for f in fields(config) if f.init}
    return replace(config, **parts)


def _feature_network(config: Backbone) -> nn.Module:
    """timm's network that returns the maps of the wanted strides."""
    name = config.name
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InputError(f"backbone.name={name!r} is no model of timm{hint}")
    if config.weights == "imagenet":
        check_available(name)
    known, options = _known_maps(name)
    for stride in config.stages:
        if stride not in known:
            raise InputError(
                f"backbone.stages: {name} has no map of stride {stride}, only {', '.join(map(str, known))}"
            )
    wanted = tuple(known[stride] for stride in sorted(config.stages))
    try:
        pretrained = config.weights == "imagenet"
        return timm.create_model(name, pretrained, features_only=True, out_indices=wanted, **options)
    except (OSError, HfHubHTTPError) as error:
        raise InputError(f"the weights of {name} could not be downloaded ({error}): {GO_ON}") from error


@cache
def _known_maps(name: str) -> tuple[dict[int, int], dict[str, Any]]:
    """timm's numbers of a network's maps by stride, and what makes timm build it for images of every size.

    Tried on the meta device, without weights and work.

    Raises:
        InputError: it has no maps, or does not take images of every size.
    """
    options = _ANY_SIZE.get(timm.model_entrypoint(name).__module__, {})
    try:
        with torch.device("meta"):
            network: Any = timm.create_model(name, features_only=True, **options).eval()
    except (RuntimeError, ValueError, AttributeError) as error:
        raise InputError(f"backbone.name={name!r} gives no feature maps in timm: choose another model") from error
    height, width = _TRIED
    try:
        maps = network(torch.empty(1, 3, height, width, device="meta"))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"backbone.name={name!r} does not take images of every size, {height}x{width} for one: choose another model, such "
            "as resnet50 or swin_tiny_patch4_window7_224"
        ) from error
    # A network without padding gives maps that no pyramid can add up.
    info = network.feature_info
    odd = {
        stride
        for stride, channels, x in zip(info.reduction(), info.channels(), maps, strict=True)
        if sorted(x.shape[1:]) != sorted((channels, height // stride, width // stride))
    }
    known = {stride: row["index"] for stride, row in _stages_by_stride(network).items() if stride not in odd}
    if not known:
        raise InputError(
            f"backbone.name={name!r} gives no maps of an image's sides over a stride: choose another model"
        )
    return known, options


def _load_file(network: nn.Module, config: Backbone) -> None:
    """Loads a file of plain weights; what it has beyond the network (a classifier) is not asked for."""
    assert config.weights is not None
    wanted = network.state_dict()
    weights, folded = load_backbone_file(config.weights, wanted)
    if folded and config.norm != "frozen":
        raise InputError(
            f"{config.weights} has its batch norms folded into the convolutions, so they cannot be trained: "
            "use model.backbone.norm=frozen"
        )
    for name, tensor in wanted.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in weights:
            raise InputError(f"{config.weights} has no weight {name}: it is no file of the backbone {config.name}")
        if weights[name].shape != tensor.shape:
            have, need = tuple(weights[name].shape), tuple(tensor.shape)
            raise InputError(f"{config.weights} has {name} of shape {have}, the backbone {config.name} needs {need}")
    network.load_state_dict({name: weights[name] for name in wanted if name in weights}, strict=False)


def _stages_by_stride(network: nn.Module) -> dict[int, dict]:
    """What timm tells of each map, by its stride; of several maps of one stride the last."""
    rows: list[dict] = network.feature_info.info  # pyright: ignore
    return {row["reduction"]: {**row, "index": i} for i, row in enumerate(rows)}


def _last_frozen(network: nn.Module, config: Backbone) -> str:
    """Name of the last part that `frozen_stages` freezes."""
    stages = _stages_by_stride(network)
    known = [stride for stride in stages if stride <= 2**config.frozen_stages]
    if not known:
        raise InputError(
            f"backbone.frozen_stages={config.frozen_stages}: {config.name} has no map of stride "
            f"{2**config.frozen_stages} or less; use 0 or {min(stages).bit_length() - 1}"
        )
    last = _part_name(network, stages[max(known)]["module"])
    if last not in dict(network.named_modules()):
        raise InputError(
            f"backbone.frozen_stages={config.frozen_stages}: {config.name} has no part {last} to freeze; use frozen_stages=0"
        )
    return last


def _part_name(network: nn.Module, module: str) -> str:
    """timm's list of maps flattens stages.0 to stages_0."""
    return module if module in dict(network.named_modules()) else module.replace(".", "_")


def _bottlenecks(part: nn.Module) -> list[Bottleneck]:
    return [module for module in part.modules() if isinstance(module, Bottleneck)]


def _move_stride(network: nn.Module, name: str) -> None:
    """Each bottleneck's stride from its 3x3 to its first 1x1 convolution."""
    blocks = _bottlenecks(network)
    if not blocks:
        raise InputError(f"backbone.stride_in_1x1=true needs a ResNet with bottlenecks, not {name}")
    for block in blocks:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _make_deformable(network: nn.Module, config: Backbone, stride: int) -> None:
    known = _stages_by_stride(network)
    blocks = (
        _bottlenecks(network.get_submodule(_part_name(network, known[stride]["module"]))) if stride in known else []
    )
    if not blocks:
        raise InputError(f"backbone.deformable_stages: {config.name} has no bottlenecks at stride {stride}")
    for block in blocks[:: config.deformable_interval]:
        block.conv2 = DeformConv2d.like(block.conv2)
