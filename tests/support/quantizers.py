"""Every quantizer family, small, for tests of what all of them have in common."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from zoo.quantizers import (
    BSQ,
    FSQ,
    IBQ,
    LFQ,
    AdditiveVQ,
    DimensionwiseQuantizer,
    FactorizedVQ,
    GroupedLFQ,
    GumbelVQ,
    ProductVQ,
    ProjectedResidualVQ,
    ProjectedVQ,
    Quantizer,
    ResidualVQ,
    SharedMappingVQ,
    SimVQ,
    SplitResidualVQ,
    VectorQuantizePytorch,
    VectorQuantizer,
)

DIM = 6
OURS: dict[str, Callable[[], Quantizer]] = {
    "vector": lambda: VectorQuantizer(DIM, 16),
    "vector-cosine": lambda: VectorQuantizer(DIM, 16, distance="cosine"),
    "vector-ema": lambda: VectorQuantizer(DIM, 16, update="ema"),
    "vector-ema-cosine": lambda: VectorQuantizer(DIM, 16, update="ema", distance="cosine"),
    "residual": lambda: ResidualVQ(DIM, 16, 3),
    "residual-ema": lambda: ResidualVQ(DIM, (16, 8), 2, update="ema"),
    "projected-residual": lambda: ProjectedResidualVQ(DIM, 4, 16, 3),
    "split-residual": lambda: SplitResidualVQ(DIM, 4, 16, 3),
    "split-residual-ema": lambda: SplitResidualVQ(DIM, 4, 16, 3, update="ema"),
    "product": lambda: ProductVQ(DIM, (16, 8)),
    "additive": lambda: AdditiveVQ(DIM, (16, 8, 8)),
    "fsq": lambda: FSQ((4, 3, 3, 3, 3, 3)),
    "lfq": lambda: LFQ(DIM),
    "lfq-big": lambda: LFQ(DIM, bit_order="big"),
    "grouped-lfq": lambda: GroupedLFQ(DIM, 2),
    "bsq": lambda: BSQ(DIM),
    "bsq-grouped": lambda: BSQ(DIM, num_groups=3),
    "factorized": lambda: FactorizedVQ(DIM, (16, 8)),
    "shared-mapping": lambda: SharedMappingVQ((4, 2), 16),
    "dimensionwise": lambda: DimensionwiseQuantizer(DIM, bits=4, scale=0.5),
    "sim": lambda: SimVQ(DIM, 16),
    "gumbel": lambda: GumbelVQ(DIM, 16),
    "ibq": lambda: IBQ(DIM, 16),
    "projected": lambda: ProjectedVQ(DIM, 16, 3),
}
PACKAGE: dict[str, dict[str, object]] = {
    "VectorQuantize": {"codebook_size": 16},
    "VectorQuantize, heads": {
        "codebook_size": 16,
        "heads": 2,
        "codebook_dim": 4,
        "separate_codebook_per_head": True,
    },
    "VectorQuantize, one codebook for all heads": {"codebook_size": 16, "heads": 2, "codebook_dim": 4},
    "VectorQuantize, learned": {"codebook_size": 16, "learnable_codebook": True, "ema_update": False},
    "ResidualVQ": {"codebook_size": [16, 8]},
    "ResidualVQ, one codebook for all": {"codebook_size": 16, "num_quantizers": 3, "shared_codebook": True},
    "ResidualVQ, beam": {"codebook_size": 16, "num_quantizers": 3, "beam_size": 3},
    "ResidualVQ, implicit": {"codebook_size": 16, "num_quantizers": 3, "implicit_neural_codebook": True},
    "GroupedResidualVQ": {"codebook_size": 16, "num_quantizers": 3, "groups": 2},
    "SimVQ": {"codebook_size": 16},
    "ResidualSimVQ": {"codebook_size": 16, "num_quantizers": 2},
    "FSQ": {"levels": [4, 3, 3, 3, 3, 3]},
    "FSQ, codebooks": {"levels": [5, 4, 3], "num_codebooks": 2},
    "ResidualFSQ": {"levels": [5, 3, 3], "num_quantizers": 2},
    "GroupedResidualFSQ": {"levels": [5, 3, 3], "num_quantizers": 2, "groups": 2},
    "FSP": {"levels": [4, 3, 3, 3, 3, 3]},
    "LFQ": {"codebook_size": 64},
    "LFQ, spherical": {"codebook_size": 16, "num_codebooks": 2, "spherical": True},
    "ResidualLFQ": {"codebook_size": 16, "num_quantizers": 2},
    "GroupedResidualLFQ": {"codebook_size": 8, "num_quantizers": 2, "groups": 2},
    "LatentQuantize": {"levels": [5, 4, 3]},
    "LatentQuantize, codebooks": {"levels": [5, 4, 3], "num_codebooks": 2},
    "RandomProjectionQuantizer": {"codebook_size": 16, "codebook_dim": 4},
    "RandomProjectionQuantizer, codebooks": {"codebook_size": 16, "codebook_dim": 3, "num_codebooks": 2},
}


def package(name: str) -> Quantizer:
    """One of `PACKAGE`, in training mode."""
    return VectorQuantizePytorch(name.partition(",")[0], DIM, **PACKAGE[name])


FAMILIES = OURS | {f"vector-quantize-pytorch/{name}": partial(package, name) for name in PACKAGE}


def build(name: str) -> Quantizer:
    """A quantizer in eval mode whose codebooks, if any, are spread like the latents of `latents`."""
    torch.manual_seed(0)
    quantizer = FAMILIES[name]()
    with torch.no_grad():
        for key, tensor in quantizer.state_dict().items():
            if "codebook" in key:
                tensor.copy_(2 * torch.randn(tensor.shape))
        for layer in quantizer.modules():
            if isinstance(layer, VectorQuantizer) and layer.update == "ema":
                layer.codebook_sum.copy_(layer.codebook)
            elif getattr(layer, "use_cosine_sim", False) and hasattr(layer, "embed"):
                layer.embed.copy_(functional.normalize(layer.embed, dim=-1))  # as the package keeps it
    return quantizer.eval()


def latents(*shape: int, seed: int = 1) -> Tensor:
    return 2 * torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))
