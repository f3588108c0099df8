"""Rows by group."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from perpixel.ops.groups import rows_by


@given(st.lists(st.integers(0, 4), max_size=30))
def test_each_group_has_its_rows_in_order(groups):
    """As a comparison with each number finds them; groups without rows too."""
    group = torch.tensor(groups, dtype=torch.long)
    found = rows_by(group, 5)
    assert [rows.tolist() for rows in found] == [[i for i, g in enumerate(groups) if g == k] for k in range(5)]


def test_of_one_group_are_all_rows():
    assert [rows.tolist() for rows in rows_by(torch.zeros(3, dtype=torch.long), 1)] == [[0, 1, 2]]


def test_an_exported_graph_finds_the_same():
    """For any number of rows, although the graph is drawn with one of them."""

    class Groups(torch.nn.Module):
        def forward(self, group):
            return rows_by(group, 3)

    drawn = torch.tensor([2, 0, 2, 1])
    graph = torch.export.export(Groups(), (drawn,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    for group in (drawn, torch.tensor([1, 1, 0, 2, 1, 0])):
        assert all(ours.equal(theirs) for ours, theirs in zip(graph(group), rows_by(group, 3), strict=True))
