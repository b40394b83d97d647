"""LlamaGen's encoder and decoder as their description states them, reading published names; FQGAN has the same."""

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_BLOCKS, NECK = 2, 256


class Shapes(dict):
    """Published names and shapes, `{key: {"shape", "dtype", ...}}` as in a manifest."""

    def tensor(self, key: str, *shape: int, **fill: float) -> None:
        self[key] = {"shape": list(shape), "dtype": "float32", **fill}

    def norm(self, key: str, channels: int) -> None:
        self.tensor(f"{key}.weight", channels)
        self.tensor(f"{key}.bias", channels)

    def linear(self, key: str, c_in: int, c_out: int, *kernel: int, **fill: float) -> None:
        self.tensor(f"{key}.weight", c_out, c_in, *kernel, **fill)
        self.tensor(f"{key}.bias", c_out)

    def block(self, key: str, c_in: int, c_out: int) -> None:
        self.norm(f"{key}.norm1", c_in)
        self.linear(f"{key}.conv1", c_in, c_out, 3, 3)
        self.norm(f"{key}.norm2", c_out)
        self.linear(f"{key}.conv2", c_out, c_out, 3, 3)
        if c_in != c_out:
            self.linear(f"{key}.nin_shortcut", c_in, c_out, 1, 1)

    def attention(self, key: str, c: int) -> None:
        self.norm(f"{key}.norm", c)
        for part in ("q", "k"):
            self.linear(f"{key}.{part}", c, c, 1, 1, std=2 / c**0.5)  # peaked, so that attention shows
        for part in ("v", "proj_out"):
            self.linear(f"{key}.{part}", c, c, 1, 1)

    def middle(self, key: str, c: int) -> None:
        self.block(f"{key}.0", c, c)
        self.attention(f"{key}.1", c)
        self.block(f"{key}.2", c, c)

    def trunk(self, width: int, multipliers: tuple[int, ...]) -> None:
        channels = [width, *(width * multiplier for multiplier in multipliers)]
        self.linear("encoder.conv_in", 3, width, 3, 3)
        last = len(multipliers) - 1
        for i in range(last + 1):
            key, c = f"encoder.conv_blocks.{i}", channels[i + 1]
            for j in range(NUM_BLOCKS):
                self.block(f"{key}.res.{j}", channels[i] if j == 0 else c, c)
                if i == last:
                    self.attention(f"{key}.attn.{j}", c)
            if i < last:
                self.linear(f"{key}.downsample.conv", c, c, 3, 3)
        self.middle("encoder.mid", channels[-1])

    def decoder(self, width: int, multipliers: tuple[int, ...], dim: int) -> None:
        channels = [width * multipliers[-1], *(width * multiplier for multiplier in reversed(multipliers))]
        self.linear("post_quant_conv", dim, NECK, 1, 1)
        self.linear("decoder.conv_in", NECK, channels[0], 3, 3)
        self.middle("decoder.mid", channels[0])
        for i in range(len(multipliers)):
            key, c = f"decoder.conv_blocks.{i}", channels[i + 1]
            for j in range(NUM_BLOCKS + 1):
                self.block(f"{key}.res.{j}", channels[i] if j == 0 else c, c)
                if i == 0:
                    self.attention(f"{key}.attn.{j}", c)
            if i < len(multipliers) - 1:
                self.linear(f"{key}.upsample.conv", c, c, 3, 3)
        self.norm("decoder.norm_out", width)
        self.linear("decoder.conv_out", width, 3, 3, 3)


class PlainLlamaGen:
    """What encoder and decoder compute; every norm of a vector, softmax and padding written out."""

    def __init__(self, state: dict[str, Tensor]):
        self.state = state

    def conv(self, x, key, **options):
        return F.conv2d(x, self.state[f"{key}.weight"], self.state[f"{key}.bias"], **options)

    def norm(self, x, key):
        groups = min(32, x.shape[1] // 4)  # 32 where there are as many channels as published
        grouped = x.reshape(x.shape[0], groups, -1)
        mean = grouped.mean(2, keepdim=True)
        variance = ((grouped - mean) ** 2).mean(2, keepdim=True)
        x = ((grouped - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
        return x * self.state[f"{key}.weight"][:, None, None] + self.state[f"{key}.bias"][:, None, None]

    def norm_swish(self, x, key):
        x = self.norm(x, key)
        return x * torch.sigmoid(x)

    def block(self, x, key):
        h = self.conv(self.norm_swish(x, f"{key}.norm1"), f"{key}.conv1", padding=1)
        h = self.conv(self.norm_swish(h, f"{key}.norm2"), f"{key}.conv2", padding=1)
        shortcut = f"{key}.nin_shortcut"
        return h + (self.conv(x, shortcut) if f"{shortcut}.weight" in self.state else x)

    def attention(self, x, key):
        n = self.norm(x, f"{key}.norm")
        q, k, v = (self.conv(n, f"{key}.{part}").flatten(2) for part in "qkv")
        weights = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) / q.shape[1] ** 0.5, dim=2)
        h = torch.einsum("bqk,bck->bcq", weights, v).reshape(x.shape)
        return x + self.conv(h, f"{key}.proj_out")

    def level(self, x, key):
        j = 0
        while f"{key}.res.{j}.conv1.weight" in self.state:
            x = self.block(x, f"{key}.res.{j}")
            if f"{key}.attn.{j}.q.weight" in self.state:
                x = self.attention(x, f"{key}.attn.{j}")
            j += 1
        return x

    def middle(self, x, key):
        return self.block(self.attention(self.block(x, f"{key}.0"), f"{key}.1"), f"{key}.2")

    def trunk(self, x, num_levels):
        x = self.conv(x, "encoder.conv_in", padding=1)
        for i in range(num_levels):
            key = f"encoder.conv_blocks.{i}"
            x = self.level(x, key)
            if i < num_levels - 1:
                wide = x.new_zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1)
                wide[:, :, :-1, :-1] = x
                x = self.conv(wide, f"{key}.downsample.conv", stride=2)
        return self.middle(x, "encoder.mid")

    def unit_rows(self, key):
        rows = self.state[key]
        return rows / rows.norm(dim=1, keepdim=True)

    def nearest(self, latent, key):
        """Codes `[B, h, w]` of `[B, dim, h, w]`."""
        unit = (latent / latent.norm(dim=1, keepdim=True)).movedim(1, -1)
        return ((unit[..., None, :] - self.unit_rows(key)) ** 2).sum(-1).argmin(-1)

    def decode(self, vectors, num_levels):
        x = self.conv(self.conv(vectors, "post_quant_conv"), "decoder.conv_in", padding=1)
        x = self.middle(x, "decoder.mid")
        for i in range(num_levels):
            key = f"decoder.conv_blocks.{i}"
            x = self.level(x, key)
            if i < num_levels - 1:
                x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                x = self.conv(x, f"{key}.upsample.conv", padding=1)
        return self.conv(self.norm_swish(x, "decoder.norm_out"), "decoder.conv_out", padding=1)
