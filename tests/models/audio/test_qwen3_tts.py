"""What is the Qwen3-TTS tokenizer's own: its decoder's windows, the encoder's past, two sets of codebooks."""

import numpy as np
import pytest
import torch

import zoo
from tests.support.paths import GOLDENS
from zoo.checkpoints.parity import read_manifest
from zoo.checkpoints.synthetic import synthetic_checkpoint
from zoo.testing import signal, small

NAME = "qwen3-tts-12hz"
FRAME = 0.08  # seconds


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    return torch.randint(2048, (2, 16, 14), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tokenizer() -> zoo.Tokenizer:
    return small(NAME)


def test_windows_are_decoded_one_by_one_from_a_few_frames_before(tokenizer, codes):
    audio = tokenizer.decode(codes, chunk_seconds=6 * FRAME, context_seconds=2 * FRAME)
    for start, stop in ((0, 6), (6, 12), (12, 14)):
        context = min(start, 2)
        window = tokenizer.decode(codes[..., start - context : stop])[..., context * 1920 :]
        torch.testing.assert_close(audio[..., start * 1920 : stop * 1920], window, atol=1e-5, rtol=0)


def test_without_context_windows_do_not_see_each_other(tokenizer, codes):
    audio = tokenizer.decode(codes, chunk_seconds=7 * FRAME, context_seconds=0)
    parts = torch.cat([tokenizer.decode(part) for part in codes.split(7, dim=-1)], dim=-1)
    torch.testing.assert_close(audio, parts, atol=1e-5, rtol=0)


def test_a_stream_of_many_windows_decodes_to_the_whole():
    tokenizer = small(NAME)
    codes = torch.randint(2048, (1, 16, 640), generator=torch.Generator().manual_seed(0))
    with tokenizer.stream() as stream:
        audio = torch.cat([stream.decode(part) for part in codes.split(37, dim=-1)], dim=-1)
    torch.testing.assert_close(audio, tokenizer.decode(codes), atol=1e-5, rtol=0)


def test_the_encoder_sees_all_of_the_past_unless_it_is_windowed(tokenizer):
    audio = signal(tokenizer, 1, (1920 * 12 + 5,))
    whole, windowed = tokenizer.to_latent(audio), tokenizer.to_latent(audio, windowed=True)
    torch.testing.assert_close(windowed[..., :4], whole[..., :4], atol=1e-5, rtol=0)  # 8 steps of the transformer
    assert float((windowed[..., 4:] - whole[..., 4:]).abs().max().detach()) > 1e-5


def test_encoder_and_decoder_have_codebooks_of_their_own(tokenizer, codes):
    assert torch.equal(tokenizer.quantizer.decoding.codes_to_latent(codes.mT).mT, tokenizer.embed(codes))
    assert not torch.equal(tokenizer.quantizer.encoding.codes_to_latent(codes.mT).mT, tokenizer.embed(codes))


def test_the_decoders_codebooks_learn_from_the_reconstruction():
    tokenizer = small(NAME).train()
    tokenizer(signal(tokenizer, 1, (1920 * 4,))).reconstruction.square().mean().backward()
    for part in (tokenizer.quantizer.decoding.first, tokenizer.quantizer.decoding.rest):
        assert part.residual.layers[0].codebook.grad.abs().sum() > 0
    assert tokenizer.encoder.stem.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("seconds", [-1, True, "2", float("nan")])
def test_a_context_that_is_no_length_is_refused(tokenizer, codes, seconds):
    with pytest.raises(zoo.InputError, match="expected context_seconds as a number of at least 0, got"):
        tokenizer.decode(codes, context_seconds=seconds)


@pytest.mark.slow
def test_golden_codes_with_and_without_the_window_and_golden_windows_of_the_decoder():
    variant, manifest = zoo.info(NAME), read_manifest(GOLDENS / NAME / "manifest.json")
    golden = {key: torch.from_numpy(array) for key, array in np.load(GOLDENS / NAME / "golden.npz").items()}
    tokenizer = variant.build().eval()
    published = synthetic_checkpoint(manifest, manifest["seed"])
    tokenizer.load_state_dict(variant.keys.convert(published, tokenizer.state_dict(), "synthetic"))
    audio = golden["long_input"][:, None]
    assert torch.equal(tokenizer.encode(audio), golden["long_codes"].mT)
    assert torch.equal(tokenizer.encode(audio, windowed=True), golden["long_codes_window"].mT)
    decoded = tokenizer.decode(golden["codes"].mT, chunk_seconds=12 * FRAME, context_seconds=5 * FRAME)
    torch.testing.assert_close(decoded[:, 0], golden["reconstruction_chunked"], atol=1e-4, rtol=0)
    with torch.no_grad():
        decoder = tokenizer.decoder
        hidden = decoder.transformer(decoder.before(tokenizer.embed(golden["window_codes"].mT)), None)
    torch.testing.assert_close(hidden.mT[:, -8:], golden["window_pre_transformer"], atol=1e-4, rtol=0)
