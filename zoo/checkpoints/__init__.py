"""Checkpoints: key maps of published layouts, safe reading, building networks without storage, parity."""

from zoo.checkpoints.building import assign, without_storage
from zoo.checkpoints.keymap import KeyMap, State, check_finite, check_state, check_weights, descend
from zoo.checkpoints.reading import read_checkpoint, read_metadata, write_checkpoint
from zoo.checkpoints.transforms import flag, inside, pointwise_to_linear

__all__ = [
    "KeyMap",
    "State",
    "assign",
    "check_finite",
    "check_state",
    "check_weights",
    "descend",
    "flag",
    "inside",
    "pointwise_to_linear",
    "read_checkpoint",
    "read_metadata",
    "without_storage",
    "write_checkpoint",
]
