"""The same workers on a Ray cluster (the extra ``ray``)."""

import importlib
from concurrent.futures import Future
from typing import Any

import torch

from perpixel.errors import InputError
from perpixel.search.trial import Outcome, Reward, Task, evaluate
from perpixel.search.workers import Worker

try:
    ray: Any = importlib.import_module("ray")
except ImportError as error:
    raise InputError("runner=ray needs Ray: pip install 'perpixel[ray]', or leave runner=local") from error


class _Actor:
    """What lives on the cluster."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def ready(self) -> None:
        """Answers once the actor is there."""

    def evaluate(self, reward: Reward, task: Task) -> Outcome:
        return evaluate(reward, task)


class RayWorker(Worker):
    """An actor on the cluster: the one that RAY_ADDRESS names, or runs on this machine, or is started here.

    Args:
        cpus: processor cores it reserves, and its threads.
        gpus: GPUs, or the share of one, it reserves.
    """

    def __init__(self, cpus: int, gpus: float) -> None:
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(_Actor)
        self._actor = actor.remote(cpus)
        self._ready: Future[None] = self._actor.ready.remote().future()

    @property
    def up(self) -> bool:
        """Whether the actor has started."""
        return self._ready.done()

    def submit(self, reward: Reward, task: Task) -> Future[Outcome]:
        """Begins a trial."""
        return self._actor.evaluate.remote(reward, task).future()

    def kill(self) -> None:
        """Ends the actor."""
        ray.kill(self._actor)

    def died(self, error: BaseException) -> bool:
        """Whether the actor is gone."""
        return isinstance(error, ray.exceptions.RayActorError)
