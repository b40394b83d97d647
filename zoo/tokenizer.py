"""What every tokenizer is: a spec, an encoder, a quantizer, a decoder, and the contract between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import InputError
from zoo.hub import HubMixin
from zoo.quantizers.base import Quantizer

Modality = Literal["image", "audio", "video", "structure"]

# Axes of a signal behind batch and channels; the grid of codes has the same ones.
SIGNAL_AXES = {
    "image": ("height", "width"),
    "audio": ("samples",),
    "video": ("frames", "height", "width"),
}


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """What a variant takes and gives, without its network.

    codebook_sizes: entries of each codebook; one token per codebook and grid position.
    downsample: signal steps per grid step, one per axis: audio `(hop_length,)`, image `(height, width)`,
        video `(frames, height, width)`.
    sample_rate: Hz (audio). resolution: height and width that the published figures are for (image, video).
    causal: whether codes depend on the past alone. variable_size: whether any length or size is taken.
    weights_license: as stated by the authors; "not stated" where they state none.
    """

    name: str
    modality: Modality
    quantizer: str
    codebook_sizes: tuple[int, ...]
    downsample: tuple[int, ...]
    channels: int
    sample_rate: int | None = None
    resolution: tuple[int, int] | None = None
    causal: bool = False
    variable_size: bool = True
    code_license: str
    weights_license: str
    paper: str
    source: str

    @property
    def num_codebooks(self) -> int:
        return len(self.codebook_sizes)

    @property
    def bits_per_position(self) -> float:
        """Bits that all codebooks together spend on one grid position."""
        return sum(math.log2(size) for size in self.codebook_sizes)

    @property
    def hop_length(self) -> int:
        """Samples per frame (audio)."""
        return self.downsample[0]

    @property
    def frame_rate(self) -> float | None:
        """Grid positions per second (audio)."""
        return self.sample_rate / self.hop_length if self.sample_rate else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all codebooks per second (audio)."""
        return self.frame_rate * self.num_codebooks if self.sample_rate else None

    @property
    def bits_per_second(self) -> float | None:
        """Bits of all codebooks per second (audio)."""
        return self.frame_rate * self.bits_per_position if self.sample_rate else None

    def grid(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the codes' grid for a signal of `size` (its axes behind batch and channels)."""
        return tuple(math.ceil(length / step) for length, step in zip(size, self.downsample, strict=True))

    def tokens(self, size: tuple[int, ...]) -> int:
        """Tokens of all codebooks for one signal of `size`."""
        return math.prod(self.grid(size)) * self.num_codebooks

    def bits(self, size: tuple[int, ...]) -> float:
        """Bits for one signal of `size`."""
        return math.prod(self.grid(size)) * self.bits_per_position


class TokenizerOutput(NamedTuple):
    """What `forward` returns.

    reconstruction: as the input, not clamped. codes: int64 `[batch, num_codebooks, *grid]`.
    latent: what the decoder received, `[batch, dim, *grid]`. losses: the quantizer's unweighted terms.
    """

    reconstruction: Tensor
    codes: Tensor
    latent: Tensor
    losses: dict[str, Tensor]


class Tokenizer(HubMixin, nn.Module):
    """Signal to codes and back.

    Public layouts, batch first: images `[B, 3, H, W]` and video `[B, 3, T, H, W]` in [0, 1]; audio
    `[B, channels, samples]`, nominally in [-1, 1], at `spec.sample_rate`.

    A system subclasses this, sets `encoder`, `quantizer` and `decoder`, and overrides `to_latent` and
    `from_latent` where running encoder or decoder takes more than a call. Both work in the network's own
    range, which `input_mean` and `input_std` declare.
    """

    input_mean: float = 0.0
    input_std: float = 1.0
    encode_options: tuple[str, ...] = ()
    decode_options: tuple[str, ...] = ()

    encoder: nn.Module
    quantizer: Quantizer
    decoder: nn.Module

    def __init__(self, spec: TokenizerSpec):
        super().__init__()
        self.spec = spec

    # What a system overrides

    def to_latent(self, signal: Tensor, **options: Any) -> Tensor:
        """Signal in the network's range to what enters the quantizer, `[B, dim, *grid]`."""
        return self.encoder(signal)

    def from_latent(self, latent: Tensor, **options: Any) -> Tensor:
        """`[B, dim, *grid]` to the signal in the network's range, uncropped and unclamped."""
        return self.decoder(latent)

    # The public interface

    @torch.no_grad()
    def encode(
        self, x: Tensor, lengths: Tensor | None = None, *, sample_rate: int | None = None, **options: Any
    ) -> Tensor:
        """Signal to codes.

        Args:
            x: floating point, in the public layout of `spec.modality`. Sides that are no multiple of
                `spec.downsample` are padded by replication (images, video).
            lengths: int `[B]`, valid steps of each item's first axis (samples, frames) in a padded batch.
                Each item gets the codes that it has alone; positions behind `code_lengths(lengths)` are 0.
            sample_rate: Hz of `x`, to have it checked.
            options: those in `encode_options`.

        Returns:
            int64 `[B, num_codebooks, *grid]`, `grid = spec.grid(size of x)`.

        Raises:
            InputError: layout, dtype, channels, sample rate, `lengths`, an unknown option, an empty signal or
                a sample that is not finite.
        """
        self._check_options(options, self.encode_options, "encode")
        x = self._check_signal(x)
        if sample_rate is not None and sample_rate != self.spec.sample_rate:
            raise InputError(
                f"{self.spec.name} takes {self.spec.sample_rate} Hz, got {sample_rate} Hz; "
                "preprocess(audio, sample_rate=...) resamples"
            )
        if lengths is None:
            return self._encode_equal(x, options)
        lengths = self._check_lengths(lengths, x)
        grid = self.spec.grid(tuple(x.shape[2:]))
        codes = torch.zeros(len(x), self.spec.num_codebooks, *grid, dtype=torch.int64, device=x.device)
        for length in lengths.unique().tolist():
            items = (lengths == length).nonzero()[:, 0].to(x.device)
            part = self._encode_equal(x[items, :, :length], options)
            codes[items, :, : part.shape[2]] = part
        return codes

    @torch.no_grad()
    def decode(self, codes: Tensor, size: int | tuple[int, ...] | None = None, **options: Any) -> Tensor:
        """Codes to signal, from the codes alone.

        Args:
            codes: integers `[B, num_codebooks, *grid]`.
            size: what to crop to, the signal's axes behind batch and channels (`samples`, or
                `(height, width)`); None: all that the codes stand for.
            options: those in `decode_options`.

        Returns:
            The signal in its public layout. Images and video are clamped to [0, 1]; audio is not clipped.

        Raises:
            InputError: shape, dtype or range of the codes, a `size` beyond what they stand for, or an
                unknown option.
        """
        self._check_options(options, self.decode_options, "decode")
        latent = self.embed(codes)
        signal = self._denormalize(self.from_latent(latent, **options))
        if self.spec.modality in ("image", "video"):
            signal = signal.clamp(0, 1)
        return self._crop(signal, size)

    def embed(self, codes: Tensor) -> Tensor:
        """What the decoder receives for `codes`: floating `[B, dim, *grid]` in the model's dtype."""
        codes = self._check_codes(codes)
        latent = self.quantizer.codes_to_latent(codes.movedim(1, -1)).movedim(-1, 1)
        return latent.to(self.dtype)

    def forward(self, x: Tensor) -> TokenizerOutput:
        """Reconstruction, codes, latent and the quantizer's losses of `x` (as `encode` takes it)."""
        x = self._check_signal(x)
        z = self.to_latent(self._normalize(self._pad(x)))
        quantized, codes, losses = self.quantizer(z.movedim(1, -1))
        latent = quantized.movedim(-1, 1)
        reconstruction = self._crop(self._denormalize(self.from_latent(latent)), tuple(x.shape[2:]))
        return TokenizerOutput(reconstruction, codes.movedim(-1, 1), latent, losses)

    def reconstruct(self, x: Tensor) -> Tensor:
        """`x` encoded and decoded again, in the size that went in."""
        return self.decode(self.encode(x), size=tuple(x.shape[2:]))

    def code_lengths(self, lengths: Tensor) -> Tensor:
        """Valid positions along the codes' first axis for signals of `lengths`; int64 `[B]`."""
        return -(-lengths // self.spec.downsample[0])

    def preprocess(
        self,
        source: str | Path | Tensor | Any,
        *,
        sample_rate: int | None = None,
        resample: bool = True,
        resolution: int | None = None,
    ) -> Tensor:
        """A file, PIL image, NumPy array or tensor to a batch of one that `encode` takes.

        Args:
            source: path; for images also a PIL image, `[H, W, 3]` array or `[3, H, W]` tensor (uint8, or float
                in [0, 1]); for audio a `[channels, samples]` or `[samples]` array or tensor with `sample_rate`.
            sample_rate: Hz of an audio array or tensor.
            resample: whether audio of another rate is resampled; if not, it is an error.
            resolution: images: the short side is resized to this and the centre cropped square; None: as it is.

        Raises:
            InputError: what is no signal of `spec.modality`, or a rate that is not the model's.
            MediaError: a file that cannot be read.
        """
        from zoo import media

        if self.spec.modality == "audio":
            audio = media.load_audio(
                source, self.spec.sample_rate, self.spec.channels, sample_rate=sample_rate, resample=resample
            )
            return audio[None].to(self.device)
        return media.load_image(source, resolution=resolution)[None].to(self.device)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    # The steps between

    def _encode_equal(self, x: Tensor, options: dict[str, Any]) -> Tensor:
        z = self.to_latent(self._normalize(self._pad(x)), **options)
        return self.quantizer.encode(z.movedim(1, -1)).movedim(-1, 1)

    def _normalize(self, x: Tensor) -> Tensor:
        if self.input_mean == 0.0 and self.input_std == 1.0:
            return x
        return (x - self.input_mean) / self.input_std

    def _denormalize(self, signal: Tensor) -> Tensor:
        if self.input_mean == 0.0 and self.input_std == 1.0:
            return signal
        return signal * self.input_std + self.input_mean

    def _pad(self, x: Tensor) -> Tensor:
        """Height and width up to multiples of `downsample`, by replication; audio networks pad themselves."""
        if self.spec.modality == "audio":
            return x
        height, width = (-length % step for length, step in zip(x.shape[-2:], self.spec.downsample[-2:], strict=True))
        return F.pad(x, (0, width, 0, height), mode="replicate") if height or width else x

    def _crop(self, signal: Tensor, size: int | tuple[int, ...] | None) -> Tensor:
        if size is None:
            return signal
        size = (size,) if isinstance(size, int) else tuple(size)
        given = tuple(signal.shape[2:])
        if len(size) != len(given) or any(not 0 < n <= m for n, m in zip(size, given, strict=True)):
            axes = ", ".join(SIGNAL_AXES[self.spec.modality])
            raise InputError(f"expected size as ({axes}) of at most {given}, got {size}")
        return signal[(..., *(slice(n) for n in size))]

    def _check_signal(self, x: Tensor) -> Tensor:
        axes = SIGNAL_AXES[self.spec.modality]
        layout = f"[batch, {self.spec.channels}, {', '.join(axes)}]"
        if not isinstance(x, Tensor):
            raise InputError(f"expected a tensor {layout}, got {type(x).__name__}; see preprocess()")
        if x.ndim != 2 + len(axes) or x.shape[1] != self.spec.channels:
            hint = "; add a channel axis: audio[:, None]" if len(axes) == 1 and x.ndim == 2 else ""
            raise InputError(f"expected {self.spec.modality} as {layout}, got {list(x.shape)}{hint}")
        if not x.is_floating_point():
            raise InputError(f"expected floating {self.spec.modality}, got {x.dtype}; see preprocess()")
        if x.numel() == 0:
            raise InputError(f"expected {self.spec.modality} as {layout}, got an empty tensor {list(x.shape)}")
        if not bool(x.isfinite().all()):
            raise InputError(f"{self.spec.modality} has values that are not finite (NaN or infinite)")
        return x.to(self.device, self.dtype)

    def _check_lengths(self, lengths: Tensor, x: Tensor) -> Tensor:
        axis = SIGNAL_AXES[self.spec.modality][0]
        if self.spec.modality == "image":
            raise InputError("lengths are for audio, video and structures; images of a batch have one size")
        lengths = torch.as_tensor(lengths)
        if lengths.shape != (len(x),) or lengths.is_floating_point():
            raise InputError(f"expected lengths as int [{len(x)}], got {lengths.dtype} {list(lengths.shape)}")
        if int(lengths.min()) < 1 or int(lengths.max()) > x.shape[2]:
            raise InputError(f"expected lengths between 1 and the batch's {x.shape[2]} {axis}, got {lengths.tolist()}")
        return lengths

    def _check_codes(self, codes: Tensor) -> Tensor:
        layout = f"[batch, {self.spec.num_codebooks}, {', '.join(SIGNAL_AXES[self.spec.modality])}]"
        if not isinstance(codes, Tensor):
            raise InputError(f"expected codes as an integer tensor {layout}, got {type(codes).__name__}")
        if codes.ndim != 2 + len(self.spec.downsample) or codes.shape[1] != self.spec.num_codebooks:
            raise InputError(f"expected codes as {layout} (on the grid), got {list(codes.shape)}")
        if codes.numel() == 0:
            raise InputError(f"expected codes as {layout}, got an empty tensor {list(codes.shape)}")
        return codes.to(self.device)

    def _check_options(self, options: dict[str, Any], accepted: tuple[str, ...], method: str) -> None:
        for option in options:
            if option not in accepted:
                takes = ", ".join(accepted) if accepted else "none"
                raise InputError(f"{self.spec.name}.{method} has no option {option!r}; it takes: {takes}")
