"""The interface that all modalities share: axes, layout, checks, padding, files and units of their signals."""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import InputError
from zoo.tracing import values_are_readable

if TYPE_CHECKING:
    from zoo.spec import TokenizerSpec

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
BEYOND = 0.5  # what images and video may have outside [0, 1], where resizing overshoots or noise was added


class Signal(NamedTuple):
    """One signal from a file or from memory.

    values: floating, in the public layout without the batch axis.
    frame_rate: frames per second of a video; None if not known.
    pixel_aspect: width of a video's pixels divided by their height; None if they are square.
    """

    values: Tensor
    frame_rate: float | None = None
    pixel_aspect: float | None = None


class Batch(NamedTuple):
    """Several signals as `Tokenizer.encode(*batch)` takes them.

    signal: signals in the public layout; shorter items are padded at the end.
    lengths: int64 `[batch]`, valid steps of each item's first axis; None if all are equal.
    """

    signal: Tensor
    lengths: Tensor | None


class Modality(ABC):
    """One kind of signal. There is one object of each class, which `zoo.modalities.get` returns.

    Attributes:
        name: the name in `spec.modality`. title: its heading. noun: the words for one and for several of its signals.
        axes: names of the axes of a signal's size. axis: position of the first of them in a batch.
        suffixes: suffixes of its files, in lower case. signal_suffix, lossless_suffix: those of the files that `decode`
            and the benchmark write.
        options: options of `load`, most of them also of `Tokenizer.preprocess`.
        has_unit_range: whether values lie in [0, 1] and are clamped to it.
        is_sampled: whether values lie on a regular grid, so that a signal can be shifted and has a level.
        networks_pad: whether networks pad signals to their grid themselves.
        keeps_float32: whether signals stay float32 whatever the network's dtype.
        batches_have_lengths: whether signals of unequal size can share a padded batch.
        network_range: mean and deviation that turn the public range into [-1, 1]; None if there is no such range.
        largest_decoded: absolute value from which on a decoded signal is refused, since nothing real comes near it.
        raw_bits: bits of one uncompressed value.
        unit, reference, reference_size: what tokens and bits are counted for: the unit's short form, its name, and
            the size of such a signal; a size of None stands for a second.
        amount_unit: what `amount` counts, as a plural. batch_size: samples, pixels or residues that are encoded at once
            in a corpus unless told otherwise.
        rate_unit, speed_unit: units of rates and speeds in the benchmark. rate_scale, speed_scale: factors from bits
            and from amounts per second to them.
        quality: metrics that are reported for a reconstruction. validation_metrics: those of a training run.
    """

    name: str
    title: str
    noun: tuple[str, str]
    axes: tuple[str, ...]
    axis = 2
    suffixes: tuple[str, ...]
    signal_suffix: str
    lossless_suffix: str
    options: tuple[str, ...]
    has_unit_range = False
    is_sampled = True
    networks_pad = False
    keeps_float32 = False
    largest_decoded = math.inf
    batches_have_lengths = True
    network_range: tuple[float, float] | None
    raw_bits: int
    unit: str
    reference: str
    reference_size: tuple[int, ...] | None
    amount_unit: str
    batch_size = 2**20
    rate_unit: str
    speed_unit: str
    rate_scale = 1.0
    speed_scale = 1.0
    quality: tuple[str, ...]
    validation_metrics: tuple[str, ...]

    # Sizes

    def layout(self, spec: TokenizerSpec) -> str:
        """Return the shape of a batch in words, such as "[batch, 3, height, width]"."""
        return f"[batch, {spec.channels}, {', '.join(self.axes)}]"

    def size_of(self, x: Tensor) -> tuple[int, ...]:
        """Return the size of a batch's signals as `decode(size=)` and `spec.grid` take it."""
        return tuple(x.shape[self.axis : self.axis + len(self.axes)])

    def code_length(self, spec: TokenizerSpec, length: int, window: int | None) -> int:
        """Return the grid positions along the first axis for `length` steps, encoded in windows of `window` steps."""
        return math.ceil(length / spec.downsample[0])

    def window(self, spec: TokenizerSpec, options: dict[str, Any]) -> int | None:
        """Remove the length of a signal's windows from `options` and return it; None: the signal is encoded whole."""
        return None

    @property
    def window_options(self) -> tuple[str, ...]:
        """Options of `encode` and `decode` of tokenizers that encode in windows (`spec.chunk_frames`)."""
        return ()

    def windows(self, signal: Tensor, window: int | None) -> Sequence[Tensor]:
        """Return the parts of a batch `[B, channels, steps, ...]` that are encoded one after the other."""
        return [signal]

    def amount(self, size: tuple[int, ...], sample_rate: float | None) -> float:
        """Return the pixels, seconds or residues of a signal of `size`, to which rates are relative.

        sample_rate: for audio in Hz, for video its frames per second.
        """
        return float(math.prod(size))

    # Checks

    def check(self, x: Tensor, spec: TokenizerSpec) -> None:
        """Raise InputError unless `x` is a batch in the public layout, finite and of a size that the network takes."""
        layout = self.layout(spec)
        if not isinstance(x, Tensor):
            raise InputError(f"expected a tensor {layout}, got {type(x).__name__}; see preprocess()")
        if kind := special_kind(x):
            raise InputError(f"expected {self.name} as an ordinary tensor {layout}, got a {kind} one")
        if not self.has_layout(x, spec):
            raise InputError(f"expected {self.name} as {layout}, got {list(x.shape)}{self.hint(x)}")
        if x.dtype not in FLOATING:
            raise InputError(f"expected floating {self.name}, got {x.dtype}; see preprocess()")
        if x.numel() == 0:
            raise InputError(f"expected {self.name} as {layout}, got an empty tensor {list(x.shape)}")
        if values_are_readable(x):
            self.check_values(x)
        if not spec.variable_size and tuple(x.shape[-2:]) not in spec.sizes:
            wanted, got = ("x".join(map(str, size)) for size in (spec.sizes[0], x.shape[-2:]))
            others = f" or {len(spec.sizes) - 1} other sizes (spec.sizes)" if spec.other_scales else ""
            raise InputError(f"{spec.name} takes {self.name} of {wanted}{others}, got {got}; see preprocess()")

    def has_layout(self, x: Tensor, spec: TokenizerSpec) -> bool:
        """Return whether `x` has the axes and channels of the public layout."""
        return x.ndim == 2 + len(self.axes) and x.shape[1] == spec.channels

    def hint(self, x: Tensor) -> str:
        """Return the end of an error message that may help with a tensor of another layout."""
        return ""

    def check_values(self, x: Tensor) -> None:
        """Raise InputError unless all values can be encoded: finite, and in the public range or near it."""
        low, high = (float(value) for value in x.aminmax())  # NaN if one value is
        if not math.isfinite(high - low):
            raise InputError(f"{self.name} has values that are not finite (NaN or infinite)")
        if self.has_unit_range and (low < -BEYOND or high > 1 + BEYOND):
            hint = "divide by 255?" if high > 2 else "is it in [-1, 1], or normalized? The network does that itself"
            raise InputError(f"expected {self.name} in [0, 1], got {low:g} to {high:g}; {hint}")

    def check_range(self, x: Tensor, what: str) -> None:
        """Raise InputError if values lie outside the public range; `what` names the signal in the message."""
        if self.has_unit_range and (float(x.min()) < -1e-3 or float(x.max()) > 1 + 1e-3):
            raise InputError(
                f"expected {what} in the public range [0, 1], got {float(x.min()):g} to {float(x.max()):g}"
            )

    def check_lengths(self, lengths: Any, x: Tensor) -> Tensor:
        """Return `lengths` as int64 `[B]`; InputError unless there is one in range for each item of the batch `x`."""
        lengths = as_lengths(lengths)
        if lengths.shape != (len(x),):
            raise InputError(f"expected lengths as int [{len(x)}], got {list(lengths.shape)}")
        steps = x.shape[self.axis]
        if int(lengths.max()) > steps:
            raise InputError(
                f"expected lengths between 1 and the batch's {steps} {self.axes[0]}, got {lengths.tolist()}"
            )
        return lengths

    # Before and after the network

    def pad(self, x: Tensor, spec: TokenizerSpec) -> Tensor:
        """Pad sides to multiples of the grid's steps, by replication."""
        pads = [-length % step for length, step in zip(self.size_of(x), spec.downsample, strict=True)]
        return replicate(x, pads)

    def crop(self, x: Tensor, size: int | tuple[int, ...] | None) -> Tensor:
        """Return a batch cut to `size` at its ends; InputError for a larger size."""
        if size is None:
            return x
        given = self.size_of(x)
        try:
            wanted = size if isinstance(size, list | tuple) else (size,)
            sizes = tuple(index(n) for n in wanted if not isinstance(n, bool))
        except (TypeError, RuntimeError):  # a number that is not whole, or something else altogether
            sizes = ()
        if len(sizes) != len(given) or any(not 0 < n <= m for n, m in zip(sizes, given, strict=True)):
            raise InputError(f"expected size as ({', '.join(self.axes)}) of at most {given}, got {reprlib.repr(size)}")
        for offset, length in enumerate(sizes):
            x = x.narrow(self.axis + offset, 0, length)
        return x

    def finish(self, x: Tensor) -> Tensor:
        """Return a decoded batch in its public range."""
        return x.clamp(0, 1) if self.has_unit_range else x

    def target(self, x: Tensor, spec: TokenizerSpec) -> Tensor:
        """Return what a decoded batch is compared with: the signal that was encoded, or of several tracks their mix."""
        return x if spec.tracks == 1 else x.unflatten(1, (spec.tracks, -1)).sum(dim=1)

    def like(self, x: Tensor, original: Tensor) -> Tensor:
        """Return a decoded batch without what is absent from `original`."""
        return x

    def join(self, signals: Sequence[Tensor]) -> Batch:
        """Return signals without batch axis as one batch.

        Raises:
            InputError: sizes that cannot share a batch.
        """
        first = self.axis - 1
        others = {(*signal.shape[:first], *signal.shape[first + 1 :]) for signal in signals}
        lengths = [signal.shape[first] for signal in signals]
        equal = len(set(lengths)) == 1
        if not signals or len(others) > 1 or not (equal or self.batches_have_lengths):
            sizes = ", ".join(str(self.size_of(signal[None])) for signal in signals)
            raise InputError(f"{self.noun[1]} of a batch have one size, got {sizes or 'none'}{self.size_hint}")
        if equal:
            return Batch(torch.stack(list(signals)), None)
        batch = torch.stack([self.lengthened(signal, max(lengths)) for signal in signals])
        return Batch(batch, torch.tensor(lengths))

    size_hint = ""

    def lengthened(self, signal: Tensor, length: int) -> Tensor:
        """Return a signal without batch axis, padded after its end along the first axis with `padding_value`."""
        rest = list(signal.shape)
        rest[self.axis - 1] = length - rest[self.axis - 1]
        return torch.cat([signal, signal.new_full(rest, self.padding_value)], dim=self.axis - 1)

    padding_value = 0.0

    # Trying a network out

    def sizes(self, spec: TokenizerSpec) -> list[tuple[int, ...]]:
        """Return small sizes of signals that the network takes: one that fits the grid, and one that does not.

        Both have more than one position on each axis of the grid that may have any number of them.
        """
        if not spec.variable_size:
            return [spec.resolution or ()]
        steps = [step * spec.frame_multiple for step in spec.downsample]
        return [tuple(3 * step for step in steps), tuple(2 * step + step // 2 + 1 for step in steps)]

    def example(self, spec: TokenizerSpec, batch: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return a batch of random signals in the public layout, float32 on the CPU."""
        return torch.rand(batch, spec.channels, *size, generator=generator)

    # Files

    @abstractmethod
    def load(self, source: Any, spec: TokenizerSpec, **options: Any) -> Signal:
        """Return one signal from a file or from memory, as the network of `spec` takes it, on the CPU.

        Args:
            source: a path, bytes, a file object, or a signal of the modality in memory.
            options: any of those in the attribute `options`.

        Raises:
            InputError: a source that is not such a signal.
            MediaError: a file that cannot be read.
        """

    def chains(self, source: Any) -> tuple[str, ...]:
        """Ids that `load` takes as `chain` for a file, where `options` has it."""
        return ()

    def stream(self, source: Any, spec: TokenizerSpec, **options: Any) -> Iterator[Signal]:
        """Yield a signal in parts, each as long as a window of `encode`; as a whole if there are no windows."""
        yield self.load(source, spec, **options)

    @abstractmethod
    def write(
        self,
        path: str | Path,
        signal: Tensor | Iterable[Tensor],
        spec: TokenizerSpec,
        *,
        frame_rate: float | None = None,
        pixel_aspect: float | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write a signal without batch axis, or its windows one after the other, whole or not at all.

        Raises:
            InputError: a suffix that is not supported, or values that the format cannot hold.
            MediaError: the file exists or cannot be written.
        """

    def write_lossless(self, path: Path, signal: Signal, spec: TokenizerSpec) -> None:
        """Write a file without loss other than rounding, to 8 bits a colour or 16 bits a sample."""
        self.write(path, signal.values, spec, frame_rate=signal.frame_rate, overwrite=True)

    def read_lossless(self, path: Path, like: Tensor, spec: TokenizerSpec) -> Tensor:
        """Read a file that `write_lossless` wrote, without batch axis, in the size of the signal `like`."""
        return self.load(path, spec).values


def special_kind(x: Tensor) -> str | None:
    """Return what keeps a tensor from being an ordinary one: "nested", "quantized" or "sparse"; None: nothing."""
    if x.is_nested:
        return "nested"
    if x.is_quantized:
        return "quantized"
    return None if x.layout is torch.strided else "sparse"


def check_ordinary(x: Tensor, what: str) -> None:
    """Raise InputError unless all values of a tensor are in memory; `what` names it in the message."""
    if kind := special_kind(x) or ("meta" if x.is_meta else None):
        raise InputError(f"expected {what} as an ordinary tensor, got a {kind} one")


def as_lengths(lengths: Any) -> Tensor:
    """Return numbers of steps as an int64 tensor; InputError unless they are integers of at least 1."""
    try:
        tensor = torch.as_tensor(lengths)
        kind = special_kind(tensor) or ("meta" if tensor.is_meta else None)
        if kind is None and tensor.dtype in INTEGERS and tensor.numel() and int(tensor.min()) >= 1:
            return tensor.long()
        got = f"a {kind} tensor" if kind else f"{tensor.dtype} {reprlib.repr(tensor.tolist())}"
    except (TypeError, ValueError, RuntimeError, OverflowError):  # of whatever is no number, or too large for one
        got = reprlib.repr(lengths)
    raise InputError(f"expected lengths as integers of at least 1, got {got}")


def replicate(x: Tensor, pads: Sequence[int]) -> Tensor:
    """Return `x` with its last values repeated at the end of its last `len(pads)` axes."""
    if values_are_readable(x) and not any(pads):  # a traced graph has to work for any size
        return x
    return F.pad(x, [n for pad in reversed(pads) for n in (0, pad)], mode="replicate")


def cut_square(options: dict[str, Any], spec: TokenizerSpec) -> tuple[int | None, int | None]:
    """Return the short side to resize to and the side of the centre square to keep, for images and video.

    Both are None if the signal stays as it is. Without options, a network that takes one size gets that size, cut from
    one whose short side is longer by the factor `margin` of the options. `resolution` alone crops as well; `crop=0`
    keeps the whole image.
    """
    resolution, crop = options.get("resolution"), options.get("crop")
    for name, value in (("resolution", resolution), ("crop", crop)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < (name != "crop")):
            raise InputError(f"expected {name} as a number of pixels, got {reprlib.repr(value)}")
    if resolution is None and crop is None and not spec.variable_size and spec.resolution is not None:
        crop = spec.resolution[0]
        resolution = round(options.get("margin", 1.0) * crop)
    if crop is None:
        crop = resolution
    return resolution, crop or None
