"""Facts about a tokenizer that need no network: what it takes, what it returns, what its codes cost."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo import modalities
from zoo.arguments import check_types, hints_of
from zoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Scales = tuple[tuple[int, int], ...]

NON_COMMERCIAL = re.compile(r"\bnc\b|non-?commercial", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """Facts about a variant: what it takes and returns, without its network.

    name: name of the variant; `zoo.register` sets it. modality: a name in `zoo.modalities.NAMES`.
    codebook_sizes: number of entries of each codebook; there is one token per codebook and grid position.
    downsample: signal steps per grid step, one per axis: audio `(hop_length,)`, image `(height, width)`,
        video `(frames, height, width)`, structure `(1,)`; `()` for images whose tokens lie on no grid.
    channels: channels of audio, images and video; for structures the atoms of a residue, 5.
    tracks: tracks of audio that lie one after the other in its channels, and are decoded as their mix.
    sample_rate: Hz (audio). resolution: height and width that the published figures are for (image, video).
    num_tokens: grid positions of an image, whatever its size (1D tokenizers). tail_drop: whether the first few of
        them can be decoded alone.
    scales: grids (height, width) of a pyramid of codes, coarse to fine; the last is that of `resolution`. Its codes lie
        in one row, scale after scale, `[batch, num_codebooks, positions]`, and the first scales decode alone.
    other_scales: the same for every other size that the network takes, which the last grid tells. The number of
        positions does not always tell the size (an image and the same on its side have equally many), so `decode` and
        `embed` have `size`; without it, codes stand for an image of `resolution` if they can.
    residual: whether the first few codebooks are a coarser code, which can be decoded alone. default_codebooks: how
        many of them `encode` uses unless told otherwise; None: all.
    extra_frame: whether audio of whole frames gets one frame more, of silence. frame_multiple: number of frames that
        are encoded and decoded together (audio): silence is added up to a multiple of it.
    feature_hop: samples of a frame of the features (a spectrogram) that the network takes; an unfinished one at the end
        has no part in the codes, unless it is the only one (audio).
    chunk_frames: frames that are encoded together (video); longer clips are encoded in windows of this length. None: a
        clip of any length is encoded as a whole.
    causal: whether codes depend on the past alone; in video, the first frame then has a grid step of its own.
    variable_size: whether any length or size is taken; if not, only `resolution` is, and those of `other_scales`, of
        video in any number of frames. What is then left of a side after its last whole step has no code of its own.
    weights_license: as stated by the authors; "not stated" where they state none.

    Raises:
        InputError: a field of another type, a size below 1, an unknown modality, a `downsample` that does not have one
            number for each axis of the modality, a single size without a `resolution`, `channels` that are not a
            multiple of `tracks`, several of `residual`, `tail_drop` and `scales`, scales that do not end in the grid of
            `resolution`, have a larger grid before it or come with a `variable_size`, `other_scales` without `scales`,
            or a `default_codebooks` that is not a number of residual codebooks.
    """

    name: str = ""
    modality: str
    quantizer: str
    codebook_sizes: tuple[int, ...]
    downsample: tuple[int, ...]
    channels: int
    tracks: int = 1
    sample_rate: int | None = None
    resolution: tuple[int, int] | None = None
    num_tokens: int | None = None
    tail_drop: bool = False
    scales: Scales = ()
    other_scales: tuple[Scales, ...] = ()
    residual: bool = False
    default_codebooks: int | None = None
    extra_frame: bool = False
    frame_multiple: int = 1
    feature_hop: int = 1
    chunk_frames: int | None = None
    causal: bool = False
    variable_size: bool = True
    code_license: str
    weights_license: str
    paper: str
    source: str

    def __post_init__(self) -> None:
        source = f"spec of {self.name}" if isinstance(self.name, str) and self.name else "spec"
        check_types(vars(self), _hints(), {}, source)
        if self.modality not in modalities.NAMES:
            raise InputError(f"{source}: expected modality among {', '.join(modalities.NAMES)}, got {self.modality!r}")
        axes = modalities.get(self.modality).axes
        on_no_grid = self.num_tokens is not None and self.downsample == ()
        if len(self.downsample) != len(axes) and not on_no_grid:
            raise InputError(f"{source}: expected downsample as ({', '.join(axes)}), got {self.downsample}")
        if not self.variable_size and self.resolution is None:
            raise InputError(f"{source}: expected a resolution where variable_size is False, got None")
        if self.channels % self.tracks:
            raise InputError(f"{source}: expected channels as a multiple of {self.tracks} tracks, got {self.channels}")
        kinds = {"residual": self.residual, "tail_drop": self.tail_drop, "scales": bool(self.scales)}
        if sum(kinds.values()) > 1:
            got = " and ".join(name for name, present in kinds.items() if present)
            raise InputError(f"{source}: expected one of residual, tail_drop and scales, got {got}")
        self._check_scales(source)
        default, most = self.default_codebooks, self.num_codebooks if self.residual else 0
        if default is not None and not 1 <= default <= most:
            raise InputError(f"{source}: expected default_codebooks from 1 to {most} residual ones, got {default}")

    def _check_scales(self, source: str) -> None:
        if not self.scales:
            if self.other_scales:
                raise InputError(f"{source}: expected scales beside other_scales, got none")
            return
        if self.variable_size or self.num_tokens is not None or len(self.downsample) != 2:
            raise InputError(f"{source}: scales are for images of given sizes, with variable_size False, on a grid")
        if not all(self.other_scales) or len(set(self.sizes)) < len(self.sizes):
            raise InputError(f"{source}: expected other_scales as the scales of one other size each")
        grid = tuple(length // step for length, step in zip(self.sizes[0], self.downsample, strict=True))
        if self.scales[-1] != grid:
            raise InputError(f"{source}: expected scales that end in the grid {grid}, got {self.scales[-1]}")
        for scales in self.pyramids:
            for scale in scales:
                if any(side > last for side, last in zip(scale, scales[-1], strict=True)):
                    raise InputError(f"{source}: expected scales from coarse to fine, got {scale} before {scales[-1]}")

    @property
    def allows_commercial_use(self) -> bool:
        """Whether the license of the weights, as the authors state it, does not forbid commercial use."""
        return not NON_COMMERCIAL.search(self.weights_license)

    @property
    def num_codebooks(self) -> int:
        """Number of codebooks that the network has."""
        return len(self.codebook_sizes)

    @property
    def default_sizes(self) -> tuple[int, ...]:
        """Number of entries of each codebook that `encode` uses unless told otherwise; tokens and bits count these."""
        return self.codebook_sizes[: self.default_codebooks]

    @property
    def pyramids(self) -> tuple[Scales, ...]:
        """Scales of every size that the network takes; () if its codes are no pyramid."""
        return (self.scales, *self.other_scales) if self.scales else ()

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Sizes `(height, width)` that the network takes; () if it takes any."""
        if self.variable_size or self.resolution is None:
            return ()
        return self.resolution, *(self._size_of(scales) for scales in self.other_scales)

    def _size_of(self, scales: Scales) -> tuple[int, ...]:
        """Return the size of an image with these scales, which that of `resolution` may exceed by part of a step."""
        if scales == self.scales and self.resolution is not None:
            return self.resolution
        return tuple(length * step for length, step in zip(scales[-1], self.downsample, strict=True))

    def scales_of(self, size: tuple[int, ...]) -> Scales:
        """Return the scales of the codes of a signal of `size`; InputError for a size that is not in `sizes`."""
        for scales in self.pyramids:
            if self._size_of(scales) == tuple(size):
                return scales
        raise InputError(f"{self.name} has no scales for {'x'.join(map(str, size))}; spec.sizes are those that it has")

    def scales_of_codes(self, positions: int, size: tuple[int, ...] | None = None) -> Scales:
        """Return the scales that codes with so many positions have, or are the first few of.

        Args:
            size: size of the signal. None, or one that is not in `sizes`: the positions tell it. They stand for a
                signal of `resolution` if they are whole scales of it, or else for the only size whose codes they are.

        Raises:
            InputError: positions that are not those of whole scales, or of several sizes.
        """
        of_size = [scales for scales in self.pyramids if size is not None and self._size_of(scales) == tuple(size)]
        fitting = [scales for scales in of_size or self.pyramids if positions in ends(scales)]
        if fitting and (of_size or fitting[0] == self.scales):
            return fitting[0]
        whole = [scales for scales in fitting if ends(scales)[-1] == positions]
        if len(whole) == 1:
            return whole[0]
        if fitting:
            one, *_, last = ("x".join(map(str, self._size_of(scales))) for scales in whole or fitting)
            raise InputError(f"{positions} codes of {self.name} may be of {one} or {last}; give size=(height, width)")
        counts = ", ".join(map(str, ends((of_size or [self.scales])[0])))
        others = " (of another size others)" if self.other_scales and not of_size else ""
        noun = modalities.get(self.modality).noun[0]
        raise InputError(f"{self.name} takes {counts} codes per {noun}{others}, got {positions}")

    @property
    def partial(self) -> PartialCodes | None:
        """How the first few codes are taken where they can be decoded alone; None: all are needed.

        Of scales, of the size that has the most.
        """
        return partial_scales(max(self.pyramids, key=len)) if self.scales else self._partial

    def partial_of(self, size: tuple[int, ...]) -> PartialCodes | None:
        """As `partial`, for a signal of `size`; InputError for one that is not in `sizes`, where there are scales."""
        return partial_scales(self.scales_of(size)) if self.scales else self._partial

    @property
    def _partial(self) -> PartialCodes | None:
        if self.residual:
            return PartialCodes("num_codebooks", 1, self.num_codebooks, len(self.default_sizes))
        if self.tail_drop and self.num_tokens is not None:
            return PartialCodes("num_tokens", 2, self.num_tokens, self.num_tokens)
        return None

    @property
    def bits_per_position(self) -> float:
        """Bits of one grid position in the codebooks that `encode` uses."""
        return self.bits_of(len(self.default_sizes))

    def bits_of(self, num_codebooks: int) -> float:
        """Return the bits of one grid position in the first `num_codebooks` codebooks."""
        return sum(math.log2(size) for size in self.codebook_sizes[:num_codebooks])

    @property
    def hop_length(self) -> int:
        """Samples per frame (audio)."""
        return self.downsample[0]

    @property
    def latency(self) -> int | None:
        """Samples that have to arrive before a stream's first code; None: all of them (audio)."""
        return self.hop_length if self.causal and self.sample_rate else None

    @property
    def frame_rate(self) -> float | None:
        """Grid positions per second (audio)."""
        return self.sample_rate / self.hop_length if self.sample_rate else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second in the codebooks that `encode` uses (audio)."""
        return None if self.frame_rate is None else self.frame_rate * len(self.default_sizes)

    @property
    def bits_per_second(self) -> float | None:
        """Bits per second in the codebooks that `encode` uses (audio)."""
        return None if self.frame_rate is None else self.frame_rate * self.bits_per_position

    @property
    def grid_axes(self) -> tuple[str, ...]:
        """Names of the codes' axes after batch and codebooks."""
        if self.scales:
            return ("positions",)
        return ("tokens",) if self.num_tokens is not None else modalities.get(self.modality).axes

    def grid(self, size: tuple[int, ...], chunk_frames: int | None = None) -> tuple[int, ...]:
        """Shape of the codes' grid for a signal of `size`, whose axes are those of `Modality.axes`.

        chunk_frames: length of the windows that a video is encoded in, if it is; None: the spec's.
        """
        if self.num_tokens is not None:
            return (self.num_tokens,)
        if self.scales:
            return (ends(self.scales_of(size))[-1],)
        if self.sizes:
            frames, sides = size[:-2], zip(size[-2:], self.downsample[-2:], strict=True)
            steps = [self.code_length(length, chunk_frames) for length in frames]
            return *steps, *(length // step for length, step in sides)
        first, *others = size
        return self.code_length(first, chunk_frames), *(
            math.ceil(length / step) for length, step in zip(others, self.downsample[1:], strict=True)
        )

    @property
    def fixed_grid(self) -> tuple[int, ...]:
        """Grid of all signals where one size is taken, without the frames of video; () where any size is."""
        if not self.sizes:
            return ()
        frames = (1,) * (len(modalities.get(self.modality).axes) - 2)
        return self.grid((*frames, *self.sizes[0]))[len(frames) :]

    def code_length(self, length: int, chunk_frames: int | None = None) -> int:
        """Grid positions along the first axis for a signal of `length` steps (samples, frames, residues)."""
        return modalities.get(self.modality).code_length(self, length, chunk_frames)

    def tokens(self, size: tuple[int, ...]) -> int:
        """Return the tokens of one signal of `size` in the codebooks that `encode` uses."""
        return math.prod(self.grid(size)) * len(self.default_sizes)

    def bits(self, size: tuple[int, ...]) -> float:
        """Return the bits of one signal of `size` in the codebooks that `encode` uses."""
        return math.prod(self.grid(size)) * self.bits_per_position


@cache
def _hints() -> dict[str, Any]:
    return hints_of(TokenizerSpec)


class PartialCodes(NamedTuple):
    """How the first few of a variant's codes are taken, which decode alone to a coarser signal.

    option: name of the option of `encode` and `decode`. axis: axis of `[batch, num_codebooks, *grid]` that is cut.
    most: number of all. default: number that `encode` returns unless told otherwise. ends: of scales, the positions up
    to the end of each; (): one position each.
    """

    option: str
    axis: int
    most: int
    default: int
    ends: tuple[int, ...] = ()

    def check(self, number: Any, most: int | None = None) -> int:
        """Return `number`; InputError unless it is an integer from 1 to `most` (None: all)."""
        most = self.most if most is None else most
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
            raise InputError(f"expected {self.option} from 1 to {most}, got {number}")
        return number

    def first(self, codes: Tensor, number: int) -> Tensor:
        """Return the first `number` of codes `[batch, num_codebooks, *grid]`; InputError unless there are as many."""
        present = codes.shape[self.axis]
        if self.ends:
            present = self.ends.index(present) + 1
        return codes.narrow(self.axis, 0, self.length(self.check(number, present)))

    def length(self, number: int) -> int:
        """Return the length along `axis` of the first `number` of codes."""
        return self.ends[number - 1] if self.ends else number


def squares(*sides: int) -> Scales:
    """Return square scales of these sides."""
    return tuple((side, side) for side in sides)


def ends(scales: Scales) -> tuple[int, ...]:
    """Return how many codes there are up to the end of each scale, and with it."""
    return tuple(accumulate(height * width for height, width in scales))


def partial_scales(scales: Scales) -> PartialCodes:
    """Return how the first few of `scales` are taken."""
    return PartialCodes("num_scales", 2, len(scales), len(scales), ends(scales))


class TokenizerOutput(NamedTuple):
    """Output of `Tokenizer.forward`.

    reconstruction: in the layout of the input, not clamped; of a semantic system without a decoder, the features that
    codes stand for. codes: int64 `[batch, num_codebooks, *grid]`.
    latent: what the decoder receives, `[batch, dim, *grid]`. losses: the quantizer's terms, without weights.
    """

    reconstruction: Tensor
    codes: Tensor
    latent: Tensor
    losses: dict[str, Tensor]
