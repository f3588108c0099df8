"""What befalls a run through no defect of the library, in one sentence: no memory, no disk, a dead process."""

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from perpixel.errors import InputError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|std::bad_alloc", re.IGNORECASE)
_WORKER = re.compile(r"DataLoader worker", re.IGNORECASE)
_RANK = re.compile(
    r"Connection (closed|reset|refused)|Broken pipe|remote (worker|process)|Timed out waiting", re.IGNORECASE
)


def sentence_of(error: BaseException) -> str | None:
    """What an exception means to the user; None for one that is a defect."""
    said = re.sub(r"^\[\S+\] ", "", " ".join(str(error).split()))[:120]  # without the place in a source of PyTorch
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _MEMORY.search(said)
    ):
        return (
            f"the memory is used up ({said or 'MemoryError'}): a smaller training.batch_size, a larger training.accumulate or "
            "smaller images (data.augment.short_sides, data.test) need less"
        )
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{error.filename or 'a file'} cannot be read or written: {error.strerror}"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return "the memory is used up: close other programs, or lower data.workers"
    if isinstance(error, RuntimeError) and _WORKER.search(said):
        return (
            f"a process that prepares batches died ({said}): perhaps the memory was used up; lower data.workers, or set "
            "data.workers=0 to see why"
        )
    if isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and _RANK.search(said)):
        return f"another process of the run died or cannot be reached ({said}): what it said stands above"
    return None


@contextmanager
def accidents_told(before: Callable[[], str], after: Callable[[], str]) -> Iterator[None]:
    """Makes an `InputError` of what is no defect.

    Args:
        before, after: what the sentence begins and ends with, asked for when it is needed.

    Raises:
        InputError: the sentence.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        raise InputError(f"{before()}: {sentence}; {after()}") from error
