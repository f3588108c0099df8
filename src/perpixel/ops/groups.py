"""Rows of a table by the group they belong to: candidates by image, by level."""

import torch
from jaxtyping import Int
from torch import Tensor


def rows_by(group: Int[Tensor, " n"], groups: int) -> tuple[Int[Tensor, " _"], ...]:
    """Row numbers of each group, ascending.

    The host waits for a GPU once, however many groups there are, and not at all for one. A graph that is being exported has no
    host to wait: there each group is looked for.

    Args:
        group: 0 to groups - 1, of each row.
        groups: how many there are; those without rows too.
    """
    if torch.compiler.is_exporting():
        return tuple(torch.nonzero(group == number).squeeze(1) for number in range(groups))
    if groups == 1:
        return (torch.arange(len(group), device=group.device),)
    order = torch.argsort(group, stable=True)
    ends = torch.searchsorted(group[order], torch.arange(groups, device=group.device), right=True).tolist()
    return order.tensor_split(ends[:-1])
