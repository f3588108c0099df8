"""What a running search shows: bar, trials an hour, reward curve, sampled options, best genotypes; the page beside it."""

import sys
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from perpixel.engine.bar import LINE_EVERY
from perpixel.search.curves import averages, best_so_far, best_trials, rewards, shares, window_of
from perpixel.search.folder import SearchFolder
from perpixel.search.report import per_hour, sparkline, write_report
from perpixel.search.settings import Search
from perpixel.search.space import Space
from perpixel.search.state import SearchState

PAGE_EVERY = 20.0
"""Least seconds between two writings of the page."""


class Watch:
    """Shows a search on standard error, and keeps its page fresh.

    Args:
        search: its settings.
        space: what is searched.
        folder: where the page goes.
        shown: False keeps the terminal silent.
    """

    def __init__(self, search: Search, space: Space[Any], folder: SearchFolder, shown: bool) -> None:
        self._search, self._space, self._folder = search, space, folder
        console = Console(stderr=True)
        self._lines = shown and not console.is_terminal
        self._bar = Progress(
            TextColumn("trials"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[speed]}"),
            speed_estimate_period=3600,
        )
        self._task = self._bar.add_task("search", total=search.trials, speed="")
        self._live = Live(console=console, refresh_per_second=2, transient=False) if shown else None
        self._ended = -1
        self._told = self._written = time.monotonic()

    def __enter__(self) -> "Watch":
        if self._live is not None and not self._lines:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None and not self._lines:
            self._live.stop()

    def __call__(self, state: SearchState) -> None:
        """Shows what is new, if anything is."""
        ended = len(state.finished)
        if ended == self._ended:
            return
        self._ended = ended
        self._bar.update(self._task, completed=ended, speed=f"{per_hour(state):.0f} trials/hour")
        now = time.monotonic()
        if self._lines and now - self._told > LINE_EVERY:
            self._told = now
            print(one_line(self._search, state), file=sys.stderr, flush=True)
        elif self._live is not None and not self._lines:
            self._live.update(Group(self._bar, *overview(self._space, state)))
        if now - self._written > PAGE_EVERY:
            self._written = now
            write_report(self._folder, self._search, self._space, state)

    def finish(self, state: SearchState) -> None:
        """Writes the page a last time and says where it is."""
        path = write_report(self._folder, self._search, self._space, state)
        if self._live is not None:
            if self._lines:
                print(one_line(self._search, state), file=sys.stderr, flush=True)
            print(f"look at {path}", file=sys.stderr, flush=True)


def one_line(search: Search, state: SearchState) -> str:
    """How it goes, where there is no terminal."""
    values = rewards(state)
    if not values:
        return f"0/{search.trials} trials"
    mean, best = averages(values, window_of(len(values)))[-1][1], best_so_far(values)[-1][1]
    left = (search.trials - len(values)) / max(per_hour(state), 1e-9)
    return (
        f"{len(values)}/{search.trials} trials, {per_hour(state):.0f} an hour, {left:.1f} h left, "
        f"reward {mean:.4f}, best {best:.4f}"
    )


def overview(space: Space[Any], state: SearchState) -> list[Any]:
    """Reward curve, sampled options and best genotypes, for the terminal."""
    values = rewards(state)
    window = window_of(len(values))
    means = [mean for _, mean in averages(values, window)]
    shown: list[Any] = []
    if means:
        shown.append(Text(f"reward {means[0]:.3f} {sparkline(means, 48)} {means[-1]:.3f}, mean of {window}"))
    for kind, curves in shares(space, state, window).items():
        options = sorted(curves.items(), key=lambda item: -item[1][-1][1])
        shown.append(Text(f"{kind}: " + "  ".join(f"{name} {100 * c[-1][1]:.0f} %" for name, c in options), "dim"))
    table = Table(box=None, padding=(0, 2, 0, 0), title="best", title_justify="left")
    for heading in ("trial", "reward", "values", "answers"):
        table.add_column(heading, no_wrap=heading != "values")
    for number in best_trials(state, 3):
        trial = state.trials[number]
        assert trial.outcome is not None
        figures = " ".join(f"{name} {value:.3f}" for name, value in trial.outcome.values.items())
        answers = " ".join(map(str, trial.proposal.tokens))
        table.add_row(*map(Text, (str(number + 1), f"{trial.outcome.reward:.4f}", figures, answers)))
    shown.append(table)
    return shown
