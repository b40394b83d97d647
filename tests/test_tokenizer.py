"""The contract that every registered variant keeps, run with its own code and its configuration made small."""

import dataclasses

import pytest
import torch

import zoo
from tests.support.tokenizers import decode_options, signal, sizes, small

EVERY = zoo.list_tokenizers()
SPECS = {name: zoo.info(name).spec for name in EVERY}
IMAGE = zoo.list_tokenizers(modality="image")
AUDIO = zoo.list_tokenizers(modality="audio")
VIDEO = zoo.list_tokenizers(modality="video")
STRUCTURE = zoo.list_tokenizers(modality="structure")
DECODING = [name for name in EVERY if zoo.info(name).builder.encode_only is None]
ENCODE_ONLY = [name for name in EVERY if name not in DECODING]
FIXED = [name for name in EVERY if not SPECS[name].variable_size]


@pytest.mark.parametrize("name", EVERY)
def test_codes_are_integers_on_the_grid(name):
    tokenizer = small(name)
    for size in sizes(tokenizer):
        x = signal(tokenizer, 2, size)
        codes = tokenizer.encode(x)
        assert codes.dtype == torch.int64
        assert codes.shape == (2, tokenizer.spec.num_codebooks, *tokenizer.spec.grid(size))
        assert codes.min() >= 0
        assert all(codes[:, k].max() < n for k, n in enumerate(tokenizer.spec.codebook_sizes))


@pytest.mark.parametrize("name", DECODING)
def test_codes_decode_to_the_size_that_went_in(name):
    tokenizer = small(name)
    for size in sizes(tokenizer):
        x = signal(tokenizer, 2, size)
        reconstruction = tokenizer.decode(tokenizer.encode(x), size=size)
        assert reconstruction.shape == x.shape
        assert reconstruction.isfinite().all()
        if tokenizer.spec.modality in ("image", "video"):
            assert 0 <= reconstruction.min() <= reconstruction.max() <= 1


@pytest.mark.parametrize("name", ENCODE_ONLY)
def test_a_system_without_a_decoder_says_why(name):
    tokenizer = small(name)
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    codes = tokenizer.encode(x)
    for call in (lambda: tokenizer.decode(codes), lambda: tokenizer(x), lambda: tokenizer.reconstruct(x)):
        with pytest.raises(zoo.InputError, match=f"{name} cannot decode: ."):
            call()


@pytest.mark.parametrize("name", EVERY)
def test_an_item_has_the_same_codes_alone_and_in_a_batch(name):
    tokenizer = small(name)
    for size in sizes(tokenizer):
        x = signal(tokenizer, 3, size)
        together = tokenizer.encode(x)
        for i in range(3):
            assert torch.equal(tokenizer.encode(x[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize("name", AUDIO + VIDEO + STRUCTURE)
def test_padding_does_not_change_codes(name):
    tokenizer = small(name)
    step, axis = tokenizer.spec.downsample[0], 1 if name in STRUCTURE else 2
    long, short = 5 * step + 4, 2 * step + step // 2 + 3
    lengths = torch.tensor([long, short, 1, short])
    x = signal(tokenizer, 4, (long, *tokenizer.spec.downsample[1:]))
    codes = tokenizer.encode(x, lengths=lengths)
    for i, (length, positions) in enumerate(zip(lengths, tokenizer.code_lengths(lengths), strict=True)):
        alone = tokenizer.encode(x[i : i + 1].narrow(axis, 0, length))
        assert alone.shape[2] == positions
        assert torch.equal(codes[i : i + 1, :, :positions], alone)
        assert not codes[i, :, positions:].any()


@pytest.mark.parametrize("name", VIDEO)
def test_video_is_encoded_and_decoded_window_by_window(name):
    tokenizer = small(name)
    spec = tokenizer.spec
    chunk = 1 + spec.downsample[0]
    clip = signal(tokenizer, 1, (2 * chunk + 2, *spec.downsample[1:]))
    codes = tokenizer.encode(clip, chunk_frames=chunk)
    parts = [tokenizer.encode(window) for window in clip.split(chunk, dim=2)]
    assert torch.equal(codes, torch.cat(parts, dim=2))
    assert codes.shape[2:] == spec.grid(tuple(clip.shape[2:]), chunk)
    decoded = tokenizer.decode(codes, size=tuple(clip.shape[2:]), chunk_frames=chunk)
    assert torch.equal(decoded[:, :, :chunk], tokenizer.decode(parts[0]))
    assert torch.equal(decoded[:, :, 2 * chunk :], tokenizer.decode(parts[2])[:, :, :2])
    with pytest.raises(zoo.InputError, match="expected chunk_frames of at least 1, got 0"):
        tokenizer.encode(clip, chunk_frames=0)


@pytest.mark.parametrize("name", [name for name in VIDEO if SPECS[name].causal])
def test_later_frames_do_not_change_the_codes_of_earlier_ones(name):
    tokenizer = small(name)
    step = tokenizer.spec.downsample[0]
    clip = signal(tokenizer, 1, (1 + 3 * step, *tokenizer.spec.downsample[1:]))
    changed = clip.clone()
    changed[:, :, 1 + 2 * step :] = 1 - clip[:, :, 1 + 2 * step :]
    before, after = tokenizer.encode(clip), tokenizer.encode(changed)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 3:], after[:, :, 3:])


@pytest.mark.parametrize("name", FIXED)
def test_another_size_than_the_only_one_is_refused(name):
    tokenizer = small(name)
    height, width = tokenizer.spec.resolution
    with pytest.raises(zoo.InputError, match=f"takes image of {height}x{width}, got {height}x{width + 16}"):
        tokenizer.encode(signal(tokenizer, 1, (height, width + 16)))
    codes = tokenizer.encode(signal(tokenizer, 1, (height, width)))
    with pytest.raises(zoo.InputError, match=r"takes .* codes an image, got"):
        tokenizer.decode(torch.cat([codes, codes], dim=2))


@pytest.mark.parametrize("name", [name for name in EVERY if SPECS[name].tail_drop])
def test_the_first_tokens_decode_alone(name):
    tokenizer = small(name)
    codes = tokenizer.encode(signal(tokenizer, 2, tokenizer.spec.resolution))
    for n in (1, 7, tokenizer.spec.num_tokens):
        first = tokenizer.encode(signal(tokenizer, 2, tokenizer.spec.resolution), num_tokens=n)
        assert torch.equal(first, codes[:, :, :n])
        assert torch.equal(tokenizer.decode(codes, num_tokens=n), tokenizer.decode(first))
    for n in (0, tokenizer.spec.num_tokens + 1, 2.5):
        with pytest.raises(zoo.InputError, match="expected num_tokens from 1 to"):
            tokenizer.decode(codes, num_tokens=n)


@pytest.mark.parametrize("name", EVERY)
def test_decoding_starts_from_what_embed_gives(name):
    tokenizer = small(name)
    codes = tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]))
    latent = tokenizer.embed(codes)
    assert latent.shape == (1, tokenizer.quantizer.dim, *codes.shape[2:])
    if name in ENCODE_ONLY:
        return
    with torch.no_grad():
        decoded = tokenizer._denormalize(tokenizer.from_latent(latent, **decode_options(tokenizer)))
    if tokenizer.spec.modality in ("image", "video"):
        decoded = decoded.clamp(0, 1)
    assert torch.equal(tokenizer.decode(codes, **decode_options(tokenizer)), decoded)


@pytest.mark.parametrize("name", DECODING)
def test_forward_trains_encoder_and_decoder(name):
    tokenizer = small(name).train()
    x = signal(tokenizer, 1, sizes(tokenizer)[-1])
    output = tokenizer(x)
    assert output.reconstruction.shape == x.shape
    assert output.codes.shape == (1, tokenizer.spec.num_codebooks, *tokenizer.spec.grid(tokenizer.size_of(x)))
    ((output.reconstruction - x).nan_to_num().square().mean() + sum(output.losses.values())).backward()
    for part in (tokenizer.encoder, tokenizer.decoder):
        gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
        assert any(gradient.abs().sum() > 0 for gradient in gradients)
        assert all(gradient.isfinite().all() for gradient in gradients)


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
    codes = tokenizer.encode(x)
    if name in DECODING:
        reconstruction = tokenizer.decode(codes, **decode_options(tokenizer))
        assert reconstruction.dtype == (torch.float32 if name in STRUCTURE else torch.bfloat16)
        assert reconstruction.isfinite().all()


@pytest.mark.parametrize("name", EVERY)
def test_bad_signals_are_refused_with_what_came(name):
    tokenizer = small(name)
    x = signal(tokenizer, 2, sizes(tokenizer)[0])
    axis = 2 if name in STRUCTURE else 1
    highest = x == x.nan_to_num().max()
    cases = [
        (x.numpy(), "got ndarray"),
        (x[0], r"got \["),
        (torch.cat([x, x], dim=axis), r"got \["),
        ((x * 255).nan_to_num().to(torch.uint8), "got torch.uint8"),
        (x[:0], "empty"),
        (x[:, :0] if name in STRUCTURE else x[..., :0], "empty"),
        (x.masked_fill(highest, torch.nan), "not finite"),
        (x.masked_fill(highest, torch.inf), "not finite"),
    ]
    if name in STRUCTURE:
        cases.append((torch.full_like(x, torch.nan), "an item without a single atom"))
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
            tokenizer.embed(bad)
    if name in DECODING:
        beyond = tuple(n + 1 for n in tokenizer.size_of(tokenizer.decode(codes)))
        with pytest.raises(zoo.InputError, match="expected size"):
            tokenizer.decode(codes, size=beyond)


@pytest.mark.parametrize("name", EVERY)
def test_an_option_that_a_system_lacks_is_named(name):
    tokenizer = small(name)
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    with pytest.raises(zoo.InputError, match="encode has no option 'num_bananas'"):
        tokenizer.encode(x, num_bananas=8)
    if name in DECODING:
        with pytest.raises(zoo.InputError, match="decode has no option 'num_bananas'"):
            tokenizer.decode(tokenizer.encode(x), num_bananas=8)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_saved_gives_the_same_codes(name, tmp_path):
    tokenizer = small(name)
    x = signal(tokenizer, 1, sizes(tokenizer)[0])
    tokenizer.save_pretrained(tmp_path)
    loaded = zoo.load(tmp_path)
    assert loaded.spec == tokenizer.spec
    assert torch.equal(loaded.encode(x), tokenizer.encode(x))


@pytest.mark.parametrize("name", AUDIO)
def test_bad_lengths_and_rates_are_refused(name):
    tokenizer = small(name)
    x = signal(tokenizer, 2, (1000,))
    for lengths in (torch.tensor([1000]), torch.tensor([0, 1000]), torch.tensor([1, 1001]), torch.tensor([1.0, 2.0])):
        with pytest.raises(zoo.InputError, match="expected lengths"):
            tokenizer.encode(x, lengths=lengths)
    rate = tokenizer.spec.sample_rate
    with pytest.raises(zoo.InputError, match=f"takes {rate} Hz, got {rate - 1} Hz"):
        tokenizer.encode(x, sample_rate=rate - 1)


@pytest.mark.parametrize("name", IMAGE)
def test_images_of_a_batch_have_no_lengths(name):
    tokenizer = small(name)
    with pytest.raises(zoo.InputError, match="images of a batch have one size"):
        tokenizer.encode(signal(tokenizer, 1, sizes(tokenizer)[0]), lengths=torch.tensor([1]))
