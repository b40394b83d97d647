"""What is SpeechTokenizer's own: eight nested codebooks, an LSTM that runs both ways, Snake; DM-Codec's two layouts."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from torch.nn import functional

import zoo
from tests.support.paths import GOLDENS
from zoo.checkpoints.parity import read_golden, read_manifest
from zoo.checkpoints.synthetic import synthetic_checkpoint
from zoo.testing import small

NAMES = ["speechtokenizer-hubert-avg", "speechtokenizer-snake"]
GOLDEN = GOLDENS / "speechtokenizer-hubert-avg"


@pytest.mark.parametrize("name", NAMES)
def test_any_length_from_one_sample_on_is_encoded(name):
    tokenizer = small(name)
    for length in (1, 2, 3, 7, 29, 319, 320, 321, 641):
        codes = tokenizer.encode(torch.randn(1, 1, length) * 0.1)
        assert codes.shape == (1, 8, math.ceil(length / 320))
        assert tokenizer.decode(codes, size=length).shape == (1, 1, length)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seconds", [0.1, 0.31])
@torch.no_grad()
def test_chunks_change_neither_latent_nor_signal(name, seconds):
    tokenizer = small(name).double()
    audio = torch.randn(2, 1, 16077, generator=torch.Generator().manual_seed(0)).double() * 0.1
    whole = tokenizer.to_latent(audio, chunk_seconds=60.0)
    torch.testing.assert_close(tokenizer.to_latent(audio, chunk_seconds=seconds), whole)
    signal = tokenizer.from_latent(whole, chunk_seconds=60.0)
    torch.testing.assert_close(tokenizer.from_latent(whole, chunk_seconds=seconds), signal)


def test_a_chunk_shorter_than_a_frame_is_refused():
    with pytest.raises(zoo.InputError, match=r"at least one frame, .*got 0\.001"):
        small(NAMES[0]).encode(torch.zeros(1, 1, 600), chunk_seconds=0.001)


def test_the_published_network_has_the_published_number_of_parameters():
    variant = zoo.info(NAMES[0])
    with torch.device("meta"):
        tokenizer = variant.build()
    for part, millions in ((tokenizer.encoder, 67.7), (tokenizer.decoder, 35.2)):
        assert sum(p.numel() for p in part.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_snake_has_a_factor_of_each_channel_where_the_published_names_have_it():
    variant = zoo.info("speechtokenizer-snake")
    published = {variant.keys.published_key(key)[0] for key in small(variant.name).state_dict() if "alpha" in key}
    assert {"encoder.model.1.block.0.alpha", "encoder.model.4.block.2.alpha", "decoder.model.14.alpha"} <= published
    # An activation for the stem of each stage, two inside its unit, one at the end.
    assert len(published) == 2 * (3 * 4 + 1)


def test_weights_of_dm_codec_are_where_the_error_says(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name, file in (
        ("dm-codec", "1pvrPcbUTUAlo2_iGLIIf7IFNJPfzmHbh"),
        ("dm-codec-lm", "14DMrDzIssP-8qzXBG8v65ctF4W"),
    ):
        with pytest.raises(zoo.WeightsUnavailableError, match=rf"https://drive\.google\.com/file/d/{file}.*weights="):
            zoo.load(name)


@pytest.fixture
def tiny_dm_codec(registrations) -> str:
    published = zoo.info("dm-codec")
    config, sizes = published.builder.small, (16,) * 8
    zoo.register(zoo.replace(published, "tiny-dm-codec", hub=published.sources, config=config, codebook_sizes=sizes))
    return "tiny-dm-codec"


def test_dm_codec_reads_a_model_and_a_checkpoint_to_go_on_from(tiny_dm_codec, tmp_path):
    torch.manual_seed(0)
    source = zoo.create(tiny_dm_codec)
    keys = zoo.info(tiny_dm_codec).keys
    published = {keys.published_key(key)[0]: tensor for key, tensor in source.state_dict().items()}
    for key in published:
        if key.endswith("inited"):
            published[key] = published[key].float().reshape(1)
    published["transform.weight"] = torch.zeros(768, 16)
    torch.save(published, tmp_path / "model")
    torch.save({"generator": published, "steps": 7, "optim_g": {}}, tmp_path / "checkpoint")
    audio = torch.randn(1, 1, 5000) * 0.1
    for file in ("model", "checkpoint"):
        loaded = zoo.load(tiny_dm_codec, weights=tmp_path / file)
        assert torch.equal(loaded.encode(audio), source.eval().encode(audio))


# The network at another size, against a plain computation of its description


class PlainSpeechTokenizer:
    """The published network from tensors with the published names, layer by layer and codebook by codebook."""

    def __init__(self, state: dict[str, torch.Tensor], snake: bool):
        self.state, self.snake = state, snake

    def encode(self, audio: torch.Tensor) -> torch.Tensor:
        """`[1, 1, samples]` to codes `[codebooks, frames]`."""
        x = self.conv("encoder.model.0.conv.conv", audio)
        for stage, stride in enumerate((2, 4, 5, 8)):
            x = self.unit(f"encoder.model.{1 + 3 * stage}", x)
            x = self.act(f"encoder.model.{2 + 3 * stage}", x)
            x = self.conv(f"encoder.model.{3 + 3 * stage}.conv.conv", x, stride)
        x = torch.cat([x, x], dim=1) + self.lstm("encoder.model.13.lstm", x, bidirectional=True)
        residual = self.conv("encoder.model.15.conv.conv", self.act("encoder.model.14", x))[0].T
        codes = []
        for codebook in range(8):
            rows = self.rows(codebook)
            codes.append((residual[:, None] - rows[None]).square().sum(-1).argmin(-1))
            residual = residual - rows[codes[-1]]
        return torch.stack(codes)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes `[codebooks, frames]` to `[1, 1, samples]`."""
        x = torch.stack([self.rows(codebook)[index] for codebook, index in enumerate(codes)]).sum(0).T[None]
        x = self.conv("decoder.model.0.conv.conv", x)
        x = x + self.lstm("decoder.model.1.lstm", x, bidirectional=False)
        for stage, stride in enumerate((8, 5, 4, 2)):
            x = self.act(f"decoder.model.{2 + 3 * stage}", x)
            key = f"decoder.model.{3 + 3 * stage}.convtr.convtr"
            whole = functional.conv_transpose1d(x, self.weight(key), self.state[f"{key}.bias"], stride)
            right = stride // 2
            x = self.unit(f"decoder.model.{4 + 3 * stage}", whole[..., stride - right : whole.shape[-1] - right])
        return self.conv("decoder.model.15.conv.conv", self.act("decoder.model.14", x))

    def rows(self, codebook: int) -> torch.Tensor:
        return self.state[f"quantizer.vq.layers.{codebook}._codebook.embed"]

    def weight(self, key: str) -> torch.Tensor:
        direction = self.state[f"{key}.weight_v"]
        length = direction.flatten(1).norm(dim=1)[:, None, None]
        return self.state[f"{key}.weight_g"] * direction / length

    def conv(self, key: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = self.weight(key)
        total, length = weight.shape[-1] - stride, x.shape[-1]
        sides = [total - total // 2, total // 2 + -length % stride]
        zeros = max(0, max(sides) - length + 1)
        padded = functional.pad(functional.pad(x, (0, zeros)), sides, mode="reflect")
        return functional.conv1d(padded[..., : padded.shape[-1] - zeros], weight, self.state[f"{key}.bias"], stride)

    def unit(self, key: str, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(f"{key}.block.1.conv.conv", self.act(f"{key}.block.0", x))
        y = self.conv(f"{key}.block.3.conv.conv", self.act(f"{key}.block.2", y))
        return self.conv(f"{key}.shortcut.conv.conv", x) + y

    def act(self, key: str, x: torch.Tensor) -> torch.Tensor:
        if not self.snake:
            return torch.where(x > 0, x, x.exp() - 1)
        alpha = self.state[f"{key}.alpha"]
        return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)

    def lstm(self, key: str, x: torch.Tensor, bidirectional: bool) -> torch.Tensor:
        lstm = torch.nn.LSTM(x.shape[1], x.shape[1], 2, bidirectional=bidirectional).double()
        lstm.load_state_dict({name: self.state[f"{key}.{name}"] for name in lstm.state_dict()})
        return lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0)


@pytest.mark.parametrize("name", [*NAMES, "dm-codec"])
@pytest.mark.parametrize("samples", [3, 320, 5121])
@torch.no_grad()
def test_a_small_network_computes_what_its_description_says(name, samples):
    tokenizer, keys = small(name), zoo.info(name).keys
    for index, (key, tensor) in enumerate(tokenizer.state_dict().items()):
        if key.endswith((".codebook", ".bias", ".alpha")):
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index)) * 0.1)
    tokenizer.double()  # a network of random weights enlarges what float32 leaves of rounding
    published = {keys.published_key(key)[0]: tensor for key, tensor in tokenizer.state_dict().items()}
    plain = PlainSpeechTokenizer(published, snake="snake" in name)
    audio = torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(samples)).double() * 0.3
    codes = tokenizer.encode(audio)
    assert torch.equal(codes[0], plain.encode(audio))
    for number in (1, 8):
        decoded = tokenizer.decode(codes, num_codebooks=number)
        torch.testing.assert_close(decoded, plain.decode(codes[0, :number]), atol=1e-6, rtol=1e-6)


# Parity of what the runner does not compare


@pytest.mark.slow
@torch.no_grad()
def test_some_codebooks_decode_to_the_authors_sound(tmp_path):
    torch.save(synthetic_checkpoint(read_manifest(GOLDEN / "manifest.json")), tmp_path / "SpeechTokenizer.pt")
    tokenizer = zoo.load(NAMES[0], weights=tmp_path / "SpeechTokenizer.pt")
    (golden,) = read_golden(GOLDEN / "golden.npz")
    codes = golden["codes"].transpose(0, 1)
    first = tokenizer.decode(codes, num_codebooks=1)
    np.testing.assert_allclose(first, golden["reconstruction_first_level"], atol=1e-4)
    others = tokenizer.embed(codes) - tokenizer.embed(codes[:, :1])
    np.testing.assert_allclose(tokenizer.from_latent(others), golden["reconstruction_levels_2_to_8"], atol=1e-4)
    assert torch.equal(tokenizer.encode(golden["input"], num_codebooks=3), codes[:, :3])


@pytest.mark.slow
@torch.no_grad()
def test_another_seed_length_and_batch_at_full_size(tmp_path):
    published = synthetic_checkpoint(read_manifest(GOLDEN / "manifest.json"), 1)
    torch.save(published, tmp_path / "SpeechTokenizer.pt")
    tokenizer = zoo.load(NAMES[0], weights=tmp_path / "SpeechTokenizer.pt")
    (golden,) = read_golden(GOLDEN / "golden.npz")
    audio = golden["input"][..., 1000:7001]
    batch = torch.cat([audio, audio.flip(-1)])
    codes = tokenizer.encode(batch)
    plain = PlainSpeechTokenizer({key: tensor.double() for key, tensor in published.items()}, snake=False)
    for item, found in zip(batch.double(), codes, strict=True):
        assert torch.equal(found, plain.encode(item[None]))
        np.testing.assert_allclose(tokenizer.decode(found[None]), plain.decode(found), atol=1e-4)


LONG = """
import pathlib, re, sys, torch, zoo
tokenizer = zoo.create(sys.argv[1]).eval()
audio = torch.randn(1, 1, 600 * 16000) * 0.1
codes = tokenizer.encode(audio)
assert tokenizer.decode(codes, size=audio.shape[-1]).shape == audio.shape
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_ten_minutes_stay_under_two_gibibytes():
    command = [sys.executable, "-c", LONG, NAMES[0]]
    peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(peak) < 2 * 2**20  # KiB of this process alone: ru_maxrss would begin with the parent's
