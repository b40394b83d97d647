"""A start for small networks of Open-MAGVIT2's and WeTok's kind: the code of a block transform, taught to the network.

    python -m zoo.trainers.transform_code wetok-nano --data shared/data/images --out start.safetensors

From random weights, such a network of a few channels spends its training on what a transform does at once, such as
writing down how bright a block is. So it starts as one. The Karhunen-Loève transform of a code's block is fitted to
photographs, and the bits of a code are shared out among its largest coefficients, each quantized by Lloyd's levels and
written in Gray code. The network's convolutions are then set to compute the transform, stride by stride, and its
inverse: channel 0 is constant, so that the norms hardly change the level of the others; residual blocks add nothing;
and the activations are undone by pairs of channels of opposite sign. The quantization cannot be written down and is
learned: the layers of the lowest resolution learn the bits of the code and, in the decoder, the coefficients.

`zoo train` goes on from the file with the decoder (`freeze=[encoder, quantizer]`).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import zoo
from zoo.errors import InputError
from zoo.models.image.open_magvit2 import OpenMAGVIT2
from zoo.trainers.data.crops import crop_image
from zoo.trainers.data.options import ImageData
from zoo.trainers.data.signals import Signals
from zoo.trainers.data.splits import training_and_validation
from zoo.trainers.exporting import write_halved
from zoo.trainers.optimizers import set_learning_rate

MOST_BITS = 4  # of a coefficient; finer levels than 16 are not learned in the time
CONSTANT = 20.0  # value of the constant channel, beside coefficients of about 1
QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # dy, dx in the order in which the decoder's upsampling writes them
SIDE = 256  # of the squares that are cut out of photographs
BATCH = 8


@dataclass(frozen=True, eq=False)
class Basis:
    """The Karhunen-Loève transform of square blocks.

    mean: `[3, s, s]`. vectors: orthonormal, by falling variance, `[3 * s * s, 3, s, s]`. gains: of the coefficients in
    the network's channels.
    """

    mean: Tensor
    vectors: Tensor
    gains: Tensor

    @property
    def side(self) -> int:
        return self.mean.shape[-1]

    def coefficients(self, images: Tensor, count: int) -> Tensor:
        """The first coefficients of blocks of images `[B, 3, H, W]` in [0, 1], without gains: `[B, count, h, w]`."""
        kernel = self.vectors[:count]
        bias = -(kernel * self.mean).sum(dim=(1, 2, 3))
        return functional.conv2d(images, kernel, bias, stride=self.side)

    def finer(self, blocks: Basis, dy: int, dx: int) -> tuple[Tensor, Tensor]:
        """What a larger block's coefficients say of those of its quarter (`dy`, `dx`): a matrix and an offset.

        All without gains. The transposed matrix leads back.
        """
        half = self.side
        quarter = (..., slice(dy * half, (dy + 1) * half), slice(dx * half, (dx + 1) * half))
        turned = torch.einsum("kcyx,lcyx->kl", self.vectors, blocks.vectors[quarter])
        offset = (self.vectors * (blocks.mean[quarter] - self.mean)).sum(dim=(1, 2, 3))
        return turned, offset


@dataclass(frozen=True, eq=False)
class TransformCode:
    """Sign bits for the largest coefficients of a block.

    basis: the transform. thresholds: between the levels of each coefficient, rising; none where it has no bits.
    """

    basis: Basis
    thresholds: tuple[Tensor, ...]

    @property
    def bits(self) -> list[int]:
        """Bits of each coefficient."""
        return [int(math.log2(len(thresholds) + 1)) for thresholds in self.thresholds]

    def signs(self, images: Tensor) -> Tensor:
        """The code of images `[B, 3, H, W]` in [0, 1]: `[B, bits, h, w]` of -1 and 1, finest bit first."""
        signs = []
        for coefficient, thresholds, bits in zip(
            self.basis.coefficients(images, len(self.thresholds)).unbind(1), self.thresholds, self.bits, strict=True
        ):
            level = torch.searchsorted(thresholds, coefficient.contiguous())
            gray = level ^ (level >> 1)
            signs += [((gray >> bit) & 1) * 2.0 - 1 for bit in range(bits)]
        return torch.stack(signs, dim=1)

    def weights(self) -> Tensor:
        """How much the bits of `signs` matter, `[bits, 1, 1]` of mean 1: by the root of the step that a bit decides."""
        spread = self.basis.gains**-2  # the gains are its inverse roots
        weights = torch.stack(
            [(spread[i] * 2.0 ** (bit - bits)).sqrt() for i, bits in enumerate(self.bits) for bit in range(bits)]
        )
        return (weights / weights.mean())[:, None, None]


def fit_basis(blocks: Tensor, significant: int) -> Basis:
    """The transform of blocks `[N, 3, s, s]`; with gains, the first `significant` coefficients have mean square 1."""
    mean = blocks.mean(dim=0)
    centred = (blocks - mean).flatten(1)
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(blocks))
    variances, vectors = variances.flip(0).clamp(min=1e-8), vectors.flip(1)
    gains = variances**-0.25  # halfway to coefficients that are all equally large
    gains = gains / (variances * gains**2)[:significant].mean().sqrt()
    return Basis(mean, vectors.T.reshape(-1, *mean.shape).contiguous(), gains)


def lloyd(values: Tensor, bits: int) -> tuple[Tensor, float]:
    """The thresholds between the `2**bits` levels of least squared error of values `[N]`, and that error."""
    if bits == 0:
        return values.new_empty(0), float(values.var())
    levels = torch.quantile(values[:: max(1, len(values) // 16000)], (torch.arange(2**bits) + 0.5) / 2**bits)
    for _ in range(40):
        thresholds = (levels[1:] + levels[:-1]) / 2
        nearest = torch.searchsorted(thresholds, values)
        levels = levels.scatter_reduce(0, nearest, values, "mean", include_self=False)
    return thresholds, float((values - levels[nearest]).square().mean())


def fit_code(basis: Basis, images: Tensor, bits: int) -> TransformCode:
    """Share out `bits` among the coefficients, each time to the one whose squared error falls most."""
    coefficients = basis.coefficients(images[::4], bits).movedim(1, 0).flatten(1)
    share = [0] * bits
    now, better = ([lloyd(row, count) for row in coefficients] for count in (0, 1))
    for _ in range(bits):
        gains = [now[i][1] - better[i][1] if share[i] < MOST_BITS else -1.0 for i in range(bits)]
        best = int(np.argmax(gains))
        share[best] += 1
        now[best], better[best] = better[best], lloyd(coefficients[best], share[best] + 1)
    used = 1 + max(i for i in range(bits) if share[i])
    return TransformCode(basis, tuple(thresholds for thresholds, _ in now[:used]))


def fit_bases(images: Tensor, strides: int, significant: int, random: np.random.Generator) -> list[Basis]:
    """The transforms of blocks of 1, 2, 4, ... pixels a side; the first is the image itself, in [-1, 1]."""
    bases = [Basis(torch.full((3, 1, 1), 0.5), torch.eye(3)[..., None, None], torch.full((3,), 2.0))]
    for stride in range(1, strides + 1):
        side, blocks = 2**stride, []
        for image in images:
            for y, x in random.integers(SIDE - side + 1, size=(100, 2)):
                blocks.append(image[:, y : y + side, x : x + side])
        bases.append(fit_basis(torch.stack(blocks), significant))
    return bases


@torch.no_grad()
def set_transform(tokenizer: OpenMAGVIT2, bases: Sequence[Basis], code: TransformCode, images: Tensor) -> None:
    """Set the convolutions to compute the transform and its inverse; `images` are what the norms are fitted to.

    The input of the encoder's last level has the coefficients in channels 1, 2, ..., and the output of the decoder's
    should have them there.
    """
    encoder: Any = tokenizer.encoder
    decoder: Any = tokenizer.decoder
    count = len(code.bits)
    for level in (*encoder.levels, encoder.mid, *decoder.levels, decoder.mid):
        for block in level:
            nn.init.zeros_(block.conv2.weight)
    kept = 3
    encoder.stem.weight[: kept + 1] = 0
    encoder.stem.weight[1 : kept + 1, :, 1, 1] = torch.eye(3)
    for i, downsample in enumerate(encoder.downsamples):
        carry(encoder.levels[i], kept)
        fine, coarse = bases[i], bases[i + 1]
        new = min(downsample.out_channels - 1, len(coarse.vectors))
        downsample.weight[: new + 1] = 0
        downsample.bias[0], downsample.bias[1 : new + 1] = CONSTANT, 0
        for dy, dx in QUARTERS:
            turned, offset = fine.finer(coarse, dy, dx)
            # `offset` leads from the coarse blocks to the fine; here it is the other way.
            back = (turned / fine.gains[:, None]).T * coarse.gains[:, None]
            downsample.weight[1 : new + 1, 1 : kept + 1, 1 + dy, 1 + dx] = back[:new, :kept]
            downsample.bias[1 : new + 1] -= (coarse.gains * (turned.T @ offset))[:new]
        kept = new
    pairs(encoder.levels[-1], count, also=kept)
    match_norm(encoder.norm.weight, encoder.norm.bias, recorded(encoder.norm, encoder, images * 2 - 1))

    kept = min(kept, decoder.stem.out_channels - 1)
    decoder.stem.weight[: kept + 1] *= 0.1
    decoder.stem.bias[: kept + 1] = 0
    decoder.stem.weight[0], decoder.stem.bias[0] = 0, CONSTANT
    for i in reversed(range(len(decoder.levels))):
        kept = min(kept, decoder.levels[i][0].conv2.out_channels - 1)
        carry(decoder.levels[i], kept)
        if i == 0:
            break
        conv = decoder.upsamples[i - 1].conv
        fine, coarse = bases[i - 1], bases[i]
        new = min(decoder.levels[i - 1][0].conv2.out_channels - 1, len(fine.vectors))
        for quarter, (dy, dx) in enumerate(QUARTERS):
            first = quarter * conv.in_channels
            turned, offset = fine.finer(coarse, dy, dx)
            forth = fine.gains[:, None] * turned / coarse.gains
            rows = slice(first + 1, first + 1 + new)
            conv.weight[first : first + 1 + new] = 0
            conv.weight[rows, 1 : kept + 1, 1, 1] = forth[:new, :kept]
            conv.bias[first], conv.bias[rows] = CONSTANT, (fine.gains * offset)[:new]
        kept = new
    pairs(decoder.levels[0], 3)
    decoder.head.weight.zero_()
    decoder.head.bias.zero_()
    for color in range(3):
        decoder.head.weight[color, 1 + 2 * color : 3 + 2 * color, 1, 1] = torch.tensor([1.0, -1.0])
    signs = code.signs(images)
    for adaptive in reversed(decoder.adaptive):
        match_norm(adaptive.gamma.bias, adaptive.beta.bias, recorded(adaptive.norm, decoder, signs))
    match_norm(decoder.norm.weight, decoder.norm.bias, recorded(decoder.norm, decoder, signs))


def carry(level: Any, kept: int) -> None:
    """Let the first channels and the constant pass a level unchanged."""
    shortcut = level[0].shortcut
    if isinstance(shortcut, nn.Conv2d):
        shortcut.weight[: kept + 1] = torch.eye(shortcut.in_channels)[: kept + 1, :, None, None]


def pairs(level: Any, count: int, also: int = 0) -> None:
    """Let a level's output have channels 1, ..., `count` twice, with both signs; then `also` - `count` more of them.

    The difference of the activations of x and -x is x.
    """
    weight = level[0].shortcut.weight
    eye = torch.eye(weight.shape[1])[:, :, None, None]
    weight[: 2 * count + 1] = 0
    weight[0, 0] = 1
    weight[1 : 2 * count : 2], weight[2 : 2 * count + 1 : 2] = eye[1 : count + 1], -eye[1 : count + 1]
    more = eye[count + 1 : min(also + 1, len(weight) - count)]
    weight[2 * count + 1 : 2 * count + 1 + len(more)] = more


def recorded(norm: nn.Module, network: nn.Module, x: Tensor) -> Tensor:
    """What `norm` gets when `network` gets `x`."""
    inputs: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    network(x)
    hook.remove()
    return inputs[0]


def match_norm(scale: Tensor, shift: Tensor, x: Tensor) -> None:
    """Let a norm of one group leave `x` as it is on average."""
    scale.fill_(x.flatten(1).std(dim=1).mean())
    shift.fill_(x.flatten(1).mean(dim=1).mean())


class Tails(nn.Module):
    """The layers of the lowest resolution: the encoder's from the last downsampling on, the decoder's to the first
    upsampling, and the quantizer's signs between them.

    They share their parameters with the tokenizer.
    """

    def __init__(self, tokenizer: OpenMAGVIT2):
        super().__init__()
        encoder: Any = tokenizer.encoder
        decoder: Any = tokenizer.decoder
        self.encoder = nn.Sequential(encoder.levels[-1], encoder.mid, encoder.norm, nn.SiLU(), encoder.head)
        self.first = nn.Sequential(decoder.stem, decoder.mid)
        self.adaptive, self.level = decoder.adaptive[-1], decoder.levels[-1]

    def decode(self, signs: Tensor) -> Tensor:
        decoded: Tensor = self.level(self.adaptive(self.first(signs), signs))
        return decoded


def teach(tokenizer: OpenMAGVIT2, code: TransformCode, images: Tensor, seconds: float, seed: int = 0) -> None:
    """Train the layers of the lowest resolution for some processor time: to write the code, and to read it.

    Each side learns by itself: the encoder the signs of the code, by binary cross-entropy, and the decoder, which gets
    the code's signs, the coefficients.
    """
    encoder: Any = tokenizer.encoder
    basis, matter, random = code.basis, code.weights(), np.random.default_rng(seed)
    count = min(encoder.downsamples[-1].out_channels - 1, len(basis.vectors))
    gains = basis.gains[:count, None, None]
    with torch.no_grad():
        batches = images.split(BATCH)
        features = torch.cat([recorded(encoder.levels[-1], encoder, batch * 2 - 1) for batch in batches])
        coefficients = torch.cat([basis.coefficients(batch, count) for batch in batches])
        signs = torch.cat([code.signs(batch) for batch in batches])

    tails = Tails(tokenizer).train()
    matrices = [parameter for parameter in tails.parameters() if parameter.ndim == 4]
    # Muon takes matrices: these share their memory with the kernels.
    kernels = [nn.Parameter(parameter.data.flatten(1)) for parameter in matrices]
    others = [parameter for parameter in tails.parameters() if parameter.ndim < 4]
    optimizers: list[tuple[torch.optim.Optimizer, float]] = [
        (torch.optim.Muon(kernels, weight_decay=0, adjust_lr_fn="match_rms_adamw"), 4e-3),
        (torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0), 2e-3),
    ]
    average = torch.optim.swa_utils.AveragedModel(tails, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    start, step, done = time.process_time(), 0, 0.0
    while done < 1:
        for optimizer, rate in optimizers:
            set_learning_rate(optimizer, rate * min(1, (step + 1) / 60) * (1 + math.cos(math.pi * done)) / 2)
        rows = torch.from_numpy(random.integers(len(images), size=BATCH))
        target = signs[rows]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latent, decoded = tails.encoder(features[rows]).float(), tails.decode(target).float()
        error = (decoded[:, 1 : count + 1] / gains - coefficients[rows]).square().sum(dim=1).mean()
        loss = 100 * error / basis.mean.numel() + (functional.softplus(-4 * latent * target) * matter).mean()
        tails.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tails.parameters(), 1.0)
        for kernel, parameter in zip(kernels, matrices, strict=True):
            assert parameter.grad is not None
            kernel.grad = parameter.grad.flatten(1)
        for optimizer, _ in optimizers:
            optimizer.step()
        average.update_parameters(tails)
        step, done = step + 1, (time.process_time() - start) / seconds
        if step % 100 == 0:
            agree = float(((latent > 0) == (target > 0)).float().mean())
            print(f"step {step}, {done:.0%}: loss {loss.item():.4f}, {agree:.1%} of the bits", flush=True)
    with torch.no_grad():
        for parameter, mean in zip(tails.parameters(), average.module.parameters(), strict=True):
            parameter.copy_(mean)


def start(name: str, data: str | Path, out: Path, seconds: float) -> None:
    """Write the weights that `zoo train NAME weights=OUT` starts from.

    Args:
        name: variant of Open-MAGVIT2's or WeTok's network with one group of channels in every norm.
        data: photographs, as `zoo train --data` takes them.
        out: the safetensors file. seconds: processor time of `teach`.

    Raises:
        InputError: a variant of another kind, or as in `training_and_validation`.
        MediaError: no photograph can be read, or the file cannot be written.
    """
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    tokenizer = zoo.info(name).build()
    norms = [module for module in tokenizer.modules() if isinstance(module, nn.GroupNorm)]
    if not isinstance(tokenizer, OpenMAGVIT2) or any(norm.num_groups > 1 for norm in norms):
        raise InputError(f"{name} cannot start as a transform: expected WeTok's network with norm_groups=1")
    options = ImageData(crop=SIDE, flip=True)
    photographs, _ = training_and_validation(data)
    signals = Signals(photographs, tokenizer.spec, options)
    crops = [crop_image(signals[i], options, random) for _ in range(2) for i in range(len(signals))]
    images = torch.stack(crops) / 255
    bits = sum(int(math.log2(size)) for size in tokenizer.spec.codebook_sizes)
    strides = int(math.log2(tokenizer.spec.downsample[0]))
    bases = fit_bases(images, strides, bits // 3, random)
    code = fit_code(bases[-1], images, bits)
    print(f"bits of the coefficients: {', '.join(map(str, code.bits))}")
    set_transform(tokenizer, bases, code, images[:16])
    teach(tokenizer, code, images, seconds)
    write_halved(tokenizer, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a variant, such as wetok-nano")
    parser.add_argument("--data", required=True, help="photographs, as zoo train takes them")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="weights to start from")
    parser.add_argument("--seconds", type=float, default=300, help="processor time of the training")
    arguments = parser.parse_args()
    start(arguments.name, arguments.data, arguments.out, arguments.seconds)


if __name__ == "__main__":
    main()
