"""Which of several processes this one is; one process, several GPUs and several machines look alike to the loop.

`torchrun` starts the processes and describes them in environment variables; without it there is one process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from perpixel.errors import InputError

PATIENCE = timedelta(hours=3)
"""How long processes wait for one that evaluates."""


@dataclass(frozen=True)
class World:
    """This process among all of a run.

    Attributes:
        rank: 0..size-1; rank 0 writes files and shows progress.
        size: number of processes.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Mean over all processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def gather(self, items: list[str]) -> list[str]:
        """The lists of all processes, joined in the order of ranks."""
        if self.size == 1:
            return items
        parts: list[list[str] | None] = [None] * self.size
        dist.all_gather_object(parts, items)
        return [item for part in parts if part for item in part]

    def share(self, tensors: list[Tensor]) -> None:
        """Gives every process the first one's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Returns when every process is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world(device: torch.device | str | None = None) -> Iterator[World]:
    """Joins the processes that `torchrun` started, and leaves them at the end.

    Args:
        device: where to compute; None takes this process's GPU if there is one.

    Raises:
        InputError: the device does not exist.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size == 1:
        yield World(0, 1, chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()


def choose_device(device: torch.device | str | None = None, local_rank: int = 0) -> torch.device:
    """The device asked for, or this process's GPU, or the CPU.

    Raises:
        InputError: there is no such device.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device={device} is not known; cpu, cuda and cuda:0 are") from error
    if chosen.type == "cuda":
        chosen = torch.device("cuda", local_rank if chosen.index is None else chosen.index)
        if not torch.cuda.is_available() or chosen.index >= torch.cuda.device_count():
            raise InputError(
                f"device={chosen}: this machine has {torch.cuda.device_count()} usable GPUs; device=cpu always works"
            )
    return chosen
