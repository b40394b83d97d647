"""A small residual tokenizer of sound, with random weights, for tests of what all residual systems share."""

from torch import nn

import zoo
from zoo.quantizers import ResidualVQ


class Residual(zoo.Tokenizer):
    """Sound at 8 kHz to codes of 16 in `spec.num_codebooks` residual codebooks for each 8 samples, and back."""

    def __init__(self, spec: zoo.TokenizerSpec):
        super().__init__(spec)
        self.encoder = nn.Conv1d(1, 4, 8, stride=8)
        self.quantizer = ResidualVQ(4, spec.codebook_sizes, spec.num_codebooks)
        self.decoder = nn.ConvTranspose1d(4, 1, 8, stride=8)
        for layer in self.quantizer.layers:
            nn.init.normal_(layer.codebook, std=0.1)

    def to_latent(self, signal):
        return self.encoder(self.modality.pad(signal, self.spec))


def residual_spec(name: str = "residual", **facts) -> zoo.TokenizerSpec:
    """Six codebooks of 16, of which `facts` may say how many are used by default."""
    known = {
        "name": name,
        "modality": "audio",
        "quantizer": "rvq",
        "codebook_sizes": (16,) * 6,
        "downsample": (8,),
        "channels": 1,
        "sample_rate": 8000,
        "residual": True,
        "code_license": "MIT",
        "weights_license": "MIT",
        "paper": "none",
        "source": "none",
    }
    return zoo.TokenizerSpec(**{**known, **facts})
