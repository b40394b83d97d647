"""The classical codecs: true bytes, and signals that come back in size and time."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.bench import voice
from zoo.bench import baselines as codecs
from zoo.bench.signals import Preprocessing

RATE = 24000


@pytest.mark.parametrize("height, width", [(48, 64), (33, 47)])
def test_image_codecs_get_better_with_bytes(height, width):
    found, _ = codecs.classical_codecs(Preprocessing(modality="image"))
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 4) + np.cos(columns / (3 + k)) for k in range(3)])
    image = torch.from_numpy((waves * 0.2 + 0.5).astype(np.float32))[None]
    by_method = {}
    for codec in found:
        num_bytes, payload = codec.compress(image)
        restored = codec.restore(payload, image)
        assert restored.shape == image.shape and 0 < num_bytes <= len(payload)
        by_method.setdefault(codec.method, []).append((num_bytes, float((restored - image).square().mean())))
    assert set(by_method) >= {"JPEG", "JPEG 4:4:4", "WebP"}
    for points in by_method.values():
        assert points[0][0] < points[-1][0] and points[0][1] > points[-1][1]


def test_payloads_are_what_the_containers_say():
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    webp, avif = io.BytesIO(), io.BytesIO()
    image.save(webp, "WEBP")
    assert codecs.webp_payload(webp.getvalue()) in (
        int.from_bytes(webp.getvalue()[16:20], "little") + k for k in (0, 1)
    )
    if "AVIF" in Image.SAVE:
        image.save(avif, "AVIF")
        file = avif.getvalue()
        start = file.index(b"mdat") - 4
        assert codecs.avif_payload(file) == int.from_bytes(file[start : start + 4], "big") - 8


SOUNDS, _ = codecs.classical_codecs(Preprocessing(modality="audio", sample_rate=RATE, channels=1))


@pytest.mark.parametrize("codec", SOUNDS, ids=lambda codec: codec.label)
def test_sound_codecs_are_aligned_within_a_sample(codec):
    audio = voice(4.0)[None, :, : 4 * RATE - 123]
    num_bytes, file = codec.compress(audio)
    restored = codec.restore(file, audio)
    assert restored.shape == audio.shape
    spectra = [np.fft.rfft(signal[0, 0].numpy(), 2 * audio.shape[2]) for signal in (restored, audio)]
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj())
    lag = int(correlation.argmax())
    assert min(lag, 2 * audio.shape[2] - lag) <= 1
    if "kbit/s" in codec.setting:  # Opus spends less on what is easy, and less than its own target
        assert 0.5 < 8 * num_bytes / 4 / 1000 / codec.setting["kbit/s"] < 1.15


def test_sound_bytes_are_those_of_the_packets():
    codec = next(codec for codec in SOUNDS if codec.method == "Vorbis")
    num_bytes, file = codec.compress(voice()[None])
    assert 0 < num_bytes < len(file) - 2000  # its headers hold kilobytes of codebooks
    codec = next(codec for codec in SOUNDS if codec.method == "MP3")
    num_bytes, file = codec.compress(voice()[None])
    assert 0 < len(file) - num_bytes < 1000


def test_a_rate_that_a_codec_does_not_take_is_resampled():
    found, _ = codecs.classical_codecs(Preprocessing(modality="audio", sample_rate=22050, channels=2))
    audio = voice(1.0, 22050).repeat(2, 1)[None]
    codec = next(codec for codec in found if codec.method == "Opus")
    _, file = codec.compress(audio)
    assert codec.restore(file, audio).shape == audio.shape


@pytest.mark.parametrize("method", ["H.264", "H.265", "AV1"])
def test_video_codecs_keep_frames_and_odd_sides(method):
    preprocessing = Preprocessing(modality="video")
    found, left_out = codecs.classical_codecs(preprocessing)
    if method in left_out:
        pytest.skip(left_out[method])
    rows, columns = np.mgrid[:65, :81]
    frames = [np.stack([np.sin((rows + t) / 5) + np.cos((columns - k) / 7) for k in range(3)]) for t in range(10)]
    clip = torch.from_numpy((np.stack(frames, axis=1) * 0.2 + 0.5).astype(np.float32))[None]
    points = []
    for codec in [codec for codec in found if codec.method == method][::4]:
        num_bytes, payload = codec.compress(clip)
        restored = codec.restore(payload, clip)
        assert restored.shape == clip.shape
        points.append((num_bytes, float((restored - clip).square().mean())))
    assert points[0][0] > points[-1][0] and points[0][1] < points[-1][1] < 0.01


def test_rounded_coordinates_lose_at_most_half_a_step():
    atoms = torch.randn(1, 30, 5, 3, generator=torch.Generator().manual_seed(0)) * 10
    atoms[0, 3, 2] = torch.nan
    found, _ = codecs.classical_codecs(Preprocessing(modality="structure"))
    for codec in found:
        num_bytes, payload = codec.compress(atoms)
        restored = codec.restore(payload, atoms)
        assert float((restored - atoms)[:, :, :3].nan_to_num().abs().max()) <= codec.step / 2 + 1e-4
        assert torch.equal(restored[:, :, :3].isnan(), atoms[:, :, :3].isnan())
        extent = atoms[0, :, :3].flatten(0, 1)
        extent = extent.nan_to_num(-1e9).amax(0) - extent.nan_to_num(1e9).amin(0)
        values = [round(float(length) / codec.step) + 2 for length in extent]
        assert abs(num_bytes - 90 * sum(np.log2(values)) / 8) <= 90 * 3 / 8 + 1
