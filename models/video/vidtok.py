"""VidTok: video to codes and back, through blocks that work in space alone and blocks that work in time alone.

Paper: VidTok: A Versatile and Open-Source Video Tokenizer (arXiv 2412.13061).
Reference: microsoft/VidTok at d6ad92d.
Frames are `[B, frames, height, width, channels]`: norms are over the channels of one position, and only the attention
in the middle sees a whole frame, so that large frames are computed in strips of rows, with the rows beside them that
convolutions reach. What works in time has one of three borders: the causal networks of release 1.0 have frames of
zeros before the first, those of release 1.1 have copies of it, and the others have zeros at both ends. In the causal
networks the first frame has a step of the grid to itself, since copies of it fill the rest of that step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap, inside
from zoo.quantizers import FSQ
from zoo.registry import FileSource, HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer
from zoo.tracing import values_are_readable

STRIP = 2**28  # elements of the largest tensor of a strip of rows
CHUNK = 2**24  # elements of the largest tensor of the frames that are computed at once
KERNEL = 3  # frames

Border = Literal["zeros before", "copies before", "zeros around"]


def pad_time(x: Tensor, count: int, border: Border) -> Tensor:
    """Return the frames with `count` more of them."""
    if border == "copies before":
        return torch.cat([x[:, :1].expand(-1, count, -1, -1, -1), x], dim=1)
    before = count // 2 if border == "zeros around" else count
    return F.pad(x, (0, 0, 0, 0, 0, 0, before, count - before))


def in_parts() -> bool:
    """Return whether a tensor may be computed part by part: not in a graph, nor where a gradient needs all parts."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def enough(parts: range, x: Tensor) -> range:
    """Return the parts that have to be computed: without values, where only memory counts, two show that of all."""
    return parts if values_are_readable(x) else parts[:2]


def by_frames(function: Callable[[Tensor], Tensor], x: Tensor, kernel: int = 1, stride: int = 1) -> Tensor:
    """Return `function(x)`, each of whose frames depends on `kernel` frames of `x`, computed a few frames at a time."""
    if not in_parts():
        return function(x)
    count = (x.shape[1] - kernel) // stride + 1
    few = max(1, CHUNK // x[:, 0].numel())
    if few >= count:
        return function(x)
    out = None
    for start in enough(range(0, count, few), x):
        end = min(start + few, count)
        part = function(x[:, start * stride : (end - 1) * stride + kernel])
        if out is None:
            out = part.new_empty(len(x), count, *part.shape[2:])
        out[:, start:end] = part
    assert out is not None, "there is a frame"
    return out


def through(layers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Return what layers, one after the other, make of `x`; unlike `nn.Sequential`, it keeps no input of an earlier."""
    for layer in layers:
        x = layer(x)
    return x


def by_strips(layers: Sequence[nn.Module], x: Tensor, largest: int, reach: int) -> Tensor:
    """Return what layers make of `x`, computed from a strip of rows at a time.

    Args:
        largest: elements of the largest tensor that they make for each row and column of a frame of `x`.
        reach: rows above and below, even in number, that a row's result depends on.
    """
    if not in_parts():
        return through(layers, x)
    height = x.shape[2]
    rows = max(STRIP // (x.shape[1] * x.shape[3] * largest) - 2 * reach, reach) // 2 * 2
    if rows >= height:
        return through(layers, x)
    out = None
    for top in enough(range(0, height, rows), x):
        start, end = max(0, top - reach), min(top + rows + reach, height)
        part = through(layers, x[:, :, start:end])
        if out is None:
            scale = part.shape[2] / (end - start)
            out = part.new_empty(*part.shape[:2], int(height * scale), *part.shape[3:])
        first, last = int(top * scale), int(min(top + rows, height) * scale)
        skipped = int(start * scale)
        out[:, :, first:last] = part[:, :, first - skipped : last - skipped]
    assert out is not None, "there is a row"
    return out


def in_space(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return what `function` makes of the frames one by one, as `[B * frames, channels, height, width]`."""
    y = function(x.flatten(0, 1).permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class SpaceConv(nn.Conv2d):
    """A convolution of each frame."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        super().__init__(channels_in, channels_out, 3, stride=stride, padding=1 if stride == 1 else 0)

    def forward(self, x: Tensor) -> Tensor:
        return in_space(super().forward, x)


class TimeConv(nn.Conv1d):
    """A convolution over three frames at each position; the frames are padded already."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, KERNEL)

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._taps, x, KERNEL)

    def _taps(self, x: Tensor) -> Tensor:
        count = x.shape[1] - KERNEL + 1
        out = F.linear(x[:, :count], self.weight[:, :, 0], self.bias)
        for k in range(1, KERNEL):
            out += F.linear(x[:, k : k + count], self.weight[:, :, k])
        return out


class SpaceTimeConv(nn.Conv3d):
    """A convolution of 3 x 3 over three frames; the frames are padded already."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        super().__init__(channels_in, channels_out, KERNEL, stride=(stride, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._taps, x, KERNEL, self.stride[0])

    def _taps(self, x: Tensor) -> Tensor:
        stride = self.stride[0]
        last = x.shape[1] - KERNEL + 1
        out = in_space(lambda frames: F.conv2d(frames, self.weight[:, :, 0], self.bias, padding=1), x[:, :last:stride])
        for k in range(1, KERNEL):
            convolve = partial(F.conv2d, weight=self.weight[:, :, k], padding=1)
            out += in_space(convolve, x[:, k : k + last : stride])
        return out


def layer_norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=1e-6)


def activated(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    return by_frames(lambda frames: F.silu(norm(frames)), x)


class SpaceBlock(nn.Module):
    """A residual block that sees each frame alone."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.norm1 = layer_norm(channels_in)
        self.conv1 = SpaceConv(channels_in, channels_out)
        self.norm2 = layer_norm(channels_out)
        self.conv2 = SpaceConv(channels_out, channels_out)
        same = channels_in == channels_out
        self.shortcut: nn.Module = nn.Identity() if same else nn.Linear(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._frames, x)

    def _frames(self, x: Tensor) -> Tensor:
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return self.shortcut(x) + h


class TimeBlock(nn.Module):
    """A residual block that sees each position alone or, with `space`, its neighbours too."""

    def __init__(self, channels: int, border: Border, space: bool = False):
        super().__init__()
        conv = partial(SpaceTimeConv, channels, channels) if space else partial(TimeConv, channels)
        self.pad = partial(pad_time, count=KERNEL - 1, border=border)
        self.norm1 = layer_norm(channels)
        self.conv1 = conv()
        self.norm2 = layer_norm(channels)
        self.conv2 = conv()
        if not space:
            for parameter in self.conv2.parameters():  # before training, time passes through, as in the authors' code
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.pad(activated(self.norm2, self.conv1(self.pad(activated(self.norm1, x))))))


class Attention(nn.Module):
    """Attention of one head over the positions of each frame."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = layer_norm(channels)
        self.q = nn.Linear(channels, channels)
        self.k = nn.Linear(channels, channels)
        self.v = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x).flatten(2, 3)
        h = F.scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))
        return x + self.out(h).unflatten(2, x.shape[2:4])


def middle(channels: int, border: Border) -> nn.Sequential:
    return nn.Sequential(
        TimeBlock(channels, border, space=True), Attention(channels), TimeBlock(channels, border, space=True)
    )


def blocks(count: int, channels_in: int, channels_out: int, border: Border) -> nn.ModuleList:
    """Return pairs of a block in space, of which the first changes the number of channels, and a block in time."""
    inputs = [channels_in, *[channels_out] * (count - 1)]
    return nn.ModuleList(
        nn.ModuleList([SpaceBlock(channels, channels_out), TimeBlock(channels_out, border)]) for channels in inputs
    )


def flattened(level: nn.Module) -> list[nn.Module]:
    return [block for pair in level.children() for block in pair.children()]


class TimeDownsample(nn.Module):
    """Halve the frames: a mean of three frames and a convolution, mixed."""

    def __init__(self, channels: int, border: Border):
        super().__init__()
        # Of three frames in steps of two, one lies outside: before the first or, with zeros around, after the last.
        self.pad = partial(pad_time, count=KERNEL - 2, border=border)
        self.conv = SpaceTimeConv(channels, channels, stride=2)
        self.mix = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._mixed, self.pad(x), KERNEL, 2)

    def _mixed(self, x: Tensor) -> Tensor:
        last = x.shape[1] - KERNEL + 1
        mean = (x[:, :last:2] + x[:, 1 : 1 + last : 2] + x[:, 2 : 2 + last : 2]) / KERNEL
        share = torch.sigmoid(self.mix)
        return share * mean + (1 - share) * self.conv(x)


class TimeUpsample(nn.Module):
    """Double the frames: by repetition, or with copies before the first by interpolation, mixed with a convolution.

    The first `first` frames, which the first frame of the signal fills with copies of itself, are interpolated apart
    from the rest.
    """

    def __init__(self, channels: int, border: Border, first: int):
        super().__init__()
        self.border, self.first = border, first
        self.conv = SpaceTimeConv(channels, channels)
        self.mix = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return by_frames(self._mixed, pad_time(self._doubled(x), KERNEL - 1, self.border), KERNEL)

    def _doubled(self, x: Tensor) -> Tensor:
        if self.border != "copies before":
            return x.repeat_interleave(2, dim=1)
        return torch.cat([interpolated(x[:, : self.first]), interpolated(x[:, self.first :])], dim=1)

    def _mixed(self, x: Tensor) -> Tensor:
        before = 1 if self.border == "zeros around" else KERNEL - 1
        doubled = x[:, before : x.shape[1] - (KERNEL - 1 - before)]
        share = torch.sigmoid(self.mix)
        return share * doubled + (1 - share) * self.conv(x)


def interpolated(x: Tensor) -> Tensor:
    """Return twice as many frames: a quarter before and a quarter after each frame, none of them outside."""
    before = torch.cat([x[:, :1], x[:, :-1]], dim=1)
    after = torch.cat([x[:, 1:], x[:, -1:]], dim=1)
    return torch.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], dim=2).flatten(1, 2)


class Downsample(nn.Module):
    """Halve the sides, padded at the right and at the bottom only, and with `time` the frames."""

    def __init__(self, channels: int, time: nn.Module):
        super().__init__()
        self.space = SpaceConv(channels, channels, stride=2)
        self.time = time

    def forward(self, x: Tensor) -> Tensor:
        return self.time(by_frames(lambda frames: self.space(F.pad(frames, (0, 0, 0, 1, 0, 1))), x))


class Upsample(nn.Module):
    """Double the sides, nearest neighbours then a convolution, and with `time` the frames."""

    def __init__(self, channels: int, time: nn.Module):
        super().__init__()
        self.space = SpaceConv(channels, channels)
        self.time = time

    def forward(self, x: Tensor) -> Tensor:
        return self.time(by_frames(self._doubled, x))

    def _doubled(self, x: Tensor) -> Tensor:
        return self.space(in_space(lambda frames: F.interpolate(frames, scale_factor=2.0, mode="nearest"), x))


class Stem(SpaceTimeConv):
    """A first or last convolution, which pads the frames itself."""

    def __init__(self, channels_in: int, channels_out: int, border: Border):
        super().__init__(channels_in, channels_out)
        self.pad = partial(pad_time, count=KERNEL - 1, border=border)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


class Head(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, border: Border):
        super().__init__()
        self.norm = layer_norm(channels_in)
        self.conv = Stem(channels_in, channels_out, border)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(activated(self.norm, x))


class Encoder(nn.Module):
    """`[B, 3, T, H, W]` to `[B, dim, t, h, w]`; levels are numbered from the video."""

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        halved: tuple[int, ...],
        copies: int,
        dim: int,
        border: Border,
    ):
        super().__init__()
        channels = [width, *(width * multiplier for multiplier in multipliers)]
        self.copies = copies
        self.reach = 2 * num_blocks + 4  # rows: of the blocks, the stem, and the convolutions that halve space and time
        self.stem = Stem(3, width, border)
        self.levels = nn.ModuleList(blocks(num_blocks, *pair, border) for pair in pairwise(channels))
        self.downsamples = nn.ModuleList(
            Downsample(count, TimeDownsample(count, border) if i in halved else nn.Identity())
            for i, count in enumerate(channels[1:-1])
        )
        self.mid = middle(channels[-1], border)
        self.head = Head(channels[-1], dim, border)
        # No biases, and eight times PyTorch's initial values at the end: otherwise latents would share one code.
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.head.conv.weight.mul_(8)

    def forward(self, video: Tensor) -> Tensor:
        x = video.permute(0, 2, 3, 4, 1)
        x = torch.cat([x[:, :1].expand(-1, self.copies, -1, -1, -1), x], dim=1)
        for i, (level, downsample) in enumerate(zip(self.levels, self.downsamples, strict=False)):
            assert isinstance(downsample, Downsample)
            layers = [*([self.stem] if i == 0 else []), *flattened(level), downsample]
            x = by_strips(layers, x, downsample.space.in_channels, self.reach)
        x = through([*flattened(self.levels[-1]), *self.mid, self.head], x)
        return x.permute(0, 4, 1, 2, 3)


class Decoder(nn.Module):
    """`[B, dim, t, h, w]` to `[B, 3, T, H, W]`; levels are numbered from the codes."""

    def __init__(
        self,
        width: int,
        multipliers: tuple[int, ...],
        num_blocks: int,
        doubled: tuple[int, ...],
        copies: int,
        dim: int,
        border: Border,
    ):
        super().__init__()
        outputs = [width * multiplier for multiplier in reversed(multipliers)]
        channels = [outputs[0], *outputs]
        self.copies = copies
        self.reach = num_blocks // 2 * 2 + 4  # rows before they are doubled
        self.stem = Stem(dim, channels[0], border)
        self.mid = middle(channels[0], border)
        self.levels = nn.ModuleList(blocks(num_blocks, *pair, border) for pair in pairwise(channels))
        firsts = {i: 2**order for order, i in enumerate(sorted(doubled))}
        self.upsamples = nn.ModuleList(
            Upsample(count, TimeUpsample(count, border, firsts[i]) if i in firsts else nn.Identity())
            for i, count in enumerate(outputs[:-1])
        )
        self.head = Head(channels[-1], 3, border)

    def forward(self, latent: Tensor) -> Tensor:
        x = through([self.stem, *self.mid, *flattened(self.levels[0])], latent.permute(0, 2, 3, 4, 1))
        for i, upsample in enumerate(self.upsamples):
            assert isinstance(upsample, Upsample)
            is_last = i + 1 == len(self.upsamples)
            layers = [upsample, *flattened(self.levels[i + 1]), *([self.head] if is_last else [])]
            frames = 2 if isinstance(upsample.time, TimeUpsample) else 1
            x = by_strips(layers, x, 4 * frames * upsample.space.in_channels, self.reach)
        return x[:, self.copies :].permute(0, 4, 1, 2, 3)


class VidTok(Tokenizer):
    """Video tokenizer with blocks for space, blocks for time and finite scalar quantization.

    Video `[B, 3, T, H, W]` in [0, 1]; codes `[B, 1, t, h, w]`: of a causal network
    `t = 1 + ceil((T - 1) / temporal stride)` for each window of `spec.chunk_frames`, of the others
    `t = ceil(T / temporal stride)`. The first codes of a window of a causal network of release 1.0 can be decoded
    alone, to the same frames.

    Args:
        levels: levels of each channel of the quantizer.
        multipliers: channels of each resolution as multiples of `width`, finest first. Sides are halved between them.
        halved: resolutions, numbered from the finest, after which the encoder halves the frames too.
        doubled: resolutions, numbered from the coarsest, after which the decoder doubles the frames too.
        border: what lies before and after the frames.
        width: channels at full resolution. num_blocks: pairs of blocks per resolution of the encoder; the decoder has
            one more.
    """

    input_mean = 0.5
    input_std = 0.5
    cannot_stream = (
        "a clip is encoded in windows of spec.chunk_frames frames, which do not see each other; encode each window "
        "when its frames are there"
    )
    small: ClassVar = {"width": 8, "num_blocks": 1}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        levels: tuple[int, ...],
        multipliers: tuple[int, ...],
        halved: tuple[int, ...],
        doubled: tuple[int, ...],
        border: Border,
        width: int = 128,
        num_blocks: int = 2,
    ):
        super().__init__(spec)
        copies = spec.downsample[0] - 1 if spec.causal else 0
        rest = copies, len(levels), border
        self.encoder = Encoder(width, tuple(multipliers), num_blocks, tuple(halved), *rest)
        self.quantizer = FSQ(levels)
        self.decoder = Decoder(width, tuple(multipliers), num_blocks + 1, tuple(doubled), *rest)


def flat(weight: Tensor) -> Tensor:
    """Return a convolution of one position as a matrix."""
    return weight.flatten(1) if weight.ndim > 2 else weight


ATTENTION = (("q", "q"), ("k", "k"), ("v", "v"), ("proj_out", "out"))


def key_map(num_levels: int, border: Border, layout: tuple[str, ...]) -> KeyMap:
    """Return the key map of a network; the causal ones have convolutions in time that wrap PyTorch's."""
    conv = "" if border == "zeros around" else "conv."
    norms = (("norm1.norm.", "norm1."), ("norm2.norm.", "norm2."))
    space = (*norms, ("nin_shortcut.", "shortcut.", flat), ("", ""))
    time = (*norms, (f"conv1.{conv}", "conv1."), (f"conv2.{conv}", "conv2."))
    attention = (("norm.norm.", "norm."), *((f"{name}.{conv}", f"{ours}.", flat) for name, ours in ATTENTION))
    resampling = (("mix_factor", "mix"), (f"conv.{conv}", "conv."))
    ends = ((f"conv_in.{conv}", "stem."), ("norm_out.norm.", "head.norm."), (f"conv_out.{conv}", "head.conv."))
    rules = []
    for side, direction, kind in (("encoder", "down", "downsample"), ("decoder", "up", "upsample")):
        for i in range(num_levels):
            level = i if side == "encoder" else num_levels - 1 - i
            # The resampling after a published level of the decoder is ours before the next one.
            resample = f"{side}.{kind}s.{i}"
            rules += inside(f"{side}.{direction}.{level}.block.{{j}}.", f"{side}.levels.{i}.{{j}}.0.", space)
            rules += inside(f"{side}.{direction}_temporal.{level}.block.{{j}}.", f"{side}.levels.{i}.{{j}}.1.", time)
            rules += [(f"{side}.{direction}.{level}.{kind}.conv.", f"{resample}.space.")]
            rules += inside(f"{side}.{direction}_temporal.{level}.{kind}.", f"{resample}.time.", resampling)
        rules += inside(f"{side}.mid.block_1.", f"{side}.mid.0.", time)
        rules += inside(f"{side}.mid.attn_1.", f"{side}.mid.1.", attention)
        rules += inside(f"{side}.mid.block_2.", f"{side}.mid.2.", time)
        rules += inside(f"{side}.", f"{side}.", ends)
    # Losses of training with their networks, and an average of the weights, which no published configuration keeps.
    return KeyMap(*rules, layout=layout, ignore=("loss.", "model_ema."))


def published(name: str, num_levels: int, border: Border) -> tuple[HubSource, FileSource]:
    """Return the authors' file; they read the bare state dict as well as one inside a training checkpoint."""
    inside_checkpoint, bare = (key_map(num_levels, border, layout) for layout in (("state_dict",), ()))
    return HubSource("microsoft/VidTok", f"checkpoints/{name}.ckpt", keys=inside_checkpoint), FileSource(keys=bare)


def figures(psnr: float, ssim: float, lpips: float, fvd: float, clips: str) -> dict[str, float]:
    values = {"PSNR": psnr, "SSIM": ssim, "LPIPS": lpips, "FVD": fvd}
    return {f"{metric}, MCL-JCV, {clips}": value for metric, value in values.items()}


FOUR, FIVE = (1, 2, 4, 4), (1, 2, 4, 4, 4)
CLIPS_OF_17, CLIPS_OF_16, WHOLE = "17 frames of 256x256", "16 frames of 256x256", "whole videos at 256x256"

CAUSAL = register(
    "vidtok-fsq-causal-488-32768",
    VidTok,
    spec=TokenizerSpec(
        modality="video",
        quantizer="fsq",
        codebook_sizes=(8**5,),
        downsample=(4, 8, 8),
        channels=3,
        resolution=(256, 256),
        chunk_frames=17,
        causal=True,
        code_license="MIT",
        weights_license="MIT",
        paper="https://arxiv.org/abs/2412.13061",
        source="https://github.com/microsoft/VidTok",
    ),
    config={"levels": (8,) * 5, "multipliers": FOUR, "halved": (1, 2), "doubled": (1, 2), "border": "zeros before"},
    hub=published("vidtok_fsq_causal_488_32768", 4, "zeros before"),
    card="vidtok",
    figures=figures(29.16, 0.854, 0.117, 196.9, CLIPS_OF_17),
)
register(
    replace(
        CAUSAL,
        "vidtok-fsq-causal-488-4096",
        codebook_sizes=(8**4,),
        config={"levels": (8,) * 4},
        hub=published("vidtok_fsq_causal_488_4096", 4, "zeros before"),
        figures=figures(28.36, 0.832, 0.133, 218.1, CLIPS_OF_17),
    )
)
register(
    replace(
        CAUSAL,
        "vidtok-fsq-causal-488-262144",
        codebook_sizes=(8**6,),
        config={"levels": (8,) * 6},
        hub=published("vidtok_fsq_causal_488_262144", 4, "zeros before"),
        figures=figures(29.82, 0.867, 0.106, 160.1, CLIPS_OF_17),
    )
)
register(
    replace(
        CAUSAL,
        "vidtok-fsq-causal-41616-262144",
        codebook_sizes=(8**6,),
        downsample=(4, 16, 16),
        config={"levels": (8,) * 6, "multipliers": FIVE, "halved": (2, 3), "doubled": (2, 3)},
        hub=published("vidtok_fsq_causal_41616_262144", 5, "zeros before"),
        figures=figures(25.38, 0.738, 0.206, 430.1, CLIPS_OF_17),
    )
)
NONCAUSAL = register(
    replace(
        CAUSAL,
        "vidtok-fsq-noncausal-488-262144",
        codebook_sizes=(8**6,),
        chunk_frames=16,
        causal=False,
        config={"levels": (8,) * 6, "border": "zeros around"},
        hub=published("vidtok_fsq_noncausal_488_262144", 4, "zeros around"),
        figures=figures(30.78, 0.889, 0.091, 132.1, CLIPS_OF_16),
    )
)
register(
    replace(
        NONCAUSAL,
        "vidtok-fsq-noncausal-41616-262144",
        downsample=(4, 16, 16),
        config={"multipliers": FIVE, "halved": (2, 3), "doubled": (2, 3)},
        hub=published("vidtok_fsq_noncausal_41616_262144", 5, "zeros around"),
        figures=figures(26.37, 0.772, 0.171, 357.0, CLIPS_OF_16),
    )
)
LONG = register(
    replace(
        CAUSAL,
        "vidtok-fsq-causal-488-32768-v1.1",
        config={"border": "copies before"},
        hub=published("vidtok_v1_1/vidtok_fsq_causal_488_32768_v1_1", 4, "copies before"),
        figures=figures(29.39, 0.856, 0.114, 168.5, WHOLE),
    )
)
register(
    replace(
        LONG,
        "vidtok-fsq-causal-888-32768-v1.1",
        downsample=(8, 8, 8),
        config={"halved": (0, 1, 2), "doubled": (0, 1, 2)},
        hub=published("vidtok_v1_1/vidtok_fsq_causal_888_32768_v1_1", 4, "copies before"),
        figures=figures(27.95, 0.817, 0.142, 293.2, WHOLE),
    )
)
alias("vidtok", "vidtok-fsq-noncausal-488-262144")
