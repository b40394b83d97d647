"""VQGAN's encoder and decoder as their description states them, reading the names of taming-transformers."""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def published_shapes(
    width: int,
    multipliers: tuple[int, ...],
    *,
    num_blocks: int = 2,
    neck: tuple[int, int] = (256, 256),
    dim: tuple[int, int] = (256, 256),
    attention: tuple[bool, bool] = (True, True),
    middle_attention: bool = True,
) -> dict[str, list[int]]:
    """Published names and shapes of encoder, decoder and the convolutions between; pairs: encoder's and decoder's."""
    channels = [width * multiplier for multiplier in multipliers]
    last = len(channels) - 1
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

    def attend(key: str, c: int) -> None:
        norm(f"{key}.norm", c)
        for name in ("q", "k", "v", "proj_out"):
            conv(f"{key}.{name}", c, c, 1)

    for side, c_in, c_out in (("encoder", 3, width), ("decoder", neck[1], channels[-1])):
        conv(f"{side}.conv_in", c_in, c_out)
        block(f"{side}.mid.block_1", channels[-1], channels[-1])
        if middle_attention:
            attend(f"{side}.mid.attn_1", channels[-1])
        block(f"{side}.mid.block_2", channels[-1], channels[-1])
    for i, c in enumerate(channels):
        for j in range(num_blocks):
            block(f"encoder.down.{i}.block.{j}", [width, *channels][i] if j == 0 else c, c)
            if i == last and attention[0]:
                attend(f"encoder.down.{i}.attn.{j}", c)
        for j in range(num_blocks + 1):
            block(f"decoder.up.{i}.block.{j}", channels[min(i + 1, last)] if j == 0 else c, c)
            if i == last and attention[1]:
                attend(f"decoder.up.{i}.attn.{j}", c)
        if i < last:
            conv(f"encoder.down.{i}.downsample.conv", c, c)
        if i > 0:
            conv(f"decoder.up.{i}.upsample.conv", c, c)
    norm("encoder.norm_out", channels[-1])
    conv("encoder.conv_out", channels[-1], neck[0])
    norm("decoder.norm_out", width)
    conv("decoder.conv_out", width, 3)
    conv("quant_conv", neck[0], dim[0], 1)
    conv("post_quant_conv", dim[1], neck[1], 1)
    return shapes


class PlainTaming:
    """What encoder and decoder compute with weights under their published names, whichever blocks there are."""

    def __init__(self, state: dict[str, Tensor]):
        self.state = state
        self.num_levels = max(int(key.split(".")[2]) for key in state if key.startswith("encoder.down.")) + 1

    def conv(self, x: Tensor, key: str, **options) -> Tensor:
        return F.conv2d(x, self.state[f"{key}.weight"], self.state[f"{key}.bias"], **options)

    def norm(self, x: Tensor, key: str) -> Tensor:
        groups = min(32, x.shape[1] // 4)  # 32 where there are as many channels as published
        return F.group_norm(x, groups, self.state[f"{key}.weight"], self.state[f"{key}.bias"], eps=1e-6)

    def norm_swish(self, x: Tensor, key: str) -> Tensor:
        x = self.norm(x, key)
        return x * torch.sigmoid(x)

    def block(self, x: Tensor, key: str) -> Tensor:
        h = self.conv(self.norm_swish(x, f"{key}.norm1"), f"{key}.conv1", padding=1)
        h = self.conv(self.norm_swish(h, f"{key}.norm2"), f"{key}.conv2", padding=1)
        return h + (self.conv(x, f"{key}.nin_shortcut") if f"{key}.nin_shortcut.weight" in self.state else x)

    def attention(self, x: Tensor, key: str) -> Tensor:
        if f"{key}.q.weight" not in self.state:
            return x
        q, k, v = (self.conv(self.norm(x, f"{key}.norm"), f"{key}.{name}").flatten(2) for name in "qkv")
        weights = torch.softmax(torch.einsum("bcp,bcs->bps", q, k) / math.sqrt(x.shape[1]), dim=2)
        return x + self.conv(torch.einsum("bps,bcs->bcp", weights, v).reshape(x.shape), f"{key}.proj_out")

    def level(self, x: Tensor, key: str) -> Tensor:
        j = 0
        while f"{key}.block.{j}.conv1.weight" in self.state:
            x = self.attention(self.block(x, f"{key}.block.{j}"), f"{key}.attn.{j}")
            j += 1
        return x

    def middle(self, x: Tensor, side: str) -> Tensor:
        x = self.attention(self.block(x, f"{side}.mid.block_1"), f"{side}.mid.attn_1")
        return self.block(x, f"{side}.mid.block_2")

    def encode(self, x: Tensor) -> Tensor:
        x = self.conv(x, "encoder.conv_in", padding=1)
        for i in range(self.num_levels):
            x = self.level(x, f"encoder.down.{i}")
            if i < self.num_levels - 1:
                x = self.conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{i}.downsample.conv", stride=2)
        x = self.norm_swish(self.middle(x, "encoder"), "encoder.norm_out")
        return self.conv(self.conv(x, "encoder.conv_out", padding=1), "quant_conv")

    def decode(self, z: Tensor) -> Tensor:
        x = self.middle(self.conv(self.conv(z, "post_quant_conv"), "decoder.conv_in", padding=1), "decoder")
        for i in reversed(range(self.num_levels)):
            x = self.level(x, f"decoder.up.{i}")
            if i > 0:
                wide = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self.conv(wide, f"decoder.up.{i}.upsample.conv", padding=1)
        return self.conv(self.norm_swish(x, "decoder.norm_out"), "decoder.conv_out", padding=1)


def image(size: tuple[int, int], batch: int, seed: int) -> Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def write_files(folder: Path, manifest: dict, arrays: dict[str, Tensor]) -> tuple[Path, Path]:
    """Write a manifest, completed by axes and tolerances, and a golden; return their paths."""
    manifest = {
        "axes": {"input": "b c h w", "codes": "b h w", "reconstruction": "b c h w"},
        "tolerance": {"code_agreement": 1.0, "latent_max_abs": 1e-4, "reconstruction_max_abs": 1e-4},
        **manifest,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.savez(folder / "golden.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / "manifest.json", folder / "golden.npz"
