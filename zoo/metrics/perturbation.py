"""pFID: how well a decoder tolerates codes that a generator might sample wrongly.

Paper: Robust Latent Matters (arXiv 2503.08354). Code of the perturbation: lxa9867/ImageFolder at 76ddfb9a, which has
no script for pFID.

pFID is `zoo.metrics.image.rfid` between images and the decoded perturbed codes of every image (beta 1). It says nothing
about plain reconstructions, so it is not in their table of metrics. To compute it, update one metric,
`PFID.streaming(spec)`, for each of `PERTURBATIONS` with `perturbed_reconstruction` and the originals; pFID is the mean
of the results. Each metric holds 100 MB of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.metrics import networks
from zoo.metrics.base import Metric
from zoo.metrics.image import rfid
from zoo.quantizers.base import Quantizer, ScalesQuantizer
from zoo.tokenizer import Tokenizer

# Rates alpha and strengths delta that the paper averages over. They are recalled and were not checked against it;
# check them before a figure is published beside the paper's.
PERTURBATIONS = tuple(product((0.9, 0.8, 0.7, 0.6, 0.5), (200, 280, 360)))
DISTANCES_AT_ONCE = 2**24


def perturb_codes(
    codes: Tensor,
    codebooks: Sequence[Tensor],
    *,
    alpha: float,
    delta: int,
    beta: float = 1.0,
    latents: Sequence[Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return codes of which some are replaced by nearby ones, as if wrongly sampled.

    With probability `alpha`, each token is replaced by one of the `delta` codes nearest to it (Euclidean, between rows
    of its codebook), all equally likely and itself among them, so a share of `alpha (1 - 1 / delta)` changes. That is
    the paper's definition. The released code, which trains with it, takes the codes nearest to the encoder's vector:
    pass `latents` for that.

    Args:
        codes: integers `[B, num_codebooks, *grid]`.
        codebooks: for each codebook a floating `[codebook_size, dim]`, its rows as the decoder receives them: unit rows
            where codes are compared by angle (`codebook_rows`).
        alpha: perturbation rate, from 0 to 1.
        delta: perturbation strength; in a smaller codebook, all codes are taken.
        beta: perturbation proportion: the first `floor(B * beta)` items are perturbed.
        latents: for each codebook a floating `[B, *grid, dim]`, the vectors that its codes were chosen for, in the
            scale of its rows; None: the rows of the codes.
        generator: source of randomness; None: PyTorch's own.

    Returns:
        int64, in the shape of `codes`.

    Raises:
        InputError: codes that are not integers or do not fit the codebooks, or a rate, strength or proportion out of
            range.
    """
    _check(codes, codebooks, alpha, delta, beta)
    perturbed = codes.long().clone()
    device = codes.device if generator is None else generator.device
    for index, rows in enumerate(codebooks):
        some = perturbed[: int(len(codes) * beta), index]  # a view
        strength = min(delta, len(rows))
        drawn = torch.rand(some.shape, generator=generator, device=device) < alpha
        rank = torch.randint(strength, some.shape, generator=generator, device=device)
        changed = (drawn & (rank > 0)).to(codes.device)
        rows, rank = rows.to(codes.device).float(), rank.to(codes.device)[changed]
        if latents is None:
            distinct, where = some[changed].unique(return_inverse=True)
            some[changed] = _neighbours(distinct, rows[distinct], rows, strength)[where, rank]
        else:
            vectors = latents[index][: len(some)][changed].float()
            some[changed] = _neighbours(some[changed], vectors, rows, strength).gather(1, rank[:, None])[:, 0]
    return perturbed


def codebook_rows(quantizer: Quantizer) -> list[Tensor]:
    """Return each codebook as the decoder receives it, `[codebook_size, dim]`, with the other codebooks' codes at 0.

    Where codebooks are added or concatenated, distances between rows are those within the codebook itself. Of a
    pyramid of scales, they are the rows before they are enlarged.
    """
    if isinstance(quantizer, ScalesQuantizer):
        assert isinstance(quantizer.layer, Quantizer)
        return codebook_rows(quantizer.layer)
    books = []
    for index, size in enumerate(quantizer.codebook_sizes):
        device = next((tensor.device for tensor in (*quantizer.parameters(), *quantizer.buffers())), None)
        codes = torch.zeros(size, quantizer.num_codebooks, dtype=torch.int64, device=device)
        codes[:, index] = torch.arange(size, device=device)
        with torch.no_grad():
            books.append(quantizer.codes_to_latent(codes))
    return books


def perturbed_reconstruction(
    tokenizer: Tokenizer,
    images: Tensor,
    codebooks: Sequence[Tensor],
    *,
    alpha: float,
    delta: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return images `[B, 3, H, W]` in [0, 1] encoded, perturbed (`perturb_codes`) and decoded in their size."""
    codes = perturb_codes(tokenizer.encode(images), codebooks, alpha=alpha, delta=delta, generator=generator)
    return tokenizer.decode(codes, size=tokenizer.size_of(images))


def _neighbours(codes: Tensor, vectors: Tensor, rows: Tensor, number: int) -> Tensor:
    """Return each of `[codes]` and the others nearest to its vector, `[codes, number]`, by rising distance."""
    square_norms = rows.square().sum(dim=1)
    nearest = [codes.new_empty(0, number)]
    chunk = max(1, DISTANCES_AT_ONCE // len(rows))
    for some, theirs in zip(codes.split(chunk), vectors.split(chunk), strict=True):
        distances = torch.addmm(square_norms, theirs, rows.T, alpha=-2)
        distances.scatter_(1, some[:, None], -torch.inf)
        nearest.append(distances.topk(number, dim=1, largest=False).indices)
    return torch.cat(nearest)


def _check(codes: Tensor, codebooks: Sequence[Tensor], alpha: float, delta: int, beta: float) -> None:
    if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
        raise InputError(f"expected integer codes, got {codes.dtype}")
    if codes.ndim < 2 or codes.shape[1] != len(codebooks):
        raise InputError(f"expected codes as [batch, {len(codebooks)}, *grid], got {list(codes.shape)}")
    for index, rows in enumerate(codebooks):
        if rows.ndim != 2 or not rows.is_floating_point() or len(rows) == 0:
            raise InputError(
                f"expected codebooks as floating [codebook_size, dim], got {rows.dtype} {list(rows.shape)}"
            )
        some = codes[:, index]
        if some.numel() and not (some.min() >= 0 and some.max() < len(rows)):
            raise InputError(f"expected codes from 0 to {len(rows) - 1}, got {int(some.min())} to {int(some.max())}")
    for name, share in (("alpha", alpha), ("beta", beta)):
        if not 0 <= share <= 1:
            raise InputError(f"expected {name} from 0 to 1, got {share}")
    if delta < 1:
        raise InputError(f"expected a delta of at least 1, got {delta}")


PFID = Metric(
    name="pfid",
    label="pFID",
    digits=2,
    higher_is_better=False,
    of_set=lambda spec: rfid(),
    missing=networks.INCEPTION.missing,
)
