"""The flow-matching transformer of LeVo's codec: from codes and noise to the latents of a waveform autoencoder."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

SIGMA = 1e-4  # deviation of the noise that is left at time 1
GUIDANCE = 1.5
GENERATED, GIVEN = 2, 1  # rows of the table that says of each frame whether it is to be generated
TIME_CHANNELS, TIME_SCALE = 512, 1000
FEWEST = 10  # frames before the statistics of latents are used
LEAST_CONTEXT, MOST_CONTEXT = 64, 128  # frames that are given in training


class Modulation(NamedTuple):
    """A time's embedding `[B, width]`, and the shifts, scales and gates of all blocks, `[B, 6, 1, width]`."""

    embedding: Tensor
    blocks: Tensor


class TimeEmbedding(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.linear1 = nn.Linear(TIME_CHANNELS, width)
        self.linear2 = nn.Linear(width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, time: Tensor) -> Modulation:
        half = TIME_CHANNELS // 2
        rates = 10000 ** (-torch.arange(half, device=time.device, dtype=torch.float32) / half)
        angles = TIME_SCALE * time.float()[:, None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.linear1.weight.dtype)
        embedding = self.linear2(F.silu(self.linear1(waves)))
        blocks = self.modulation(F.silu(embedding)).unflatten(-1, (6, 1, -1))
        return Modulation(embedding, blocks)


def rotated(x: Tensor) -> Tensor:
    """Return `[B, heads, frames, dim]` with rotary positions, of which a pair is two neighbouring channels."""
    half = x.shape[-1] // 2
    rates = 10000 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angles = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * rates
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class Block(nn.Module):
    """Attention and MLP, each with a shift, a scale and a gate that depend on the time."""

    def __init__(self, width: int, hidden: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.modulation = nn.Parameter(torch.randn(6, width) / math.sqrt(width))
        self.norm1 = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.modulation[:, None]).unbind(dim=1)
        x = x + gate1 * self.attention(self.norm1(x) * (1 + scale1) + shift1)
        h = F.gelu(self.expand(self.norm2(x) * (1 + scale2) + shift2), approximate="tanh")
        return x + gate2 * self.contract(h)

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.query_key_value(x), "b t (p h d) -> p b h t d", p=3, h=self.num_heads)
        attended = F.scaled_dot_product_attention(rotated(q), rotated(k), v)
        return self.out(rearrange(attended, "b h t d -> b t (h d)"))


class FlowTransformer(nn.Module):
    """Flow matching: a velocity field that carries noise to latents, on condition of quantized features.

    A frame's mask, given latent, condition and noisy latent side by side are the transformer's state; there is no
    layer before it.

    Args:
        condition_dim: channels of the condition. latent_dim: channels of a latent. mask_dim: channels of the mask.
        hidden: width of the MLPs. num_heads, num_layers: heads and blocks of the transformer.
        positions: most frames that are generated at once.
    """

    latent_count: Tensor
    latent_sum: Tensor
    latent_square_sum: Tensor

    def __init__(
        self,
        condition_dim: int,
        latent_dim: int,
        mask_dim: int,
        hidden: int,
        num_heads: int,
        num_layers: int,
        positions: int,
    ):
        super().__init__()
        width = mask_dim + 2 * latent_dim + condition_dim
        self.latent_dim, self.positions = latent_dim, positions
        self.mask = nn.Embedding(3, mask_dim)
        self.position = nn.Embedding(positions, width)
        self.time = TimeEmbedding(width)
        self.blocks = nn.ModuleList(Block(width, hidden, num_heads) for _ in range(num_layers))
        self.modulation = nn.Parameter(torch.randn(2, width) / math.sqrt(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, width)
        # Running sums of the latents of training, by which they are normalised.
        self.register_buffer("latent_count", torch.zeros(1))
        self.register_buffer("latent_sum", torch.zeros(latent_dim))
        self.register_buffer("latent_square_sum", torch.zeros(latent_dim))

    def forward(self, x: Tensor, given: Tensor, condition: Tensor, time: Tensor, num_given: int) -> Tensor:
        """Return the velocity `[B, latent_dim, frames]`.

        Args:
            x: noisy latents `[B, latent_dim, frames]`.
            given: normalised latents of the first `num_given` frames, 0 elsewhere, as `x`.
            condition: `[B, condition_dim, frames]`.
            time: `[B]` or `[1]`, from 0 (noise) to 1.
        """
        frames = torch.arange(x.shape[-1], device=x.device)
        mask = torch.where(frames < num_given, GIVEN, GENERATED)
        mask_channels = self.mask(mask).expand(x.shape[0], -1, -1)
        h = torch.cat([mask_channels, given.mT, condition.mT, x.mT], dim=-1) + self.position(frames)
        modulation = self.time(time)
        for block in self.blocks:
            h = block(h, modulation.blocks)
        shift, scale = (modulation.embedding[:, None] + self.modulation).unbind(dim=1)
        h = self.norm(h) * (1 + scale[:, None]) + shift[:, None]
        return self.head(h)[..., -self.latent_dim :].mT

    def guided_velocities(
        self, x: Tensor, given: Tensor, condition: Tensor, time: float, num_given: int
    ) -> tuple[Tensor, Tensor]:
        """Return the velocities without and with the condition, for one time of the whole batch."""
        conditions = torch.cat([torch.zeros_like(condition), condition])
        times = torch.full((1,), time, device=x.device)
        both = self(torch.cat([x, x]), torch.cat([given, given]), conditions, times, num_given)
        without, with_condition = both.chunk(2)
        return without, with_condition

    def sample(self, condition: Tensor, noise: Tensor, num_steps: int, context: Tensor | None = None) -> Tensor:
        """Return latents `[B, latent_dim, frames]`, by Euler's method.

        Args:
            condition: `[B, condition_dim, frames]`, at most `positions` frames.
            noise: standard normal, `[B, latent_dim, frames]`.
            num_steps: steps from noise to latents.
            context: latents of the first frames, which are kept, `[B, latent_dim, given frames]`; None: none.
        """
        known = noise[..., :0] if context is None else self.normalized(context)
        num_given, x = known.shape[-1], noise
        given = F.pad(known, (0, noise.shape[-1] - num_given))
        for step in range(num_steps):
            time = step / num_steps
            start = (1 - (1 - SIGMA) * time) * noise[..., :num_given] + time * known
            x = torch.cat([start, x[..., num_given:]], dim=-1)
            without, with_condition = self.guided_velocities(x, given, condition, time, num_given)
            x = x + (without + GUIDANCE * (with_condition - without)) / num_steps
        mean, std = self.statistics(noise.dtype)
        return torch.cat([known, x[..., num_given:]], dim=-1) * std + mean

    def training_step(self, condition: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of flow matching, a scalar, and the latents that the predicted velocity leads to.

        Half of the batches have a context of 64 to 128 frames (or half of the clip, if that is less); one condition in
        ten is left out, for guidance. The statistics of `latents` are counted.

        Args:
            condition: `[B, condition_dim, frames]`. latents: `[B, latent_dim, frames]`, without gradient.
        """
        self._count(latents)
        target = self.normalized(latents)
        frames, most = target.shape[-1], min(MOST_CONTEXT, target.shape[-1] // 2)
        has_context = bool(torch.rand(()) < 0.5) and most > 0
        num_given = int(torch.randint(min(LEAST_CONTEXT, most), most + 1, ())) if has_context else 0
        kept = torch.rand(len(target), 1, 1, device=target.device) >= 0.1
        time = torch.rand(len(target), device=target.device, dtype=target.dtype)
        noise = torch.randn_like(target)
        after = time[:, None, None]
        x = (1 - (1 - SIGMA) * after) * noise + after * target
        given = F.pad(target[..., :num_given], (0, frames - num_given))
        velocity = self(x, given, condition * kept, time, num_given)
        wanted = target - (1 - SIGMA) * noise
        loss = F.mse_loss(velocity[..., num_given:].float(), wanted[..., num_given:].float())
        mean, std = self.statistics(target.dtype)
        return loss, (x + (1 - after) * velocity) * std + mean

    def normalized(self, latents: Tensor) -> Tensor:
        mean, std = self.statistics(latents.dtype)
        return (latents - mean) / std

    def statistics(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the latents of training, `[latent_dim, 1]`; 0 and 1 before there are any."""
        count, total, squares = (
            buffer.float() for buffer in (self.latent_count, self.latent_sum, self.latent_square_sum)
        )
        enough = count >= FEWEST
        mean = torch.where(enough, total / count.clamp(min=1), 0)
        variance = torch.where(enough, squares / count.clamp(min=1) - mean.square(), 1)
        return mean[:, None].to(dtype), variance.clamp(min=0).sqrt()[:, None].to(dtype)

    @torch.no_grad()
    def _count(self, latents: Tensor) -> None:
        vectors = latents.movedim(1, -1).reshape(-1, self.latent_dim).to(self.latent_sum.dtype)
        self.latent_count += len(vectors)
        self.latent_sum += vectors.sum(dim=0)
        self.latent_square_sum += vectors.square().sum(dim=0)
