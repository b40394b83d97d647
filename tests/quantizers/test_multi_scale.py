"""The multi-scale quantizers against a plain computation: areas and enlargements as sums over weights, cell by cell."""

import math

import numpy as np
import pytest
import torch

import zoo
from zoo.quantizers import BSQ, MultiScaleQuantizer, MultiScaleVQ, SharedMappingVQ, VectorQuantizer

SQUARE = ((1, 1), (2, 2), (3, 3), (5, 5))
HIGH = ((1, 1), (2, 1), (3, 2), (6, 4))
DIM = 6


def areas(cells: int, length: int) -> np.ndarray:
    """Weights `[cells, length]`: cell i is the mean of floor(i n / c) to ceil((i + 1) n / c) - 1."""
    weights = np.zeros((cells, length))
    for i in range(cells):
        first, last = i * length // cells, math.ceil((i + 1) * length / cells)
        weights[i, first:last] = 1 / (last - first)
    return weights


def keys_kernel(x: float, a: float = -0.75) -> float:
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def enlargement(length: int, cells: int, bicubic: bool) -> np.ndarray:
    """Weights `[length, cells]` with half-pixel centres and repeated edges."""
    weights = np.zeros((length, cells))
    for i in range(length):
        source = (i + 0.5) * cells / length - 0.5
        for j in range(math.floor(source) - 1, math.floor(source) + 3):
            weight = keys_kernel(source - j) if bicubic else max(0.0, 1 - abs(source - j))
            weights[i, min(max(j, 0), cells - 1)] += weight
    return weights


def plain(latent: np.ndarray, scales, quantize, adds, bicubic: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the vectors of each scale, chosen by `quantize`, and the sum of what `adds` makes of the enlarged ones."""
    residual, total, chosen = latent.copy(), np.zeros_like(latent), []
    height, width = scales[-1]
    for number, (h, w) in enumerate(scales):
        pooled = np.einsum("ih,jw,bhwc->bijc", areas(h, height), areas(w, width), residual)
        chosen.append(quantize(pooled))
        up = (enlargement(height, h, bicubic), enlargement(width, w, bicubic))
        part = adds(np.einsum("hi,wj,bijc->bhwc", *up, chosen[-1]), number)
        total, residual = total + part, residual - part
    return chosen, total


def latents(scales, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, *scales[-1], DIM, generator=torch.Generator().manual_seed(3))


def nearest(rows: np.ndarray):
    return lambda pooled: rows[((pooled[..., None, :] - rows) ** 2).sum(-1).argmin(-1)]


def compared(quantizer: MultiScaleQuantizer, scales, expected: tuple[list[np.ndarray], np.ndarray]) -> None:
    codes = quantizer.encode(latents(scales))
    assert codes.shape == (2, sum(h * w for h, w in scales), quantizer.num_codebooks)
    chosen = np.concatenate([part.reshape(2, -1, DIM) for part in expected[0]], axis=1)
    np.testing.assert_allclose(quantizer.layer.codes_to_latent(codes).detach().numpy(), chosen, atol=1e-6)
    total = quantizer.codes_to_latent(codes, scales[-1]).detach().numpy()
    np.testing.assert_allclose(total, expected[1], atol=1e-5)


def codebook(rows: int = 40, dim: int = DIM) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(1)) * 0.7


@pytest.mark.parametrize("scales", [SQUARE, HIGH])
def test_rows_pass_the_convolution_of_their_scale(scales):
    torch.manual_seed(0)
    quantizer = MultiScaleVQ(DIM, 40, [scales], phi_of_scale=(0, 0, 1, 2)).eval()
    quantizer.layer.codebook.data.copy_(codebook())

    def adds(enlarged: np.ndarray, number: int) -> np.ndarray:
        phi = quantizer.phi[(0, 0, 1, 2)[number]]
        padded = np.pad(enlarged, ((0, 0), (1, 1), (1, 1), (0, 0)))
        weight = phi.weight.detach().numpy()
        height, width = enlarged.shape[1:3]
        convolved = phi.bias.detach().numpy() + sum(
            padded[:, i : i + height, j : j + width] @ weight[:, :, i, j].T for i in range(3) for j in range(3)
        )
        return 0.5 * enlarged + 0.5 * convolved

    compared(quantizer, scales, plain(latents(scales).numpy(), scales, nearest(codebook().numpy()), adds, bicubic=True))


@pytest.mark.parametrize("scales", [SQUARE, HIGH])
def test_bits_are_the_signs_of_the_residual_and_the_first_channel_weighs_most(scales):
    quantizer = MultiScaleQuantizer(BSQ(DIM, bit_order="big"), [SQUARE, HIGH], enlargement="bilinear")
    expected = plain(
        latents(scales).numpy(),
        scales,
        lambda pooled: np.where(pooled > 0, 1, -1) / math.sqrt(DIM),
        lambda enlarged, number: enlarged,
        bicubic=False,
    )
    compared(quantizer, scales, expected)
    first = quantizer.encode(latents(scales))[:, 0, 0]
    bits = (latents(scales).mean(dim=(1, 2)) > 0).long()
    assert torch.equal(first, (bits * torch.tensor([32, 16, 8, 4, 2, 1])).sum(dim=1))


def test_one_index_names_a_unit_row_of_both_codebooks():
    quantizer = MultiScaleQuantizer(SharedMappingVQ((4, 2), 40), [SQUARE])
    for part, rows in zip(quantizer.layer.codebooks, codebook().split((4, 2), dim=1), strict=True):
        part.data.copy_(rows)

    def unit(vectors: np.ndarray) -> np.ndarray:
        parts = np.split(vectors, [4], axis=-1)
        return np.concatenate([part / np.linalg.norm(part, axis=-1, keepdims=True) for part in parts], axis=-1)

    find = nearest(unit(codebook().numpy()))
    compared(
        quantizer,
        SQUARE,
        plain(latents(SQUARE).numpy(), SQUARE, lambda pooled: find(unit(pooled)), lambda e, number: e, bicubic=True),
    )


@pytest.mark.parametrize("make", [BSQ, lambda dim: VectorQuantizer(dim, 40)])
def test_the_first_scales_are_those_of_all(make):
    quantizer = MultiScaleQuantizer(make(DIM), [SQUARE, HIGH])
    codes = quantizer.encode(latents(HIGH))
    for number, positions in enumerate((1, 3, 9, 33), start=1):
        assert torch.equal(quantizer.encode(latents(HIGH), number), codes[:, :positions])
        assert quantizer.codes_to_latent(codes[:, :positions], (6, 4)).shape == (2, 6, 4, DIM)


def test_an_item_has_the_same_codes_alone_and_in_a_batch():
    quantizer = MultiScaleVQ(DIM, 40, [SQUARE], phi_of_scale=(0, 0, 1, 1)).eval()
    codes = quantizer.encode(latents(SQUARE, 3))
    assert all(torch.equal(quantizer.encode(item[None]), codes[i : i + 1]) for i, item in enumerate(latents(SQUARE, 3)))


def test_losses_of_one_codebook_compare_the_sums_up_to_each_scale():
    torch.manual_seed(0)
    quantizer = MultiScaleVQ(DIM, 40, [SQUARE], phi_of_scale=(0, 0, 1, 2))
    quantizer.layer.codebook.data.copy_(codebook())
    latent = latents(SQUARE).requires_grad_()
    output = quantizer(latent)
    codes = quantizer.encode(latent)
    sums = [quantizer.codes_to_latent(codes[:, :positions]) for positions in (1, 5, 14, 39)]
    expected = torch.stack([(total - latent).square().mean() for total in sums]).mean()
    torch.testing.assert_close(output.losses["commitment_loss"], expected)
    torch.testing.assert_close(output.losses["codebook_loss"], expected)
    torch.testing.assert_close(output.quantized, sums[-1])
    (output.quantized.sum() + output.losses["codebook_loss"]).backward()
    torch.testing.assert_close(latent.grad, torch.ones_like(latent))
    assert all(p.grad.abs().sum() > 0 for p in (quantizer.layer.codebook, *quantizer.phi.parameters()))


@pytest.mark.parametrize("make", [BSQ, lambda dim: SharedMappingVQ((4, 2), 40), lambda dim: VectorQuantizer(dim, 40)])
def test_a_gradient_reaches_the_latent_through_every_scale(make):
    quantizer = MultiScaleQuantizer(make(DIM), [SQUARE])
    latent = latents(SQUARE).requires_grad_()
    output = quantizer(latent)
    assert torch.equal(output.codes, quantizer.encode(latent))
    torch.testing.assert_close(output.quantized, quantizer.codes_to_latent(output.codes))
    (output.quantized.square().sum() + sum(output.losses.values())).backward()
    assert latent.grad.isfinite().all() and (latent.grad.abs().sum(dim=-1) > 0).all()


def test_what_does_not_fit_is_refused_with_what_came():
    quantizer = MultiScaleQuantizer(BSQ(DIM), [SQUARE, HIGH])
    cases = [
        (lambda: quantizer.encode(torch.randn(2, 5, 4, DIM)), r"one of the grids \[\(5, 5\), \(6, 4\)\], got \(5, 4\)"),
        (lambda: quantizer.encode(torch.randn(2, 25, DIM)), "got 3 axes"),
        (lambda: quantizer.encode(latents(SQUARE), 5), "expected num_scales from 1 to 4, got 5"),
        (lambda: quantizer.codes_to_latent(torch.zeros(1, 39, 1, dtype=torch.long)), "several pyramids"),
        (lambda: quantizer.codes_to_latent(torch.zeros(1, 38, 1, dtype=torch.long), (5, 5)), r"got \[1, 38, 1\]"),
        (lambda: MultiScaleQuantizer(BSQ(DIM), [SQUARE, SQUARE]), "different grids"),
        (lambda: MultiScaleQuantizer(BSQ(DIM), [SQUARE], enlargement="nearest"), "'bicubic' or 'bilinear'"),
        (lambda: MultiScaleVQ(DIM, 40, [SQUARE], phi_of_scale=(0, 1)), "phi_of_scale for each scale"),
        (lambda: BSQ(DIM, bit_order="middle"), "'little' or 'big'"),
    ]
    for call, message in cases:
        with pytest.raises(zoo.InputError, match=message):
            call()
