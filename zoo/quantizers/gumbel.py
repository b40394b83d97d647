"""Vector quantization by a classifier that is trained with Gumbel noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.errors import InputError
from zoo.quantizers.base import Quantizer, QuantizerOutput, without_autocast
from zoo.quantizers.nearest import most_similar_code


class GumbelVQ(Quantizer):
    """A linear map gives each vector a logit for every code; the code of the largest stands for its codebook row.

    Sources: Gumbel-softmax (arXiv 1611.01144), as in VQGAN (arXiv 2012.09841) and DALL-E (arXiv 2102.12092). In
    training, the code is drawn from the softmax of the logits by adding Gumbel noise, and the gradient is that of the
    softmax of the noisy logits divided by `temperature`. In eval mode, and in `encode`, there is no noise. Training
    holds the logits of all codes for every vector.

    Args:
        dim: length of a vector and of a row.
        codebook_size: number of rows.
        temperature: temperature of the softmax in training; published recipes lower the attribute from step to step.

    Losses: `kl_loss` = mean over vectors of the divergence of softmax(logits) from the uniform distribution, in nats.
    """

    def __init__(self, dim: int, codebook_size: int, *, temperature: float = 1.0):
        if dim < 1 or codebook_size < 1:
            raise InputError(f"expected dim and codebook_size of at least 1, got {dim} and {codebook_size}")
        if temperature <= 0:
            raise InputError(f"expected a positive temperature, got {temperature}")
        super().__init__(dim, (codebook_size,))
        self.temperature = temperature
        self.project = nn.Linear(dim, codebook_size)
        self.codebook = nn.Parameter(torch.randn(codebook_size, dim))

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Latents `[..., dim]` to codes int64 `[..., 1]`."""
        return most_similar_code(self.check_latent(z), self.project.weight, self.project.bias)[..., None]

    def codes_to_latent(self, codes: Tensor) -> Tensor:
        """Codes int64 `[..., 1]` to codebook rows `[..., dim]`."""
        return functional.embedding(self.check_codes(codes)[..., 0], self.codebook)

    def forward(self, z: Tensor) -> QuantizerOutput:
        """Latents `[..., dim]` to `QuantizerOutput`; in training mode the codes are random."""
        with without_autocast(z):
            latent = self.check_latent(z)
            if not (self.training or latent.requires_grad):
                codes = self.encode(latent)
                return QuantizerOutput(self.codes_to_latent(codes).to(z.dtype), codes, {})
            codebook = self.codebook.float()
            logits = functional.linear(latent, self.project.weight.float(), self.project.bias.float())
            noisy, losses = logits, {}
            if self.training:
                noisy = logits - torch.empty_like(logits).exponential_().log()
                log_probability = functional.log_softmax(logits, dim=-1)
                entropy = -(log_probability.exp() * log_probability).sum(dim=-1)
                losses["kl_loss"] = math.log(len(codebook)) - entropy.mean()
            codes = noisy.argmax(dim=-1)
            # The gradient of the one-hot vector is the softmax's; its value, which the rows' gradient has, is one-hot.
            mean_row = functional.softmax(noisy / self.temperature, dim=-1) @ codebook.detach()
            quantized = functional.embedding(codes, codebook) + (mean_row - mean_row.detach())
            return QuantizerOutput(quantized.to(z.dtype), codes[..., None], losses)
