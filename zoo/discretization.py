"""Tokenizers made of continuous autoencoders, without training.

Paper: Bridging Continuous and Discrete Tokens for Autoregressive Visual Generation (TokenBridge, arXiv 2503.16430).
It measures one scale for all channels of one autoencoder; here every channel has a mean and a scale of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from zoo import modalities, saved
from zoo.errors import CheckpointError, InputError
from zoo.quantizers import DimensionwiseQuantizer
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

PAPER = "https://arxiv.org/abs/2503.16430"


def discretize(
    autoencoder: nn.Module,
    bits: int = 6,
    *,
    calibration: Tensor | Iterable[Tensor],
    value_range: float = 5.0,
    mean: float | Sequence[float] | None = None,
    scale: float | Sequence[float] | None = None,
    name: str | None = None,
    modality: str | None = None,
    input_mean: float | None = None,
    input_std: float | None = None,
    sample_rate: int | None = None,
    causal: bool | None = None,
) -> Tokenizer:
    """Return a tokenizer that rounds every channel of a continuous latent to one of 2^bits levels.

        tokenizer = zoo.discretize(AutoencoderKL.from_pretrained(...), calibration=batches)
        codes = tokenizer.encode(images)  # int64 [B, channels, h, w]

    The levels are placed by the mean and deviation of each channel, which are measured over `calibration`. Nothing is
    trained.

    Args:
        autoencoder: a tokenizer of zoo, whose own quantizer is left out, or any module with `encode(x)` and
            `decode(z)` for latents `[B, channels, *grid]`. `encode` returns the latent, a distribution with `mode()`,
            or an output with `latent_dist`, `latent` or `latents`, as in diffusers; `decode` returns the signal or an
            output with `sample`. The module is not copied, and is put into eval mode.
        bits: bits of each code, at most 9.
        calibration: one batch or several, in the public layout and range as `encode` takes them (images
            `[B, 3, H, W]` in [0, 1]), as large as the signals to come. Each goes through the autoencoder whole, one
            after the other; none is kept.
        value_range: number of deviations that the levels extend over; at 6 bits the last level is at 0.81 of it.
        mean: mean of the latents, for all channels or one for each; None: the measured one.
        scale: the reciprocal of their deviation, in the same way; diffusers configurations call it `scaling_factor`.
        name: name of the tokenizer; None: the autoencoder's name with the bits.
        modality: "image", "video" or "audio"; None: "image". This option and those after it are for modules that are
            not tokenizers of zoo; tokenizers have these facts in their spec.
        input_mean, input_std: the network is given (x - input_mean) / input_std, where x is in the public range. None:
            the network takes [-1, 1], so 0.5 and 0.5 for images and video, 0 and 1 for audio.
        sample_rate: sample rate in Hz, needed for audio.
        causal: whether the first frame of a clip has a grid step of its own.

    Returns:
        A tokenizer in eval mode, with codes `[B, channels, *grid]`; sizes that the grid does not divide are padded. The
        first calibration batch determines the number of channels, the downsampling (from the size that its latent is
        decoded to) and, for video, `spec.chunk_frames`. `save_pretrained` saves the calibration as well, but works only
        for tokenizers of zoo: a file cannot say how to build another module.

    Raises:
        InputError: a module without `encode` and `decode`, latents that lie on no grid, calibration that is empty,
            beyond the public range or constant in a channel, an option out of range.
    """
    batches = iter([calibration] if isinstance(calibration, Tensor) else calibration)
    first = next(batches, None)
    if first is None:
        raise InputError("expected at least one batch of calibration, got none")
    network: Tokenizer | Continuous
    if isinstance(autoencoder, Tokenizer):
        if any(told is not None for told in (modality, input_mean, input_std, sample_rate, causal)):
            raise InputError(
                f"{autoencoder.spec.name} is a tokenizer of zoo, whose spec has modality, input_mean, input_std, "
                "sample_rate and causal already"
            )
        autoencoder.check_decodes()
        network, spec, dim = autoencoder, autoencoder.spec, autoencoder.quantizer.dim
    else:
        network = continuous = Continuous(autoencoder, modality or "image", input_mean, input_std).eval()
        spec, dim = continuous.probe(first, sample_rate, causal or False)
    spec = replace(
        spec,
        name=name or f"{spec.name}-{bits}bit",
        quantizer="dimensionwise",
        codebook_sizes=(2**bits,) * dim,
        residual=False,
        default_codebooks=None,
    )
    new = partial(DiscretizedTokenizer, spec, autoencoder=network, bits=bits, value_range=value_range)
    measured = new().eval().measure(chain([first], batches))
    mean = measured.mean.tolist() if mean is None else mean
    scale = measured.scale() if scale is None else scale
    return new(mean=mean, scale=scale).eval()


class Continuous(nn.Module):
    """A module that is not a tokenizer of zoo, with the part of a tokenizer's interface that is needed here."""

    encode_options: tuple[str, ...] = ()
    decode_options: tuple[str, ...] = ()

    def __init__(self, module: nn.Module, modality: str, input_mean: float | None, input_std: float | None):
        super().__init__()
        methods = (getattr(module, method, None) for method in ("encode", "decode"))
        if (
            not isinstance(module, nn.Module)
            or not all(map(callable, methods))
            or next(module.parameters(), None) is None
        ):
            raise InputError(f"expected a module with encode, decode and parameters, got {type(module).__name__}")
        ranges = {kind.name: kind.network_range for kind in modalities.every() if kind.network_range is not None}
        if modality not in ranges:
            raise InputError(f"expected modality as one of {', '.join(ranges)}, got {modality!r}")
        self.module: Any = module  # with `encode` and `decode`, of whatever signature
        self.modality = modalities.get(modality)
        default_mean, default_std = ranges[modality]
        self.input_mean = default_mean if input_mean is None else input_mean
        self.input_std = default_std if input_std is None else input_std

    def to_latent(self, signal: Tensor) -> Tensor:
        latent = output = self.module.encode(signal)
        for field in ("latent_dist", "latent", "latents"):
            latent = getattr(output, field, latent)
        if not isinstance(latent, Tensor) and hasattr(latent, "mode"):
            latent = latent.mode()
        return self._checked("encode", latent, signal)

    def from_latent(self, latent: Tensor) -> Tensor:
        output = self.module.decode(latent)
        return self._checked("decode", getattr(output, "sample", output), latent)

    def _checked(self, method: str, result: Any, argument: Tensor) -> Tensor:
        if isinstance(result, Tensor) and result.ndim == argument.ndim:
            return result
        found = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        axes = f"[batch, channels and {argument.ndim - 2} axes]"
        raise InputError(f"expected {type(self.module).__name__}.{method} to return a tensor {axes}, got {found}")

    @torch.no_grad()
    def probe(self, signal: Tensor, sample_rate: int | None, causal: bool) -> tuple[TokenizerSpec, int]:
        """Return what a coded batch shows: a spec that lacks only codebooks, and the latent's number of channels."""
        axes = self.modality.axes
        if "sample_rate" in self.modality.options and sample_rate is None:
            raise InputError(f"expected a sample_rate for {self.modality.name}, got none")
        if not isinstance(signal, Tensor) or not signal.is_floating_point() or signal.ndim != 2 + len(axes):
            found = f"{signal.dtype} {list(signal.shape)}" if isinstance(signal, Tensor) else type(signal).__name__
            raise InputError(f"expected floating calibration [batch, channels, {', '.join(axes)}], got {found}")
        parameter = next(self.parameters())
        x = (signal[:1].to(parameter.device, parameter.dtype) - self.input_mean) / self.input_std
        latent = self.to_latent(x)
        grid, size = tuple(latent.shape[2:]), tuple(self.from_latent(latent).shape[2:])
        steps, rests = [], []
        for axis, positions, length in zip(axes, grid, size, strict=True):
            first = 1 if causal and axis == "frames" else 0  # it has a grid step of its own
            steps.append((length - first) // max(positions - first, 1))
            rests.append(length - first - steps[-1] * (positions - first))
        if any(rests) or min(steps) < 1:
            raise InputError(
                f"a latent of {grid} is decoded to {size}, {'causal' if causal else 'not causal'}: no whole number of "
                f"{', '.join(axes)} for each grid position"
            )
        kind = type(self.module)
        return TokenizerSpec(
            name=kind.__name__.lower(),
            modality=self.modality.name,
            quantizer="",
            codebook_sizes=(),
            downsample=tuple(steps),
            channels=signal.shape[1],
            sample_rate=sample_rate,
            chunk_frames=signal.shape[2] if "chunk_frames" in self.modality.window_options else None,
            causal=causal,
            code_license="not stated",
            weights_license="not stated",
            paper=PAPER,
            source=f"{kind.__module__}.{kind.__name__}",
        ), latent.shape[1]


class DiscretizedTokenizer(Tokenizer):
    """An autoencoder with a `DimensionwiseQuantizer` between encoder and decoder; `discretize` makes it.

    Args:
        autoencoder: a tokenizer, another module, or what `saved.configuration` returns for a tokenizer.
        bits, value_range, mean, scale: arguments of the quantizer.
    """

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        autoencoder: Tokenizer | Continuous | Mapping[str, Any],
        bits: int,
        value_range: float,
        mean: float | Sequence[float] = 0.0,
        scale: float | Sequence[float] = 1.0,
    ):
        super().__init__(spec)
        self.autoencoder = saved.build(autoencoder) if isinstance(autoencoder, Mapping) else autoencoder
        self.quantizer = DimensionwiseQuantizer(
            len(spec.codebook_sizes), bits=bits, value_range=value_range, mean=mean, scale=scale
        )
        self.input_mean, self.input_std = self.autoencoder.input_mean, self.autoencoder.input_std
        self.encode_options = self.autoencoder.encode_options
        self.decode_options = self.autoencoder.decode_options

    def to_latent(self, signal: Tensor, **options: Any) -> Tensor:
        return self.autoencoder.to_latent(signal, **options)

    def from_latent(self, latent: Tensor, **options: Any) -> Tensor:
        return self.autoencoder.from_latent(latent, **options)

    def arguments(self) -> dict[str, Any]:
        if isinstance(self.autoencoder, Continuous):
            raise CheckpointError(
                f"{self.spec.name}: a file cannot say how to build its {type(self.autoencoder.module).__name__}, which "
                "is not a tokenizer of zoo; save that module by itself, and call zoo.discretize again with the mean "
                "and scale of this quantizer"
            )
        return {**super().arguments(), "autoencoder": saved.configuration(self.autoencoder)}

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> ChannelStatistics:
        """Return mean and deviation of the latent's channels over signals in the public layout."""
        statistics = ChannelStatistics(self.quantizer.dim)
        for x in batches:
            x = self._check_calibration(x)
            for part in self.modality.windows(x, self.spec.chunk_frames):
                latent = self.to_latent(self._normalize(self._pad(part)))
                expected = (len(part), self.quantizer.dim, *self.spec.grid(self.size_of(part)))
                if latent.shape != expected:
                    raise InputError(f"expected latents as {list(expected)}, got {list(latent.shape)}")
                statistics.update(latent)
        return statistics

    def _check_calibration(self, x: Tensor) -> Tensor:
        x = self._check_signal(x)
        self.modality.check_range(x, "calibration")
        return x

    def _pad(self, x: Tensor) -> Tensor:
        # A module that is not a tokenizer of zoo does not pad for itself.
        return self.modality.pad(x, self.spec) if isinstance(self.autoencoder, Continuous) else super()._pad(x)


class ChannelStatistics:
    """Running mean and deviation of channels, in float64 and constant memory.

    Batches are merged by their means and sums of squared differences, so that no digits cancel (Chan, Golub, LeVeque:
    Updating formulae and a pairwise algorithm for computing sample variances, 1979).
    """

    def __init__(self, dim: int):
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.squares = torch.zeros(dim, dtype=torch.float64)

    def update(self, latent: Tensor) -> None:
        """Add latents `[B, dim, *grid]`; InputError if a value is not finite."""
        if not bool(latent.isfinite().all()):
            raise InputError("calibration has latents that are not finite")
        values = latent.cpu().double().movedim(1, 0).flatten(1)  # [dim, values]
        mean, number = values.mean(dim=1), values.shape[1]
        shift, count = mean - self.mean, self.count + number
        self.squares += (values - mean[:, None]).square().sum(dim=1) + shift.square() * self.count * number / count
        self.mean += shift * number / count
        self.count = count

    def scale(self) -> list[float]:
        """Return the reciprocal of each channel's deviation; InputError where a channel is constant up to rounding."""
        deviation = (self.squares / self.count).sqrt()
        if bool((deviation <= 1e-7 * self.mean.abs()).any()):
            raise InputError("expected calibration that varies in every channel of the latent, got a constant one")
        return (1 / deviation).tolist()
