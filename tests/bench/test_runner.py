"""The benchmark: true bytes, alignment of the codecs, the cache, damaged files, and the statistics."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import torchmetrics
from PIL import Image
from typer.testing import CliRunner

import zoo
from zoo import media
from zoo.bench import baselines as codecs
from zoo.bench.candidates import Source, TokenizerCandidate, doublings
from zoo.bench.results import Results
from zoo.bench.runner import Benchmark, bench
from zoo.bench.signals import LOSSLESS_SUFFIX, Preprocessing, Signal
from zoo.bench.statistics import Curve, bd_metric, bd_rate, bootstrap_interval, jackknife_interval, rate_at
from zoo.cli import app
from zoo.codes import load_codes, pack
from zoo.errors import InputError, MediaError
from zoo.metrics import METRICS, Metric

RATE = 24000


@pytest.fixture
def pictures(tmp_path):
    """Four pictures of 48 by 64 pixels, and one that is damaged."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows, columns = np.mgrid[:48, :64]
    for number in range(4):
        waves = [np.sin(rows / (3 + number)) + np.cos(columns / (5 + k)) for k in range(3)]
        Image.fromarray((np.stack(waves, axis=-1) * 60 + 128).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def damage(folder):
    (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:200])


def voice(seconds=2.0, rate=RATE, seed=0):
    """Harmonics of a gliding pitch in syllables, with noise: `[1, samples]`."""
    time = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time)) / rate
    harmonics = sum(np.sin(k * phase) / k for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time), 0, None) ** 0.5
    noise = np.random.default_rng(seed).normal(size=len(time)) * 0.02
    return torch.from_numpy((0.2 * syllables * (harmonics + noise)).astype(np.float32))[None]


def run(name, folder, out, **options):
    return bench([name], folder, out=out, **{"baselines": False, "metrics": ["psnr"], **options})


def encode_times(results):
    return [[item.encode_seconds for item in point.items] for point in results.points]


def written(out):
    """When each reconstruction and each file of codes was written."""
    return {path: path.stat().st_mtime_ns for path in (out / "cache").rglob("*") if path.suffix in (".png", ".npz")}


# Results


def test_bytes_are_those_of_the_packed_codes(tiny_wetok, pictures, tmp_path):
    results = run("tiny-wetok", pictures, tmp_path / "out")
    (point,) = results.points
    for item in point.items:
        codes = load_codes((tmp_path / "out" / item.reconstruction).with_suffix(".npz")).codes
        assert torch.equal(codes, tiny_wetok.encode(media.load_image(pictures / item.source)[None]))
        assert item.bytes == len(pack(codes, tiny_wetok.spec.codebook_sizes)) == 12 * 16 * 2
    assert point.rate == 8 * point.bytes / (48 * 64)
    assert point.codes["tokens"] == 12 * 16 * 2
    assert [sum(counts) for counts in point.codes["histogram"]] == [4 * 12 * 16] * 2


def test_figures_are_those_of_the_reconstructions_that_are_kept(tiny_wetok, pictures, tmp_path):
    results = run("tiny-wetok", pictures, tmp_path / "out")
    for item in results.points[0].items:
        original = media.load_image(pictures / item.source)
        kept = media.load_image(tmp_path / "out" / item.reconstruction)
        assert (tiny_wetok.reconstruct(original[None])[0] - kept).abs().max() <= 0.5001 / 255
        assert item.metrics["psnr"] == pytest.approx(float(-10 * (kept - original).square().mean().log10()), abs=1e-4)
    figures = [item.metrics["psnr"] for item in results.points[0].items]
    interval = results.points[0].metrics["psnr"]
    assert interval.value == pytest.approx(np.mean(figures))
    assert min(figures) <= interval.low <= interval.value <= interval.high <= max(figures)


def test_results_come_back_from_their_file(tiny_wetok, pictures, tmp_path):
    results = run("tiny-wetok", pictures, tmp_path / "out", baselines=True, limit=2)
    assert Results.load(tmp_path / "out" / "results.json") == results
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert {entry["reference"] for entry in results.comparisons} >= {"JPEG", "WebP"}
    assert results.variants["tiny-wetok"]["weights_sha256"] in results.points[0].identity
    assert results.machine["threads"] == torch.get_num_threads() and results.versions["torch"]


# The cache


def test_a_second_run_encodes_nothing(tiny_wetok, pictures, tmp_path):
    first = run("tiny-wetok", pictures, tmp_path / "out", baselines=True, limit=2)
    before = written(tmp_path / "out")
    second = run("tiny-wetok", pictures, tmp_path / "out", baselines=True, limit=2)
    assert written(tmp_path / "out") == before
    assert encode_times(second) == encode_times(first)  # measured anew, they would differ
    assert second == first


def test_another_metric_encodes_nothing(tiny_wetok, pictures, tmp_path):
    run("tiny-wetok", pictures, tmp_path / "out")
    before = written(tmp_path / "out")
    results = run("tiny-wetok", pictures, tmp_path / "out", metrics=["ssim"])
    assert written(tmp_path / "out") == before
    assert list(results.metrics) == ["ssim"] and results.points[0].metrics["ssim"].value is not None


def test_an_interrupted_run_goes_on(tiny_wetok, pictures, tmp_path):
    steps = iter(range(3))

    def interrupt():
        if next(steps, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Benchmark(["tiny-wetok"], pictures, out=tmp_path / "out", baselines=False).run(interrupt)
    before = written(tmp_path / "out")
    assert len(before) == 8 and not (tmp_path / "out" / "results.json").exists()
    next((tmp_path / "out" / "cache").rglob("*.json")).unlink()  # as if it had been killed before the record
    results = run("tiny-wetok", pictures, tmp_path / "out")
    after = written(tmp_path / "out")
    assert sum(after[path] == time for path, time in before.items()) == 6
    assert len(results.points[0].items) == 4


def test_what_changed_is_encoded_again(tiny_wetok, pictures, tmp_path):
    first = run("tiny-wetok", pictures, tmp_path / "out")
    Image.fromarray(np.full((48, 64, 3), 200, np.uint8)).save(pictures / "2.png")
    second = run("tiny-wetok", pictures, tmp_path / "out")
    same = [a == b for a, b in zip(first.points[0].items, second.points[0].items, strict=True)]
    assert same == [True, True, False, True]
    assert second.data["sha256"] != first.data["sha256"]


# Files and candidates that fail


def test_a_damaged_file_is_reported_and_the_rest_goes_on(tiny_wetok, pictures, tmp_path):
    whole = run("tiny-wetok", pictures, tmp_path / "out")
    damage(pictures)
    results = run("tiny-wetok", pictures, tmp_path / "out")
    assert list(results.damaged) == ["damaged.png"] and "damaged.png" in results.damaged["damaged.png"]
    assert results.data["files"] == 4 and results.points == whole.points


def test_no_good_file_is_an_error(tiny_wetok, pictures, tmp_path):
    damage(pictures)
    with pytest.raises(MediaError, match="none of its files can be used"):
        run("tiny-wetok", pictures / "damaged.png", tmp_path / "out")


def test_a_full_cache_is_no_damaged_file(tiny_wetok, pictures, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(MediaError, match="cannot be made"):
        run("tiny-wetok", pictures, tmp_path / "out", cache=tmp_path / "cache")


def test_what_cannot_be_had_is_said_before_the_work(tiny_wetok, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    work = Benchmark(["tiny-wetok"], pictures, out=tmp_path / "out", metrics=["psnr", "lpips"], baselines=False)
    assert "vgg16" in work.left_out["LPIPS"]
    assert not (tmp_path / "out").exists()
    results = work.run()
    assert list(results.metrics) == ["psnr"] and "LPIPS" in results.left_out


def test_what_does_not_compare_is_refused(tiny_wetok, tiny_wavtokenizer, pictures, tmp_path):
    with pytest.raises(InputError, match="compare apart"):
        bench(["tiny-wetok", "tiny-wavtokenizer"], pictures, out=tmp_path)
    with pytest.raises(InputError, match="unknown image metric 'pesq'"):
        bench(["tiny-wetok"], pictures, out=tmp_path, metrics=["pesq"])
    with pytest.raises(zoo.UnknownTokenizerError):
        bench(["tiny-wetok", "no-such"], pictures, out=tmp_path)


# Candidates


def test_first_tokens_are_a_curve(install):
    like = "one-d-piece-s-256"
    tokenizer = install("tiny-piece", like, {}, zoo.info(like).builder.small)
    source = Source("tiny-piece")
    assert [setting["num_tokens"] for setting in source.settings] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert doublings(12) == [1, 2, 4, 8] and doublings(1) == []
    preprocessing = Preprocessing.of([tokenizer.spec], resolution=None, seconds=None)
    assert preprocessing.resolution == 256
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    whole = tokenizer.encode(image)
    for number in (1, 4, 256):
        candidate = TokenizerCandidate("tiny-piece", source, {"num_tokens": number}, preprocessing, 0)
        num_bytes, codes = candidate.compress(image)
        assert num_bytes == -(-number * 12 // 8) and torch.equal(codes, whole[:, :, :number])
        assert torch.equal(candidate.restore(codes, (256, 256)), source.tokenizer().decode(codes))


def test_a_tokenizer_of_another_rate_gives_back_the_length(tiny_wavtokenizer):
    preprocessing = Preprocessing(modality="audio", sample_rate=32000, channels=1)
    candidate = TokenizerCandidate("tiny", Source("tiny-wavtokenizer"), {}, preprocessing, 0)
    signal = voice(1.0, 32000)[None, :, :31111]
    _, codes = candidate.compress(signal)
    assert candidate.restore(codes, (31111,)).shape == signal.shape


# Codecs


@pytest.mark.parametrize("height, width", [(48, 64), (33, 47)])
def test_picture_codecs_get_better_with_bytes(height, width):
    found, _ = codecs.baselines(Preprocessing(modality="image"))
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 4) + np.cos(columns / (3 + k)) for k in range(3)])
    image = torch.from_numpy((waves * 0.2 + 0.5).astype(np.float32))[None]
    families = {}
    for codec in found:
        num_bytes, payload = codec.compress(image)
        restored = codec.restore(payload, (height, width))
        assert restored.shape == image.shape and 0 < num_bytes <= len(payload)
        families.setdefault(codec.family, []).append((num_bytes, float((restored - image).square().mean())))
    assert set(families) >= {"JPEG", "JPEG 4:4:4", "WebP"}
    for points in families.values():
        assert points[0][0] < points[-1][0] and points[0][1] > points[-1][1]


def test_payloads_are_what_the_containers_say():
    picture = Image.effect_noise((64, 64), 60).convert("RGB")
    webp, avif = io.BytesIO(), io.BytesIO()
    picture.save(webp, "WEBP")
    assert codecs.webp_payload(webp.getvalue()) in (
        int.from_bytes(webp.getvalue()[16:20], "little") + k for k in (0, 1)
    )
    if "AVIF" in Image.SAVE:
        picture.save(avif, "AVIF")
        file = avif.getvalue()
        start = file.index(b"mdat") - 4
        assert codecs.avif_payload(file) == int.from_bytes(file[start : start + 4], "big") - 8


SOUNDS, _ = codecs.baselines(Preprocessing(modality="audio", sample_rate=RATE, channels=1))


@pytest.mark.parametrize("codec", SOUNDS, ids=lambda codec: codec.label)
def test_sound_codecs_are_aligned_within_a_sample(codec):
    audio = voice(4.0)[None, :, : 4 * RATE - 123]
    num_bytes, file = codec.compress(audio)
    restored = codec.restore(file, (audio.shape[2],))
    assert restored.shape == audio.shape
    spectra = [np.fft.rfft(signal[0, 0].numpy(), 2 * audio.shape[2]) for signal in (restored, audio)]
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj())
    lag = int(correlation.argmax())
    assert min(lag, 2 * audio.shape[2] - lag) <= 1
    if "kbit/s" in codec.setting:  # Opus spends less on what is easy, and less than its own target
        assert 0.5 < 8 * num_bytes / 4 / 1000 / codec.setting["kbit/s"] < 1.15


def test_sound_bytes_are_those_of_the_packets():
    codec = next(codec for codec in SOUNDS if codec.family == "Vorbis")
    num_bytes, file = codec.compress(voice()[None])
    assert 0 < num_bytes < len(file) - 2000  # its headers hold kilobytes of codebooks
    codec = next(codec for codec in SOUNDS if codec.family == "MP3")
    num_bytes, file = codec.compress(voice()[None])
    assert 0 < len(file) - num_bytes < 1000


def test_a_rate_that_a_codec_does_not_take_is_resampled():
    found, _ = codecs.baselines(Preprocessing(modality="audio", sample_rate=22050, channels=2))
    audio = voice(1.0, 22050).repeat(2, 1)[None]
    codec = next(codec for codec in found if codec.family == "Opus")
    _, file = codec.compress(audio)
    assert codec.restore(file, (audio.shape[2],)).shape == audio.shape


@pytest.mark.parametrize("family", ["H.264", "H.265", "AV1"])
def test_video_codecs_keep_frames_and_odd_sides(family):
    preprocessing = Preprocessing(modality="video")
    found, left_out = codecs.baselines(preprocessing)
    if family in left_out:
        pytest.skip(left_out[family])
    rows, columns = np.mgrid[:65, :81]
    frames = [np.stack([np.sin((rows + t) / 5) + np.cos((columns - k) / 7) for k in range(3)]) for t in range(10)]
    clip = torch.from_numpy((np.stack(frames, axis=1) * 0.2 + 0.5).astype(np.float32))[None]
    points = []
    for codec in [codec for codec in found if codec.family == family][::4]:
        num_bytes, payload = codec.compress(clip)
        restored = codec.restore(payload, preprocessing.size(clip))
        assert restored.shape == clip.shape
        points.append((num_bytes, float((restored - clip).square().mean())))
    assert points[0][0] > points[-1][0] and points[0][1] < points[-1][1] < 0.01


def test_rounded_coordinates_lose_at_most_half_a_step():
    atoms = torch.randn(1, 30, 5, 3, generator=torch.Generator().manual_seed(0)) * 10
    atoms[0, 3, 2] = torch.nan
    found, _ = codecs.baselines(Preprocessing(modality="structure"))
    for codec in found:
        num_bytes, payload = codec.compress(atoms)
        restored = codec.restore(payload, (30,))
        assert float((restored - atoms)[:, :, :3].nan_to_num().abs().max()) <= codec.step / 2 + 1e-4
        assert torch.equal(restored[:, :, :3].isnan(), atoms[:, :, :3].isnan())
        extent = atoms[0, :, :3].flatten(0, 1)
        extent = extent.nan_to_num(-1e9).amax(0) - extent.nan_to_num(1e9).amin(0)
        values = [round(float(length) / codec.step) + 2 for length in extent]
        assert abs(num_bytes - 90 * sum(np.log2(values)) / 8) <= 90 * 3 / 8 + 1


@pytest.mark.parametrize("modality", ["image", "audio", "video", "structure"])
def test_what_is_kept_is_lossless(modality, tmp_path):
    preprocessing = Preprocessing(modality=modality, sample_rate=RATE, channels=1)
    draw = torch.Generator().manual_seed(0)
    shape = {"image": (1, 3, 9, 7), "audio": (1, 1, 999), "video": (1, 3, 5, 18, 10), "structure": (1, 8, 5, 3)}[
        modality
    ]
    values = torch.rand(shape, generator=draw)
    scale = {"image": 255, "video": 255, "audio": 32768}.get(modality, 1)
    values = (values * scale).round().clamp(max=scale - 1) / scale if scale > 1 else values * 50
    if modality == "structure":
        values[0, 2, 3], values[0, 5] = torch.nan, torch.nan
    signal = Signal(values, 25.0)
    path = tmp_path / f"kept{LOSSLESS_SUFFIX[modality]}"
    preprocessing.write(path, signal)
    torch.testing.assert_close(preprocessing.read(path, signal), values, rtol=0, atol=0, equal_nan=True)


# Sound and the terminal


def test_speech_beside_opus(tiny_wavtokenizer, tmp_path):
    folder = tmp_path / "sound"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", voice(1.0, 16000, number)[0].numpy(), 16000)
    results = bench(["tiny-wavtokenizer"], folder, out=tmp_path / "out", metrics=["mel_distance"], seconds=0.5)
    assert results.data["preprocessing"] == {"resolution": None, "sample_rate": RATE, "channels": 1, "seconds": 0.5}
    tokenizer, *others = results.points
    assert tokenizer.bytes == -(-38 * 6 // 8) and tokenizer.rate == pytest.approx(8 * tokenizer.bytes / 0.5 / 1000)
    assert {point.family for point in others} == {"Opus", "MP3", "Vorbis"}


def test_the_command_prints_a_table_and_fails_with_a_file(tiny_wetok, pictures, tmp_path):
    damage(pictures)
    options = ["--data", str(pictures), "--out", str(tmp_path / "out"), "--metrics", "psnr,ssim", "--no-baselines"]
    result = CliRunner().invoke(app, ["bench", "tiny-wetok", *options])
    assert result.exit_code == 1
    assert "tiny-wetok" in result.stdout and "PSNR (dB)" in result.stdout and "error: " in result.stderr
    result = CliRunner().invoke(app, ["bench", "tiny-wetok", *options, "--limit", "2", "--json"])
    assert result.exit_code == 0, result.output
    plain = json.loads(result.stdout)
    assert plain["points"][0]["bytes"] == 384 and plain["data"]["files"] == 2


# Statistics


def test_bd_rate_of_straight_lines_by_hand():
    """PSNR 20 + 10 log10(rate) and 3 dB more: the same figure takes 10 ** -0.3 of the rate."""
    rates = [1.0, 2.0, 5.0, 10.0]
    reference = Curve(rates, [20 + 10 * np.log10(rate) for rate in rates])
    better = Curve(rates, [23 + 10 * np.log10(rate) for rate in rates])
    assert bd_rate(better, reference) == pytest.approx(100 * (10**-0.3 - 1))
    assert bd_metric(better, reference) == pytest.approx(3)
    assert bd_rate(reference, better) == pytest.approx(100 * (10**0.3 - 1))
    assert rate_at(reference, 25.0) == pytest.approx(10**0.5)


def test_bd_figures_take_the_overlap_alone():
    """Log-rates 0 to 2 and 1 to 3, figures 0 to 2 and 2 to 4 at slope 1: apart by 1 where both are."""
    first, second = Curve([1, 10, 100], [0, 1, 2]), Curve([10, 100, 1000], [2, 3, 4])
    assert bd_metric(second, first) == pytest.approx(1)
    with pytest.raises(InputError, match="in common"):
        bd_rate(second, first)  # the figures touch in a point
    falling = Curve([1, 10, 100], [3, 2, 1])
    assert bd_rate(Curve([2, 20, 200], [3, 2, 1]), falling) == pytest.approx(100)


@pytest.mark.parametrize("curve", [Curve([1], [1]), Curve([1, 2, 3], [1, 3, 2]), Curve([1, 2], [1, 1])])
def test_what_is_no_curve_is_refused(curve):
    with pytest.raises(InputError):
        bd_rate(curve, Curve([1, 2, 3], [1, 2, 3]))


class Covariance(torchmetrics.Metric):
    """A figure of a set that is no mean of items: of the originals' and the reconstructions' values."""

    full_state_update = False

    def __init__(self):
        super().__init__(compute_with_cache=False)
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, reconstruction, original):
        x, y = reconstruction.double().mean(), original.double().mean()
        self.sums += torch.stack([torch.ones_like(x), x, y, x * y])

    def compute(self):
        count, x, y, products = self.sums
        return products / count - x * y / count**2


def test_a_figure_of_the_set_is_that_of_all_files_with_an_interval(tiny_wetok, pictures, tmp_path, monkeypatch):
    metric = Metric(name="set", label="Set", higher_is_better=True, of_set=lambda spec: Covariance())
    monkeypatch.setitem(METRICS["image"], "set", metric)
    (point,) = run("tiny-wetok", pictures, tmp_path / "out", metrics=["set"]).points
    whole = Covariance()
    for item in point.items:
        original = media.load_image(pictures / item.source)
        whole.update(media.load_image(tmp_path / "out" / item.reconstruction), original)
    interval = point.metrics["set"]
    assert interval.value == pytest.approx(float(whole.compute()), rel=1e-6)
    assert interval.low < interval.value < interval.high


def test_the_jackknife_of_a_mean_is_its_standard_error():
    class Mean(torchmetrics.MeanMetric):
        full_state_update = False

    values = np.random.default_rng(0).normal(5, 2, size=(10, 7))
    groups = [Mean() for _ in values]
    for group, items in zip(groups, values, strict=True):
        group.update(torch.from_numpy(items))
    interval = jackknife_interval(groups, Mean)
    error = values.mean(axis=1).std(ddof=1) / np.sqrt(10)
    assert interval.value == pytest.approx(values.mean(), rel=1e-5)
    assert interval.high - interval.value == pytest.approx(1.96 * error, rel=1e-4)
    assert interval.value - interval.low == pytest.approx(1.96 * error, rel=1e-4)
    assert jackknife_interval(groups[:1], Mean).low is None


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    covered = 0
    for number in range(300):
        interval = bootstrap_interval(draw.exponential(size=60).tolist(), seed=number, resamples=400)
        covered += interval.low <= 1 <= interval.high
    assert 0.88 <= covered / 300 <= 0.98
    assert bootstrap_interval([1.0, 2.0, None, 4.0], seed=1) == bootstrap_interval([1.0, 2.0, 4.0], seed=1)
    assert bootstrap_interval([3.0]).low is None and bootstrap_interval([None]).value is None
    assert bootstrap_interval([2.0, 2.0]).high == 2.0


# Memory


@pytest.mark.slow
def test_memory_stays_flat_from_10_to_100_items(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(100):
        small = Image.fromarray(draw.integers(0, 255, (8, 8, 3), np.uint8))
        small.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{number:03}.png")
    program = (
        "import sys, resource, zoo.bench.runner as r;"
        "r.bench(['wetok-nano'], sys.argv[1], out=sys.argv[2], limit=int(sys.argv[3]), metrics=['psnr', 'ssim']);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for limit in (10, 100):
        command = [sys.executable, "-c", program, str(folder), str(tmp_path / str(limit)), str(limit)]
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
        peaks.append(int(output.split()[-1]))
    assert peaks[1] < peaks[0] * 1.05 + 20_000, peaks  # KiB
