"""What a training run shows: a bar with the time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column


class Display:
    """Shows how a run goes, on standard error.

    Args:
        total: steps in all.
        start: steps done before.
        shown: False for the processes that keep silent.
    """

    def __init__(self, total: int, start: int = 0, shown: bool = True):
        self._total, self._start, self._shown = total, start, shown
        self._began = time.monotonic()
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("step", table_column=Column(no_wrap=True, min_width=4)),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=2 * len(str(total)) + 1)),
            BarColumn(bar_width=16, table_column=Column(min_width=8)),
            TimeRemainingColumn(elapsed_when_finished=True, table_column=Column(no_wrap=True, min_width=7)),
            # The one column that a narrow terminal cuts.
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            expand=True,
            console=self._console,
            speed_estimate_period=120,
            disable=not (shown and self._console.is_terminal),
        )
        self._task = self._bar.add_task("train", total=total, completed=start, text="")

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, step: int, text: str) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=step, text=text)

    def line(self, step: int, text: str) -> None:
        """A plain line where there is no terminal to draw a bar on."""
        if self._shown and not self._console.is_terminal:
            left = (time.monotonic() - self._began) / max(step - self._start, 1) * (self._total - step)
            print(f"step {step}/{self._total}  {text}  {_duration(left)} left", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A message above the bar."""
        if self._shown:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the terminal to something else that draws a bar."""
        self._bar.stop()
        began = time.monotonic()
        try:
            yield
        finally:
            self._began += time.monotonic() - began
            self._bar.start()


def describe(losses: Mapping[str, float], learning_rate: float, images_per_second: float) -> str:
    """One line of numbers, the most telling first: total loss, speed, learning rate, named losses."""
    named = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
    return f"loss {sum(losses.values()):.3f}  {images_per_second:.1f} images/s  lr {learning_rate:.2e}  {named}"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
