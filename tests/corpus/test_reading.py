"""Reading ahead: in the order of the items, and no more than is asked for."""

import time
from contextlib import closing
from itertools import count, islice

import torch

from zoo.corpus.reading import pieces
from zoo.modalities import Signal
from zoo.sources.items import Item


def test_readers_stop_when_as_much_waits_as_is_asked_for():
    begun = []

    def read(item):
        begun.append(item.key)
        yield Signal(torch.zeros(1, 10))

    items = (Item("", str(number), None, "audio") for number in count())
    with closing(pieces(items, read, threads=3, most=50, amount_of=lambda signal: signal.values.numel())) as found:
        assert [piece.item.key for piece in islice(found, 3)] == ["0", "1", "2"]
        end = time.monotonic() + 10
        while len(begun) < 3 + 5 and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)  # in which nothing more may be begun
        assert 3 + 5 <= len(begun) <= 3 + 4 + 3  # taken, waiting, and begun by each thread while there was room
