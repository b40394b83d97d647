"""The contract that every registered variant keeps, run with its own code and its configuration made small."""

import dataclasses

import pytest
import torch

import zoo

SMALL = {
    "WavTokenizer": {
        "encoder_width": 4,
        "dim": 16,
        "decoder_dim": 32,
        "hidden_dim": 48,
        "num_layers": 2,
        "norm_groups": 8,
    },
    "WeTok": {"width": 32, "num_blocks": 1},
}
EVERY = zoo.list_tokenizers()
AUDIO = zoo.list_tokenizers(modality="audio")
IMAGE = zoo.list_tokenizers(modality="image")


def small(name: str) -> zoo.Tokenizer:
    variant = zoo.info(name)
    torch.manual_seed(0)
    tokenizer = variant.builder(variant.spec, **{**variant.config, **SMALL[variant.builder.__name__]})
    return tokenizer.eval()


def sizes(tokenizer: zoo.Tokenizer) -> list[tuple[int, ...]]:
    """A size that fits the grid and an odd one."""
    step = tokenizer.spec.downsample
    return [tuple(3 * s for s in step), tuple(2 * s + s // 2 + 1 for s in step)]


def signal(tokenizer: zoo.Tokenizer, batch: int, size: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    uniform = torch.rand(batch, tokenizer.spec.channels, *size, generator=torch.Generator().manual_seed(seed))
    return uniform - 0.5 if tokenizer.spec.modality == "audio" else uniform


def decode_options(tokenizer: zoo.Tokenizer) -> dict:
    """Whatever makes `decode` give the same twice."""
    return {"generator": torch.Generator().manual_seed(0)} if "generator" in tokenizer.decode_options else {}


@pytest.mark.parametrize("name", EVERY)
def test_codes_are_integers_on_the_grid_and_decode_to_the_size_that_went_in(name):
    tokenizer = small(name)
    for size in sizes(tokenizer):
        x = signal(tokenizer, 2, size)
        codes = tokenizer.encode(x)
        assert codes.dtype == torch.int64
        assert codes.shape == (2, tokenizer.spec.num_codebooks, *tokenizer.spec.grid(size))
        assert codes.min() >= 0
        assert all(codes[:, k].max() < n for k, n in enumerate(tokenizer.spec.codebook_sizes))
        reconstruction = tokenizer.decode(codes, size=size)
        assert reconstruction.shape == x.shape
        assert reconstruction.isfinite().all()
        if tokenizer.spec.modality == "image":
            assert 0 <= reconstruction.min() <= reconstruction.max() <= 1


@pytest.mark.parametrize("name", EVERY)
def test_an_item_has_the_same_codes_alone_and_in_a_batch(name):
    tokenizer = small(name)
    for size in sizes(tokenizer):
        x = signal(tokenizer, 3, size)
        together = tokenizer.encode(x)
        for i in range(3):
            assert torch.equal(tokenizer.encode(x[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("name", AUDIO)
def test_padding_does_not_change_codes(name):
    tokenizer = small(name)
    hop = tokenizer.spec.hop_length
    lengths = torch.tensor([5 * hop, 2 * hop + 7, 1, 2 * hop + 7])
    x = signal(tokenizer, 4, (5 * hop,))
    codes = tokenizer.encode(x, lengths=lengths)
    for i, (length, frames) in enumerate(zip(lengths, tokenizer.code_lengths(lengths), strict=True)):
        alone = tokenizer.encode(x[i : i + 1, :, :length])
        assert alone.shape[-1] == frames
        assert torch.equal(codes[i : i + 1, :, :frames], alone)
        assert not codes[i, :, frames:].any()


@pytest.mark.parametrize("name", EVERY)
def test_decoding_starts_from_what_embed_gives(name):
    tokenizer = small(name)
    codes = tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]))
    latent = tokenizer.embed(codes)
    assert latent.shape == (1, tokenizer.quantizer.dim, *codes.shape[2:])
    with torch.no_grad():
        decoded = tokenizer._denormalize(tokenizer.from_latent(latent, **decode_options(tokenizer)))
    if tokenizer.spec.modality == "image":
        decoded = decoded.clamp(0, 1)
    assert torch.equal(tokenizer.decode(codes, **decode_options(tokenizer)), decoded)


@pytest.mark.parametrize("name", EVERY)
def test_forward_trains_encoder_and_decoder(name):
    tokenizer = small(name).train()
    x = signal(tokenizer, 2, sizes(tokenizer)[1])
    output = tokenizer(x)
    assert output.reconstruction.shape == x.shape
    assert output.codes.shape == (2, tokenizer.spec.num_codebooks, *tokenizer.spec.grid(tuple(x.shape[2:])))
    assert output.losses
    ((output.reconstruction - x).square().mean() + sum(output.losses.values())).backward()
    for part in (tokenizer.encoder, tokenizer.decoder):
        assert all(parameter.grad is not None for parameter in part.parameters())
        assert any(parameter.grad.abs().sum() > 0 for parameter in part.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_spec_and_network_agree(name):
    tokenizer = small(name)
    assert tokenizer.quantizer.codebook_sizes == tokenizer.spec.codebook_sizes
    assert tokenizer.quantizer.bits == pytest.approx(tokenizer.spec.bits_per_position)
    assert dataclasses.replace(tokenizer.spec) == zoo.info(name).spec


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_weights_encode_and_decode(name):
    tokenizer = small(name).bfloat16()
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    reconstruction = tokenizer.decode(tokenizer.encode(x), **decode_options(tokenizer))
    assert reconstruction.dtype == torch.bfloat16
    assert reconstruction.isfinite().all()


@pytest.mark.parametrize("name", EVERY)
def test_bad_signals_are_refused_with_what_came(name):
    tokenizer = small(name)
    x = signal(tokenizer, 2, sizes(tokenizer)[0])
    cases = [
        (x.numpy(), "got ndarray"),
        (x[0], r"got \["),
        (x.repeat(1, 2, *(1 for _ in x.shape[2:])), r"got \["),
        ((x * 255).to(torch.uint8), "got torch.uint8"),
        (x[:0], "empty"),
        (x[..., :0], "empty"),
        (x.masked_fill(x == x.max(), torch.nan), "not finite"),
        (x.masked_fill(x == x.max(), torch.inf), "not finite"),
    ]
    for bad, message in cases:
        with pytest.raises(zoo.InputError, match=message):
            tokenizer.encode(bad)


@pytest.mark.parametrize("name", EVERY)
def test_bad_codes_are_refused_with_what_came(name):
    tokenizer = small(name)
    codes = tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]))
    cases = [
        (codes.tolist(), "got list"),
        (codes[0], r"got \["),
        (torch.cat([codes, codes], dim=1), r"got \["),
        (codes.float(), "integer codes"),
        (codes[:0], "empty"),
        (codes - codes.max() - 1, "out of range"),
        (codes + tokenizer.spec.codebook_sizes[0], "out of range"),
    ]
    for bad, message in cases:
        with pytest.raises(zoo.InputError, match=message):
            tokenizer.decode(bad)
    beyond = tuple(n + 1 for n in tokenizer.decode(codes).shape[2:])
    with pytest.raises(zoo.InputError, match="expected size"):
        tokenizer.decode(codes, size=beyond)


@pytest.mark.parametrize("name", EVERY)
def test_an_option_that_a_system_lacks_is_named(name):
    tokenizer = small(name)
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    with pytest.raises(zoo.InputError, match="encode has no option 'num_tokens'"):
        tokenizer.encode(x, num_tokens=8)
    with pytest.raises(zoo.InputError, match="decode has no option 'temperature'"):
        tokenizer.decode(tokenizer.encode(x), temperature=1.0)


@pytest.mark.parametrize("name", AUDIO)
def test_bad_lengths_and_rates_are_refused(name):
    tokenizer = small(name)
    x = signal(tokenizer, 2, (1000,))
    for lengths in (torch.tensor([1000]), torch.tensor([0, 1000]), torch.tensor([1, 1001]), torch.tensor([1.0, 2.0])):
        with pytest.raises(zoo.InputError, match="expected lengths"):
            tokenizer.encode(x, lengths=lengths)
    with pytest.raises(zoo.InputError, match="takes 24000 Hz, got 16000 Hz"):
        tokenizer.encode(x, sample_rate=16000)


@pytest.mark.parametrize("name", IMAGE)
def test_images_of_a_batch_have_no_lengths(name):
    tokenizer = small(name)
    with pytest.raises(zoo.InputError, match="images of a batch have one size"):
        tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]), lengths=torch.tensor([1]))
