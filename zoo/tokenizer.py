"""What every tokenizer is: a spec, an encoder, a quantizer, a decoder, and the contract between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
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

# Axes that the size of a signal counts: behind batch and channels; of a structure behind the batch, before `[5, 3]`.
SIGNAL_AXES = {
    "image": ("height", "width"),
    "audio": ("samples",),
    "video": ("frames", "height", "width"),
    "structure": ("residues",),
}
ATOMS = ("N", "CA", "C", "CB", "O")  # of a residue, the first five of atom37


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """What a variant takes and gives, without its network.

    codebook_sizes: entries of each codebook; one token per codebook and grid position.
    downsample: signal steps per grid step, one per axis: audio `(hop_length,)`, image `(height, width)`,
        video `(frames, height, width)`, structure `(1,)`; `()` for images whose tokens lie on no grid.
    channels: of audio, images and video; of structures the atoms of a residue, 5.
    sample_rate: Hz (audio). resolution: height and width that the published figures are for (image, video).
    num_tokens: grid positions of an image whatever its size (1D tokenizers). tail_drop: whether the first few of
        them decode as well.
    chunk_frames: frames that are encoded together (video); longer clips are taken in windows of as many.
    causal: whether codes depend on the past alone; in video the first frame then has a grid step of its own.
    variable_size: whether any length or size is taken; if not, `resolution` alone is.
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
    num_tokens: int | None = None
    tail_drop: bool = False
    chunk_frames: int | None = None
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

    @property
    def grid_axes(self) -> tuple[str, ...]:
        """Names of the codes' axes behind batch and codebooks."""
        return ("tokens",) if self.num_tokens is not None else SIGNAL_AXES[self.modality]

    def grid(self, size: tuple[int, ...], chunk_frames: int | None = None) -> tuple[int, ...]:
        """Shape of the codes' grid for a signal of `size`, its axes as in `SIGNAL_AXES`.

        Video: encoded in windows of `chunk_frames`; None: of the spec's.
        """
        if self.num_tokens is not None:
            return (self.num_tokens,)
        first, *others = size
        return self.code_length(first, chunk_frames), *(
            math.ceil(length / step) for length, step in zip(others, self.downsample[1:], strict=True)
        )

    def code_length(self, length: int, chunk_frames: int | None = None) -> int:
        """Grid positions along the first axis for a signal of `length` steps (samples, frames, residues)."""
        chunk = (chunk_frames or self.chunk_frames or length) if self.modality == "video" else length
        windows, rest = divmod(length, chunk)
        return windows * self._window_length(chunk) + (self._window_length(rest) if rest else 0)

    def _window_length(self, length: int) -> int:
        step = self.downsample[0]
        if self.modality == "video" and self.causal:
            return 1 + math.ceil((length - 1) / step)
        return math.ceil(length / step)

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
    `[B, channels, samples]`, nominally in [-1, 1], at `spec.sample_rate`; structures `[B, residues, 5, 3]`, the
    atoms N, CA, C, CB and O in angstrom, NaN where one is absent.

    A system subclasses this, sets `encoder`, `quantizer` and `decoder`, and overrides `to_latent` and
    `from_latent` where running encoder or decoder takes more than a call. Both work in the network's own
    range, which `input_mean` and `input_std` declare. A structure goes in and out as it is, in float32, so that
    `from_latent` gives `[B, residues, 5, 3]`.
    `encode_only` says, in a system without a decoder, why it has none. `interpolation` is the authors', for images that
    `preprocess` resizes. `small` are arguments that make the network small, to try it out:
    `zoo.create(name, small=True)`.
    """

    input_mean: float = 0.0
    input_std: float = 1.0
    encode_options: tuple[str, ...] = ()
    decode_options: tuple[str, ...] = ()
    encode_only: str | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    small: Mapping[str, Any] = {}

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
                `spec.downsample` are padded by replication (images, video), a window's frames behind its last.
            lengths: int `[B]`, valid steps of each item's first axis (samples, frames, residues) in a padded
                batch. Each item gets the codes that it has alone; positions behind `code_lengths(lengths)` are 0.
            sample_rate: Hz of `x`, to have it checked.
            options: those in `encode_options`; for video `chunk_frames`, the length of the windows that clips
                are encoded in, one after the other.

        Returns:
            int64 `[B, num_codebooks, *grid]`, `grid = spec.grid(size of x)`.

        Raises:
            InputError: layout, dtype, channels, sample rate, `lengths`, an unknown option, an empty signal or
                a sample that is not finite (NaN in a structure is an absent atom).
        """
        chunk_frames = self._take_options(options, self.encode_options, "encode")
        x = self._check_signal(x)
        if sample_rate is not None and sample_rate != self.spec.sample_rate:
            raise InputError(
                f"{self.spec.name} takes {self.spec.sample_rate} Hz, got {sample_rate} Hz; "
                "preprocess(audio, sample_rate=...) resamples"
            )
        if lengths is None:
            return self._encode_equal(x, chunk_frames, options)
        lengths = self._check_lengths(lengths, x)
        grid = self.spec.grid(self.size_of(x), chunk_frames)
        codes = torch.zeros(len(x), self.spec.num_codebooks, *grid, dtype=torch.int64, device=x.device)
        for length in lengths.unique().tolist():
            items = (lengths == length).nonzero()[:, 0].to(x.device)
            part = self._encode_equal(x[items].narrow(self._axis, 0, length), chunk_frames, options)
            codes[items, :, : part.shape[2]] = part
        return codes

    @torch.no_grad()
    def decode(self, codes: Tensor, size: int | tuple[int, ...] | None = None, **options: Any) -> Tensor:
        """Codes to signal, from the codes alone.

        Args:
            codes: integers `[B, num_codebooks, *grid]`.
            size: what to crop to: `samples`, `(height, width)`, `(frames, height, width)` or `residues`;
                None: all that the codes stand for.
            options: those in `decode_options`; for video `chunk_frames`, as it was when the clip was encoded.

        Returns:
            The signal in its public layout. Images and video are clamped to [0, 1]; audio is not clipped.

        Raises:
            InputError: shape, dtype or range of the codes, a `size` beyond what they stand for, an unknown
                option, or a system that only encodes.
        """
        self.check_decodes()
        chunk_frames = self._take_options(options, self.decode_options, "decode")
        latent = self.embed(codes)
        if self.spec.modality == "video":
            windows = latent.split(self.spec.code_length(chunk_frames, chunk_frames), dim=2)
            parts = (self._denormalize(self.from_latent(window, **options)) for window in windows)
            signal = torch.cat([part[:, :, :chunk_frames] for part in parts], dim=2)
        else:
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
        """Reconstruction, codes, latent and the quantizer's losses of `x` as in `encode`, video in one window."""
        self.check_decodes()
        x = self._check_signal(x)
        z = self.to_latent(self._normalize(self._pad(x)))
        quantized, codes, losses = self.quantizer(z.movedim(1, -1))
        latent = quantized.movedim(-1, 1)
        reconstruction = self._crop(self._denormalize(self.from_latent(latent)), self.size_of(x))
        return TokenizerOutput(reconstruction, codes.movedim(-1, 1), latent, losses)

    def reconstruct(self, x: Tensor) -> Tensor:
        """`x` encoded and decoded again, in the size that went in."""
        return self.decode(self.encode(x), size=self.size_of(x))

    def size_of(self, x: Tensor) -> tuple[int, ...]:
        """The axes of a signal that `decode(size=)` and `spec.grid` count."""
        return tuple(x.shape[self._axis :][: len(SIGNAL_AXES[self.spec.modality])])

    def code_lengths(self, lengths: Tensor) -> Tensor:
        """Valid positions along the codes' first axis for signals of `lengths`; int64 `[B]`."""
        return torch.as_tensor([self.spec.code_length(length) for length in torch.as_tensor(lengths).tolist()])

    def preprocess(
        self,
        source: str | Path | Tensor | Any,
        *,
        sample_rate: int | None = None,
        resample: bool = True,
        resolution: int | None = None,
        chain: str | None = None,
    ) -> Tensor:
        """A file, PIL image, NumPy array or tensor to a batch of one that `encode` takes.

        Args:
            source: path; for images also a PIL image, `[H, W, 3]` array or `[3, H, W]` tensor (uint8, or float
                in [0, 1]); for audio a `[channels, samples]` or `[samples]` array or tensor with `sample_rate`.
                A video file is read whole; `zoo.media.read_video` gives it window by window.
            sample_rate: Hz of an audio array or tensor.
            resample: whether audio of another rate is resampled; if not, it is an error.
            resolution: images: the short side is resized to this and the centre cropped square; None: as it is,
                or to `spec.resolution` where the network takes no other.
            chain: id of the chain to take from a structure file; None: the only one.

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
        if self.spec.modality == "structure":
            return media.read_structure(source, chain=chain).coordinates[None].to(self.device)
        if self.spec.modality == "video":
            return media.load_video(source)[None].to(self.device)
        if resolution is None and not self.spec.variable_size:
            resolution = self.spec.resolution[0]
        image = media.load_image(source, resolution=resolution, interpolation=self.interpolation)
        return image[None].to(self.device)

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

    @property
    def _axis(self) -> int:
        """Where a signal's first axis is that its size counts."""
        return 1 if self.spec.modality == "structure" else 2

    def _encode_equal(self, x: Tensor, chunk_frames: int | None, options: dict[str, Any]) -> Tensor:
        codes = []
        for part in x.split(chunk_frames, dim=2) if self.spec.modality == "video" else [x]:
            z = self.to_latent(self._normalize(self._pad(part)), **options)
            codes.append(self.quantizer.encode(z.movedim(1, -1)).movedim(-1, 1))
        return torch.cat(codes, dim=2)

    def _normalize(self, x: Tensor) -> Tensor:
        if self.input_mean == 0.0 and self.input_std == 1.0:
            return x
        return (x - self.input_mean) / self.input_std

    def _denormalize(self, signal: Tensor) -> Tensor:
        if self.input_mean == 0.0 and self.input_std == 1.0:
            return signal
        return signal * self.input_std + self.input_mean

    def _pad(self, x: Tensor) -> Tensor:
        """Sides up to what the grid counts, by replication; audio networks pad themselves."""
        if self.spec.modality in ("audio", "structure") or not self.spec.variable_size:
            return x
        pads = [0, *(-length % step for length, step in zip(x.shape[-2:], self.spec.downsample[-2:], strict=True))]
        if self.spec.modality == "video":
            first = 1 if self.spec.causal else 0
            pads[0] = (first - x.shape[2]) % self.spec.downsample[0]
        else:
            pads = pads[1:]
        return F.pad(x, [n for pad in reversed(pads) for n in (0, pad)], mode="replicate") if any(pads) else x

    def _crop(self, signal: Tensor, size: int | tuple[int, ...] | None) -> Tensor:
        if size is None:
            return signal
        size = (size,) if isinstance(size, int) else tuple(size)
        given = self.size_of(signal)
        if len(size) != len(given) or any(not 0 < n <= m for n, m in zip(size, given, strict=True)):
            axes = ", ".join(SIGNAL_AXES[self.spec.modality])
            raise InputError(f"expected size as ({axes}) of at most {given}, got {size}")
        return signal[(..., *(slice(n) for n in size), *(slice(None) for _ in signal.shape[self._axis + len(size) :]))]

    def check_decodes(self) -> None:
        """InputError in a system that only encodes, with the reason."""
        if self.encode_only is not None:
            raise InputError(f"{self.spec.name} cannot decode: {self.encode_only}")

    def _check_signal(self, x: Tensor) -> Tensor:
        modality, axes = self.spec.modality, ", ".join(SIGNAL_AXES[self.spec.modality])
        structure = modality == "structure"
        layout = f"[batch, {axes}, {len(ATOMS)}, 3]" if structure else f"[batch, {self.spec.channels}, {axes}]"
        if not isinstance(x, Tensor):
            raise InputError(f"expected a tensor {layout}, got {type(x).__name__}; see preprocess()")
        fits = x.ndim == layout.count(",") + 1
        if not fits or (x.shape[2:] != (len(ATOMS), 3) if structure else x.shape[1] != self.spec.channels):
            hint = "; add a channel axis: audio[:, None]" if modality == "audio" and x.ndim == 2 else ""
            raise InputError(f"expected {modality} as {layout}, got {list(x.shape)}{hint}")
        if not x.is_floating_point():
            raise InputError(f"expected floating {modality}, got {x.dtype}; see preprocess()")
        if x.numel() == 0:
            raise InputError(f"expected {modality} as {layout}, got an empty tensor {list(x.shape)}")
        if structure:
            return self._check_atoms(x)
        if not bool(x.isfinite().all()):
            raise InputError(f"{modality} has values that are not finite (NaN or infinite)")
        if not self.spec.variable_size and x.shape[-2:] != self.spec.resolution:
            wanted, got = ("x".join(map(str, size)) for size in (self.spec.resolution, x.shape[-2:]))
            raise InputError(f"{self.spec.name} takes {modality} of {wanted}, got {got}; see preprocess()")
        return x.to(self.device, self.dtype)

    def _check_atoms(self, x: Tensor) -> Tensor:
        present = ~x.isnan()
        if bool(x.isinf().any()) or bool((present.any(dim=-1) != present.all(dim=-1)).any()):
            raise InputError("structure has coordinates that are not finite; an absent atom is NaN in all three")
        if not bool(present.flatten(1).any(dim=1).all()):
            raise InputError("structure has an item without a single atom")
        return x.to(self.device, torch.float32)

    def _check_lengths(self, lengths: Tensor, x: Tensor) -> Tensor:
        axis = SIGNAL_AXES[self.spec.modality][0]
        if self.spec.modality == "image":
            raise InputError("lengths are for audio, video and structures; images of a batch have one size")
        lengths = torch.as_tensor(lengths)
        if lengths.shape != (len(x),) or lengths.is_floating_point():
            raise InputError(f"expected lengths as int [{len(x)}], got {lengths.dtype} {list(lengths.shape)}")
        if int(lengths.min()) < 1 or int(lengths.max()) > x.shape[self._axis]:
            raise InputError(
                f"expected lengths between 1 and the batch's {x.shape[self._axis]} {axis}, got {lengths.tolist()}"
            )
        return lengths

    def _check_codes(self, codes: Tensor) -> Tensor:
        layout = f"[batch, {self.spec.num_codebooks}, {', '.join(self.spec.grid_axes)}]"
        if not isinstance(codes, Tensor):
            raise InputError(f"expected codes as an integer tensor {layout}, got {type(codes).__name__}")
        if codes.ndim != 2 + len(self.spec.grid_axes) or codes.shape[1] != self.spec.num_codebooks:
            raise InputError(f"expected codes as {layout} (on the grid), got {list(codes.shape)}")
        if codes.numel() == 0:
            raise InputError(f"expected codes as {layout}, got an empty tensor {list(codes.shape)}")
        if not self.spec.variable_size:
            self._check_fixed_grid(tuple(codes.shape[2:]))
        return codes.to(self.device)

    def _check_fixed_grid(self, grid: tuple[int, ...]) -> None:
        whole = self.spec.grid(self.spec.resolution)
        if grid != whole and not (self.spec.tail_drop and grid[0] <= whole[0]):
            takes = f"1 to {whole[0]}" if self.spec.tail_drop else " x ".join(map(str, whole))
            raise InputError(f"{self.spec.name} takes {takes} codes an image, got {' x '.join(map(str, grid))}")

    def _take_options(self, options: dict[str, Any], accepted: tuple[str, ...], method: str) -> int | None:
        """Checks the options, and takes `chunk_frames` out of those for video; None elsewhere."""
        if self.spec.modality == "video":
            accepted = (*accepted, "chunk_frames")
        for option in options:
            if option not in accepted:
                takes = ", ".join(accepted) if accepted else "none"
                raise InputError(f"{self.spec.name}.{method} has no option {option!r}; it takes: {takes}")
        if self.spec.modality != "video":
            return None
        chunk_frames = options.pop("chunk_frames", self.spec.chunk_frames)
        if not isinstance(chunk_frames, int) or chunk_frames < 1:
            raise InputError(f"expected chunk_frames of at least 1, got {chunk_frames}")
        return chunk_frames
