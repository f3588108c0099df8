"""VoVNet as detectron2's weights have it, from timm's.

Both weigh the channels of a block's result by squeeze and excitation, timm after the last block of a stage (so its own weights),
detectron2's after every block. Four of V-39's six blocks are the last of their stage; all else is equal.
"""

import re
from collections.abc import Collection
from typing import Any

from timm.layers.squeeze_excite import EffectiveSEModule
from timm.models.vovnet import OsaBlock
from torch import nn

from perpixel.errors import InputError
from perpixel.nn.renaming import Rows


def squeeze_every_block(network: nn.Module, name: str) -> None:
    """Puts squeeze and excitation, its weights random, after the blocks that lack it.

    Raises:
        InputError: the network, called `name`, is no VoVNet with squeeze and excitation.
    """
    blocks: list[Any] = [part for part in network.modules() if isinstance(part, OsaBlock)]
    if not any(isinstance(block.attn, EffectiveSEModule) for block in blocks):
        raise InputError(f"backbone.squeeze_every_block=true needs a VoVNet such as ese_vovnet39b, not {name}")
    for block in blocks:
        if block.attn is None:
            block.attn = EffectiveSEModule(block.conv_concat.conv.out_channels)


def vovnet_rows(names: Collection[str]) -> Rows:
    """(timm's, detectron2's) name templates of a VoVNet, of the blocks that the names tell; none where it is another network.

    detectron2's repeat a block's number within one name, which a template of numbers cannot.
    """
    found = {(int(m[1]), int(m[2]), m[3]) for name in names if (m := re.search(r"\bOSA(\d)_(\d+)_(\d+|concat)/", name))}
    rows = [(f"stem_{i - 1}", f"stem.stem_{i}") for i in (1, 2, 3)] if found else []
    for stage, block, layer in sorted(found):
        ours, theirs = f"stages_{stage - 2}.blocks.{block - 1}", f"stage{stage}.OSA{stage}_{block}"
        place = ("conv_concat", "concat") if layer == "concat" else (f"conv_mid.{layer}", f"layers.{layer}")
        rows.append((f"{ours}.{place[0]}", f"{theirs}.{place[1]}.OSA{stage}_{block}_{layer}"))
    squeezes = [
        (f"stages_{stage - 2}.blocks.{block - 1}.attn.{{*}}", f"stage{stage}.OSA{stage}_{block}.ese.{{*}}")
        for stage, block in sorted({row[:2] for row in found})
    ]
    parts = ((".conv.{*}", "/conv.{*}"), (".bn.{*}", "/norm.{*}"))
    return (*((ours + a, theirs + b) for ours, theirs in rows for a, b in parts), *squeezes)
