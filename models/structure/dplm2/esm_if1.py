"""The encoder of ESM-IF1: a protein backbone to one vector per residue.

Paper: Learning inverse folding from millions of predicted structures (ICML 2022, bioRxiv 2022.04.10.487779); its
graph network is that of Learning from Protein Structure with Geometric Vector Perceptrons (ICLR 2021, arXiv
2009.01411). Reference: facebookresearch/esm 2.0.0, `esm.inverse_folding`.
Scalars and vectors of a residue go through a graph of nearest neighbours, then, with the vectors turned into the
residue's own frame, through a transformer. The result does not depend on the position or rotation of a complete chain;
for its mirror image it is different. An atom that is absent lies at the origin, and its neighbours see it there.
A layer's features are a pair: scalars `[..., channels]` and vectors `[..., 3, channels]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.tracing import smaller

Features = tuple[Tensor, Tensor]

MAX_NEIGHBOURS = 30
NUM_RADIAL = 16  # Gaussians that encode a distance or a confidence
EDGE_SCALARS, EDGE_VECTORS = 2 * NUM_RADIAL + 2, 1
EDGE_DIMS = (32, 1)


# Geometry, in float32


def length(vectors: Tensor, dim: int = -1, keepdim: bool = False) -> Tensor:
    return (vectors.square().sum(dim, keepdim=keepdim) + 1e-8).sqrt()


def direction(vectors: Tensor) -> Tensor:
    return vectors / length(vectors, keepdim=True)


def radial_basis(values: Tensor, stop: float) -> Tensor:
    """`[...]` between 0 and `stop` to `[..., NUM_RADIAL]` Gaussians."""
    centres = torch.linspace(0, stop, NUM_RADIAL, device=values.device)
    return torch.exp(-((values[..., None] - centres) / (stop / NUM_RADIAL)).square())


def dihedral_features(backbone: Tensor, unit: Callable[[Tensor], Tensor]) -> Tensor:
    """Cosines, then sines of phi, psi and omega: `[B, L, 3, 3]` to `[B, L, 6]`; an angle that does not exist is 0."""
    bonds = unit(backbone.flatten(1, 2).diff(dim=1))
    first, second, third = bonds[:, :-2], bonds[:, 1:-1], bonds[:, 2:]
    normal = unit(torch.linalg.cross(first, second))
    next_normal = unit(torch.linalg.cross(second, third))
    cosine = (normal * next_normal).sum(-1).clamp(-1 + 1e-7, 1 - 1e-7)
    angles = (first * next_normal).sum(-1).sign() * cosine.acos()
    angles = F.pad(angles, (1, 2)).unflatten(1, (-1, 3))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def local_frames(backbone: Tensor) -> Tensor:
    """`[B, L, 3, 3]` to rotations `[B, L, 3, 3]` whose rows are the axes of the residue's own frame."""
    nitrogen, alpha, carbon = backbone.unbind(dim=2)
    first = direction(carbon - alpha)
    second = nitrogen - alpha
    second = direction(second - first * (first * second).sum(-1, keepdim=True))
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=2)


def chain_vectors(backbone: Tensor) -> Tensor:
    """Directions to the next and previous residue and to the side chain: `[B, L, 3, 3]` to `[B, L, xyz, 3]`."""
    nitrogen, alpha, carbon = backbone.unbind(dim=2)
    step = direction(alpha.diff(dim=1))
    to_carbon, to_nitrogen = direction(carbon - alpha), direction(nitrogen - alpha)
    bisector = direction(to_carbon + to_nitrogen)
    perpendicular = direction(torch.linalg.cross(to_carbon, to_nitrogen))
    side_chain = -math.sqrt(1 / 3) * bisector - math.sqrt(2 / 3) * perpendicular
    return torch.stack([F.pad(step, (0, 0, 0, 1)), F.pad(-step, (0, 0, 1, 0)), side_chain], dim=-1)


def in_own_frame(vectors: Tensor, frames: Tensor) -> Tensor:
    """Vectors `[B, L, xyz, channels]` in the frames of their residues, `[B, L, (channels xyz)]`."""
    return rearrange(frames.to(vectors.dtype) @ vectors, "b l xyz c -> b l (c xyz)")


# The graph network


class GVP(nn.Module):
    """Geometric vector perceptron: mixes channels of vectors, and scalars with the vectors' lengths.

    gated: whether the scalars go through ReLU and then scale the vectors; if not, both are linear.
    """

    def __init__(self, dims_in: tuple[int, int], dims_out: tuple[int, int], *, gated: bool):
        super().__init__()
        hidden = max(dims_in[1], dims_out[1])
        self.wh = nn.Linear(dims_in[1], hidden, bias=False)
        self.ws = nn.Linear(dims_in[0] + hidden, dims_out[0])
        self.wv = nn.Linear(hidden, dims_out[1], bias=False)
        self.wg = nn.Linear(dims_out[0], dims_out[1]) if gated else None

    def forward(self, features: Features) -> Features:
        scalars, vectors = features
        hidden = self.wh(vectors)
        scalars = self.ws(torch.cat([scalars, length(hidden, dim=-2)], dim=-1))
        vectors = self.wv(hidden)
        if self.wg is not None:
            scalars = scalars.relu()
            vectors = vectors * self.wg(scalars).sigmoid()[..., None, :]
        return scalars, vectors


class GVPNorm(nn.Module):
    """Layer norm of the scalars; vectors are divided by the root mean square length of those that are not zero."""

    def __init__(self, num_scalars: int):
        super().__init__()
        self.scalar_norm = nn.LayerNorm(num_scalars)

    def forward(self, features: Features) -> Features:
        scalars, vectors = features
        eps = 1e-4
        square = vectors.square().sum(-2, keepdim=True) + eps
        nonzero = (square > 2 * eps).to(vectors.dtype)
        mean = (square * nonzero).sum(-1, keepdim=True) / (eps + nonzero.sum(-1, keepdim=True))
        return self.scalar_norm(scalars), vectors * nonzero / (mean + eps).sqrt()


class Edges(NamedTuple):
    """Edges from each residue to its nearest ones, the same number for every residue.

    source, target: int64 `[E]`, numbers of residues in the whole batch. exists: bool `[E]`, false where a residue has
    fewer neighbours.
    """

    source: Tensor
    target: Tensor
    exists: Tensor
    features: Features


class GraphEmbedding(nn.Module):
    def __init__(self, node_dims: tuple[int, int]):
        super().__init__()
        self.node = nn.Sequential(GVP((7, 3), node_dims, gated=False), GVPNorm(node_dims[0]))
        self.edge = nn.Sequential(GVP((EDGE_SCALARS, EDGE_VECTORS), EDGE_DIMS, gated=False), GVPNorm(EDGE_DIMS[0]))
        self.confidence = nn.Linear(NUM_RADIAL, node_dims[0])

    def forward(self, backbone: Tensor, present: Tensor, dihedrals: Tensor, vectors: Tensor) -> tuple[Features, Edges]:
        dtype = self.confidence.weight.dtype
        confidence = present.float()
        scalars = torch.cat([dihedrals, confidence[..., None]], dim=-1)
        scalars, vectors = self.node((scalars.to(dtype), vectors.to(dtype)))
        scalars = scalars + self.confidence(radial_basis(confidence, 1).to(dtype))
        nodes = scalars.flatten(0, 1), vectors.flatten(0, 1)

        alpha = backbone[:, :, 1]
        source, target, exists = self.nearest(alpha, present)
        offset = alpha.flatten(0, 1)[source] - alpha.flatten(0, 1)[target]
        frequencies = torch.exp(torch.arange(0, NUM_RADIAL, 2, device=source.device) * (-math.log(10000) / NUM_RADIAL))
        steps = (source - target)[:, None] * frequencies
        scalars = torch.cat([radial_basis(length(offset), 20), steps.cos(), steps.sin()], dim=-1)
        # Two more channels state whether source or target have no coordinates; the reference then drops such edges.
        scalars = F.pad(scalars, (0, 2))
        features = self.edge((scalars.to(dtype), direction(offset)[..., None].to(dtype)))
        return nodes, Edges(source, target, exists, features)

    def nearest(self, alpha: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batch, residues = present.shape
        distance = length(alpha[:, :, None] - alpha[:, None])
        distance = distance.masked_fill(~(present[:, :, None] & present[:, None]), torch.inf)
        distance, neighbour = distance.topk(smaller(MAX_NEIGHBOURS, residues), dim=-1, largest=False)
        number = torch.arange(batch * residues, device=alpha.device).view(batch, residues, 1)
        source, target = number.expand_as(neighbour), neighbour + number[:, :1]
        return source.flatten(), target.flatten(), distance.isfinite().flatten()


class GraphLayer(nn.Module):
    def __init__(self, node_dims: tuple[int, int]):
        super().__init__()
        scalars, vectors = node_dims
        message_dims = (2 * scalars + EDGE_DIMS[0], 2 * vectors + EDGE_DIMS[1])
        self.message = nn.Sequential(
            GVP(message_dims, node_dims, gated=True),
            GVP(node_dims, node_dims, gated=True),
            GVP(node_dims, node_dims, gated=False),
        )
        self.norm1 = GVPNorm(scalars)
        hidden_dims = (4 * scalars, 2 * vectors)
        self.feed_forward = nn.Sequential(
            GVP(node_dims, hidden_dims, gated=True), GVP(hidden_dims, node_dims, gated=False)
        )
        self.norm2 = GVPNorm(scalars)

    def forward(self, nodes: Features, edges: Edges) -> Features:
        ends = zip(nodes, edges.features, strict=True)
        messages = self.message(tuple(torch.cat([x[edges.source], e, x[edges.target]], dim=-1) for x, e in ends))
        # As in the reference, the mean is over the edges that end at a residue: one that is nobody's neighbour gets 0.
        nodes = self.norm1(tuple(x + mean_at(edges, m, x.shape[0]) for x, m in zip(nodes, messages, strict=True)))
        return self.norm2(tuple(x + y for x, y in zip(nodes, self.feed_forward(nodes), strict=True)))


def mean_at(edges: Edges, values: Tensor, count: int) -> Tensor:
    """Return `[count, ...]`: for each residue, the mean of the `values` `[E, ...]` of edges that end there, or 0."""
    weights = edges.exists.to(values.dtype).view(-1, *[1] * (values.ndim - 1))
    return sum_at(edges.target, values * weights, count) / sum_at(edges.target, weights, count).clamp(min=1)


def sum_at(index: Tensor, values: Tensor, count: int) -> Tensor:
    # index_put adds in a fixed order on CUDA too, so that the same chain has the same codes twice.
    return values.new_zeros(count, *values.shape[1:]).index_put((index,), values, accumulate=True)


class GraphNetwork(nn.Module):
    def __init__(self, node_dims: tuple[int, int], num_layers: int):
        super().__init__()
        self.embedding = GraphEmbedding(node_dims)
        self.layers = nn.ModuleList(GraphLayer(node_dims) for _ in range(num_layers))

    def forward(self, backbone: Tensor, present: Tensor, dihedrals: Tensor, vectors: Tensor) -> Features:
        nodes, edges = self.embedding(backbone, present, dihedrals, vectors)
        for layer in self.layers:
            nodes = layer(nodes, edges)
        scalars, vectors = (x.unflatten(0, present.shape) for x in nodes)
        return scalars, vectors


# The transformer


class SelfAttention(nn.Module):
    """Multi-head attention; `rotary` turns queries and keys by their positions."""

    def __init__(self, width: int, num_heads: int, *, rotary: bool):
        super().__init__()
        self.num_heads = num_heads
        self.rotary = rotary
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        projections = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        query, key, value = (rearrange(p, "b l (h c) -> b h l c", h=self.num_heads) for p in projections)
        if self.rotary:
            query, key = rotate_by_position(query), rotate_by_position(key)
        keys = None if mask is None else mask[:, None, None]
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        return self.out_proj(side_by_side(heads))


def side_by_side(heads: Tensor) -> Tensor:
    """Results of the heads of an attention, `[B, heads, L, channels]`, as `[B, L, (heads channels)]`."""
    # Copied: an exported graph cannot make a view of what attention with a mask returns.
    return torch.cat(heads.unbind(dim=1), dim=-1)


def rotate_by_position(x: Tensor) -> Tensor:
    """Rotary embedding of `[..., L, channels]`: channel c is turned together with channel c + channels / 2."""
    residues, channels = x.shape[-2:]
    frequencies = 10000.0 ** (-torch.arange(0, channels, 2, device=x.device) / channels)
    angles = torch.arange(residues, device=x.device)[:, None] * frequencies
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class TransformerLayer(nn.Module):
    """Pre-norm layer of the ESM models; `mask` `[B, L]` is True where there is something to attend to."""

    def __init__(self, width: int, num_heads: int, activation: nn.Module, *, rotary: bool = False):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads, rotary=rotary)
        self.mlp_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.activation = activation
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), mask)
        return x + self.fc2(self.activation(self.fc1(self.mlp_norm(x))))


class DihedralEmbedding(nn.Module):
    """A linear layer, then a layer norm that uses the unbiased variance and adds a second eps to the deviation."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(6, width)
        self.gain = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, dihedrals: Tensor) -> Tensor:
        x = self.linear(dihedrals.to(self.gain.dtype))
        deviation = (x.var(-1, keepdim=True) + 1e-6).sqrt() + 1e-6
        return self.gain * (x - x.mean(-1, keepdim=True)) / deviation + self.bias


def sinusoids(residues: int, width: int, device: torch.device) -> Tensor:
    """`[L, width]`: sines, then cosines of positions that count from 2, since 0 and 1 mean something else."""
    frequencies = torch.exp(torch.arange(width // 2, device=device) * (-math.log(10000) / (width // 2 - 1)))
    angles = torch.arange(2, residues + 2, device=device)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class ESMIF1Encoder(nn.Module):
    """Backbones of equal length to one vector per residue.

    Dropout is left out, since the one system that uses this network keeps it frozen.

    Args:
        width: channels of the transformer.
        num_heads: heads of its attention.
        num_layers: layers of the transformer.
        node_dims: scalars and vectors of a residue in the graph network.
        num_graph_layers: layers of the graph network.
    """

    def __init__(self, width: int, num_heads: int, num_layers: int, node_dims: tuple[int, int], num_graph_layers: int):
        super().__init__()
        self.width = width
        self.graph = GraphNetwork(node_dims, num_graph_layers)
        self.mask_token = nn.Parameter(torch.randn(width) / math.sqrt(width))
        self.dihedral_embedding = DihedralEmbedding(width)
        self.graph_embedding = nn.Linear(node_dims[0] + 3 * node_dims[1], width)
        self.confidence_embedding = nn.Linear(NUM_RADIAL, width)
        self.feature_embedding = nn.Linear(6 + 3 * 3, width)
        self.layers = nn.ModuleList(TransformerLayer(width, num_heads, nn.ReLU()) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, backbone: Tensor, present: Tensor) -> Tensor:
        """Return one vector for each residue.

        Args:
            backbone: float32 `[B, L, 3, 3]`, N, CA and C in angstrom, 0 where one is absent.
            present: bool `[B, L]`, whether the residue has coordinates at all.

        Returns:
            `[B, L, width]`, in the dtype of the weights.
        """
        dtype = self.norm.weight.dtype
        frames, vectors = local_frames(backbone), chain_vectors(backbone)
        dihedrals = dihedral_features(backbone, direction)
        scalars, node_vectors = self.graph(backbone, present, dihedrals, vectors)
        features = torch.cat([dihedrals, in_own_frame(vectors, frames)], dim=-1)
        # The reference computes the dihedrals twice, with unit vectors that differ where a bond has no length.
        plain_dihedrals = dihedral_features(backbone, lambda bonds: F.normalize(bonds, dim=-1))
        x = (
            self.mask_token * math.sqrt(self.width)
            + self.dihedral_embedding(plain_dihedrals)
            + self.graph_embedding(torch.cat([scalars, in_own_frame(node_vectors, frames)], dim=-1))
            + self.confidence_embedding(radial_basis(present.float(), 1).to(dtype))
            + self.feature_embedding(features.to(dtype))
            + sinusoids(present.shape[1], self.width, present.device).to(dtype)
        )
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
