"""Quantizers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.errors import InputError
from zoo.quantizers.additive import AdditiveVQ
from zoo.quantizers.arguments import check_arguments, parameters_of, unknown_name
from zoo.quantizers.base import Quantizer
from zoo.quantizers.bsq import BSQ
from zoo.quantizers.dimensionwise import DimensionwiseQuantizer
from zoo.quantizers.factorized import FactorizedVQ
from zoo.quantizers.fsq import FSQ
from zoo.quantizers.grouped_lfq import GroupedLFQ
from zoo.quantizers.gumbel import GumbelVQ
from zoo.quantizers.ibq import IBQ
from zoo.quantizers.lfq import LFQ
from zoo.quantizers.product import ProductVQ
from zoo.quantizers.projected import ProjectedVQ
from zoo.quantizers.residual import ResidualVQ
from zoo.quantizers.shared_mapping import SharedMappingVQ
from zoo.quantizers.sim_vq import SimVQ
from zoo.quantizers.split import ProjectedResidualVQ, SplitResidualVQ
from zoo.quantizers.vector import VectorQuantizer
from zoo.quantizers.vector_quantize_pytorch import FAMILIES, HierarchicalVQ, VectorQuantizePytorch

PACKAGE = "vector-quantize-pytorch/"
OURS: dict[str, Callable[..., Quantizer]] = {
    "vq": VectorQuantizer,
    "residual-vq": ResidualVQ,
    "projected-residual-vq": ProjectedResidualVQ,
    "split-residual-vq": SplitResidualVQ,
    "product-vq": ProductVQ,
    "additive-vq": AdditiveVQ,
    "factorized-vq": FactorizedVQ,
    "shared-mapping-vq": SharedMappingVQ,
    "sim-vq": SimVQ,
    "projected-vq": ProjectedVQ,
    "gumbel-vq": GumbelVQ,
    "ibq": IBQ,
    "fsq": FSQ,
    "lfq": LFQ,
    "grouped-lfq": GroupedLFQ,
    "bsq": BSQ,
    "dimensionwise": DimensionwiseQuantizer,
}
# Families whose `dim` follows from another argument.
WITHOUT_DIM = ("shared-mapping-vq", "fsq")
# Families that pass options on to a `VectorQuantizer` for each codebook.
OF_VECTOR_QUANTIZERS = ("residual-vq", "projected-residual-vq", "split-residual-vq", "product-vq")


def create(name: str, dim: int, **arguments: Any) -> Quantizer:
    """Return a quantizer with random weights.

    Args:
        name: of a family of zoo, as `TokenizerSpec.quantizer` has it ("vq", "fsq", "lfq", "residual-vq", ...), or
            "vector-quantize-pytorch/" and the name of a class of that package ("vector-quantize-pytorch/ResidualFSQ").
        dim: length of a vector.
        arguments: the other arguments of the family's class.

    Raises:
        InputError: an unknown name or argument, one that is missing, or a value that the family refuses.
    """
    if name.startswith(PACKAGE):
        name = name.removeprefix(PACKAGE)
        return (
            HierarchicalVQ(dim, **arguments)
            if name == "HierarchicalVQ"
            else VectorQuantizePytorch(name, dim, **arguments)
        )
    if name not in OURS:
        raise unknown_name("quantizer", name, [*OURS, *(PACKAGE + each for each in (*FAMILIES, "HierarchicalVQ"))])
    family = OURS[name]
    accepted = parameters_of(family)
    if name in OF_VECTOR_QUANTIZERS:
        options = parameters_of(VectorQuantizer)
        accepted |= {key: option for key, option in options.items() if option.kind is option.KEYWORD_ONLY}
    check_arguments(name, arguments, accepted)
    quantizer = family(**arguments) if name in WITHOUT_DIM else family(dim, **arguments)
    if quantizer.dim != dim:
        raise InputError(f"expected arguments of {name} for dim {dim}, got those for {quantizer.dim}: {arguments}")
    return quantizer
