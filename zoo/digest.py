"""Hashes by which weights are recognized."""

from __future__ import annotations

import hashlib

import torch


def weights_sha256(network: torch.nn.Module) -> str:
    """Return the SHA-256 over names, types, shapes and values of all tensors, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
