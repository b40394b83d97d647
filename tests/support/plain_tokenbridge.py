"""TokenBridge as a plain computation from the published keys, at a small configuration."""

from functools import cache
from pathlib import Path

import torch

import zoo
from tests.support import plain_taming
from tests.support.plain_taming import PlainTaming, image, write_files
from zoo.checkpoints import assign, without_storage
from zoo.models.image.tokenbridge import CHECKPOINT, TokenBridge
from zoo.parity import synthetic_checkpoint

WIDTH, DIM, SCALE = 32, 16, 0.2325
MULTIPLIERS = (1, 1, 2, 2, 4)
# The order in which the authors' generator predicts the channels of a position.
CHANNEL_ORDER = [8, 1, 10, 9, 6, 12, 4, 0, 3, 11, 7, 14, 2, 15, 13, 5]


def published_shapes(width: int) -> dict[str, list[int]]:
    """The parameter names and shapes of the authors' file, from its description."""
    ends = (2 * DIM, DIM)
    return plain_taming.published_shapes(width, MULTIPLIERS, neck=ends, dim=ends, attention=(True, False))


def levels(bits: int) -> torch.Tensor:
    """The published levels of latents with unit deviation, by torch's own distribution in float64."""
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    edges = normal.icdf(torch.linspace(0, 1, 2**bits + 1, dtype=torch.float64)).clamp(-3, 3)
    density = normal.log_prob(edges).exp()
    means = (density[:-1] - density[1:]) / (normal.cdf(edges[1:]) - normal.cdf(edges[:-1]))
    return (means * 5 / 3).float()


def manifest(seed: int) -> dict:
    tensors = {key: {"shape": shape, "dtype": "float32"} for key, shape in published_shapes(WIDTH).items()}
    # Latents that use most of the levels, and a posterior that is wide enough to be seen in the codes.
    tensors["quant_conv.weight"]["std"] = 1.5
    return {
        "tensors": tensors,
        "layout": ["model"],
        "seed": seed,
        "axes": {"input": "b c h w", "codes": "b q h w", "reconstruction": "b c h w"},
        "tolerance": {
            "code_agreement": 0.999,
            "latent_max_abs": 1e-4,
            "quantized_max_abs": 1e-5,
            "reconstruction_max_abs": 1e-4,
        },
    }


@cache
def checkpoint(seed: int) -> dict[str, torch.Tensor]:
    return synthetic_checkpoint(manifest(seed))["model"]


def write_golden(folder: Path, size: tuple[int, int], batch: int, seed: int) -> tuple[Path, Path]:
    plain = PlainTaming(checkpoint(seed))
    x = image(size, batch, seed)
    latent = plain.encode(x)[:, :DIM] * SCALE
    codes = (latent[..., None] - levels(6)).abs().argmin(-1)
    quantized = levels(6)[codes]
    arrays = {
        "input": x,
        "latent": latent,
        "codes": codes,
        "quantized": quantized,
        "reconstruction": plain.decode(quantized / SCALE),
    }
    assert codes.unique().numel() > 40
    return write_files(folder, manifest(seed), arrays)


def small(seed: int) -> TokenBridge:
    """The small network with the weights of a synthetic checkpoint in the published layout."""
    with without_storage():
        tokenizer = TokenBridge(zoo.info("tokenbridge").spec, latent_scale=SCALE, width=WIDTH)
    assign(tokenizer, CHECKPOINT.convert({"model": checkpoint(seed)}, tokenizer.state_dict(), "synthetic"))
    return tokenizer.eval()
