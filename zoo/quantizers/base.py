"""The interface that all quantizer families share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.tracing import values_are_readable

Scales = Sequence[tuple[int, int]]


class QuantizerOutput(NamedTuple):
    """Output of a quantizer's `forward`.

    quantized: `[..., dim]` in the input's dtype, with the straight-through gradient.
    codes: int64 `[..., num_codebooks]`.
    losses: unweighted scalar terms (`commitment_loss`, `codebook_loss`, `entropy_loss`, ...); empty in eval
        mode.
    """

    quantized: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


class Quantizer(nn.Module):
    """Vectors to integer codes and back.

    Tensors are channel-last, with any number of grid axes: latents are `[..., dim]`, codes int64
    `[..., num_codebooks]`. Quantization runs in float32 whatever the input's dtype: bfloat16 cannot count past 256.

    A family implements `encode`, `codes_to_latent` and `forward`; `encode` never changes state, `forward`
    updates the codebook in training mode where the family has such an update.
    """

    def __init__(self, dim: int, codebook_sizes: tuple[int, ...]):
        super().__init__()
        self.dim = dim
        self.codebook_sizes = tuple(codebook_sizes)

    @property
    def num_codebooks(self) -> int:
        return len(self.codebook_sizes)

    @property
    def is_residual(self) -> bool:
        """Whether the first few codebooks, however many, are a coarser code, which decodes alone."""
        return False

    @property
    def bits(self) -> float:
        """Bits that the codes of one position carry."""
        return sum(math.log2(size) for size in self.codebook_sizes)

    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]`."""
        raise NotImplementedError

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., num_codebooks]` to the vectors that `forward` calls `quantized`."""
        raise NotImplementedError

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`."""
        raise NotImplementedError

    def vectors_of(self, codebook: int, quantized: Tensor, codes: Tensor) -> Tensor:
        """Return the part of `quantized` that comes from one codebook, with its straight-through gradient.

        Args:
            codebook: number of the codebook, from 0; here the codebooks' vectors lie in `quantized` side by side.
            quantized, codes: `[..., dim]` and `[..., num_codebooks]`, from `forward`.

        Returns:
            `[..., dim / num_codebooks]`; for residual codebooks `[..., dim]`.

        Raises:
            InputError: no such codebook, or one whose vectors cannot be told from the others'.
        """
        if not 0 <= codebook < self.num_codebooks:
            raise InputError(f"expected a codebook from 0 to {self.num_codebooks - 1}, got {codebook}")
        return quantized.chunk(self.num_codebooks, dim=-1)[codebook]

    def check_latent(self, z: Tensor) -> Tensor:
        """Return `z` in float32; raise InputError unless it is a floating tensor `[..., dim]` of finite values.

        Where a gradient is recorded, values are not read: nothing waits for them, and a trainer sees what diverges.
        """
        if z.ndim < 2 or z.shape[-1] != self.dim or not z.is_floating_point():
            raise InputError(f"expected latents as floating [..., {self.dim}], got {z.dtype} {list(z.shape)}")
        if not z.requires_grad and values_are_readable(z) and not bool(z.isfinite().all()):
            raise InputError(
                "latents are not finite (NaN or infinite) and have no codes: the signal's values are too large for "
                f"the network in {z.dtype}, or its weights are damaged"
            )
        return z.float()

    def check_codes(self, codes: Tensor) -> Tensor:
        """Return `codes` as int64; raise InputError unless integers `[..., num_codebooks]` below the codebook sizes."""
        if codes.ndim < 1 or codes.shape[-1] != self.num_codebooks:
            raise InputError(f"expected codes as [..., {self.num_codebooks}], got {list(codes.shape)}")
        if codes.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
            raise InputError(f"expected integer codes, got {codes.dtype}")
        codes = codes.long()
        if values_are_readable(codes):
            sizes = torch.tensor(self.codebook_sizes, device=codes.device)
            if bool(((codes < 0) | (codes >= sizes)).any()):
                raise InputError(
                    f"codes out of range: found {int(codes.min())} to {int(codes.max())}, "
                    f"codebook sizes are {list(self.codebook_sizes)}"
                )
        return codes


class ResidualQuantizer(Quantizer):
    """A quantizer whose first few codebooks are a coarser code, which is computed and decoded without the others."""

    @property
    def is_residual(self) -> bool:
        return True

    def encode(self, z: Tensor, num_codebooks: int | None = None) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]` of the first `num_codebooks` (None: all).

        Raises:
            InputError: latents of another shape or type, or more codebooks than there are.
        """
        raise NotImplementedError

    def check_number(self, num_codebooks: int | None) -> int:
        """Return how many codebooks are asked for (None: all); InputError unless there are as many."""
        if num_codebooks is None:
            return self.num_codebooks
        if not 1 <= num_codebooks <= self.num_codebooks:
            raise InputError(f"expected num_codebooks from 1 to {self.num_codebooks}, got {num_codebooks}")
        return num_codebooks

    def check_codes(self, codes: Tensor) -> Tensor:
        """As in `Quantizer`, but codes of the first few codebooks are enough."""
        missing = self.num_codebooks - codes.shape[-1] if codes.ndim else 0
        if 0 < missing < self.num_codebooks:
            return super().check_codes(functional.pad(codes, (0, missing)))[..., : codes.shape[-1]]
        return super().check_codes(codes)


class ScalesQuantizer(Quantizer):
    """A quantizer of a whole grid as a pyramid of codes, whose first scales are a coarser code.

    Latents are `[batch, height, width, dim]`, on the last grid of one of the `pyramids`. Codes are
    `[batch, positions, num_codebooks]`: scale after scale, coarse to fine, each row by row.

    Args:
        dim, codebook_sizes: as in `Quantizer`; all scales have the same codebooks.
        pyramids: grids (height, width) of the scales, coarse to fine, for each grid of a latent, which is the last one.
    """

    def __init__(self, dim: int, codebook_sizes: tuple[int, ...], pyramids: Sequence[Scales]):
        if not pyramids or not all(pyramids) or len({scales[-1] for scales in pyramids}) < len(pyramids):
            raise InputError(f"expected pyramids of scales that end in different grids, got {pyramids}")
        super().__init__(dim, codebook_sizes)
        self.pyramids = {scales[-1]: tuple(scales) for scales in pyramids}

    def encode(self, z: Tensor, num_scales: int | None = None) -> Tensor:
        """Latents `[batch, height, width, dim]` to codes int64 `[batch, positions, num_codebooks]`.

        Args:
            num_scales: number of scales, the first ones; None: all.

        Raises:
            InputError: latents of another shape or type, on a grid without a pyramid, or more scales than there are.
        """
        raise NotImplementedError

    def codes_to_latent(self, codes: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Codes int64 `[batch, positions, num_codebooks]` of all or the first scales to `[batch, height, width, dim]`.

        Args:
            grid: (height, width) of the latent; it may be None where there is one pyramid.

        Raises:
            InputError: codes out of range, positions that are not those of whole scales, or a grid without a pyramid.
        """
        raise NotImplementedError

    def scales_of(self, grid: tuple[int, ...] | None) -> tuple[tuple[int, int], ...]:
        """Return the scales of a latent on `grid`, of which None is the only one; InputError if there are none."""
        if grid is None and len(self.pyramids) > 1:
            raise InputError("expected the grid of the latent, since there are several pyramids, got None")
        for last, scales in self.pyramids.items():
            if grid is None or last == grid:
                return scales
        raise InputError(f"expected a latent on one of the grids {list(self.pyramids)}, got {grid}")

    def scales_of_latent(self, z: Tensor) -> tuple[tuple[int, int], ...]:
        """Return the scales of a latent `[batch, height, width, dim]`; InputError if there are none for its grid."""
        if z.ndim != 4:
            raise InputError(f"expected latents as [batch, height, width, {self.dim}], got {z.ndim} axes")
        return self.scales_of(tuple(z.shape[1:3]))

    def first(self, scales: tuple[tuple[int, int], ...], num_scales: int | None) -> tuple[tuple[int, int], ...]:
        """Return the first `num_scales` of some scales (None: all); InputError if there are not as many."""
        if num_scales is not None and not 1 <= num_scales <= len(scales):
            raise InputError(f"expected num_scales from 1 to {len(scales)}, got {num_scales}")
        return scales[:num_scales]

    def split(self, codes: Tensor, scales: Scales) -> list[Tensor]:
        """Return codes `[batch, positions, num_codebooks]` as one `[batch, height, width, num_codebooks]` a scale.

        Raises:
            InputError: positions that are not those of whole scales.
        """
        ends = list(accumulate(height * width for height, width in scales))
        if codes.ndim != 3 or codes.shape[1] not in ends:
            raise InputError(f"expected codes as [batch, {', '.join(map(str, ends))}, *], got {list(codes.shape)}")
        present = scales[: ends.index(codes.shape[1]) + 1]
        parts = codes.split([height * width for height, width in present], dim=1)
        return [part.unflatten(1, grid) for part, grid in zip(parts, present, strict=True)]


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which operations on `tensor`'s device keep their dtype, also inside `torch.autocast`."""
    device = "cpu" if tensor.is_meta else tensor.device.type
    # Where autocast is off, the context does nothing, so that an exported graph has no region of its own for it.
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def straight_through(z: Tensor, quantized: Tensor) -> Tensor:
    """Return exactly the values of `quantized`, with the gradient of `z`."""
    if not z.requires_grad:
        return quantized
    return quantized.detach() + (z - z.detach())
