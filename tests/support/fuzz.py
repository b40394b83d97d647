"""Seeded fuzz: cases that are made from a number, what becomes of them, and changes to bytes and structures."""

import signal
import threading
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from zoo.errors import UnexpectedError, ZooError

OUTCOMES = ("accepted", "clean error", "other", "silent")
SHORT_OF_MEMORY = ("can't allocate memory", "Unable to allocate", "out of memory", "bad_alloc")


class Silent(Exception):
    """Something wrong was accepted, and what came back is garbage."""


class TimeLimit(BaseException):
    """A case takes too long."""


@dataclass(frozen=True)
class Case:
    """What is called with what, and the call, which raises `Silent` if what it returns cannot be right."""

    description: str
    run: Callable[[], object]


class Boundary(ABC):
    """A place where something comes from outside.

    Args:
        folder: an empty folder for files; the files of a case are overwritten by the next one.
    """

    name: str

    @abstractmethod
    def __init__(self, folder: Path):
        """Make what cases are changes of."""

    @abstractmethod
    def case(self, random: Random) -> Case:
        """Make a case, which depends on nothing but `random`."""


@dataclass(frozen=True)
class Outcome:
    """One of `OUTCOMES`, and for those that no case may have what happened."""

    kind: str
    report: str = ""

    @property
    def is_bad(self) -> bool:
        return self.kind in ("other", "silent")


def outcome(boundary: Boundary, seed: int, seconds: float = 20.0) -> Outcome:
    """Run the case of `boundary` that `seed` stands for."""
    case = boundary.case(Random(f"{boundary.name} {seed}"))
    torch.manual_seed(seed)
    try:
        with time_limit(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.run()
    except Silent as error:
        return _bad("silent", boundary, seed, case, str(error))
    except (Exception, TimeLimit) as error:
        reason = _unclean(error)
        return Outcome("clean error") if reason is None else _bad("other", boundary, seed, case, reason)
    return Outcome("accepted")


def _unclean(error: BaseException) -> str | None:
    """Return what is wrong with an error: it is not one of ours, or memory ran short; None: nothing is."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, MemoryError) or any(text in str(current) for text in SHORT_OF_MEMORY):
            break
        current = current.__cause__ or current.__context__
    if current is None and isinstance(error, ZooError) and not isinstance(error, UnexpectedError):
        return None
    return "".join(traceback.format_exception(error))


def _bad(kind: str, boundary: Boundary, seed: int, case: Case, report: str) -> Outcome:
    again = f"python -m tests.fuzz {boundary.name} {seed}"
    return Outcome(kind, f"{kind}: {case.description}\n{report.strip()}\nto run it alone: {again}\n")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimit` in the block after `seconds`; only the main thread of Unix has such a limit."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeLimit(f"longer than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Values


def odd_number(random: Random) -> Any:
    """A number as it should not be, or seldom is."""
    return random.choice(
        [
            *(0, -1, 1, 2, 3, 17, 255, 256, 65536, 10**6, 10**7, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63),
            *(2**70, -(2**31), -(2**63), -(2**70), 10**400, True, False),
            *(0.0, -0.0, 0.5, 1.0, 1.5, -2.5, 1e-300, 1e20, 1e300, -1e300, float("nan"), float("inf"), -float("inf")),
        ]
    )


def odd_text(random: Random) -> str:
    """Text as it should not be, or seldom is."""
    return random.choice(
        ["", " ", "x", "1", "nan", "None", "\0", "a\nb", "é" * 300, "x" * 10_000, "\ud800", "../..", "[" * 2000, "-1"]
    )


def odd_value(random: Random, depth: int = 0) -> Any:
    """A value of any type."""
    kinds: list[Callable[[], Any]] = [
        lambda: None,
        lambda: odd_number(random),
        lambda: odd_number(random),
        lambda: odd_text(random),
        lambda: odd_text(random).encode(errors="replace"),
        lambda: random.choice([1j, Fraction(1, 3), range(3), object(), int, len, Path("x"), torch.float16, ...]),
        lambda: random.choice([np.int64(3), np.float32(0.5), np.zeros(2), np.array("x"), np.array([None, 1])]),
        lambda: odd_tensor(random),
    ]
    if depth < 2:
        kinds += [
            lambda: [odd_value(random, depth + 1) for _ in range(random.randrange(4))],
            lambda: tuple(odd_number(random) for _ in range(random.randrange(4))),
            lambda: {odd_text(random): odd_value(random, depth + 1) for _ in range(random.randrange(3))},
        ]
    return random.choice(kinds)()


DTYPES = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str)


def odd_tensor(random: Random) -> torch.Tensor:
    """A small tensor of any type and layout."""
    shape = [random.choice([0, 1, 2, 3, 5]) for _ in range(random.randrange(5))]
    return in_other_form(random, torch.ones(shape))


def in_other_form(random: Random, x: torch.Tensor) -> torch.Tensor:
    """Return a tensor in another data type or layout, where it can have that."""
    forms: list[Callable[[], torch.Tensor]] = [
        lambda: x.to(random.choice(DTYPES)),
        lambda: torch.empty(x.shape, dtype=random.choice(DTYPES)),
        lambda: x.to_sparse(),
        lambda: x.to_sparse_csr(),
        lambda: torch.nested.nested_tensor(list(x)),
        lambda: torch.nested.nested_tensor(list(x), layout=torch.jagged),
        lambda: x.to("meta"),
        lambda: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8),
        lambda: x.clone().requires_grad_(),
        lambda: torch.nn.Parameter(x.clone(), requires_grad=False),
        lambda: x.mT.contiguous().mT,
        lambda: x[:1].expand_as(x),
        lambda: torch.complex(x, x),
        lambda: torch.complex(x, x).imag,
        lambda: torch._neg_view(x),
    ]
    while True:
        try:
            return random.choice(forms)()
        except (RuntimeError, TypeError, NotImplementedError, IndexError):  # of torch: this one cannot be had
            continue


def in_other_shape(random: Random, x: torch.Tensor) -> torch.Tensor:
    """Return a tensor with other axes."""
    axis = random.randrange(x.ndim) if x.ndim else 0
    shapes: list[Callable[[], torch.Tensor]] = [
        lambda: x[None],
        lambda: x[..., None],
        lambda: x[0],
        lambda: x.movedim(axis, -1),
        lambda: x.narrow(axis, 0, 0),
        lambda: x.narrow(axis, 0, 1),
        lambda: x.narrow(axis, 0, max(1, x.shape[axis] - random.randrange(1, 5))),
        lambda: torch.cat([x, x], dim=axis),
        lambda: x.flatten(),
        lambda: x.new_zeros(()),
    ]
    while True:
        try:
            return random.choice(shapes)()
        except (RuntimeError, IndexError):
            continue


def shown(value: Any) -> str:
    """A value for the report of a case."""
    if isinstance(value, torch.Tensor):
        shape = "nested" if value.is_nested else list(value.shape)
        return f"tensor({shape}, {str(value.dtype).removeprefix('torch.')}, {value.layout}, {value.device})"
    if isinstance(value, list | tuple | dict):
        items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
        inner = ", ".join(shown(item) if key is None else f"{key!r}: {shown(item)}" for key, item in items)
        text = {list: f"[{inner}]", tuple: f"({inner})"}.get(type(value), f"{{{inner}}}")
    else:
        text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


# Changes

NUMBERS = (b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\x01\0\0\0")


def changed_bytes(random: Random, content: bytes) -> bytes:
    """Return bytes with one to three changes, more of them at the start, where headers are."""
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        place = int(random.random() * len(changed) * random.choice([0.02, 0.2, 1.0]))
        length = random.choice([1, 2, 4, 8, 40, 400])
        match random.randrange(8):
            case 0:  # numbers that files state
                number = random.choice(NUMBERS)
                changed[place : place + len(number)] = number
            case 1:
                del changed[place:]
            case 2:
                changed[place : place + length] = random.randbytes(length)
            case 3:
                changed[place:place] = random.randbytes(length)
            case 4:
                del changed[place : place + length]
            case 5:
                changed[place:place] = changed[place : place + length]
            case 6 if changed:
                changed[min(place, len(changed) - 1)] ^= 1 << random.randrange(8)
            case 7:
                source = int(random.random() * len(changed))
                changed[place : place + length] = changed[source : source + length]
    return bytes(changed)


def changed_text(random: Random, text: str) -> str:
    """Return text with one of its numbers, words or lines changed."""
    lines = text.split("\n")
    number = random.randrange(len(lines))
    words = lines[number].split(" ")
    match random.randrange(6):
        case 0 | 1:
            word = random.choice([str(random.choice([odd_number, odd_text])(random))[:500], "?", ".", "-", "*"])
            words[random.randrange(len(words))] = word
            lines[number] = " ".join(words)
        case 2:
            del lines[number]
        case 3:
            lines.insert(random.randrange(len(lines)), lines[number])
        case 4:
            place = random.randrange(len(lines[number]) + 1)
            lines[number] = lines[number][:place] + random.choice("0 -.é\0\t\r\"'_#;") + lines[number][place + 1 :]
        case 5:
            lines[number] = lines[number][: random.randrange(len(lines[number]) + 1)]
    return "\n".join(lines)


def changed_tree(random: Random, tree: Any, values: Callable[[Random], Any] = odd_value) -> Any:
    """Return a copy of nested dictionaries and lists, in which one value is another, one too many or missing."""
    places = list(_places(tree))
    place = random.choice(places)
    parent = _copied(tree, place[:-1]) if place else tree
    if not place:
        return values(random)
    copy, inner = parent
    last = place[-1]
    match random.randrange(6):
        case 0 | 1 | 2:
            inner[last] = values(random)
        case 3:
            del inner[last]
        case 4 if isinstance(inner, dict):
            inner[odd_text(random)] = inner[last]
        case 4:
            inner.insert(last, inner[last])
        case 5:
            other = random.choice(places)
            inner[last] = _at(tree, other)
    return copy


def _places(tree: Any, place: tuple = ()) -> Iterator[tuple]:
    yield place
    items: Sequence[tuple] = ()
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree))
    for key, value in items:
        yield from _places(value, (*place, key))


def _at(tree: Any, place: tuple) -> Any:
    for key in place:
        tree = tree[key]
    return tree


def _copied(tree: Any, place: tuple) -> tuple[Any, Any]:
    """Return a copy of the tree, and in it what is at `place`."""
    copy = inner = tree.copy()
    for key in place:
        inner[key] = inner[key].copy()
        inner = inner[key]
    return copy, inner
