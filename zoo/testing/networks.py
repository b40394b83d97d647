"""Contracts about the network: that it agrees with its spec, can be trained, and runs in half precision."""

from __future__ import annotations

import math

import torch

from zoo import registry
from zoo.testing.contract import Contract, contract, expect
from zoo.testing.subject import decode_options, signal, sizes
from zoo.tokenizer import Tokenizer


@contract()
def spec_and_network_agree(tokenizer: Tokenizer) -> None:
    spec, quantizer = tokenizer.spec, tokenizer.quantizer
    expect(
        quantizer.codebook_sizes == spec.codebook_sizes,
        f"the spec has codebook_sizes {spec.codebook_sizes}, the quantizer {quantizer.codebook_sizes}",
    )
    bits = spec.bits_of(spec.num_codebooks)
    expect(
        math.isclose(quantizer.bits, bits, rel_tol=1e-6),
        f"the spec has {bits:g} bits a position in all codebooks, the quantizer {quantizer.bits:g}",
    )


@contract(lambda subject: subject.registered)
def the_network_has_the_spec_that_is_registered(tokenizer: Tokenizer) -> None:
    registered = registry.info(tokenizer.spec.name).spec
    expect(tokenizer.spec == registered, f"expected {registered}, got {tokenizer.spec}")


@contract(lambda subject: subject.decodes)
def forward_trains_encoder_and_decoder(tokenizer: Tokenizer) -> None:
    tokenizer.train()
    x = signal(tokenizer, 1, sizes(tokenizer)[-1])
    output = tokenizer(x)
    shape = (1, tokenizer.spec.num_codebooks, *tokenizer.spec.grid(tokenizer.size_of(x)))
    target = tokenizer.modality.target(x, tokenizer.spec)
    expect(
        output.reconstruction.shape == target.shape,
        f"expected a reconstruction {list(target.shape)}, got {list(output.reconstruction.shape)}",
    )
    expect(output.codes.shape == shape, f"expected codes {list(shape)}, got {list(output.codes.shape)}")
    distance = (output.reconstruction - target).nan_to_num().square().mean()
    torch.autograd.backward(distance + sum(output.losses.values()))
    for part in ("encoder", "decoder"):
        # A tokenizer around another network, as `zoo.discretize` makes it, has both inside that.
        parameters = getattr(tokenizer, part, tokenizer).parameters()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        expect(any(gradient.abs().sum() > 0 for gradient in gradients), f"no gradient reaches the {part}")
        expect(
            all(gradient.isfinite().all() for gradient in gradients), f"the {part} has gradients that are not finite"
        )


@contract()
def half_precision_weights_encode_and_decode(tokenizer: Tokenizer) -> None:
    tokenizer.bfloat16()
    codes = tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]))
    if tokenizer.encode_only is not None:
        return
    decoded = tokenizer.decode(codes, **decode_options(tokenizer))
    dtype = torch.float32 if tokenizer.modality.keeps_float32 else torch.bfloat16
    expect(decoded.dtype == dtype, f"expected a signal of {dtype}, got {decoded.dtype}")
    expect(decoded.isfinite().all(), "the decoded signal has values that are not finite")


CONTRACTS: tuple[Contract, ...] = (
    spec_and_network_agree,
    the_network_has_the_spec_that_is_registered,
    forward_trains_encoder_and_decoder,
    half_precision_weights_encode_and_decode,
)
