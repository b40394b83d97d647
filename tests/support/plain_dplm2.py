"""DPLM-2's structure tokenizer as its description states it: the published tensors, and a plain computation."""

import math

import torch
from torch import tensor

WIDTH, ENCODER_HEADS, NODE, DECODER, HEADS, PAIR, HEAD = 24, 3, (20, 6), 32, 4, 12, 16
LAYERS, GRAPH_LAYERS, POST_LAYERS, BLOCKS, ITERATIONS = 2, 2, 2, 2, 3
CONFIG = {
    "encoder_width": WIDTH,
    "encoder_heads": ENCODER_HEADS,
    "encoder_layers": LAYERS,
    "node_dims": NODE,
    "graph_layers": GRAPH_LAYERS,
    "width": DECODER,
    "num_heads": HEADS,
    "num_layers": POST_LAYERS,
    "pair_width": PAIR,
    "head_width": HEAD,
    "trunk_blocks": BLOCKS,
    "structure_iterations": ITERATIONS,
}


def published_shapes() -> dict[str, list[int]]:
    """The names and shapes in the authors' file, at the small configuration."""
    shapes: dict[str, list[int]] = {}

    def norm(key: str, width: int) -> None:
        shapes[f"{key}.weight"] = shapes[f"{key}.bias"] = [width]

    def linear(key: str, c_in: int, c_out: int, bias: bool = True) -> None:
        shapes[f"{key}.weight"] = [c_out, c_in]
        if bias:
            shapes[f"{key}.bias"] = [c_out]

    def mlp(key: str, width: int, hidden: int, out: int) -> None:
        norm(f"{key}.0", width)
        linear(f"{key}.1", width, hidden)
        linear(f"{key}.3", hidden, out)

    def gvp(key: str, dims_in: tuple[int, int], dims_out: tuple[int, int], gated: bool = False) -> None:
        hidden = max(dims_in[1], dims_out[1])
        linear(f"{key}.wh", dims_in[1], hidden, bias=False)
        linear(f"{key}.ws", dims_in[0] + hidden, dims_out[0])
        linear(f"{key}.wv", hidden, dims_out[1], bias=False)
        if gated:
            linear(f"{key}.wg", dims_out[0], dims_out[1])

    def transformer(key: str, width: int, layers: int) -> None:
        for i in range(layers):
            for part in "qkv":
                linear(f"{key}.layers.{i}.self_attn.{part}_proj", width, width)
            linear(f"{key}.layers.{i}.self_attn.out_proj", width, width)
            norm(f"{key}.layers.{i}.self_attn_layer_norm", width)
            linear(f"{key}.layers.{i}.fc1", width, 4 * width)
            linear(f"{key}.layers.{i}.fc2", 4 * width, width)
            norm(f"{key}.layers.{i}.final_layer_norm", width)

    esm = "encoder.encoder"
    shapes[f"{esm}.embed_tokens.weight"] = [35, WIDTH]
    shapes[f"{esm}.embed_positions._float_tensor"] = [1]
    linear(f"{esm}.embed_dihedrals.node_embedding", 6, WIDTH)
    shapes[f"{esm}.embed_dihedrals.norm_nodes.gain"] = shapes[f"{esm}.embed_dihedrals.norm_nodes.bias"] = [WIDTH]
    linear(f"{esm}.embed_gvp_output", NODE[0] + 3 * NODE[1], WIDTH)
    linear(f"{esm}.embed_confidence", 16, WIDTH)
    linear(f"{esm}.embed_gvp_input_features", 15, WIDTH)
    graph = f"{esm}.gvp_encoder"
    gvp(f"{graph}.embed_graph.embed_node.0", (7, 3), NODE)
    norm(f"{graph}.embed_graph.embed_node.1.scalar_norm", NODE[0])
    gvp(f"{graph}.embed_graph.embed_edge.0", (34, 1), (32, 1))
    norm(f"{graph}.embed_graph.embed_edge.1.scalar_norm", 32)
    linear(f"{graph}.embed_graph.embed_confidence", 16, NODE[0])
    for i in range(GRAPH_LAYERS):
        layer = f"{graph}.encoder_layers.{i}"
        gvp(f"{layer}.conv.message_func.0", (2 * NODE[0] + 32, 2 * NODE[1] + 1), NODE, gated=True)
        gvp(f"{layer}.conv.message_func.1", NODE, NODE, gated=True)
        gvp(f"{layer}.conv.message_func.2", NODE, NODE)
        gvp(f"{layer}.ff_func.0", NODE, (4 * NODE[0], 2 * NODE[1]), gated=True)
        gvp(f"{layer}.ff_func.1", (4 * NODE[0], 2 * NODE[1]), NODE)
        norm(f"{layer}.norm.0.scalar_norm", NODE[0])
        norm(f"{layer}.norm.1.scalar_norm", NODE[0])
    transformer(esm, WIDTH, LAYERS)
    norm(f"{esm}.layer_norm", WIDTH)

    mlp("pre_quant", WIDTH, 13, 13)
    mlp("post_quant.mlp", 13, DECODER, DECODER)
    transformer("post_quant.transformer", DECODER, POST_LAYERS)
    for i in range(POST_LAYERS):
        shapes[f"post_quant.transformer.layers.{i}.self_attn.rot_emb.inv_freq"] = [DECODER // HEADS // 2]
    norm("post_quant.transformer.emb_layer_norm_after", DECODER)
    mlp("decoder.esm_s_mlp", DECODER, DECODER, DECODER)

    trunk = "decoder.trunk"
    norm(f"{trunk}.recycle_s_norm", DECODER)
    norm(f"{trunk}.recycle_z_norm", PAIR)
    shapes[f"{trunk}.recycle_disto.weight"] = [15, PAIR]
    shapes[f"{trunk}.pairwise_positional_embedding.embedding.weight"] = [66, PAIR]
    for i in range(BLOCKS):
        block = f"{trunk}.blocks.{i}"
        norm(f"{block}.layernorm_1", DECODER)
        norm(f"{block}.sequence_to_pair.layernorm", DECODER)
        linear(f"{block}.sequence_to_pair.proj", DECODER, PAIR)
        linear(f"{block}.sequence_to_pair.o_proj", PAIR, PAIR)
        norm(f"{block}.pair_to_sequence.layernorm", PAIR)
        linear(f"{block}.pair_to_sequence.linear", PAIR, DECODER // HEAD, bias=False)
        linear(f"{block}.seq_attention.proj", DECODER, 3 * DECODER, bias=False)
        linear(f"{block}.seq_attention.o_proj", DECODER, DECODER)
        linear(f"{block}.seq_attention.g_proj", DECODER, DECODER)
        for product in ("tri_mul_out", "tri_mul_in"):
            for part in ("a_p", "a_g", "b_p", "b_g", "g", "z"):
                linear(f"{block}.{product}.linear_{part}", PAIR, PAIR)
            norm(f"{block}.{product}.layer_norm_in", PAIR)
            norm(f"{block}.{product}.layer_norm_out", PAIR)
        for attention in ("tri_att_start", "tri_att_end"):
            norm(f"{block}.{attention}.layer_norm", PAIR)
            linear(f"{block}.{attention}.linear", PAIR, 1, bias=False)
            for part in "qkv":
                linear(f"{block}.{attention}.mha.linear_{part}", PAIR, PAIR, bias=False)
            linear(f"{block}.{attention}.mha.linear_o", PAIR, PAIR)
            linear(f"{block}.{attention}.mha.linear_g", PAIR, PAIR)
        mlp(f"{block}.mlp_seq.mlp", DECODER, 4 * DECODER, DECODER)
        mlp(f"{block}.mlp_pair.mlp", PAIR, 4 * PAIR, PAIR)
    linear(f"{trunk}.trunk2sm_s", DECODER, DECODER)
    linear(f"{trunk}.trunk2sm_z", PAIR, PAIR)
    module = f"{trunk}.structure_module"
    norm(f"{module}.layer_norm_s", DECODER)
    norm(f"{module}.layer_norm_z", PAIR)
    linear(f"{module}.linear_in", DECODER, DECODER)
    shapes[f"{module}.ipa.head_weights"] = [12]
    for part, size in (("q", 192), ("kv", 384), ("q_points", 144), ("kv_points", 432)):
        linear(f"{module}.ipa.linear_{part}", DECODER, size)
    linear(f"{module}.ipa.linear_b", PAIR, 12)
    linear(f"{module}.ipa.linear_out", 12 * (16 + 4 * 8 + PAIR), DECODER)
    norm(f"{module}.layer_norm_ipa", DECODER)
    for part in (1, 2, 3):
        linear(f"{module}.transition.layers.0.linear_{part}", DECODER, DECODER)
    norm(f"{module}.transition.layer_norm", DECODER)
    linear(f"{module}.bb_update.linear", DECODER, 6)
    for part in ("linear_in", "linear_initial", *(f"layers.{i}.linear_{j}" for i in (0, 1) for j in (1, 2))):
        linear(f"{module}.angle_resnet.{part}", DECODER, DECODER)
    linear(f"{module}.angle_resnet.linear_out", DECODER, 14)

    linear("decoder.lm_head", DECODER, 23)
    norm("decoder.lddt_head.0", DECODER)
    linear("decoder.lddt_head.1", DECODER, DECODER)
    linear("decoder.lddt_head.2", DECODER, DECODER)
    linear("decoder.lddt_head.3", DECODER, 37 * 50)
    shapes["decoder.esm_s_combine"] = [7]
    shapes["decoder.esm.embed_tokens.weight"] = [33, 4]
    shapes["decoder.embedding.weight"] = [23, DECODER]
    linear("decoder.distogram_head", PAIR, 64)
    linear("decoder.ptm_head", PAIR, 64)
    return shapes


def smooth_unit(v):
    return v / (v.square().sum(-1, keepdim=True) + 1e-8).sqrt()


def plain_unit(v):
    return v / v.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def cross(a, b):
    return torch.linalg.cross(a, b)


def radial(x, stop):
    centres = tensor([stop * k / 15 for k in range(16)], dtype=x.dtype)
    return torch.exp(-(((x[..., None] - centres) * 16 / stop) ** 2))


def dihedrals(backbone, unit):
    points = backbone.reshape(-1, 3)
    angles = torch.zeros(len(points), dtype=points.dtype)
    for k in range(len(points) - 3):
        u = [unit(points[k + a + 1] - points[k + a]) for a in range(3)]
        n2, n1 = unit(cross(u[0], u[1])), unit(cross(u[1], u[2]))
        angles[k + 1] = torch.sign(u[0] @ n1) * torch.acos((n2 @ n1).clamp(-1 + 1e-7, 1 - 1e-7))
    angles = angles.view(-1, 3)
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


class Plain:
    """One chain at a time, as the description states it, in float64; padded only where the reference's batch is."""

    def __init__(self, state):
        self.state = {key: value.double() for key, value in state.items()}

    def linear(self, x, key):
        x = x @ self.state[f"{key}.weight"].T
        return x + self.state[f"{key}.bias"] if f"{key}.bias" in self.state else x

    def norm(self, x, key):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt() * self.state[f"{key}.weight"] + self.state[f"{key}.bias"]

    def mlp(self, x, key):
        return self.linear(torch.relu(self.linear(self.norm(x, f"{key}.0"), f"{key}.1")), f"{key}.3")

    def depth(self, key):
        return len({k.removeprefix(key).split(".")[0] for k in self.state if k.startswith(key)})

    # Vectors here are [items, channels, 3].

    def gvp(self, scalars, vectors, key):
        hidden = torch.einsum("hc,nci->nhi", self.state[f"{key}.wh.weight"], vectors)
        scalars = self.linear(torch.cat([scalars, (hidden.square().sum(-1) + 1e-8).sqrt()], -1), f"{key}.ws")
        vectors = torch.einsum("oh,nhi->noi", self.state[f"{key}.wv.weight"], hidden)
        if f"{key}.wg.weight" in self.state:
            scalars = torch.relu(scalars)
            vectors = vectors * torch.sigmoid(self.linear(scalars, f"{key}.wg"))[..., None]
        return scalars, vectors

    def gvp_norm(self, scalars, vectors, key):
        q = vectors.square().sum(-1) + 1e-4
        counted = (q > 2e-4).double()
        m = (q * counted).sum(-1) / (1e-4 + counted.sum(-1))
        vectors = vectors * counted[..., None] / (m[:, None, None] + 1e-4).sqrt()
        return self.norm(scalars, f"{key}.scalar_norm"), vectors

    def graph(self, backbone, present, length, features, vectors):
        key, residues = "encoder.encoder.gvp_encoder", len(backbone)
        s, v = torch.cat([features, present.double()[:, None]], -1), vectors
        s, v = self.gvp(s, v, f"{key}.embed_graph.embed_node.0")
        s, v = self.gvp_norm(s, v, f"{key}.embed_graph.embed_node.1")
        s = s + self.linear(radial(present.double(), 1), f"{key}.embed_graph.embed_confidence")
        alpha, edges = backbone[:, 1], []
        apart = ((alpha[:, None] - alpha).square().sum(-1) + 1e-8).sqrt().tolist()
        for i in range(residues):
            distances = []
            for j in range(residues):
                if present[i] and present[j]:
                    distances.append(apart[i][j])
                else:
                    distances.append(1e8 + 1e6 * abs(i - j) + 1e10 * (max(i, j) >= length))
            for j in sorted(range(residues), key=distances.__getitem__)[: min(30, residues)]:
                if present[i] and present[j]:
                    turns = [(i - j) * math.exp(-math.log(10000) * k / 16) for k in range(0, 16, 2)]
                    waves = [*map(math.cos, turns), *map(math.sin, turns), 0.0, 0.0]
                    edges.append((i, j, torch.cat([radial(tensor(distances[j]).double(), 20), tensor(waves).double()])))
        source, target = ([edge[end] for edge in edges] for end in (0, 1))
        if not edges:
            return s, v
        es, ev = self.gvp(
            torch.stack([edge[2] for edge in edges]),
            smooth_unit(alpha[source] - alpha[target])[:, None],
            f"{key}.embed_graph.embed_edge.0",
        )
        es, ev = self.gvp_norm(es, ev, f"{key}.embed_graph.embed_edge.1")
        for i in range(self.depth(f"{key}.encoder_layers.")):
            layer = f"{key}.encoder_layers.{i}"
            ms, mv = torch.cat([s[source], es, s[target]], 1), torch.cat([v[source], ev, v[target]], 1)
            for k in range(3):
                ms, mv = self.gvp(ms, mv, f"{layer}.conv.message_func.{k}")
            mean_s, mean_v = torch.zeros_like(s), torch.zeros_like(v)
            for j in set(target):
                arriving = [e for e, end in enumerate(target) if end == j]
                mean_s[j], mean_v[j] = ms[arriving].mean(0), mv[arriving].mean(0)
            s, v = self.gvp_norm(s + mean_s, v + mean_v, f"{layer}.norm.0")
            hs, hv = self.gvp(*self.gvp(s, v, f"{layer}.ff_func.0"), f"{layer}.ff_func.1")
            s, v = self.gvp_norm(s + hs, v + hv, f"{layer}.norm.1")
        return s, v

    def transformer(self, x, key, num_heads, keys, activation, rotary=False):
        residues, width = x.shape
        size = width // num_heads
        angle = torch.arange(residues).double()[:, None] * 10000.0 ** (-torch.arange(size // 2).double() * 2 / size)
        for i in range(self.depth(f"{key}.layers.")):
            layer = f"{key}.layers.{i}"
            h = self.norm(x, f"{layer}.self_attn_layer_norm")
            q, k, v = (self.linear(h, f"{layer}.self_attn.{part}_proj") for part in "qkv")
            heads = []
            for head in range(num_heads):
                part = slice(head * size, (head + 1) * size)
                qh, kh = q[:, part] / math.sqrt(size), k[:, part]
                if rotary:
                    turn = torch.polar(torch.ones_like(angle), angle)
                    qh, kh = (torch.complex(y[:, : size // 2], y[:, size // 2 :]) * turn for y in (qh, kh))
                    qh, kh = (torch.cat([y.real, y.imag], 1) for y in (qh, kh))
                logits = (qh @ kh.T).masked_fill(~keys, -math.inf)
                heads.append(logits.softmax(-1) @ v[:, part])
            x = x + self.linear(torch.cat(heads, 1), f"{layer}.self_attn.out_proj")
            h = self.linear(self.norm(x, f"{layer}.final_layer_norm"), f"{layer}.fc1")
            x = x + self.linear(activation(h), f"{layer}.fc2")
        return x

    def encode(self, atoms, length=None):
        """`[L, 5, 3]` with NaN to the latent `[L, 13]`; rows from `length` on are the reference's padding."""
        backbone = atoms[:, :3].double()
        present = ~atoms[:, 1, 0].isnan()
        length = len(atoms) if length is None else length
        inside = torch.arange(len(atoms)) < length
        known = backbone[present]
        centre = known[:, 1].sum(0) / (len(known) + 1e-5)
        moved = (backbone - centre).nan_to_num()
        moved[~present] = 0
        key, width = "encoder.encoder", self.state["encoder.encoder.layer_norm.weight"].shape[0]
        n, ca, c = moved.unbind(1)
        e1 = smooth_unit(c - ca)
        e2 = smooth_unit((n - ca) - e1 * (e1 * (n - ca)).sum(-1, keepdim=True))
        rows = torch.stack([e1, e2, cross(e1, e2)], 1)
        forward, backward = torch.zeros_like(ca), torch.zeros_like(ca)
        forward[:-1], backward[1:] = smooth_unit(ca[1:] - ca[:-1]), smooth_unit(ca[:-1] - ca[1:])
        to_c, to_n = smooth_unit(c - ca), smooth_unit(n - ca)
        side = -math.sqrt(1 / 3) * smooth_unit(to_c + to_n) - math.sqrt(2 / 3) * smooth_unit(cross(to_c, to_n))
        vectors = torch.stack([forward, backward, side], 1)
        features = dihedrals(moved, smooth_unit)
        s, v = self.graph(moved, present, length, features, vectors)
        token = torch.where(inside, 32, 1)
        x = self.state[f"{key}.embed_tokens.weight"][token] * math.sqrt(width)
        h = self.linear(dihedrals(moved, plain_unit), f"{key}.embed_dihedrals.node_embedding")
        h = (h - h.mean(-1, keepdim=True)) / ((h.var(-1, keepdim=True) + 1e-6).sqrt() + 1e-6)
        norm = f"{key}.embed_dihedrals.norm_nodes"
        x = x + h * self.state[f"{norm}.gain"] + self.state[f"{norm}.bias"]
        local = torch.einsum("nri,nci->ncr", rows, v).flatten(1)
        x = x + self.linear(torch.cat([s, local], 1), f"{key}.embed_gvp_output")
        x = x + self.linear(radial(present.double(), 1), f"{key}.embed_confidence")
        local = torch.einsum("nri,nci->ncr", rows, vectors).flatten(1)
        x = x + self.linear(torch.cat([features, local], 1), f"{key}.embed_gvp_input_features")
        for i in range(length):
            for k in range(width // 2):
                turn = (i + 2) * math.exp(-k * math.log(10000) / (width // 2 - 1))
                x[i, k] += math.sin(turn)
                x[i, width // 2 + k] += math.cos(turn)
        x[~inside] = 0
        num_heads = ENCODER_HEADS if width == WIDTH else 8
        x = self.norm(self.transformer(x, key, num_heads, inside, torch.relu), f"{key}.layer_norm")
        return self.mlp(x, "pre_quant") * present[:, None]

    def product(self, z, mask, key, outgoing):
        h = self.norm(z, f"{key}.layer_norm_in")
        both = (mask[:, None] * mask)[..., None]
        a, b = (
            both * torch.sigmoid(self.linear(h, f"{key}.linear_{p}_g")) * self.linear(h, f"{key}.linear_{p}_p")
            for p in "ab"
        )
        a, b = a / a.std(), b / b.std()
        x = torch.zeros_like(z)
        for k in range(len(z)):
            x += a[:, None, k] * b[None, :, k] if outgoing else a[k][:, None] * b[k][None]
        x = self.linear(self.norm(x, f"{key}.layer_norm_out"), f"{key}.linear_z")
        return x * torch.sigmoid(self.linear(h, f"{key}.linear_g"))

    def triangle_attention(self, z, mask, key):
        h = self.norm(z, f"{key}.layer_norm")
        q, k, v = (self.linear(h, f"{key}.mha.linear_{part}") for part in "qkv")
        bias = self.linear(h, f"{key}.linear")[..., 0]
        out = torch.zeros_like(z)
        for i in range(len(z)):
            logits = q[i] @ k[i].T / math.sqrt(q.shape[-1]) + bias + 1e9 * (mask[i] * mask - 1)
            out[i] = logits.softmax(-1) @ v[i]
        return self.linear(torch.sigmoid(self.linear(h, f"{key}.mha.linear_g")) * out, f"{key}.mha.linear_o")

    def block(self, s, z, mask, key):
        bias = self.linear(self.norm(z, f"{key}.pair_to_sequence.layernorm"), f"{key}.pair_to_sequence.linear")
        y = self.norm(s, f"{key}.layernorm_1")
        heads = []
        for head, part in enumerate(self.linear(y, f"{key}.seq_attention.proj").split(3 * HEAD, dim=-1)):
            q, k, v = part.split(HEAD, dim=-1)
            logits = q @ k.T / math.sqrt(HEAD) + bias[..., head]
            heads.append(logits.masked_fill(mask == 0, -math.inf).softmax(-1) @ v)
        gate = torch.sigmoid(self.linear(y, f"{key}.seq_attention.g_proj"))
        s = s + self.linear(gate * torch.cat(heads, 1), f"{key}.seq_attention.o_proj")
        s = s + self.mlp(s, f"{key}.mlp_seq.mlp")
        projected = self.linear(self.norm(s, f"{key}.sequence_to_pair.layernorm"), f"{key}.sequence_to_pair.proj")
        q, k = projected.split(PAIR // 2, dim=-1)
        both = torch.cat([q[None] * k[:, None], q[None] - k[:, None]], -1)
        z = z + self.linear(both, f"{key}.sequence_to_pair.o_proj")
        z = z + self.product(z, mask, f"{key}.tri_mul_out", True)
        z = z + self.product(z, mask, f"{key}.tri_mul_in", False)
        z = z + self.triangle_attention(z, mask, f"{key}.tri_att_start")
        z = z + self.triangle_attention(z.transpose(0, 1), mask, f"{key}.tri_att_end").transpose(0, 1)
        return s, z + self.mlp(z, f"{key}.mlp_pair.mlp")

    def invariant_point_attention(self, s, z, rotations, translations, mask, key):
        residues = len(s)
        q = self.linear(s, f"{key}.linear_q").view(residues, 12, 16)
        kv = self.linear(s, f"{key}.linear_kv").view(residues, 12, 32)
        to_points = {"q": 4, "kv": 12}
        points = {}
        for part, number in to_points.items():
            p = self.linear(s, f"{key}.linear_{part}_points").view(residues, 3, 12, number)
            points[part] = torch.einsum("nij,njhp->nhpi", rotations, p) + translations[:, None, None]
        bias = self.linear(z, f"{key}.linear_b")
        weight = torch.log1p(self.state[f"{key}.head_weights"].exp())
        out = []
        for i in range(residues):
            values, places, pairs = [], [], []
            for h in range(12):
                apart = (points["q"][i, h] - points["kv"][:, h, :4]).square().sum((1, 2))
                logits = kv[:, h, :16] @ q[i, h] / math.sqrt(48) + bias[i, :, h] / math.sqrt(3)
                logits = logits - 0.5 * weight[h] / math.sqrt(54) * apart + 1e5 * (mask[i] * mask - 1)
                a = logits.softmax(0)
                values.append(a @ kv[:, h, 16:])
                mean = torch.einsum("j,jpi->pi", a, points["kv"][:, h, 4:])
                places.append((mean - translations[i]) @ rotations[i])
                pairs.append(a @ z[i])
            places = torch.cat(places)
            lengths = (places.square().sum(-1) + 1e-8).sqrt()
            out.append(torch.cat([*values, places[:, 0], places[:, 1], places[:, 2], lengths, *pairs]))
        return self.linear(torch.stack(out), f"{key}.linear_out")

    def decode(self, values, mask):
        """Signs `[L, 13]` and mask `[L]` to atoms `[L, 5, 3]`, pLDDT `[L, 37]`, residue types `[L]`."""
        mask, residues = mask.double(), len(values)
        x = self.mlp(values.double(), "post_quant.mlp") * mask[:, None]
        gelu = torch.nn.functional.gelu
        x = self.transformer(x, "post_quant.transformer", HEADS, mask.bool(), gelu, rotary=True)
        s = self.mlp(self.norm(x, "post_quant.transformer.emb_layer_norm_after"), "decoder.esm_s_mlp")
        key = "decoder.trunk"
        s = s + self.state[f"{key}.recycle_s_norm.bias"]
        table = self.state[f"{key}.pairwise_positional_embedding.embedding.weight"]
        start = self.state[f"{key}.recycle_z_norm.bias"] + self.state[f"{key}.recycle_disto.weight"][0]
        z = start.expand(residues, residues, -1).clone()
        for i in range(residues):
            for j in range(residues):
                z[i, j] += table[min(max(j - i, -32), 32) + 33 if mask[i] and mask[j] else 0]
        for i in range(self.depth(f"{key}.blocks.")):
            s, z = self.block(s, z, mask, f"{key}.blocks.{i}")
        residue_types = self.linear(s, "decoder.lm_head").argmax(-1)

        module = f"{key}.structure_module"
        initial = self.norm(self.linear(s, f"{key}.trunk2sm_s"), f"{module}.layer_norm_s")
        z = self.norm(self.linear(z, f"{key}.trunk2sm_z"), f"{module}.layer_norm_z")
        s = self.linear(initial, f"{module}.linear_in")
        quaternions = tensor([[1.0, 0, 0, 0]]).double().repeat(residues, 1)
        translations = torch.zeros(residues, 3).double()
        for _ in range(ITERATIONS):
            rotations = rotation_matrices(quaternions)
            attended = self.invariant_point_attention(s, z, rotations, translations, mask, f"{module}.ipa")
            s = self.norm(s + attended, f"{module}.layer_norm_ipa")
            h = s
            for part in (1, 2, 3):
                h = self.linear(torch.relu(h) if part > 1 else h, f"{module}.transition.layers.0.linear_{part}")
            s = self.norm(s + h, f"{module}.transition.layer_norm")
            b, c, d, *step = self.linear(s, f"{module}.bb_update.linear").unbind(-1)
            w, x, y, k = quaternions.unbind(-1)
            product = (-x * b - y * c - k * d, w * b + y * d - k * c, w * c + k * b - x * d, w * d + x * c - y * b)
            quaternions = quaternions + torch.stack(product, -1)
            quaternions = quaternions / quaternions.norm(dim=-1, keepdim=True)
            translations = translations + torch.einsum("nij,nj->ni", rotations, torch.stack(step, -1))
        net = f"{module}.angle_resnet"
        a = self.linear(torch.relu(s), f"{net}.linear_in") + self.linear(torch.relu(initial), f"{net}.linear_initial")
        for i in (0, 1):
            h = self.linear(torch.relu(a), f"{net}.layers.{i}.linear_1")
            a = a + self.linear(torch.relu(h), f"{net}.layers.{i}.linear_2")
        sine, cosine = self.linear(torch.relu(a), f"{net}.linear_out")[:, 4:6].unbind(-1)
        size = (sine**2 + cosine**2).clamp(min=1e-8).sqrt()
        rotations = rotation_matrices(quaternions)
        atoms = torch.zeros(residues, 5, 3).double()
        for i in range(residues):
            oxygen = [2.153, -1.062 * cosine[i] / size[i], -1.062 * sine[i] / size[i]]
            own = tensor([[-0.525, 1.363, 0], [0, 0, 0], [1.526, 0, 0], [-0.529, -0.774, -1.205], oxygen]).double()
            atoms[i] = own @ rotations[i].T + 10 * translations[i]
        h = self.norm(s, "decoder.lddt_head.0")
        for part in (1, 2, 3):
            h = self.linear(h, f"decoder.lddt_head.{part}")
        plddt = h.view(residues, 37, 50).softmax(-1) @ ((torch.arange(50).double() + 0.5) / 50) * 100
        return atoms, plddt, residue_types


def rotation_matrices(quaternions):
    """Column k is the unit vector k turned by the quaternion."""
    real, imaginary = quaternions[:, :1], quaternions[:, 1:]
    columns = []
    for axis in torch.eye(3).double():
        once = cross(imaginary, axis.expand_as(imaginary))
        columns.append(axis + 2 * (real * once + cross(imaginary, once)))
    return torch.stack(columns, -1)
