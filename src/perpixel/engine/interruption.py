"""Ctrl-C and the scheduler's SIGTERM as a polite question: finish the step, save, stop."""

import os
import signal
import threading
from types import FrameType
from typing import Any


class Interruption:
    """While entered, remembers that the user (or a scheduler) asked the run to stop.

    A second Ctrl-C stops at once, unless several processes run: `torchrun` repeats the first one.

    Args:
        patient: ignore a second Ctrl-C.
    """

    def __init__(self, patient: bool = False):
        self.asked = False
        self._patient = patient
        self._process = os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            for name in (signal.SIGINT, signal.SIGTERM):
                self._before[name] = signal.signal(name, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt
        if not self.asked and os.getpid() == self._process:  # a worker inherits the handler
            os.write(2, b"\nstopping after this step; the run will be saved\n")
        self.asked = True
