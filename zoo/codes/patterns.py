"""Orders in which a language model reads the codes of an item, with markers between them, and back."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from zoo.codes.checks import check_codes, check_grid, check_sizes, described, is_integer
from zoo.codes.ids import first_ids
from zoo.errors import InputError

Order = Literal["frame_first", "coarse_first", "parallel", "delay"]
ORDERS: tuple[Order, ...] = get_args(Order)
MARKERS = ("begin", "end", "row", "frame")


@dataclass(frozen=True)
class Pattern:
    """How codes become the ids that a language model reads, and ids become codes.

    Each codebook has a range of ids of its own, as in `flatten`; the ids of the markers follow those of the codebooks.
    With two codebooks (a, b), three frames and markers `begin` (<) and `end` (>), where - is the id `empty`:

        frame_first   < a1 b1 a2 b2 a3 b3 >      as `flatten`, without markers
        coarse_first  < a1 a2 a3 b1 b2 b3 >      AudioLM, VALL-E
        parallel      < a1 a2 a3 >               one row of ids for each codebook
                      < b1 b2 b3 >
        delay         < a1 a2 a3 -  >            MusicGen (arXiv 2306.05284): row k is k steps late
                      < -  b1 b2 b3 >

    Args:
        codebook_sizes: number of entries of each codebook.
        order: one of `ORDERS`. "frame_first" and "coarse_first" make one row of ids, the others a row a codebook.
        markers: some of `MARKERS`: "begin" and "end" of an item; "row", after each row of an image or of a frame;
            "frame", after each frame of a video. In "coarse_first", each codebook's rows and frames have markers.
        offset: the first id.

    Raises:
        InputError: an unknown order or marker, sizes that are no positive integers, or ids beyond 2 ** 63 - 1.
    """

    codebook_sizes: tuple[int, ...]
    order: Order = "frame_first"
    markers: tuple[str, ...] = ()
    offset: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "codebook_sizes", check_sizes(self.codebook_sizes))
        if not isinstance(self.order, str) or self.order not in ORDERS:
            raise InputError(f"expected order as one of {', '.join(ORDERS)}, got {reprlib.repr(self.order)}")
        markers = self.markers
        known = isinstance(markers, list | tuple) and all(isinstance(name, str) and name in MARKERS for name in markers)
        if not known:
            raise InputError(f"expected markers as some of {', '.join(MARKERS)}, got {reprlib.repr(markers)}")
        object.__setattr__(self, "markers", tuple(marker for marker in MARKERS if marker in markers))
        first_ids((*self.codebook_sizes, len(MARKERS) + 1), self.offset)

    @property
    def special_ids(self) -> dict[str, int]:
        """Id of each marker in use and, in the order "delay", of `empty`."""
        names = (*self.markers, *(["empty"] if self.order == "delay" else []))
        start = self.offset + sum(self.codebook_sizes)
        return {name: start + number for number, name in enumerate(names)}

    @property
    def vocabulary_size(self) -> int:
        """Number of ids: of all codebooks and of `special_ids`."""
        return sum(self.codebook_sizes) + len(self.special_ids)

    def length(self, grid: Sequence[int]) -> int:
        """Return the number of ids of an item (of each of its rows, in "parallel" and "delay") on a grid of codes."""
        grid = self._check_grid(grid)
        num_codebooks, positions = len(self.codebook_sizes), math.prod(grid)
        inside = positions // grid[-1] if "row" in self.markers else 0
        inside += grid[0] if "frame" in self.markers else 0
        length = {
            "frame_first": num_codebooks * positions + inside,
            "coarse_first": num_codebooks * (positions + inside),
            "parallel": positions + inside,
            "delay": positions + inside + num_codebooks - 1,
        }[self.order]
        return length + len({"begin", "end"} & set(self.markers))

    def ids(self, codes: Tensor) -> Tensor:
        """Return the ids of codes.

        Args:
            codes: integers `[batch, num_codebooks, *grid]`.

        Returns:
            int64 `[batch, length]`, or `[batch, num_codebooks, length]` in the orders "parallel" and "delay".

        Raises:
            InputError: a wrong shape, dtype or range of the codes, or a grid without the rows or frames of a marker.
        """
        codes = check_codes(codes, self.codebook_sizes)
        places = self._places(self._check_grid(tuple(codes.shape[2:])))
        symbols = codes.flatten(2) + first_ids(self.codebook_sizes, self.offset).to(codes.device)[:, None]
        specials = torch.tensor(list(self.special_ids.values()), dtype=torch.int64, device=codes.device)
        table = torch.cat([symbols.flatten(1), specials.expand(len(codes), -1)], dim=1)
        return table[:, places.to(codes.device)]

    def codes(self, ids: Tensor, grid: Sequence[int] | None = None) -> Tensor:
        """Return the codes whose ids these are.

        Args:
            ids: integers as `ids` returns them, with all markers in their places.
            grid: the codes' axes after the codebooks, `(frames,)`, `(h, w)` or `(t, h, w)`; None: one axis, whose
                length follows from the number of ids.

        Returns:
            int64 `[batch, num_codebooks, *grid]`.

        Raises:
            InputError: a wrong shape or dtype, a marker that is missing or out of place, or an id outside its
                codebook's range.
        """
        num_codebooks = len(self.codebook_sizes)
        if not is_integer(ids):
            raise InputError(f"expected ids as an integer tensor, got {described(ids)}")
        rows = (num_codebooks,) if self.order in ("parallel", "delay") else ()
        layout = f"[batch, {f'{num_codebooks}, ' if rows else ''}length]"
        if ids.ndim != 2 + len(rows) or ids.numel() == 0 or ids.shape[1:-1] != rows:
            raise InputError(f"expected ids as {layout}, got {list(ids.shape)}")
        grid = self._frames(ids.shape[-1]) if grid is None else self._check_grid(grid)
        if ids.shape[-1] != (length := self.length(grid)):
            raise InputError(f"expected ids as {layout} with length {length} for grid {grid}, got {list(ids.shape)}")
        found, places = ids.to(torch.int64).flatten(1), self._places(grid).flatten().to(ids.device)
        positions = math.prod(grid)
        total = num_codebooks * positions
        self._check_specials(found, places, total)
        where = torch.empty(total, dtype=torch.int64, device=ids.device)
        cells = (places < total).nonzero()[:, 0]
        where[places[cells]] = cells
        first = first_ids(self.codebook_sizes, self.offset).to(ids.device)[:, None]
        codes = found[:, where].unflatten(1, (num_codebooks, positions)) - first
        sizes = torch.tensor(self.codebook_sizes, device=ids.device)[:, None]
        wrong = (codes < 0) | (codes >= sizes)
        if wrong.any():
            item, k, position = wrong.nonzero()[0].tolist()
            start = int(first[k])
            raise InputError(
                f"expected ids of codebook {k} in [{start}, {start + self.codebook_sizes[k]}), "
                f"got {int(codes[item, k, position]) + start} at item {item}, position {position}"
            )
        return codes.unflatten(2, grid)

    def _check_specials(self, found: Tensor, places: Tensor, total: int) -> None:
        for number, (name, value) in enumerate(self.special_ids.items()):
            here = (places == total + number).nonzero()[:, 0]
            wrong = found[:, here] != value
            if wrong.any():
                item, place = wrong.nonzero()[0].tolist()
                raise InputError(
                    f"expected id {value} ({name}) at item {item}, place {int(here[place])}, "
                    f"got {int(found[item, here[place]])}"
                )

    def _check_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        grid = check_grid(grid)
        for marker, axes in (("row", 2), ("frame", 3)):
            if marker in self.markers and len(grid) < axes:
                raise InputError(f"expected a grid of at least {axes} axes for the marker {marker}, got {grid}")
        return grid

    def _frames(self, length: int) -> tuple[int]:
        """Return the grid of one axis that has this number of ids."""
        least = self.length((1,))
        step = self.length((2,)) - least
        frames, rest = divmod(length - least, step)
        if rest or frames < 0:
            raise InputError(f"expected {least} ids and a multiple of {step} more, got {length}")
        return (frames + 1,)

    def _places(self, grid: tuple[int, ...]) -> Tensor:
        """Return what stands at each place: the cell of a code, counted codebook by codebook, or after them a special.

        int64 `[length]` or `[num_codebooks, length]`.
        """
        num_codebooks, positions = len(self.codebook_sizes), math.prod(grid)
        total = num_codebooks * positions
        special = {name: total + number for number, name in enumerate(self.special_ids)}

        def marked(cells: Tensor, marker: str) -> Tensor:
            if marker not in self.markers:
                return cells
            column = torch.full((*cells.shape[:-1], 1), special[marker])
            return torch.cat([cells, column], dim=-1)

        cells = torch.arange(total).view(num_codebooks, *grid)
        if len(grid) > 1:
            cells = marked(cells, "row")
        if len(grid) > 2:
            cells = marked(cells.flatten(2), "frame")
        cells = cells.flatten(1)  # [num_codebooks, steps]
        if self.order == "coarse_first":
            cells = cells.flatten()
        elif self.order == "frame_first":
            steps = cells.T
            once = (steps < total) | (torch.arange(num_codebooks) == 0)  # a marker stands once for all codebooks
            cells = steps[once]
        elif self.order == "delay":
            late = torch.full((num_codebooks, cells.shape[1] + num_codebooks - 1), special["empty"])
            for k, row in enumerate(cells):
                late[k, k : k + len(row)] = row
            cells = late
        ends = [torch.full((*cells.shape[:-1], 1), special[name]) if name in special else None for name in MARKERS[:2]]
        return torch.cat([part for part in (ends[0], cells, ends[1]) if part is not None], dim=-1)
