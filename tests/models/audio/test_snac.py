"""What is SNAC's own: rates folded into frames, windows of attention, noise that is drawn, given or left out."""

import math

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

import zoo
from tests.support.paths import GOLDENS
from zoo.checkpoints.parity import read_golden, read_manifest
from zoo.checkpoints.synthetic import synthetic_checkpoint
from zoo.testing import small

NAMES = ["snac-24khz", "snac-44khz"]
STRIDES = {"snac-24khz": (2, 4, 8, 8), "snac-44khz": (2, 3, 8, 8)}


def sound(samples: int, batch: int = 1, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(batch, 1, samples, generator=drawn(seed))


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def named_levels(sizes: list[int]) -> list[Tensor]:
    """Codes of one frame that tell their level and place: 0; 10, 11; 20, 21, 22, 23; ..."""
    return [torch.arange(size)[None] + 10 * level for level, size in enumerate(sizes)]


# Rates


def test_the_codes_of_a_frame_lie_in_the_order_in_which_they_begin_the_coarser_ones_first():
    speech, music = small("snac-24khz"), small("snac-44khz")
    assert speech.from_levels(named_levels([1, 2, 4]))[0, :, 0].tolist() == [0, 10, 20, 21, 11, 22, 23]
    assert music.from_levels(named_levels([1, 2, 4, 8]))[0, :, 0].tolist() == [
        *(0, 10, 20, 30, 31, 21, 32, 33),
        *(11, 22, 34, 35, 23, 36, 37),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_codes_and_the_authors_levels_turn_into_each_other(name):
    tokenizer = small(name)
    codes = torch.randint(0, 4096, (2, tokenizer.spec.num_codebooks, 4), generator=drawn())
    levels = tokenizer.to_levels(codes)
    assert [level.shape for level in levels] == [(2, 4 * 2**i) for i in range(len(levels))]
    assert torch.equal(tokenizer.from_levels(levels), codes)


def test_levels_that_do_not_belong_together_are_refused():
    tokenizer = small("snac-24khz")
    levels = tokenizer.to_levels(torch.zeros(1, 7, 3, dtype=torch.int64))
    for wrong in ([], levels[:2], [*levels[:2], levels[2][:, 1:]], [levels[0][0], *levels[1:]]):
        with pytest.raises(zoo.InputError, match=r"expected levels of codes as \[batch, 1 \* frames\], \[batch, 2"):
            tokenizer.from_levels(wrong)


def test_rates_are_the_published_ones():
    expected = {"snac-24khz": (82.03, 984.4), "snac-32khz": (156.25, 1875), "snac-44khz": (215.33, 2584)}
    for name, (tokens, bits) in expected.items():
        spec = zoo.info(name).spec
        assert spec.tokens_per_second == pytest.approx(tokens, abs=0.01)
        assert spec.bits_per_second == pytest.approx(bits, abs=0.5)
    assert zoo.info("snac").name == "snac-24khz"


@pytest.mark.parametrize(("name", "millions"), [("snac-24khz", 19.84), ("snac-32khz", 54.55), ("snac-44khz", 54.55)])
def test_the_published_networks_have_the_published_number_of_parameters(name, millions):
    with torch.device("meta"):
        tokenizer = zoo.info(name).build()
    assert tokenizer.num_parameters / 1e6 == pytest.approx(millions, abs=0.005)


# Lengths


@pytest.mark.parametrize(
    ("name", "samples", "frames"),
    [
        ("snac-24khz", 1, 1),
        ("snac-24khz", 2048, 1),
        ("snac-24khz", 2049, 2),
        ("snac-44khz", 1, 4),
        ("snac-44khz", 12288, 4),
        ("snac-44khz", 12289, 8),
    ],
)
def test_silence_is_added_up_to_whole_frames_and_with_attention_up_to_whole_windows(name, samples, frames):
    tokenizer = small(name)
    audio = sound(samples)
    codes = tokenizer.encode(audio)
    assert codes.shape[2] == frames == tokenizer.spec.code_length(samples)
    padded = functional.pad(audio, (0, frames * tokenizer.spec.hop_length - samples))
    assert torch.equal(tokenizer.encode(padded), codes)
    assert tokenizer.decode(codes, size=samples).shape == (1, 1, samples)


@pytest.mark.parametrize("name", NAMES)
def test_clips_of_any_length_have_the_codes_of_each_alone(name):
    tokenizer = small(name)
    lengths = torch.tensor([1, 2000, 3072, 5555, 8193, 12288, 12289, 20000])
    audio = sound(20000, batch=len(lengths))
    codes = tokenizer.encode(audio, lengths=lengths)
    for item, length, together in zip(audio, lengths.tolist(), codes, strict=True):
        alone = tokenizer.encode(item[None, :, :length])[0]
        assert torch.equal(together[:, : alone.shape[1]], alone)
        assert not together[:, alone.shape[1] :].any()


def test_codes_that_fill_no_window_are_refused():
    codes = torch.zeros(1, 15, 10, dtype=torch.int64)
    with pytest.raises(zoo.InputError, match=r"snac-44khz decodes 4 frames together: .* a multiple of 4 .*, got 10"):
        small("snac-44khz").decode(codes)


def test_attention_stays_within_its_window():
    tokenizer = small("snac-44khz").double()
    audio = sound(3 * 12288).double()
    changed = audio.clone()
    changed[..., 6000:6100] += 1.0  # in the middle of the first window, far from its end
    with torch.no_grad():
        difference = (tokenizer.to_latent(audio) - tokenizer.to_latent(changed)).abs().amax(dim=1)[0]
    steps = tokenizer.quantizer.steps
    assert steps == 8 and difference.shape == (12,)
    assert (difference[:4] > 0).all()  # the head's convolution takes it 3 steps into the next window
    assert not difference[5:].any()


# Noise


@pytest.mark.parametrize("name", NAMES)
def test_noise_that_is_given_is_the_noise_that_a_generator_draws(name):
    tokenizer = small(name)
    codes = torch.randint(0, 4096, (2, tokenizer.spec.num_codebooks, 4), generator=drawn())
    generator, steps, parts = drawn(1), 4 * tokenizer.quantizer.steps, []
    for stride in reversed(STRIDES[name]):
        steps *= stride
        parts.append(torch.randn(2, steps, generator=generator))
    given = tokenizer.decode(codes, noise=torch.cat(parts, dim=1))
    assert torch.equal(given, tokenizer.decode(codes, generator=drawn(1)))
    assert not torch.equal(given, tokenizer.decode(codes, generator=drawn(2)))


def test_without_a_generator_each_decoding_differs_and_without_noise_none():
    tokenizer = small("snac-24khz")
    codes = tokenizer.encode(sound(4096))
    torch.manual_seed(0)
    first = tokenizer.decode(codes)
    assert not torch.equal(first, tokenizer.decode(codes))
    torch.manual_seed(0)
    assert torch.equal(first, tokenizer.decode(codes))
    silent = tokenizer.decode(codes, noise=0)
    assert torch.equal(silent, tokenizer.decode(codes, noise=0))
    assert torch.equal(silent, tokenizer.decode(codes, noise=torch.zeros(1, 2 * 4 * 840)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": torch.zeros(1, 5)}, r"expected noise .* as \[1, 6720\] \(64 \+ 512 \+ 2048 \+ 4096 .*got \[1, 5\]"),
        ({"noise": torch.zeros(2, 6720)}, r"got \[2, 6720\]"),
        ({"noise": 1}, "as a tensor .* or as 0, got 1"),
        ({"noise": "none"}, "got 'none'"),
        ({"noise": 0, "generator": torch.Generator()}, "generator= or noise=, got both"),
        ({"generator": 3}, "expected generator as a torch.Generator, got 3"),
    ],
)
def test_other_noise_is_refused(options, message):
    with pytest.raises(zoo.InputError, match=message):
        small("snac-24khz").decode(torch.zeros(1, 7, 2, dtype=torch.int64), **options)


# The network at another size, against a plain computation of its description


class PlainSNAC:
    """The published network from tensors with the published names."""

    def __init__(self, state: dict[str, Tensor], strides: tuple[int, ...], attends: bool):
        self.state, self.strides, self.moved, self.attends = state, strides, int(attends), attends

    def latent(self, audio: Tensor) -> Tensor:
        """Padded audio `[1, 1, samples]` to `[1, dim, steps]`."""
        x = self.conv("encoder.block.0", audio, padding=3)
        for stage, stride in enumerate(self.strides):
            key = f"encoder.block.{stage + 1}.block"
            x = self.snake(f"{key}.3", self.units(key, 0, x))
            x = self.conv(f"{key}.4", x, stride, padding=math.ceil(stride / 2))
        if self.attends:
            x = self.attention("encoder.block.5", x)
        return self.conv(f"encoder.block.{5 + self.moved}", x, padding=3, groups=x.shape[1])

    def quantize(self, latent: Tensor, level_strides: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
        """Codes of the levels, `[1, steps / stride]` each, and the sum of what they stand for."""
        residual, codes = latent, []
        for level, stride in enumerate(level_strides):
            key = f"quantizer.quantizers.{level}"
            pooled = functional.avg_pool1d(residual, stride, stride)
            projected = self.conv(f"{key}.in_proj", pooled)[0].T
            rows = self.state[f"{key}.codebook.weight"]
            code = functional.cosine_similarity(projected[:, None], rows[None], dim=-1).argmax(-1)
            codes.append(code[None])
            found = self.conv(f"{key}.out_proj", rows[code].T[None])
            residual = residual - found.repeat_interleave(stride, dim=-1)
        return codes, latent - residual

    def decode(self, quantized: Tensor, noise: Tensor) -> Tensor:
        x = self.conv("decoder.model.0", quantized, padding=3, groups=quantized.shape[1])
        x = self.conv("decoder.model.1", x)
        if self.attends:
            x = self.attention("decoder.model.2", x)
        for stage, stride in enumerate(reversed(self.strides)):
            key = f"decoder.model.{stage + 2 + self.moved}.block"
            x = functional.conv_transpose1d(
                self.snake(f"{key}.0", x),
                self.weight(f"{key}.1"),
                self.state[f"{key}.1.bias"],
                stride,
                padding=math.ceil(stride / 2),
                output_padding=stride % 2,
            )
            now, noise = noise[:, : x.shape[-1]], noise[:, x.shape[-1] :]
            x = x + now[:, None] * functional.conv1d(x, self.weight(f"{key}.2.linear"))
            x = self.units(key, 3, x)
        return self.conv(f"decoder.model.{7 + self.moved}", self.snake(f"decoder.model.{6 + self.moved}", x), padding=3)

    def weight(self, key: str) -> Tensor:
        direction = self.state[f"{key}.weight_v"]
        norm = direction.flatten(1).norm(dim=1).reshape(-1, *[1] * (direction.ndim - 1))
        return self.state[f"{key}.weight_g"] * direction / norm

    def conv(
        self, key: str, x: Tensor, stride: int = 1, dilation: int = 1, padding: int = 0, groups: int = 1
    ) -> Tensor:
        weight = self.weight(key)
        if weight.ndim == 2:
            weight = weight[..., None]
        return functional.conv1d(x, weight, self.state[f"{key}.bias"], stride, padding, dilation, groups)

    def snake(self, key: str, x: Tensor) -> Tensor:
        alpha = self.state[f"{key}.alpha"]
        return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)

    def units(self, key: str, first: int, x: Tensor) -> Tensor:
        for unit, dilation in enumerate((1, 3, 9), start=first):
            y = self.snake(f"{key}.{unit}.block.0", x)
            y = self.conv(f"{key}.{unit}.block.1", y, 1, dilation, 3 * dilation, groups=x.shape[1])
            x = x + self.conv(f"{key}.{unit}.block.3", self.snake(f"{key}.{unit}.block.2", y))
        return x

    def attention(self, key: str, x: Tensor) -> Tensor:
        """Window by window and head by head, channels i and i + 32 turned as a complex number."""
        norm = self.state[f"{key}.norm.weight"], self.state[f"{key}.norm.bias"]
        normed = functional.layer_norm(x[0].T, (x.shape[1],), *norm)
        qkv = (normed @ self.state[f"{key}.to_qkv.weight"].T).chunk(3, dim=-1)
        turns = torch.arange(32)[:, None] * 10000.0 ** (-torch.arange(32) / 32)
        turns = torch.polar(torch.ones(32, 32, dtype=torch.float64), turns.double())
        out = torch.zeros_like(normed)
        for start in range(0, len(normed), 32):
            for head in range(0, x.shape[1], 64):
                q, k, v = (part[start : start + 32, head : head + 64] for part in qkv)
                q, k = (torch.complex(part[:, :32], part[:, 32:]) * turns for part in (q, k))
                weights = ((q @ k.mH).real / 8).softmax(dim=-1)
                out[start : start + 32, head : head + 64] = weights @ v
        return x + (out @ self.state[f"{key}.to_out.weight"].T).T[None]


@pytest.mark.parametrize("samples", [2, 12288, 13000])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_small_network_computes_what_its_description_says(name, samples):
    tokenizer, keys = small(name), zoo.info(name).keys
    for index, (key, tensor) in enumerate(tokenizer.state_dict().items()):
        if key.endswith((".alpha", ".bias", ".norm.weight")):
            tensor.add_(torch.randn(tensor.shape, generator=drawn(index)) * 0.1)
    tokenizer.double()  # a network of random weights enlarges what float32 leaves of rounding
    state = {keys.published_key(key)[0]: tensor for key, tensor in tokenizer.state_dict().items()}
    plain = PlainSNAC(state, STRIDES[name], attends=name == "snac-44khz")
    audio = sound(samples, seed=samples).double()
    codes = tokenizer.encode(audio)
    padded = functional.pad(audio, (0, codes.shape[2] * tokenizer.spec.hop_length - samples))
    latent = plain.latent(padded)

    def by_steps(folded: Tensor) -> Tensor:
        return rearrange(folded, "b (s c) t -> b c (t s)", s=tokenizer.quantizer.steps)

    torch.testing.assert_close(by_steps(tokenizer.to_latent(audio)), latent, atol=1e-5, rtol=1e-5)
    levels, quantized = plain.quantize(latent, tokenizer.quantizer.strides)
    for ours, theirs in zip(tokenizer.to_levels(codes), levels, strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(by_steps(tokenizer.embed(codes)), quantized, atol=1e-5, rtol=1e-5)
    values = sum(math.prod(STRIDES[name][::-1][: i + 1]) for i in range(4)) * latent.shape[-1]
    noise = torch.randn(1, values, generator=drawn()).double()
    expected = plain.decode(quantized, noise).tanh()
    torch.testing.assert_close(tokenizer.decode(codes, noise=noise), expected, atol=1e-5, rtol=1e-5)


def test_training_scores_codebooks_and_reaches_encoder_and_tables():
    tokenizer = small("snac-24khz").train()
    output = tokenizer(sound(4096))
    assert set(output.losses) == {"commitment_loss", "codebook_loss"}
    sum(output.losses.values()).backward()
    for level in tokenizer.quantizer.levels:
        assert level.codebook.grad.abs().sum() > 0
    assert tokenizer.encoder.stem.weight_v.grad.abs().sum() > 0


# The published file


@pytest.mark.parametrize("name", NAMES)
def test_a_published_file_is_read_with_either_names_of_weight_normalisation(name, registrations, tmp_path):
    published = zoo.info(name)
    config = published.builder.small
    sizes = (64,) * published.spec.num_codebooks
    zoo.register(zoo.replace(published, "tiny-snac", hub=published.sources, config=config, codebook_sizes=sizes))
    torch.manual_seed(0)
    source = zoo.create("tiny-snac").eval()
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    state = {}
    for key, tensor in source.state_dict().items():
        key = published.keys.published_key(key)[0]
        stem, _, last = key.rpartition(".")
        points = ".in_proj." in key or ".out_proj." in key
        state[f"{stem}.{names.get(last, last)}"] = tensor[..., None] if points and tensor.ndim == 2 else tensor
    if name == "snac-44khz":
        state["encoder.block.5.rel_pos.inv_freq"] = torch.ones(32)
    torch.save(state, tmp_path / "pytorch_model.bin")
    loaded = zoo.load("tiny-snac", weights=tmp_path / "pytorch_model.bin")
    assert torch.equal(loaded.encode(sound(5000)), source.encode(sound(5000)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_authors_codes_and_signals_at_full_size(name, tmp_path):
    torch.save(synthetic_checkpoint(read_manifest(GOLDENS / name / "manifest.json")), tmp_path / "pytorch_model.bin")
    tokenizer = zoo.load(name, weights=tmp_path / "pytorch_model.bin")
    (golden,) = read_golden(GOLDENS / name / "golden.npz")
    codes = tokenizer.encode(golden["input"])
    assert torch.equal(codes, golden["codes"])
    for level, found in enumerate(tokenizer.to_levels(codes)):
        assert torch.equal(found, golden[f"codes_level_{level}"])
    for options, array in (
        ({"noise": golden["noise"]}, "reconstruction"),
        ({"generator": drawn()}, "reconstruction"),
        ({"noise": 0}, "reconstruction_zero_noise"),
    ):
        np.testing.assert_allclose(tokenizer.decode(codes, **options), golden[array], atol=5e-5)
