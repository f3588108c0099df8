"""Reading ahead: order, errors in their place, and how far ahead."""

import threading

import pytest

from perpixel.engine.ahead import ahead


def test_order_and_threads():
    makers = set()

    def made():
        for number in range(20):
            makers.add(threading.get_ident())
            yield number

    assert list(ahead(made())) == list(range(20))
    assert len(makers) == 1 and threading.get_ident() not in makers
    assert list(ahead([])) == []


def test_the_next_items_are_made_while_this_one_is_used():
    """Item 2 is made without being asked for, item 3 only once item 1 has been taken: two ahead of what is in hand."""
    made = [threading.Event() for _ in range(6)]

    def making():
        for number, event in enumerate(made):
            event.set()
            yield number

    items = ahead(making(), count=2)
    assert next(items) == 0
    assert made[2].wait(10)
    assert not made[3].wait(0.05)
    assert next(items) == 1
    assert made[3].wait(10)
    items.close()


def test_errors_come_in_their_place():
    def failing():
        yield 1
        yield 2
        raise ValueError("third")

    items = ahead(failing())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(items)


def test_stopping_early_closes_the_source():
    closed = []

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    items = ahead(endless())
    next(items)
    items.close()
    assert closed == [True]
    assert not [t for t in threading.enumerate() if t.name.startswith("perpixel-ahead")]
