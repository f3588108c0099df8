"""Weights of plain backbones: timm's downloads and files in the layouts of timm, torchvision and detectron2 (VoVNet's too)."""

import os
import socket
from collections.abc import Collection
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import Tensor

from perpixel.errors import InputError
from perpixel.nn.renaming import DETECTRON2_RESNET, renamed
from perpixel.nn.tensor_files import read_tensors
from perpixel.nn.vovnet import vovnet_rows

GO_ON = "give model.backbone.weights=FILE, or model.backbone.weights=null for random ones"

# Blocks of torchvision's MobileNetV2 (features.1 ... features.17) by stage of timm's.
_MOBILENET_STAGES = (1, 2, 3, 4, 3, 3, 1)
# The eps of every batch norm of MobileNetV2.
_MOBILENET_EPS = 1e-5


def check_available(name: str) -> None:
    """Says in one sentence why timm's weights of `name` cannot be had, where that is clear before trying.

    Raises:
        InputError: there are none, they may not be used commercially and were not asked for by their tag, or there is no
            network and no copy in the cache.
    """
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(f"timm has no weights of {name}: {GO_ON}")
    if "." not in name and config.license and "nc" in config.license.lower():
        raise InputError(
            f"timm's usual weights of {name} are for non-commercial use only ({config.license}): ask for them by their full "
            f"name, model.backbone.name={name}.{config.tag}, or {GO_ON}"
        )
    if config.hf_hub_id and not _is_cached(config.hf_hub_id) and not hub_answers():
        raise InputError(f"the weights of {name} cannot be downloaded, for there is no network: {GO_ON}")


CHECKPOINT = "backbone.body."
"""What the names of a backbone's weights start with in a checkpoint of ours."""


def load_backbone_file(path: str, wanted: Collection[str]) -> tuple[dict[str, Tensor], bool]:
    """Weights of a plain backbone under timm's names, and whether its batch norms were folded into its convolutions.

    Args:
        path: .pth, .safetensors or .npz in timm's layout, torchvision's (ResNet, MobileNetV2) or detectron2's (ResNet, VoVNet),
            or a checkpoint of perpixel, whose backbone is taken. A folded MobileNetV2 gets batch norms that
            do nothing but add the bias.
        wanted: names of the backbone's weights.

    Raises:
        InputError: the file cannot be read.
    """
    tensors = read_tensors(path)
    ours = {name.removeprefix(CHECKPOINT): tensor for name, tensor in tensors.items() if name.startswith(CHECKPOINT)}
    if ours:
        return ours, False
    tensors = {name.removeprefix("backbone.bottom_up."): tensor for name, tensor in tensors.items()}
    if any(name.startswith("stem.conv1.norm.") for name in tensors):
        return renamed(tensors, DETECTRON2_RESNET)[0], False
    if rows := vovnet_rows(tensors):
        return renamed(tensors, rows)[0], False
    if "features.0.0.weight" in tensors and "conv_stem.weight" in wanted:
        return _from_torchvision_mobilenet(tensors), "features.0.0.bias" in tensors
    # timm's list of maps flattens stages.0 to stages_0.
    flat = {name.split(".")[0] for name in wanted}
    dotted = {f"{part.replace('_', '.')}.": f"{part}." for part in flat if "_" in part}
    return {_replaced_start(name, dotted): tensor for name, tensor in tensors.items()}, False


def _replaced_start(name: str, starts: dict[str, str]) -> str:
    for old, new in starts.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _from_torchvision_mobilenet(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for theirs, conv, norm in _mobilenet_layers():
        if f"{theirs}.weight" not in tensors:
            continue
        weight = tensors[f"{theirs}.weight"]
        out[f"{conv}.weight"] = weight
        if f"{theirs}.bias" in tensors:
            ones = torch.ones(len(weight))
            folded = {"weight": ones, "bias": tensors[f"{theirs}.bias"], "running_mean": ones * 0}
            folded["running_var"] = ones - _MOBILENET_EPS
        else:
            stem, _, last = theirs.rpartition(".")
            own = f"{stem}.{int(last) + 1}"
            folded = {name.removeprefix(f"{own}."): t for name, t in tensors.items() if name.startswith(f"{own}.")}
        out |= {f"{norm}.{name}": tensor for name, tensor in folded.items()}
    return out


def _mobilenet_layers() -> list[tuple[str, str, str]]:
    """(torchvision's convolution, timm's convolution, timm's batch norm); torchvision's batch norm follows its convolution."""
    layers = [("features.0.0", "conv_stem", "bn1")]
    number = 1
    for stage, blocks in enumerate(_MOBILENET_STAGES):
        for block in range(blocks):
            theirs, ours = f"features.{number}.conv", f"blocks.{stage}.{block}"
            # Only the first block has no expansion.
            names = (("0.0", "conv_dw"), ("1", "conv_pw"))
            if number > 1:
                names = (("0.0", "conv_pw"), ("1.0", "conv_dw"), ("2", "conv_pwl"))
            layers += [(f"{theirs}.{t}", f"{ours}.{conv}", f"{ours}.bn{k}") for k, (t, conv) in enumerate(names, 1)]
            number += 1
    return layers


def _is_cached(hub_id: str) -> bool:
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in names)


def hub_answers() -> bool:
    """Whether the hub's name resolves: without it the client would retry for a minute. A proxy resolves names itself."""
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
