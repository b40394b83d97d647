"""SNAC: speech or music to tokens of several rates, from about 12 a second on, and back.

Paper: SNAC: Multi-Scale Neural Audio Codec (arXiv 2410.14411). Reference: hubertsiuzdak/snac at f49016a.
Encoder and decoder are those of Descript's codec, with depthwise convolutions; the variants for music also have
attention within windows. A code of the first level describes several steps of the latent at once, one of each further
level half as many. The decoder adds noise, so that one sequence of codes has many waveforms.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from operator import mul
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.checkpoints import KeyMap, pointwise_to_linear
from zoo.errors import InputError
from zoo.layers.causal_transformer import angles, rotate
from zoo.layers.dac import DILATIONS, DecoderStage, EncoderStage
from zoo.layers.noise import noise_like
from zoo.layers.snake import Snake
from zoo.layers.weight_norm import WeightNormConv1d
from zoo.quantizers import ProjectedVQ
from zoo.quantizers.base import Quantizer, QuantizerOutput, without_autocast
from zoo.quantizers.residual import total_loss
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

HEAD_DIM = 64  # channels of a head of the attention
GAIN = 0.3  # of a residual unit at the start: twelve in a row would enlarge the signal


class WindowAttention(nn.Module):
    """Each step of `[B, channels, steps]` attends to the steps of its window; windows lie one after the other."""

    def __init__(self, channels: int, window: int):
        super().__init__()
        self.window = window
        self.norm = nn.LayerNorm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        windows = rearrange(x, "b c (w n) -> (b w) n c", n=self.window)
        qkv = rearrange(self.query_key_value(self.norm(windows)), "b n (k h d) -> k b h n d", k=3, d=HEAD_DIM)
        query, key, value = qkv.unbind()
        cos, sin = angles(0, self.window, HEAD_DIM, x.device)
        attended = F.scaled_dot_product_attention(rotate(query, cos, sin), rotate(key, cos, sin), value)
        attended = self.out(rearrange(attended, "b h n d -> b n (h d)"))
        return x + rearrange(attended, "(b w) n c -> b c (w n)", b=x.shape[0])


def attention(channels: int, window: int | None) -> nn.Module:
    return nn.Identity() if window is None else WindowAttention(channels, window)


class Encoder(nn.Module):
    """Audio `[B, 1, samples]` to latents `[B, dim, steps]`; whole windows of steps, where there is attention."""

    def __init__(self, strides: tuple[int, ...], width: int, window: int | None):
        super().__init__()
        self.stem = WeightNormConv1d(1, width, 7, padding=3)
        stages = []
        for stride in strides:
            stages.append(EncoderStage(width, 2 * width, stride, Snake, GAIN, depthwise=True))
            width *= 2
        self.stages = nn.Sequential(*stages)
        self.attention = attention(width, window)
        self.head = WeightNormConv1d(width, width, 7, padding=3, groups=width)

    def forward(self, audio: Tensor) -> Tensor:
        return self.head(self.attention(self.stages(self.stem(audio))))


class NoisyStage(DecoderStage):
    """A stage that adds noise: one value for each step, of which a channel gets as much as its own values say."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__(channels_in, channels_out, stride, Snake, GAIN, depthwise=True)
        self.noise_gain = WeightNormConv1d(channels_out, channels_out, 1, bias=False)
        nn.init.constant_(self.noise_gain.weight_g, GAIN)

    def forward(self, x: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """noise: `[B, 1, steps]`; None: it is drawn."""
        x = self.conv(self.act(x))
        if noise is None:
            noise = noise_like(x[:, :1], generator)
        return self.units(x + noise * self.noise_gain(x))


class Decoder(nn.Module):
    """Latents `[B, dim, steps]` to audio `[B, 1, samples]` in [-1, 1]; whole windows of steps, with attention."""

    def __init__(self, strides: tuple[int, ...], width: int, dim: int, window: int | None):
        super().__init__()
        self.stem = WeightNormConv1d(dim, dim, 7, padding=3, groups=dim)
        self.expand = WeightNormConv1d(dim, width, 1)
        self.attention = attention(width, window)
        self.strides = strides
        self.stages = nn.ModuleList()
        for stride in strides:
            self.stages.append(NoisyStage(width, width // 2, stride))
            width //= 2
        self.act_out = Snake(width)
        self.head = WeightNormConv1d(width, 1, 7, padding=3)

    def forward(self, latent: Tensor, generator: torch.Generator | None, noise: Tensor | int | None) -> Tensor:
        x = self.attention(self.expand(self.stem(latent)))
        for stage, part in zip(self.stages, self.noise_of_stages(latent, generator, noise), strict=True):
            x = stage(x, part, generator)
        return self.head(self.act_out(x)).tanh()

    def noise_of_stages(
        self, latent: Tensor, generator: torch.Generator | None, noise: Tensor | int | None
    ) -> Sequence[Tensor | None]:
        """Return the noise of each stage, `[B, 1, steps]`, or None where the stage draws it."""
        if noise is None:
            return [None] * len(self.stages)
        if generator is not None:
            raise InputError("expected generator= or noise=, got both")
        lengths = list(accumulate(self.strides, mul, initial=latent.shape[-1]))[1:]
        if not isinstance(noise, Tensor):
            if noise != 0:
                raise InputError(f"expected noise as a tensor [batch, values] or as 0, got {reprlib.repr(noise)}")
            noise = latent.new_zeros(len(latent), sum(lengths))
        if noise.shape != (len(latent), sum(lengths)):
            expected = f"[{len(latent)}, {sum(lengths)}] ({' + '.join(map(str, lengths))} values)"
            raise InputError(f"expected noise for these codes as {expected}, got {list(noise.shape)}")
        return noise.to(latent)[:, None].split(lengths, dim=-1)


class MultiRateVQ(Quantizer):
    """Residual codebooks, each of which describes the mean of so many steps of a frame's latent.

    A frame has `strides[0]` steps, `[..., strides[0] * channels]`, one after the other. Level l has one codebook, with
    projections as in `ProjectedVQ`, and a code for every `strides[l]` steps. The codes of a frame are in the order in
    which they begin, the coarser ones first: with strides 4, 2, 1 those of the levels 0, 1, 2, 2, 1, 2, 2.

    Args:
        channels: channels of a step. codebook_dim: length of a codebook row.
        codebook_sizes: number of rows, once for each code of a frame, all the same.
        strides: steps that one code describes, of each level.

    Losses: those of `ProjectedVQ`, summed over the levels.
    """

    def __init__(self, channels: int, codebook_sizes: tuple[int, ...], codebook_dim: int, strides: tuple[int, ...]):
        self.steps, self.strides = strides[0], strides
        begins = [
            (code * stride, level) for level, stride in enumerate(strides) for code in range(self.steps // stride)
        ]
        if len(codebook_sizes) != len(begins) or len(set(codebook_sizes)) > 1:
            raise InputError(f"expected {len(begins)} codebooks of one size, got {codebook_sizes}")
        super().__init__(self.steps * channels, codebook_sizes)
        self.levels = nn.ModuleList(ProjectedVQ(channels, codebook_sizes[0], codebook_dim) for _ in strides)
        self.order = sorted(range(len(begins)), key=begins.__getitem__)  # places among the codes level by level

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        return self.forward(z).codes

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        parts = [
            level.codes_to_latent(part[..., None]).repeat_interleave(stride, -2)
            for (level, stride), part in zip(self.rates(), self.split(self.check_codes(codes)), strict=True)
        ]
        return reduce(torch.add, parts).flatten(-2)

    def forward(self, z: Tensor) -> QuantizerOutput:
        with without_autocast(z):
            residual = self.check_latent(z).unflatten(-1, (self.steps, -1))  # [..., steps, channels]
            quantized, outputs = torch.zeros_like(residual), []
            for level, stride in self.rates():
                output = level(residual.unflatten(-2, (-1, stride)).mean(-2))
                outputs.append(output)
                repeated = output.quantized.repeat_interleave(stride, -2)
                quantized, residual = quantized + repeated, residual - repeated
            return QuantizerOutput(
                quantized.flatten(-2).to(z.dtype),
                self.join([output.codes[..., 0] for output in outputs]),
                {name: total_loss(name, outputs) for name in outputs[0].losses},
            )

    def vectors_of(self, codebook: int, quantized: Tensor, codes: Tensor) -> Tensor:
        """Raise InputError: the levels' vectors are summed, and each stands for other steps."""
        raise InputError("the codebooks of MultiRateVQ are summed at several rates: none has vectors of its own")

    def rates(self) -> list[tuple[ProjectedVQ, int]]:
        """Return each level with its stride."""
        levels = [level for level in self.levels if isinstance(level, ProjectedVQ)]
        return list(zip(levels, self.strides, strict=True))

    def split(self, codes: Tensor) -> tuple[Tensor, ...]:
        """Return codes `[..., num_codebooks]` level by level, `[..., strides[0] / strides[l]]` each."""
        places = sorted(range(self.num_codebooks), key=self.order.__getitem__)
        return codes[..., places].split([self.steps // stride for stride in self.strides], dim=-1)

    def join(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the codes of the levels as `split` takes them."""
        return torch.cat(list(levels), dim=-1)[..., self.order]


class SNAC(Tokenizer):
    """Audio tokenizer whose codebooks have several rates, folded into frames of the slowest one.

    Audio `[B, 1, samples]`; codes `[B, num_codebooks, frames]`. A frame has one code of the first level, two of the
    second, four of the third and so on, in the order in which they begin, the coarser ones first. Named by level and
    place, the seven codebooks of `snac-24khz` are 0, 1a, 2a, 2b, 1b, 2c, 2d, and the fifteen of the others 0, 1a, 2a,
    3a, 3b, 2b, 3c, 3d, 1b, 2c, 3e, 3f, 2d, 3g, 3h. All codebooks of a level are the same table. `to_levels` returns the
    authors' list of codes, and `from_levels` takes it. Latents `[B, steps * dim, frames]` have the steps of a frame one
    after the other. Audio is padded with silence to whole frames, in the variants with attention to four.

    `decode` draws noise, from PyTorch's own generator unless `generator=` is given. `noise=` is the noise itself, float
    `[B, values]`: one normal value for each output step of each of the decoder's stages, stage after stage. `noise=0`
    decodes without noise, which is the same every time but not the mean of what is drawn.

    Args:
        strides: strides of the encoder's stages, first to last; the decoder's are the same backwards.
        encoder_width: channels of the encoder's first stage, which each stage doubles.
        decoder_width: channels of the decoder's first stage, which each stage halves.
        window: steps of a window of the attention; None: there is none.
        level_strides: steps that a code describes, of each level. codebook_dim: length of a codebook row.
    """

    decode_options = ("generator", "noise")
    cannot_stream = (
        "its convolutions look up to 0.2 seconds ahead, and where there is attention, a code depends on the whole "
        "window that it lies in. Encoding parts of a signal one by one changes the codes at their ends"
    )
    small: ClassVar = {"encoder_width": 4, "decoder_width": 64}

    quantizer: MultiRateVQ

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        strides: tuple[int, ...] = (2, 4, 8, 8),
        encoder_width: int = 48,
        decoder_width: int = 1024,
        window: int | None = None,
        level_strides: tuple[int, ...] = (4, 2, 1),
        codebook_dim: int = 8,
    ):
        super().__init__(spec)
        dim = encoder_width * 2 ** len(strides)
        self.encoder = Encoder(tuple(strides), encoder_width, window)
        self.quantizer = MultiRateVQ(dim, spec.codebook_sizes, codebook_dim, tuple(level_strides))
        self.decoder = Decoder(tuple(reversed(strides)), decoder_width, dim, window)

    def to_latent(self, signal: Tensor) -> Tensor:
        steps = self.encoder(self.modality.pad(signal, self.spec))
        return rearrange(steps, "b c (t s) -> b (s c) t", s=self.quantizer.steps)

    def from_latent(
        self, latent: Tensor, generator: torch.Generator | None = None, noise: Tensor | int | None = None
    ) -> Tensor:
        steps = rearrange(latent, "b (s c) t -> b c (t s)", s=self.quantizer.steps)
        return self.decoder(steps, generator, noise)

    def to_levels(self, codes: Tensor) -> list[Tensor]:
        """Return codes as the authors' list, level by level.

        Args:
            codes: integers `[B, num_codebooks, frames]`, as `encode` returns them.

        Returns:
            int64 `[B, frames * 2 ** level]` for each level, the slowest one first.

        Raises:
            InputError: codes of another shape or type.
        """
        return [level.flatten(1) for level in self.quantizer.split(self._check_codes(codes).movedim(1, -1))]

    def from_levels(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the authors' list of codes as `decode` takes them; the inverse of `to_levels`.

        Raises:
            InputError: another number of levels, or shapes that do not belong together.
        """
        rates = [self.quantizer.steps // stride for stride in self.quantizer.strides]
        shapes = [list(level.shape) for level in levels]
        batch, frames = shapes[0] if shapes and len(shapes[0]) == 2 else (0, 0)
        if shapes != [[batch, frames * rate] for rate in rates]:
            expected = ", ".join(f"[batch, {rate} * frames]" for rate in rates)
            raise InputError(f"expected levels of codes as {expected}, got {', '.join(map(str, shapes))}")
        parts = [level.unflatten(1, (frames, rate)) for level, rate in zip(levels, rates, strict=True)]
        return self.quantizer.join(parts).movedim(-1, 1)


def unit_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Rules for the layers of a residual unit."""
    names = ("act1", "conv1", "act2", "conv2")
    return [(f"{published}.block.{layer}.", f"{ours}.{name}.") for layer, name in enumerate(names)]


def attention_rules(published: str, ours: str) -> list[tuple[str, str]]:
    names = {"norm": "norm", "to_qkv": "query_key_value", "to_out": "out"}
    return [(f"{published}.{theirs}.", f"{ours}.{name}.") for theirs, name in names.items()]


def checkpoint(*, attends: bool) -> KeyMap:
    """Return the key map of a published file; attention moves the layers after it up by one."""
    encoder, decoder, moved = "encoder.block", "decoder.model", int(attends)
    rules = [(f"{encoder}.0.", "encoder.stem."), *attention_rules(f"{encoder}.5", "encoder.attention")]
    for stage in range(4):
        block, ours = f"{encoder}.{stage + 1}.block", f"encoder.stages.{stage}"
        for unit in range(len(DILATIONS)):
            rules += unit_rules(f"{block}.{unit}", f"{ours}.units.{unit}")
        rules += [(f"{block}.3.", f"{ours}.act."), (f"{block}.4.", f"{ours}.conv.")]
    rules += [(f"{encoder}.{5 + moved}.", "encoder.head.")]
    rules += [(f"{decoder}.0.", "decoder.stem."), (f"{decoder}.1.", "decoder.expand.")]
    rules += attention_rules(f"{decoder}.2", "decoder.attention")
    for stage in range(4):
        block, ours = f"{decoder}.{stage + 2 + moved}.block", f"decoder.stages.{stage}"
        rules += [(f"{block}.0.", f"{ours}.act."), (f"{block}.1.", f"{ours}.conv.")]
        rules += [(f"{block}.2.linear.", f"{ours}.noise_gain.")]
        for unit in range(len(DILATIONS)):
            rules += unit_rules(f"{block}.{unit + 3}", f"{ours}.units.{unit}")
    rules += [(f"{decoder}.{6 + moved}.", "decoder.act_out."), (f"{decoder}.{7 + moved}.", "decoder.head.")]
    level, ours = "quantizer.quantizers.{i}", "quantizer.levels.{i}"
    return KeyMap(
        *rules,
        (f"{level}.in_proj.", f"{ours}.project_in.", pointwise_to_linear),
        (f"{level}.codebook.weight", f"{ours}.codebook"),
        (f"{level}.out_proj.", f"{ours}.project_out.", pointwise_to_linear),
        ignore=("*.rel_pos.inv_freq",),
    )


BASE = register(
    "snac-24khz",
    SNAC,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="multi-rate-vq",
        codebook_sizes=(4096,) * 7,
        downsample=(2048,),
        channels=1,
        sample_rate=24000,
        code_license="MIT",
        weights_license="MIT",
        paper="https://arxiv.org/abs/2410.14411",
        source="https://github.com/hubertsiuzdak/snac",
    ),
    hub=HubSource("hubertsiuzdak/snac_24khz", "pytorch_model.bin"),
    keys=checkpoint(attends=False),
    card="snac",
)
MUSIC = register(
    replace(
        BASE,
        "snac-44khz",
        hub=HubSource("hubertsiuzdak/snac_44khz", "pytorch_model.bin"),
        keys=checkpoint(attends=True),
        config={
            "strides": (2, 3, 8, 8),
            "encoder_width": 64,
            "decoder_width": 1536,
            "window": 32,
            "level_strides": (8, 4, 2, 1),
        },
        codebook_sizes=(4096,) * 15,
        downsample=(3072,),
        frame_multiple=4,  # frames of a window of the attention
        sample_rate=44100,
    )
)
register(
    replace(
        MUSIC,
        "snac-32khz",
        hub=HubSource("hubertsiuzdak/snac_32khz", "pytorch_model.bin"),
        sample_rate=32000,
    )
)
alias("snac", "snac-24khz")
