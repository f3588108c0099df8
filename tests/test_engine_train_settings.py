"""Settings and schedules by hand, parameter groups, the optimiser's state."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from perpixel.config import ConfigError, from_dict, override
from perpixel.engine.optimize import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    parameters_by_kind,
    set_learning_rate,
)
from perpixel.engine.schedule import learning_rate_factor, milestone_steps
from perpixel.engine.settings import Training
from perpixel.errors import InputError


def test_defaults_are_the_papers():
    """Thesis 3.3: 16 images, 90k steps, 0.01 divided by 10 at 60k and 80k, momentum 0.9, decay 1e-4."""
    training = Training()
    assert milestone_steps(training) == [60_000, 80_000]
    assert (training.steps, training.batch_size, training.momentum, training.weight_decay) == (90_000, 16, 0.9, 1e-4)
    # Linear warm-up from 1/1000: 0.001 + 0.999 * step / 1000.
    for step, factor in ((0, 0.001), (500, 0.5005), (999, 0.999001), (1000, 1.0), (59_999, 1.0)):
        assert learning_rate_factor(step, training) == pytest.approx(factor, rel=1e-12)
    for step, factor in ((60_000, 0.1), (79_999, 0.1), (80_000, 0.01), (89_999, 0.01)):
        assert learning_rate_factor(step, training) == pytest.approx(factor, rel=1e-12)


def test_shorter_run_keeps_the_shape():
    assert milestone_steps(Training(steps=900, warmup_steps=10)) == [600, 800]


@pytest.mark.parametrize(
    ("settings", "step", "factor"),
    [
        ({"schedule": "linear"}, 25, 0.75),
        ({"schedule": "cosine"}, 50, 0.5),
        ({"schedule": "cosine"}, 25, (1 + math.sqrt(0.5)) / 2),
        ({"schedule": "poly"}, 50, 0.5**0.9),
        ({"schedule": "step", "milestones": (0.5,), "gamma": 0.2}, 49, 1.0),
        ({"schedule": "step", "milestones": (0.5,), "gamma": 0.2}, 50, 0.2),
        ({"warmup": "constant", "warmup_steps": 10, "warmup_factor": 1 / 3}, 9, 1 / 3),
        ({"warmup": "constant", "warmup_steps": 10, "warmup_factor": 1 / 3}, 10, 1.0),
        # Warm-up times decay: 0.5 + 0.5 * 5 / 10 = 0.75, times 1 - 5 / 100.
        ({"schedule": "linear", "warmup_steps": 10, "warmup_factor": 0.5}, 5, 0.75 * 0.95),
        # The linear rule: 16 images where 64 were meant.
        ({"scale_learning_rate_to": 64}, 0, 0.25),
    ],
)
def test_factor_by_hand(settings: dict, step: int, factor: float):
    training = Training(**({"steps": 100, "warmup_steps": 0} | settings))
    assert learning_rate_factor(step, training) == pytest.approx(factor, rel=1e-12)


@given(
    st.sampled_from(["step", "linear", "cosine", "poly"]),
    st.integers(2, 1000),
    st.integers(0, 1000),
    st.integers(0, 999),
)
def test_factor_stays_between_0_and_1_and_falls_after_warm_up(schedule: str, steps: int, warmup: int, step: int):
    warmup, step = warmup % steps, step % steps
    training = Training(steps=steps, warmup_steps=warmup, schedule=schedule)  # pyright: ignore
    factor = learning_rate_factor(step, training)
    assert 0 < factor <= 1
    if warmup <= step < steps - 1:
        assert learning_rate_factor(step + 1, training) <= factor


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("steps=0", "steps=0 is not at least 1"),
        ("learning_rate=-1", "learning_rate=-1.0 is not a positive number"),
        ("learning_rate=.nan", "learning_rate=nan is not a positive number"),
        ("momentum=1", "momentum=1.0 is not between 0 and 1"),
        ("betas=[0.9, 1]", "betas"),
        ("weight_decay=-1e-4", "weight_decay=-0.0001 is below 0"),
        ("warmup_factor=2", "warmup_factor=2.0 is not between 0 and 1"),
        (
            "warmup_steps=90000",
            "warmup_steps=90000 is not below steps=90000; set warmup_steps too, for instance to 9000",
        ),
        ("milestones=[60000, 80000]", r"fractions of steps, between 0 and 1: write \[0.6667, 0.8889\]"),
        ("accumulate=3", "batch_size=16 does not divide into accumulate=3 parts"),
        ("optimizer=lamb", "optimizer='lamb' does not fit: it takes 'sgd' | 'adam' | 'adamw'"),
    ],
)
def test_impossible_settings_are_refused(setting: str, sentence: str):
    with pytest.raises(ConfigError, match=sentence.replace("|", r"\|")):
        override(Training(), [setting])


def test_settings_that_belong_together_may_come_in_any_order():
    assert override(Training(), ["steps=300", "warmup_steps=20"]).steps == 300
    assert from_dict(Training, {"steps": 300, "warmup_steps": 20, "learning_rate": "5e-3"}).learning_rate == 0.005


class Mixed(nn.Module):
    """One parameter of every kind, a frozen one and a shared one."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 1)
        self.batch, self.group, self.layer = nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(3))
        self.frozen = nn.Conv2d(2, 2, 1).requires_grad_(False)
        self.tied = nn.Linear(4, 2, bias=False)
        self.tied.weight = nn.Parameter(self.conv.weight[:, :, 0, 0].T.clone())
        self.twin = nn.Linear(4, 2)
        self.twin.weight = self.tied.weight


def test_parameters_by_kind():
    kinds = {kind: sorted(parameters) for kind, parameters in parameters_by_kind(Mixed()).items()}
    assert kinds == {
        "weight": ["conv.weight", "scale", "tied.weight"],
        "norm": sorted(f"{m}.{p}" for m in ("batch", "group", "layer") for p in ("weight", "bias")),
        "bias": ["conv.bias", "twin.bias"],
    }


def test_groups_decay_and_learn_as_set():
    training = Training(weight_decay_norm=0.0, bias_learning_rate_factor=2.0, learning_rate=0.5)
    optimizer = build_optimizer(Mixed(), training)
    assert [(g["weight_decay"], g["lr"]) for g in optimizer.param_groups] == [(1e-4, 0.5), (0.0, 0.5), (1e-4, 1.0)]
    set_learning_rate(optimizer, 0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.1, 0.2]
    one = build_optimizer(Mixed(), replace(training, optimizer="adamw", weight_decay_bias=0.25))
    assert isinstance(one, torch.optim.AdamW) and one.param_groups[2]["weight_decay"] == 0.25
    with pytest.raises(InputError, match="no trainable parameter"):
        build_optimizer(Mixed().requires_grad_(False), training)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_optimizer_state_round_trip(kind: str):
    """A copy with the state takes the very same next step; without the state it does not."""

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, gradient: float) -> torch.Tensor:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient) + parameter.detach()
        optimizer.step()
        return next(model.parameters()).detach().clone()

    training = Training(optimizer=kind, learning_rate=0.1)  # pyright: ignore
    first, second, third = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
    one = build_optimizer(first, training)
    step(first, one, 1.0)
    for other in (second, third):
        other.load_state_dict(first.state_dict())
    two, three = build_optimizer(second, training), build_optimizer(third, training)
    load_optimizer_tensors(two, optimizer_tensors(one))
    expected = step(first, one, 2.0)
    assert torch.equal(step(second, two, 2.0), expected)
    assert not torch.equal(step(third, three, 2.0), expected)


def test_the_three_optimizers_differ():
    """A weight of 1, no gradient, decay 0.5, rate 0.1.

    SGD 1 - 0.1 x 0.5; Adam 1 - 0.1, its first step has the rate's size; AdamW 1 x (1 - 0.1 x 0.5).
    """
    after = {}
    for kind in ("sgd", "adam", "adamw"):
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        optimizer = build_optimizer(model, Training(optimizer=kind, learning_rate=0.1, weight_decay=0.5))
        model.weight.grad = torch.zeros(1, 1)
        optimizer.step()
        after[kind] = model.weight.item()
    assert after == pytest.approx({"sgd": 0.95, "adam": 0.9, "adamw": 0.95}, abs=1e-6)


def test_foreign_optimizer_state_is_named():
    optimizer = build_optimizer(nn.Linear(2, 2), Training())
    with pytest.raises(InputError, match="other/momentum_buffer"):
        load_optimizer_tensors(optimizer, {"other/momentum_buffer": torch.zeros(2)})
    with pytest.raises(InputError, match=r"weight/momentum_buffer is \(3,\), the parameter \(2, 2\)"):
        load_optimizer_tensors(optimizer, {"weight/momentum_buffer": torch.zeros(3)})
