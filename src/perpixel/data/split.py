"""Parts of a data set for training and evaluation, in which each class has its share.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas: "On the Stratification of Multi-Label Data", 2011): the class with the
fewest images left is dealt out first, each image to the part that still wants most of it. Here a group of near duplicates is
dealt out as one, and the last images of a class go to the parts that have none.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from perpixel.errors import InputError


def deal(
    groups: Sequence[Sequence[int]], classes: Sequence[frozenset[int]], shares: Mapping[str, float], seed: int = 0
) -> dict[str, list[int]]:
    """The images of each part, in their order.

    Args:
        groups: images that stay together; every image stands in one group.
        classes: the labels that occur in each image.
        shares: each part's share of the images; together 1.
        seed: of the order in which groups are dealt out.

    Raises:
        InputError: shares that are no shares, or more parts than groups.
    """
    if len(shares) < 2 or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        given = " ".join(f"{part}={share:g}" for part, share in shares.items())
        raise InputError(f"--parts {given}: give two or more parts with shares above 0 that add up to 1")
    if len(groups) < len(shares):
        raise InputError(
            f"{len(shares)} parts cannot be made of {len(groups)} groups of images, as near duplicates stay together"
        )
    parts = list(shares)
    share = np.array(list(shares.values()))
    images = np.array([len(group) for group in groups])
    labels = sorted(frozenset[int]().union(*classes))
    column = {label: place for place, label in enumerate(labels)}
    has = np.zeros((len(groups), len(labels)), dtype=np.int64)
    for row, group in enumerate(groups):
        for image in group:
            for label in classes[image]:
                has[row, column[label]] += 1
    wanted_images = share * images.sum()
    wanted = np.outer(share, has.sum(0))
    given = np.zeros((len(parts), len(labels)), dtype=np.int64)
    dealt: dict[str, list[int]] = {part: [] for part in parts}
    order = np.random.default_rng(seed).permutation(len(groups))
    is_open = np.ones(len(groups), dtype=bool)

    def give(row: int, part: int) -> None:
        is_open[row] = False
        dealt[parts[part]].extend(groups[row])
        given[part] += has[row]
        wanted[part] -= has[row]
        wanted_images[part] -= images[row]

    while (rest := (has[is_open] > 0).sum(0)).any():
        label = int(np.argmin(np.where(rest > 0, rest, rest.max() + 1)))
        of_class = order[is_open[order] & (has[order, label] > 0)].tolist()
        for done, row in enumerate(of_class):
            without = np.flatnonzero(given[:, label] == 0)
            last = len(without) > 0 and len(of_class) - done <= len(without)
            allowed = without if last else np.arange(len(parts))
            give(row, max(allowed.tolist(), key=lambda part: (wanted[part, label], wanted_images[part])))
    for row in order[is_open[order]].tolist():
        empty = [part for part in range(len(parts)) if not dealt[parts[part]]]
        give(row, max(empty or range(len(parts)), key=lambda part: wanted_images[part]))
    return {part: sorted(rows) for part, rows in dealt.items()}
