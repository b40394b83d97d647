"""Codebooks for networks with random weights, so that real sound has many different codes and none is a tie."""

import torch
from torch import Tensor

from zoo.quantizers import ResidualVQ
from zoo.tokenizer import Tokenizer


@torch.no_grad()
def spread_codebooks(tokenizer: Tokenizer, audio: Tensor) -> Tokenizer:
    """Let the rows of residual codebooks lie around the latents of `audio`, ever closer; return the tokenizer."""
    generator = torch.Generator().manual_seed(0)
    latents = tokenizer.to_latent(audio).mT.flatten(0, 1)
    for part in (tokenizer.quantizer.first, tokenizer.quantizer.rest):
        vectors = part.project_in(latents)
        assert isinstance(part.residual, ResidualVQ)
        for level, layer in enumerate(part.residual.layers):
            rows = torch.randn(layer.codebook.shape, generator=generator) * vectors.std(dim=0)
            layer.codebook.copy_(0.8**level * rows + (vectors.mean(dim=0) if level == 0 else 0))
    return tokenizer
