"""A small tokenizer of images with a pyramid of scales, for tests of what all such systems share."""

from torch import nn

import zoo
from zoo.quantizers import MultiScaleQuantizer, VectorQuantizer

SCALES = ((1, 1), (2, 2), (4, 4))
WIDE, HIGH = ((1, 1), (1, 2), (2, 4)), ((1, 1), (2, 1), (4, 2))


class Pyramid(zoo.Tokenizer):
    """Images of some sizes to codes of 32 on scales of up to one position for each 4x4 pixels, and back."""

    interpolation = "lanczos"

    def __init__(self, spec: zoo.TokenizerSpec):
        super().__init__(spec)
        self.encoder = nn.Conv2d(3, 4, 4, stride=4)
        layer = VectorQuantizer(4, *spec.codebook_sizes)
        nn.init.normal_(layer.codebook, std=0.3)
        self.quantizer = MultiScaleQuantizer(layer, spec.pyramids)
        self.decoder = nn.ConvTranspose2d(4, 3, 4, stride=4)


def pyramid_spec(name: str = "pyramid", **facts) -> zoo.TokenizerSpec:
    """Images of 16x16 with three scales, or what `facts` say."""
    known = {
        "name": name,
        "modality": "image",
        "quantizer": "multi-scale-vq",
        "codebook_sizes": (32,),
        "downsample": (4, 4),
        "channels": 3,
        "resolution": (16, 16),
        "scales": SCALES,
        "variable_size": False,
        "code_license": "MIT",
        "weights_license": "MIT",
        "paper": "none",
        "source": "none",
    }
    return zoo.TokenizerSpec(**{**known, **facts})
