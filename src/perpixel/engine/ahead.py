"""The next photos are read while the model works on this one."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(items: Iterable[T], count: int = 2) -> Iterator[T]:
    """The items in order, made by a thread of their own, up to `count` before they are asked for.

    What making an item raises is raised where the item would have come. When the caller stops early, so does the thread, and
    a generator among the items is closed.
    """
    iterator = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="perpixel-ahead")
    try:
        waiting = deque(pool.submit(next, iterator, _END) for _ in range(count))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, iterator, _END))
            yield item  # pyright: ignore[reportReturnType]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(iterator, Iterator) and hasattr(iterator, "close"):
            iterator.close()  # pyright: ignore[reportAttributeAccessIssue]
