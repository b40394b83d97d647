"""Each quantizer's arithmetic against its formula, written as plainly as possible."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import vector_quantize_pytorch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.errors import InputError
from zoo.quantizers import (
    BSQ,
    FSQ,
    IBQ,
    LFQ,
    AdditiveVQ,
    DimensionwiseQuantizer,
    FactorizedVQ,
    GroupedLFQ,
    GumbelVQ,
    ProductVQ,
    Quantizer,
    ResidualVQ,
    SharedMappingVQ,
    SimVQ,
    VectorQuantizer,
    codebook_entropy_loss,
    most_similar_code,
    nearest_code,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation makes.

    large: elements from which on a tensor is kept in `kept`, one of each memory, so that no memory is used again.
    """

    def __init__(self, large: float = math.inf) -> None:
        super().__init__()
        self.size, self.large = 0, large
        self.kept: dict[int, Tensor] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.size = max(self.size, tensor.numel())
                if tensor.numel() >= self.large:
                    self.kept[tensor.untyped_storage().data_ptr()] = tensor
        return result


def set_codebook(quantizer: VectorQuantizer, rows: Tensor) -> None:
    with torch.no_grad():
        quantizer.codebook.copy_(rows)
        if quantizer.update == "ema":
            quantizer.codebook_sum.copy_(rows)


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def squared_distances(z: Tensor, rows: Tensor) -> Tensor:
    return (z[:, None].double() - rows[None].double()).square().sum(-1)


def sign_vectors(bits: int) -> Tensor:
    """All sign vectors `[2^bits, bits]`, the first channel the least significant bit of the row number."""
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=bits))).flip(-1)


def entropy_difference(probability: Tensor) -> Tensor:
    mean = probability.mean(0)
    each = torch.special.entr(probability).sum(-1).mean()
    return each + (mean * torch.log(mean + 1e-5)).sum()


# nearest_code


@pytest.mark.parametrize("chunk", [3, 7, 64, 1000, None])
def test_nearest_code_is_the_row_of_least_distance(chunk):
    z, rows = torch.randn(100, 5), torch.randn(200, 5)
    assert torch.equal(nearest_code(z, rows, chunk=chunk), squared_distances(z, rows).argmin(1))


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 64])
def test_the_first_of_equally_near_rows_wins_whatever_the_chunk(chunk):
    rows = torch.tensor([[5.0, 5.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [5.0, 5.0]])
    z = torch.tensor([[1.0, 0.0], [0.0, 0.0], [5.0, 5.0], [0.5, 0.5], [-0.5, 0.5]])
    assert nearest_code(z, rows, chunk=chunk).tolist() == [1, 1, 0, 1, 2]


def test_nearest_code_keeps_the_grid_and_takes_half_precision():
    z, rows = torch.randn(2, 3, 4, 5).bfloat16(), torch.randn(20, 5).half()
    codes = nearest_code(z, rows)
    assert codes.shape == (2, 3, 4)
    assert torch.equal(codes.flatten(), squared_distances(z.float().view(-1, 5), rows.float()).argmin(1))


def test_nearest_code_never_makes_a_tensor_larger_than_a_tile():
    z, rows = torch.randn(3000, 4), torch.randn(5000, 4)
    with LargestTensor() as largest:
        nearest_code(z, rows, chunk=200)
    assert largest.size <= max(200 * 200, rows.numel())


def test_nearest_code_finds_rows_of_a_codebook_of_262144_by_256():
    rows = torch.empty(262144, 256).uniform_(-1, 1)
    wanted = torch.tensor([0, 1023, 1024, 131071, 262143])
    assert torch.equal(nearest_code(rows[wanted] + 0.01, rows), wanted)


def test_nearest_code_has_no_gradient():
    assert not nearest_code(torch.randn(4, 3, requires_grad=True), torch.randn(5, 3)).requires_grad


@pytest.mark.parametrize("chunk", [3, 64, None])
@pytest.mark.parametrize("biased", [False, True])
def test_the_most_similar_code_has_the_largest_product(chunk, biased):
    z, rows = torch.randn(100, 5), torch.randn(200, 5)
    bias = torch.randn(200) if biased else None
    products = z @ rows.T + (bias if biased else 0)
    assert torch.equal(most_similar_code(z, rows, bias, chunk=chunk), products.argmax(1))


# VectorQuantizer


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_vector_quantizer_takes_the_nearest_row(distance):
    quantizer = VectorQuantizer(4, 30, distance=distance).eval()
    set_codebook(quantizer, torch.randn(30, 4))
    z, rows = torch.randn(200, 4), quantizer.codebook.detach()
    if distance == "cosine":
        z, rows = unit(z), unit(rows)
    output = quantizer(3 * z if distance == "cosine" else z)
    codes = squared_distances(z, rows).argmin(1)
    assert torch.equal(output.codes[:, 0], codes)
    assert torch.allclose(output.quantized, rows[codes])


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_vector_quantizer_losses_and_gradients_are_those_of_the_formula(distance):
    quantizer = VectorQuantizer(4, 30, distance=distance)
    set_codebook(quantizer, torch.randn(30, 4))
    z = torch.randn(200, 4, requires_grad=True)
    output = quantizer(z)
    rows = quantizer.codebook.detach().clone().requires_grad_()
    latent, chosen = z, rows[output.codes[:, 0]]
    if distance == "cosine":
        latent, chosen = unit(latent), unit(chosen)
    commitment = (latent - chosen.detach()).square().mean()
    codebook = (latent.detach() - chosen).square().mean()
    assert torch.allclose(output.losses["commitment_loss"], commitment)
    assert torch.allclose(output.losses["codebook_loss"], codebook)
    ours = torch.autograd.grad(sum(output.losses.values()), [z, quantizer.codebook])
    theirs = torch.autograd.grad(commitment + codebook, [z, rows])
    assert all(torch.allclose(one, other, atol=1e-7) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("update", ["gradient", "ema"])
def test_rows_compared_by_angle_start_at_unit_length(update):
    codebook = VectorQuantizer(4, 30, distance="cosine", update=update).codebook
    assert torch.allclose(codebook.norm(dim=1), torch.ones(30))


def test_the_straight_through_gradient_is_the_identity():
    z, direction = torch.randn(20, 4, requires_grad=True), torch.randn(20, 4)
    (VectorQuantizer(4, 30)(z).quantized * direction).sum().backward()
    assert torch.allclose(z.grad, direction)


# ResidualVQ, ProductVQ, AdditiveVQ


def spread(quantizer: Quantizer, scale: float = 1.0) -> Quantizer:
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return quantizer.eval()


def test_residual_vq_quantizes_what_is_left_and_sums_the_rows():
    quantizer = spread(ResidualVQ(4, (16, 8, 4), 3))
    z = torch.randn(100, 4)
    residual, total, codes = z, torch.zeros(100, 4), []
    for layer in quantizer.layers:
        codes.append(squared_distances(residual, layer.codebook).argmin(1))
        total = total + layer.codebook[codes[-1]]
        residual = residual - layer.codebook[codes[-1]]
    output = quantizer(z)
    assert torch.equal(output.codes, torch.stack(codes, dim=-1))
    assert torch.allclose(output.quantized, total, atol=1e-6)


def test_a_prefix_of_residual_codes_is_the_code_of_fewer_codebooks_and_decodes():
    quantizer = spread(ResidualVQ(4, 16, 3))
    z = torch.randn(2, 50, 4)
    codes = quantizer.encode(z)
    errors = []
    for number in (1, 2, 3):
        assert torch.equal(quantizer.encode(z, num_codebooks=number), codes[..., :number])
        rows = [layer.codebook[codes[..., i]] for i, layer in enumerate(quantizer.layers[:number])]
        assert torch.allclose(quantizer.codes_to_latent(codes[..., :number]), sum(rows), atol=1e-6)
        errors.append((quantizer.codes_to_latent(codes[..., :number]) - z).square().mean())
    assert errors[2] < errors[0]


@pytest.mark.parametrize("number", [0, 4, -1])
def test_residual_vq_refuses_a_number_of_codebooks_that_it_lacks(number):
    with pytest.raises(InputError, match="from 1 to 3"):
        ResidualVQ(4, 16, 3).encode(torch.randn(5, 4), num_codebooks=number)


def test_residual_vq_refuses_codes_of_no_codebook():
    with pytest.raises(InputError, match="expected codes"):
        ResidualVQ(4, 16, 3).codes_to_latent(torch.zeros(5, 0, dtype=torch.int64))


def test_quantizer_dropout_uses_every_number_of_codebooks_in_training_and_all_in_eval():
    quantizer = ResidualVQ(4, 16, 3, quantizer_dropout=True)
    z = torch.randn(10, 4)
    assert {quantizer(z).codes.shape[-1] for _ in range(50)} == {1, 2, 3}
    assert {quantizer.eval()(z).codes.shape[-1] for _ in range(20)} == {3}


def test_every_codebook_of_residual_vq_contributes_to_the_gradient_of_the_latents():
    quantizer = spread(ResidualVQ(4, 16, 2)).train()
    z = torch.randn(10, 4, requires_grad=True)
    output = quantizer(z)
    rows = [layer.codebook.detach()[output.codes[:, i]] for i, layer in enumerate(quantizer.layers)]
    expected = (z - rows[0]).square().mean() / 2 + (z - rows[0] - rows[1]).square().mean() / 2
    assert torch.allclose(output.losses["commitment_loss"], expected)
    ours, theirs = (torch.autograd.grad(loss, z)[0] for loss in (output.losses["commitment_loss"], expected))
    assert torch.allclose(ours, theirs, atol=1e-7)


def test_product_vq_quantizes_each_part_of_the_channels_on_its_own():
    quantizer = spread(ProductVQ(6, (16, 8)))
    z = torch.randn(100, 6)
    output = quantizer(z)
    for i, layer in enumerate(quantizer.layers):
        part = slice(3 * i, 3 * i + 3)
        codes = squared_distances(z[:, part], layer.codebook).argmin(1)
        assert torch.equal(output.codes[:, i], codes)
        assert torch.allclose(output.quantized[:, part], layer.codebook[codes])


def test_additive_vq_with_a_wide_beam_finds_the_best_sum():
    quantizer = spread(AdditiveVQ(3, (6, 5, 4), beam_width=30))
    one, two, three = quantizer.codebooks
    sums = (one[:, None, None] + two[None, :, None] + three[None, None]).reshape(-1, 3)
    z = torch.randn(100, 3)
    best = squared_distances(z, sums).argmin(1)
    codes = torch.stack(torch.unravel_index(best, (6, 5, 4)), dim=-1)
    assert torch.equal(quantizer.encode(z), codes)
    assert torch.allclose(quantizer(z).quantized, sums[best], atol=1e-6)


def test_a_wider_beam_lowers_the_error_of_additive_vq():
    quantizer = spread(AdditiveVQ(8, (32,) * 4))
    z = 2 * torch.randn(500, 8)
    errors = []
    for width in (1, 8):
        quantizer.beam_width = width
        errors.append((quantizer(z).quantized - z).square().mean())
    assert errors[1] < 0.8 * errors[0]


def test_additive_vq_losses_are_taken_on_the_sum():
    quantizer = spread(AdditiveVQ(4, (8, 8))).train()
    z = torch.randn(50, 4)
    output = quantizer(z)
    expected = (z - output.quantized).square().mean()
    assert torch.allclose(output.losses["commitment_loss"], expected)
    assert torch.allclose(output.losses["codebook_loss"], expected)


# FSQ


@pytest.mark.parametrize("levels", [(8, 8, 8, 5, 5, 5), (8, 8, 8, 8, 8), (7, 4, 3), (5,)])
def test_fsq_is_the_published_formula(levels):
    z = 2 * torch.randn(500, len(levels))
    output = FSQ(levels).eval()(z)
    code, stride = 0, 1
    for i, level in enumerate(levels):
        half_range = (level - 1) * 1.001 / 2
        offset = 0.0 if level % 2 else 0.5
        bounded = torch.tanh(z[:, i] + math.atanh(offset / half_range)) * half_range - offset
        rounded = bounded.round()
        assert torch.equal(output.quantized[:, i], rounded / (level // 2))
        code = code + (rounded.long() + level // 2) * stride
        stride *= level
    assert torch.equal(output.codes[:, 0], code)


def test_fsq_reaches_as_far_as_its_stretch():
    border = torch.tensor([[math.atanh(0.4996)], [math.atanh(0.5004)], [math.atanh(0.5006)]])
    assert FSQ((3,)).encode(border).tolist() == [[2], [2], [2]]
    assert FSQ((3,), stretch=0.999).encode(border).tolist() == [[1], [1], [2]]


def test_fsq_agrees_with_vector_quantize_pytorch():
    levels = [8, 8, 8, 5, 5, 5]
    package = vector_quantize_pytorch.FSQ(levels)
    z = 2 * torch.randn(1, 2000, 6)
    output = FSQ(levels)(z)
    quantized, codes = package(z)
    assert torch.equal(output.codes[..., 0], codes.long())
    assert torch.allclose(output.quantized, quantized, atol=1e-6)


def test_the_gradient_of_fsq_is_that_of_the_bound():
    z = torch.randn(50, 2, requires_grad=True)
    FSQ((5, 3))(z).quantized.sum().backward()
    half_range, half = torch.tensor([4 * 1.001 / 2, 2 * 1.001 / 2]), torch.tensor([2.0, 1.0])
    assert torch.allclose(z.grad, (1 - torch.tanh(z.detach()) ** 2) * half_range / half, atol=1e-6)


def test_the_spread_loss_of_fsq_is_least_for_latents_that_use_all_codes_alike():
    quantizer = FSQ((8, 5)).train()
    uniform = 0.999 * (2 * torch.rand(20_000, 2) - 1)
    latent = torch.atanh(uniform) - torch.tensor([math.atanh(0.5 / (3.5 * 1.001)), 0])
    channels_alike = torch.atanh(uniform[:, :1]) - torch.tensor([math.atanh(0.5 / (3.5 * 1.001)), 0])
    losses = {
        name: float(quantizer(z).losses["spread_loss"])
        for name, z in (("all", latent), ("few", latent / 4), ("outermost", 9 * latent), ("alike", channels_alike))
    }
    assert losses["all"] < 1e-3
    assert min(losses["few"], losses["outermost"], losses["alike"]) > 0.1


def test_fsq_codes_are_exact_above_the_integers_of_float32():
    quantizer = FSQ((8,) * 20)
    codes = torch.randint(2**60, (100, 1))
    digits = (codes >> (3 * torch.arange(20))) & 7
    assert torch.equal(quantizer.codes_to_latent(codes), (digits - 4) / 4)
    inner = torch.atanh(((digits - 4) + 0.5) / 3.5035) - math.atanh(0.5 / 3.5035)
    assert torch.equal(quantizer.encode(inner.clamp(-4, 4)), codes)


# LFQ, GroupedLFQ, BSQ


def test_lfq_names_signs_by_a_number_whose_lowest_bit_is_the_first_channel():
    z = torch.tensor([[3.0, -1, -1], [-1, 0.1, -1], [-1, -1, 2], [1, 1, 1], [0, 0, 0], [-0.0, 0, 1e-30]])
    assert LFQ(3).encode(z)[:, 0].tolist() == [1, 2, 4, 7, 0, 4]


def test_lfq_of_big_bit_order_names_signs_by_a_number_whose_highest_bit_is_the_first_channel():
    quantizer = LFQ(3, bit_order="big").eval()
    z = torch.tensor([[3.0, -1, -1], [-1, 0.1, 2], [-1, -1, 2], [1, 1, -1]])
    output = quantizer(z)
    assert output.codes[:, 0].tolist() == [4, 3, 1, 6]
    assert output.quantized.tolist() == [[1, -1, -1], [-1, 1, 1], [-1, -1, 1], [1, 1, -1]]


def test_exactly_zero_becomes_minus_one():
    assert LFQ(3).eval()(torch.zeros(1, 3)).quantized.tolist() == [[-1, -1, -1]]
    assert GroupedLFQ(4, 2).eval()(torch.zeros(1, 4)).codes.tolist() == [[0, 0]]
    assert BSQ(4).eval()(torch.zeros(1, 4)).codes.tolist() == [[0]]


def test_lfq_of_36_channels_needs_no_codebook():
    quantizer = LFQ(36)
    z = (0.01 * torch.randn(1000, 36)).requires_grad_()
    with LargestTensor() as largest:
        output = quantizer(z)
        sum(output.losses.values()).backward()
    assert quantizer.codebook_sizes == (2**36,)
    assert output.codes.max() > 2**35
    assert torch.equal(quantizer.codes_to_latent(output.codes), torch.where(z > 0, 1.0, -1.0))
    assert largest.size <= 4 * z.numel()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("bits", [1, 2, 5, 10])
def test_lfq_losses_and_gradients_are_those_of_the_formula(bits):
    quantizer = LFQ(bits, temperature=0.3)
    z = (0.2 * torch.randn(70, bits)).requires_grad_()
    probability = (2 * z @ sign_vectors(bits).T / 0.3).softmax(-1)
    signs = torch.where(z > 0, 1.0, -1.0).detach()
    losses = quantizer(z).losses
    assert torch.allclose(losses["commitment_loss"], (z - signs).square().mean())
    assert torch.allclose(losses["entropy_loss"], entropy_difference(probability), atol=1e-5)
    ours = torch.autograd.grad(losses["entropy_loss"], z)[0]
    theirs = torch.autograd.grad(entropy_difference(probability), z)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_lfq_entropy_of_many_vectors_is_that_of_their_chunks_together():
    z = (0.01 * torch.randn(10000, 6)).requires_grad_()
    loss = LFQ(6)(z).losses["entropy_loss"]
    expected = entropy_difference((2 * z @ sign_vectors(6).T / 0.01).softmax(-1))
    assert torch.allclose(loss, expected, atol=1e-4)
    ours, theirs = (torch.autograd.grad(value, z)[0] for value in (loss, expected))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_lfq_entropy_of_262144_codes_never_makes_vectors_times_codes():
    z = (0.01 * torch.randn(5000, 18)).requires_grad_()
    with LargestTensor() as largest:
        LFQ(18)(z).losses["entropy_loss"].backward()
    assert largest.size <= 4096 * 2**9
    assert z.grad.isfinite().all()


def test_above_20_bits_the_entropy_of_the_mean_is_that_of_independent_bits():
    z = 0.01 * torch.randn(100, 24)
    probability = torch.sigmoid(400 * z.double())
    each = (torch.special.entr(probability) + torch.special.entr(1 - probability)).sum(1).mean()
    mean = probability.mean(0)
    bound = (torch.special.entr(mean) + torch.special.entr(1 - mean)).sum()
    assert LFQ(24)(z).losses["entropy_loss"].item() == pytest.approx((each - bound).item(), abs=1e-3)


@pytest.mark.parametrize("build", [lambda: LFQ(6), lambda: LFQ(24), lambda: BSQ(24), lambda: GroupedLFQ(24, 3)])
@pytest.mark.parametrize("value", [0.0, 5.0, -5.0])
def test_saturated_and_zero_latents_have_finite_entropy_gradients(build: Callable[[], Quantizer], value: float):
    quantizer = build()
    z = torch.full((10, quantizer.dim), value, requires_grad=True)
    quantizer(z).losses["entropy_loss"].backward()
    assert z.grad.isfinite().all()


def test_grouped_lfq_gives_each_group_a_code_with_its_first_channel_lowest():
    z = torch.tensor([[1.0, -1, -1, -1, -1, 1], [1, 1, -1, 1, -1, -1]])
    assert GroupedLFQ(6, 2).encode(z).tolist() == [[1, 4], [3, 1]]


def test_grouped_lfq_pools_one_histogram_over_positions_and_groups():
    quantizer = GroupedLFQ(12, 3, temperature=0.5)
    z = (0.3 * torch.randn(2, 30, 12)).requires_grad_()
    probability = (2 * z.reshape(-1, 4) @ sign_vectors(4).T / 0.5).softmax(-1)
    loss = quantizer(z).losses["entropy_loss"]
    assert torch.allclose(loss, entropy_difference(probability), atol=1e-5)
    ours, theirs = (torch.autograd.grad(value, z)[0] for value in (loss, entropy_difference(probability)))
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_32_groups_of_8_bits_train_in_little_memory_and_decode():
    quantizer = GroupedLFQ(256, 32)
    z = (0.01 * torch.randn(4, 64, 256)).requires_grad_()
    with LargestTensor() as largest:
        output = quantizer(z)
        sum(output.losses.values()).backward()
    assert output.codes.shape == (4, 64, 32)
    assert torch.equal(quantizer.codes_to_latent(output.codes), torch.where(z > 0, 1.0, -1.0))
    assert largest.size <= 2 * z.numel()


def test_bsq_is_the_sign_on_the_unit_sphere_with_factorised_entropies():
    quantizer = BSQ(6, temperature=0.2)
    z = torch.randn(50, 6, requires_grad=True)
    output = quantizer(z)
    u = unit(z.double())
    corners = torch.where(z > 0, 1.0, -1.0) / 6**0.5
    probability = torch.sigmoid(4 * u / (6**0.5 * 0.2))
    each = (torch.special.entr(probability) + torch.special.entr(1 - probability)).sum(1).mean()
    mean = probability.mean(0)
    bits = (torch.special.entr(mean) + torch.special.entr(1 - mean)).sum()
    assert torch.allclose(output.quantized, corners)
    assert output.losses["commitment_loss"].item() == pytest.approx((u - corners).square().mean().item(), abs=1e-6)
    assert output.losses["entropy_loss"].item() == pytest.approx((each - bits).item(), abs=2e-4)
    assert torch.equal(BSQ(6, num_groups=3).encode(z), LFQ(2).encode(z.reshape(50, 3, 2))[..., 0])


# FactorizedVQ, SharedMappingVQ


@pytest.mark.parametrize("vectors", [40, 1100])
def test_codebook_entropy_loss_and_its_gradients_are_those_of_the_formula(vectors):
    z, rows = torch.randn(vectors, 5, requires_grad=True), torch.randn(30, 5, requires_grad=True)
    loss = codebook_entropy_loss(z, rows, scale=3.0)
    expected = entropy_difference((3.0 * z @ rows.T).softmax(-1))
    assert torch.allclose(loss, expected, atol=1e-5)
    ours, theirs = (torch.autograd.grad(value, [z, rows]) for value in (loss, expected))
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(ours, theirs, strict=True))


def test_factorized_vq_losses_are_those_of_the_formula():
    quantizer = spread(FactorizedVQ(9, (16, 8, 8), temperature=0.3)).train()
    z = torch.randn(2, 25, 9, requires_grad=True)
    output = quantizer(z)
    parts = [unit(part) for part in z.split(3, dim=-1)]
    rows = [unit(layer.codebook) for layer in quantizer.layers]
    chosen = [rows[i][output.codes[..., i]] for i in range(3)]
    expected = {
        "commitment_loss": sum((u - e.detach()).square().mean() for u, e in zip(parts, chosen, strict=True)),
        "codebook_loss": sum((u.detach() - e).square().mean() for u, e in zip(parts, chosen, strict=True)),
        "entropy_loss": sum(
            entropy_difference((-(u.reshape(-1, 1, 3) - e).square().sum(-1) / 0.3).softmax(-1))
            for u, e in zip(parts, rows, strict=True)
        ),
    }
    through = [u + (e - u).detach() for u, e in zip(parts, chosen, strict=True)]
    pairs = [(through[i] * through[j]).sum(-1).square().mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    expected["disentanglement_loss"] = sum(pairs) / 3
    assert output.losses.keys() == expected.keys()
    inputs = [z, *quantizer.parameters()]
    for name, loss in expected.items():
        assert torch.allclose(output.losses[name], loss, atol=1e-5), name
        ours, theirs = (
            torch.autograd.grad(value, inputs, retain_graph=True, allow_unused=True)
            for value in (output.losses[name], loss)
        )
        for one, other in zip(ours, theirs, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, atol=1e-5), name


def test_factorized_vq_returns_unit_rows_of_the_nearest_directions():
    quantizer = spread(FactorizedVQ(6, (16, 8)))
    z = torch.randn(100, 6)
    output = quantizer(z)
    for i, layer in enumerate(quantizer.layers):
        rows, part = unit(layer.codebook), z[:, 3 * i : 3 * i + 3]
        assert torch.equal(output.codes[:, i], (unit(part) @ rows.T).argmax(1))
        assert torch.allclose(output.quantized[:, 3 * i : 3 * i + 3], rows[output.codes[:, i]])


def test_shared_mapping_minimises_the_sum_of_the_distances_of_all_parts():
    quantizer = spread(SharedMappingVQ((4, 2), 30)).train()
    z = torch.randn(100, 6)
    output = quantizer(z)
    parts, rows = z.split((4, 2), dim=-1), [unit(codebook) for codebook in quantizer.codebooks]
    distance = sum(squared_distances(unit(p), r) for p, r in zip(parts, rows, strict=True))
    codes = distance.argmin(1)
    chosen = torch.cat([r[codes] for r in rows], dim=-1)
    latent = torch.cat([unit(p) for p in parts], dim=-1)
    assert torch.equal(output.codes[:, 0], codes)
    assert torch.allclose(output.quantized, chosen)
    assert torch.allclose(output.losses["commitment_loss"], (latent - chosen).square().mean())
    assert torch.allclose(output.losses["codebook_loss"], (latent - chosen).square().mean())


# DimensionwiseQuantizer, SimVQ


def test_dimensionwise_levels_are_those_of_the_published_table():
    levels = torch.tensor(DimensionwiseQuantizer(1, bits=6).levels) * 3 / 5
    assert torch.allclose(levels[:4], torch.tensor([-2.437096, -1.994237, -1.764207, -1.602344]), atol=1e-5)
    assert torch.allclose(levels[31:33], torch.tensor([-0.0195855, 0.0195855]), atol=1e-6)
    for bits, last in ((4, 3.2312), (5, 3.6761), (6, 4.0618), (8, 4.6722)):
        assert DimensionwiseQuantizer(1, bits=bits).levels[-1] == pytest.approx(last, abs=1e-4)


def test_dimensionwise_codes_are_the_nearest_levels_after_scaling():
    quantizer = DimensionwiseQuantizer(3, bits=4, scale=0.25)
    z = 4 * torch.randn(200, 3)
    levels = torch.tensor(quantizer.levels)
    codes = (0.25 * z[..., None] - levels).abs().argmin(-1)
    output = quantizer(z)
    assert torch.equal(output.codes, codes)
    assert torch.allclose(output.quantized, levels[codes] / 0.25)
    assert quantizer.encode(torch.tensor([[1e9, -1e9, 0.01]])).tolist() == [[15, 0, 8]]


def test_dimensionwise_mean_and_scale_are_per_channel_constants_that_half_precision_leaves_alone():
    z = torch.randn(5000, 2) * torch.tensor([0.01, 300.0]) + torch.tensor([7.0, -1000.0])
    quantizer = DimensionwiseQuantizer(2, mean=z.mean(0).tolist(), scale=(1 / z.std(0)).tolist())
    error = (quantizer(z).quantized - z).square().mean(0).sqrt() / z.std(0)
    assert (error < 0.03).all()
    assert not quantizer.state_dict()
    codes = quantizer.encode(z)
    assert torch.equal(quantizer.bfloat16().encode(z), codes)


@pytest.mark.parametrize("wrong", [{"mean": [0.0]}, {"scale": [1.0, 0.0]}, {"scale": -1.0}, {"mean": float("nan")}])
def test_dimensionwise_refuses_constants_that_are_not_one_finite_number_per_channel(wrong):
    with pytest.raises(InputError, match=f"expected .*{next(iter(wrong))}"):
        DimensionwiseQuantizer(2, **wrong)


def test_sim_vq_agrees_with_vector_quantize_pytorch():
    package = vector_quantize_pytorch.SimVQ(6, 40, rotation_trick=False, input_to_quantize_commit_loss_weight=0.25)
    quantizer = SimVQ(6, 40)
    quantizer.load_state_dict({"codebook": package.frozen_codebook, "transform.weight": package.code_transform.weight})
    z = torch.randn(1, 100, 6, requires_grad=True)
    output = quantizer(z)
    quantized, codes, loss = package(z)
    assert torch.equal(output.codes[..., 0], codes)
    assert torch.allclose(output.quantized, quantized, atol=1e-6)
    ours = output.losses["codebook_loss"] + 0.25 * output.losses["commitment_loss"]
    assert torch.allclose(ours, loss)
    gradients = (
        torch.autograd.grad(ours, [z, quantizer.transform.weight]),
        torch.autograd.grad(loss, [z, package.code_transform.weight]),
    )
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients, strict=True))


def test_the_table_of_sim_vq_is_frozen():
    assert [name for name, _ in SimVQ(4, 8).named_parameters()] == ["transform.weight"]


# IBQ, GumbelVQ


def plain_ibq(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, rows, and rows with the gradient of the one-hot vector over all codes, as published."""
    probability = torch.softmax(z @ rows.T, dim=1)
    codes = probability.argmax(dim=1)
    hard = torch.nn.functional.one_hot(codes, len(rows)).to(z.dtype)
    return codes, hard @ rows, (hard - probability.detach() + probability) @ rows


def test_ibq_has_the_values_losses_and_gradients_of_the_published_formula():
    quantizer = IBQ(4, 50, temperature=0.3)
    z, direction = torch.randn(200, 4, requires_grad=True), torch.randn(200, 4)
    output = quantizer(z)
    rows = quantizer.codebook.detach().clone().requires_grad_()
    codes, row, quantized = plain_ibq(z, rows)
    losses = {
        "index_loss": (quantized - z).square().mean(),
        "commitment_loss": (row.detach() - z).square().mean(),
        "codebook_loss": (row - z.detach()).square().mean(),
        "entropy_loss": entropy_difference(torch.softmax(z @ rows.T / 0.3, dim=1)),
    }
    assert torch.equal(output.codes[:, 0], codes)
    assert torch.allclose(output.quantized, quantized, atol=1e-6)
    assert output.losses.keys() == losses.keys()
    ours = {"quantized": (output.quantized * direction).sum(), **output.losses}
    theirs = {"quantized": (quantized * direction).sum(), **losses}
    for name, loss in theirs.items():
        assert torch.allclose(ours[name], loss, rtol=1e-5, atol=1e-6), name
        of_ours, of_theirs = (
            torch.autograd.grad(each, inputs, retain_graph=True, allow_unused=True)
            for each, inputs in ((ours[name], (z, quantizer.codebook)), (loss, (z, rows)))
        )
        for mine, other in zip(of_ours, of_theirs, strict=True):
            assert (mine is None) == (other is None), name
            assert mine is None or torch.allclose(mine, other, rtol=1e-4, atol=1e-5), name


def test_the_gradient_of_ibq_reaches_rows_that_no_vector_chose():
    quantizer = IBQ(4, 500)
    output = quantizer(torch.randn(20, 4))
    (output.quantized * torch.randn(20, 4)).sum().backward()
    assert len(output.codes.unique()) <= 20
    assert (quantizer.codebook.grad != 0).any(dim=1).all()


def test_training_ibq_never_makes_a_tensor_of_vectors_by_codes():
    quantizer = IBQ(4, 20000)
    z = torch.randn(3000, 4, requires_grad=True)
    with LargestTensor() as largest:
        losses = quantizer(z).losses
        (losses["index_loss"] + losses["entropy_loss"]).backward()
    assert largest.size <= 2**22


def test_training_ibq_makes_nothing_of_the_codebooks_size_but_one_gradient():
    quantizer = IBQ(4, 8000)
    quantizer.codebook.grad = torch.zeros_like(quantizer.codebook)  # to which the gradient is added
    present = {tensor.untyped_storage().data_ptr() for tensor in (quantizer.codebook, quantizer.codebook.grad)}
    with LargestTensor(large=4 * 8000) as largest:
        output = quantizer(torch.randn(2000, 4, requires_grad=True))
        (output.quantized.sum() + sum(output.losses.values())).backward()
    made = [tensor for memory, tensor in largest.kept.items() if memory not in present]
    assert [list(tensor.shape) for tensor in made if len(tensor) == 8000] == [[8000, 4]]


def test_gumbel_vq_takes_the_code_of_the_largest_logit():
    quantizer = GumbelVQ(4, 50).eval()
    z = torch.randn(200, 4)
    codes = (z @ quantizer.project.weight.T + quantizer.project.bias).argmax(1)
    output = quantizer(z)
    assert torch.equal(output.codes[:, 0], codes)
    assert torch.equal(output.quantized, quantizer.codebook[codes])


def test_gumbel_vq_in_training_draws_codes_with_the_probabilities_of_its_logits():
    quantizer = GumbelVQ(4, 6)
    z = torch.randn(4)
    codes = quantizer(z.expand(20000, 4)).codes
    shares = torch.bincount(codes.flatten(), minlength=6) / 20000
    assert torch.allclose(shares, torch.softmax(quantizer.project(z), dim=0), atol=0.02)


def test_gumbel_vq_has_the_gradients_and_the_loss_of_the_formula():
    quantizer = GumbelVQ(4, 50, temperature=0.7)
    z, direction = torch.randn(200, 4, requires_grad=True), torch.randn(200, 4)
    torch.manual_seed(3)
    output = quantizer(z)
    torch.manual_seed(3)
    noise = -torch.empty(200, 50).exponential_().log()
    logits = quantizer.project(z)
    soft = torch.softmax((logits + noise) / 0.7, dim=1)
    hard = torch.nn.functional.one_hot(soft.argmax(1), 50).float()
    quantized = (hard - soft.detach() + soft) @ quantizer.codebook
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits), torch.distributions.Categorical(probs=torch.ones(50) / 50)
    ).mean()
    assert torch.equal(output.codes[:, 0], soft.argmax(1))
    assert torch.allclose(output.losses["kl_loss"], divergence, atol=1e-6)
    parameters = [z, *quantizer.parameters()]
    ours = torch.autograd.grad((output.quantized * direction).sum(), parameters)
    theirs = torch.autograd.grad((quantized * direction).sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
