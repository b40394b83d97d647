"""One-D-Piece: an image of 256x256 to 256 tokens in order of importance, the first few of which can be decoded alone.

Paper: One-D-Piece: Image Tokenizer Meets Quality-Controllable Compression (arXiv 2501.10064).
Reference: turingmotors/One-D-Piece at 473665d1.
The network is TiTok's with 256 latents. Their order comes from training alone (Tail Token Drop): the decoder is given
a random number of first tokens. Dropped tokens are absent from its sequence, not replaced by padding.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.models.image.titok import CHECKPOINT, DIM, SIZES, Decoder, Encoder
from zoo.quantizers import VectorQuantizer
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerOutput, TokenizerSpec
from zoo.tokenizer import Tokenizer


class OneDPiece(Tokenizer):
    """Image tokenizer whose first tokens can be decoded without the others.

    Images `[B, 3, 256, 256]` in [0, 1] (nano: 64x64); codes `[B, 1, tokens]`, all `spec.num_tokens` or the first
    `num_tokens` that `encode` was asked for; latents and unit codebook rows `[B, 12, tokens]`. `decode` takes the first
    codes of an image, from 1 to all of them.

    Args:
        width, num_layers, num_heads: channels, blocks and heads of the transformers in encoder and decoder.
        pixel_width: channels of the pixel decoder at full resolution.
        patch: side of a patch in pixels.
        legacy: whether the encoder has the layout of the published weights (`zoo.models.image.titok.Encoder`), which
            is hard to train.
        ema_codebook: whether, in training, the codebook is a running average of the latents, is initialised from them
            and has its unused rows replaced by them. If not, it is trained by gradients; from random weights, only a
            few of its rows are then used.
    """

    drops_tail = True  # whether `forward` in training mode gives the decoder a random number of first tokens
    interpolation = "bicubic"
    small: ClassVar = {"width": 64, "num_layers": 1, "num_heads": 2, "pixel_width": 8}

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        width: int,
        num_layers: int,
        num_heads: int,
        pixel_width: int = 128,
        patch: int = 16,
        legacy: bool = True,
        ema_codebook: bool = False,
    ):
        super().__init__(spec)
        assert spec.num_tokens is not None and spec.resolution is not None
        shape = (spec.num_tokens, spec.resolution[0], width, num_layers, num_heads)
        self.encoder = Encoder(*shape, patch=patch, legacy=legacy)
        options: dict[str, Any] = {"update": "ema", "kmeans_init": True, "revive_below": 0.03} if ema_codebook else {}
        self.quantizer = VectorQuantizer(DIM, *spec.codebook_sizes, distance="cosine", **options)
        self.decoder = Decoder(*shape, pixel_width, patch=patch)

    def forward(self, x: Tensor) -> TokenizerOutput:
        """As in `Tokenizer`; in training mode the decoder receives a random number of first tokens if `drops_tail`.

        The number is the same for the whole batch, uniform from 1 to all; the output's `latent` has that length. Codes
        and losses are those of all tokens.
        """
        quantized, codes, losses = self.quantizer(self.to_latent(self._check_signal(x)).movedim(1, -1))
        latent = quantized.movedim(-1, 1)
        if self.training and self.drops_tail:
            latent = latent[..., : int(torch.randint(latent.shape[-1], ())) + 1]
        return TokenizerOutput(self.from_latent(latent), codes.movedim(-1, 1), latent, losses)


S_256 = register(
    "one-d-piece-s-256",
    OneDPiece,
    spec=TokenizerSpec(
        modality="image",
        quantizer="vq",
        codebook_sizes=(4096,),
        downsample=(),
        channels=3,
        resolution=(256, 256),
        num_tokens=256,
        tail_drop=True,
        variable_size=False,
        code_license="Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2501.10064",
        source="https://github.com/turingmotors/One-D-Piece",
    ),
    config=SIZES["small"],
    hub=HubSource("turing-motors/One-D-Piece-S-256", "pytorch_model.bin"),
    keys=CHECKPOINT,
    card="one-d-piece",
    figures={"rFID, ImageNet 256x256": 1.48},
)
register(
    replace(
        S_256,
        "one-d-piece-b-256",
        config=SIZES["base"],
        hub=HubSource("turing-motors/One-D-Piece-B-256", "pytorch_model.bin"),
        figures={"rFID, ImageNet 256x256": 1.11},
    )
)
register(
    replace(
        S_256,
        "one-d-piece-l-256",
        config=SIZES["large"],
        hub=HubSource("turing-motors/One-D-Piece-L-256", "pytorch_model.bin"),
        figures={"rFID, ImageNet 256x256": 1.08},
    )
)
alias("one-d-piece", "one-d-piece-l-256")

# Trained here, by `trainers/recipes/one-d-piece-nano.yaml`; ships with the package. 384 bytes of codes for 64x64.
register(
    replace(
        S_256,
        "one-d-piece-nano",
        resolution=(64, 64),
        weights_license="ImageNet non-commercial",
        config={
            "width": 128,
            "patch": 4,
            "num_layers": 2,
            "num_heads": 4,
            "pixel_width": 8,
            "legacy": False,
            "ema_codebook": True,
        },
        weights="weights/one-d-piece-nano.safetensors",
        card="one-d-piece-nano",
    )
)
