"""One thread that owns the models, and a bounded number of places for those who wait for it."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from perpixel.serve.limits import Refused

T = TypeVar("T")


class Worker:
    """Does one piece of work after the other, in the order of asking, away from the event loop.

    Args:
        places: requests inside at one time; each takes a place before its body is read.
    """

    def __init__(self, places: int):
        self._free = threading.BoundedSemaphore(places)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="perpixel-worker")
        self._lasted = 1.0

    def place(self) -> "Place":
        """A place for one request, to be used in a `with` statement.

        Raises:
            Refused: 503, none is free.
        """
        if not self._free.acquire(blocking=False):
            wait = max(1, math.ceil(self._lasted))
            raise Refused(503, f"the server is busy: try again in {wait} s", retry_after=wait)
        return Place(self)

    def close(self) -> None:
        """Waits for what is under way."""
        self._thread.shutdown(wait=True)


class Place:
    """A request's place. It is given back where the request ends, or where its work does if that is later."""

    def __init__(self, worker: Worker):
        self._worker = worker
        self._handed_over = False

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        if not self._handed_over:
            self._worker._free.release()

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """What `work` returns, computed when its turn comes.

        Raises:
            Refused: 504, not ready after `seconds`. What waits is then never begun; what is under way ends for nobody.
        """
        worker, given_up = self._worker, threading.Event()

        def turn() -> T | None:
            began = time.monotonic()
            try:
                return None if given_up.is_set() else work()
            finally:
                worker._lasted = time.monotonic() - began
                worker._free.release()

        future = asyncio.wrap_future(worker._thread.submit(turn))
        self._handed_over = True
        try:
            # Shielded: a cancelled future would never run, and its place would never come back.
            return await asyncio.wait_for(asyncio.shield(future), seconds)  # pyright: ignore[reportReturnType]
        except TimeoutError as error:
            future.add_done_callback(lambda late: late.cancelled() or late.exception())
            raise Refused(504, f"the answer took longer than {seconds:g} s: send fewer or smaller photos") from error
        finally:
            given_up.set()
