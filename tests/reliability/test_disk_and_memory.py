"""No space, no folder, no data, no worker, no memory: a run ends in one sentence and its last good checkpoint stays whole."""

import os
import resource
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from bad_annotations import coco_document, make_images

from perpixel.cli.main import main
from perpixel.data.loader import train_batches
from perpixel.data.settings import Augment, DataConfig
from perpixel.data.shapes import ShapesDataset
from perpixel.engine import loop
from perpixel.engine.accidents import sentence_of
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.files import load_tensors
from perpixel.engine.loop import TrainingData, fit
from perpixel.engine.prediction_files import ResultsFile
from perpixel.engine.runs import RunFolder
from perpixel.engine.train import train
from perpixel.errors import InputError
from perpixel.models.heads import Losses
from perpixel.structures import Batch
from tiny_training import TinyTraining, TinyTrainingConfig, tiny_data, tiny_recipe


def run(output: Path, recipe=None, resume: bool = False) -> loop.TrainResult:
    recipe = recipe or tiny_recipe()
    return fit(recipe, output, tiny_data(recipe, evaluate=True), resume=resume, device="cpu")


@contextmanager
def files_up_to(size: int):
    """A disk on which no file grows beyond `size` bytes: writes fail in their middle, as on a full one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def step_in(output: Path) -> int:
    build_model(load_checkpoint(output / "last.safetensors"))
    return load_tensors(output / "last.state.safetensors")[1]["state"]["step"]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, what) -> None:
    real = loop._Run._update

    def update(self: loop._Run, batch: Batch, interruption):
        if self.state.step == step:
            what()
        return real(self, batch, interruption)

    monkeypatch.setattr(loop._Run, "_update", update)


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """From step 5 on no file may pass 2 kB: the save at 6 fails, that of 4 stays whole, and the run goes on from there."""
    limit = files_up_to(2000)
    at_step(monkeypatch, 5, limit.__enter__)
    with pytest.raises(InputError, match=r"last\.state\.safetensors cannot be written"):
        try:
            run(tmp_path / "a")
        finally:
            limit.__exit__(None, None, None)
    monkeypatch.undo()
    assert step_in(tmp_path / "a") == 4 and not list((tmp_path / "a").glob(".*"))
    assert run(tmp_path / "a", resume=True).step == 12


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without space")
def test_a_log_that_cannot_grow(tmp_path, monkeypatch):
    def full():
        log.write = lambda row: Path("/dev/full").write_text("x")

    log = None
    real = loop._Run.__init__

    def noting(self, *arguments):
        nonlocal log
        real(self, *arguments)
        log = self.log

    monkeypatch.setattr(loop._Run, "__init__", noting)
    at_step(monkeypatch, 5, full)
    with pytest.raises(InputError, match=r"after step 6: .*No space left.*last\.safetensors is untouched"):
        run(tmp_path / "a")
    monkeypatch.undo()
    assert step_in(tmp_path / "a") == 4
    assert run(tmp_path / "a", resume=True).step == 12


def test_results_that_cannot_be_written(tmp_path):
    """One sentence, no half file, and the old results stay."""
    (tmp_path / "results.json").write_text("[]")
    refused = pytest.raises(InputError, match=r"results\.json cannot be written")
    with files_up_to(100), refused, ResultsFile(tmp_path / "results.json") as results:
        for n in range(50):
            results.add([{"image_id": n, "bbox": [1, 2, 3, 4]}], "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text() == "[]"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody may make a folder")
def test_folders_that_cannot_be_written(capsys):
    with pytest.raises(InputError, match=r"/proc/none cannot be created"):
        run(Path("/proc/none"))
    assert main(["train", "fcos_shapes", "--out", "/proc/none", "data.train=shapes:4", "data.val=null"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_half_files_of_a_killed_run_go_and_do_not_stand_in_the_way(tmp_path):
    """Killed before its recipe was written, a run could neither be resumed (no recipe) nor begun (not empty)."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".recipe.json.4711.part").write_text("{")
    run(tmp_path / "a")
    assert not list((tmp_path / "a").glob("*.part")) and not list((tmp_path / "a").glob(".*"))
    (tmp_path / "a" / ".last.safetensors.4711.part").write_text("x")
    RunFolder(tmp_path / "a").open(tiny_recipe())
    assert not list((tmp_path / "a").glob(".*"))


def data_recipe(folder: Path, **data):
    import json

    make_images(folder / "images")
    (folder / "a.json").write_text(json.dumps(coco_document()))
    augment = Augment(short_sides=(32,), max_side=64, crop=1.0)
    config = DataConfig(train=str(folder / "a.json"), workers=0, augment=augment, **data)
    return replace(tiny_recipe(batch_size=2, evaluate_every=None), data=config)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_data_that_vanish_in_mid_epoch(tmp_path, monkeypatch, skip_bad):
    """The photos are gone after step 4: the run names the file, saves the steps it has done, and goes on when they are back."""
    recipe = data_recipe(tmp_path, skip_bad=skip_bad)
    at_step(monkeypatch, 4, lambda: shutil.move(tmp_path / "images", tmp_path / "gone"))
    with pytest.raises(
        InputError, match=r"no such image file" if not skip_bad else "20 images in a row cannot be read"
    ):
        train(recipe, tmp_path / "run", device="cpu")
    monkeypatch.undo()
    assert step_in(tmp_path / "run") == 5
    shutil.move(tmp_path / "gone", tmp_path / "images")
    assert train(recipe, tmp_path / "run", resume=True, device="cpu").step == 12


class Deadly(ShapesDataset):
    """Kills the process that draws an image, when it is told to."""

    armed: Path

    def image(self, index: int):
        if self.armed.exists():
            self.armed.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().image(index)


def test_a_worker_that_is_killed(tmp_path, monkeypatch):
    """As the kernel does where memory runs out: one sentence, no step lost."""
    recipe = tiny_recipe(batch_size=2, evaluate_every=None)
    dataset = Deadly(8, seed=0)
    dataset.armed = tmp_path / "armed"
    config = DataConfig(workers=1, augment=Augment(short_sides=(32,), max_side=64))

    def batches(start, world):
        return train_batches(dataset, config, batch_size=2, seed=0, start_step=start)

    data = TrainingData(dataset.classes, dataset.category_ids, batches)
    at_step(monkeypatch, 4, dataset.armed.touch)
    recipe = replace(recipe, training=replace(recipe.training, steps=40))
    with pytest.raises(InputError, match=r"a process that prepares batches died.*data\.workers=0"):
        fit(recipe, tmp_path / "run", data, device="cpu")
    monkeypatch.undo()
    assert step_in(tmp_path / "run") >= 5
    assert fit(recipe, tmp_path / "run", data, resume=True, device="cpu").step == 40


@dataclass(frozen=True)
class GreedyConfig(TinyTrainingConfig):
    """Asks at step 5 for more memory than there is."""

    def build(self, classes: int, stuff: int = 0) -> "Greedy":
        return Greedy(self, classes)


class Greedy(TinyTraining):
    def loss(self, batch: Batch) -> Losses:
        if batch.progress == 5:
            torch.empty(2**58)
        return super().loss(batch)


def test_memory_that_runs_out_in_one_batch(tmp_path):
    with pytest.raises(InputError, match=r"after step 5: the memory is used up .*training\.batch_size.*is untouched"):
        run(tmp_path / "a", tiny_recipe(GreedyConfig()))
    assert step_in(tmp_path / "a") == 4


def test_what_is_an_accident_and_what_is_a_defect():
    """By hand: messages of PyTorch for what nobody can help, and for what somebody got wrong."""
    accidents = (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        OSError(28, "No space left on device", "a.json"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        RuntimeError("[/x/pair.cc:561] Connection closed by peer [127.0.0.1]:1"),
    )
    defects = (
        RuntimeError("The size of tensor a (3) must match"),
        OSError(2, "No such file", "a"),
        ValueError("memory"),
    )
    assert all(sentence_of(error) for error in accidents) and not any(sentence_of(error) for error in defects)
