"""Video frame by frame, for networks and losses of images."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def frames(signal: Tensor) -> Tensor:
    """Return images `[B, 3, H, W]` as they are, and video `[B, 3, T, H, W]` as images `[B * T, 3, H, W]`."""
    return rearrange(signal, "b c t h w -> (b t) c h w") if signal.ndim == 5 else signal
