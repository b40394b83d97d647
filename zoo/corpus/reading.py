"""Items of a shard read ahead by threads, in order, in memory that the number and length of items do not change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any

from zoo.modalities import Signal
from zoo.sources.items import Item

ITEMS_AHEAD = 64  # at most, however small their signals are
PIECES_AHEAD = 2  # of one item
SECONDS_BETWEEN_LOOKS = 0.1  # of a thread that waits, whether anybody still wants what it reads


@dataclass(frozen=True)
class Piece:
    """A signal, or one window of a long one. is_last: whether no other piece of the item follows.

    signal: without batch axis; None where there is an `error`, which is then the last piece.
    """

    item: Item
    signal: Signal | None
    is_last: bool
    error: Exception | None = None


@dataclass(frozen=True)
class End:
    """What follows the last item: nothing, or the error of the iterable of items."""

    error: Exception | None = None


Read = Callable[[Item], Iterator[Signal]]


def pieces(
    items: Iterable[Item], read: Read, threads: int, most: int, amount_of: Callable[[Signal], int]
) -> Readers | Generator[Piece]:
    """Return the pieces of every item, item by item, in the order of `items`. Its `close` ends the reading.

    Args:
        items: an iterable that one thread at a time goes on with. Its error is raised, after the items before it.
        read: yields the signals of one item; its error becomes a piece.
        threads: number of items that are read at once, from now on and ahead of what is asked for; 0: when it is asked
            for.
        most: as long as the signals that are read ahead have this amount together, no other item is begun.
        amount_of: the amount of a signal.
    """
    if threads == 0:
        return (piece for item in items for piece in pieces_of(item, read))
    return Readers(items, read, threads, most, amount_of)


def pieces_of(item: Item, read: Read) -> Iterator[Piece]:
    """Yield the pieces of one item; each is held back until it is known whether it is the last."""
    held: Signal | None = None
    try:
        for signal in read(item):
            if held is not None:
                yield Piece(item, held, is_last=False)
            held = signal
    except Exception as error:
        yield Piece(item, None, is_last=True, error=error)
        return
    yield Piece(item, held, is_last=True)


class Readers:
    """Threads that each take the next item, and put its pieces into a queue of the item's own.

    `order` holds those queues in the order of the items, so that the reader of the first one is always at work.
    """

    def __init__(self, items: Iterable[Item], read: Read, threads: int, most: int, amount_of: Callable[[Signal], int]):
        self._items, self._read, self._most, self._amount_of = iter(items), read, most, amount_of
        self._order: Queue[Any] = Queue(ITEMS_AHEAD)
        self._next_item = threading.Lock()
        self._stopped = threading.Event()
        self._amount = 0  # of the signals that nobody has asked for
        self._taken = threading.Condition()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[Piece]:
        while not isinstance(queue := self._order.get(), End):
            while not (piece := self._take(queue)).is_last:
                yield piece
            yield piece
        if queue.error is not None:
            raise queue.error

    def close(self) -> None:
        self._stopped.set()
        self._add(0)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            queue: Queue[Piece] = Queue(PIECES_AHEAD)
            with self._next_item:
                with self._taken:
                    self._taken.wait_for(lambda: self._amount < self._most or self._stopped.is_set())
                try:
                    item = next(self._items, None)
                except Exception as error:
                    self._put(self._order, End(error))
                    return
                if item is None:
                    self._put(self._order, End())
                    return
                if not self._put(self._order, queue):
                    return
            for piece in pieces_of(item, self._read):
                if piece.signal is not None:
                    self._add(self._amount_of(piece.signal))
                if not self._put(queue, piece):
                    return

    def _take(self, queue: Queue[Piece]) -> Piece:
        piece = queue.get()
        if piece.signal is not None:
            self._add(-self._amount_of(piece.signal))
        return piece

    def _add(self, amount: int) -> None:
        with self._taken:
            self._amount += amount
            self._taken.notify()

    def _put(self, queue: Queue[Any], value: Any) -> bool:
        """Put `value`, unless nobody wants it any more; return whether it was put."""
        while not self._stopped.is_set():
            try:
                queue.put(value, timeout=SECONDS_BETWEEN_LOOKS)
                return True
            except Full:
                continue
        return False
