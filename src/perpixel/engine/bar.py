"""A bar for work that counts images, or whatever else: how many, how fast, how long still."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Amount = int | float

LINE_EVERY = 15.0
"""Seconds between plain lines where there is no terminal."""


class Bar:
    """A running bar; `advance` moves it, `say` writes above it."""

    def __init__(
        self,
        label: str,
        total: Amount | None,
        console: Console,
        bar: Progress,
        task: TaskID,
        shown: bool,
        unit: str,
        done: Amount,
    ):
        self._label, self._total, self._console, self._bar, self._task = label, total, console, bar, task
        self._lines = shown and not console.is_terminal
        self._shown, self._unit = shown, unit
        self._done = self._before = done
        self._began = time.monotonic()
        self._told = self._began

    def advance(self, count: Amount = 1) -> None:
        """Counts what is done."""
        self._done += count
        now = time.monotonic()
        speed = (self._done - self._before) / max(now - self._began, 1e-6)
        self._bar.update(self._task, completed=self._done, speed=f"{speed:.1f} {self._unit}/s")
        if self._lines and now - self._told > LINE_EVERY:
            self._told = now
            left = "" if self._total is None else f", {max(0, self._total - self._done) / speed:.0f} s left"
            of = "" if self._total is None else f"/{self._total:.0f}"
            print(f"{self._label} {self._done:.0f}{of} {self._unit}, {speed:.1f}/s{left}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A message above the bar; it appears even where no bar is shown."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def counting_bar(
    label: str, total: Amount | None, show: bool = True, unit: str = "images", done: Amount = 0
) -> Iterator[Bar]:
    """A bar on standard error; plain lines now and then where that is no terminal.

    Args:
        label: what is being done.
        total: in all, or None where nobody knows.
        show: False keeps silent.
        unit: what is counted.
        done: of these, before this work began.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, disable=not (show and console.is_terminal)) as bar:
        task = bar.add_task(label, total=total, completed=done, speed="")  # pyright: ignore[reportArgumentType]
        yield Bar(label, total, console, bar, task, show, unit, done)
