"""WeTok and Open-MAGVIT2 as a plain computation from the published keys, at a small configuration."""

import json

import numpy as np
import torch
import torch.nn.functional as F

import zoo
from zoo.models.image.wetok import CHECKPOINT, WeTok
from zoo.parity import synthetic_checkpoint

WIDTH, MULTIPLIERS, NUM_BLOCKS, DIM = 32, (1, 2, 4), 2, 16


def published_shapes(generative: bool) -> dict[str, list[int]]:
    """The raw parameter names and shapes of the authors' network, from its description."""
    channels = [WIDTH * multiplier for multiplier in MULTIPLIERS]
    shapes: dict[str, list[int]] = {}

    def norm(key: str, width: int) -> None:
        shapes[f"{key}.weight"] = shapes[f"{key}.bias"] = [width]

    def conv(key: str, c_in: int, c_out: int, kernel: int = 3, bias: bool = True) -> None:
        shapes[f"{key}.weight"] = [c_out, c_in, kernel, kernel]
        if bias:
            shapes[f"{key}.bias"] = [c_out]

    def block(key: str, c_in: int, c_out: int) -> None:
        norm(f"{key}.norm1", c_in)
        norm(f"{key}.norm2", c_out)
        conv(f"{key}.conv1", c_in, c_out, bias=False)
        conv(f"{key}.conv2", c_out, c_out, bias=False)
        if c_in != c_out:
            conv(f"{key}.nin_shortcut", c_in, c_out, 1, bias=False)

    last = len(channels) - 1
    conv("encoder.conv_in", 3, WIDTH, bias=False)
    for i, c in enumerate(channels):
        for j in range(NUM_BLOCKS):
            block(f"encoder.down.{i}.block.{j}", ([WIDTH, *channels][i]) if j == 0 else c, c)
        if i < last:
            conv(f"encoder.down.{i}.downsample", c, c)
    conv("decoder.conv_in", 2 * DIM if generative else DIM, channels[-1])
    for side in ("encoder", "decoder"):
        for j in range(NUM_BLOCKS):
            block(f"{side}.mid_block.{j}", channels[-1], channels[-1])
    for i, c in enumerate(channels):
        c_in = channels[min(i + 1, last)]
        for j in range(NUM_BLOCKS):
            block(f"decoder.up.{i}.block.{j}", c_in if j == 0 else c, c)
        if i > 0:
            conv(f"decoder.up.{i}.upsample.conv1", c, 4 * c)
        for statistic in ("gamma", "beta"):
            shapes[f"decoder.adaptive.{i}.{statistic}.weight"] = [c_in, DIM]
            shapes[f"decoder.adaptive.{i}.{statistic}.bias"] = [c_in]
    norm("encoder.norm_out", channels[-1])
    conv("encoder.conv_out", channels[-1], DIM, 1)
    norm("decoder.norm_out", WIDTH)
    conv("decoder.conv_out", WIDTH, 3)
    return shapes


class PlainWeTok:
    """The network as its description states it, reading averaged weights under their published names."""

    def __init__(self, state: dict[str, torch.Tensor]):
        self.state = state

    def get(self, key: str) -> torch.Tensor | None:
        return self.state.get("model_ema." + key.replace(".", ""))

    def conv(self, x, key, **options):
        return F.conv2d(x, self.get(f"{key}.weight"), self.get(f"{key}.bias"), **options)

    def norm_swish(self, x, key):
        x = F.group_norm(x, 32, self.get(f"{key}.weight"), self.get(f"{key}.bias"), eps=1e-6)
        return x * torch.sigmoid(x)

    def block(self, x, key):
        h = self.conv(self.norm_swish(x, f"{key}.norm1"), f"{key}.conv1", padding=1)
        h = self.conv(self.norm_swish(h, f"{key}.norm2"), f"{key}.conv2", padding=1)
        has_shortcut = self.get(f"{key}.nin_shortcut.weight") is not None
        return h + (self.conv(x, f"{key}.nin_shortcut") if has_shortcut else x)

    def encode(self, x):
        x = self.conv(x, "encoder.conv_in", padding=1)
        for i in range(len(MULTIPLIERS)):
            for j in range(NUM_BLOCKS):
                x = self.block(x, f"encoder.down.{i}.block.{j}")
            if i < len(MULTIPLIERS) - 1:
                x = self.conv(x, f"encoder.down.{i}.downsample", stride=2, padding=1)
        for j in range(NUM_BLOCKS):
            x = self.block(x, f"encoder.mid_block.{j}")
        return self.conv(self.norm_swish(x, "encoder.norm_out"), "encoder.conv_out")

    def decode(self, signs, noise=None):
        x = signs if noise is None else torch.cat([signs, noise], 1)
        x = self.conv(x, "decoder.conv_in", padding=1)
        for j in range(NUM_BLOCKS):
            x = self.block(x, f"decoder.mid_block.{j}")
        positions = signs.shape[2] * signs.shape[3]
        mean = signs.mean((2, 3))
        spread = (((signs - mean[..., None, None]) ** 2).sum((2, 3)) / (positions - 1) + 1e-6) ** 0.5
        for i in reversed(range(len(MULTIPLIERS))):
            key = f"decoder.adaptive.{i}"
            scale = spread @ self.get(f"{key}.gamma.weight").T + self.get(f"{key}.gamma.bias")
            shift = mean @ self.get(f"{key}.beta.weight").T + self.get(f"{key}.beta.bias")
            x = scale[..., None, None] * F.group_norm(x, 32, eps=1e-6) + shift[..., None, None]
            for j in range(NUM_BLOCKS):
                x = self.block(x, f"decoder.up.{i}.block.{j}")
            if i > 0:
                x = self.conv(x, f"decoder.up.{i}.upsample.conv1", padding=1)
                batch, channels, height, width = x.shape
                wide = torch.empty(batch, channels // 4, 2 * height, 2 * width)
                for k in range(4):
                    wide[:, :, k // 2 :: 2, k % 2 :: 2] = x[:, k * channels // 4 : (k + 1) * channels // 4]
                x = wide
        return self.conv(self.norm_swish(x, "decoder.norm_out"), "decoder.conv_out", padding=1)


def register_small(name: str, generative: bool) -> None:
    if name not in zoo.list_tokenizers():
        spec = zoo.info("wetok-general-768").spec
        fields = {"name": name, "codebook_sizes": (256, 256), "downsample": (4, 4)}
        zoo.register(
            name,
            WeTok,
            spec=type(spec)(**{**vars(spec), **fields}),
            config={
                "multipliers": MULTIPLIERS,
                "width": WIDTH,
                "num_blocks": NUM_BLOCKS,
                "dim": DIM,
                "generative": generative,
            },
            keys=CHECKPOINT,
            card="wetok",
        )


def write_golden(folder, generative: bool, size: tuple[int, int], batch: int, seed: int, groups: int = 2):
    tensors = {
        "model_ema." + key.replace(".", ""): {"shape": shape, "dtype": "float32"}
        for key, shape in published_shapes(generative).items()
    }
    tolerance = {"code_agreement": 1.0, "latent_max_abs": 1e-4, "reconstruction_max_abs": 1e-4}
    axes = {"input": "b c h w", "codes": "b h w q", "reconstruction": "b c h w"}
    manifest = {"tensors": tensors, "layout": ["state_dict"], "seed": seed, "axes": axes, "tolerance": tolerance}
    plain = PlainWeTok(synthetic_checkpoint(manifest)["state_dict"])
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, *size, generator=generator) * 2 - 1
    latent = plain.encode(image)
    bits = (latent > 0).permute(0, 2, 3, 1).unflatten(-1, (groups, DIM // groups))
    codes = sum(bits[..., k].long() * 2**k for k in range(DIM // groups))
    signs = torch.where(latent > 0, 1.0, -1.0)
    arrays = {"input": image, "latent": latent, "codes": codes}
    if generative:
        arrays["noise"] = torch.randn(signs.shape, generator=generator)
    arrays["reconstruction"] = plain.decode(signs, arrays.get("noise"))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.savez(folder / "golden.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / "manifest.json", folder / "golden.npz"
