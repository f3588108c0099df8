"""SIGKILL at random moments: whatever is killed goes on, and ends as if nothing had happened.

    python tests/reliability/kills.py --kills 200 --seed 0

trains a tiny model on the processor again and again; a killed run is resumed until it is done, and its weights, optimiser,
average and log are then compared with those of an unbroken run, bit for bit. `--only label` and `--only ranks` do the same to
`perpixel label`, to a search and to one of two processes that train together.
"""

import argparse
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from perpixel.engine.checkpoint import load_checkpoint
from perpixel.engine.files import load_tensors
from perpixel.engine.logs import read_log
from perpixel.engine.loop import fit
from perpixel.engine.recipe import Recipe
from perpixel.engine.runs import RunFolder
from perpixel.search import workers
from perpixel.search.runner import load_run, run_search
from search_rewards import CountedSearch
from tiny_training import Job, TinyTrainingConfig, tiny_data, tiny_recipe, wait_for_rows

FILES = ("last.safetensors", "best.safetensors", "last.state.safetensors")


def tiny(optimizer: str, seed: int) -> Recipe:
    """Every kind of state that a run can have, many saves and evaluations."""
    model = TinyTrainingConfig(norm="batch", dropout=0.5, width=64)
    more = {"steps": 40, "average": 0.9, "clip_gradients": 1.0, "evaluate_every": 3, "save_every": 2}
    return tiny_recipe(model, optimizer=optimizer, seed=seed, **more)


def train(recipe: Recipe, output: Path) -> None:
    """Begins, or goes on with, a run in `output`."""
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    data = tiny_data(recipe, evaluate=True)
    fit(recipe, output, data, resume=(output / "recipe.json").exists(), device="cpu")


def killed(work: Callable[..., None], arguments: tuple, seconds: float | None) -> bool:
    """Runs work in a process and kills it after so many seconds; whether it came to that."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    process.join(seconds)
    if not process.is_alive():
        assert process.exitcode == 0, f"it ended with {process.exitcode}"
        return False
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return True


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two runs."""
    found = []
    for name in FILES:
        (ours, document), (theirs, other) = load_tensors(first / name), load_tensors(second / name)
        found += [f"{name} says {document}, {other}"] if document != other else []
        found += [f"{name}: {key}" for key in ours.keys() | theirs.keys() if not torch.equal(ours[key], theirs[key])]
    return found + (["the logs"] if rows(first) != rows(second) else [])


def rows(output: Path) -> list[dict]:
    """The log without speeds."""
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in read_log(output / "log.jsonl")]


def look(output: Path, seen: Counter[str]) -> None:
    """After a kill: every file is whole; where the kill struck is counted."""
    parts = [path.name.split(".")[1:3] for path in output.glob(".*.part")]
    for name in FILES:
        if (output / name).exists():
            load_tensors(output / name)
    if (output / "last.safetensors").exists():
        load_checkpoint(output / "last.safetensors")
    if (output / "recipe.json").exists():
        RunFolder(output).load_recipe()
    log = (output / "log.jsonl").read_bytes() if (output / "log.jsonl").exists() else b""
    if parts:
        seen[f"while {parts[0][0]}.{parts[0][1]} was written"] += 1
    elif not (output / "last.state.safetensors").exists():
        seen["before anything was saved"] += 1
    elif log and b'"metrics"' in log.splitlines()[-1]:
        seen["between an evaluation's row of the log and the next row"] += 1
    else:
        seen["elsewhere: steps, evaluations, between two files"] += 1


def kill_training(kills: int, seed: int, folder: Path) -> None:
    random, seen, runs, done = Random(seed), Counter[str](), 0, 0
    while done < kills:
        recipe = tiny(("sgd", "adamw")[runs % 2], runs)
        whole, broken = folder / f"whole{runs}", folder / f"broken{runs}"
        began = time.monotonic()
        assert not killed(train, (recipe, whole), None)
        lasts = time.monotonic() - began
        # Killed so often that a run would hardly end: later tries get more time.
        tries = 0
        while killed(train, (recipe, broken), random.uniform(0, lasts * (0.15 + 0.05 * tries))):
            done, tries = done + 1, tries + 1
            look(broken, seen)
        wrong = differences(whole, broken)
        assert not wrong, wrong
        left = [path.name for path in broken.iterdir() if path.name.endswith(".part")]
        assert not left, left
        runs += 1
    print(f"training: {done} kills in {runs} runs, each run's files equal to the unbroken one's; no half file is left")
    for where, count in seen.most_common():
        print(f"  {count:4} {where}")


def kill_label(kills: int, seed: int, folder: Path) -> None:
    """The output is whole or not there; the run that ends gives the same file."""
    import json

    from PIL import Image

    from perpixel.engine.label import label
    from perpixel.engine.label_file import BoxFile
    from perpixel.engine.label_masks import Masker, Proposal

    (folder / "images").mkdir()
    images, annotations = [], []
    for n in range(40):
        Image.fromarray(np.full((64, 80, 3), n, np.uint8)).save(folder / "images" / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "height": 64, "width": 80})
        annotations += [{"id": 50 * n + k, "image_id": n, "category_id": 1, "bbox": [k, k, 20, 20]} for k in range(20)]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "boxes.json").write_text(json.dumps(document))

    class Fill(Masker):
        name, unknown = "fill", set[str]()

        def propose(self, image, boxes, names):
            yield from (Proposal(np.ones(image.shape[:2], dtype=bool), 0.5) for _ in boxes)

    def work(output: Path) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        file = BoxFile.read(folder / "boxes.json", folder / "images")
        label(file, Fill(), output, folder / "report", pictures=5, progress=False)

    began = time.monotonic()
    work_out = folder / "whole.json"
    assert not killed(work, (work_out,), None)
    lasts, random, done, whole = time.monotonic() - began, Random(seed), 0, 0
    while done < kills:
        output = folder / "out.json"
        output.unlink(missing_ok=True)
        done += killed(work, (output,), random.uniform(0, lasts))
        if output.exists():
            whole += 1
            assert output.read_bytes() == work_out.read_bytes()
    print(f"label: {done} kills; the file was there {whole} times, each time whole and equal")


def search(settings: CountedSearch, output: Path) -> None:
    """Begins, or goes on with, a search in `output`; its workers are forked, since a fresh process loads PyTorch for seconds."""
    torch.set_num_threads(1)
    workers.get_context = lambda _: multiprocessing.get_context("fork")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    run_search(settings, output, resume=(output / "search.json").exists(), show=False)


def searched(output: Path) -> tuple[list[dict], dict[str, list], object]:
    """All trials with their rewards, what the policy has learned, and its counters; without times."""
    state = load_run(output)[1]
    trials = [asdict(trial) for trial in state.trials]
    for trial in trials:
        (trial["outcome"] or {}).pop("seconds", None)
    tensors, document = state.policy.save()
    counters = document, state.learned, state.running
    return trials, {name: tensor.tolist() for name, tensor in tensors.items()}, counters


def kill_search(kills: int, seed: int, folder: Path) -> None:
    """Each search ends as the unbroken one; a kill costs no more than the trials that were running."""
    random, seen, runs, done, more = Random(seed), Counter[str](), 0, 0, 0
    while done < kills:
        whole, broken, tries = folder / f"whole{runs}", folder / f"broken{runs}", folder / f"tries{runs}"
        settings = CountedSearch(trials=40, steps=3, seed=runs, workers=2, seconds=0.05, tries=str(tries))
        began = time.monotonic()
        assert not killed(search, (settings, whole), None)
        lasts, asked = time.monotonic() - began, 0
        assert len(tries.read_text()) == settings.trials
        tries.unlink()
        while killed(search, (settings, broken), random.uniform(0, lasts * (0.7 + 0.1 * asked))):
            done, asked = done + 1, asked + 1
            half = bool(list(broken.glob(".*.part")))
            saved = (broken / "state.safetensors").exists()
            ended = sum(trial["outcome"] is not None for trial in searched(broken)[0]) if saved else 0
            where = "before a trial had ended" if not ended else "between its trials"
            seen["while a file was written" if half else where if ended < settings.trials else "at its end"] += 1
        assert searched(whole) == searched(broken)
        assert (whole / "best.json").read_bytes() == (broken / "best.json").read_bytes()
        left = [path.name for path in broken.iterdir() if path.name.endswith(".part")]
        assert not left, left
        again = len(tries.read_text()) - settings.trials
        assert again <= settings.workers * asked, (again, asked)
        runs, more = runs + 1, more + again
    print(f"search: {done} kills in {runs} searches, each ended as the unbroken one; {more} trials were tried again")
    for where, count in seen.most_common():
        print(f"  {count:4} {where}")


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return str(sock.getsockname()[1])


def dead_rank(folder: Path, which: int, rows: int) -> tuple[float, int | None, str]:
    """Kills one of two processes that train together: seconds until the other ends, its exit code, its sentence."""
    output, port = folder / "run", free_port()
    model = TinyTrainingConfig(norm="batch")
    environments = [
        {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in "01"
    ]
    settings = ("steps=400", "log_every=1", "save_every=2")
    both = [Job(output, model, settings, 0.05, environment).start() for environment in environments]
    wait_for_rows(output, rows, both)
    began = time.monotonic()
    both[which].kill()
    both[1 - which].join(120)
    seconds, code = time.monotonic() - began, both[1 - which].exitcode
    for process in both:
        process.kill()
        process.join()
    told = folder / f"{1 - which}.txt"
    return seconds, code, told.read_text() if told.exists() else ""


def kill_ranks(kills: int, seed: int, folder: Path) -> None:
    random, longest = Random(seed), 0.0
    for number in range(kills):
        (folder / str(number)).mkdir()
        seconds, code, sentence = dead_rank(folder / str(number), number % 2, random.randint(2, 12))
        assert code == 2 and sentence and "\n" not in sentence, (code, sentence)
        load_checkpoint(folder / str(number) / "run" / "last.safetensors")
        longest = max(longest, seconds)
    print(f"ranks: {kills} kills of one of two processes; the other ended within {longest:.1f} s, saying: {sentence}")


KINDS: dict[str, Callable[[int, int, Path], None]] = {
    "training": kill_training,
    "label": kill_label,
    "search": kill_search,
    "ranks": kill_ranks,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of each kind; a tenth of them of ranks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=KINDS, help="kinds")
    arguments = parser.parse_args()
    for name in arguments.only or KINDS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"perpixel-kill-{name}-") as folder:
            KINDS[name](
                arguments.kills if name != "ranks" else max(1, arguments.kills // 10), arguments.seed, Path(folder)
            )
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
