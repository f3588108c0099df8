"""Two processes on the CPU give the losses and weights of one process for the same images."""

import os
import signal
import socket
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from perpixel.engine.checkpoint import load_checkpoint
from perpixel.engine.distributed import World, choose_device, joined_world
from perpixel.engine.logs import read_log
from perpixel.engine.loop import DivergedError, fit
from perpixel.engine.trainee import check_share
from perpixel.errors import InputError
from tiny_training import Job, TinyTrainingConfig, tiny_data, tiny_recipe, wait_for_rows


def start_two(job: Job) -> list[BaseProcess]:
    """What torchrun does: one process a rank, described by environment variables."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [replace(job, environment=rank).start() for rank in ranks]


def exit_codes(processes: list[BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def test_two_processes_equal_one(tmp_path: Path):
    """Clipping and averaging; Ctrl-C after a few steps of two processes, then a resume by one.

    The images have 1 to 3 objects, so the ranks' normalisers differ: without their mean over ranks the losses would too.
    The only difference allowed is the order of sums in float32.
    """
    settings = {"steps": 40, "clip_gradients": 1.0, "average": 0.5, "log_every": 1, "save_every": 1000}
    two = tmp_path / "two"
    processes = start_two(Job(two, settings=tuple(f"{k}={v}" for k, v in settings.items()), pause=0.1))
    wait_for_rows(two, 3, processes)
    assert processes[1].pid is not None
    os.kill(processes[1].pid, signal.SIGINT)  # one process hears of it; both stop at the same step
    assert exit_codes(processes) == [0, 0]
    saved = load_checkpoint(two / "last.safetensors")
    assert 3 <= saved.step < 40
    recipe = tiny_recipe(**settings)
    fit(recipe, tmp_path / "one", tiny_data(recipe, evaluate=True), device="cpu")
    fit(recipe, two, tiny_data(recipe, evaluate=True), resume=True, device="cpu")
    rows, expected = read_log(two / "log.jsonl"), read_log(tmp_path / "one" / "log.jsonl")
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert row.get("losses", {}) == pytest.approx(other.get("losses", {}), rel=1e-5)
    theirs = load_checkpoint(tmp_path / "one" / "last.safetensors").weights
    for name, tensor in load_checkpoint(two / "last.safetensors").weights.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-6)


def test_accumulation_and_divergence_of_two_processes(tmp_path: Path):
    """Two parts a process, four steps as one process has them; then a NaN stops both and names the images of both.

    The parts hold other images than those of one process, so the loss is one that does not depend on the grouping.
    """
    model, settings = TinyTrainingConfig(per_image=True, nan_at=4), ("log_every=1", "accumulate=2")
    processes = start_two(Job(tmp_path / "two", model, settings))
    assert exit_codes(processes) == [2, 2]
    for rank in range(2):
        message = (tmp_path / f"{rank}.txt").read_text()
        assert message.startswith("step 5: ") and "images 16, 17, 18, 19;" in message
    assert load_checkpoint(tmp_path / "two" / "last.safetensors").step == 4
    recipe = tiny_recipe(model, log_every=1, accumulate=2)
    with pytest.raises(DivergedError):
        fit(recipe, tmp_path / "one", tiny_data(recipe), device="cpu")
    rows, expected = read_log(tmp_path / "two" / "log.jsonl"), read_log(tmp_path / "one" / "log.jsonl")
    assert len(rows) == len(expected) == 4
    for row, other in zip(rows, expected, strict=True):
        assert row["losses"] == pytest.approx(other["losses"], rel=1e-5)
        assert row["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-4)


def test_one_process_without_torchrun():
    with joined_world("cpu") as world:
        assert (world.rank, world.size, world.first, world.device) == (0, 1, True, torch.device("cpu"))
        assert torch.equal(world.mean(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]))
        assert world.gather(["a"]) == ["a"]


def test_impossible_shares_and_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="device=gpu is not known"):
        choose_device("gpu")
    with pytest.raises(InputError, match=r"usable GPUs; device=cpu always works"):
        choose_device(f"cuda:{torch.cuda.device_count()}")
    recipe = tiny_recipe(TinyTrainingConfig(), batch_size=3)
    with pytest.raises(InputError, match=r"batch_size=3 does not divide by 2 processes"):
        check_share(recipe.training, World(0, 2, torch.device("cpu")))
    with pytest.raises(InputError, match="sync_batch_norm"):
        check_share(tiny_recipe(sync_batch_norm=True).training, World(0, 2, torch.device("cpu")))
