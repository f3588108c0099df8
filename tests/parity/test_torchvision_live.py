"""Random torchvision models in, equal detections out: the installed torchvision itself is the reference."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

from perpixel.config import override
from perpixel.engine.convert import convert_checkpoint
from perpixel.models.detector import Detector
from perpixel.structures import Batch, pad_images

from .reference import pair_detections

CLASSES = 7


@pytest.mark.parametrize("build", [fcos_resnet50_fpn, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2])
def test_equal_detections(build: Callable[..., nn.Module]):
    """Statistics of batch norms are perturbed too, and predictors made loud enough to give many detections."""
    theirs = random_detector(build)
    image = photo_like(180, 250)
    with torch.inference_mode():
        (found,) = theirs([image])
    conversion = convert_checkpoint(theirs.state_dict())
    model = conversion.build()
    assert isinstance(model, Detector)
    scale = min(256 / 180, 320 / 250)
    resized = F.interpolate(image[None] * 255, scale_factor=scale, mode="bilinear", recompute_scale_factor=True)[0]
    size = (resized.shape[1], resized.shape[2])
    batch = Batch(pad_images([resized], 32), (size,), ((180, 250),))
    (ours,) = model.predict(batch)
    # Not by Instances, which drops boxes that the border cut to nothing; torchvision keeps them.
    boxes = ours.boxes * torch.tensor([250 / size[1], 180 / size[0]]).repeat(2)
    assert len(found["boxes"]) >= 50
    assert len(set(found["labels"].tolist())) >= 2
    agreement = pair_detections(
        (boxes, ours.scores, ours.labels),
        (found["boxes"].numpy(), found["scores"].numpy(), found["labels"].numpy()),
    )
    assert agreement.unpaired == 0
    assert agreement.boxes < 1e-2
    assert agreement.scores < 1e-4


def test_old_names_of_retinanet():
    """Before torchvision 0.13 (its published file) towers were numbered by layer, laterals and outputs not nested."""
    new = random_detector(retinanet_resnet50_fpn).state_dict()
    old = {}
    for name, tensor in new.items():
        parts = name.split(".")
        if "_head.conv." in name:
            parts[3:5] = [str(2 * int(parts[3]))]
        elif "_blocks." in name and "extra" not in name:
            del parts[4]
        old[".".join(parts)] = tensor
    assert set(old) != set(new)
    a, b = convert_checkpoint(new), convert_checkpoint(old)
    assert a.config == b.config
    assert a.weights.keys() == b.weights.keys()
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_overrides_reach_the_model():
    """A config that was corrected by hand fills the same weights."""
    theirs = random_detector(fcos_resnet50_fpn).state_dict()
    inferred = convert_checkpoint(theirs)
    changed = override(inferred.config, ["selection.threshold=0.4"])
    model = convert_checkpoint(theirs, changed).build()
    assert isinstance(model, Detector)
    assert model.selection.threshold == 0.4


def random_detector(build: Callable[..., nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    model = build(weights=None, weights_backbone=None, num_classes=CLASSES, min_size=256, max_size=320).eval()
    # Without GroupNorm the towers' features are large.
    gain = 0.1 if build is retinanet_resnet50_fpn else 3.0
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_mean"):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.7, 1.3)
            elif "_head.conv" in name and tensor.ndim == 4:
                nn.init.kaiming_normal_(tensor)
            elif name.endswith(("cls_logits.weight", "bbox_reg.weight", "bbox_ctrness.weight")):
                tensor.mul_(gain)
            elif name.endswith("bbox_reg.bias") and build is fcos_resnet50_fpn:
                tensor.fill_(1.5)
            elif name.endswith("cls_logits.bias"):
                tensor.fill_(-2.0)
    return model


def photo_like(height: int, width: int) -> Tensor:
    """Smooth structure of several scales, 0..1."""
    noise = [torch.rand(1, 3, height // s + 2, width // s + 2) for s in (64, 16, 4, 1)]
    return torch.stack([F.interpolate(n, (height, width), mode="bilinear")[0] for n in noise]).mean(0)
