"""Recipes of tiny networks, and what their runs have logged."""

import zoo
from zoo.models.structure.dplm2.tokenizer import DPLM2
from zoo.trainers.run_folder import RunFolder

IMAGE = {
    "tokenizer": "wetok-imagenet-f8",
    "spec.downsample": [2, 2],
    "spec.codebook_sizes": [256],
    "config.width": 32,
    "config.multipliers": [1, 1],
    "config.num_blocks": 1,
    "config.dim": 8,
    "data.crop": 16,
    "losses": {"l1": 1.0, "l2": 1.0, "ssim": 0.1, "commitment_loss": 0.1, "entropy_loss": 0.01},
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 2,
    "steps": 6,
    "batch_size": 2,
    "log_every": 1,
    "validation.every": 3,
    "validation.items": 2,
}
AUDIO = {
    "tokenizer": "wavtokenizer-small-320-24k-4096",
    "spec.downsample": [80],
    "spec.codebook_sizes": [16],
    "config.strides": [4, 4, 5],
    "config.encoder_width": 4,
    "config.dim": 8,
    "config.decoder_dim": 32,
    "config.hidden_dim": 32,
    "config.num_layers": 1,
    "data.seconds": 0.5,
    "losses": {"mel": 1.0, "commitment_loss": 1.0},
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 2,
    "steps": 6,
    "batch_size": 2,
    "log_every": 1,
    "validation.every": 3,
    "validation.items": 2,
}
VIDEO = {
    "tokenizer": "cosmos-dv-4x8x8",
    "config.width": 8,
    "config.num_blocks": 1,
    "config.multipliers": [1, 1, 1],
    "config.latent_width": 8,
    "data": {"frames": 5, "crop": 32, "frame_stride": 2},
    "losses": {"l1": 1.0},
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 2,
    "steps": 3,
    "batch_size": 2,
    "log_every": 1,
    "validation.items": 2,
}
STRUCTURE = {
    "tokenizer": "dplm2-struct-tokenizer",
    **{f"config.{key}": list(value) if isinstance(value, tuple) else value for key, value in DPLM2.small.items()},
    "data": {"max_residues": 24, "bucket": 4},
    "losses": {"fape": 1.0, "distance_map": 0.1, "commitment_loss": 0.25, "entropy_loss": 0.1},
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 2,
    "steps": 3,
    "batch_size": 2,
    "log_every": 1,
    "validation.items": 2,
}
VQ_IMAGE = {
    "tokenizer": "llamagen-vq-8",
    "spec.codebook_sizes": [64],
    **{f"config.{key}": value for key, value in zoo.info("llamagen-vq-8").builder.small.items()},
    "data.crop": 16,
    "losses": {"l2": 1.0, "codebook_loss": 1.0, "commitment_loss": 0.25},
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 2,
    "steps": 4,
    "batch_size": 2,
    "log_every": 1,
}


def losses(run_dir) -> dict[int, dict[str, float]]:
    """What was logged of each step's losses."""
    return {entry["step"]: entry["training"] for entry in RunFolder(run_dir).history() if "training" in entry}
