"""A causal transformer over time with rotary positions, for a whole signal at once or for one that arrives in parts.

As in `zoo.layers.causal`, the layers hold no state: keys and values of earlier steps are in the caller's `Memory`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.layers.causal import Memory


class Steps(NamedTuple):
    """What the layers share about the steps that they are given: cosine and sine of each one's angles, and the mask.

    cos, sin: float32 `[steps, head_dim / 2]`. mask: bool `[steps, earlier + steps]`, true where a step sees another.
    window: number of steps that a step sees, itself included; None: all before it.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor
    window: int | None


class CausalAttention(nn.Module):
    """Self-attention of `[B, time, width]` in several heads, in which each step sees itself and steps before it."""

    def __init__(self, width: int, num_heads: int, head_dim: int):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, num_heads * head_dim, bias=False)
        self.key = nn.Linear(width, num_heads * head_dim, bias=False)
        self.value = nn.Linear(width, num_heads * head_dim, bias=False)
        self.out = nn.Linear(num_heads * head_dim, width, bias=False)

    def forward(self, x: Tensor, steps: Steps, memory: Memory | None) -> Tensor:
        q, k, v = (
            rearrange(project(x), "b t (h d) -> b h t d", h=self.num_heads)
            for project in (self.query, self.key, self.value)
        )
        q, k = (rotate(x, steps.cos, steps.sin) for x in (q, k))
        if memory is not None:
            if self in memory:
                earlier_keys, earlier_values = memory[self]
                k, v = torch.cat([earlier_keys, k], dim=2), torch.cat([earlier_values, v], dim=2)
            memory[self] = k, v
            if steps.window is not None and (first := k.shape[2] - steps.window + 1) > 0:
                memory[self] = k[:, :, first:].clone(), v[:, :, first:].clone()
        attended = F.scaled_dot_product_attention(q, k, v, steps.mask)
        return self.out(rearrange(attended, "b h t d -> b t (h d)"))


class TransformerLayer(nn.Module):
    """Attention, then an MLP, each after a norm and scaled channel by channel before it is added."""

    def __init__(self, attention: CausalAttention, norms: tuple[nn.Module, nn.Module], mlp: nn.Module, width: int):
        super().__init__()
        self.norm1, self.norm2 = norms
        self.attention = attention
        self.mlp = mlp
        self.scale1 = nn.Parameter(torch.full((width,), 0.01))
        self.scale2 = nn.Parameter(torch.full((width,), 0.01))

    def forward(self, x: Tensor, steps: Steps, memory: Memory | None) -> Tensor:
        x = x + self.scale1 * self.attention(self.norm1(x), steps, memory)
        return x + self.scale2 * self.mlp(self.norm2(x))


class CausalTransformer(nn.Module):
    """Layers over `[B, time, width]` in which a step sees the `window` steps that end with it.

    Args:
        norm, mlp: functions that make a layer's norm and its MLP for a width.
    """

    def __init__(
        self,
        width: int,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        window: int,
        norm: Callable[[int], nn.Module],
        mlp: Callable[[int], nn.Module],
    ):
        super().__init__()
        self.head_dim, self.window = head_dim, window
        self.layers = nn.ModuleList(
            TransformerLayer(CausalAttention(width, num_heads, head_dim), (norm(width), norm(width)), mlp(width), width)
            for _ in range(num_layers)
        )

    def forward(self, x: Tensor, memory: Memory | None = None, *, windowed: bool = True) -> Tensor:
        """Return the last layer's output, `[B, time, width]`.

        windowed: whether the window limits what a step sees; if not, the memory grows with the signal.
        """
        window = self.window if windowed else None
        done = 0 if memory is None else memory.get(self, 0)
        if memory is not None:
            memory[self] = done + x.shape[1]
        earlier = done if window is None else min(done, window - 1)
        steps = Steps(
            *angles(done, x.shape[1], self.head_dim, x.device), visible(earlier, x.shape[1], window, x.device), window
        )
        for layer in self.layers:
            x = layer(x, steps, memory)
        return x


def angles(first: int, steps: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of rotary positions of base 10,000, float32 `[steps, head_dim / 2]`.

    Positions are multiplied in float32, as in the published implementations: in a long signal, codes depend on it.
    """
    frequencies = 1.0 / 10000 ** (torch.arange(0, head_dim, 2, device=device).float() / head_dim)
    angle = torch.arange(first, first + steps, device=device).float()[:, None] * frequencies
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return `[B, heads, time, head_dim]` with dimensions i and i + head_dim / 2 turned by the angle of their step."""
    one, other = x.float().chunk(2, dim=-1)
    turned = torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)
    return turned.to(x.dtype)


def visible(earlier: int, steps: int, window: int | None, device: torch.device) -> Tensor:
    """Return which of `earlier + steps` steps each of the last `steps` sees: bool `[steps, earlier + steps]`."""
    key = torch.arange(earlier + steps, device=device)
    query = key[earlier:, None]
    mask = key <= query
    return mask if window is None else mask & (key > query - window)
