"""Discriminators against plain computations from the cards' tables, with the module's own weights."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import InputError
from zoo.trainers.adversarial.discriminators import AUDIO_DISCRIMINATORS, DISCRIMINATORS, IMAGE_DISCRIMINATORS
from zoo.trainers.adversarial.losses import GAN_LOSSES, feature_matching_loss, r1_penalty

# Configurations small enough to run, whose layers are those of the published ones.
SMALL = {
    "patchgan": {"width": 4},
    "blur_patchgan": {"width": 32},
    "stylegan": {"resolution": 32, "channel_base": 128, "channel_max": 8},
    "multi_period": {"widths": (4, 8, 8, 12, 12)},
    "multi_scale": {"width": 16},
    "multi_scale_stft": {"width": 4},
    "multi_resolution_stft": {"width": 4},
    "dac": {"width": 4, "period_widths": (4, 8, 8, 12, 12)},
    "wavtokenizer_period": {"widths": (4, 8, 8, 12, 12)},
    "bigcodec_period": {"widths": (4, 8, 8, 12, 12)},
    "bigcodec_spectrogram": {"width": 2},
}


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return DISCRIMINATORS[name](**SMALL[name])


def signal_for(name: str) -> Tensor:
    """Two items: pictures of 32 by 32 in [-1, 1], or 2311 samples, a multiple of none of the periods."""
    generator = torch.Generator().manual_seed(1)
    if name in IMAGE_DISCRIMINATORS:
        return torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    return torch.randn(2, 1, 2311, generator=generator) * 0.2


def convolutions(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)]


def shapes(network: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(module.weight.shape) for module in convolutions(network)]


def published(name: str, **options) -> nn.Module:
    """At full size, without values."""
    with torch.device("meta"):
        return DISCRIMINATORS[name](**options)


# Pictures


def test_patchgan_is_its_table():
    network = small("patchgan")
    nn.init.normal_(network.blocks[1][1].bias)  # as after some training
    x, expected = signal_for("patchgan"), []
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    layers = convolutions(network)
    for layer, stride, norm in zip(layers, (2, 2, 2, 1, 1), (None, *norms, None), strict=True):
        x = F.conv2d(x, layer.weight, layer.bias, stride, padding=1)
        if norm is not None:
            mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), correction=0, keepdim=True)
            x = (x - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
        if layer is not layers[-1]:
            x = torch.where(x > 0, x, 0.2 * x)
            expected.append(x)
    ((logits, features),) = network(signal_for("patchgan"))
    assert logits.shape == (2, 1, 2, 2)
    torch.testing.assert_close([logits, *features], [x, *expected])


def test_patchgan_has_the_published_layers():
    widths = [(64, 3), (128, 64), (256, 128), (512, 256), (1, 512)]
    assert shapes(published("patchgan")) == [(*width, 4, 4) for width in widths]
    assert [module.bias is not None for module in convolutions(published("patchgan"))] == [True, *[False] * 3, True]
    weights = sum(16 * math.prod(width) for width in widths)
    assert count(published("patchgan")) == weights + 64 + 2 * (128 + 256 + 512) + 1 == 2_765_633
    assert [shape[0] for shape in shapes(published("patchgan", num_layers=4))] == [64, 128, 256, 512, 512, 1]


def test_patchgan_starts_as_published():
    torch.manual_seed(0)
    network = DISCRIMINATORS["patchgan"](width=32)
    for layer in convolutions(network):
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.002)
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
    gains = torch.cat([module.weight for module in network.modules() if isinstance(module, nn.BatchNorm2d)])
    assert gains.mean().item() == pytest.approx(1, abs=0.005)
    assert gains.std().item() == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize(("num_layers", "side"), [(3, 70), (4, 142)])
def test_a_logit_of_patchgan_sees_a_patch_of_the_stated_size(num_layers, side):
    network = DISCRIMINATORS["patchgan"](width=4, num_layers=num_layers).eval()
    image = torch.zeros(1, 3, 256, 256, requires_grad=True)
    ((logits, _),) = network(image)
    middle = logits.shape[-1] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], image)
    assert int((gradient[0].abs().sum(dim=(0, 1)) > 0).sum()) == side


def blurred(x: Tensor, taps: list[float]) -> Tensor:
    """Along both axes, by sums of shifted copies; without padding."""
    height, width = (size - len(taps) + 1 for size in x.shape[2:])
    rows = sum(tap * x[:, :, i : i + height] for i, tap in enumerate(taps)) / sum(taps)
    return sum(tap * rows[..., i : i + width] for i, tap in enumerate(taps)) / sum(taps)


def leaky(x: Tensor, slope: float) -> Tensor:
    return torch.maximum(x, slope * x)


@pytest.mark.parametrize("size", [(32, 32), (33, 46)])
def test_blur_patchgan_is_its_table(size):
    network = small("blur_patchgan")
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2)) * 2 - 1
    stem, *stages, one, last = convolutions(network)
    norms = [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    x = leaky(F.conv2d(image, stem.weight, stem.bias, padding=2), 0.1)
    for layer, norm in zip(stages, norms, strict=True):
        x = F.conv2d(x, layer.weight, layer.bias, padding=1)
        height, width = (math.ceil(length / 2) for length in x.shape[2:])
        before = [(2 * (half - 1) + 4 - length) // 2 for half, length in zip((height, width), x.shape[2:], strict=True)]
        x = blurred(F.pad(x, (before[1], 3, before[0], 3)), [1, 3, 3, 1])[:, :, ::2, ::2][:, :, :height, :width]
        x = leaky(F.group_norm(x, 32, norm.weight, norm.bias), 0.1)
    x = F.adaptive_max_pool2d(x, (16, 16))
    x = leaky(F.conv2d(x, one.weight, one.bias), 0.1)
    x = F.conv2d(x, last.weight, last.bias, padding=2)
    ((logits, features),) = network(image)
    assert logits.shape == (2, 1, 16, 16) and len(features) == 3
    torch.testing.assert_close(logits, x)


def test_blur_patchgan_has_the_published_layers():
    stages = [(128, 128, 3, 3), (256, 128, 3, 3), (512, 256, 3, 3)]
    assert shapes(published("blur_patchgan")) == [(128, 3, 5, 5), *stages, (512, 512, 1, 1), (1, 512, 5, 5)]


def test_stylegan_is_its_table():
    network = small("stylegan")
    layers = iter(convolutions(network))

    def convolve(x: Tensor, stride: int = 1) -> Tensor:
        layer = next(layers)
        return F.conv2d(x, layer.weight, layer.bias, stride, padding=layer.weight.shape[-1] // 2)

    x = leaky(convolve(signal_for("stylegan")), 0.2)
    for _ in range(3):
        shortcut = convolve(x, 2)
        x = leaky(convolve(leaky(convolve(x), 0.2)), 0.2)
        mirrored = torch.from_numpy(np.pad(x.detach().numpy(), [(0, 0), (0, 0), (1, 1), (1, 1)], mode="reflect"))
        x = (convolve(blurred(mirrored, [1, 2, 1]), 2) + shortcut) / 2**0.5
    assert x.shape[2:] == (4, 4)
    x = leaky(convolve(x), 0.2).flatten(1)
    for last, layer in enumerate(layers):
        x = x @ layer.weight.T + layer.bias
        x = x if last else leaky(x, 0.2)
    ((logits, features),) = network(signal_for("stylegan"))
    assert logits.shape == (2, 1) and len(features) == 3
    torch.testing.assert_close(logits, x)


def test_stylegan_has_the_published_layers():
    widths = (64, 128, 256, 512, 512, 512, 512)
    layers = shapes(published("stylegan"))
    assert layers[0] == (64, 3, 3, 3)
    for index, (before, after) in enumerate(pairwise(widths)):
        block = [(after, before, 1, 1), (after, before, 3, 3), (after, after, 3, 3), (after, after, 3, 3)]
        assert layers[1 + 4 * index : 5 + 4 * index] == block
    assert layers[-3:] == [(512, 512, 3, 3), (512, 8192), (1, 512)]
    with pytest.raises(InputError, match="256 by 256 pixels"):
        published("stylegan")(torch.zeros(1, 3, 256, 128))


@pytest.mark.parametrize("name", IMAGE_DISCRIMINATORS)
def test_frames_of_a_video_are_judged_as_pictures(name):
    network = small(name)
    video = torch.stack([signal_for(name), signal_for(name).flip(-1)], dim=2)  # [B, 3, T, H, W]
    ((logits, _),) = network(video)
    ((of_pictures, _),) = network(torch.cat([video[:1, :, 0], video[:1, :, 1], video[1:, :, 0], video[1:, :, 1]]))
    torch.testing.assert_close(logits, of_pictures)


def test_pictures_too_small_for_a_logit_are_refused():
    network = small("patchgan")
    assert network(torch.zeros(2, 3, 24, 24))[0][0].shape == (2, 1, 1, 1)
    with pytest.raises(InputError, match=r"at least 24 pixels a side, got \[2, 3, 23, 40\]"):
        network(torch.zeros(2, 3, 23, 40))
    with pytest.raises(InputError, match="power of 2"):
        DISCRIMINATORS["stylegan"](resolution=96)


# Sound


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("wavtokenizer_period", 41.1),
        ("multi_resolution_stft", 0.6),
        ("dac", 42.5),
        ("bigcodec_period", 10.3),
        ("bigcodec_spectrogram", 11.3),
    ],
)
def test_number_of_parameters_is_the_published_one(name, millions):
    assert count(published(name)) / 1e6 == pytest.approx(millions, abs=0.05)


def plain_stack(layers: list[nn.Module], x: Tensor, geometry: list[tuple], slope: float) -> list[Tensor]:
    """All maps: through convolutions with `geometry`, (stride, padding, dilation, groups), LeakyReLU between."""
    maps = []
    for layer, (stride, padding, dilation, groups) in zip(layers, geometry, strict=True):
        convolve = F.conv1d if x.ndim == 3 else F.conv2d
        x = convolve(x, layer.weight, layer.bias, stride, padding, dilation, groups)
        x = x if layer is layers[-1] else leaky(x, slope)
        maps.append(x)
    return maps


def check(outputs, stacks, features: slice):
    assert len(outputs) == len(stacks)
    for (logits, found), maps in zip(outputs, stacks, strict=True):
        torch.testing.assert_close([logits, *found], [maps[-1], *maps[features]])


def plain_periods(layers: list[nn.Module], audio: Tensor, fill_whole_rows: bool, features: slice) -> list[list[Tensor]]:
    stacks = []
    for number, period in enumerate((2, 3, 5, 7, 11)):
        samples = audio.numpy()
        missing = period - samples.shape[-1] % period
        if missing < period or fill_whole_rows:
            samples = np.pad(samples, [(0, 0), (0, 0), (0, missing)], mode="reflect")
        rows = torch.from_numpy(samples.reshape(len(samples), 1, -1, period))
        geometry = [((3, 1), (2, 0), 1, 1)] * 4 + [(1, (2, 0), 1, 1), (1, (1, 0), 1, 1)]
        stacks.append(plain_stack(layers[6 * number : 6 * number + 6], rows, geometry, 0.1))
    return stacks


@pytest.mark.parametrize("samples", [2310, 2311])  # a multiple of all periods, and of none
@pytest.mark.parametrize(
    ("name", "features"),
    [("multi_period", slice(None)), ("wavtokenizer_period", slice(1, None)), ("bigcodec_period", slice(-1))],
)
def test_period_discriminators_are_their_table(name, features, samples):
    network, audio = small(name), signal_for(name)[..., :samples]
    expected = plain_periods(convolutions(network), audio, False, features)
    assert expected[0][0].shape[2:] == (math.ceil(math.ceil(samples / 2) / 3), 2)
    check(network(audio), expected, features)


def test_period_discriminators_have_the_published_layers():
    for name in ("multi_period", "wavtokenizer_period"):
        hidden = [(32, 1), (128, 32), (512, 128), (1024, 512), (1024, 1024)]
        layers = [*((*width, 5, 1) for width in hidden), (1, 1024, 3, 1)]
        assert shapes(published(name)) == 5 * layers
    hidden = [(16, 1), (64, 16), (256, 64), (512, 256), (512, 512)]
    assert shapes(published("bigcodec_period")) == 5 * [*((*width, 5, 1) for width in hidden), (1, 512, 2, 1)]


def test_multi_scale_is_its_table():
    network, audio = small("multi_scale").eval(), signal_for("multi_scale")
    layers, stacks = convolutions(network), []
    geometry = [(1, 7, 1, 1), (2, 20, 1, 4), (2, 20, 1, 16), (4, 20, 1, 16), (4, 20, 1, 16), (1, 20, 1, 16)]
    geometry += [(1, 2, 1, 1), (1, 1, 1, 1)]
    for scale in range(3):
        stacks.append(plain_stack(layers[8 * scale : 8 * scale + 8], audio, geometry, 0.1))
        padded = F.pad(audio, (2, 2))
        audio = sum(padded[..., i : i + audio.shape[-1] + 1] for i in range(4))[..., ::2] / 4
    check(network(signal_for("multi_scale")), stacks, slice(None))


def test_multi_scale_has_the_published_layers():
    layers = [(128, 1, 15), (128, 32, 41), (256, 8, 41), (512, 16, 41), (1024, 32, 41), (1024, 64, 41)]
    assert shapes(published("multi_scale")) == 3 * [*layers, (1024, 1024, 5), (1, 1024, 3)]


def test_multi_scale_bounds_the_first_scale_by_its_spectral_norm():
    network, audio = small("multi_scale"), signal_for("multi_scale")
    for _ in range(30):  # a step of the power iteration each
        network(audio)
    first, second, _ = network.eval().stacks
    for layer in first.convolutions:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)
    for layer in second.convolutions:
        gain, direction = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        torch.testing.assert_close(layer.weight, gain * direction / direction.flatten(1).norm(dim=1)[:, None, None])


def spectrum(audio: Tensor, size: int, window: Tensor, center: bool) -> Tensor:
    """`[B, 1, samples]` to complex `[B, bins, frames]`, frame by frame."""
    samples = audio[:, 0].double().numpy()
    if center:
        samples = np.pad(samples, [(0, 0), (size // 2, size // 2)], mode="reflect")
    starts = range(0, samples.shape[-1] - size + 1, size // 4)
    columns = [np.fft.rfft(samples[:, start : start + size] * window.double().numpy()) for start in starts]
    return torch.from_numpy(np.stack(columns, axis=-1)).to(torch.complex64)


def test_multi_scale_stft_is_its_table():
    network, audio = small("multi_scale_stft"), signal_for("multi_scale_stft")
    layers, stacks = convolutions(network), []
    geometry = [(1, (1, 4), 1, 1), *(((1, 2), (d, 4), (d, 1), 1) for d in (1, 2, 4)), (1, 1, 1, 1), (1, 1, 1, 1)]
    for number, size in enumerate((1024, 2048, 512, 256, 128)):
        hann = torch.hann_window(size)
        x = spectrum(audio, size, hann, center=False).mT / (3 * size / 8) ** 0.5  # the energy of a Hann window
        x = torch.stack([x.real, x.imag], dim=1)
        stacks.append(plain_stack(layers[6 * number : 6 * number + 6], x, geometry, 0.2))
    check_close(network(audio), stacks, slice(-1))
    layers = [(32, 2, 3, 9), *[(32, 32, 3, 9)] * 3, (32, 32, 3, 3), (1, 32, 3, 3)]
    assert shapes(published("multi_scale_stft")) == 5 * layers


def test_multi_resolution_stft_is_its_table():
    network, audio = small("multi_resolution_stft"), signal_for("multi_resolution_stft")
    layers, stacks = convolutions(network), []
    geometry = [((2, 2), (3, 2)), ((2, 1), (2, 1)), ((2, 2), (2, 1)), ((2, 1), 1), ((2, 2), 1), (1, 1)]
    geometry = [(*stride_and_padding, 1, 1) for stride_and_padding in geometry]
    for number, size in enumerate((1024, 2048, 512)):
        x = spectrum(audio, size, torch.ones(size), center=True).abs()[:, None]
        stacks.append(plain_stack(layers[6 * number : 6 * number + 6], x, geometry, 0.1))
    check_close(network(audio), stacks, slice(None))
    kernels = [(7, 5), (5, 3), (5, 3), (3, 3), (3, 3)]
    layers = [(64, 64 if number else 1, *kernel) for number, kernel in enumerate(kernels)]
    assert shapes(published("multi_resolution_stft")) == 3 * [*layers, (1, 64, 3, 3)]


def test_bigcodec_spectrogram_is_its_table():
    network, audio = small("bigcodec_spectrogram"), signal_for("bigcodec_spectrogram")
    audio[0] = 0  # whose magnitude is the least
    layers, stacks = convolutions(network), []
    geometry = [(2, 2, 1, 1)] * 4 + [(1, 1, 1, 1)] * 2
    for number, size in enumerate((128, 256, 512, 1024, 2048)):
        x = spectrum(audio, size, torch.hann_window(size), center=True)
        x = (x.real**2 + x.imag**2).clamp(1e-7, 1e3).sqrt()[:, None]
        stacks.append(plain_stack(layers[6 * number : 6 * number + 6], x, geometry, 0.2))
    check_close(network(audio), stacks, slice(-1))
    widths = [(32, 1), (64, 32), (128, 64), (256, 128)]
    layers = [*((*width, 5, 5) for width in widths), (512, 256, 3, 3), (1, 512, 3, 3)]
    assert shapes(published("bigcodec_spectrogram")) == 5 * layers


def check_close(outputs, stacks, features: slice):
    """As `check`, for spectra whose float32 error the layers carry on."""
    assert len(outputs) == len(stacks)
    for (logits, found), maps in zip(outputs, stacks, strict=True):
        torch.testing.assert_close([logits, *found], [maps[-1], *maps[features]], rtol=1e-4, atol=1e-4)


def test_dac_is_its_table():
    network, audio = small("dac"), signal_for("dac")[..., :2310] + 0.3
    outputs = network(audio)
    audio = audio - audio.mean(dim=-1, keepdim=True)
    audio = 0.8 * audio / (audio.abs().amax(dim=-1, keepdim=True) + 1e-9)
    layers = convolutions(network)
    check(outputs[:5], plain_periods(layers[:30], audio, True, slice(-1)), slice(-1))
    stacks, geometry = [], [(1, (1, 4), 1, 1)] + [((1, 2), (1, 4), 1, 1)] * 3 + [(1, 1, 1, 1)]
    for number, size in enumerate((2048, 1024, 512)):
        x = spectrum(audio, size, torch.ones(size), center=True).mT
        x = torch.stack([x.real, x.imag], dim=1)
        bins = size // 2 + 1
        edges = [int(bins * edge) for edge in (0, 0.1, 0.25, 0.5, 0.75, 1)]
        of_window, maps = layers[30 + 26 * number : 56 + 26 * number], []
        for band in range(5):
            h = x[..., edges[band] : edges[band + 1]]
            for layer, (stride, padding, *_) in zip(of_window[5 * band : 5 * band + 5], geometry, strict=True):
                h = leaky(F.conv2d(h, layer.weight, layer.bias, stride, padding), 0.1)
                maps.append(h)
        last = of_window[-1]
        maps.append(F.conv2d(torch.cat(maps[4::5], dim=-1), last.weight, last.bias, padding=1))
        stacks.append(maps)
    check_close(outputs[5:], stacks, slice(-1))
    band = [(32, 2, 3, 9), *[(32, 32, 3, 9)] * 3, (32, 32, 3, 3)]
    assert shapes(published("dac"))[30:] == 3 * [*5 * band, (1, 32, 3, 3)]


def test_channels_are_judged_as_items():
    network, audio = small("multi_period"), signal_for("multi_period")
    stereo = audio.reshape(1, 2, -1)
    torch.testing.assert_close(network(stereo), network(audio))
    torch.testing.assert_close(network(audio.double()), network(audio))  # in float32 whatever comes


@pytest.mark.parametrize(
    ("name", "shortest"),
    [("multi_period", 12), ("multi_scale_stft", 2048), ("multi_resolution_stft", 1025), ("dac", 1025)],
)
def test_sound_that_is_too_short_is_refused(name, shortest):
    network, audio = small(name), signal_for(name)
    network(audio[..., :shortest])
    with pytest.raises(InputError, match=rf"at least {shortest} of them, got \[2, 1, {shortest - 1}\]"):
        network(audio[..., : shortest - 1])


def test_every_discriminator_of_sound_refuses_a_signal_without_channels():
    for name in AUDIO_DISCRIMINATORS:
        with pytest.raises(InputError, match=r"takes \[batch, channels, samples\]"):
            small(name)(signal_for(name)[:, 0])


# What training asks of all of them


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_gradients_reach_every_weight_and_the_signal(name):
    network, real = small(name), signal_for(name)
    fake = real.flip(-1).requires_grad_()
    real_outputs, fake_outputs = network(real), network(fake)  # both before one backward pass, as in a training step
    assert all(logits.shape[:2] == (2, 1) for logits, _ in fake_outputs[:1])
    for_discriminator, for_generator = GAN_LOSSES["least_squares"]
    sum(
        for_discriminator(real_logits, fake_logits)
        for (real_logits, _), (fake_logits, _) in zip(real_outputs, fake_outputs, strict=True)
    ).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, key
    fake.grad = None
    outputs = network(fake)
    loss = sum(for_generator(logits) for logits, _ in outputs)
    (loss + feature_matching_loss(network(real), outputs)).backward()
    assert fake.grad.isfinite().all()
    assert fake.grad.abs().mean(dim=tuple(range(1, fake.ndim))).min() > 0


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_r1_can_be_trained_with(name):
    network, real = small(name), signal_for(name).requires_grad_()
    sum(r1_penalty(logits, real) for logits, _ in network(real)).backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert max(gradient.abs().max() for gradient in gradients) > 0


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_silence_and_black_have_finite_gradients(name):
    network = small(name)
    fake = torch.zeros_like(signal_for(name)).requires_grad_()
    sum(logits.square().mean() for logits, _ in network(fake)).backward()
    assert fake.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
