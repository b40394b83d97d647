"""The benchmark: true bytes, the cache, and files and candidates that fail."""

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
from tests.support.bench import voice
from zoo import media
from zoo.bench import Benchmark, bench
from zoo.bench.results import Results
from zoo.cli import app
from zoo.codes import load_codes, pack
from zoo.errors import InputError, MediaError
from zoo.metrics import METRICS, Metric

RATE = 24000


def damage(folder):
    (folder / "damaged.png").write_bytes((folder / "0.png").read_bytes()[:200])


def run(name, folder, out, **options):
    return bench([name], folder, out=out, **{"baselines": False, "metrics": ["psnr"], **options})


def encode_times(results):
    return [[item.encode_seconds for item in point.items] for point in results.points]


def written(out):
    """When each reconstruction and each file of codes was written."""
    return {path: path.stat().st_mtime_ns for path in (out / "cache").rglob("*") if path.suffix in (".png", ".npz")}


# Results


def test_bytes_are_those_of_the_packed_codes(tiny_wetok, image_folder, tmp_path):
    results = run("tiny-wetok", image_folder, tmp_path / "out")
    (point,) = results.points
    for item in point.items:
        codes = load_codes((tmp_path / "out" / item.reconstruction).with_suffix(".npz")).codes
        assert torch.equal(codes, tiny_wetok.encode(media.load_image(image_folder / item.source)[None]))
        assert item.bytes == len(pack(codes, tiny_wetok.spec.codebook_sizes)) == 12 * 16 * 2
    assert point.rate == 8 * point.bytes / (48 * 64)
    assert point.codes["tokens"] == 12 * 16 * 2
    assert [sum(counts) for counts in point.codes["histogram"]] == [4 * 12 * 16] * 2


def test_figures_are_those_of_the_reconstructions_that_are_kept(tiny_wetok, image_folder, tmp_path):
    results = run("tiny-wetok", image_folder, tmp_path / "out")
    for item in results.points[0].items:
        original = media.load_image(image_folder / item.source)
        kept = media.load_image(tmp_path / "out" / item.reconstruction)
        assert (tiny_wetok.reconstruct(original[None])[0] - kept).abs().max() <= 0.5001 / 255
        assert item.metrics["psnr"] == pytest.approx(float(-10 * (kept - original).square().mean().log10()), abs=1e-4)
    figures = [item.metrics["psnr"] for item in results.points[0].items]
    interval = results.points[0].metrics["psnr"]
    assert interval.value == pytest.approx(np.mean(figures))
    assert min(figures) <= interval.low <= interval.value <= interval.high <= max(figures)


def test_results_come_back_from_their_file(tiny_wetok, image_folder, tmp_path):
    results = run("tiny-wetok", image_folder, tmp_path / "out", baselines=True, limit=2)
    assert Results.load(tmp_path / "out" / "results.json") == results
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert {entry["reference"] for entry in results.comparisons} >= {"JPEG", "WebP"}
    assert results.variants["tiny-wetok"]["weights_sha256"] in results.points[0].identity
    assert results.machine["threads"] == torch.get_num_threads() and results.versions["torch"]


# The cache


def test_a_second_run_encodes_nothing(tiny_wetok, image_folder, tmp_path):
    first = run("tiny-wetok", image_folder, tmp_path / "out", baselines=True, limit=2)
    before = written(tmp_path / "out")
    second = run("tiny-wetok", image_folder, tmp_path / "out", baselines=True, limit=2)
    assert written(tmp_path / "out") == before
    assert encode_times(second) == encode_times(first)  # measured anew, they would differ
    assert second == first


def test_another_metric_encodes_nothing(tiny_wetok, image_folder, tmp_path):
    run("tiny-wetok", image_folder, tmp_path / "out")
    before = written(tmp_path / "out")
    results = run("tiny-wetok", image_folder, tmp_path / "out", metrics=["ssim"])
    assert written(tmp_path / "out") == before
    assert list(results.metrics) == ["ssim"] and results.points[0].metrics["ssim"].value is not None


def test_an_interrupted_run_goes_on(tiny_wetok, image_folder, tmp_path):
    steps = iter(range(3))

    def interrupt():
        if next(steps, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Benchmark(["tiny-wetok"], image_folder, out=tmp_path / "out", baselines=False).run(interrupt)
    before = written(tmp_path / "out")
    assert len(before) == 8 and not (tmp_path / "out" / "results.json").exists()
    next((tmp_path / "out" / "cache").rglob("*.json")).unlink()  # as if it had been killed before the record
    results = run("tiny-wetok", image_folder, tmp_path / "out")
    after = written(tmp_path / "out")
    assert sum(after[path] == time for path, time in before.items()) == 6
    assert len(results.points[0].items) == 4


def test_what_changed_is_encoded_again(tiny_wetok, image_folder, tmp_path):
    first = run("tiny-wetok", image_folder, tmp_path / "out")
    Image.fromarray(np.full((48, 64, 3), 200, np.uint8)).save(image_folder / "2.png")
    second = run("tiny-wetok", image_folder, tmp_path / "out")
    same = [a == b for a, b in zip(first.points[0].items, second.points[0].items, strict=True)]
    assert same == [True, True, False, True]
    assert second.data["sha256"] != first.data["sha256"]


# Files and candidates that fail


def test_a_damaged_file_is_reported_and_the_rest_goes_on(tiny_wetok, image_folder, tmp_path):
    whole = run("tiny-wetok", image_folder, tmp_path / "out")
    damage(image_folder)
    results = run("tiny-wetok", image_folder, tmp_path / "out")
    assert list(results.damaged) == ["damaged.png"] and "damaged.png" in results.damaged["damaged.png"]
    assert results.data["files"] == 4 and results.points == whole.points


def test_no_good_file_is_an_error(tiny_wetok, image_folder, tmp_path):
    damage(image_folder)
    with pytest.raises(MediaError, match="none of its files can be used"):
        run("tiny-wetok", image_folder / "damaged.png", tmp_path / "out")


def test_a_full_cache_is_no_damaged_file(tiny_wetok, image_folder, tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    with pytest.raises(MediaError, match="cannot be made"):
        run("tiny-wetok", image_folder, tmp_path / "out", cache=tmp_path / "cache")


def test_what_cannot_be_had_is_said_before_the_work(tiny_wetok, image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    work = Benchmark(["tiny-wetok"], image_folder, out=tmp_path / "out", metrics=["psnr", "lpips"], baselines=False)
    assert "vgg16" in work.left_out["LPIPS (VGG16)"]
    assert not (tmp_path / "out").exists()
    results = work.run()
    assert list(results.metrics) == ["psnr"] and "LPIPS (VGG16)" in results.left_out


def test_what_does_not_compare_is_refused(tiny_wetok, tiny_wavtokenizer, image_folder, tmp_path):
    with pytest.raises(InputError, match="compare them separately"):
        bench(["tiny-wetok", "tiny-wavtokenizer"], image_folder, out=tmp_path)
    with pytest.raises(InputError, match="unknown image metric 'pesq'"):
        bench(["tiny-wetok"], image_folder, out=tmp_path, metrics=["pesq"])
    with pytest.raises(zoo.UnknownTokenizerError):
        bench(["tiny-wetok", "no-such"], image_folder, out=tmp_path)


# Sound and the terminal


def test_speech_beside_opus(tiny_wavtokenizer, tmp_path):
    folder = tmp_path / "sound"
    folder.mkdir()
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", voice(1.0, 16000, number)[0].numpy(), 16000)
    results = bench(["tiny-wavtokenizer"], folder, out=tmp_path / "out", metrics=["mel_distance"], seconds=0.5)
    preprocessing = results.data["preprocessing"]
    assert [preprocessing[name] for name in ("resolution", "sample_rate", "channels", "seconds")] == [
        None,
        RATE,
        1,
        0.5,
    ]
    tokenizer, *others = results.points
    assert tokenizer.bytes == -(-38 * 6 // 8) and tokenizer.rate == pytest.approx(8 * tokenizer.bytes / 0.5 / 1000)
    assert {point.method for point in others} == {"Opus", "MP3", "Vorbis"}


def test_the_command_prints_a_table_and_fails_with_a_file(tiny_wetok, image_folder, tmp_path):
    damage(image_folder)
    options = ["--data", str(image_folder), "--out", str(tmp_path / "out"), "--metrics", "psnr,ssim", "--no-baselines"]
    result = CliRunner().invoke(app, ["bench", "tiny-wetok", *options])
    assert result.exit_code == 1
    assert "tiny-wetok" in result.stdout and "PSNR (dB)" in result.stdout and "error: " in result.stderr
    result = CliRunner().invoke(app, ["bench", "tiny-wetok", *options, "--limit", "2", "--json"])
    assert result.exit_code == 0, result.output
    plain = json.loads(result.stdout)
    assert plain["points"][0]["bytes"] == 384 and plain["data"]["files"] == 2


# Figures of the whole set


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


def test_a_figure_of_the_set_is_that_of_all_files_with_an_interval(tiny_wetok, image_folder, tmp_path, monkeypatch):
    metric = Metric(name="set", label="Set", higher_is_better=True, of_set=lambda spec: Covariance())
    monkeypatch.setitem(METRICS["image"], "set", metric)
    (point,) = run("tiny-wetok", image_folder, tmp_path / "out", metrics=["set"]).points
    whole = Covariance()
    for item in point.items:
        original = media.load_image(image_folder / item.source)
        whole.update(media.load_image(tmp_path / "out" / item.reconstruction), original)
    interval = point.metrics["set"]
    assert interval.value == pytest.approx(float(whole.compute()), rel=1e-6)
    assert interval.low < interval.value < interval.high


def test_a_figure_of_the_set_that_fails_is_left_out_and_the_rest_is_reported(
    tiny_wetok, image_folder, tmp_path, monkeypatch
):
    class Fails(Covariance):
        def compute(self):
            raise RuntimeError("the covariance is singular")

    metric = Metric(name="set", label="Set", higher_is_better=True, of_set=lambda spec: Fails())
    monkeypatch.setitem(METRICS["image"], "set", metric)
    results = run("tiny-wetok", image_folder, tmp_path / "out", metrics=["set", "psnr"])
    (point,) = results.points
    assert point.metrics["set"].value is None and point.metrics["psnr"].value > 0
    assert results.left_out == {
        f"Set of {point.label}": "cannot be computed: unexpected RuntimeError: the covariance is singular"
    }


# Memory


@pytest.mark.slow
def test_memory_stays_flat_from_10_to_100_items(tmp_path):
    folder = tmp_path / "images"
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
