"""The loop on a tiny model: exact resume, guards, files, evaluation."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perpixel.engine import loop
from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.distributed import World
from perpixel.engine.files import load_tensors
from perpixel.engine.logs import read_log
from perpixel.engine.loop import DivergedError, fit
from perpixel.engine.recipe import Recipe, recipe_from_json
from perpixel.engine.runs import RunFolder, new_run_folder
from perpixel.engine.steps import split_batch, step_seed
from perpixel.errors import InputError
from perpixel.structures import Batch
from tiny_training import CLASSES, Job, TinyTrainingConfig, tiny_data, tiny_recipe, wait_for_rows

EVERYTHING = {"average": 0.9, "clip_gradients": 1.0, "evaluate_every": 4}
"""Settings under which every kind of state matters."""


def run(output: Path, recipe: Recipe, resume: bool = False) -> loop.TrainResult:
    return fit(recipe, output, tiny_data(recipe, evaluate=True), resume=resume, device="cpu")


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, optimiser, average and log are equal to the last bit; only speeds differ."""
    for name in ("last.safetensors", "best.safetensors", "last.state.safetensors"):
        ours, document = load_tensors(first / name)
        theirs, other = load_tensors(second / name)
        assert ours.keys() == theirs.keys() and document == other
        for key in ours:
            assert torch.equal(ours[key], theirs[key]), (name, key)
    assert rows(first) == rows(second)


def rows(output: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in read_log(output / "log.jsonl")]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_stopped_and_resumed_equals_unbroken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str):
    """The run is killed in step 8, after the save at 6 and rows of the log beyond it; BatchNorm and dropout included."""
    recipe = tiny_recipe(TinyTrainingConfig(norm="batch", dropout=0.5), optimizer=optimizer, **EVERYTHING, save_every=3)
    run(tmp_path / "unbroken", recipe)

    class Killed(BaseException):
        pass

    real = loop._Run._update

    def dies(self: loop._Run, batch: Batch, interruption: object):
        if self.state.step == 7:
            raise Killed
        return real(self, batch, interruption)

    monkeypatch.setattr(loop._Run, "_update", dies)
    with pytest.raises(Killed):
        run(tmp_path / "broken", recipe)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "broken" / "last.safetensors").step == 6
    run(tmp_path / "broken", recipe, resume=True)
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_killed_process_resumes_exactly(tmp_path: Path):
    """A real SIGKILL at an arbitrary moment of another process, then a resume here."""
    model = TinyTrainingConfig(norm="batch", dropout=0.5)
    broken = tmp_path / "broken"
    process = Job(broken, model, tuple(f"{name}={value}" for name, value in EVERYTHING.items()), pause=0.15).start()
    wait_for_rows(broken, 3, [process])
    process.kill()
    process.join()
    saved = load_tensors(broken / "last.state.safetensors")[1]["state"]["step"]
    assert 0 < saved < 12
    recipe = tiny_recipe(model, **EVERYTHING)
    run(broken, recipe, resume=True)
    run(tmp_path / "unbroken", recipe)
    assert_same_run(tmp_path / "unbroken", broken)


@pytest.mark.parametrize("dies_at", [2, 4, 5])
def test_killed_between_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int):
    """Between the state and the weights: the old weights stay whole, the resumed run mends the pair."""
    recipe = tiny_recipe(**EVERYTHING)
    run(tmp_path / "unbroken", recipe)
    real, calls = loop.save_checkpoint, []

    def dies(*args: object, **kwargs: object) -> None:
        calls.append(args)
        if len(calls) == dies_at:
            raise KeyboardInterrupt
        real(*args, **kwargs)  # pyright: ignore

    monkeypatch.setattr(loop, "save_checkpoint", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", recipe)
    monkeypatch.undo()
    state = load_tensors(tmp_path / "broken" / "last.state.safetensors")[1]["state"]["step"]
    assert load_checkpoint(tmp_path / "broken" / "last.safetensors").step <= state
    run(tmp_path / "broken", recipe, resume=True)
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_resume_before_anything_was_saved_starts_anew(tmp_path: Path):
    recipe = tiny_recipe()
    RunFolder(tmp_path / "a").open(recipe)
    (tmp_path / "a" / "log.jsonl").write_text('{"step": 1}\n')
    run(tmp_path / "a", recipe, resume=True)
    run(tmp_path / "b", recipe)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_ctrl_c_saves_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tiny_recipe(save_every=100, evaluate_every=None)
    data = tiny_data(recipe, evaluate=True)

    def interrupted(start: int, world: World) -> Iterator[Batch]:
        for number, batch in enumerate(data.batches(start, world)):
            if number == 4:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    handler = signal.getsignal(signal.SIGINT)  # a shell starts its background jobs with SIGINT ignored
    result = fit(recipe, tmp_path / "a", replace(data, batches=interrupted), device="cpu")
    assert result.interrupted and result.step == 5
    assert f"--resume --out {tmp_path / 'a'}" in capsys.readouterr().err.replace("\n", "")
    assert load_checkpoint(result.last).step == 5
    assert signal.getsignal(signal.SIGINT) is handler
    assert not run(tmp_path / "a", recipe, resume=True).interrupted
    run(tmp_path / "b", recipe)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_nan_names_step_loss_and_images_and_keeps_the_checkpoint(tmp_path: Path):
    recipe = tiny_recipe(TinyTrainingConfig(nan_at=5), save_every=3)
    with pytest.raises(DivergedError) as caught:
        run(tmp_path / "a", recipe)
    message = str(caught.value)
    assert message.startswith("step 6: ") and "size nan" in message and "images 20, 21, 22, 23;" in message
    assert f"{tmp_path / 'a' / 'last.safetensors'} is untouched" in message
    checkpoint = load_checkpoint(tmp_path / "a" / "last.safetensors")
    assert checkpoint.step == 3 and all(w.isfinite().all() for w in checkpoint.weights.values())


def test_infinite_weights_are_never_saved(tmp_path: Path):
    """A finite gradient of at least 1e4 times a learning rate of 1e36 overflows float32 (3.4e38) in the update itself."""
    recipe = tiny_recipe(TinyTrainingConfig(scale=1e6), learning_rate=1e36, warmup_steps=0, save_every=1)
    with pytest.raises(DivergedError, match=r"step 1: .*weights.*nothing was saved yet"):
        run(tmp_path / "a", recipe)
    assert not (tmp_path / "a" / "last.safetensors").exists()


def test_bad_image_ends_the_run_but_loses_no_step(tmp_path: Path):
    recipe = tiny_recipe(save_every=100)
    data = tiny_data(recipe)

    def spoiled(start: int, world: World) -> Iterator[Batch]:
        for number, batch in enumerate(data.batches(start, world)):
            if number == 7:
                raise InputError("photo.jpg is corrupt")
            yield batch

    with pytest.raises(InputError, match=r"photo\.jpg"):
        fit(recipe, tmp_path / "a", replace(data, batches=spoiled), device="cpu")
    assert load_checkpoint(tmp_path / "a" / "last.safetensors").step == 7


def test_files_and_log_of_a_run(tmp_path: Path):
    """Twelve steps: a row at 3, 6, 9, 12 and evaluations at 5, 10 and the end; row values are means of three steps."""
    recipe = tiny_recipe(evaluate_every=5)
    result = run(tmp_path / "a", recipe)
    assert sorted(p.name for p in result.output.iterdir()) == [
        "best.safetensors",
        "last.safetensors",
        "last.state.safetensors",
        "log.jsonl",
        "recipe.json",
    ]
    assert recipe_from_json((result.output / "recipe.json").read_text()) == recipe
    log = read_log(result.output / "log.jsonl")
    assert [row["step"] for row in log] == [3, 5, 6, 9, 10, 12, 12]
    assert ["metrics" in row for row in log] == [False, True, False, False, True, False, True]
    each = read_log(
        run(tmp_path / "b", replace(recipe, training=replace(recipe.training, log_every=1))).output / "log.jsonl"
    )
    single = {row["step"]: row["losses"]["class"] for row in each if "losses" in row}
    assert log[0]["losses"]["class"] == pytest.approx(sum(single[s] for s in (1, 2, 3)) / 3, rel=1e-12)
    assert log[0]["loss"] == pytest.approx(sum(log[0]["losses"].values()), rel=1e-12)
    last = load_checkpoint(result.last)
    assert (last.step, last.class_names, last.category_ids) == (12, CLASSES, (3, 5, 9))
    assert last.metrics == log[-1]["metrics"] == result.metrics
    best = max((row for row in log if "metrics" in row), key=lambda row: row["metrics"]["bbox/AP"])
    assert result.best is not None and load_checkpoint(result.best).step == best["step"]


def test_average_is_what_is_published(tmp_path: Path):
    """last.safetensors holds the average, the state both; n updates: average += (1 - min(d, (1+n)/(10+n))) * (new - average)."""
    recipe = tiny_recipe(average=0.5, steps=2, warmup_steps=0, save_every=1)
    output = run(tmp_path / "a", recipe).output
    state, _ = load_tensors(output / "last.state.safetensors")
    one = tiny_recipe(average=0.5, steps=2, warmup_steps=0, save_every=1)
    data = tiny_data(one)
    stopped = replace(data, batches=lambda start, world: _first_then_stop(data.batches(start, world)))
    with pytest.raises(InputError):
        fit(one, tmp_path / "b", stopped, device="cpu")
    first, _ = load_tensors(tmp_path / "b" / "last.state.safetensors")
    # The first update copies (n = 0); the second has n = 1: decay min(0.5, 2/11) = 2/11.
    expected = first["model/first.weight"] * (2 / 11) + state["model/first.weight"] * (9 / 11)
    assert torch.equal(first["average/module.first.weight"], first["model/first.weight"])
    published = load_checkpoint(output / "last.safetensors").weights["first.weight"]
    torch.testing.assert_close(published, expected)
    assert torch.equal(published, state["average/module.first.weight"])


def _first_then_stop(batches: Iterator[Batch]) -> Iterator[Batch]:
    yield next(batches)
    raise InputError("the end")


def test_accumulation_is_the_mean_of_the_parts(tmp_path: Path):
    """SGD without momentum or decay: one step with two parts moves by -lr * (gradient(part 1) + gradient(part 2)) / 2."""
    recipe = tiny_recipe(accumulate=2, steps=1, warmup_steps=0, momentum=0.0, weight_decay=0.0)
    output = run(tmp_path / "a", recipe).output
    torch.manual_seed(recipe.training.seed)
    model = recipe.model.build(3)
    batch = next(tiny_data(recipe).batches(0, World(0, 1, torch.device("cpu"))))
    before = model.state_dict()["first.weight"].clone()
    gradient = torch.zeros_like(before)
    for part in (slice(0, 2), slice(2, 4)):
        model.zero_grad()
        piece = replace(batch, images=batch.images[part], targets=batch.truth()[part], sizes=batch.sizes[part])
        torch.stack(list(model.loss(piece).values())).sum().backward()
        gradient += model.get_parameter("first.weight").grad / 2
    after = load_checkpoint(output / "last.safetensors").weights["first.weight"]
    torch.testing.assert_close(after, before - 0.1 * gradient)


def test_clipping_limits_the_step(tmp_path: Path):
    """lr 0.1 and all gradients together of norm 0.01 at most: the weights move by 0.001, without clipping by more."""
    moved = {}
    for name, clip in (("clipped", 0.01), ("free", None)):
        recipe = tiny_recipe(steps=1, warmup_steps=0, weight_decay=0.0, clip_gradients=clip)
        weights = load_checkpoint(run(tmp_path / name, recipe).last).weights
        torch.manual_seed(0)
        start = recipe.model.build(3).state_dict()
        moved[name] = sum((weights[k] - start[k]).square().sum() for k in start).sqrt().item()
    assert moved["clipped"] == pytest.approx(0.001, rel=1e-3)
    assert moved["free"] > 0.002


def test_bfloat16_trains(tmp_path: Path):
    """The loss is near float32's, and the stored weights are float32."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        output = run(tmp_path / precision, tiny_recipe(precision=precision)).output
        losses[precision] = read_log(output / "log.jsonl")[0]["loss"]
        assert {w.dtype for w in load_checkpoint(output / "last.safetensors").weights.values()} == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_a_run_is_never_overwritten(tmp_path: Path):
    recipe = tiny_recipe(steps=4)
    run(tmp_path / "tiny", recipe)
    with pytest.raises(InputError, match="is not empty"):
        run(tmp_path / "tiny", recipe)
    assert new_run_folder("tiny", tmp_path) == tmp_path / "tiny-2"
    (tmp_path / "tiny-2").mkdir()
    assert new_run_folder("tiny", tmp_path) == tmp_path / "tiny-3"
    with pytest.raises(InputError, match="holds no run"):
        run(tmp_path / "other", recipe, resume=True)
    changed = replace(recipe, training=replace(recipe.training, learning_rate=0.5))
    with pytest.raises(InputError, match=r"training\.learning_rate: 0\.1 -> 0\.5"):
        run(tmp_path / "tiny", changed, resume=True)
    shorter = replace(recipe, training=replace(recipe.training, steps=3, warmup_steps=0))
    with pytest.raises(InputError, match="warmup_steps"):
        run(tmp_path / "tiny", shorter, resume=True)


def test_longer_run_goes_on(tmp_path: Path):
    recipe = tiny_recipe(steps=4)
    run(tmp_path / "a", recipe)
    longer = replace(recipe, training=replace(recipe.training, steps=6))
    assert run(tmp_path / "a", longer, resume=True).step == 6
    assert [row["step"] for row in rows(tmp_path / "a") if "losses" in row] == [3, 4, 6]
    with pytest.raises(InputError, match="has done 6 already"):
        run(tmp_path / "a", recipe, resume=True)


def test_batch_size_must_divide(tmp_path: Path):
    with pytest.raises(ValueError, match="accumulate=3"):
        tiny_recipe(accumulate=3)


def test_fine_tuning_starts_from_the_file_and_says_what_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    start = run(tmp_path / "a", tiny_recipe(steps=4)).last
    recipe = tiny_recipe(steps=1, warmup_steps=0, learning_rate=1e-30, init_from=str(start))
    data = replace(tiny_data(recipe), class_names=("a", "b", "c", "d"), category_ids=(1, 2, 3, 4))
    result = fit(recipe, tmp_path / "b", data, device="cpu")
    old, new = load_checkpoint(start), load_checkpoint(result.last)
    assert torch.equal(old.weights["first.weight"], new.weights["first.weight"])
    assert new.weights["predictor.weight"].shape[0] == 4
    assert "start anew: predictor.weight, predictor.bias" in capsys.readouterr().err.replace("\n", " ")
    assert build_model(new).predictor.bias.shape == (4,)


def test_step_seed_and_parts():
    assert len({step_seed(s, k, r) for s in range(3) for k in range(50) for r in range(3)}) == 450
    batch = next(tiny_data(tiny_recipe()).batches(0, World(0, 1, torch.device("cpu"))))
    parts = split_batch(batch, 2)
    assert [part.ids for part in parts] == [(0, 1), (2, 3)]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert sum((part.truth() for part in parts), ()) == batch.truth()


def test_tensorboard_on_request(tmp_path: Path):
    pytest.importorskip("tensorboard")
    output = run(tmp_path / "a", tiny_recipe(tensorboard=True)).output
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("losses/class")] == [3, 6, 9, 12]
