"""What a step is made of: its random state and the parts of its batch."""

from dataclasses import replace

import numpy as np

from perpixel.structures import Batch


def step_seed(seed: int, step: int, rank: int) -> int:
    """The random state of one process in one step: a hash of the three numbers."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """The batch in `parts` of equal length, in order."""
    size = len(batch) // parts
    earlier = [split_batch(past, parts) for past in batch.before]
    return [
        replace(
            batch,
            images=batch.images[first : first + size],
            sizes=batch.sizes[first : first + size],
            originals=batch.originals[first : first + size],
            targets=None if batch.targets is None else batch.targets[first : first + size],
            ids=batch.ids[first : first + size],
            before=tuple(past[first // size] for past in earlier),
        )
        for first in range(0, len(batch), size)
    ]
