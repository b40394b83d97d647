"""DPLM-2's structure tokenizer: one 13-bit token per residue of a protein backbone, and back.

Papers: DPLM-2: A Multimodal Diffusion Protein Language Model (ICLR 2025, arXiv 2410.13782); Elucidating the Design
Space of Multimodal Protein Language Models (DPLM-2.1, ICML 2025, arXiv 2504.11454). Reference: bytedance/dplm at
8b3425b.
The encoder is ESM-IF1's; the signs of 13 numbers are the token; the decoder is a small ESMFold. The network sees
absent atoms at the origin, so a chain is first moved until the mean of its CA atoms is there; the codes depend on it.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.models.structure.dplm2.esm_if1 import ESMIF1Encoder, TransformerLayer
from zoo.models.structure.dplm2.folding import FoldingTrunk, StructureModule, mlp
from zoo.quantizers import LFQ
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerOutput, TokenizerSpec
from zoo.tokenizer import Tokenizer

BITS = 13
ATOM_TYPES, PLDDT_BINS = 37, 50
RESIDUE_TYPES = 23  # 20 amino acids in the order ARNDCQEGHILKMFPSTWYV, unknown, two that do not occur


def residues_present(atoms: Tensor) -> Tensor:
    """Return which residues of `[B, residues, 5, 3]` have a CA, bool `[B, residues]`."""
    return ~atoms[:, :, 1].isnan().any(dim=-1)


class Encoder(nn.Module):
    """Atoms `[B, residues, 5, 3]`, in angstrom and NaN where absent, to `[B, 13, residues]`."""

    def __init__(self, esm_if1: ESMIF1Encoder):
        super().__init__()
        self.esm_if1 = esm_if1
        first, last = nn.Linear(esm_if1.width, BITS), nn.Linear(BITS, BITS)
        self.head = nn.Sequential(nn.LayerNorm(esm_if1.width), first, nn.ReLU(), last)
        # Initial values at which the bits differ between residues: outputs are spread out around 0. With PyTorch's own,
        # what leaves the ReLU is the positive half of a normal distribution of variance 1/3, whose mean is used below.
        with torch.no_grad():
            last.weight.mul_(4)
            last.bias.copy_(-last.weight.sum(dim=1) / math.sqrt(6 * math.pi))

    def forward(self, atoms: Tensor) -> Tensor:
        present = residues_present(atoms)
        latent = self.head(self.esm_if1(self.centred_backbone(atoms, present), present))
        return (latent * present[..., None]).movedim(-1, 1)

    def centred_backbone(self, atoms: Tensor, present: Tensor) -> Tensor:
        """Return N, CA and C `[B, residues, 3, 3]` relative to the mean CA; absent atoms are at the origin."""
        backbone = atoms[:, :, :3]
        exists = ~backbone.isnan() & present[..., None, None]
        backbone = backbone.nan_to_num()
        centre = backbone[:, :, 1].sum(dim=1) / (present.sum(dim=1, keepdim=True) + 1e-5)
        return (backbone - centre[:, None, None]) * exists


class Prediction(NamedTuple):
    """Prediction of the decoder for each residue.

    atoms: float32 `[B, residues, 5, 3]` in angstrom, NaN where `mask` was False.
    plddt: float32 `[B, residues, 37]`, expected lDDT from 0 to 100 of each of atom37's slots.
    residue_types: int64 `[B, residues]`, the likeliest of ARNDCQEGHILKMFPSTWYV; 20 and above: none of these.
    """

    atoms: Tensor
    plddt: Tensor
    residue_types: Tensor


class Decoder(nn.Module):
    """Signs `[B, 13, residues]` and which residues there are, bool `[B, residues]`, to `Prediction`."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_layers: int,
        pair_width: int,
        head_width: int,
        num_blocks: int,
        num_iterations: int,
    ):
        super().__init__()
        self.stem = mlp(BITS, width, width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, num_heads, nn.GELU(), rotary=True) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.single = mlp(width, width, width)
        self.trunk = FoldingTrunk(width, pair_width, head_width, num_blocks)
        self.structure = StructureModule(width, pair_width, num_iterations)
        self.residue_type_head = nn.Linear(width, RESIDUE_TYPES)
        self.plddt_head = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, ATOM_TYPES * PLDDT_BINS),
        )

    def forward(self, latent: Tensor, mask: Tensor) -> Prediction:
        x = self.stem(latent.movedim(1, -1)) * mask[..., None]
        for layer in self.layers:
            x = layer(x, mask)
        single, pair = self.trunk(self.single(self.norm(x)), mask)
        atoms, state = self.structure(single, pair, mask)
        return Prediction(
            atoms.masked_fill(~mask[..., None, None], torch.nan),
            self.plddt(state),
            self.residue_type_head(single).argmax(dim=-1),
        )

    def plddt(self, state: Tensor) -> Tensor:
        bins = self.plddt_head(state).float().unflatten(-1, (ATOM_TYPES, PLDDT_BINS)).softmax(dim=-1)
        centres = (torch.arange(PLDDT_BINS, device=bins.device) + 0.5) / PLDDT_BINS
        return 100 * (bins * centres).sum(dim=-1)


class DPLM2(Tokenizer):
    """Protein backbones `[B, residues, 5, 3]` to one of 8192 codes, 13 signs, per residue.

    A residue without CA has code 0 and should be masked when it is decoded (`mask`), as `forward` and `reconstruct`
    do; so should the residues after a chain's end. The decoder chooses its own frame: superpose before comparing.

    Args:
        spec: the variant's facts.
        encoder_width, encoder_heads, encoder_layers: channels, heads and layers of ESM-IF1's transformer.
        node_dims: scalars and vectors per residue of its graph network.
        graph_layers: layers of its graph network.
        width: channels of the decoder.
        num_heads, num_layers: heads and layers of the transformer after the quantizer.
        pair_width: channels of a pair of residues.
        head_width: channels of a head of the trunk's attention over residues.
        trunk_blocks: blocks of the folding trunk.
        structure_iterations: iterations of the structure module.
    """

    decode_options = ("mask",)
    small: ClassVar = {
        "encoder_width": 16,
        "encoder_heads": 2,
        "encoder_layers": 1,
        "node_dims": (16, 4),
        "graph_layers": 1,
        "width": 16,
        "num_heads": 2,
        "num_layers": 1,
        "pair_width": 8,
        "head_width": 8,
        "trunk_blocks": 1,
        "structure_iterations": 2,
    }

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        encoder_width: int = 512,
        encoder_heads: int = 8,
        encoder_layers: int = 8,
        node_dims: tuple[int, int] = (1024, 256),
        graph_layers: int = 4,
        width: int = 128,
        num_heads: int = 8,
        num_layers: int = 4,
        pair_width: int = 32,
        head_width: int = 32,
        trunk_blocks: int = 4,
        structure_iterations: int = 8,
    ):
        super().__init__(spec)
        self.encoder = Encoder(ESMIF1Encoder(encoder_width, encoder_heads, encoder_layers, node_dims, graph_layers))
        self.quantizer = LFQ(BITS, bit_order="big")
        self.decoder = Decoder(width, num_heads, num_layers, pair_width, head_width, trunk_blocks, structure_iterations)

    def from_latent(self, latent: Tensor, mask: Tensor | None = None) -> Tensor:
        """Decode latents `[B, 13, residues]`, signs or any real values, to atoms `[B, residues, 5, 3]` in angstrom.

        Args:
            latent: as `embed` returns it or, before quantization, `to_latent`.
            mask: `[B, residues]`, False (or 0) for residues that are absent: their atoms are NaN, and the others do
                not see them. None: none is absent.
        """
        return self._predict(latent, mask).atoms

    @torch.no_grad()
    def predict(self, codes: Tensor, mask: Tensor | None = None) -> Prediction:
        """Return the atoms that `decode` returns, with the network's confidence and its guess of the residues' types.

        Args:
            codes: integers `[B, 1, residues]`.
            mask: as in `decode`, `[B, residues]`.

        Raises:
            InputError: shape, dtype or range of the codes, or the mask's shape.
        """
        return self._predict(self.embed(codes), mask)

    def forward(self, x: Tensor) -> TokenizerOutput:
        """As in `Tokenizer`; absent residues are masked in the decoder and left out of the losses."""
        x = self._check_signal(x)
        present = residues_present(x)
        z = self.to_latent(x).movedim(1, -1)
        output = self.quantizer(z[present])
        quantized = torch.full_like(z, -1).index_put((present,), output.quantized)
        codes = torch.zeros_like(z[..., :1], dtype=torch.int64).index_put((present,), output.codes)
        latent = quantized.movedim(-1, 1)
        return TokenizerOutput(self.from_latent(latent, present), codes.movedim(-1, 1), latent, output.losses)

    def restore(self, codes: Tensor, like: Tensor, **options: Any) -> Tensor:
        """Decode the codes of `like`; residues that lack a CA there are masked, and their atoms are NaN."""
        return self.decode(codes, size=self.size_of(like), **{"mask": residues_present(like), **options})

    def _predict(self, latent: Tensor, mask: Tensor | None) -> Prediction:
        expected = (latent.shape[0], latent.shape[2])
        if mask is None:
            mask = torch.ones(expected, device=latent.device)
        if not isinstance(mask, Tensor) or mask.shape != expected:
            got = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise InputError(f"expected mask as {list(expected)}, got {got}")
        return self.decoder(latent, mask.to(latent.device).bool())


ESM_IF1 = "encoder.encoder."
GRAPH = ESM_IF1 + "gvp_encoder."
TRUNK = "decoder.trunk."
BLOCK, OUR_BLOCK = TRUNK + "blocks.{i}.", "decoder.trunk.blocks.{i}."
STRUCTURE = TRUNK + "structure_module."

CHECKPOINT = KeyMap(
    # 32 is the mask, the one token that ESM-IF1's encoder ever sees.
    (ESM_IF1 + "embed_tokens.weight", "encoder.esm_if1.mask_token", lambda table: table[32]),
    (ESM_IF1 + "embed_dihedrals.node_embedding.", "encoder.esm_if1.dihedral_embedding.linear."),
    (ESM_IF1 + "embed_dihedrals.norm_nodes.", "encoder.esm_if1.dihedral_embedding."),
    (ESM_IF1 + "embed_gvp_output.", "encoder.esm_if1.graph_embedding."),
    (ESM_IF1 + "embed_confidence.", "encoder.esm_if1.confidence_embedding."),
    (ESM_IF1 + "embed_gvp_input_features.", "encoder.esm_if1.feature_embedding."),
    (GRAPH + "embed_graph.embed_node.", "encoder.esm_if1.graph.embedding.node."),
    (GRAPH + "embed_graph.embed_edge.", "encoder.esm_if1.graph.embedding.edge."),
    (GRAPH + "embed_graph.embed_confidence.", "encoder.esm_if1.graph.embedding.confidence."),
    (GRAPH + "encoder_layers.{i}.conv.message_func.", "encoder.esm_if1.graph.layers.{i}.message."),
    (GRAPH + "encoder_layers.{i}.ff_func.", "encoder.esm_if1.graph.layers.{i}.feed_forward."),
    (GRAPH + "encoder_layers.{i}.norm.0.", "encoder.esm_if1.graph.layers.{i}.norm1."),
    (GRAPH + "encoder_layers.{i}.norm.1.", "encoder.esm_if1.graph.layers.{i}.norm2."),
    (ESM_IF1 + "layers.{i}.self_attn_layer_norm.", "encoder.esm_if1.layers.{i}.attention_norm."),
    (ESM_IF1 + "layers.{i}.self_attn.", "encoder.esm_if1.layers.{i}.attention."),
    (ESM_IF1 + "layers.{i}.final_layer_norm.", "encoder.esm_if1.layers.{i}.mlp_norm."),
    (ESM_IF1 + "layers.", "encoder.esm_if1.layers."),
    (ESM_IF1 + "layer_norm.", "encoder.esm_if1.norm."),
    ("pre_quant.", "encoder.head."),
    ("post_quant.mlp.", "decoder.stem."),
    ("post_quant.transformer.layers.{i}.self_attn_layer_norm.", "decoder.layers.{i}.attention_norm."),
    ("post_quant.transformer.layers.{i}.self_attn.", "decoder.layers.{i}.attention."),
    ("post_quant.transformer.layers.{i}.final_layer_norm.", "decoder.layers.{i}.mlp_norm."),
    ("post_quant.transformer.layers.", "decoder.layers."),
    ("post_quant.transformer.emb_layer_norm_after.", "decoder.norm."),
    ("decoder.esm_s_mlp.", "decoder.single."),
    (TRUNK + "recycle_s_norm.bias", "decoder.trunk.single_start"),
    (TRUNK + "recycle_z_norm.bias", "decoder.trunk.pair_start"),
    (TRUNK + "recycle_disto.weight", "decoder.trunk.distance_start", lambda table: table[0]),
    (TRUNK + "pairwise_positional_embedding.embedding.", "decoder.trunk.offset."),
    (BLOCK + "pair_to_sequence.layernorm.", OUR_BLOCK + "pair_to_sequence.0."),
    (BLOCK + "pair_to_sequence.linear.", OUR_BLOCK + "pair_to_sequence.1."),
    (BLOCK + "layernorm_1.", OUR_BLOCK + "attention_norm."),
    (BLOCK + "seq_attention.proj.", OUR_BLOCK + "attention.proj."),
    (BLOCK + "seq_attention.g_proj.", OUR_BLOCK + "attention.gate."),
    (BLOCK + "seq_attention.o_proj.", OUR_BLOCK + "attention.out."),
    (BLOCK + "mlp_seq.mlp.", OUR_BLOCK + "single_mlp."),
    (BLOCK + "sequence_to_pair.layernorm.", OUR_BLOCK + "sequence_to_pair.norm."),
    (BLOCK + "sequence_to_pair.proj.", OUR_BLOCK + "sequence_to_pair.proj."),
    (BLOCK + "sequence_to_pair.o_proj.", OUR_BLOCK + "sequence_to_pair.out."),
    *(
        (f"{BLOCK}{product}.{published}.", f"{OUR_BLOCK}{ours}.{part}.")
        for product, ours in (("tri_mul_out", "product_outgoing"), ("tri_mul_in", "product_incoming"))
        for published, part in (
            ("layer_norm_in", "norm"),
            ("linear_a_p", "first"),
            ("linear_a_g", "first_gate"),
            ("linear_b_p", "second"),
            ("linear_b_g", "second_gate"),
            ("layer_norm_out", "norm_out"),
            ("linear_z", "out"),
            ("linear_g", "gate"),
        )
    ),
    *(
        (f"{BLOCK}{attention}.{published}.", f"{OUR_BLOCK}{ours}.{part}.")
        for attention, ours in (("tri_att_start", "attention_starting"), ("tri_att_end", "attention_ending"))
        for published, part in (
            ("layer_norm", "norm"),
            ("linear", "bias"),
            ("mha.linear_q", "query"),
            ("mha.linear_k", "key"),
            ("mha.linear_v", "value"),
            ("mha.linear_o", "out"),
            ("mha.linear_g", "gate"),
        )
    ),
    (BLOCK + "mlp_pair.mlp.", OUR_BLOCK + "pair_mlp."),
    (TRUNK + "trunk2sm_s.", "decoder.structure.single_in.0."),
    (STRUCTURE + "layer_norm_s.", "decoder.structure.single_in.1."),
    (TRUNK + "trunk2sm_z.", "decoder.structure.pair_in.0."),
    (STRUCTURE + "layer_norm_z.", "decoder.structure.pair_in.1."),
    (STRUCTURE + "linear_in.", "decoder.structure.stem."),
    (STRUCTURE + "ipa.head_weights", "decoder.structure.attention.head_weights"),
    (STRUCTURE + "ipa.linear_q.", "decoder.structure.attention.query."),
    (STRUCTURE + "ipa.linear_kv.", "decoder.structure.attention.key_value."),
    (STRUCTURE + "ipa.linear_q_points.", "decoder.structure.attention.query_points."),
    (STRUCTURE + "ipa.linear_kv_points.", "decoder.structure.attention.key_value_points."),
    (STRUCTURE + "ipa.linear_b.", "decoder.structure.attention.bias."),
    (STRUCTURE + "ipa.linear_out.", "decoder.structure.attention.out."),
    (STRUCTURE + "layer_norm_ipa.", "decoder.structure.attention_norm."),
    (STRUCTURE + "transition.layers.0.linear_1.", "decoder.structure.transition.layers.0."),
    (STRUCTURE + "transition.layers.0.linear_2.", "decoder.structure.transition.layers.2."),
    (STRUCTURE + "transition.layers.0.linear_3.", "decoder.structure.transition.layers.4."),
    (STRUCTURE + "transition.layer_norm.", "decoder.structure.transition.norm."),
    (STRUCTURE + "bb_update.linear.", "decoder.structure.update."),
    (STRUCTURE + "angle_resnet.linear_in.", "decoder.structure.angles.stem."),
    (STRUCTURE + "angle_resnet.linear_initial.", "decoder.structure.angles.initial."),
    (STRUCTURE + "angle_resnet.layers.{i}.linear_1.", "decoder.structure.angles.blocks.{i}.1."),
    (STRUCTURE + "angle_resnet.layers.{i}.linear_2.", "decoder.structure.angles.blocks.{i}.3."),
    (STRUCTURE + "angle_resnet.linear_out.", "decoder.structure.angles.out."),
    ("decoder.lm_head.", "decoder.residue_type_head."),
    ("decoder.lddt_head.", "decoder.plddt_head."),
    ignore=(
        ESM_IF1 + "embed_positions.",
        *(f"post_quant.transformer.layers.{i}.self_attn.rot_emb." for i in range(4)),
        "decoder.esm.",
        "decoder.esm_s_combine",
        "decoder.embedding.",
        "decoder.af2_to_esm",
        "decoder.distogram_head.",
        "decoder.ptm_head.",
        TRUNK + "recycle_s_norm.weight",
        TRUNK + "recycle_z_norm.weight",
    ),
)

STRUCT_TOKENIZER = register(
    "dplm2-struct-tokenizer",
    DPLM2,
    spec=TokenizerSpec(
        modality="structure",
        quantizer="lfq",
        codebook_sizes=(8192,),
        downsample=(1,),
        channels=5,
        code_license="Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2410.13782",
        source="https://github.com/bytedance/dplm",
    ),
    config={},
    hub=HubSource("airkingbd/struct_tokenizer", "dplm2_struct_tokenizer.ckpt"),
    keys=CHECKPOINT,
    card="dplm2",
    figures={"RMSD (angstrom), CAMEO 2022": 1.9806, "TM-score, CAMEO 2022": 0.9385},
)
alias("dplm2", "dplm2-struct-tokenizer")

# Trained here, by `trainers/recipes/dplm2-nano.yaml` in two runs (its card has them); ships with the package.
register(
    replace(
        STRUCT_TOKENIZER,
        "dplm2-nano",
        weights_license="Apache-2.0",
        config={
            "encoder_width": 64,
            "encoder_heads": 4,
            "encoder_layers": 1,
            "node_dims": (32, 8),
            "graph_layers": 1,
            "width": 128,
            "num_heads": 8,
            "num_layers": 4,
            "pair_width": 16,
            "head_width": 32,
            "trunk_blocks": 0,
            "structure_iterations": 1,
        },
        weights="weights/dplm2-nano.safetensors",
        card="dplm2-nano",
    )
)
