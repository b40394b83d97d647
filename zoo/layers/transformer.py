"""The transformer block of the original ViT, as used in CLIP and in tokenizers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.layers.onednn import linear


class TransformerBlock(nn.Module):
    """Attention, then an MLP, each after a norm; takes and returns `[B, tokens, width]`.

    Args:
        width, num_heads: channels and heads. hidden_dim: channels inside the MLP; None: four times the width.
        epsilon: of the norms. activation: makes the nonlinearity of the MLP.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden_dim: int | None = None,
        *,
        epsilon: float = 1e-5,
        activation: Callable[[], nn.Module] = nn.GELU,
    ):
        super().__init__()
        hidden_dim = 4 * width if hidden_dim is None else hidden_dim
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = nn.Sequential(nn.Linear(width, hidden_dim), activation(), nn.Linear(hidden_dim, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + attended(self.attention, self.norm1(x))
        return x + self.mlp(self.norm2(x))


def attended(attention: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Return what the attention of `[B, tokens, width]` to itself is, without dropout."""
    parts = linear(x, attention.in_proj_weight, attention.in_proj_bias)
    # Contiguous: otherwise the CPU's kernel holds the whole matrix of logits in memory.
    q, k, v = rearrange(parts, "b t (part h c) -> part b h t c", part=3, h=attention.num_heads).contiguous()
    heads = rearrange(F.scaled_dot_product_attention(q, k, v), "b h t c -> b t (h c)")
    return linear(heads, attention.out_proj.weight, attention.out_proj.bias)


# Values of key maps: published weights of attention as those of `nn.MultiheadAttention`


def stacked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the weights or biases of queries, keys and values in one."""
    return torch.cat([query, key, value])


def with_key_bias(query: Tensor, value: Tensor) -> Tensor:
    """Return the biases of queries, keys and values in one, for published layers that have none for the keys."""
    return torch.cat([query, torch.zeros_like(query), value])
