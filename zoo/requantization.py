"""Another quantizer in a tokenizer, by name: what encoder and decoder are trained with."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from zoo.quantizers import create
from zoo.quantizers.base import ScalesQuantizer

if TYPE_CHECKING:
    from zoo.tokenizer import Tokenizer


def requantize(tokenizer: Tokenizer, name: str, /, **arguments: Any) -> Tokenizer:
    """Put another quantizer, with random weights, between a tokenizer's encoder and decoder, which stay as they are.

        tokenizer = zoo.requantize(
            zoo.create("llamagen-vq-16"), "vector-quantize-pytorch/ResidualFSQ", levels=[8, 5, 5, 5], num_quantizers=2
        )

    The tokenizer has to be trained then; recipes have the same under `quantizer`. `save_pretrained` stores which
    quantizer it is. A pyramid of scales makes the tokenizer one of images of a single size, on whose grid it ends.

    Args:
        tokenizer: it is changed.
        name, arguments: as in `zoo.quantizers.create`; `dim` is that of the quantizer that is replaced.

    Returns:
        The tokenizer. Its spec has the new quantizer, codebooks and scales.

    Raises:
        InputError: as `create`, or a quantizer that does not go with the spec.
    """
    quantizer = create(name, tokenizer.quantizer.dim, **arguments).train(tokenizer.training)
    own = tokenizer.spec
    spec = replace(
        own,
        quantizer=name,
        codebook_sizes=quantizer.codebook_sizes,
        residual=quantizer.is_residual and not own.tail_drop,
        default_codebooks=None,
        scales=(),
        other_scales=(),
    )
    if isinstance(quantizer, ScalesQuantizer):
        scales, *others = quantizer.pyramids.values()
        height, width = (cells * step for cells, step in zip(scales[-1], spec.downsample, strict=True))
        spec = replace(spec, scales=scales, other_scales=tuple(others), resolution=(height, width), variable_size=False)
    if tokenizer.device.type != "meta":  # where buffers have values and nothing else has
        quantizer = quantizer.to(tokenizer.device)
    replaced = {field.name: getattr(own, field.name) for field in fields(spec)}
    replaced = {key: value for key, value in replaced.items() if value != getattr(spec, key)}
    if tokenizer.other_quantizer is not None:  # it is the class's own quantizer that is replaced in the end
        replaced |= tokenizer.other_quantizer["replaces"]
    tokenizer.quantizer, tokenizer.spec = quantizer, spec
    tokenizer.other_quantizer = {"name": name, "arguments": arguments, "replaces": replaced}
    return tokenizer
