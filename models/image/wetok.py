"""WeTok: an image to groups of eight sign bits per position and back.

Paper: WeTok: Powerful Discrete Tokenization for High-Fidelity Visual Reconstruction (arXiv 2508.05599).
Reference: zhuangshaobin/WeTok at caa2ad7.
Open-MAGVIT2's network with several codes per position. The variant with the highest compression decodes with Gaussian
noise beside the latent: two decodings differ unless `generator` or `noise` is given.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.layers.noise import noise_like
from zoo.models.image.open_magvit2 import CHECKPOINT, F8, F16, OpenMAGVIT2
from zoo.registry import HubSource, alias, register, replace
from zoo.spec import TokenizerSpec


class WeTok(OpenMAGVIT2):
    """Image tokenizer with group-wise lookup-free quantization.

    Images, codes and the arguments not named here as in `OpenMAGVIT2`.

    Args:
        generative: whether the decoder also takes noise; `decode` then accepts `generator=` or `noise=`, a tensor of
            the latent's shape `[B, dim, h, w]`.
    """

    def __init__(
        self,
        spec: TokenizerSpec,
        *,
        multipliers: tuple[int, ...],
        width: int = 256,
        num_blocks: int = 4,
        dim: int = 32,
        norm_groups: int = 32,
        temperature: float = 0.01,
        generative: bool = False,
    ):
        super().__init__(
            spec,
            multipliers=multipliers,
            width=width,
            num_blocks=num_blocks,
            dim=dim,
            norm_groups=norm_groups,
            temperature=temperature,
            noise_dim=dim if generative else 0,
        )
        self.generative = generative
        if generative:
            self.decode_options = ("generator", "noise")

    def from_latent(
        self, latent: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        if self.generative and noise is None:
            noise = noise_like(latent, generator)
        if noise is not None and (not isinstance(noise, Tensor) or noise.shape != latent.shape):
            got = list(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
            raise InputError(f"expected noise as {list(latent.shape)}, got {got}")
        return super().from_latent(latent, noise if noise is None else noise.to(latent))


ZERO_SHOT = "zero-shot rFID, ImageNet 256x256"
F32 = (1, 1, 2, 2, 4, 8)


def published(path: str) -> HubSource:
    return HubSource("GrayShine/WeTok", path, "85fc6eb084d458b8d4fa3a32d541379e95b2bf87")


IMAGENET_F8 = register(
    "wetok-imagenet-f8",
    WeTok,
    spec=TokenizerSpec(
        modality="image",
        quantizer="grouped-lfq",
        codebook_sizes=(256,) * 4,
        downsample=(8, 8),
        channels=3,
        resolution=(256, 256),
        code_license="Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2508.05599",
        source="https://github.com/zhuangshaobin/WeTok",
    ),
    config={"multipliers": F8, "dim": 32},
    hub=published("ImageNet/downsample8/WeTok.ckpt"),
    keys=CHECKPOINT,
    card="wetok",
)
IMAGENET_F16 = register(
    replace(
        IMAGENET_F8,
        "wetok-imagenet-f16",
        downsample=(16, 16),
        config={"multipliers": F16},
        hub=published("ImageNet/downsample16/WeTok.ckpt"),
    )
)
register(
    replace(
        IMAGENET_F8,
        "wetok-general-24",
        codebook_sizes=(256,) * 8,
        config={"dim": 64},
        hub=published("GeneralDomain/compratio24/WeTok.ckpt"),
        figures={ZERO_SHOT: 0.12},
    )
)
register(
    replace(
        IMAGENET_F8,
        "wetok-general-48",
        hub=published("GeneralDomain/compratio48/WeTok.ckpt"),
        figures={ZERO_SHOT: 0.20},
    )
)
register(
    replace(
        IMAGENET_F16,
        "wetok-general-192",
        hub=published("GeneralDomain/compratio192/WeTok.ckpt"),
        figures={ZERO_SHOT: 0.60},
    )
)
register(
    replace(
        IMAGENET_F8,
        "wetok-general-768",
        downsample=(32, 32),
        config={"multipliers": F32, "generative": True},
        hub=published("GeneralDomain/compratio768/WeTok.ckpt"),
        figures={ZERO_SHOT: 3.49},
    )
)
alias("wetok", "wetok-general-24")

# Trained here, as its card says; ships with the package. 2,048 bytes of codes for 256x256.
register(
    replace(
        IMAGENET_F16,
        "wetok-nano",
        codebook_sizes=(256,) * 8,
        weights_license="ImageNet non-commercial",
        config={
            "width": 12,
            "multipliers": (1, 2, 4, 8, 12),
            "num_blocks": 1,
            "dim": 64,
            "norm_groups": 1,
            "temperature": 1.0,
        },
        weights="weights/wetok-nano.safetensors",
        card="wetok-nano",
    )
)
