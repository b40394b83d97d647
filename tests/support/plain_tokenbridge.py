"""TokenBridge as a plain computation from the published keys, at a small configuration."""

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import zoo
from zoo.checkpoints import assign, without_storage
from zoo.models.image.tokenbridge import CHECKPOINT, TokenBridge
from zoo.parity import synthetic_checkpoint

WIDTH, DIM, SCALE = 32, 16, 0.2325
MULTIPLIERS = (1, 1, 2, 2, 4)
# The order in which the authors' generator predicts the channels of a position.
CHANNEL_ORDER = [8, 1, 10, 9, 6, 12, 4, 0, 3, 11, 7, 14, 2, 15, 13, 5]


def published_shapes(width: int) -> dict[str, list[int]]:
    """The parameter names and shapes of the authors' file, from its description."""
    channels = [width * multiplier for multiplier in MULTIPLIERS]
    shapes: dict[str, list[int]] = {}

    def norm(key: str, c: int) -> None:
        shapes[f"{key}.weight"] = shapes[f"{key}.bias"] = [c]

    def conv(key: str, c_in: int, c_out: int, kernel: int = 3) -> None:
        shapes[f"{key}.weight"] = [c_out, c_in, kernel, kernel]
        shapes[f"{key}.bias"] = [c_out]

    def block(key: str, c_in: int, c_out: int) -> None:
        norm(f"{key}.norm1", c_in)
        conv(f"{key}.conv1", c_in, c_out)
        norm(f"{key}.norm2", c_out)
        conv(f"{key}.conv2", c_out, c_out)
        if c_in != c_out:
            conv(f"{key}.nin_shortcut", c_in, c_out, 1)

    def attention(key: str, c: int) -> None:
        norm(f"{key}.norm", c)
        for name in ("q", "k", "v", "proj_out"):
            conv(f"{key}.{name}", c, c, 1)

    for side, c_in, c_out in (("encoder", 3, width), ("decoder", DIM, channels[-1])):
        conv(f"{side}.conv_in", c_in, c_out)
        block(f"{side}.mid.block_1", channels[-1], channels[-1])
        attention(f"{side}.mid.attn_1", channels[-1])
        block(f"{side}.mid.block_2", channels[-1], channels[-1])
    for i, c in enumerate(channels):
        for j in range(2):
            block(f"encoder.down.{i}.block.{j}", [width, *channels][i] if j == 0 else c, c)
        for j in range(3):
            block(f"decoder.up.{i}.block.{j}", channels[min(i + 1, 4)] if j == 0 else c, c)
        if i < 4:
            conv(f"encoder.down.{i}.downsample.conv", c, c)
        if i > 0:
            conv(f"decoder.up.{i}.upsample.conv", c, c)
    for j in range(2):
        attention(f"encoder.down.4.attn.{j}", channels[-1])
    norm("encoder.norm_out", channels[-1])
    conv("encoder.conv_out", channels[-1], 2 * DIM)
    norm("decoder.norm_out", width)
    conv("decoder.conv_out", width, 3)
    conv("quant_conv", 2 * DIM, 2 * DIM, 1)
    conv("post_quant_conv", DIM, DIM, 1)
    return shapes


class PlainKL16:
    """The autoencoder as its description states it, reading weights under their published names."""

    def __init__(self, state: dict[str, torch.Tensor]):
        self.state = state

    def conv(self, x, key, **options):
        return F.conv2d(x, self.state[f"{key}.weight"], self.state[f"{key}.bias"], **options)

    def norm(self, x, key):
        groups = min(32, x.shape[1] // 4)
        return F.group_norm(x, groups, self.state[f"{key}.weight"], self.state[f"{key}.bias"], eps=1e-6)

    def norm_swish(self, x, key):
        x = self.norm(x, key)
        return x * torch.sigmoid(x)

    def block(self, x, key):
        h = self.conv(self.norm_swish(x, f"{key}.norm1"), f"{key}.conv1", padding=1)
        h = self.conv(self.norm_swish(h, f"{key}.norm2"), f"{key}.conv2", padding=1)
        return h + (self.conv(x, f"{key}.nin_shortcut") if f"{key}.nin_shortcut.weight" in self.state else x)

    def attention(self, x, key):
        q, k, v = (self.conv(self.norm(x, f"{key}.norm"), f"{key}.{name}").flatten(2) for name in "qkv")
        weights = torch.softmax(torch.einsum("bcp,bcs->bps", q, k) / math.sqrt(x.shape[1]), dim=2)
        return x + self.conv(torch.einsum("bps,bcs->bcp", weights, v).reshape(x.shape), f"{key}.proj_out")

    def middle(self, x, side):
        x = self.attention(self.block(x, f"{side}.mid.block_1"), f"{side}.mid.attn_1")
        return self.block(x, f"{side}.mid.block_2")

    def moments(self, x):
        x = self.conv(x, "encoder.conv_in", padding=1)
        for i in range(5):
            for j in range(2):
                x = self.block(x, f"encoder.down.{i}.block.{j}")
                if i == 4:
                    x = self.attention(x, f"encoder.down.4.attn.{j}")
            if i < 4:
                x = self.conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{i}.downsample.conv", stride=2)
        x = self.norm_swish(self.middle(x, "encoder"), "encoder.norm_out")
        return self.conv(self.conv(x, "encoder.conv_out", padding=1), "quant_conv")

    def decode(self, z):
        x = self.middle(self.conv(self.conv(z, "post_quant_conv"), "decoder.conv_in", padding=1), "decoder")
        for i in (4, 3, 2, 1, 0):
            for j in range(3):
                x = self.block(x, f"decoder.up.{i}.block.{j}")
            if i > 0:
                wide = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self.conv(wide, f"decoder.up.{i}.upsample.conv", padding=1)
        return self.conv(self.norm_swish(x, "decoder.norm_out"), "decoder.conv_out", padding=1)


def levels(bits: int) -> torch.Tensor:
    """The published levels of latents with unit deviation, by torch's own distribution in float64."""
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    edges = normal.icdf(torch.linspace(0, 1, 2**bits + 1, dtype=torch.float64)).clamp(-3, 3)
    density = normal.log_prob(edges).exp()
    means = (density[:-1] - density[1:]) / (normal.cdf(edges[1:]) - normal.cdf(edges[:-1]))
    return (means * 5 / 3).float()


def manifest(seed: int) -> dict:
    tensors = {key: {"shape": shape, "dtype": "float32"} for key, shape in published_shapes(WIDTH).items()}
    # Latents that use most of the levels, and a posterior that is wide enough to be seen in the codes.
    tensors["quant_conv.weight"]["std"] = 1.5
    return {
        "tensors": tensors,
        "layout": ["model"],
        "seed": seed,
        "axes": {"input": "b c h w", "codes": "b q h w", "reconstruction": "b c h w"},
        "tolerance": {
            "code_agreement": 0.999,
            "latent_max_abs": 1e-4,
            "quantized_max_abs": 1e-5,
            "reconstruction_max_abs": 1e-4,
        },
    }


@cache
def checkpoint(seed: int) -> dict[str, torch.Tensor]:
    return synthetic_checkpoint(manifest(seed))["model"]


def image(size: tuple[int, int], batch: int, seed: int) -> torch.Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def write_golden(folder: Path, size: tuple[int, int], batch: int, seed: int) -> tuple[Path, Path]:
    plain = PlainKL16(checkpoint(seed))
    x = image(size, batch, seed)
    latent = plain.moments(x)[:, :DIM] * SCALE
    codes = (latent[..., None] - levels(6)).abs().argmin(-1)
    quantized = levels(6)[codes]
    arrays = {
        "input": x,
        "latent": latent,
        "codes": codes,
        "quantized": quantized,
        "reconstruction": plain.decode(quantized / SCALE),
    }
    assert codes.unique().numel() > 40
    (folder / "manifest.json").write_text(json.dumps(manifest(seed)))
    np.savez(folder / "golden.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / "manifest.json", folder / "golden.npz"


def small(seed: int) -> TokenBridge:
    """The small network with the weights of a synthetic checkpoint in the published layout."""
    with without_storage():
        tokenizer = TokenBridge(zoo.info("tokenbridge").spec, latent_scale=SCALE, width=WIDTH)
    assign(tokenizer, CHECKPOINT.convert({"model": checkpoint(seed)}, tokenizer.state_dict(), "synthetic"))
    return tokenizer.eval()
