"""Continuous autoencoders made tokenizers: KL-16 itself, those of diffusers, small ones for every kind of signal."""

import importlib
import weakref
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn

import zoo
from tests.support.plain_tokenbridge import small
from zoo.quantizers import DimensionwiseQuantizer

SIGNALS = {"image": (3, 48, 40), "audio": (1, 1200), "video": (3, 5, 16, 24)}


class Patches(nn.Module):
    """An autoencoder of one layer each way: `stride` steps of the signal are a latent of six channels."""

    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

    def __init__(self, channels: int, *stride: int, output: str | None = None):
        super().__init__()
        axes = len(stride) - 1
        self.encoder = self.convolutions[axes](channels, 6, stride, stride)
        self.decoder = self.transposed[axes](6, channels, stride, stride)
        self.dropout = nn.Dropout(0.5)
        self.output = output

    def encode(self, x):
        z = self.dropout(self.encoder(x))
        if self.output == "posterior":
            return SimpleNamespace(mode=lambda: z)
        return SimpleNamespace(**{self.output: z}) if self.output else z

    def decode(self, z):
        x = self.decoder(z)
        return SimpleNamespace(sample=x) if self.output else x


class Causal(Patches):
    """One whose first frame has a latent of its own."""

    def encode(self, x):
        return super().encode(torch.cat([x[:, :, :1]] * 3 + [x], dim=2))

    def decode(self, z):
        return super().decode(z)[:, :, 3:]


def signal(batch: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(seed))


def diffusers_kl() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
    )


def nearest(latent: torch.Tensor, tokenizer: zoo.Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and values of a latent `[B, C, ...]` from the tokenizer's constants, by the definition."""
    shape = (1, -1, *[1] * (latent.ndim - 2))
    mean, scale = (
        torch.tensor(values).reshape(shape) for values in (tokenizer.quantizer.mean, tokenizer.quantizer.scale)
    )
    levels = torch.tensor(tokenizer.quantizer.levels)
    codes = (((latent - mean) * scale)[..., None] - levels).abs().argmin(-1)
    return codes, levels[codes] / scale + mean


def test_kl16_with_the_published_scale_is_tokenbridge():
    tokenbridge, x = small(3), signal(2, 3, 50, 70)

    class KL16(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = tokenbridge.encoder, tokenbridge.decoder

        def encode(self, image):
            return self.encoder(image).chunk(2, dim=1)[0]

        def decode(self, latent):
            return self.decoder(latent)

    codes = tokenbridge.encode(x)
    tokenizer = zoo.discretize(KL16(), calibration=x, mean=0.0, scale=0.2325)
    assert tokenizer.spec.downsample == (16, 16)
    assert tokenizer.spec.codebook_sizes == tokenbridge.spec.codebook_sizes
    assert torch.equal(tokenizer.encode(x), codes)
    assert torch.allclose(tokenizer.decode(codes), tokenbridge.decode(codes), atol=1e-5)
    assert torch.allclose(tokenizer.embed(codes) * 0.2325, tokenbridge.embed(codes), atol=1e-5)
    # The tokenizer's latent is scaled already.
    again = zoo.discretize(tokenbridge, calibration=x, mean=0.0, scale=1.0)
    assert torch.equal(again.encode(x), codes)
    assert torch.equal(again.decode(codes), tokenbridge.decode(codes))
    draw = [one.encode(x, generator=torch.Generator().manual_seed(4)) for one in (again, tokenbridge)]
    assert torch.equal(*draw)


def test_an_autoencoder_of_diffusers_gives_codes_of_its_mode():
    autoencoder = diffusers_kl()
    tokenizer = zoo.discretize(autoencoder, calibration=[signal(2, 3, 40, 48), signal(3, 3, 32, 32, seed=1)])
    assert tokenizer.spec.name == "autoencoderkl-6bit"
    assert tokenizer.spec.downsample == (4, 4)
    assert tokenizer.spec.codebook_sizes == (64,) * 4
    x = signal(2, 3, 24, 36, seed=2)
    with torch.no_grad():
        codes, values = nearest(autoencoder.encode(x * 2 - 1).latent_dist.mode(), tokenizer)
        decoded = (autoencoder.decode(values).sample + 1) / 2
    assert codes.unique().numel() > 40
    assert torch.equal(tokenizer.encode(x), codes)
    assert torch.allclose(tokenizer.embed(codes), values)
    assert torch.allclose(tokenizer.decode(codes), decoded.clamp(0, 1), atol=1e-6)


def test_six_bits_lose_as_little_of_the_latent_as_published():
    autoencoder, x = diffusers_kl(), signal(8, 3, 64, 64)
    errors = []
    for bits in (6, 4):
        tokenizer = zoo.discretize(autoencoder, bits, calibration=x)
        with torch.no_grad():
            difference = tokenizer.embed(tokenizer.encode(x)) - tokenizer.to_latent(x * 2 - 1)
        deviations = difference * torch.tensor(tokenizer.quantizer.scale)[:, None, None]
        errors.append(float(deviations.square().mean().sqrt()))
    assert errors[0] == pytest.approx(0.0258, abs=0.003)
    assert errors[1] > 3 * errors[0]


def test_another_autoencoder_of_diffusers_gives_its_latents():
    torch.manual_seed(0)
    autoencoder = AutoencoderTiny(
        encoder_block_out_channels=(16, 16),
        decoder_block_out_channels=(16, 16),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    x = signal(2, 3, 16, 16)
    tokenizer = zoo.discretize(autoencoder, 5, calibration=x, input_mean=0.0, input_std=1.0)
    with torch.no_grad():
        assert torch.equal(tokenizer.encode(x), nearest(autoencoder.encode(x).latents, tokenizer)[0])


@pytest.mark.parametrize("output", [None, "latent", "latents", "posterior"])
def test_whatever_encode_gives_is_understood(output):
    torch.manual_seed(0)
    autoencoder = Patches(3, 4, 4, output=output)
    x = signal(2, 3, 16, 24)
    tokenizer = zoo.discretize(autoencoder, calibration=x)
    assert not autoencoder.training
    with torch.no_grad():
        codes, values = nearest(autoencoder.encoder(x * 2 - 1), tokenizer)
        assert torch.equal(tokenizer.encode(x), codes)
        assert torch.allclose(tokenizer.decode(codes), ((autoencoder.decoder(values) + 1) / 2).clamp(0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("modality", "autoencoder", "options", "grid"),
    [
        ("image", lambda: Patches(3, 16, 8), {}, (3, 5)),
        ("audio", lambda: Patches(1, 320), {"sample_rate": 16000}, (4,)),
        ("video", lambda: Patches(3, 2, 8, 8), {}, (3, 2, 3)),
        ("video", lambda: Causal(3, 4, 8, 8), {"causal": True}, (2, 2, 3)),
    ],
)
def test_every_modality_keeps_the_contract_of_a_tokenizer(modality, autoencoder, options, grid):
    torch.manual_seed(0)
    x = signal(3, *SIGNALS[modality])
    tokenizer = zoo.discretize(autoencoder(), 4, calibration=x, modality=modality, name="mine", **options)
    assert tokenizer.spec.name == "mine"
    assert tokenizer.spec.grid(tokenizer.size_of(x)) == grid
    assert tokenizer.quantizer.codebook_sizes == tokenizer.spec.codebook_sizes == (16,) * 6
    for odd in (x, x[..., :-3]):
        codes = tokenizer.encode(odd)
        assert codes.shape == (3, 6, *tokenizer.spec.grid(tokenizer.size_of(odd)))
        assert torch.equal(codes[1:2], tokenizer.encode(odd[1:2]))
        assert tokenizer.decode(codes, size=tokenizer.size_of(odd)).shape == odd.shape
    output = tokenizer(x)
    assert output.reconstruction.shape == x.shape
    assert torch.allclose(output.latent, tokenizer.embed(output.codes))
    output.reconstruction.square().mean().backward()
    assert tokenizer.autoencoder.module.encoder.weight.grad.abs().sum() > 0
    with pytest.raises(zoo.InputError, match="out of range"):
        tokenizer.decode(codes + 16)
    with pytest.raises(zoo.InputError, match=r"mine\.encode has no option 'generator'"):
        tokenizer.encode(x, generator=None)


def test_audio_is_taken_as_it_is_and_video_in_windows_of_the_calibration():
    torch.manual_seed(0)
    sound = signal(2, 2, 640) - 0.5
    autoencoder = Patches(2, 320)
    tokenizer = zoo.discretize(autoencoder, calibration=sound, modality="audio", sample_rate=44100)
    assert tokenizer.spec.sample_rate == 44100
    assert tokenizer.spec.channels == 2
    with torch.no_grad():
        assert torch.equal(tokenizer.encode(sound), nearest(autoencoder.encode(sound), tokenizer)[0])
    clip = signal(1, 3, 10, 16, 16)
    tokenizer = zoo.discretize(Causal(3, 4, 8, 8), calibration=clip[:, :, :5], modality="video", causal=True)
    assert tokenizer.spec.chunk_frames == 5
    codes = tokenizer.encode(clip)
    assert torch.equal(codes[:, :, 2:], tokenizer.encode(clip[:, :, 5:]))
    assert tokenizer.decode(codes, size=(10, 16, 16)).shape == clip.shape


def test_mean_and_scale_are_those_of_all_latents_together_however_they_are_batched():
    torch.manual_seed(0)
    autoencoder = Patches(3, 4, 4)
    with torch.no_grad():
        autoencoder.encoder.bias.copy_(torch.tensor([1e4, -300.0, 0.0, 1.0, 2.0, 3.0]))
    x = signal(7, 3, 16, 24)
    with torch.no_grad():
        latent = autoencoder.encoder(x * 2 - 1).double().movedim(1, -1).flatten(0, -2)
    for batches in (x, [x], x.split(1), x.split(3), iter(x.split([5, 2]))):
        quantizer = zoo.discretize(autoencoder, calibration=batches).quantizer
        assert torch.allclose(torch.tensor(quantizer.mean).double(), latent.mean(0), rtol=1e-6, atol=1e-6)
        scale = torch.tensor(quantizer.scale, dtype=torch.float64)
        assert torch.allclose(scale * latent.std(0, correction=0), torch.ones(6).double(), rtol=1e-3)


def test_calibration_is_read_batch_by_batch_and_not_kept():
    seen, alive = [], []

    def batches():
        for seed in range(6):
            alive.append(sum(batch() is not None for batch in seen))
            batch = signal(1, 3, 16, 16, seed=seed)
            seen.append(weakref.ref(batch))
            yield batch
            del batch

    zoo.discretize(Patches(3, 4, 4), calibration=batches())
    assert len(seen) == 6
    assert max(alive) <= 2


def test_odd_calibration_is_padded_like_signals():
    torch.manual_seed(0)
    autoencoder = Patches(3, 16, 16)
    x = signal(2, 3, 50, 70)
    tokenizer = zoo.discretize(autoencoder, calibration=x)
    assert tokenizer.spec.downsample == (16, 16)
    padded = nn.functional.pad(x, (0, 10, 0, 14), mode="replicate")
    assert zoo.discretize(autoencoder, calibration=padded).quantizer.mean == tokenizer.quantizer.mean


def test_known_constants_stand_in_for_measured_ones():
    autoencoder, x = Patches(3, 4, 4), signal(2, 3, 16, 16)
    measured = zoo.discretize(autoencoder, calibration=x).quantizer
    shift = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    mean = zoo.discretize(autoencoder, calibration=x, mean=shift).quantizer
    assert mean.mean == tuple(shift)
    assert mean.scale == measured.scale
    scale = zoo.discretize(autoencoder, calibration=torch.zeros(1, 3, 4, 4), mean=0.0, scale=0.18215).quantizer
    assert scale.mean == (0.0,) * 6
    assert scale.scale == (0.18215,) * 6
    wide = zoo.discretize(autoencoder, calibration=x, value_range=8.0).quantizer
    assert wide.levels == DimensionwiseQuantizer(1, value_range=8.0).levels


def test_a_discretized_tokenizer_of_zoo_is_saved_with_its_calibration(tmp_path):
    x = signal(2, 3, 48, 40)
    tokenizer = zoo.discretize(small(3), 8, calibration=x)
    assert tokenizer.spec.name == "tokenbridge-kl16-8bit"
    tokenizer.save_pretrained(tmp_path / "once")
    loaded = zoo.load(tmp_path / "once")
    assert loaded.spec == tokenizer.spec
    assert loaded.quantizer.mean == tokenizer.quantizer.mean
    assert loaded.quantizer.scale == tokenizer.quantizer.scale
    codes = tokenizer.encode(x)
    assert torch.equal(loaded.encode(x), codes)
    assert torch.equal(loaded.decode(codes), zoo.for_inference(tokenizer).decode(codes))
    loaded.save_pretrained(tmp_path / "twice")
    assert torch.equal(zoo.load(tmp_path / "twice" / "model.safetensors").encode(x), codes)
    half = type(tokenizer).from_pretrained(tmp_path / "once", dtype=torch.bfloat16)
    assert half.quantizer.scale == tokenizer.quantizer.scale
    assert (half.encode(x) - codes).abs().double().mean() < 4


def test_saving_another_module_says_why_not_and_writes_nothing(tmp_path):
    tokenizer = zoo.discretize(diffusers_kl(), calibration=signal(1, 3, 16, 16))
    message = "autoencoderkl-6bit: a file cannot say how to build its AutoencoderKL, which is not a tokenizer of zoo"
    with pytest.raises(zoo.CheckpointError, match=message):
        tokenizer.save_pretrained(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    with pytest.raises(zoo.CheckpointError, match=message):
        tokenizer.push_to_hub("someone/something", token="hf_none")
    # What the message says to do instead.
    again = zoo.discretize(
        diffusers_kl(),
        calibration=signal(1, 3, 16, 16, seed=1),
        mean=tokenizer.quantizer.mean,
        scale=tokenizer.quantizer.scale,
    )
    x = signal(1, 3, 32, 32)
    assert torch.equal(again.encode(x), tokenizer.encode(x))


class Halving(Patches):
    def decode(self, z):
        return super().decode(z)[..., :-1]


class Flattening(Patches):
    def encode(self, x):
        return super().encode(x).flatten(2)


X = signal(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("autoencoder", "calibration", "options", "message"),
    [
        (nn.Identity(), X, {}, "expected a module with encode, decode and parameters, got Identity"),
        (
            SimpleNamespace(encode=abs, decode=abs),
            X,
            {},
            "expected a module with encode, decode and parameters, got SimpleName",
        ),
        (Patches(3, 4, 4), [], {}, "at least one batch of calibration, got none"),
        (Patches(3, 4, 4), [[X]], {}, r"expected floating calibration \[batch, channels, height, width\], got list"),
        (Patches(3, 4, 4), X[0], {}, r"got torch.float32 \[3, 16, 16\]"),
        (Patches(3, 4, 4), (X * 255).byte(), {}, r"got torch.uint8 \[2, 3, 16, 16\]"),
        (Patches(3, 4, 4), [X, X[:, :1]], {}, r"expected image as \[batch, 3, height, width\], got \[2, 1, 16, 16\]"),
        (Patches(3, 4, 4), X * 2 - 1, {}, r"in \[0, 1\], got -0.9"),
        (Patches(3, 4, 4), X.masked_fill(X > 0.99, torch.nan), {}, "not finite"),
        (Patches(3, 4, 4), torch.zeros(1, 3, 16, 16), {}, "varies in every channel of the latent, got a constant one"),
        (Patches(3, 4, 4), X, {"bits": 10}, "levels"),
        (Patches(3, 4, 4), X, {"bits": 0}, "positive dim, bits"),
        (Patches(3, 4, 4), X, {"mean": [0.0]}, "expected mean as one finite number or 6"),
        (Patches(3, 4, 4), X, {"scale": 0.0}, "expected a positive scale"),
        (Patches(3, 4, 4), X, {"modality": "structure"}, "expected modality as one of image, audio, video"),
        (Patches(1, 4), X[:, :1, 0], {"modality": "audio"}, "expected a sample_rate for audio"),
        (Patches(3, 4, 4, output="codes"), X, {}, r"Patches.encode to return a tensor .*, got SimpleNamespace"),
        (Flattening(3, 4, 4), X, {}, r"Flattening.encode to return a tensor .* 2 axes\], got \[1, 6, 16\]"),
        (Halving(3, 4, 4), X, {}, r"a latent of \(4, 4\) is decoded to \(16, 15\)"),
        (Causal(3, 4, 8, 8), signal(1, 3, 5, 8, 8), {"modality": "video"}, "decoded to .*, not causal: no whole"),
        (Causal(3, 4, 8, 8), signal(1, 3, 1, 8, 8), {"modality": "video", "causal": True}, "no whole number"),
    ],
)
def test_what_cannot_be_discretized_is_refused_with_the_reason(autoencoder, calibration, options, message):
    with pytest.raises(zoo.InputError, match=message):
        zoo.discretize(autoencoder, calibration=calibration, **options)


def test_a_tokenizer_of_zoo_says_its_own_modality_and_has_to_decode():
    tokenizer = zoo.create("tokenbridge", small=True)
    with pytest.raises(zoo.InputError, match="tokenbridge-kl16 is a tokenizer of zoo, whose spec has modality"):
        zoo.discretize(tokenizer, calibration=signal(1, 3, 16, 16), input_mean=0.0)
    tokenizer.encode_only = "it was made for this test"
    with pytest.raises(zoo.InputError, match="cannot decode: it was made for this test"):
        zoo.discretize(tokenizer, calibration=signal(1, 3, 16, 16))


def test_the_function_is_reached_by_its_name_whatever_was_imported():
    module = importlib.import_module("zoo.discretization")
    assert zoo.discretize is module.discretize
    assert "discretize" in zoo.__all__
