"""Snake activations, against plain sums; what is above half the sample rate stays out of the anti-aliased one."""

import math

import numpy as np
import torch

from zoo.layers.snake import AntiAliasedSnake, Snake, SnakeBeta, half_band

# Of BigCodec's published file, the first half; the other half is its mirror image.
PUBLISHED_TAPS = (0.0020289647, 0.009389466, -0.025543459, -0.057657383, 0.12857258, 0.4432098)


def test_snake_adds_a_squared_sine():
    snake = Snake(2)
    snake.alpha.data[0, :, 0] = torch.tensor([0.5, 3.0])
    x = torch.linspace(-3, 3, 50).expand(1, 2, -1)
    for channel, alpha in enumerate((0.5, 3.0)):
        expected = x[0, channel] + torch.sin(alpha * x[0, channel]) ** 2 / alpha
        torch.testing.assert_close(snake(x)[0, channel], expected)


def test_snake_beta_has_logarithms_of_frequency_and_height():
    snake = SnakeBeta(1)
    snake.alpha.data[:], snake.beta.data[:] = 0.7, -0.4
    x = torch.linspace(-3, 3, 50)[None, None]
    torch.testing.assert_close(snake(x), x + torch.sin(math.exp(0.7) * x) ** 2 / math.exp(-0.4))


def test_the_filter_is_the_published_one():
    np.testing.assert_allclose(half_band(12), [*PUBLISHED_TAPS, *reversed(PUBLISHED_TAPS)], atol=1e-7)


def test_the_anti_aliased_snake_is_filtered_on_both_sides():
    torch.manual_seed(0)
    snake = AntiAliasedSnake(1)
    snake.act.alpha.data[:], snake.act.beta.data[:] = 0.3, 0.1
    taps = half_band(12).double().numpy()
    for length in (1, 2, 9):
        x = torch.randn(length)
        padded = np.pad(x.double().numpy(), 5, mode="edge")
        doubled = np.zeros(2 * len(padded) - 1)
        doubled[::2] = padded
        fine = 2 * np.convolve(doubled, taps)[15 : 15 + 2 * length]
        fine = fine + np.sin(math.exp(0.3) * fine) ** 2 / math.exp(0.1)
        fine = np.pad(fine, (5, 6), mode="edge")
        expected = [fine[2 * step : 2 * step + 12] @ taps for step in range(length)]
        np.testing.assert_allclose(snake(x[None, None])[0, 0].detach(), expected, atol=1e-5)


def test_the_anti_aliased_snake_of_strips_is_that_of_the_whole(monkeypatch):
    torch.manual_seed(0)
    snake, x = AntiAliasedSnake(3), torch.randn(2, 3, 50)
    whole = snake(x).detach()  # with a gradient, it is computed at once
    for values in (1, 7 * 6, 49 * 6):
        monkeypatch.setattr("zoo.layers.snake.STRIP", values)
        with torch.no_grad():
            torch.testing.assert_close(snake(x), whole)


def test_the_anti_aliased_snake_keeps_folded_frequencies_out():
    """The square of a tone at 0.4 of the sample rate lies at 0.8, which folds to 0.2."""
    tone = torch.sin(2 * math.pi * 0.4 * torch.arange(400.0) + 0.1)[None, None]
    folded = []
    for snake in (SnakeBeta(1), AntiAliasedSnake(1)):
        spectrum = torch.fft.rfft(snake(tone)[0, 0, 100:300].detach() * torch.hann_window(200)).abs()
        folded.append(float(spectrum[38:43].max()))
    assert folded[1] < 0.5 * folded[0]
