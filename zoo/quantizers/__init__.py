"""Quantizer families: one file each, one interface; `create` builds any of them by name."""

from zoo.quantizers.additive import AdditiveVQ
from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through, without_autocast
from zoo.quantizers.bsq import BSQ
from zoo.quantizers.create import create
from zoo.quantizers.dimensionwise import DimensionwiseQuantizer
from zoo.quantizers.entropy import codebook_entropy_loss
from zoo.quantizers.factorized import FactorizedVQ
from zoo.quantizers.fsq import FSQ
from zoo.quantizers.grouped_lfq import GroupedLFQ
from zoo.quantizers.gumbel import GumbelVQ
from zoo.quantizers.ibq import IBQ
from zoo.quantizers.lfq import LFQ
from zoo.quantizers.multi_scale import MultiScaleQuantizer, MultiScaleVQ
from zoo.quantizers.nearest import most_similar_code, nearest_code
from zoo.quantizers.product import ProductVQ
from zoo.quantizers.projected import ProjectedVQ
from zoo.quantizers.residual import ResidualVQ
from zoo.quantizers.shared_mapping import SharedMappingVQ
from zoo.quantizers.sim_vq import SimVQ
from zoo.quantizers.split import ProjectedResidualVQ, SplitResidualVQ
from zoo.quantizers.vector import VectorQuantizer
from zoo.quantizers.vector_quantize_pytorch import HierarchicalVQ, VectorQuantizePytorch

__all__ = [
    "BSQ",
    "FSQ",
    "IBQ",
    "LFQ",
    "AdditiveVQ",
    "DimensionwiseQuantizer",
    "FactorizedVQ",
    "GroupedLFQ",
    "GumbelVQ",
    "HierarchicalVQ",
    "MultiScaleQuantizer",
    "MultiScaleVQ",
    "ProductVQ",
    "ProjectedResidualVQ",
    "ProjectedVQ",
    "Quantizer",
    "QuantizerOutput",
    "ResidualVQ",
    "SharedMappingVQ",
    "SimVQ",
    "SplitResidualVQ",
    "VectorQuantizePytorch",
    "VectorQuantizer",
    "codebook_entropy_loss",
    "create",
    "most_similar_code",
    "nearest_code",
    "straight_through",
    "without_autocast",
]
