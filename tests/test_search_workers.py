"""Trials in worker processes: errors, deaths and time limits; a search that is killed and goes on; a Ray cluster."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from perpixel.search.runner import learn, load_run, propose, run_search, task_of, to_try, worker_of
from perpixel.search.spaces.toy import LEARNER, ToyReward, ToySearch, ToySpace
from perpixel.search.state import SearchState
from perpixel.search.trial import Outcome, Task, evaluate
from perpixel.search.workers import Workers
from search_rewards import by_first_operation

FATES = {"add": 0, "double": 1, "square": 2, "nothing": 3}
SPACE = ToySpace(2)


def fates(search: ToySearch, names: list[str], time_limit: float | None) -> list[Outcome]:
    """What becomes of trials whose first operation is each of these."""
    outcomes: dict[int, Outcome] = {}
    with Workers(by_first_operation, worker_of(search), search.workers, time_limit) as workers:
        waiting = [Task(i, SPACE.build((0, FATES[name], 1, 1)), seed=i) for i, name in enumerate(names)]
        while len(outcomes) < len(names):
            while waiting and workers.idle:
                workers.submit(waiting.pop(0))
            outcomes |= dict(workers.wait(0.2))
    return [outcomes[i] for i in range(len(names))]


def check(good: Outcome, raised: Outcome, killed: Outcome, again: Outcome) -> None:
    """The reward by hand: sources 0, 1 right, operations add wrong and double right, so 3 of 4."""
    assert good.reward == again.reward == 0.75 and good.error is None and good.values["doubled"] == 0.5
    assert raised.reward == 0.0 and raised.error is not None and killed.error is not None
    assert (
        "RuntimeError" in raised.error and "no <b>memory</b>" in raised.error and "by_first_operation" in raised.error
    )
    assert killed.reward == 0.0 and killed.error.startswith("the worker died")


def test_whatever_becomes_of_a_trial():
    """One worker: it raises, is killed (and replaced), then hangs; the trials after each fare well."""
    good, raised, killed, again, hung, last = fates(
        ToySearch(), ["add", "double", "square", "add", "nothing", "add"], time_limit=3.0
    )
    check(good, raised, killed, again)
    assert hung.reward == 0.0 and hung.error == "it took more than 3 s, the time limit" and 3 < hung.seconds < 30
    assert last.reward == 0.75


def children(of: int) -> list[int]:
    """Processes whose parent has this number."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == of:
            found.append(int(stat.parent.name))
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see the worker processes")
def test_killed_and_gone_on(tmp_path):
    """A real SIGKILL in the middle of a search: its worker ends too, ended trials are kept, and going on proposes what an
    unbroken search does."""
    policy = replace(LEARNER, hidden=16, buffer=4)
    search = ToySearch(trials=10, ahead=3, steps=3, seconds=0.3, policy=policy)
    out = tmp_path / "killed"
    settings = ["trials=10", "ahead=3", "steps=3", "seconds=0.3"]
    settings += ["policy.hidden=16", "policy.buffer=4"]
    command = [sys.executable, "-m", "perpixel", "search", "toy", *settings, "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and not (out / "state.safetensors").is_file():
            time.sleep(0.05)
        time.sleep(0.3)
        workers = children(process.pid)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = load_run(out)[1]
    assert workers and 1 <= len(kept.finished) < 10
    gone = run_search(search, out, resume=True, show=False)
    whole = SearchState(policy.build(search.space(), search.seed))
    propose(search, whole)
    while waiting := to_try(search, whole, set()):
        whole.trials[waiting[0]].outcome = evaluate(ToyReward(), task_of(search, search.space(), whole, waiting[0]))
        learn(search, whole)
    assert [trial.proposal for trial in gone.trials] == [trial.proposal for trial in whole.trials]
    assert [gone.trials[number].outcome for number, _, _ in kept.finished] == [
        outcome for _, _, outcome in kept.finished
    ]
    assert not any(alive(worker) for worker in workers)


def test_on_a_ray_cluster():
    """The same trials on two actors of a local cluster, which must find the module of the reward too."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'perpixel[ray]'")
    found_there = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=found_there)
    try:
        found = fates(ToySearch(runner="ray", workers=2), ["add", "double", "square", "add"], time_limit=None)
    finally:
        ray.shutdown()
    check(*found)
