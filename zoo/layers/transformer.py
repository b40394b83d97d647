"""The transformer block of the original ViT, as used in CLIP and in tokenizers."""

from __future__ import annotations

from torch import Tensor, nn


class TransformerBlock(nn.Module):
    """Attention, then an MLP of four times the width, each after a norm; takes and returns `[B, tokens, width]`."""

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
