"""Codes as language-model ids, in patterns with markers, as packed bits and as files.

Codes are int64 `[batch, num_codebooks, *grid]`; those of codebook k lie in `[0, codebook_sizes[k])`. Ids and packed
bits have the same order: item by item, grid position by grid position (the last axis fastest), and at each
position codebook by codebook.
"""

from zoo.codes.files import CodeFile, load_codes, save_codes
from zoo.codes.ids import flatten, unflatten, vocabulary_size
from zoo.codes.language_models import extend_tokenizer
from zoo.codes.packing import pack, packed_size, unpack
from zoo.codes.patterns import Pattern

__all__ = [
    "CodeFile",
    "Pattern",
    "extend_tokenizer",
    "flatten",
    "load_codes",
    "pack",
    "packed_size",
    "save_codes",
    "unflatten",
    "unpack",
    "vocabulary_size",
]
