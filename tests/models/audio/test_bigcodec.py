"""What is BigCodec's own: a frame of silence after whole frames, filters, a file of two state dicts."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import zoo
from tests.support.paths import GOLDENS
from zoo.checkpoints.parity import read_golden, read_manifest
from zoo.checkpoints.synthetic import synthetic_checkpoint
from zoo.testing import small

GOLDEN = GOLDENS / "bigcodec"
# The published taps, of which the second half is the first one's mirror image.
TAPS = (0.0020289647, 0.009389466, -0.025543459, -0.057657383, 0.12857258, 0.4432098)


def sound(samples: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(seed))


def test_a_clip_of_whole_frames_gets_one_frame_more():
    tokenizer = small("bigcodec")
    for samples, frames in ((1, 1), (199, 1), (200, 2), (201, 2), (1000, 6)):
        codes = tokenizer.encode(sound(samples))
        assert codes.shape == (1, 1, frames) and tokenizer.spec.code_length(samples) == frames
        padded = functional.pad(sound(samples), (0, 200 * frames - samples))
        latent = tokenizer.to_latent(padded)
        assert torch.equal(codes, tokenizer.quantize(latent))
        assert tokenizer.decode(codes, size=samples).shape == (1, 1, samples)


@pytest.mark.parametrize("seconds", [0.05, 0.1])
@torch.no_grad()
def test_chunks_change_neither_latent_nor_signal(seconds):
    tokenizer = small("bigcodec").double()
    audio = sound(4200).double()
    whole = tokenizer.to_latent(audio, chunk_seconds=60.0)
    torch.testing.assert_close(tokenizer.to_latent(audio, chunk_seconds=seconds), whole, atol=1e-6, rtol=1e-6)
    signal = tokenizer.from_latent(whole, chunk_seconds=60.0)
    torch.testing.assert_close(tokenizer.from_latent(whole, chunk_seconds=seconds), signal, atol=1e-6, rtol=1e-6)


def test_a_chunk_shorter_than_a_frame_is_refused():
    with pytest.raises(zoo.InputError, match=r"at least one frame, .*got 0\.001"):
        small("bigcodec").encode(torch.zeros(1, 1, 600), chunk_seconds=0.001)


def test_the_published_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        tokenizer = zoo.info("bigcodec").build()
    decoding = (tokenizer.decoder, tokenizer.quantizer)
    assert sum(p.numel() for p in tokenizer.encoder.parameters()) / 1e6 == pytest.approx(76.5, abs=0.06)
    assert sum(p.numel() for part in decoding for p in part.parameters()) / 1e6 == pytest.approx(82.9, abs=0.06)


# The network at another size, against a plain computation of its description


class PlainBigCodec:
    """The published network from tensors with the published names, flattened with a dot."""

    def __init__(self, state: dict[str, Tensor]):
        self.state = state
        self.taps = torch.tensor([*TAPS, *reversed(TAPS)], dtype=torch.float64)

    def latent(self, audio: Tensor) -> Tensor:
        """Whole frames `[1, 1, samples]` to `[1, dim, frames]`."""
        x = self.conv("CodecEnc.block.0", audio, padding=3)
        for stage, stride in enumerate((2, 2, 2, 5, 5)):
            key = f"CodecEnc.block.{stage + 1}.block"
            x = self.units(key, 0, x)
            x = self.conv(f"{key}.4", self.act(f"{key}.3", x), stride, padding=stride // 2 + stride % 2)
        x = self.lstm("CodecEnc.block.6.lstm", x)
        return self.conv("CodecEnc.block.8", self.act("CodecEnc.block.7", x), padding=1)

    def codes(self, latent: Tensor) -> Tensor:
        """`[1, dim, frames]` to `[frames]`: the rows of the largest cosine."""
        projected = self.linear("generator.quantizer.layers.0.in_proj", latent[0].T)
        rows = self.state["generator.quantizer.layers.0._codebook.weight"]
        return functional.cosine_similarity(projected[:, None], rows[None], dim=-1).argmax(-1)

    def embed(self, codes: Tensor) -> Tensor:
        rows = self.state["generator.quantizer.layers.0._codebook.weight"][codes]
        return self.linear("generator.quantizer.layers.0.out_proj", rows).T[None]

    def decode(self, latent: Tensor) -> Tensor:
        x = self.lstm("generator.model.1.lstm", self.conv("generator.model.0", latent, padding=3))
        for stage, stride in enumerate((5, 5, 2, 2, 2)):
            key = f"generator.model.{stage + 2}.block"
            x = functional.conv_transpose1d(
                self.act(f"{key}.0", x),
                self.weight(f"{key}.1"),
                self.state[f"{key}.1.bias"],
                stride,
                padding=stride // 2 + stride % 2,
                output_padding=stride % 2,
            )
            x = self.units(key, 2, x)
        return self.conv("generator.model.8", self.act("generator.model.7", x), padding=3).tanh()

    def weight(self, key: str) -> Tensor:
        direction = self.state[f"{key}.weight_v"]
        norm = direction.flatten(1).norm(dim=1).reshape(-1, *[1] * (direction.ndim - 1))
        return self.state[f"{key}.weight_g"] * direction / norm

    def linear(self, key: str, x: Tensor) -> Tensor:
        return x @ self.weight(key).T + self.state[f"{key}.bias"]

    def conv(self, key: str, x: Tensor, stride: int = 1, dilation: int = 1, padding: int = 0) -> Tensor:
        return functional.conv1d(x, self.weight(key), self.state[f"{key}.bias"], stride, padding, dilation)

    def units(self, key: str, first: int, x: Tensor) -> Tensor:
        for unit, dilation in enumerate((1, 3, 9), start=first):
            y = self.act(f"{key}.{unit}.block.0", x)
            y = self.conv(f"{key}.{unit}.block.1", y, dilation=dilation, padding=3 * dilation)
            x = x + self.conv(f"{key}.{unit}.block.3", self.act(f"{key}.{unit}.block.2", y))
        return x

    def act(self, key: str, x: Tensor) -> Tensor:
        """Each channel twice as fast by zeros between and the filter, bent, and every second value of it filtered."""
        channels, length = x.shape[1:]
        padded = functional.pad(x, (5, 5), mode="replicate")
        fine = torch.zeros(1, channels, 2 * padded.shape[-1] - 1, dtype=x.dtype)
        fine[..., ::2] = padded
        taps = self.taps.expand(channels, 1, -1)
        fine = 2 * functional.conv1d(fine, taps, padding=11, groups=channels)[..., 15 : 15 + 2 * length]
        alpha, beta = (self.state[f"{key}.act.{name}"].exp()[:, None] for name in ("alpha", "beta"))
        fine = fine + torch.sin(alpha * fine) ** 2 / (beta + 1e-9)
        return functional.conv1d(functional.pad(fine, (5, 6), mode="replicate"), taps, groups=channels)[..., ::2]

    def lstm(self, key: str, x: Tensor) -> Tensor:
        lstm = torch.nn.LSTM(x.shape[1], x.shape[1], 2).double()
        lstm.load_state_dict({name: self.state[f"{key}.{name}"] for name in lstm.state_dict()})
        return x + lstm(x.permute(2, 0, 1))[0].permute(1, 2, 0)


@pytest.mark.parametrize("samples", [3, 400, 3001])
@torch.no_grad()
def test_a_small_network_computes_what_its_description_says(samples):
    tokenizer, keys = small("bigcodec"), zoo.info("bigcodec").keys
    for index, (key, tensor) in enumerate(tokenizer.state_dict().items()):
        if key.endswith((".alpha", ".beta", ".bias")):
            tensor.add_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(index)) * 0.1)
    tokenizer.double()  # a network of random weights enlarges what float32 leaves of rounding
    plain = PlainBigCodec({keys.published_key(key)[0]: tensor for key, tensor in tokenizer.state_dict().items()})
    audio = sound(samples, seed=samples).double()
    codes = tokenizer.encode(audio)
    padded = functional.pad(audio, (0, 200 - samples % 200))
    torch.testing.assert_close(tokenizer.to_latent(padded), plain.latent(padded), atol=1e-5, rtol=1e-5)
    assert torch.equal(codes[0, 0], plain.codes(plain.latent(padded)))
    embedded = plain.embed(codes[0, 0])
    torch.testing.assert_close(tokenizer.embed(codes), embedded, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokenizer.from_latent(embedded), plain.decode(embedded), atol=1e-5, rtol=1e-5)


# The published file


@pytest.fixture
def tiny_bigcodec(registrations) -> str:
    published = zoo.info("bigcodec")
    config = published.builder.small
    zoo.register(zoo.replace(published, "tiny-bigcodec", hub=published.sources, config=config, codebook_sizes=(64,)))
    return "tiny-bigcodec"


@pytest.mark.parametrize("nested", [True, False])
def test_a_file_of_two_state_dicts_is_read_and_its_filters_are_left_out(tiny_bigcodec, tmp_path, nested):
    torch.manual_seed(0)
    source, keys = zoo.create(tiny_bigcodec).eval(), zoo.info(tiny_bigcodec).keys
    flat = {keys.published_key(key)[0]: tensor for key, tensor in source.state_dict().items()}
    flat["CodecEnc.block.7.upsample.filter"] = torch.ones(1, 1, 12)
    parts: dict[str, dict[str, Tensor]] = {"CodecEnc": {}, "generator": {}}
    for key, tensor in flat.items():
        part, _, name = key.partition(".")
        parts[part][name] = tensor
    torch.save(parts if nested else flat, tmp_path / "bigcodec.pt")
    loaded = zoo.load(tiny_bigcodec, weights=tmp_path / "bigcodec.pt")
    assert torch.equal(loaded.encode(sound(5000)), source.encode(sound(5000)))


@pytest.mark.slow
@torch.no_grad()
def test_the_authors_padding_and_codes_at_full_size(tmp_path):
    torch.save(synthetic_checkpoint(read_manifest(GOLDEN / "manifest.json")), tmp_path / "bigcodec.pt")
    tokenizer = zoo.load("bigcodec", weights=tmp_path / "bigcodec.pt")
    (golden,) = read_golden(GOLDEN / "golden.npz")
    codes = tokenizer.encode(golden["raw_input"][:, None])
    assert torch.equal(codes, golden["codes"])
    np.testing.assert_allclose(tokenizer.decode(codes)[:, 0], golden["reconstruction"], atol=2e-5)


@pytest.mark.slow
@torch.no_grad()
def test_another_seed_length_and_batch_at_full_size(tmp_path):
    published = synthetic_checkpoint(read_manifest(GOLDEN / "manifest.json"), 1)
    torch.save(published, tmp_path / "bigcodec.pt")
    tokenizer = zoo.load("bigcodec", weights=tmp_path / "bigcodec.pt")
    (golden,) = read_golden(GOLDEN / "golden.npz")
    audio = golden["raw_input"][:, None, 1000:4001]
    batch = torch.cat([audio, audio.flip(-1)])
    codes = tokenizer.encode(batch)
    plain = PlainBigCodec({key: tensor.double() for key, tensor in published.items()})
    for item, found in zip(batch.double(), codes, strict=True):
        padded = functional.pad(item[None], (0, 200 - item.shape[-1] % 200))
        assert torch.equal(found[0], plain.codes(plain.latent(padded)))
        np.testing.assert_allclose(tokenizer.decode(found[None]), plain.decode(plain.embed(found[0])), atol=2e-5)


LONG = """
import pathlib, re, sys, torch, zoo
tokenizer = zoo.create("bigcodec").eval()
audio = torch.randn(1, 1, 600 * 16000) * 0.1
codes = tokenizer.encode(audio)
assert tokenizer.decode(codes, size=audio.shape[-1]).shape == audio.shape
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_ten_minutes_stay_under_two_gibibytes():
    peak = subprocess.run([sys.executable, "-c", LONG], check=True, capture_output=True, text=True).stdout
    assert int(peak) < 2 * 2**20  # KiB of this process alone: ru_maxrss would begin with the parent's


def test_a_frame_is_an_eightieth_of_a_second():
    spec = zoo.info("bigcodec").spec
    assert (spec.tokens_per_second, spec.bits_per_second) == (80, 1040)
    assert math.isclose(spec.bits((16000,)), 81 * 13)
