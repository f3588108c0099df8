"""A model made faster for the hardware it runs on, with a stated bound on what that may change.

Levels, each with all before it:

off      as it was built.
exact    batch norms folded into convolutions, channels last in memory: boxes within 1e-3 pixels, scores within 1e-4.
bf16     the dense part (what `forward` runs) in bfloat16; boxes, selection and masks stay float32. Scores within 0.02.
compile  the dense part compiled with frozen weights: for each size of input anew, so for videos and photos of one size.
"""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.models.heads import Model
from perpixel.nn.fold import NORMS, fold_norms
from perpixel.nn.layers import Scale

LEVELS = ("off", "exact", "bf16", "compile")

_PROBE = (1, 3, 64, 64)


@dataclass(frozen=True)
class Optimized:
    """A model made faster.

    Attributes:
        model: the faster one; the caller's is left as it was.
        says: what was done, in one sentence.
    """

    model: Model
    says: str


def optimize(model: Model, level: str | bool = True, device: torch.device | str = "cpu") -> Optimized:
    """A copy of `model` in evaluation mode on `device`, made faster.

    Args:
        model: left as it is.
        level: see the module's text; True takes bf16 where the hardware computes it, else exact; False is off.
        device: where it will run.

    Raises:
        InputError: no such level, bf16 on hardware that lacks it, or a model that is compiled already.
    """
    if "forward" in vars(model):
        raise InputError("optimize: this model is compiled already: start from the one it was made of")
    device = torch.device(device)
    has, hardware = bfloat16_hardware(device)
    if isinstance(level, bool):
        level = ("bf16" if has else "exact") if level else "off"
    if level not in LEVELS:
        raise InputError(f"optimize={level!r} is not a level of speed: say {', '.join(LEVELS)}")
    if level == "bf16" and not has:
        raise InputError(f"optimize=bf16 is no faster here: {hardware}; say exact")
    fast = cast(Model, copy.deepcopy(model).to(device).eval())
    if level == "off":
        return Optimized(fast, "as built, float32")
    probe = torch.zeros(_PROBE, device=device)
    folded = fold_norms(fast, probe)
    fast.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    done = [f"{folded} batch norms folded", "channels last"]
    kind = torch.float32
    if level != "exact" and has:
        kind = torch.bfloat16
        _to_bfloat16(fast, probe)
    done.append(f"dense part in bfloat16 ({hardware})" if kind == torch.bfloat16 else f"float32 ({hardware})")

    def enter(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].to(kind, memory_format=torch.channels_last), *inputs[1:])

    fast.register_forward_pre_hook(enter)
    if level == "compile":
        fast.forward = torch.compile(fast.forward, dynamic=False, options={"freezing": True})
        done.append("compiled: the first photo of each size takes about a minute longer")
    return Optimized(fast, ", ".join(done))


def bfloat16_hardware(device: torch.device) -> tuple[bool, str]:
    """Whether bfloat16 is faster than float32 on a device, and by what it has or lacks."""
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return has, f"{torch.cuda.get_device_name(device)}{'' if has else ' has no bfloat16'}"
    if device.type != "cpu":
        return False, f"{device.type} is not known to gain by bfloat16"
    has = torch.cpu.get_capabilities()
    for name in ("amx_bf16", "avx512_bf16"):
        if has.get(name):
            return True, name
    return False, "the processor has neither AMX nor avx512_bf16"


@torch.no_grad()
def _to_bfloat16(model: nn.Module, probe: Tensor) -> None:
    """Weights of everything that `forward` runs in bfloat16: what is evaluated at candidates stays float32.

    Norms keep the precision of their statistics; `Scale` multiplies what boxes are made of.
    """
    ran: list[nn.Module] = []
    handles = [part.register_forward_hook(lambda part, *_: ran.append(part)) for part in model.modules()]
    model(probe)
    for handle in handles:
        handle.remove()
    for part in ran:
        if isinstance(part, (*NORMS, Scale)):
            continue
        for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(torch.bfloat16)
