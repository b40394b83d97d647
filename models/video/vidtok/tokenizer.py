"""VidTok: video to codes and back, through blocks that work in space alone and blocks that work in time alone.

Paper: VidTok: A Versatile and Open-Source Video Tokenizer (arXiv 2412.13061).
Reference: microsoft/VidTok at d6ad92d.
Frames are `[B, frames, height, width, channels]`: norms are over the channels of one position, and only the attention
in the middle sees a whole frame, so that large frames are computed in strips of rows, with the rows beside them that
convolutions reach. What works in time has one of three borders: the causal networks of release 1.0 have frames of
zeros before the first, those of release 1.1 have copies of it, and the others have zeros at both ends. In the causal
networks the first frame has a step of the grid to itself, since copies of it fill the rest of that step. Release 1.1 is
for clips of any length: a clip is computed in parts, of which each layer keeps the last frames for the next part.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.checkpoints import KeyMap, inside
from zoo.modalities.video import check_window
from zoo.models.video.vidtok.blocks import (
    Border,
    Carry,
    Downsample,
    Head,
    Stem,
    TimeDownsample,
    TimeUpsample,
    Upsample,
    blocks,
    by_parts,
    by_strips,
    flattened,
    in_parts,
    middle,
    pad_time,
    parts_of,
    through,
)
from zoo.quantizers import FSQ
from zoo.registry import FileSource, HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.streaming import IN_WINDOWS
from zoo.tokenizer import Tokenizer

CHUNK_FRAMES = 17  # frames that are computed at once


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
            Downsample(count, TimeDownsample(count, border) if i in halved else None)
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

    def forward(self, video: Tensor, carry: Carry | None = None) -> Tensor:
        x = video.permute(0, 2, 3, 4, 1)
        if carry is None or carry.is_first:
            x = pad_time(x, self.copies, "copies before")
        for i, (level, downsample) in enumerate(zip(self.levels, self.downsamples, strict=False)):
            assert isinstance(downsample, Downsample)
            layers = [*([self.stem] if i == 0 else []), *flattened(level), downsample]
            x = by_strips(layers, x, downsample.space.in_channels, self.reach, carry)
        x = through([*flattened(self.levels[-1]), *self.mid, self.head], x, carry)
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
            Upsample(count, TimeUpsample(count, border, firsts[i]) if i in firsts else None)
            for i, count in enumerate(outputs[:-1])
        )
        self.head = Head(channels[-1], 3, border)

    def forward(self, latent: Tensor, carry: Carry | None = None) -> Tensor:
        x = through([self.stem, *self.mid, *flattened(self.levels[0])], latent.permute(0, 2, 3, 4, 1), carry)
        for i, upsample in enumerate(self.upsamples):
            assert isinstance(upsample, Upsample)
            is_last = i + 1 == len(self.upsamples)
            layers = [upsample, *flattened(self.levels[i + 1]), *([self.head] if is_last else [])]
            frames = 1 if upsample.time is None else 2
            x = by_strips(layers, x, 4 * frames * upsample.space.in_channels, self.reach, carry)
        if carry is None or carry.is_first:
            x = x[:, self.copies :]
        return x.permute(0, 4, 1, 2, 3)


class VidTok(Tokenizer):
    """Video tokenizer with blocks for space, blocks for time and finite scalar quantization.

    Video `[B, 3, T, H, W]` in [0, 1]; codes `[B, 1, t, h, w]`: of a causal network
    `t = 1 + ceil((T - 1) / temporal stride)`, of the others `t = ceil(T / temporal stride)`; in release 1.0 for each
    window of `spec.chunk_frames`, in release 1.1 for the whole clip. The first codes of a window of a causal network of
    release 1.0 can be decoded alone, to the same frames.

    Options of `encode` and `decode` in release 1.1:
        chunk_frames: number of frames that are computed at once, at least the first one and a step of the grid; the
            result does not depend on it, apart from rounding.

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
    cannot_stream = IN_WINDOWS
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
        if spec.chunk_frames is None:
            self.encode_options = self.decode_options = ("chunk_frames",)
            self.cannot_stream = "only audio can; encode takes a clip of any length, with memory for a few frames of it"
        copies = spec.downsample[0] - 1 if spec.causal else 0
        rest = copies, len(levels), border
        self.encoder = Encoder(width, tuple(multipliers), num_blocks, tuple(halved), *rest)
        self.quantizer = FSQ(levels)
        self.decoder = Decoder(width, tuple(multipliers), num_blocks + 1, tuple(doubled), *rest)

    def to_latent(self, signal: Tensor, chunk_frames: int = CHUNK_FRAMES) -> Tensor:
        if self._is_at_once(chunk_frames):
            return self.encoder(signal)
        step = self.spec.downsample[0]
        return by_parts(self.encoder, parts_of(signal, chunk_frames, step), 1 + (signal.shape[2] - 1) // step)

    def from_latent(self, latent: Tensor, chunk_frames: int = CHUNK_FRAMES) -> Tensor:
        if self._is_at_once(chunk_frames):
            return self.decoder(latent)
        step = self.spec.downsample[0]
        parts = parts_of(latent, 1 + (chunk_frames - 1) // step, 1)
        return by_parts(self.decoder, parts, 1 + (latent.shape[2] - 1) * step)

    def _is_at_once(self, chunk_frames: int) -> bool:
        """Return whether a clip, or a window of it, is computed as one part; InputError for `chunk_frames` below 1."""
        check_window(chunk_frames)
        return self.spec.chunk_frames is not None or not in_parts()


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
        chunk_frames=None,
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
