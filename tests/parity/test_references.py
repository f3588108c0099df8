"""Every stored stage of four reference implementations: raw tensors, detections, targets, losses, gradients."""

import re

import pytest

from .deterministic import hashed, middle_and_spread
from .runs import MODELS, Measured, case


def test_weights_formula():
    """The test vectors of the recipe the golden files were made with; by hand, -0.7607429 * 2 * sqrt(3 / 2304) = -0.0549019."""
    u = hashed("proposal_generator.fcos_head.cls_logits.weight", 4)
    assert u.tolist() == [0.3569837808609009, 0.4166996479034424, 0.7118605375289917, -0.7607429027557373]
    a, b = middle_and_spread("proposal_generator.fcos_head.cls_logits.weight", (80, 256, 3, 3), anchors=False)
    assert a + b * u == pytest.approx([0.02576308511, 0.03007270582, 0.05137410760, -0.0549018900], rel=1e-6)
    name = "backbone.bottom_up.stem.conv1.norm.running_var"
    a, b = middle_and_spread(name, (64,), anchors=False)
    assert a + b * hashed(name, 3) == pytest.approx([0.8318901062, 0.8779836297, 0.9773226976], rel=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_conversion_uses_every_weight(name: str):
    conversion = case(name).conversion
    assert conversion.unused == ()
    idle = {"mask_head.sizes_of_interest", "mask_head._iter"}
    nobody_reads = r"level[34]\.project\.|decoder\.fpn\.adapt1\.|num_batches_tracked"
    assert all(key in idle or re.search(nobody_reads, key) for key in conversion.harmless)


@pytest.mark.parametrize("name", MODELS)
def test_inference(name: str):
    assert_within(case(name).measure_inference())


@pytest.mark.parametrize("name", MODELS)
def test_training(name: str):
    assert_within(case(name).measure_training())


def assert_within(measured: list[Measured]) -> None:
    assert measured
    wrong = [m for m in measured if not m.difference <= m.tolerance]
    assert not wrong, "\n".join(f"{m.stage}: {m.difference:.3g} > {m.tolerance:g} ({m.unit})" for m in wrong)
