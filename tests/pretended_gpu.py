"""A GPU that is none: its tensors lie in ordinary memory, but behave as if the host could not read them.

`python tests/pretended_gpu.py` takes a recipe of each method, shrunk, through a training step and a photo on the processor and on
this device, and prints a line of JSON for each: whether the numbers are the same, and how often the host had to wait for the
device. So machines without a GPU find what would fail on one (tensors of two devices in one operation, NumPy on a tensor of the
device) and what would be slow. It is a process of its own because PyTorch cannot forget a device.
"""

import json
import math
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
import torchvision  # noqa: F401  (registers its operators)
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from perpixel.engine.benchmark import spread_logits
from perpixel.engine.instances import Instances
from perpixel.models.segmenter import Segmenter
from perpixel.recipes import get_recipe
from perpixel.structures import Batch, Detections
from test_recipes import shrunk, shrunk_semantic
from tiny_batches import batch_of

NAME = "pretended"
METHODS = (
    "fcos_r50_1x",
    "fcos_crowds",
    "retinanet_r50_1x",
    "nas_fcos_mobilenetv2",
    "pointins_mobilenetv2",
    "condinst_r50_1x",
    "condinst_r50_1x_mask_nms",
    "boxinst_r50_1x",
    "meinst_r50_1x",
    "smalmask_shapes",
    "smalmask2_rt_r50_3x",
    "blendmask_r50_1x",
    "blendmask_panoptic_shapes",
    "dr1mask_shapes",
    "dr1mask_panoptic_shapes",
    "directpose_mobilenetv2",
    "arch2_camvid",
    "dynamic_cell_camvid_end_to_end",
)
aten = torch.ops.aten
MOVING = {aten.copy_.default, aten._to_copy.default}
WRITING = {aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
INDEXING = WRITING | {aten.index.Tensor}
"""Indices of a tensor of the GPU may lie on the processor: they are sent, which waits for nothing."""
WAITING = {
    aten._local_scalar_dense.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.nonzero_numpy.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
    aten.unique_dim.default,
    aten._unique2.default,
    torch.ops.torchvision.nms.default,
}
"""What tells the host a number that only the device knows, such as the size of the result."""
waits: Counter[str] = Counter()


class Backend(backend_registration._DummyBackendModule):
    """What PyTorch asks a device for; autocast too."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(values, device=...) is then sent like any other
PROCESSOR, GPU = torch.device("cpu"), torch.device(NAME, 0)


class OnGPU(torch.Tensor):
    """A tensor of the pretended device around the one with its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]
    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnGPU":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=GPU,
        )
        tensor.inner = inner
        return tensor

    def tolist(self) -> list:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return run(operator, args, kwargs or {})


class Pretended(TorchDispatchMode):
    """Within it, the device's name is known to every operator."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return run(operator, args, kwargs or {})


def run(operator, args, kwargs):
    """The operator on the processor; refused where a GPU would refuse."""
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    there = any(isinstance(tensor, OnGPU) for tensor in tensors)
    sent = args[1] if operator in INDEXING and isinstance(args[0], OnGPU) else ()
    here = [tensor for tensor in tensors if not isinstance(tensor, OnGPU) and tensor.dim() > 0]
    here = [tensor for tensor in here if not any(tensor is index for index in sent)]
    if there and here and operator not in MOVING:
        raise RuntimeError(f"{operator}: tensors of the GPU beside one of the processor, of shape {here[0].shape}")
    target = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), GPU if there else PROCESSOR)
    if operator is aten.copy_.default:
        target = args[0].device
    if there and waited(operator, args, target):
        waits[str(operator)] += 1
    result = operator(*tree_map(bare, args), **tree_map(bare, kwargs))
    if operator._schema.is_mutable and isinstance(result, torch.Tensor):
        for leaf in leaves:
            if bare(leaf) is result:
                return leaf
    if target.type != NAME:
        return result
    return tree_map(lambda value: OnGPU(value) if isinstance(value, torch.Tensor) else value, result)


def bare(value):
    """What the operator of the processor takes."""
    if isinstance(value, torch.device):
        return PROCESSOR
    return value.inner if isinstance(value, OnGPU) else value


def waited(operator, args, target: torch.device) -> bool:
    """Whether the host cannot go on before the device is done."""
    if operator in INDEXING:
        # One number for all that a mask marks is filled in without counting them.
        counted = operator not in WRITING or args[2].numel() > 1
        return counted and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return operator in WAITING or target.type == "cpu"


def same(ours: Instances, theirs: Instances) -> bool:
    """Equal boxes, scores and keypoints, but for the order of additions; equal classes, masks and segments."""
    pairs = [(ours.boxes, theirs.boxes), (ours.scores, theirs.scores)]
    pairs += [] if ours.keypoints is None else [(ours.keypoints, theirs.keypoints)]
    near = all(a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)
    maps = [None if one.segments is None else one.segments.map.tolist() for one in (ours, theirs)]
    return near and np.array_equal(ours.labels, theirs.labels) and ours.runs == theirs.runs and maps[0] == maps[1]


def steps_of(name: str, device: torch.device) -> tuple[dict[str, float], Instances, Counter[str], Counter[str]]:
    """Losses of a training step, what is then found in a photo, and the waits of the step and of the photo."""
    torch.manual_seed(0)
    recipe = get_recipe(name)
    if isinstance(recipe.model, Segmenter):
        model = shrunk_semantic(recipe.model).build(classes=0, stuff=2)
    else:
        model = shrunk(recipe.model).build(classes=3, stuff=2)
    model = model.train().to(device)
    batch = batch_of((4, 3)).to(device)
    batch = replace(batch, before=(batch,) * (recipe.data.frames - 1))
    waits.clear()
    losses = model.loss(batch)
    sum(losses.values()).backward()
    of_step = waits.copy()
    if not isinstance(recipe.model, Segmenter):
        box_head = getattr(model, "detector", model).box_head
        spread_logits(box_head.class_logits, getattr(box_head, "distances", None))
        torch.nn.init.constant_(box_head.class_logits.bias, -2.0)
    photo = Batch(batch.images[:1], batch.sizes[:1], batch.originals[:1])
    photo = replace(photo, before=(photo,) * (recipe.data.frames - 1))
    waits.clear()
    with torch.no_grad():
        # Tensors that wrap others do not stand the inference mode that `predict` is in.
        found: list[Detections] = type(model).predict.__wrapped__(model.eval(), photo)
    instances = Instances.from_detections(found[0], (200, 300), ["a", "b", "c"], score=0.0)
    of_photo = waits.copy()
    return {key: loss.item() for key, loss in losses.items()}, instances, of_step, of_photo


def refuses() -> None:
    """Says what is refused, and what is not."""
    with Pretended():
        there = torch.ones(3).to(GPU)
        cases = {
            "mixed": lambda: there + torch.ones(3),
            "index": lambda: torch.ones(3)[there.long()],
            "numpy": there.numpy,
        }
        for name, forbidden in cases.items():
            try:
                forbidden()
            except (RuntimeError, TypeError):
                print(name)
        print((there * torch.tensor(1.0))[torch.tensor([0, 1])].sum().item())


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:] == ["--refuses"]:
        return refuses()
    for name in sys.argv[1:] or METHODS:
        losses, found, _, _ = steps_of(name, PROCESSOR)
        with Pretended():
            losses_there, found_there, of_step, of_photo = steps_of(name, GPU)
        line = {
            "recipe": name,
            "losses": all(math.isclose(losses_there[key], losses[key], rel_tol=1e-4, abs_tol=1e-4) for key in losses),
            "found": same(found_there, found),
            "objects": len(found),
            "waits of a step": of_step.total(),
            "waits of a photo": of_photo.total(),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
