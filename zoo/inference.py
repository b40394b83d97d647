"""What makes a network quick when it only encodes and decodes, without a difference to training, saving or copying it.

`for_inference` chooses the memory layout of weights; `compile_networks` has `torch.compile` make code of them; `kept`
keeps what is computed from weights alone. All leave parameters, their names and their values as they are, so that a
network can still be trained, saved, pickled, copied, moved to another device and exported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from zoo.tracing import values_are_readable

if TYPE_CHECKING:
    from zoo.tokenizer import Tokenizer

VECTOR = 16  # numbers that processors compute at once

T = TypeVar("T")
Network = TypeVar("Network", bound=nn.Module)


class _Kept(NamedTuple):
    weights: list[Tensor]  # which share the memory of the module's own, so that no other tensor can have its address
    versions: list[int]
    value: Any


_KEPT: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()


def for_inference(network: Network) -> Network:
    """Return the same network, laid out so that it encodes and decodes faster on the CPU: 1.1 times for images.

    The kernels of two-dimensional convolutions get their channels last, and so does all that they return, so that no
    convolution has to rearrange its signal. Where an image is doubled and then convolved, the convolution comes first,
    with less than half of the work. Results differ by rounding alone, about twice as far from exact ones as before;
    a code whose two nearest rows are equally near may become the other one. `zoo.load` calls this, and so everything
    that codes with loaded weights gives the same codes; a network that was trained in memory is given to it by hand.

    A module's attribute `channels_first` says that it stays as it is, because that was measured to be faster; so do
    convolutions to a few channels, since PyTorch's norm of these is slow with channels last.

    Args:
        network: a tokenizer, or any module, which is changed; what is on another device than the CPU stays as it is.
    """
    if getattr(network, "channels_first", False):
        return network
    if isinstance(network, nn.Conv2d) and gains(network):
        network.weight.data = network.weight.data.contiguous(memory_format=torch.channels_last)
    for child in network.children():
        for_inference(child)
    return network


def gains(conv: nn.Conv2d) -> bool:
    """Return whether a convolution is faster with its channels last."""
    return conv.weight.device.type == "cpu" and max(conv.kernel_size) > 1 and conv.out_channels >= VECTOR


def compile_networks(tokenizer: Tokenizer) -> None:
    """Compile a tokenizer's encoder and decoder with `torch.compile`, each at its first call.

    Other sizes may need another graph; when a network has eight, PyTorch makes no more and runs it as before. Checks of
    values, padding and the quantizer are not compiled. Codes are the same, unless a latent is as near to one row as to
    another.
    """
    tokenizer.encoder.compile()
    if tokenizer.encode_only is None:
        tokenizer.decoder.compile()


def is_inferring() -> bool:
    """Return whether neither gradients are recorded nor a graph, so that a result may be computed in another way."""
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def kept(module: nn.Module, make: Callable[..., T], *weights: Tensor) -> T:
    """Return `make(*weights)`, which is computed again only when a weight has changed.

    In training, with gradients and in a graph it is computed each time. What changes a weight through `.data` in place,
    past PyTorch's own count of changes, is not noticed.

    Args:
        module: the module whose weights these are, the same at each call; what is kept ends with it.
    """
    if module.training or not is_inferring() or not all(map(_is_counted, weights)):
        return make(*weights)
    versions = [weight._version for weight in weights]
    found = _KEPT.get(module)
    if found is None or found.versions != versions or not all(map(_is_same, found.weights, weights)):
        found = _Kept([weight.detach() for weight in weights], versions, make(*weights))
        _KEPT[module] = found
    value: T = found.value
    return value


def _is_counted(weight: Tensor) -> bool:
    """Return whether a tensor has values, and PyTorch counts how often they change."""
    return values_are_readable(weight) and not weight.is_inference()


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.dtype == other.dtype and one.device == other.device
