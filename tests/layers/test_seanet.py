"""SEANet's convolutions pad and cut as EnCodec's do, and chunks change nothing."""

import math

import numpy as np
import pytest
import torch

from zoo.layers.seanet import CutConvTranspose, Decoder, Encoder, PaddedConv, elu
from zoo.layers.snake import Snake


def plain_padded(x: np.ndarray, kernel_size: int, stride: int) -> np.ndarray:
    """EnCodec's padding as its description states it, on one channel."""
    length = len(x)
    total = kernel_size - stride
    right = total // 2
    left = total - right
    right += math.ceil(length / stride) * stride - length
    if length > max(left, right):
        return np.pad(x, (left, right), mode="reflect")
    zeros = max(left, right) - length + 1
    padded = np.pad(np.pad(x, (0, zeros)), (left, right), mode="reflect")
    return padded[: len(padded) - zeros]


@pytest.mark.parametrize(("kernel_size", "stride"), [(7, 1), (3, 1), (1, 1), (4, 2), (10, 5), (12, 6), (16, 8)])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 16, 29])
def test_convolution_pads_as_encodec_does(kernel_size, stride, length):
    conv = PaddedConv(1, 1, kernel_size, stride)
    x = torch.randn(length)
    padded = plain_padded(x.numpy(), kernel_size, stride)
    kernel = conv.conv.weight.detach().numpy()[0, 0]
    expected = [
        padded[start : start + kernel_size] @ kernel + conv.conv.bias.item()
        for start in range(0, len(padded) - kernel_size + 1, stride)
    ]
    assert len(expected) == math.ceil(length / stride)
    np.testing.assert_allclose(conv(x[None, None]).detach()[0, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [2, 4, 5, 8])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_transposed_convolution_is_cut_as_encodec_cuts(stride, length):
    torch.manual_seed(0)
    conv = CutConvTranspose(1, 1, stride)
    x, kernel = torch.randn(length), conv.conv.weight.detach()[0, 0]
    whole = torch.zeros((length + 1) * stride)
    for step in range(length):
        whole[step * stride : (step + 2) * stride] += x[step] * kernel
    expected = whole[stride - stride // 2 : len(whole) - stride // 2] + conv.conv.bias.item()
    assert len(expected) == length * stride
    torch.testing.assert_close(conv(x[None, None])[0, 0], expected)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("activation", [elu, Snake])
@torch.no_grad()
def test_chunks_change_neither_latent_nor_signal(bidirectional, activation):
    torch.manual_seed(0)
    encoder = Encoder((2, 4, 5), 4, 8, bidirectional=bidirectional, activation=activation)
    decoder = Decoder((5, 4, 2), 4, 8, activation=activation)
    for samples in (1, 41, 500):
        audio = torch.randn(2, 1, samples)
        latent = encoder(audio, 1000)
        assert latent.shape == (2, 8, math.ceil(samples / 40))
        signal = decoder(latent, 1000)
        assert signal.shape == (2, 1, 40 * latent.shape[-1])
        for chunk in (1, 5):
            torch.testing.assert_close(encoder(audio, chunk), latent)
            torch.testing.assert_close(decoder(latent, chunk), signal)


@torch.no_grad()
def test_what_is_further_away_than_the_context_changes_nothing():
    torch.manual_seed(0)
    encoder, decoder, frame = Encoder((2, 4, 5), 4, 8), Decoder((5, 4, 2), 4, 8), 25
    audio, latent = torch.randn(1, 1, 2000), torch.randn(1, 32, 50)
    cut = torch.zeros_like(audio)
    span = slice(frame * 40 - encoder.context, (frame + 1) * 40 + encoder.context)
    cut[..., span] = audio[..., span]
    torch.testing.assert_close(encoder.downsample(cut)[..., frame], encoder.downsample(audio)[..., frame])
    cut = torch.zeros_like(latent)
    span = slice(frame - decoder.context, frame + 1 + decoder.context)
    cut[..., span] = latent[..., span]
    samples = slice(frame * 40, (frame + 1) * 40)
    torch.testing.assert_close(decoder.upsample(cut)[..., samples], decoder.upsample(latent)[..., samples])
