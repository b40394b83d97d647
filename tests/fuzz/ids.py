"""Codes as ids and as packed bits: `zoo.codes` with anything for codes, sizes, grids, shapes and bytes."""

from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.support.fuzz import Boundary, Case, in_other_form, in_other_shape, odd_number, odd_value, shown
from tests.support.tokenizers import expect
from zoo import codes as zoo_codes
from zoo.codes.patterns import MARKERS, ORDERS

FUNCTIONS = ("flatten", "unflatten", "pattern_ids", "pattern_codes", "pack", "unpack", "packed_size", "vocabulary_size")


class Ids(Boundary):
    name = "ids"

    def __init__(self, folder: Path):
        pass

    def case(self, random: Random) -> Case:
        sizes = [random.choice([1, 2, 3, 16, 1000, 4096]) for _ in range(random.randint(1, 3))]
        grid = [random.randint(1, 4) for _ in range(random.randint(1, 3))]
        shape = [random.randint(1, 3), len(sizes), *grid]
        generator = torch.Generator().manual_seed(random.randrange(2**32))
        codes = torch.stack([torch.randint(size, (shape[0], *grid), generator=generator) for size in sizes], dim=1)
        offset = random.choice([0, 5, 2**40])
        order, markers = random.choice(ORDERS), random.sample(MARKERS, random.randint(0, len(grid) + 1))
        markers = [marker for marker in markers if len(grid) > {"row": 1, "frame": 2}.get(marker, 0)]
        ids = zoo_codes.Pattern(sizes, order, markers, offset).ids(codes)
        given: dict[str, tuple[Any, ...]] = {
            "pattern_ids": (codes, sizes, order, markers, offset),
            "pattern_codes": (ids, sizes, order, markers, grid, offset),
            "flatten": (codes, sizes, offset),
            "unflatten": (zoo_codes.flatten(codes, sizes, offset=offset), sizes, grid, offset),
            "pack": (codes, sizes),
            "unpack": (zoo_codes.pack(codes, sizes), sizes, shape),
            "packed_size": (sizes, shape),
            "vocabulary_size": (sizes,),
        }
        function = random.choice(FUNCTIONS)
        arguments = list(given[function])
        for _ in range(random.choice([0, 1, 1, 1, 2])):
            number = random.randrange(len(arguments))
            arguments[number] = other(random, arguments[number])
        what = f"zoo.codes.{function}({', '.join(map(shown, arguments))})"
        return Case(what, partial(globals()[f"check_{function}"], *arguments))


def other(random: Random, value: Any) -> Any:
    """Return something in place of an argument."""
    if random.random() < 0.35:
        return odd_value(random)
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or not value.numel() or not value.is_contiguous() or random.random() < 0.6:
            return random.choice([in_other_form, in_other_shape])(random, value)
        changed = value.clone()
        changed.view(-1)[random.randrange(value.numel())] = random.choice([-1, 3, 2**20, 2**62, -(2**63)])
        return changed
    if isinstance(value, list) and value:
        changed = list(value)
        changed[random.randrange(len(changed))] = random.choice([odd_number, odd_value])(random)
        return random.choice([list, tuple])(changed)
    if isinstance(value, bytes):
        return random.choice([value + b"\0", value[:-1], b"\xff" * len(value), bytearray(value), memoryview(value)])
    return odd_number(random)


def check_flatten(codes: Any, sizes: Any, offset: Any) -> None:
    ids = zoo_codes.flatten(codes, sizes, offset=offset)
    expect(ids.shape == (len(codes), codes[0].numel()) and int(ids.min()) >= offset, f"ids {shown(ids)}")
    again = zoo_codes.unflatten(ids, sizes, codes.shape[2:], offset=offset)
    expect(torch.equal(again, codes.long()), "the ids are those of other codes")


def check_unflatten(ids: Any, sizes: Any, grid: Any, offset: Any) -> None:
    codes = zoo_codes.unflatten(ids, sizes, grid, offset=offset)
    expect(tuple(codes.shape[2:]) == tuple(grid), f"codes {list(codes.shape)}")
    expect(torch.equal(zoo_codes.flatten(codes, sizes, offset=offset), ids.long()), "the codes have other ids")


def check_pack(codes: Any, sizes: Any) -> None:
    data = zoo_codes.pack(codes, sizes)
    expect(torch.equal(zoo_codes.unpack(data, sizes, codes.shape), codes.long()), "the bytes are those of other codes")


def check_unpack(data: Any, sizes: Any, shape: Any) -> None:
    codes = zoo_codes.unpack(data, sizes, shape)
    expect(tuple(codes.shape) == tuple(shape), f"codes {list(codes.shape)}")
    expect(zoo_codes.pack(codes, sizes) == bytes(data), "the codes have other bytes")


def check_packed_size(sizes: Any, shape: Any) -> None:
    expect(zoo_codes.packed_size(sizes, shape) >= 0, "a negative number of bytes")


def check_pattern_ids(codes: Any, sizes: Any, order: Any, markers: Any, offset: Any) -> None:
    pattern = zoo_codes.Pattern(sizes, order, markers, offset)
    ids = pattern.ids(codes)
    expect(ids.min() >= offset and ids.max() < offset + pattern.vocabulary_size, "ids out of range")
    expect(torch.equal(pattern.codes(ids, codes.shape[2:]), codes.long()), "the ids have other codes")


def check_pattern_codes(ids: Any, sizes: Any, order: Any, markers: Any, grid: Any, offset: Any) -> None:
    pattern = zoo_codes.Pattern(sizes, order, markers, offset)
    codes = pattern.codes(ids, grid)
    expect(torch.equal(pattern.ids(codes), ids.long()), "the codes have other ids")


def check_vocabulary_size(sizes: Any) -> None:
    expect(zoo_codes.vocabulary_size(sizes) == sum(sizes), "another number of ids")
