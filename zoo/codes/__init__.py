"""Codes as language-model ids, as packed bits and as files.

Codes are int64 `[batch, num_codebooks, *grid]`; those of codebook k lie in `[0, codebook_sizes[k])`. Ids and packed
bits have the same order: item by item, grid position by grid position (the last axis fastest), and at each
position codebook by codebook.
"""

from zoo.codes.files import CodeFile, load_codes, save_codes
from zoo.codes.ids import flatten, unflatten, vocabulary_size
from zoo.codes.packing import pack, packed_size, unpack

__all__ = [
    "CodeFile",
    "flatten",
    "load_codes",
    "pack",
    "packed_size",
    "save_codes",
    "unflatten",
    "unpack",
    "vocabulary_size",
]
