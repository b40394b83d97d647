"""The transformer block of the original ViT, as CLIP and the tokenizers after it have it."""

from __future__ import annotations

from torch import Tensor, nn


class TransformerBlock(nn.Module):
    """Attention, then an MLP of four times the width, each with a norm before it; `[B, tokens, width]` in and out."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))
