"""The base class of all tokenizers: a spec, an encoder, a quantizer, a decoder, and the contract between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from zoo import modalities, registry
from zoo.codes.checks import check_layout
from zoo.errors import InputError, shown
from zoo.hub import HubMixin
from zoo.layers.onednn import Quick
from zoo.memory import in_groups
from zoo.modalities import Batch, Modality
from zoo.modalities.base import as_lengths
from zoo.parts import Part
from zoo.quantizers.base import Quantizer, ResidualQuantizer, ScalesQuantizer
from zoo.spec import PartialCodes, Scales, TokenizerOutput, TokenizerSpec, partial_scales
from zoo.streaming import Stream
from zoo.tracing import values_are_readable

if TYPE_CHECKING:
    from zoo.modalities.image import Interpolation

PREPROCESS_OPTIONS = ("resolution", "crop", "sample_rate", "resample", "start", "seconds", "chain")


class Tokenizer(Quick, HubMixin):
    """Base class of tokenizers, which turn a signal into codes and back.

    Public layouts, batch first: images `[B, 3, H, W]` and video `[B, 3, T, H, W]` in [0, 1]; audio
    `[B, channels, samples]`, nominally in [-1, 1], at `spec.sample_rate`; structures `[B, residues, 5, 3]`, the
    atoms N, CA, C, CB and O in angstrom, NaN where one is absent.

    A system subclasses this, sets `encoder`, `quantizer` and `decoder`, and overrides `to_latent` and
    `from_latent` where running encoder or decoder takes more than a call. Both work in the network's own
    range, which `input_mean` and `input_std` declare. A structure is passed as it is, in float32, so that
    `from_latent` returns `[B, residues, 5, 3]`.
    A tokenizer can be pickled and copied. `torch.compile(tokenizer.encode, fullgraph=True)` compiles `encode` without
    `lengths`, and so `decode`; in a compiled or exported graph values are not checked, and a signal is not cut into
    chunks. `zoo.graphs` has both as modules, for `torch.export`, and writes ONNX files.

    In a system without a decoder, `encode_only` says why it has none. Where each signal has a codebook of its own,
    `own_codebook` says how to get it; code files and graphs have no place for it. `cannot_stream` says why a system has
    no `stream`; where it is None, the system has an option `memory` of `encode` and `decode`. `stream_options` are
    options of `encode` that a stream has in place of their defaults. `interpolation` is the interpolation with which
    the authors resize images, for `preprocess`, and `margin` the factor by which they make the short side longer than
    the square that they cut out; `stretches` says that they resize both sides to `spec.resolution` instead, whatever
    their ratio. Where they choose the sides in another way and cut nothing off, `target_size` is a function of an
    image's height and width and the `resolution` that returns the height and width to resize to. `small` holds
    arguments that make the network small and quick to try: `zoo.create(name, small=True)`. `decoder_losses` names what
    `forward` returns in training beside the quantizer's losses. `parts` are those that are compared with the authors'
    outputs by themselves, by name. In a semantic system, whose codes also stand for the features of a teacher,
    `teacher_features` says which those are and where they lie, for `features`, and `to_features` returns them.
    """

    input_mean: float = 0.0
    input_std: float = 1.0
    encode_options: tuple[str, ...] = ()
    decode_options: tuple[str, ...] = ()
    encode_only: str | None = None
    own_codebook: str | None = None
    cannot_stream: str | None = "a code also depends on what comes after it in the signal"
    stream_options: ClassVar[Mapping[str, Any]] = {}
    interpolation: Interpolation = "bilinear"
    margin: float = 1.0
    stretches: bool = False
    target_size: Callable[[int, int, int], tuple[int, int]] | None = None
    small: ClassVar[Mapping[str, Any]] = {}
    decoder_losses: tuple[str, ...] = ()
    parts: ClassVar[Mapping[str, Part]] = {}
    teacher_features: str | None = None

    encoder: nn.Module
    quantizer: Quantizer
    decoder: nn.Module

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        registry.register_architecture(cls)

    def __init__(self, spec: TokenizerSpec):
        super().__init__()
        self.spec = spec
        modalities.get(spec.modality)  # here, so that nothing is imported while `encode` and `decode` are traced

    # What a system overrides; `*args` stands in both for options that a subclass names

    def to_latent(self, signal: Tensor, *args: Any, **options: Any) -> Tensor:
        """Return what the quantizer receives, `[B, dim, *grid]`, for a signal in the network's range."""
        return self.encoder(signal)

    def from_latent(self, latent: Tensor, *args: Any, **options: Any) -> Tensor:
        """Return the signal in the network's range, neither cropped nor clamped, for a latent `[B, dim, *grid]`."""
        return self.decoder(latent)

    def to_features(self, latent: Tensor) -> Tensor:
        """Return the teacher's features, `[B, *positions, width]`, for a latent `[B, dim, *grid]`."""
        raise NotImplementedError

    # The public interface

    @property
    def modality(self) -> Modality:
        """The modality's object: everything about the tokenizer's kind of signal."""
        return modalities.get(self.spec.modality)

    @torch.no_grad()
    def encode(
        self, x: Tensor, lengths: Tensor | None = None, *, sample_rate: int | None = None, **options: Any
    ) -> Tensor:
        """Encode a signal to codes.

        Args:
            x: floating point, in the public layout of `spec.modality`. Sides that are not a multiple of
                `spec.downsample` are padded by replication (images, video), the frames of a window after its last.
            lengths: int `[B]`, valid steps of each item's first axis (samples, frames, residues) in a padded
                batch. Each item gets the codes that it has alone; positions after `code_lengths(lengths)` are 0.
            sample_rate: sample rate of `x` in Hz, which is then checked (audio).
            options: those in `encode_options`; for video also `chunk_frames`, the length of the windows in which a
                clip is encoded; where the first few codes decode alone, also how many are wanted: `num_codebooks` if
                the spec has `residual`, `num_tokens` if it has `tail_drop`, `num_scales` if it has `scales`.

        Returns:
            int64 `[B, num_codebooks, *grid]`, `grid = spec.grid(size of x)`; of residual codebooks as many as
            `num_codebooks=` says, by default `spec.default_codebooks`.

        Raises:
            InputError: layout, dtype, channels, sample rate, `lengths`, an unknown option, an empty signal or
                a sample that is not finite (NaN in a structure is an absent atom); or a signal so large that the
                network needs more memory for it than is free.
        """
        window = self._take_options(options, self.encode_options, "encode")
        x = self._check_signal(x)
        self._check_rate(sample_rate)
        number = self._take_number(options, self.spec.partial_of(self.size_of(x)))
        if lengths is None:
            return self._encode_equal(x, window, number, options)
        lengths = self.modality.check_lengths(lengths, x)
        grid = self.spec.grid(self.size_of(x), window)
        rows = self.spec.num_codebooks if number is None or self.spec.tail_drop else number
        codes = torch.zeros(len(x), rows, *grid, dtype=torch.int64, device=x.device)
        for length in lengths.unique().tolist():
            items = (lengths == length).nonzero()[:, 0].to(x.device)
            part = self._encode_equal(x[items].narrow(self.modality.axis, 0, length), window, number, options)
            codes[items, :, : part.shape[2]] = part
        return codes

    @torch.no_grad()
    def decode(self, codes: Tensor, size: int | tuple[int, ...] | None = None, **options: Any) -> Tensor:
        """Decode codes to a signal, from the codes alone.

        Args:
            codes: integers `[B, num_codebooks, *grid]`; of residual codebooks the first few are enough, and of scales,
                and of tokens in the order of their importance (`tail_drop`).
            size: size to crop to: `samples`, `(height, width)`, `(frames, height, width)` or `residues`;
                None: everything that the codes stand for. If the spec has `other_scales`, also which scales the codes
                are of.
            options: those in `decode_options`; for video also `chunk_frames`, as it was when the clip was encoded;
                `num_codebooks`, `num_tokens` or `num_scales`, as in `encode`: how many of the given codes are used.

        Returns:
            The signal in its public layout, of several `spec.tracks` their mix. Images and video are clamped to [0, 1];
            audio is not clipped.

        Raises:
            InputError: shape, dtype or range of the codes, a `size` beyond what they stand for, an unknown
                option, a system that only encodes, or a decoded signal that is not finite, or far beyond any real one.
        """
        self.check_decodes()
        window = self._take_options(options, self.decode_options, "decode")

        def signal_of(part: Tensor) -> Tensor:
            return self._denormalize(self.from_latent(part, **options))

        latent = self.embed(self._first_codes(codes, options, size), size)
        windows = (latent,) if window is None else latent.split(self.spec.code_length(window, window), dim=2)
        scale = self.spec.channels * math.prod(self.spec.downsample)
        what = None if "chunk_seconds" in self.decode_options else f"{self.spec.name}: decoding codes of"
        parts = [part[:, :, :window] for part in in_groups(signal_of, windows, scale, options, what)]
        signal = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        absent = signal.isnan() if options.get("mask") is not None else False  # what a mask leaves out is NaN
        largest = self.modality.largest_decoded
        if values_are_readable(signal) and not bool(((signal.abs() < largest) | absent).all()):
            what = f"values that are not finite or beyond any {self.spec.modality}"
            raise InputError(f"{self.spec.name} decodes to {what}: too large for {self.dtype}, or of damaged weights")
        return self.modality.crop(self.modality.finish(signal), size)

    def embed(self, codes: Tensor, size: int | tuple[int, ...] | None = None) -> Tensor:
        """Return the latent that the decoder receives for `codes`: `[B, dim, *grid]` in the model's data type.

        The grid is that of the codes, or of the finest scale (`spec.scales`) even where only the first are given.

        Args:
            codes: as in `decode`.
            size: as in `decode`, for codes that may be of several sizes (`spec.other_scales`).
        """
        codes = self._check_codes(codes)
        rows = codes.movedim(1, -1)
        if isinstance(self.quantizer, ScalesQuantizer):
            latent = self.quantizer.codes_to_latent(rows, self._scales(codes, size)[-1])
        else:
            latent = self.quantizer.codes_to_latent(rows)
        return latent.movedim(-1, 1).to(self.dtype)

    @torch.no_grad()
    def features(self, codes: Tensor, **options: Any) -> Tensor:
        """Return the features of the teacher that codes stand for, from the codes alone (semantic systems).

        Args:
            codes: as in `decode`.
            options: how many of the given codes are used, as in `decode`.

        Returns:
            `[B, *positions, width]` in the model's data type: one vector for each position that the teacher describes,
            or `[B, width]` where it describes the whole signal. `teacher_features` says which.

        Raises:
            InputError: a system without such features, an option that it lacks, or codes as in `decode`.
        """
        if self.teacher_features is None:
            raise InputError(
                f"{self.spec.name} has no features of a teacher; embed(codes) is what its decoder receives"
            )
        self._check_names(options, (), "features")
        return self.to_features(self.embed(self._first_codes(codes, options)))

    def forward(self, x: Tensor) -> TokenizerOutput:
        """Return reconstruction, codes, latent and the quantizer's losses for `x`; a video is one window."""
        self.check_decodes()
        x = self._check_signal(x)
        z = self.to_latent(self._normalize(self._pad(x)))
        quantized, codes, losses = self.quantizer(z.movedim(1, -1))
        latent = quantized.movedim(-1, 1)
        reconstruction = self.modality.crop(self._denormalize(self.from_latent(latent)), self.size_of(x))
        return TokenizerOutput(reconstruction, codes.movedim(-1, 1), latent, losses)

    def quantize(self, latent: Tensor, num_codebooks: int | None = None, num_scales: int | None = None) -> Tensor:
        """Return the codes of a latent as `to_latent` returns it.

        Args:
            latent: `[B, dim, *grid]`.
            num_codebooks: number of residual codebooks, the first ones; None: all.
            num_scales: number of scales of a pyramid, the first ones; None: all.

        Returns:
            int64 `[B, num_codebooks, *grid]`, or `[B, num_codebooks, positions]` of scales.
        """
        z = latent.movedim(1, -1)
        if isinstance(self.quantizer, ScalesQuantizer):
            codes = self.quantizer.encode(z, num_scales)
        elif isinstance(self.quantizer, ResidualQuantizer):
            codes = self.quantizer.encode(z, num_codebooks)
        else:
            codes = self.quantizer.encode(z)[..., :num_codebooks]
        return codes.movedim(-1, 1)

    def reconstruct(self, x: Tensor, **options: Any) -> Tensor:
        """Return `x` encoded and decoded again, in its own size, as `restore` does; `options` are those of `encode`."""
        return self.restore(self.encode(x, **options), x)

    def restore(self, codes: Tensor, like: Tensor, **options: Any) -> Tensor:
        """Decode the codes of the signal `like` in its size; residues that are absent from a structure stay absent.

        Args:
            codes: as `encode` returns them.
            like: the signal that was encoded.
            options: those of `decode`.

        Raises:
            InputError: as `decode`.
        """
        return self.modality.like(self.decode(codes, size=self.size_of(like), **options), like.to(self.device))

    def stream(self, **options: Any) -> Stream:
        """Return a stream, which takes a signal in parts of any length and returns codes as soon as they are certain.

        Args:
            options: those of `encode`, for all parts, with the defaults of `encode` except for `stream_options`.

        Raises:
            InputError: a system that is not causal, with what can be done instead; an unknown option.
        """
        options = {**self.stream_options, **options}
        self.check_streams(options)
        return Stream(self, options)

    def check_streams(self, options: Mapping[str, Any]) -> None:
        """Raise InputError, with the reason, unless the system can stream with these options of `encode`."""
        if self.cannot_stream is not None:
            raise InputError(f"{self.spec.name} cannot stream: {self.cannot_stream}")
        self._check_names(options, tuple(name for name in self.encode_options if name != "memory"), "stream")
        self._take_number(dict(options), self.spec.partial)

    def size_of(self, x: Tensor) -> tuple[int, ...]:
        """Return the size of a signal as `decode(size=)` and `spec.grid` take it."""
        return self.modality.size_of(x)

    def code_lengths(self, lengths: Tensor) -> Tensor:
        """Return the valid positions along the codes' first axis for signals of `lengths`; int64 `[B]`.

        Raises:
            InputError: `lengths` that are not integers of at least 1.
        """
        return torch.as_tensor([self.spec.code_length(length) for length in as_lengths(lengths).tolist()])

    def preprocess(
        self,
        source: Any,
        *,
        resolution: int | None = None,
        crop: int | None = None,
        sample_rate: int | None = None,
        resample: bool | None = None,
        start: float | None = None,
        seconds: float | None = None,
        chain: str | None = None,
    ) -> Tensor | Batch:
        """Load a file or a signal in memory, or several of them, as a batch that `encode` takes.

        Args:
            source: a path, bytes or a binary file object; a PIL image; an array or tensor: image `[H, W, 3]` or
                tensor `[3, H, W]` (uint8, or float in [0, 1]), audio `[channels, samples]` or `[samples]` with its
                `sample_rate`, video `[T, H, W, 3]` or tensor `[3, T, H, W]`, structure `[residues, 5, 3]`. A list of
                any of these makes one batch. A video is read whole; `modality.stream` reads it window by window.
            resolution: images and video: the short side is resized to this and the centre cropped square; None: as
                it is, or to `spec.resolution` where the network takes no other.
            crop: images and video: side of the centre square that is kept; None: `resolution`; 0: the whole image.
            sample_rate: sample rate of an audio array or tensor in Hz.
            resample: whether audio of another rate is resampled (the default); if not, it is an error.
            start: audio and video: seconds that are left out before the part that is taken; None: none.
            seconds: audio and video: length that is taken; None: all.
            chain: id of the chain to take from a structure file; None: the only one.

        Returns:
            A batch of one, floating point in the public layout. For a list, `Batch(signal, lengths)`, which
            `encode(*batch)` takes; `lengths` is None if all lengths are equal.

        Raises:
            InputError: a source that is not a signal of `spec.modality`, an option of another modality, a rate that is
                not the model's, or images of different sizes in a list.
            MediaError: a file that cannot be read.
        """
        given = {"resolution": resolution, "crop": crop, "sample_rate": sample_rate, "resample": resample}
        options = self.file_options(**given, start=start, seconds=seconds, chain=chain)
        sources = source if isinstance(source, list | tuple) else [source]
        signals = [self.modality.load(item, self.spec, **options).values for item in sources]
        if not isinstance(source, list | tuple):
            return signals[0][None].to(self.device)
        batch = self.modality.join(signals)
        return Batch(batch.signal.to(self.device), batch.lengths)

    def file_options(self, **given: Any) -> dict[str, Any]:
        """Return the options of `preprocess` that are not None, as `modality.load` and `modality.stream` take them.

        Raises:
            InputError: one that does not apply to the tokenizer's modality.
        """
        options = {name: value for name, value in given.items() if value is not None}
        for name in options:
            if name not in self.modality.options:
                takes = ", ".join(option for option in self.modality.options if option in PREPROCESS_OPTIONS)
                raise InputError(
                    f"{self.spec.name} takes {self.modality.noun[1]}: preprocessing has no option {name!r}; "
                    f"it takes: {takes}"
                )
        own: dict[str, Any] = {"interpolation": self.interpolation, "margin": self.margin, "stretch": self.stretches}
        own["target_size"] = self.target_size
        options |= {key: value for key, value in own.items() if key in self.modality.options and value is not None}
        return options

    def partial_options(self, **given: int | None) -> dict[str, int]:
        """Return `num_codebooks`, `num_tokens` or `num_scales` as an option of `encode` if it is not the default.

        Raises:
            InputError: one that does not apply to the tokenizer, or is out of range.
        """
        options = {name: number for name, number in given.items() if number is not None}
        self._check_names(options, self.encode_options, "encode")
        partial = self.spec.partial
        return {
            name: number for name, number in options.items() if partial and partial.check(number) != partial.default
        }

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

    def _encode_equal(self, x: Tensor, window: int | None, number: int | None, options: dict[str, Any]) -> Tensor:
        def codes_of(part: Tensor) -> Tensor:
            z = self.to_latent(self._normalize(self._pad(part)), **options)
            if self.spec.tail_drop:
                z = z[:, :, :number]
            return self.quantize(z, number if self.spec.residual else None, number if self.spec.scales else None)

        windows = self.modality.windows(x, window)
        # `chunk_seconds` bounds what is computed at once.
        what = None if "chunk_seconds" in self.encode_options else f"{self.spec.name}: encoding"
        return torch.cat(in_groups(codes_of, windows, self.spec.channels, options, what), dim=2)

    def _take_number(self, options: dict[str, Any], partial: PartialCodes | None) -> int | None:
        """Remove from the options how many of the first codes are wanted, and return it; None: all are needed."""
        if partial is None:
            return None
        number = options.pop(partial.option, None)
        return partial.default if number is None else partial.check(number)

    def _first_codes(self, codes: Tensor, options: dict[str, Any], size: int | tuple[int, ...] | None = None) -> Tensor:
        """Remove from the options how many of the given codes are used, and return those."""
        partial = self.spec.partial
        number = None if partial is None else options.pop(partial.option, None)
        if partial is None or number is None:
            return codes
        codes = self._check_codes(codes)
        if self.spec.scales:
            partial = partial_scales(self._scales(codes, size))
        return partial.first(codes, number)

    def _scales(self, codes: Tensor, size: int | tuple[int, ...] | None) -> Scales:
        """Return the scales that codes have, or are the first of."""
        return self.spec.scales_of_codes(codes.shape[2], tuple(size) if isinstance(size, list | tuple) else None)

    def _normalize(self, x: Tensor) -> Tensor:
        if self.input_mean == 0.0 and self.input_std == 1.0:
            return x
        return (x - self.input_mean) / self.input_std

    def _denormalize(self, signal: Tensor) -> Tensor:
        if self.input_mean == 0.0 and self.input_std == 1.0:
            return signal
        return signal * self.input_std + self.input_mean

    def _pad(self, x: Tensor) -> Tensor:
        """Pad sides to multiples of the grid's steps, unless networks of the modality do so themselves."""
        return x if self.modality.networks_pad or not self.spec.variable_size else self.modality.pad(x, self.spec)

    def check_decodes(self) -> None:
        """Raise InputError, with the reason, if the system only encodes."""
        if self.encode_only is not None:
            raise InputError(f"{self.spec.name} cannot decode: {self.encode_only}")

    def check_stands_alone(self) -> None:
        """Raise InputError, with what to do, if codes mean nothing without a codebook of their signal's own."""
        if self.own_codebook is not None:
            raise InputError(f"{self.spec.name}: codes alone mean nothing: {self.own_codebook}")

    def _check_signal(self, x: Tensor) -> Tensor:
        self.modality.check(x, self.spec)
        if x.is_meta and self.device.type != "meta":
            raise InputError(f"expected {self.spec.modality} with values, got a meta tensor")
        return x.to(self.device, torch.float32 if self.modality.keeps_float32 else self.dtype)

    def _check_rate(self, sample_rate: int | None) -> None:
        if sample_rate is None:
            return
        if "sample_rate" not in self.modality.options:
            raise InputError(f"{self.spec.name} takes {self.modality.noun[1]}, which have no sample_rate")
        if not isinstance(sample_rate, Real) or sample_rate != self.spec.sample_rate:
            raise InputError(
                f"{self.spec.name} takes {self.spec.sample_rate} Hz, got {shown(sample_rate)} Hz; "
                "preprocess(audio, sample_rate=...) resamples"
            )

    def _check_codes(self, codes: Tensor) -> Tensor:
        check_layout(codes, self.spec)
        if codes.is_meta and self.device.type != "meta":
            raise InputError("expected codes with values, got a meta tensor")
        return codes.to(self.device)

    def _take_options(self, options: dict[str, Any], accepted: tuple[str, ...], method: str) -> int | None:
        """Check the options, and remove from them the length of the windows that a signal is encoded in."""
        self._check_names(options, accepted, method)
        if not isinstance(options.get("memory"), dict | None):
            raise InputError(f"memory is the state that stream() keeps, got {shown(options['memory'])}")
        return self.modality.window(self.spec, options)

    def _check_names(self, names: Iterable[str], accepted: tuple[str, ...], method: str) -> None:
        """InputError unless all are options of `method`: those that are `accepted`, of the modality, or of the spec."""
        partial = () if self.spec.partial is None else (self.spec.partial.option,)
        windows = () if self.spec.chunk_frames is None else self.modality.window_options
        known = (*accepted, *windows, *partial)
        for name in names:
            if name not in known:
                takes = ", ".join(known) if known else "none"
                raise InputError(f"{self.spec.name}.{method} has no option {name!r}; it takes: {takes}")
