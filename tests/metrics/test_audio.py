"""Metrics of audio, each against its own computation on real speech; some are in test_metrics.py."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyworld
import torch

import zoo
from zoo.demo.samples import samples
from zoo.errors import InputError, WeightsUnavailableError
from zoo.media import load_audio, resample
from zoo.metrics import METRICS, log_f0_rmse, si_sdr, speaker_similarity, stft_distance, voicing_error
from zoo.metrics import speech as speech_metrics

RATE = 24000
NEW = [stft_distance, si_sdr, log_f0_rmse, voicing_error]
has_voice = pytest.mark.skipif(
    speech_metrics.voice_missing() is not None, reason="the voice encoder's weights are not installed"
)


@pytest.fixture(scope="module")
def original() -> torch.Tensor:
    """Two sentences of 1.2 seconds: `[2, 1, 28800]`."""
    return torch.stack([load_audio(samples("audio")[name], RATE, 1)[:, 6000:34800] for name in ("river", "tokens")])


@pytest.fixture(scope="module")
def reconstruction(original) -> torch.Tensor:
    noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(0))
    return original + torch.tensor([0.003, 0.03])[:, None, None] * noise


# Distances


def direct_stft_distance(signal: np.ndarray, reference: np.ndarray) -> float:
    found = []
    for size, hop, length in [(1024, 120, 600), (2048, 240, 1200), (512, 50, 240)]:
        window = np.zeros(size)
        start = (size - length) // 2
        window[start : start + length] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)

        def magnitudes(samples: np.ndarray, size=size, hop=hop, window=window) -> np.ndarray:
            frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, size // 2, mode="reflect"), size)[::hop]
            return np.maximum(np.abs(np.fft.rfft(frames * window)), 1e-4)

        x, y = magnitudes(signal), magnitudes(reference)
        found.append(np.linalg.norm(x - y) / np.linalg.norm(y) + np.abs(np.log(x) - np.log(y)).mean())
    return float(np.mean(found))


def test_stft_distance_is_that_of_its_definition(reconstruction, original):
    pairs = zip(reconstruction[:, 0].double().numpy(), original[:, 0].double().numpy(), strict=True)
    expected = [direct_stft_distance(*pair) for pair in pairs]
    assert expected[1] > expected[0] + 0.5
    assert stft_distance(reconstruction, original, RATE).tolist() == pytest.approx(expected, rel=1e-4)


def test_stft_distance_compares_at_24_khz(reconstruction, original):
    low = [resample(audio, RATE, 16000) for audio in (reconstruction, original)]
    again = [resample(audio, 16000, RATE) for audio in low]
    assert torch.equal(stft_distance(*low, 16000), stft_distance(*again, RATE))


def test_stft_distance_of_equal_signals_is_zero_and_of_a_silent_original_undefined(original):
    assert stft_distance(original, original, RATE).tolist() == [0, 0]
    with_silence = torch.cat([original[:1], torch.zeros_like(original[:1])])
    assert stft_distance(original, with_silence, RATE).isnan().tolist() == [False, True]
    with pytest.raises(InputError, match="more than 1024 samples at 24000 Hz, got 1024"):
        stft_distance(original[:, :, :1024], original[:, :, :1024], RATE)


def test_si_sdr_is_that_of_its_formula(reconstruction, original):
    expected = []
    for x, y in zip(reconstruction[:, 0].double().numpy(), original[:, 0].double().numpy(), strict=True):
        x, y = x - x.mean(), y - y.mean()
        target = (x @ y) / (y @ y) * y
        expected.append(10 * np.log10((target @ target) / ((x - target) @ (x - target))))
    assert expected[0] > expected[1] + 10
    assert si_sdr(reconstruction, original, RATE).tolist() == pytest.approx(expected, abs=1e-6)
    assert si_sdr(0.3 * reconstruction + 0.1, original, RATE).tolist() == pytest.approx(expected, abs=1e-3)


def test_si_sdr_of_a_scaled_signal_is_very_high_and_of_silence_undefined(original):
    assert (si_sdr(0.5 * original, original, RATE) > 100).all()
    silence = torch.zeros_like(original)
    assert si_sdr(silence, original, RATE).isnan().all()
    assert si_sdr(original, silence + 0.5, RATE).isnan().all()


# Pitch


def contour(signal: torch.Tensor) -> np.ndarray:
    samples = resample(signal, RATE, 16000).double().numpy()[0]
    return pyworld.harvest(samples, 16000, f0_floor=40, f0_ceil=800)[0]


def test_pitch_figures_are_those_of_their_definitions(reconstruction, original):
    errors, differences = [], []
    for x, y in zip(reconstruction, original, strict=True):
        pairs = list(zip(contour(x), contour(y), strict=True))
        errors.append(sum((a == 0) != (b == 0) for a, b in pairs) / len(pairs))
        squares = [(math.log(a) - math.log(b)) ** 2 for a, b in pairs if a and b]
        differences.append(math.sqrt(sum(squares) / len(squares)))
    assert 0 < differences[0] < differences[1] < 0.5
    assert 0 < errors[0] < errors[1] < 0.5
    assert log_f0_rmse(reconstruction, original, RATE).tolist() == pytest.approx(differences)
    assert voicing_error(reconstruction, original, RATE).tolist() == pytest.approx(errors)


def test_the_contour_is_the_pitch_at_which_the_speech_repeats(original):
    """Against the highest normalised autocorrelation around the contour's own octave."""
    signal = resample(original[0], RATE, 16000).double().numpy()[0]
    deviations = []
    for frame, pitch in enumerate(contour(original[0])):
        middle = frame * 80
        if pitch and 800 <= middle < len(signal) - 800:
            lags = np.arange(int(16000 / pitch / 1.4), int(16000 / pitch * 1.4))
            part = signal[middle - 320 : middle + 320]
            moved = [signal[middle - 320 + lag : middle + 320 + lag] for lag in lags]
            best = lags[
                np.argmax([part @ other / (np.linalg.norm(other) + 1e-9) for other in moved if len(other) == 640])
            ]
            deviations.append(abs(math.log(16000 / best / pitch)))
    assert len(deviations) > 100
    assert np.median(deviations) < 0.02


def test_a_voice_a_semitone_higher_differs_by_a_semitone():
    time = torch.arange(16000) / 16000
    phase = 2 * math.pi * torch.cumsum(150 + 30 * torch.sin(6 * time), dim=0) / 16000
    low, high = (sum(torch.sin(k * ratio * phase) / k for k in range(1, 12)) / 4 for ratio in (1, 2 ** (1 / 12)))
    assert log_f0_rmse(high[None, None], low[None, None], 16000).item() == pytest.approx(math.log(2) / 12, rel=0.03)
    assert voicing_error(high[None, None], low[None, None], 16000).item() < 0.02


def test_speech_that_falls_silent_is_unvoiced_from_there(original):
    cut = original.clone()
    cut[:, :, 14400:] = 0
    expected = [(contour(audio)[120:] > 0).sum() / 241 for audio in original]
    assert min(expected) > 0.2
    assert voicing_error(cut, original, RATE).tolist() == pytest.approx(expected, abs=0.03)


def test_without_voice_in_both_there_is_no_difference_of_pitch(original):
    silence = torch.zeros_like(original)
    assert log_f0_rmse(silence, original, RATE).isnan().all()
    assert voicing_error(silence, silence, RATE).tolist() == [0, 0]
    short = original[:, :, :2000]
    assert log_f0_rmse(short, short, RATE).isnan().all()
    assert voicing_error(short, short, RATE).isnan().all()


def test_without_the_package_pitch_says_how_to_get_it(monkeypatch, original):
    monkeypatch.setitem(sys.modules, "pyworld", None)
    message = r'needs the package pyworld: pip install "tokenizer-zoo\[metrics\]"'
    with pytest.raises(ImportError, match=message):
        voicing_error(original, original, RATE)
    assert "pyworld" in METRICS["audio"]["log_f0_rmse"].missing()


# The speaker


@pytest.fixture
def random_voice(tmp_path, monkeypatch) -> dict[str, torch.Tensor]:
    """A package resemblyzer of random weights in place of what is installed."""
    torch.manual_seed(0)
    weights = {f"lstm.{key}": 4 * value for key, value in torch.nn.LSTM(40, 256, 3).state_dict().items()}
    weights |= {f"linear.{key}": value for key, value in torch.nn.Linear(256, 256).state_dict().items()}
    install_voice(tmp_path, monkeypatch)
    others = {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    torch.save({"step": 1, "model_state": weights | others}, tmp_path / "resemblyzer" / "pretrained.pt")
    return weights


def install_voice(folder: Path, monkeypatch) -> None:
    (folder / "resemblyzer").mkdir()
    (folder / "resemblyzer" / "__init__.py").write_text("raise RuntimeError('is not to be imported')")
    monkeypatch.syspath_prepend(folder)


def direct_embedding(signal: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Of `[samples]` at 16 kHz: Resemblyzer's `embed_utterance` of its `normalize_volume`."""
    signal = signal * max(1, 10 ** (-30 / 20) / np.sqrt(np.mean(signal**2)))
    starts = [0]
    while starts[-1] + 77 + 160 <= len(signal) // 160 + 78:
        starts.append(starts[-1] + 77)
    if len(starts) > 1 and (len(signal) - 160 * starts[-1]) / 25600 < 0.75:
        starts.pop()
    signal = np.pad(signal, (0, max(0, 160 * (starts[-1] + 160) - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(signal, 200), 400)[::160]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    top = 15 + 27 * np.log(8) / np.log(6.4)  # of 8 kHz, linear up to 1 kHz at 15
    steps = np.linspace(0, top, 42)
    edges = np.where(steps < 15, 200 / 3 * steps, 1000 * np.exp(np.log(6.4) / 27 * (steps - 15)))
    bins = np.arange(201) * 40
    bands = [np.interp(bins, edges[k : k + 3], [0, 1, 0]) * 2 / (edges[k + 2] - edges[k]) for k in range(40)]
    mel = power @ np.transpose(bands)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    found = []
    for start in starts:
        rows = mel[start : start + 160]
        for layer in range(3):
            state = memory = np.zeros(256)
            inputs = rows @ weights[f"lstm.weight_ih_l{layer}"].T + weights[f"lstm.bias_ih_l{layer}"]
            outputs = []
            for row in inputs:
                gates = row + weights[f"lstm.weight_hh_l{layer}"] @ state + weights[f"lstm.bias_hh_l{layer}"]
                enter, forget, content, leave = np.split(gates, 4)
                memory = sigmoid(forget) * memory + sigmoid(enter) * np.tanh(content)
                state = sigmoid(leave) * np.tanh(memory)
                outputs.append(state)
            rows = np.stack(outputs)
        embedding = np.maximum(weights["linear.weight"] @ rows[-1] + weights["linear.bias"], 0)
        found.append(embedding / np.linalg.norm(embedding))
    mean = np.mean(found, axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("samples", [9000, 28800, 64000])  # one window, one not filled, two of which one is not
def test_speaker_similarity_is_that_of_the_network_in_the_file(random_voice, original, reconstruction, samples):
    weights = {key: value.double().numpy() for key, value in random_voice.items()}
    first, second = (audio.flatten().repeat(2)[:samples] for audio in (reconstruction.flip(0), original))
    clips = [resample(audio[None], RATE, 16000)[0].double().numpy() for audio in (first, second)]
    expected = float(np.dot(*(direct_embedding(clip, weights) for clip in clips)))
    assert expected < 0.999
    found = speaker_similarity(first[None, None], second[None, None], RATE)
    assert found.tolist() == pytest.approx([expected], abs=1e-4)


@has_voice
def test_speaker_similarity_is_that_of_resemblyzer():
    """The figures are those of its own code, with librosa 0.11, for these clips."""
    clips = [load_audio(path, RATE, 1)[None] for path in samples("audio").values()]
    for clip, expected in zip(clips, (0.814409, 0.835231), strict=True):
        noisy = clip + 0.02 * torch.randn(clip.shape, generator=torch.Generator().manual_seed(0))
        assert speaker_similarity(noisy, clip, RATE).item() == pytest.approx(expected, abs=1e-4)


@has_voice
def test_a_voice_is_similar_to_itself_and_silence_has_no_voice(original):
    assert speaker_similarity(original, original, RATE).tolist() == pytest.approx([1, 1])
    other = speaker_similarity(original.flip(0), original, RATE)
    assert (other < 0.95).all()
    silence = torch.zeros_like(original)
    assert speaker_similarity(silence, original, RATE).isnan().all()
    assert speaker_similarity(original, silence, RATE).isnan().all()


def test_without_weights_the_speaker_is_not_compared(tmp_path, monkeypatch, original):
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    assert "not installed: pip install --no-deps resemblyzer" in METRICS["audio"]["speaker_similarity"].missing()
    with pytest.raises(WeightsUnavailableError, match="needs the weights of the voice encoder"):
        speaker_similarity(original, original, RATE)
    monkeypatch.undo()
    install_voice(tmp_path, monkeypatch)
    with pytest.raises(WeightsUnavailableError, match=r"resemblyzer/pretrained.pt is not there"):
        speaker_similarity(original, original, RATE)


# What all have in common


@pytest.mark.parametrize("metric", NEW)
def test_an_item_has_the_same_figure_alone_and_in_a_batch(metric, reconstruction, original):
    together = metric(reconstruction, original, RATE)
    alone = torch.cat([metric(reconstruction[i : i + 1], original[i : i + 1], RATE) for i in range(2)])
    assert together.shape == (2,)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("metric", [*NEW, speaker_similarity])
def test_sounds_that_do_not_pair_are_refused(metric, reconstruction, original):
    with pytest.raises(InputError, match=r"expected reconstruction as \[batch, 1, samples\]"):
        metric(reconstruction[:, 0], original, RATE)
    with pytest.raises(InputError, match="original's shape"):
        metric(reconstruction[..., :-1], original, RATE)
    with pytest.raises(InputError, match="not finite"):
        metric(reconstruction / 0, original, RATE)


@pytest.mark.parametrize("name", METRICS["audio"])
def test_the_table_streams_the_mean_of_the_figures_in_any_batches(name, original):
    metric = METRICS["audio"][name]
    if metric.missing() is not None:
        pytest.skip(metric.missing())
    original = original[:1].expand(2, -1, -1)
    noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(0))
    reconstruction = original + torch.tensor([0, 0.03])[:, None, None] * noise
    spec = zoo.info("wavtokenizer-nano").spec
    figures = metric.per_item(reconstruction, original, spec)
    assert figures.shape == (2,)
    assert bool(figures[0] > figures[1]) is metric.higher_is_better  # the first is the original
    parts = [metric.streaming(spec) for _ in range(2)]
    for part, item in zip(parts, range(2), strict=True):
        part.update(reconstruction[item : item + 1], original[item : item + 1])
    parts[0].merge_state(parts[1])
    assert parts[0].compute().item() == pytest.approx(figures.mean().item(), rel=1e-5)


def test_stereo_is_the_mean_over_its_channels(reconstruction, original):
    stereo = replace(zoo.info("wavtokenizer-nano").spec, channels=2)
    together = [audio.transpose(0, 1) for audio in (reconstruction, original)]  # [1, 2, samples]
    figure = METRICS["audio"]["si_sdr"].per_item(*together, stereo)
    assert figure.tolist() == pytest.approx([si_sdr(reconstruction, original, RATE).mean().item()])


def test_every_modality_has_its_table_by_name():
    assert list(METRICS) == ["image", "audio", "video", "structure"]
    for table in METRICS.values():
        assert all(metric.name == name for name, metric in table.items())
        assert all((metric.per_item is None) != (metric.of_set is None) for metric in table.values())
