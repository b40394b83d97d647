"""What is GLM-4-Voice's own: causal convolutions, blocks of attention, pieces of 30 seconds, two published layouts."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

import zoo
from zoo.testing import small

NAME = "glm4-voice-tokenizer"
BLOCK, BANDS, WIDTH, LAYERS = 5, 128, 32, 2  # of the small network


class Plain(nn.Module):
    """The published encoder as its description states it, of transformers' layers, with the published names."""

    def __init__(self) -> None:
        super().__init__()
        config = WhisperConfig(
            d_model=WIDTH, encoder_attention_heads=2, encoder_ffn_dim=64, dropout=0.0, attn_implementation="eager"
        )
        self.conv1 = nn.Conv1d(BANDS, WIDTH, 3)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2)
        self.embed_positions = nn.Embedding(1500, WIDTH)
        self.layers = nn.ModuleList(WhisperEncoderLayer(config) for _ in range(LAYERS))
        self.codebook = nn.Embedding(16384, WIDTH)
        self.embed_positions2 = nn.Embedding(375, WIDTH)

    @torch.no_grad()
    def codes(self, audio: Tensor) -> list[int]:
        """Codes of one clip `[samples]` of at most 30 seconds."""
        extract = WhisperFeatureExtractor(feature_size=BANDS)
        found = extract(
            audio.numpy(),
            sampling_rate=16000,
            return_tensors="pt",
            padding="longest",
            pad_to_multiple_of=1280,
            return_attention_mask=True,
        )
        x = functional.gelu(self.conv1(functional.pad(found.input_features, (2, 0))))
        x = functional.gelu(self.conv2(functional.pad(x, (2, 0)))).mT
        frames = x.shape[1]
        x = x + self.embed_positions.weight[:frames]
        valid = found.attention_mask[0, ::2].bool().tolist()
        mask = torch.zeros(frames, frames)
        for query in range(frames):
            for key in range(frames):
                if not ((key <= query or key // BLOCK == query // BLOCK) and valid[key]):
                    mask[query, key] = torch.finfo(torch.float32).min
        for layer in self.layers:
            x = layer(x, mask[None, None])
        pooled = x[0].unflatten(0, (-1, 4)).mean(dim=1)
        distances = (pooled.double()[:, None] - self.codebook.weight.double()).square().sum(dim=2)
        return distances.argmin(dim=1).tolist()


@pytest.fixture(scope="module")
def plain() -> Plain:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Plain().eval()


@pytest.fixture
def tiny(registrations) -> str:
    published = zoo.info(NAME)
    return zoo.register(zoo.replace(published, "tiny-glm4", hub=published.sources, config=published.builder.small)).name


@pytest.fixture
def tokenizer(tiny, plain, tmp_path) -> zoo.Tokenizer:
    """The small network with the weights of `plain`, read as the published file is."""
    torch.save(plain.state_dict(), tmp_path / "bare.bin")
    return zoo.load(tiny, weights=tmp_path / "bare.bin")


def noise(samples: int) -> Tensor:
    return torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(samples)) * 0.1


@pytest.mark.parametrize("samples", [1, 159, 161, 1280, 1281, 8000, 12345])
def test_codes_are_those_of_the_description_at_any_length(tokenizer, plain, samples):
    audio = noise(samples)
    codes = tokenizer.encode(audio)
    assert codes[0, 0].tolist() == plain.codes(audio[0, 0])
    assert samples < 5000 or len(codes.unique()) > 2


def test_an_item_of_a_padded_batch_has_the_codes_of_the_description_for_it_alone(tokenizer, plain):
    lengths = [12000, 7001, 300]
    batch = torch.cat([functional.pad(noise(length), (0, 12000 - length)) for length in lengths])
    codes = tokenizer.encode(batch, lengths=torch.tensor(lengths))
    for item, length in zip(codes[:, 0].tolist(), lengths, strict=True):
        tokens = -(-length // 1280)
        assert item == plain.codes(noise(length)[0, 0]) + [0] * (len(item) - tokens)


def test_audio_is_encoded_in_pieces_of_thirty_seconds():
    tokenizer = small(NAME)
    audio = noise(2 * 480_000 + 1281)
    pieces = [tokenizer.encode(piece) for piece in audio.split(480_000, dim=-1)]
    assert [piece.shape[-1] for piece in pieces] == [375, 375, 2]
    assert torch.equal(tokenizer.encode(audio), torch.cat(pieces, dim=-1))


def test_a_complete_block_does_not_change_when_more_audio_follows():
    tokenizer = small(NAME)
    audio = noise(20 * 1280)
    with torch.no_grad():
        whole = tokenizer.to_latent(audio)
        # 20 frames of 20 ms are four blocks of five and five tokens; the last mel frames reflect the end of the clip.
        begin = tokenizer.to_latent(audio[..., : 10 * 1280])
    torch.testing.assert_close(begin[..., :5], whole[..., :5], atol=1e-5, rtol=0)


def test_the_file_of_the_whole_recogniser_gives_the_same_network(tiny, plain, tokenizer, tmp_path):
    recogniser = {f"model.encoder.{key}": tensor for key, tensor in plain.state_dict().items()}
    unused = (
        "model.encoder.layers.16.fc1.weight",
        "model.encoder.layer_norm.bias",
        "model.decoder.x",
        "proj_out.weight",
    )
    torch.save(recogniser | {key: torch.zeros(1) for key in unused}, tmp_path / "recogniser.bin")
    loaded = zoo.load(tiny, weights=tmp_path / "recogniser.bin")
    assert all(torch.equal(loaded.state_dict()[key], tensor) for key, tensor in tokenizer.state_dict().items())


def test_it_says_what_decodes_its_codes():
    tokenizer = small(NAME)
    with pytest.raises(zoo.InputError, match=r"cannot decode: .*flow-matching decoder of zai-org/glm-4-voice-decoder"):
        tokenizer.decode(tokenizer.encode(noise(1280)))


def test_the_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        tokenizer = zoo.create(NAME)
    second_positions = 375 * 1280  # of the published hidden states, which are not codes
    assert (tokenizer.num_parameters + second_positions) / 1e6 == pytest.approx(343.6, abs=0.05)


LONG = """
import pathlib, re, sys, torch, zoo
def kibibytes(name):
    return int(re.search(name + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
tokenizer = zoo.create(sys.argv[1]).eval()
built = kibibytes("VmRSS")
assert tokenizer.encode(torch.randn(1, 1, 65 * 16000) * 0.1).shape == (1, 1, 813)
print(kibibytes("VmHWM") - built)
"""


@pytest.mark.slow
def test_encoding_of_any_length_takes_less_than_half_a_gibibyte_beside_the_network():
    # Three pieces show it for more: each is computed when the one before it has been freed.
    taken = subprocess.run([sys.executable, "-c", LONG, NAME], check=True, capture_output=True, text=True).stdout
    assert int(taken) < 2**19
