"""Quantizers of the package vector-quantize-pytorch, with the interface of ours.

Source: lucidrains/vector-quantize-pytorch, version 1.32. The package takes nearly as long to import as torch, so it is
imported when the first of its quantizers is built.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.arguments import check_arguments, parameters_of, unknown_name
from zoo.quantizers.base import (
    Quantizer,
    QuantizerOutput,
    Scales,
    ScalesQuantizer,
    straight_through,
    without_autocast,
)

# Arguments that the adapter sets itself, or that would break the contract of `Quantizer`.
REFUSED = {
    # The layout is channel-last, in float32, with all codes of a position side by side.
    "accept_image_fmap",
    "accept_3d_fmap",
    "channel_first",
    "channel_last",
    "is_channel_first",
    "keep_num_codebooks_dim",
    "return_indices",
    "return_zeros_for_masked_padding",
    "allowed_dtypes",
    "force_quantization_f32",
    # Losses are returned unweighted, each under its name.
    "commitment_weight",
    "commitment_loss_weight",
    "quantization_loss_weight",
    "entropy_loss_weight",
    "experimental_softplus_entropy_loss",
    "entropy_loss_offset",
    "codebook_diversity_loss_weight",
    "codebook_diversity_temperature",
    "orthogonal_reg_weight",
    "orthogonal_reg_active_codes_only",
    "orthogonal_reg_max_codes",
    # The trainer's optimizer is the only one that takes steps.
    "in_place_codebook_optimizer",
    "manual_in_place_optimizer_update",
    "manual_ema_update",
    # A vector's code would depend on the batch.
    "affine_param",
    "affine_param_batch_decay",
    "affine_param_codebook_decay",
    "sync_affine_param",
    # The package leaves these out when it decodes codes.
    "vq_bridge",
    "optimize_values",
}


class VectorQuantizePytorch(Quantizer):
    """A quantizer of the package vector-quantize-pytorch.

    The classes in `FAMILIES` are supported: they turn each vector into codes, and codes into a vector. `HierarchicalVQ`
    codes a whole grid at several scales. BinaryMapper, which returns one-hot vectors, and EvoLFQ, which holds an
    encoder and a decoder, are not supported.

    What differs from the package: latents are `[..., dim]`, and all codes of a position lie side by side; quantization
    is in float32, whatever the data type of latents and module; `encode` and evaluation have no effect on the state;
    losses are returned unweighted, each under its name.

    For groups of residual codebooks, the codes of the first codebook of every group come first, then those of the
    second, so that the first few codes are a coarser code. With `kmeans_init=True`, all codes are 0 until the first
    training batch has set the codebook. `RandomProjectionQuantizer` has no vectors in the space of the latents; the
    chosen rows are returned through the transposed projections.

    Args:
        name: name of a class, a key of `FAMILIES`.
        dim: length of a vector.
        arguments: arguments of the class, and of the classes that it is made of. Those in `REFUSED` are not accepted:
            layouts, weights of losses, optimizers, and options that let a vector's code depend on the batch.

    Losses, unweighted and averaged over codebooks:
        `VectorQuantize`, `ResidualVQ`, `GroupedResidualVQ`: `commitment_loss`, as the package defines it; with
            `learnable_codebook=True` it moves the codebook as well.
        `SimVQ`, `ResidualSimVQ`: `quantization_loss` = mean (sg(z) - q)² + `input_to_quantize_commit_loss_weight` ×
            mean (z - sg(q))².
        `LFQ`: `commitment_loss` and `entropy_loss`. `ResidualLFQ`, `GroupedResidualLFQ`: `entropy_loss`.
        `LatentQuantize`: `commitment_loss` = mean (z - sg(q))² and `codebook_loss` = mean (sg(z) - q)².
        `FSP`: `normalization_loss`. The others have none.

    Raises:
        InputError: no such class, no such argument, or a value that the class refuses.
    """

    def __init__(self, name: str, dim: int, **arguments: Any):
        if name not in FAMILIES:
            raise unknown_name("quantizer of vector-quantize-pytorch", name, [*FAMILIES, "HierarchicalVQ"])
        family = FAMILIES[name]
        module = build(name, dim, arguments, family.passes_on_to, family.fixed)
        super().__init__(dim, family.sizes(module))
        self.name = name
        self.module = module

    @property
    def family(self) -> Family:
        """The adapter's facts about the class."""
        return FAMILIES[self.name]

    @property
    def is_residual(self) -> bool:
        """As in `Quantizer`; of groups, only whole sets of one codebook each decode alone."""
        return self.family.residual and self._groups == 1

    @property
    def _groups(self) -> int:
        groups = getattr(self.module, "rvqs", None)
        return len(groups) if isinstance(groups, nn.ModuleList) else 1

    def train(self, mode: bool = True) -> VectorQuantizePytorch:
        """As in `torch.nn.Module`; in eval mode no codebook is initialised by k-means."""
        super().train(mode)
        hold_kmeans(self.module, not mode)
        return self

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., num_codebooks]`."""
        with without_autocast(z):
            latent = self.check_latent(z).reshape(1, -1, self.dim)
            module = evaluating(in_float32(self.module))
            _, codes, _ = self._quantize(module, latent)
            return codes.reshape(*z.shape[:-1], self.num_codebooks)

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., num_codebooks]`, or the first few of residual codebooks, to latents `[..., dim]`."""
        latent = self._decode(in_float32(self.module), self.check_codes(codes).reshape(1, -1, codes.shape[-1]))
        return latent.reshape(*codes.shape[:-1], self.dim).to(dtype_of(self.module))

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`; in training mode with dropped codebooks, codes are `[..., n]`.

        Raises:
            InputError: latents of another shape or type, or training of a module that is not in float32.
        """
        check_trains(self.module)
        with without_autocast(z):
            module = in_float32(self.module)
            quantized, codes, losses = self._quantize(module, self.check_latent(z).reshape(1, -1, self.dim))
            if not self.training:
                # The package's own value is off by a rounding error, from its straight-through difference.
                quantized, losses = straight_through(quantized, self._decode(module, codes)), {}
            elif self.family.residual:
                codes = codes[..., (codes >= 0).all(dim=(0, 1))]  # dropped ones are -1
            quantized = quantized.reshape(z.shape).to(z.dtype)
            return QuantizerOutput(quantized, codes.reshape(*z.shape[:-1], codes.shape[-1]), losses)

    def vectors_of(self, codebook: int, quantized: Tensor, codes: Tensor) -> Tensor:
        """Raise InputError: the package does not return what each codebook contributes."""
        raise InputError("a quantizer of vector-quantize-pytorch does not return the vectors of one codebook")

    def check_codes(self, codes: Tensor) -> Tensor:
        """As in `Quantizer`, but the codes of the first few residual codebooks, the same number a group, are enough."""
        missing = self.num_codebooks - codes.shape[-1] if codes.ndim else 0
        if self.family.residual and 0 < missing < self.num_codebooks and missing % self._groups == 0:
            return super().check_codes(functional.pad(codes, (0, missing)))[..., : codes.shape[-1]]
        return super().check_codes(codes)

    def _quantize(self, module: nn.Module, latent: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        if latent.shape[1] == 0:  # the package takes no empty tensors
            return latent, torch.empty(1, 0, self.num_codebooks, dtype=torch.int64, device=latent.device), {}
        return self.family.quantize(module, latent)

    def _decode(self, module: nn.Module, codes: Tensor) -> Tensor:
        if codes.shape[1] == 0:
            return torch.empty(1, 0, self.dim, device=codes.device)
        return self.family.decode(module, functional.pad(codes, (0, self.num_codebooks - codes.shape[-1]), value=-1))


class HierarchicalVQ(ScalesQuantizer):
    """The quantizer HierarchicalVQ of vector-quantize-pytorch: a grid as a pyramid of codes, each of what is left.

    As in `VectorQuantizePytorch`, quantization is in float32, codes do not depend on the mode or the batch, and
    `commitment_loss` is returned unweighted, averaged over the scales. The package has the codes of each scale in a
    tensor of its own; here they lie in one row, coarse to fine. With `kmeans_init`, which is the package's default, all
    codes are 0 until the first training batch has set the codebook.

    Args:
        dim: length of a vector.
        arguments: arguments of the class other than those in `REFUSED`. `scales` are the sides of square grids or
            (height, width), coarse to fine, the last one that of the latents; `codebook_size` is the same for all.

    Raises:
        InputError: no such argument, a value that the class refuses, or codebooks of different sizes.
    """

    def __init__(self, dim: int, **arguments: Any):
        layout = {"accept_image_fmap": True, "channel_first": True}
        module: Any = build("HierarchicalVQ", dim, arguments, (), layout)
        if len(set(module.codebook_sizes)) > 1:
            raise InputError(f"expected scales with one size of codebooks, got {module.codebook_sizes}")
        super().__init__(dim, module.codebook_sizes[:1], [module.level_shapes])
        self.module = module

    def train(self, mode: bool = True) -> HierarchicalVQ:
        """As in `torch.nn.Module`; in eval mode no codebook is initialised by k-means."""
        super().train(mode)
        hold_kmeans(self.module, not mode)
        return self

    @torch.no_grad()
    def encode(self, z: Tensor, num_scales: int | None = None) -> Tensor:
        """Latents `[batch, height, width, dim]` to codes int64 `[batch, positions, 1]`."""
        with without_autocast(z):
            latent = self.check_latent(z)
            scales = self.first(self.scales_of_latent(latent), num_scales)
            _, indices, _ = evaluating(in_float32(self.module))(latent.movedim(-1, 1))
            return in_one_row(indices[: len(scales)])

    def codes_to_latent(self, codes: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Codes int64 `[batch, positions, 1]` of all or the first scales to latents `[batch, height, width, dim]`."""
        codes, scales = self.check_codes(codes), self.scales_of(grid)
        return self._decode(in_float32(self.module), codes, scales).to(dtype_of(self.module))

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[batch, height, width, dim]` to `QuantizerOutput`; in training with dropped scales, fewer codes.

        Raises:
            InputError: latents of another shape or type, or training of a module that is not in float32.
        """
        check_trains(self.module)
        with without_autocast(z):
            latent, module = self.check_latent(z), in_float32(self.module)
            scales = self.scales_of_latent(latent)
            quantized, indices, loss, last = module(latent.movedim(-1, 1), return_cutoff=True)
            codes = in_one_row(indices if last is None else indices[: last + 1])
            if self.training:
                return QuantizerOutput(quantized.movedim(1, -1).to(z.dtype), codes, {"commitment_loss": loss.mean()})
            quantized = straight_through(quantized.movedim(1, -1), self._decode(module, codes, scales))
            return QuantizerOutput(quantized.to(z.dtype), codes, {})

    def _decode(self, module: Any, codes: Tensor, scales: Scales) -> Tensor:
        # Not by the package's own function, which takes all scales, and adds the bias of a convolution for those that
        # are not there.
        total = torch.zeros(codes.shape[0], self.dim, *scales[-1], device=codes.device)
        for number, part in enumerate(self.split(codes, scales)):
            rows = module.get_vq(number).get_output_from_indices(part.flatten(1))
            total = total + module.upsample_to_full(module.unflatten_spatial[number](rows), scales[-1], number)
        return total.movedim(1, -1)


def in_one_row(indices: Sequence[Tensor]) -> Tensor:
    """Return indices `[batch, height, width]` of scales as codes `[batch, positions, 1]`."""
    return torch.cat([scale.flatten(1) for scale in indices], dim=1)[..., None].long()


def build(
    name: str, dim: int, arguments: Mapping[str, Any], passes_on_to: Sequence[str], fixed: Mapping[str, Any]
) -> nn.Module:
    """Return a module of the package.

    Args:
        name: name of its class. passes_on_to: other classes whose arguments it takes.
        arguments: arguments that the user chose. fixed: those that he cannot choose.

    Raises:
        InputError: an argument that there is not, or a value that the class refuses.
    """
    import vector_quantize_pytorch as package

    classes = [getattr(package, each) for each in (name, *passes_on_to)]
    accepted = {key: value for key, value in parameters_of(*classes).items() if key not in REFUSED | fixed.keys()}
    check_arguments(name, arguments, accepted)
    # The package takes a tuple of codebook sizes, where recipes have a list.
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        return classes[0](dim=dim, **arguments, **fixed)
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(f"{name} refuses dim {dim} with {arguments}: {error}") from error


def dtype_of(module: nn.Module) -> torch.dtype:
    tensors = [*module.parameters(), *module.buffers()]
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def in_float32(module: nn.Module) -> Any:
    """Return a module in float32, or a copy of it in that data type."""
    return module if dtype_of(module) == torch.float32 else copy.deepcopy(module).float()


def check_trains(module: nn.Module) -> None:
    """Raise InputError for a module in training mode that is not in float32, whose codebooks a copy would not move."""
    if module.training and (dtype := dtype_of(module)) != torch.float32:
        raise InputError(f"vector-quantize-pytorch trains in float32 (autocast is fine), got a {dtype} module")


def evaluating(module: nn.Module) -> Any:
    """Return a module in eval mode, or a copy of it in that mode."""
    if not module.training:
        return module
    module = copy.deepcopy(module).eval()
    hold_kmeans(module, True)
    return module


@dataclass(frozen=True)
class Family:
    """The adapter's facts about a class.

    sizes: returns the number of entries of each codebook.
    decode: codes `[1, positions, num_codebooks]`, -1 for none, to latents `[1, positions, dim]`.
    passes_on_to: the classes that its keyword arguments are passed on to.
    fixed: arguments that it is always built with.
    loss: name of the loss that its `forward` returns; None: it returns none.
    residual: whether the first few codes are a coarser code.
    """

    sizes: Callable[[Any], tuple[int, ...]]
    decode: Callable[[Any, Tensor], Tensor]
    passes_on_to: tuple[str, ...] = ()
    fixed: dict[str, Any] = field(default_factory=dict)
    loss: str | None = None
    residual: bool = False

    def quantize(self, module: Any, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Latents `[1, positions, dim]` to quantized, codes `[1, positions, num_codebooks]`, and losses."""
        quantized, indices, *others = module(z)
        losses = {} if self.loss is None else {self.loss: others[0].mean()}
        return quantized, codes_of(indices), losses


class LFQFamily(Family):
    """A class that returns the parts of its loss."""

    def quantize(self, module: Any, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        (quantized, indices, _), parts = module(z, return_loss_breakdown=True)
        entropy = parts.per_sample_entropy - module.diversity_gamma * parts.batch_entropy
        return quantized, codes_of(indices), {"commitment_loss": parts.commitment, "entropy_loss": entropy}


class LatentQuantizeFamily(Family):
    """A channel-first class. Its codes are computed here: the package rounds down where a sum is slightly too small."""

    def quantize(self, module: Any, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        quantized = module(z.movedim(-1, 1))[0].movedim(1, -1)
        projected = module.project_in(z).unflatten(-1, (module.num_codebooks, -1)).unbind(dim=-1)
        values = list(module.values_per_latent)
        digits = [(channel[..., None] - of).abs().argmin(dim=-1) for channel, of in zip(projected, values, strict=True)]
        codes = reduce(torch.add, [digit * stride for digit, stride in zip(digits, strides(values), strict=True)])
        losses = {
            "commitment_loss": functional.mse_loss(z, quantized.detach()),
            # The package lets no gradient reach the values; this one moves them, as in the paper.
            "codebook_loss": functional.mse_loss(self.decode(module, codes), z.detach()),
        }
        return quantized, codes, losses


class RandomProjectionFamily(Family):
    """A class that returns codes alone."""

    def quantize(self, module: Any, z: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        codes = codes_of(module(z))
        return straight_through(z, self.decode(module, codes).detach()), codes, {}


def codes_of(indices: Tensor) -> Tensor:
    """Return indices `[1, N]`, `[1, N, codebooks]` or `[groups, 1, N, codebooks]` as int64 `[1, N, all codebooks]`."""
    if indices.ndim == 4:
        indices = indices.movedim(0, -1).flatten(-2)
    return (indices[..., None] if indices.ndim == 2 else indices).long()


def strides(values: list[Tensor]) -> list[int]:
    """Return what a step of each channel adds to a code: the number of combinations of the channels before it."""
    return [reduce(int.__mul__, map(len, values[:channel]), 1) for channel in range(len(values))]


# Sizes of the codebooks, as `Family.sizes`


def sizes_of_layers(module: Any) -> tuple[int, ...]:
    return tuple(layer.codebook_size for layer in module.layers)


def sizes_of_groups(module: Any) -> tuple[int, ...]:
    return tuple(size for size in sizes_of_layers(module.rvqs[0]) for _ in module.rvqs)


def sizes_of_codebooks(module: Any) -> tuple[int, ...]:
    return (module.codebook_size,) * module.num_codebooks


def size_of_module(module: Any) -> tuple[int, ...]:
    return (module.codebook_size,)


# Decoding, as `Family.decode`


def decode_heads(module: Any, codes: Tensor) -> Tensor:
    one_table = module.heads == 1 and not module.separate_codebook_per_head
    rows = module.get_codes_from_indices(codes[..., 0] if one_table else codes)
    return module.project_out(rows.flatten(2))


def decode_layers(module: Any, codes: Tensor) -> Tensor:
    return module.get_output_from_indices(codes)


def decode_groups(module: Any, codes: Tensor) -> Tensor:
    return module.get_output_from_indices(codes.unflatten(-1, (-1, module.groups)).movedim(-1, 0))


def decode_codebooks(module: Any, codes: Tensor) -> Tensor:
    return module.indices_to_codes(codes if module.keep_num_codebooks_dim else codes[..., 0])


def decode_index(module: Any, codes: Tensor) -> Tensor:
    return module.indices_to_codes(codes[..., 0])


def decode_latent_values(module: Any, codes: Tensor) -> Tensor:
    values = list(module.values_per_latent)
    channels = [of[codes // stride % len(of)] for of, stride in zip(values, strides(values), strict=True)]
    return module.project_out(torch.stack(channels, dim=-1).flatten(-2))


def decode_projections(module: Any, codes: Tensor) -> Tensor:
    projections = module.rand_projs.movedim(0, 1).flatten(1)  # [dim, codebooks * codebook_dim]
    return decode_heads(module.vq, codes) @ projections.T


# Initialisation by k-means


def hold_kmeans(module: nn.Module, hold: bool) -> None:
    """Set whether codebooks put off their initialisation by k-means, which the package would do in eval mode too."""
    for codebook in module.modules():
        if hasattr(type(codebook), "init_embed_"):
            if hold:
                codebook.__dict__["init_embed_"] = no_kmeans
            else:
                codebook.__dict__.pop("init_embed_", None)


def no_kmeans(data: Tensor, mask: Tensor | None = None) -> None:
    """Stand in for a codebook's `init_embed_`."""


ENTROPY_ALONE = {"entropy_loss_weight": 1.0, "commitment_loss_weight": 0.0}

FAMILIES: dict[str, Family] = {
    "VectorQuantize": Family(
        lambda module: (module.codebook_size,) * module.heads, decode_heads, loss="commitment_loss"
    ),
    "ResidualVQ": Family(sizes_of_layers, decode_layers, ("VectorQuantize",), loss="commitment_loss", residual=True),
    "GroupedResidualVQ": Family(
        sizes_of_groups, decode_groups, ("ResidualVQ", "VectorQuantize"), loss="commitment_loss", residual=True
    ),
    "SimVQ": Family(size_of_module, decode_index, loss="quantization_loss"),
    "ResidualSimVQ": Family(sizes_of_layers, decode_layers, ("SimVQ",), loss="quantization_loss", residual=True),
    "FSQ": Family(sizes_of_codebooks, decode_codebooks),
    "ResidualFSQ": Family(sizes_of_layers, decode_layers, ("FSQ",), residual=True),
    "GroupedResidualFSQ": Family(sizes_of_groups, decode_groups, ("ResidualFSQ", "FSQ"), residual=True),
    "FSP": Family(size_of_module, decode_index, loss="normalization_loss"),
    "LFQ": LFQFamily(sizes_of_codebooks, decode_codebooks, fixed={"commitment_loss_weight": 1.0}),
    "ResidualLFQ": Family(sizes_of_layers, decode_layers, ("LFQ",), ENTROPY_ALONE, loss="entropy_loss", residual=True),
    "GroupedResidualLFQ": Family(
        sizes_of_groups, decode_groups, ("ResidualLFQ", "LFQ"), ENTROPY_ALONE, loss="entropy_loss", residual=True
    ),
    "LatentQuantize": LatentQuantizeFamily(sizes_of_codebooks, decode_latent_values),
    "RandomProjectionQuantizer": RandomProjectionFamily(
        lambda module: (module.vq.codebook_size,) * module.num_codebooks, decode_projections, ("VectorQuantize",)
    ),
}
