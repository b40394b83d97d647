"""What is XY-Tokenizer's own: two encoders without padding, windows of 30 seconds, the unfinished last token."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer, sinusoids

import zoo
from tests.support.paths import GOLDENS
from zoo.checkpoints.parity import read_manifest
from zoo.layers.whisper import Stem, Transformer
from zoo.memory import peak_bytes
from zoo.testing import small

NAME = "xy-tokenizer"
SECONDS = 16000


def noise(samples: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(samples)) * 0.1


@pytest.fixture(scope="module")
def tokenizer() -> zoo.Tokenizer:
    """The small network, with convolutions loud enough for the latents of different audio to differ."""
    network = small(NAME)
    with torch.no_grad():
        for stem in (network.encoder.semantic_stem, network.encoder.acoustic_stem):
            stem.conv1.weight.mul_(4)
    return network


def plain_transformer(ours: Transformer, x: Tensor, valid: int) -> Tensor:
    """Layers of transformers with our weights over all frames; padding is masked, and becomes 0 at the end."""
    mask = torch.zeros(x.shape[1], x.shape[1])
    mask[:, valid:] = torch.finfo(torch.float32).min
    width = x.shape[2]
    x = x + sinusoids(x.shape[1], width)
    for layer in ours.layers:
        config = WhisperConfig(
            d_model=width, encoder_attention_heads=2, encoder_ffn_dim=32, dropout=0.0, attn_implementation="eager"
        )
        published = WhisperEncoderLayer(config).eval()
        published.load_state_dict(
            {
                f"{theirs}.{key}": tensor
                for theirs, module in {
                    "self_attn_layer_norm": layer.norm1,
                    "self_attn.q_proj": layer.attention.query,
                    "self_attn.k_proj": layer.attention.key,
                    "self_attn.v_proj": layer.attention.value,
                    "self_attn.out_proj": layer.attention.out,
                    "final_layer_norm": layer.norm2,
                    "fc1": layer.expand,
                    "fc2": layer.contract,
                }.items()
                for key, tensor in module.state_dict().items()
            }
        )
        x = published(x, mask[None, None])
    x = ours.norm(x)
    x[:, valid:] = 0
    return x


def plain_convolutions(ours: Stem, mel: Tensor) -> Tensor:
    x = functional.gelu(functional.conv1d(mel, ours.conv1.weight, ours.conv1.bias, padding=1))
    return functional.gelu(functional.conv1d(x, ours.conv2.weight, ours.conv2.bias, stride=2, padding=1)).mT


@torch.no_grad()
def plain_latent(tokenizer: zoo.Tokenizer, audio: Tensor) -> Tensor:
    """Latents `[tokens, dim]` of a clip `[samples]` as described: padded to 30 seconds, and masked."""
    encoder = tokenizer.encoder
    extract = WhisperFeatureExtractor(feature_size=80)
    found = extract(audio.numpy(), sampling_rate=16000, return_tensors="pt", return_attention_mask=True)
    assert found.input_features.shape[2] == 3000
    valid = -(-len(audio) // 160) // 2
    semantic = plain_convolutions(encoder.semantic_stem, found.input_features)
    semantic = plain_transformer(encoder.semantic, semantic, valid)
    semantic = plain_transformer(encoder.semantic_adapter, semantic, valid)
    acoustic = plain_convolutions(encoder.acoustic_stem, found.input_features)
    acoustic = plain_transformer(encoder.acoustic, acoustic, valid)
    x = plain_transformer(encoder.adapter, encoder.merge(torch.cat([semantic, acoustic], dim=2)), valid)
    down = encoder.downsample
    four = x[0].unflatten(0, (-1, 4))  # [tokens, 4, width]
    gate, up = (torch.einsum("tkc,ock->to", four, conv.weight) for conv in (down.gate, down.up))
    latent = down.norm(down.down(functional.silu(gate) * up) + four.flatten(1))
    return latent[: len(audio) // 1280]


@pytest.mark.parametrize("samples", [1280, 1441, 12345, 30 * SECONDS - 1000])
def test_latents_and_codes_are_those_of_padding_to_thirty_seconds(tokenizer, samples):
    audio = noise(samples)
    expected = plain_latent(tokenizer, audio[0, 0])
    tokens = len(expected)
    kept = min(tokens, 250)  # of the first window
    with torch.no_grad():
        latent = tokenizer.to_latent(audio)
    torch.testing.assert_close(latent[0].mT[:kept], expected[:kept], atol=1e-4, rtol=0)
    codes = tokenizer.quantize(expected.mT[None])
    agree = (tokenizer.encode(audio)[..., :kept] == codes[..., :kept]).float().mean()
    assert agree > 0.99  # of codebooks with random rows, a few codes are ties
    assert samples < 5000 or len(codes.unique()) > 10


def test_a_clip_shorter_than_a_token_has_one():
    tokenizer = small(NAME)
    for samples in (1, 160, 161, 321, 1279):
        codes = tokenizer.encode(noise(samples))
        assert codes.shape == (1, 8, 1)
        assert tokenizer.decode(codes, size=samples).shape == (1, 1, samples)


def test_long_audio_is_encoded_in_windows_of_thirty_seconds_every_twenty():
    tokenizer = small(NAME)
    audio = noise(45 * SECONDS + 77)
    windows = [audio[..., start * SECONDS : (start + 30) * SECONDS] for start in (0, 20, 40)]
    with torch.no_grad():
        expected = torch.cat([tokenizer.encoder(window)[..., :250] for window in windows], dim=-1)
        assert torch.equal(tokenizer.to_latent(audio), expected)
    assert expected.shape[-1] == 563


def test_long_codes_are_decoded_in_windows_of_thirty_seconds_every_twenty():
    tokenizer = small(NAME)
    codes = torch.randint(1024, (1, 8, 563), generator=torch.Generator().manual_seed(0))
    latent = tokenizer.embed(codes)
    windows = [latent[..., start : start + 375] for start in (0, 250, 500)]
    with torch.no_grad():
        expected = torch.cat([tokenizer.decoder(window)[..., : 20 * SECONDS] for window in windows], dim=-1)
    assert torch.equal(tokenizer.decode(codes), expected)
    assert expected.shape[-1] == 563 * 1280


def test_memory_for_more_windows_grows_by_the_signal_and_its_latents_alone():
    tokenizer = small(NAME)
    with torch.no_grad():
        some, more = (peak_bytes(tokenizer.to_latent, torch.empty(1, 1, seconds * SECONDS)) for seconds in (60, 160))
    samples = 4 * 100 * SECONDS  # bytes
    assert more - some < 1.2 * samples


def test_the_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = zoo.create(NAME)
    assert network.num_parameters / 1e6 == pytest.approx(519.6, abs=0.05)


def test_a_file_is_read_with_and_without_what_training_puts_around_the_network():
    manifest = read_manifest(GOLDENS / NAME / "manifest.json")
    state = {
        key: torch.empty(entry["shape"], dtype=getattr(torch, entry["dtype"]), device="meta")
        for key, entry in manifest["tensors"].items()
    }
    state["acoustic_decoder.positional_embedding"] = torch.empty(1500, 768, device="meta")
    state["vocos.head.istft.window"] = torch.empty(640, device="meta")
    with torch.device("meta"):
        expected = zoo.create(NAME).state_dict()
    published, alone = zoo.info(NAME).sources
    assert published.keys is not None and alone.keys is not None
    checkpoint = {"generator": state, "discriminator": {"x": torch.zeros(1)}}
    assert published.keys.convert(checkpoint, expected, "published").keys() == expected.keys()
    assert alone.keys.convert(state, expected, "alone").keys() == expected.keys()


# MOSS-TTSD's tokenizer, whose vocoder writes 24 kHz


def test_the_encoders_of_the_variant_of_24_khz_hear_16_khz():
    tokenizer, other = small(NAME), small(f"{NAME}-ttsd-v0")
    other.load_state_dict({**other.state_dict(), **shared(tokenizer)})
    with torch.no_grad():
        latent, expected = other.to_latent(tone(24000)), tokenizer.to_latent(tone(16000))
    assert latent.shape == expected.shape == (1, 64, 13)
    torch.testing.assert_close(latent[..., 2:-2], expected[..., 2:-2], atol=0.05, rtol=0)


def tone(rate: int) -> Tensor:
    return 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate)[None, None]


def shared(tokenizer: zoo.Tokenizer) -> dict[str, Tensor]:
    """Tensors without those of the vocoder's last layer, whose window has another size."""
    return {key: tensor for key, tensor in tokenizer.state_dict().items() if not key.startswith("decoder.head.")}


def test_the_variant_of_24_khz_returns_24_khz():
    tokenizer = small(f"{NAME}-ttsd-v0")
    codes = tokenizer.encode(noise(24001))
    assert codes.shape == (1, 8, 13)
    assert tokenizer.decode(codes, size=24001).shape == (1, 1, 24001)
    assert tokenizer.decode(codes).shape == (1, 1, 13 * 1920)


def test_long_audio_of_24_khz_is_cut_into_windows_at_16_khz():
    tokenizer = small(f"{NAME}-ttsd-v0")
    codes = tokenizer.encode(noise(45 * 24000))
    assert codes.shape == (1, 8, 563)
    assert tokenizer.decode(codes).shape == (1, 1, 563 * 1920)


def test_the_file_of_the_variant_of_24_khz_names_its_vocoder_otherwise():
    name = f"{NAME}-ttsd-v0"
    manifest = read_manifest(GOLDENS / NAME / "manifest.json")
    state = {
        key.replace("vocos.", "enhanced_vocos."): torch.empty(
            entry["shape"], dtype=getattr(torch, entry["dtype"]), device="meta"
        )
        for key, entry in manifest["tensors"].items()
    }
    for parameter in ("weight", "bias"):
        key = f"enhanced_vocos.head.out.{parameter}"
        state[key] = torch.empty(962, *state[key].shape[1:], device="meta")
    with torch.device("meta"):
        expected = zoo.create(name).state_dict()
    published, alone = zoo.info(name).sources
    assert published.keys is not None and alone.keys is not None
    assert published.keys.convert({"generator": state}, expected, "published").keys() == expected.keys()
    assert alone.keys.convert(state, expected, "alone").keys() == expected.keys()
