"""Folding trunk and structure module: vectors of residues to backbone atoms.

Papers: Evolutionary-scale prediction of atomic-level protein structure with a language model (ESMFold, Science 2023)
for the trunk; Highly accurate protein structure prediction with AlphaFold (Nature 2021, supplement 1.8) for triangle
products, invariant point attention and the structure module. References: facebookresearch/esm 2.0.0, aqlaboratory/
openfold.
The trunk passes between one state per residue and one per pair of residues; the structure module moves one rigid
frame per residue. Every residue is an alanine of fixed geometry, of which only the oxygen turns. Frames and atoms are
float32 for weights of any dtype.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.models.structure.dplm2.esm_if1 import side_by_side
from zoo.quantizers.base import without_autocast

MAX_OFFSET = 32  # residues; all greater distances along the chain are treated as equal
NUM_HEADS, HEAD_WIDTH, QUERY_POINTS, VALUE_POINTS = 12, 16, 4, 8  # invariant point attention
NUM_ANGLES, PSI = 7, 2
ANGSTROM = 10.0  # angstrom in a unit of the frames' translations

# N, CA, C and CB in the frame of the residue, angstrom; then O, which turns about the axis through CA and C by psi.
ALANINE = ((-0.525, 1.363, 0.0), (0.0, 0.0, 0.0), (1.526, 0.0, 0.0), (-0.529, -0.774, -1.205))
OXYGEN_ALONG, OXYGEN_ACROSS = 1.526 + 0.627, 1.062


def mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


def key_bias(bias: Tensor, mask: Tensor) -> Tensor:
    """`bias` `[B, ..., keys]`, made so low where `mask` `[B, keys]` is False that those keys get no weight."""
    absent = ~mask.view(mask.shape[0], *[1] * (bias.ndim - 2), -1)
    return bias.masked_fill(absent, torch.finfo(bias.dtype).min)


# The trunk


class GatedAttention(nn.Module):
    """Attention over residues, biased by the pairs; the gate sees the same input as the queries."""

    def __init__(self, width: int, head_width: int):
        super().__init__()
        self.num_heads = width // head_width
        self.proj = nn.Linear(width, 3 * width, bias=False)
        self.gate = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = rearrange(self.proj(x), "b l (h c) -> b h l c", h=self.num_heads).chunk(3, dim=-1)
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out(self.gate(x).sigmoid() * side_by_side(heads))


class SequenceToPair(nn.Module):
    """Products and differences of two residues' states, `[B, L, width]` to `[B, L, L, pair_width]`."""

    def __init__(self, width: int, pair_width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, pair_width)
        self.out = nn.Linear(pair_width, pair_width)

    def forward(self, single: Tensor) -> Tensor:
        second, first = self.proj(self.norm(single)).chunk(2, dim=-1)
        first, second = first[:, :, None], second[:, None]
        return self.out(torch.cat([second * first, second - first], dim=-1))


class TriangleProduct(nn.Module):
    """Updates each pair (i, j) from (i, k) and (j, k) for all k if `outgoing`, else from (k, i) and (k, j)."""

    def __init__(self, width: int, *, outgoing: bool):
        super().__init__()
        self.equation = "bikc,bjkc->bijc" if outgoing else "bkic,bkjc->bijc"
        self.norm = nn.LayerNorm(width)
        self.first, self.first_gate = nn.Linear(width, width), nn.Linear(width, width)
        self.second, self.second_gate = nn.Linear(width, width), nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width)
        self.out, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, pair: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(pair)
        both = (mask[:, :, None] & mask[:, None])[..., None]
        first = unit_deviation(both * self.first_gate(x).sigmoid() * self.first(x))
        second = unit_deviation(both * self.second_gate(x).sigmoid() * self.second(x))
        return self.out(self.norm_out(torch.einsum(self.equation, first, second))) * self.gate(x).sigmoid()


def unit_deviation(x: Tensor) -> Tensor:
    # The reference divides by the standard deviation over the whole batch, so that the other chains of a batch shift
    # the atoms by 1e-4 angstrom. Here each item is its own batch.
    deviation = x.std(dim=(1, 2, 3), keepdim=True)
    return x / torch.where(deviation > 0, deviation, 1.0)


class TriangleAttention(nn.Module):
    """Each pair attends to the pairs with the same first residue, biased by the third side; one head."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Linear(width, 1, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)

    def forward(self, pair: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(pair)
        bias = key_bias(rearrange(self.bias(x), "b j k 1 -> b 1 j k"), mask)
        head = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x), attn_mask=bias)
        return self.out(self.gate(x).sigmoid() * head)


class TrunkBlock(nn.Module):
    def __init__(self, width: int, pair_width: int, head_width: int):
        super().__init__()
        self.pair_to_sequence = nn.Sequential(
            nn.LayerNorm(pair_width), nn.Linear(pair_width, width // head_width, bias=False)
        )
        self.attention_norm = nn.LayerNorm(width)
        self.attention = GatedAttention(width, head_width)
        self.single_mlp = mlp(width, 4 * width, width)
        self.sequence_to_pair = SequenceToPair(width, pair_width)
        self.product_outgoing = TriangleProduct(pair_width, outgoing=True)
        self.product_incoming = TriangleProduct(pair_width, outgoing=False)
        self.attention_starting = TriangleAttention(pair_width)
        self.attention_ending = TriangleAttention(pair_width)
        self.pair_mlp = mlp(pair_width, 4 * pair_width, pair_width)

    def forward(self, single: Tensor, pair: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        bias = key_bias(rearrange(self.pair_to_sequence(pair), "b i j h -> b h i j"), mask)
        single = single + self.attention(self.attention_norm(single), bias)
        single = single + self.single_mlp(single)
        pair = pair + self.sequence_to_pair(single)
        pair = pair + self.product_outgoing(pair, mask)
        pair = pair + self.product_incoming(pair, mask)
        pair = pair + self.attention_starting(pair, mask)
        pair = pair + self.attention_ending(pair.transpose(1, 2), mask).transpose(1, 2)
        return single, pair + self.pair_mlp(pair)


class FoldingTrunk(nn.Module):
    """One pass, without recycling: `[B, L, width]` to states of residues and of pairs `[B, L, L, pair_width]`."""

    def __init__(self, width: int, pair_width: int, head_width: int, num_blocks: int):
        super().__init__()
        # What recycling adds in the first pass, where there is nothing to recycle: norms of zeros are their biases.
        self.single_start = nn.Parameter(torch.zeros(width))
        self.pair_start = nn.Parameter(torch.zeros(pair_width))
        self.distance_start = nn.Parameter(torch.zeros(pair_width))
        self.offset = nn.Embedding(2 * MAX_OFFSET + 2, pair_width)
        self.blocks = nn.ModuleList(TrunkBlock(width, pair_width, head_width) for _ in range(num_blocks))

    def forward(self, single: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        number = torch.arange(mask.shape[1], device=mask.device)
        offset = (number - number[:, None]).clamp(-MAX_OFFSET, MAX_OFFSET) + MAX_OFFSET + 1
        offset = offset * (mask[:, :, None] & mask[:, None])
        single = single + self.single_start
        pair = self.pair_start + self.distance_start + self.offset(offset)
        for block in self.blocks:
            single, pair = block(single, pair, mask)
        return single, pair


# The structure module


class Frames(NamedTuple):
    """A rigid motion per residue: unit quaternions `[B, L, 4]`, real part first, and translations `[B, L, 3]`."""

    quaternion: Tensor
    translation: Tensor

    @property
    def rotation(self) -> Tensor:
        w, x, y, z = self.quaternion.unbind(-1)
        rows = (
            (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
        )
        return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)

    def rotate(self, vectors: Tensor) -> Tensor:
        """Vectors `[B, L, n, 3]` of each residue from its own frame to the common one."""
        return (self.rotation[:, :, None] * vectors[..., None, :]).sum(-1)

    def apply(self, points: Tensor) -> Tensor:
        """Points `[B, L, n, 3]` of each residue from its own frame to the common one."""
        return self.rotate(points) + self.translation[:, :, None]

    def apply_inverse(self, points: Tensor) -> Tensor:
        """Points `[B, L, n, 3]` in the common frame to each residue's own."""
        offset = points - self.translation[:, :, None]
        return (self.rotation.transpose(-1, -2)[:, :, None] * offset[..., None, :]).sum(-1)

    def moved(self, update: Tensor) -> Frames:
        """The frames turned by quaternions (1, b, c, d) and moved by (x, y, z) along their own axes, `[B, L, 6]`."""
        turn, step = update.chunk(2, dim=-1)
        real, imaginary = self.quaternion[..., :1], self.quaternion[..., 1:]
        product = (
            -(imaginary * turn).sum(-1, keepdim=True),
            real * turn + torch.linalg.cross(imaginary, turn),
        )
        quaternion = self.quaternion + torch.cat(product, dim=-1)
        quaternion = quaternion / quaternion.square().sum(-1, keepdim=True).sqrt()
        return Frames(quaternion, self.translation + self.rotate(step[:, :, None])[:, :, 0])


class InvariantPointAttention(nn.Module):
    """Attention over residues that also compares points which each residue places in its own frame."""

    def __init__(self, width: int, pair_width: int):
        super().__init__()
        self.head_weights = nn.Parameter(torch.full((NUM_HEADS,), math.log(math.e - 1)))  # softplus gives 1
        self.query = nn.Linear(width, NUM_HEADS * HEAD_WIDTH)
        self.key_value = nn.Linear(width, 2 * NUM_HEADS * HEAD_WIDTH)
        self.query_points = nn.Linear(width, 3 * NUM_HEADS * QUERY_POINTS)
        self.key_value_points = nn.Linear(width, 3 * NUM_HEADS * (QUERY_POINTS + VALUE_POINTS))
        self.bias = nn.Linear(pair_width, NUM_HEADS)
        self.out = nn.Linear(NUM_HEADS * (HEAD_WIDTH + 4 * VALUE_POINTS + pair_width), width)

    def forward(self, single: Tensor, pair: Tensor, frames: Frames, mask: Tensor) -> Tensor:
        query, key_value = (
            rearrange(projection(single).float(), "b l (h c) -> b h l c", h=NUM_HEADS)
            for projection in (self.query, self.key_value)
        )
        key, value = key_value.chunk(2, dim=-1)
        query_points, key_value_points = (
            rearrange(
                frames.apply(rearrange(projection(single).float(), "b l (xyz p) -> b l p xyz", xyz=3)),
                "b l (h p) xyz -> b h l p xyz",
                h=NUM_HEADS,
            )
            for projection in (self.query_points, self.key_value_points)
        )
        key_points, value_points = key_value_points.split((QUERY_POINTS, VALUE_POINTS), dim=3)

        query_points, key_points = query_points.flatten(3), key_points.flatten(3)
        norms = query_points.square().sum(-1)[..., None] + key_points.square().sum(-1)[..., None, :]
        distance = norms - 2 * query_points @ key_points.transpose(-1, -2)  # squared, all points: [B, heads, L, L]
        point_scale = F.softplus(self.head_weights.float()) * math.sqrt(1 / (3 * QUERY_POINTS * 9 / 2))
        logits = (
            query @ key.transpose(-1, -2) * math.sqrt(1 / (3 * HEAD_WIDTH))
            + rearrange(self.bias(pair).float(), "b i j h -> b h i j") * math.sqrt(1 / 3)
            - 0.5 * point_scale[:, None, None] * distance
        )
        weights = key_bias(logits, mask).softmax(dim=-1)

        values = rearrange(weights @ value, "b h l c -> b l (h c)")
        points = torch.einsum("bhij,bhjpx->bihpx", weights, value_points)
        points = frames.apply_inverse(points.flatten(2, 3))
        lengths = (points.square().sum(-1) + 1e-8).sqrt()
        pairs = torch.einsum("bhij,bijc->bihc", weights, pair.float()).flatten(2)
        features = torch.cat([values, rearrange(points, "b l p xyz -> b l (xyz p)"), lengths, pairs], dim=-1)
        return self.out(features.to(single.dtype))


class Transition(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, single: Tensor) -> Tensor:
        return self.norm(single + self.layers(single))


class AngleNetwork(nn.Module):
    """Torsion angles as (sine, cosine), float32 `[B, L, 7, 2]`: pre-omega, phi, psi and four of the side chain."""

    def __init__(self, width: int):
        super().__init__()
        self.stem = nn.Linear(width, width)
        self.initial = nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(2)
        )
        self.out = nn.Linear(width, 2 * NUM_ANGLES)

    def forward(self, single: Tensor, initial: Tensor) -> Tensor:
        x = self.stem(single.relu()) + self.initial(initial.relu())
        for block in self.blocks:
            x = x + block(x)
        angles = self.out(x.relu()).float().unflatten(-1, (NUM_ANGLES, 2))
        return angles / angles.square().sum(-1, keepdim=True).clamp(min=1e-8).sqrt()


class StructureModule(nn.Module):
    """States of residues and pairs to atoms, by `num_iterations` of the same weights.

    Dropout, with which the reference trains it, is left out.
    """

    def __init__(self, width: int, pair_width: int, num_iterations: int):
        super().__init__()
        self.num_iterations = num_iterations
        self.single_in = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.pair_in = nn.Sequential(nn.Linear(pair_width, pair_width), nn.LayerNorm(pair_width))
        self.stem = nn.Linear(width, width)
        self.attention = InvariantPointAttention(width, pair_width)
        self.attention_norm = nn.LayerNorm(width)
        self.transition = Transition(width)
        self.update = nn.Linear(width, 6)
        self.angles = AngleNetwork(width)
        # Before training, frames are near the identity (in AlphaFold, at it).
        with torch.no_grad():
            self.update.weight.mul_(0.1)
            self.update.bias.zero_()

    def forward(self, single: Tensor, pair: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the atoms of each residue, and the last states.

        Args:
            single: `[B, L, width]`.
            pair: `[B, L, L, pair_width]`.
            mask: bool `[B, L]`, whether there is a residue.

        Returns:
            N, CA, C, CB and O, float32 `[B, L, 5, 3]` in angstrom, and the last states `[B, L, width]`.
        """
        with without_autocast(single):
            dtype = self.stem.weight.dtype
            initial, pair = self.single_in(single.to(dtype)), self.pair_in(pair.to(dtype))
            single = self.stem(initial)
            frames = Frames(
                torch.tensor([1.0, 0.0, 0.0, 0.0], device=mask.device).expand(*mask.shape, 4),
                torch.zeros(*mask.shape, 3, device=mask.device),
            )
            for _ in range(self.num_iterations):
                # As in AlphaFold, no gradient flows through the rotations of earlier iterations.
                frames = Frames(frames.quaternion.detach(), frames.translation)
                single = self.attention_norm(single + self.attention(single, pair, frames, mask))
                single = self.transition(single)
                frames = frames.moved(self.update(single).float())
            return backbone_atoms(frames, self.angles(single, initial)[:, :, PSI]), single


def backbone_atoms(frames: Frames, psi: Tensor) -> Tensor:
    """Atoms `[B, L, 5, 3]` of alanines in `frames`; `psi` `[B, L, 2]` is (sine, cosine)."""
    rigid = torch.tensor(ALANINE, device=psi.device).expand(*psi.shape[:2], 4, 3)
    sine, cosine = psi.unbind(-1)
    oxygen = torch.stack([torch.full_like(sine, OXYGEN_ALONG), -OXYGEN_ACROSS * cosine, -OXYGEN_ACROSS * sine], dim=-1)
    atoms = torch.cat([rigid, oxygen[:, :, None]], dim=2)
    return frames.rotate(atoms) + ANGSTROM * frames.translation[:, :, None]
