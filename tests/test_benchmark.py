"""`perpixel benchmark`: what it prints and refuses, and how ratios are made."""

import json

import pytest
import torch
from torch import nn

from perpixel.cli.main import main
from perpixel.engine.benchmark import Subject, measure

TINY = [
    "model.backbone.name=test_resnet",
    "model.backbone.weights=null",
    "model.head.class_convs=1",
    "model.head.box_convs=1",
]


class Clocked(Subject):
    """A subject whose clock says what it took: 10 ms, then its network, then 20 ms; round k is k + 1 times slower."""

    def __init__(self, name: str, network_ms: float):
        self.clock, self.network_ms, self.rounds = 0.0, network_ms, 0
        self.net = nn.Identity()
        super().__init__(name, [self.net], torch.device("cpu"))

    def now(self) -> float:
        return self.clock

    def find(self):
        self.rounds += 1
        slow = self.rounds / 1000
        self.clock += 10 * slow
        handle = self.net.register_forward_hook(
            lambda *_: setattr(self, "clock", self.clock + self.network_ms * slow), prepend=True
        )
        self.net(torch.zeros(1))
        handle.remove()
        self.clock += 20 * slow
        return 7, None


def test_stages_and_ratios():
    """Rounds 3, 4, 5 count: 3 * 60, 4 * 60, 5 * 60 ms against 3 * 40 ...: within each round 60 / 40 = 1.5 times."""
    report = measure([Clocked("slow", 30), Clocked("fast", 10)], (1, 1), rounds=3, progress=False)
    slow, fast = report.rows
    assert (slow.median, slow.fastest) == (pytest.approx(240), pytest.approx(180))
    assert slow.stages == {"before": pytest.approx(40), "network": pytest.approx(120), "after": pytest.approx(80)}
    assert (slow.faster, fast.faster) == (pytest.approx(1), pytest.approx(1.5))
    assert (slow.low, slow.high) == (pytest.approx(210), pytest.approx(270))
    assert slow.objects == 7


def test_command(tmp_path, capsys):
    out = tmp_path / "speed.json"
    words = [
        "benchmark",
        "condinst_mobilenetv2",
        *TINY,
        "--size",
        "128",
        "192",
        "--rounds",
        "2",
        "--threads",
        "1",
        "--json",
        str(out),
    ]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "condinst_mobilenetv2 exact" in shown and "batch norms folded" in shown and "| network |" in shown
    report = json.loads(out.read_text())
    off, exact = report["rows"]
    assert report["size"] == [128, 192] and report["machine"]["threads"] == "1"
    assert off["faster"] == 1 and off["gflop"] > 0 and off["parameters"] > 0
    assert set(exact["stages"]) == {"before", "network", "after", "draw"}
    assert exact["objects"] > 0 and 0 < exact["fastest"] <= exact["median"]


def test_another_recipe_is_a_peer(capsys):
    """Random scores find objects in a panoptic model too."""
    settings = [setting.replace("model.", "model.detector.") for setting in TINY]
    words = ["benchmark", "condinst_panoptic_mobilenetv2", *settings, "--size", "64", "96", "--rounds", "1"]
    assert main([*words, "--fast", "exact", "--vs", "dr1mask_shapes"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "exact |" in line]
    assert [row[1].strip() for row in rows] == ["dr1mask_shapes exact", "condinst_panoptic_mobilenetv2 exact"]
    assert rows[0][2].strip() == "1.00x" and int(rows[1][-4]) > 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--vs", "speed.json"], "only what runs in the same process"),
        (["--rounds", "0"], "say numbers above 0"),
    ],
)
def test_refusals(words, sentence, capsys):
    assert main(["benchmark", "fcos_mobilenetv2", *TINY, *words]) == 2
    assert sentence in capsys.readouterr().err
