"""Quantizer families: one file each, one interface."""

from zoo.quantizers.base import Quantizer, QuantizerOutput, straight_through
from zoo.quantizers.grouped_lfq import GroupedLFQ
from zoo.quantizers.nearest import nearest_code
from zoo.quantizers.vector import VectorQuantizer

__all__ = [
    "GroupedLFQ",
    "Quantizer",
    "QuantizerOutput",
    "VectorQuantizer",
    "nearest_code",
    "straight_through",
]
