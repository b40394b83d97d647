"""LeVo's codec: 48 kHz music, vocals and accompaniment, to two streams of 25 tokens a second, and to stereo again.

Paper: LeVo: High-Quality Song Generation with Multi-Preference Alignment (NeurIPS 2025, arXiv 2506.07520); the codec
extends MuCodec (arXiv 2409.13216). Reference: tencent-ailab/SongGeneration at b1b03ec.
A frozen music encoder and one large codebook per track make the codes. A flow-matching transformer turns them into
latents of a waveform autoencoder, so that one sequence of codes has many waveforms. The codes of a song's plan, one
stream for the whole mix, come from another layer of the same kind of encoder and have no decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.checkpoints import KeyMap, pointwise_to_linear
from zoo.errors import InputError
from zoo.layers.noise import noise_like
from zoo.layers.overlap import frames_of_chunk
from zoo.models.audio.levo.flow import FlowTransformer
from zoo.models.audio.levo.muencoder import MuEncoder, repeated
from zoo.models.audio.levo.quantizer import TrackQuantizer
from zoo.models.audio.levo.vae import WaveformVAE
from zoo.parts import Part
from zoo.registry import HubSource, register
from zoo.spec import TokenizerOutput, TokenizerSpec
from zoo.tokenizer import Tokenizer

CANNOT_STREAM = (
    "its encoder attends to windows of 40 seconds, so that a code depends on up to 40 seconds that follow, and the "
    "peak of the whole signal sets its level. Shorter windows, encoded one by one, have other codes; what share of the "
    "codes was not measured, for want of the published weights"
)


class Decoder(nn.Module):
    """Quantized features `[B, condition_dim, frames]` to stereo `[B, 2, frames * hop_length]`.

    Latents are generated in windows. A window begins with the last quarter of the one before, which it continues;
    their waveforms are faded into each other there. Where there are fewer features than a window has, they are
    repeated, and so is the end of the last window; what that adds is cut off.
    """

    def __init__(self, flow: FlowTransformer, vae: WaveformVAE):
        super().__init__()
        if flow.positions < 4:
            raise InputError(f"expected window_frames of at least 4, got {flow.positions}")
        self.flow, self.vae = flow, vae

    def forward(
        self, condition: Tensor, num_steps: int, generator: torch.Generator | None, chunk_frames: int
    ) -> Tensor:
        frames, window = condition.shape[-1], self.flow.positions
        shared = window // 4
        # A traced graph has one window, so that it holds for any number of frames up to that.
        windows = 1 if torch.compiler.is_compiling() else max(1, math.ceil((frames - shared) / (window - shared)))
        parts: list[Tensor] = []
        latents: Tensor | None = None
        hop = math.prod(self.vae.strides)
        for start in range(0, windows * (window - shared), window - shared):
            part = repeated(condition, start, window)
            noise = noise_like(part.new_empty(part.shape[0], self.flow.latent_dim, window), generator)
            latents = self.flow.sample(part, noise, num_steps, None if latents is None else latents[..., -shared:])
            audio = self.vae.decode(latents, chunk_frames)
            if parts:
                fade = torch.linspace(0, 1, shared * hop, device=audio.device, dtype=audio.dtype)
                mixed = parts.pop() * (1 - fade) + audio[..., : shared * hop] * fade
                audio = torch.cat([mixed, audio[..., shared * hop :]], dim=-1)
            parts += [audio[..., : -shared * hop], audio[..., -shared * hop :]]
        return torch.cat(parts, dim=-1)[..., : frames * hop]


class LeVo(Tokenizer):
    """Vocals and accompaniment at 48 kHz, each in stereo, to two codes per frame; the codes decode to their mix.

    Signals `[B, 4, samples]`: vocals left and right, accompaniment left and right, as a source separation gives them.
    Codes `[B, 2, frames]`, vocals first, `frames = ceil(samples / 1920)`. Decoded audio `[B, 2, samples]`: the mix, as
    loud as each track would be at a peak of 0.8 at most, to which louder ones are brought before they are encoded.

    To decode the vocals alone, set the accompaniment's codes to 9670, which the published weights decode to silence;
    for the accompaniment alone, set those of the vocals to 3142.

    `decode` takes `generator=`, since it samples, `num_steps=`, the steps of the flow (10 as the authors call it), and
    `chunk_seconds=`, the length that the waveform decoder computes at once, which does not change the result.

    Args:
        depths: number of conformer layers after which each track's features are read.
        front_channels: channels of the encoder's convolutions.
        width, encoder_hidden, encoder_heads: sizes of its conformer.
        codebook_dim: channels of a codebook row.
        window_frames: frames that are encoded and decoded together.
        latent_dim: channels of the autoencoder's latents. mask_dim: channels of the flow's mask.
        flow_hidden, flow_heads, flow_layers: sizes of the flow's transformer.
        vae_width, vae_multipliers, strides: channels and strides of the autoencoder, from the waveform on.
    """

    decode_options = ("generator", "num_steps", "chunk_seconds")
    decoder_losses = ("flow_loss",)
    cannot_stream = CANNOT_STREAM
    small: ClassVar = {
        "front_channels": 4,
        "width": 24,
        "encoder_hidden": 32,
        "encoder_heads": 2,
        "codebook_dim": 8,
        "window_frames": 16,
        "latent_dim": 4,
        "mask_dim": 8,
        "flow_hidden": 32,
        "flow_heads": 2,
        "flow_layers": 1,
        "vae_width": 2,
        "vae_multipliers": (1, 1, 1, 1, 2),
    }

    encoder: MuEncoder
    quantizer: TrackQuantizer
    decoder: Decoder

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        depths: tuple[int, ...] = (7, 3),
        front_channels: int = 512,
        width: int = 1024,
        encoder_hidden: int = 4096,
        encoder_heads: int = 16,
        codebook_dim: int = 32,
        window_frames: int = 1000,
        latent_dim: int = 64,
        mask_dim: int = 24,
        flow_hidden: int = 4400,
        flow_heads: int = 20,
        flow_layers: int = 16,
        vae_width: int = 128,
        vae_multipliers: tuple[int, ...] = (1, 2, 4, 8, 16),
        strides: tuple[int, ...] = (2, 4, 4, 6, 10),
    ):
        super().__init__(spec)
        self.encoder = MuEncoder(
            tuple(depths), front_channels, width, encoder_hidden, encoder_heads, window_frames, spec.hop_length
        )
        self.quantizer = TrackQuantizer(width, codebook_dim, spec.codebook_sizes)
        self.decoder = Decoder(
            FlowTransformer(
                self.quantizer.dim, latent_dim, mask_dim, flow_hidden, flow_heads, flow_layers, window_frames
            ),
            WaveformVAE(latent_dim, vae_width, tuple(vae_multipliers), tuple(strides)),
        )

    def from_latent(
        self,
        latent: Tensor,
        generator: torch.Generator | None = None,
        num_steps: int = 10,
        chunk_seconds: float = 4.0,
    ) -> Tensor:
        if not isinstance(num_steps, int) or isinstance(num_steps, bool) or num_steps < 1:
            raise InputError(f"expected num_steps as an integer of at least 1, got {num_steps!r}")
        return self.decoder(latent, num_steps, generator, frames_of_chunk(self.spec, chunk_seconds))

    def forward(self, x: Tensor) -> TokenizerOutput:
        """As in `Tokenizer`; in training, the flow takes one step from a random time, and its loss is `flow_loss`."""
        if not self.training:
            return super().forward(x)
        x = self._check_signal(x)
        quantized, codes, losses = self.quantizer(self.to_latent(x).movedim(1, -1))
        latent = quantized.movedim(-1, 1)
        frames, most = latent.shape[-1], self.decoder.flow.positions
        if frames > most:
            raise InputError(f"expected at most {most} frames for training, got {frames}")
        with torch.no_grad():
            mix = self.modality.pad(self.modality.target(x, self.spec), self.spec)
            target, _ = self.decoder.vae.encode(mix)
        flow_loss, latents = self.decoder.flow.training_step(latent, target)
        reconstruction = self.decoder.vae.decode(latents, frames)
        return TokenizerOutput(
            self.modality.crop(reconstruction, self.size_of(x)),
            codes.movedim(-1, 1),
            latent,
            {**losses, "flow_loss": flow_loss},
        )


class LeVoMixed(Tokenizer):
    """Stereo music at 48 kHz to one code per frame: the plan of a song, which has no decoder.

    Signals `[B, 2, samples]`; codes `[B, 1, frames]`, `frames = ceil(samples / 1920)`.

    Args:
        As of `LeVo`.
    """

    encode_only = (
        "the authors' code has no decoder of the mix; LeVo's language model writes its codes as the plan of a song, "
        "and then those of levo-codec, which are decoded"
    )
    cannot_stream = CANNOT_STREAM
    small: ClassVar = {
        key: LeVo.small[key]
        for key in ("front_channels", "width", "encoder_hidden", "encoder_heads", "codebook_dim", "window_frames")
    }

    encoder: MuEncoder
    quantizer: TrackQuantizer

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        depths: tuple[int, ...] = (6,),
        front_channels: int = 512,
        width: int = 1024,
        encoder_hidden: int = 4096,
        encoder_heads: int = 16,
        codebook_dim: int = 32,
        window_frames: int = 1000,
    ):
        super().__init__(spec)
        self.encoder = MuEncoder(
            tuple(depths), front_channels, width, encoder_hidden, encoder_heads, window_frames, spec.hop_length
        )
        self.quantizer = TrackQuantizer(width, codebook_dim, spec.codebook_sizes)


# The parts that the authors' outputs are known of, each by itself


def run_encoder(tokenizer: LeVo | LeVoMixed, golden: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return features, codes and quantized features of a clip that is not repeated."""
    latent, quantizer = tokenizer.encoder.features(golden["input"]), tokenizer.quantizer
    projected = [track.project(part) for track, part in quantizer.parts(latent.movedim(1, -1))]
    return {
        "latent": latent,
        "projected": torch.cat(projected, dim=-1).movedim(-1, 1),
        "codes": tokenizer.quantize(latent),
        "quantized": tokenizer.embed(golden["codes"]),
    }


def run_flow(tokenizer: LeVo, golden: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return latents of codes, without and with a context, and the velocities at the first step."""
    flow, noise = tokenizer.decoder.flow, golden["noise"]
    quantized = tokenizer.quantizer.codes_to_latent(golden["codes"].movedim(1, -1)).movedim(-1, 1)
    return {
        "quantized": quantized,
        "velocity": torch.cat(flow.guided_velocities(noise, torch.zeros_like(noise), quantized, 0.0, 0)),
        "reconstruction": flow.sample(quantized, noise, num_steps=10),
        "latents_context": flow.sample(quantized, golden["noise_context"], num_steps=10, context=golden["context"]),
    }


def run_vae(tokenizer: LeVo, golden: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the posterior of audio and what its mean decodes to."""
    vae = tokenizer.decoder.vae
    mean, scale = vae.encode(golden["input"])
    return {"latent": mean, "scale": scale, "reconstruction": vae.decode(mean, chunk_frames=8)}


ENCODER = Part(run_encoder, ("input", "codes"), ("encoder.", "quantizer."))
LeVoMixed.parts = {"encoder": ENCODER}
LeVo.parts = {
    "encoder": ENCODER,
    "flow": Part(
        run_flow,
        ("codes", "noise", "noise_context", "context"),
        (
            "decoder.flow.",
            *(f"quantizer.tracks.{k}.{name}" for k in range(2) for name in ("project_out.", "rows")),
        ),
        {"flow_layers": "n_layer", "flow_hidden": "n_inner"},
    ),
    "vae": Part(run_vae, ("input",), ("decoder.vae.",)),
}


def transposed(tensor: Tensor) -> Tensor:
    # The reference's transformer is GPT-2 of transformers, whose matrices are stored as [in, out].
    return tensor.mT if tensor.ndim > 1 else tensor


CONFORMER, LAYER = "bestrq.model.conformer.layers.{i}.", "encoder.layers.{i}."
FLOW, BLOCK, OUR_BLOCK = "cfm_wrapper.estimator.", "cfm_wrapper.estimator.h.{i}.", "decoder.flow.blocks.{i}."
ENCODER_RULES = (
    ("bestrq.model.conv.conv.{i}.conv1.", "encoder.front.blocks.{i}.conv1."),
    ("bestrq.model.conv.conv.{i}.bn1.", "encoder.front.blocks.{i}.norm1."),
    ("bestrq.model.conv.conv.{i}.conv2.", "encoder.front.blocks.{i}.conv2."),
    ("bestrq.model.conv.conv.{i}.bn2.", "encoder.front.blocks.{i}.norm2."),
    ("bestrq.model.conv.conv.{i}.conv3.", "encoder.front.blocks.{i}.shortcut."),
    ("bestrq.model.conv.conv.{i}.bn3.", "encoder.front.blocks.{i}.shortcut_norm."),
    ("bestrq.model.conv.linear.", "encoder.front.linear."),
    *(
        rule
        for k in (1, 2)
        for rule in (
            (f"{CONFORMER}ffn{k}_layer_norm.", f"{LAYER}feed_forward{k}.0."),
            (f"{CONFORMER}ffn{k}.intermediate_dense.", f"{LAYER}feed_forward{k}.1."),
            (f"{CONFORMER}ffn{k}.output_dense.", f"{LAYER}feed_forward{k}.3."),
        )
    ),
    (CONFORMER + "self_attn_layer_norm.", LAYER + "attention_norm."),
    (CONFORMER + "self_attn.linear_q.", LAYER + "attention.query."),
    (CONFORMER + "self_attn.linear_k.", LAYER + "attention.key."),
    (CONFORMER + "self_attn.linear_v.", LAYER + "attention.value."),
    (CONFORMER + "self_attn.linear_out.", LAYER + "attention.out."),
    (CONFORMER + "conv_module.layer_norm.", LAYER + "convolution.norm."),
    (CONFORMER + "conv_module.pointwise_conv1.", LAYER + "convolution.expand."),
    (CONFORMER + "conv_module.depthwise_conv.", LAYER + "convolution.depthwise."),
    (CONFORMER + "conv_module.batch_norm.", LAYER + "convolution.batch_norm."),
    (CONFORMER + "conv_module.pointwise_conv2.", LAYER + "convolution.out."),
    (CONFORMER + "final_layer_norm.", LAYER + "norm."),
    *(
        rule
        for k, track in enumerate(("rvq_bestrq_emb", "rvq_bestrq_bgm_emb"))
        for rule in (
            (f"{track}.quantizers.0.in_proj.", f"quantizer.tracks.{k}.project_in.", pointwise_to_linear),
            (f"{track}.quantizers.0.out_proj.", f"quantizer.tracks.{k}.project_out.", pointwise_to_linear),
            (f"{track}.quantizers.0.codebook.weight", f"quantizer.tracks.{k}.rows"),
        )
    ),
)
# What the file also holds and encoding does not need: layers that are not read, buffers that can be computed.
UNUSED = (
    *(f"bestrq.model.conformer.layers.{i}." for i in range(7, 12)),
    "bestrq.model.conformer.layer_norm.",
    "bestrq.model.conformer.pos_conv_embed.",
    "bestrq.model.conformer.embed_positions.",
    "bestrq.model.linear.",
    "bestrq.model.cls_token",
    "bestrq.model.preprocessor_melspec_2048.",
    "rvq_bestrq_emb.quantizers.0.stale_counter",
    "rvq_bestrq_bgm_emb.quantizers.0.stale_counter",
    "rsp48to",
    "rsq48to",
    "hubert.",
)

SEPARATE = KeyMap(
    *ENCODER_RULES,
    ("mask_emb.weight", "decoder.flow.mask.weight"),
    (FLOW + "wpe.weight", "decoder.flow.position.weight"),
    (FLOW + "adaln_single.emb.timestep_embedder.linear_1.", "decoder.flow.time.linear1."),
    (FLOW + "adaln_single.emb.timestep_embedder.linear_2.", "decoder.flow.time.linear2."),
    (FLOW + "adaln_single.linear.", "decoder.flow.time.modulation."),
    (BLOCK + "scale_shift_table", OUR_BLOCK + "modulation"),
    (BLOCK + "ln_1.", OUR_BLOCK + "norm1."),
    (BLOCK + "attn.c_attn.", OUR_BLOCK + "query_key_value.", transposed),
    (BLOCK + "attn.c_proj.", OUR_BLOCK + "out.", transposed),
    (BLOCK + "ln_2.", OUR_BLOCK + "norm2."),
    (BLOCK + "mlp.c_fc.", OUR_BLOCK + "expand.", transposed),
    (BLOCK + "mlp.c_proj.", OUR_BLOCK + "contract.", transposed),
    (FLOW + "scale_shift_table", "decoder.flow.modulation"),
    (FLOW + "ln_f.", "decoder.flow.norm."),
    (FLOW + "proj_out.", "decoder.flow.head."),
    ("normfeat.counts", "decoder.flow.latent_count"),
    ("normfeat.sum_x", "decoder.flow.latent_sum"),
    ("normfeat.sum_x2", "decoder.flow.latent_square_sum"),
    ignore=(*UNUSED, FLOW + "wte.", "cfm_wrapper.mlp.", "normfeat.sum_target_x2", "zero_cond_embedding1"),
    only=("encoder.", "quantizer.", "decoder.flow."),
)
MIXED = KeyMap(
    *ENCODER_RULES,
    ignore=(
        *UNUSED,
        "bestrq.model.conformer.layers.6.",
        "mask_emb.",
        "zero_cond_embedding1",
        "cfm_wrapper.",
        "normfeat.",
    ),
)


def unit_rules(published: str, ours: str) -> list[tuple[str, str]]:
    """Rules for the layers of a residual unit."""
    names = ("act1", "conv1", "act2", "conv2")
    return [(f"{published}.layers.{layer}.", f"{ours}{name}.") for layer, name in enumerate(names)]


VAE = KeyMap(
    *(
        rule
        for k in range(1, 6)
        for rule in (
            *(
                rule
                for unit in range(3)
                for rule in (
                    *unit_rules(f"encoder.layers.{k}.layers.{unit}", f"decoder.vae.encoder.{k}.units.{unit}."),
                    *unit_rules(f"decoder.layers.{k}.layers.{2 + unit}", f"decoder.vae.decoder.{k}.units.{unit}."),
                )
            ),
            (f"encoder.layers.{k}.layers.3.", f"decoder.vae.encoder.{k}.act."),
            (f"encoder.layers.{k}.layers.4.", f"decoder.vae.encoder.{k}.conv."),
            (f"decoder.layers.{k}.layers.0.", f"decoder.vae.decoder.{k}.act."),
            (f"decoder.layers.{k}.layers.1.", f"decoder.vae.decoder.{k}.conv."),
        )
    ),
    ("encoder.layers.", "decoder.vae.encoder."),
    ("decoder.layers.", "decoder.vae.decoder."),
    layout=("state_dict",),
    only=("decoder.vae.",),
)

# The names of the files come from the default arguments of the authors' code and from loaders that others published.
HUB = "tencent/SongGeneration"
LICENSE = "License Terms of SongGeneration (non-commercial)"
register(
    "levo-codec",
    LeVo,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="product-vq",
        codebook_sizes=(16384, 16384),
        downsample=(1920,),
        channels=4,
        tracks=2,
        sample_rate=48000,
        code_license=LICENSE,
        weights_license=LICENSE,
        paper="https://arxiv.org/abs/2506.07520",
        source="https://github.com/tencent-ailab/SongGeneration",
    ),
    hub=HubSource(
        HUB,
        "ckpt/model_septoken/model_2.safetensors",
        keys=SEPARATE,
        also=(HubSource(HUB, "ckpt/vae/autoencoder_music_1320k.ckpt", keys=VAE),),
    ),
    card="levo-codec",
)
register(
    "levo-codec-mixed",
    LeVoMixed,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="vq",
        codebook_sizes=(16384,),
        downsample=(1920,),
        channels=2,
        sample_rate=48000,
        code_license=LICENSE,
        weights_license=LICENSE,
        paper="https://arxiv.org/abs/2506.07520",
        source="https://github.com/tencent-ailab/SongGeneration",
    ),
    hub=HubSource(HUB, "ckpt/model_1rvq/model_2_fixed.safetensors", keys=MIXED),
    card="levo-codec",
)
