"""Candidates and metrics of one's own, the table as a file, and several results as one."""

import csv
import json
import sys

import pytest
import soundfile
import torch
from typer.testing import CliRunner

import zoo
from tests.support.bench import voice
from zoo.bench import Benchmark, Candidate, bench, merge, write_csv, write_latex
from zoo.bench.results import Results
from zoo.cli import app
from zoo.errors import InputError, MediaError
from zoo.metrics import Metric

MODULE = """
import torch
import zoo
from zoo.metrics import Metric


class Averages(zoo.bench.Candidate):
    modality = "image"

    def __init__(self, step=8):
        super().__init__("averages", {"step of blocks": step})
        self.step = step

    def compress(self, signal):
        small = torch.nn.functional.avg_pool2d(signal, self.step).mul(255).round().byte()
        return small.numel(), small

    def restore(self, payload, like):
        return torch.nn.functional.interpolate(payload / 255, size=like.shape[2:])

    def identity(self):
        return f"averages 1.0, {self.step}"


def every_step():
    return [Averages(4), Averages(8)]


def worst(reconstruction, original, spec):
    return (reconstruction - original).abs().flatten(1).amax(dim=1)


greatest_error = Metric(name="greatest_error", label="Greatest error", higher_is_better=False, per_item=worst)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of one's own in the working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "my_codec.py").write_text(MODULE)
    monkeypatch.chdir(folder)
    yield "my_codec"
    sys.modules.pop("my_codec", None)


class Softer(Candidate):
    """Sound at half its level and 8 kHz, in 16 bits."""

    modality = "audio"
    sample_rate = 8000

    def __init__(self):
        super().__init__("softer")
        self.seen = []

    def compress(self, signal):
        self.seen.append(signal.shape)
        return 2 * signal.numel(), (signal * 32767).round().short()

    def restore(self, payload, like):
        return payload.float() / 32767 * 0.5

    def identity(self):
        return "softer 1"


def test_a_candidate_of_ones_own_needs_no_tokenizer(mine, image_folder, tmp_path):
    work = Benchmark(
        [], image_folder, candidates=[f"{mine}:every_step"], out=tmp_path / "out", metrics=["psnr"], baselines=False
    )
    fine, coarse = work.run().points
    assert [point.label for point in (fine, coarse)] == ["averages, step of blocks 4", "averages, step of blocks 8"]
    assert (fine.bytes, coarse.bytes) == (3 * 12 * 16, 3 * 6 * 8)
    assert fine.metrics["psnr"].value > coarse.metrics["psnr"].value


def test_a_candidate_is_compared_with_tokenizers_and_codecs(mine, tiny_wetok, image_folder, tmp_path):
    results = bench(
        ["tiny-wetok"], image_folder, candidates=[f"{mine}:Averages"], out=tmp_path / "out", metrics=["psnr"], limit=2
    )
    assert [point.method for point in results.points][:2] == ["tiny-wetok", "averages"]
    assert {"JPEG", "tiny-wetok"} <= {
        entry["reference"] for entry in results.comparisons if entry["method"] == "averages"
    }


def test_audio_reaches_a_candidate_at_its_own_rate_and_comes_back_at_the_common_one(tiny_wavtokenizer, tmp_path):
    (tmp_path / "sound").mkdir()
    soundfile.write(tmp_path / "sound" / "a.wav", voice(1.0, 24000)[0].numpy(), 24000)
    softer = Softer()
    results = bench(
        ["tiny-wavtokenizer"],
        tmp_path / "sound",
        candidates=[softer],
        out=tmp_path / "out",
        metrics=["si_sdr"],
        baselines=False,
    )
    assert set(softer.seen) == {torch.Size([1, 1, 8000])}
    point = results.points[-1]
    assert point.bytes == 16000 and point.rate == pytest.approx(128)
    assert point.metrics["si_sdr"].value > 10  # the level does not count, what is above 4 kHz does


def test_a_metric_of_ones_own_is_computed_anew_in_every_run(mine, tiny_wetok, image_folder, tmp_path, monkeypatch):
    options = {"out": tmp_path / "out", "metrics": ["psnr"], "own_metrics": [f"{mine}:greatest_error"]}
    first = bench(["tiny-wetok"], image_folder, baselines=False, **options)
    assert 0 < first.points[0].metrics["greatest_error"].value <= 1
    monkeypatch.setattr(sys.modules[mine], "worst", None)
    changed = Metric(
        name="greatest_error",
        label="Greatest error",
        higher_is_better=False,
        per_item=lambda reconstruction, original, spec: torch.full((1,), 7.0),
    )
    second = bench(["tiny-wetok"], image_folder, baselines=False, **{**options, "own_metrics": [changed]})
    assert second.points[0].metrics["greatest_error"].value == 7
    assert second.points[0].metrics["psnr"] == first.points[0].metrics["psnr"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_codec", "expected package.module:name, got 'my_codec'"),
        ("no_such_module:Codec", "no module 'no_such_module'"),
        ("my_codec:Average", "no 'Average' in my_codec; it has .*Averages"),
        ("my_codec:MODULE", "no 'MODULE' in my_codec"),
        ("my_codec:greatest_error", "expected a zoo.bench.Candidate, got Metric"),
    ],
)
def test_what_is_no_candidate_is_refused(mine, image_folder, tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        Benchmark([], image_folder, candidates=[name], out=tmp_path)


def test_two_candidates_of_one_name_are_refused(mine, image_folder, tmp_path):
    with pytest.raises(InputError, match="two candidates are called 'averages, step of blocks 8'"):
        Benchmark([], image_folder, candidates=[f"{mine}:Averages", f"{mine}:every_step"], out=tmp_path)


def test_a_metric_that_is_called_as_one_of_zoos_is_refused(tiny_wetok, image_folder, tmp_path):
    metric = Metric(name="psnr", label="PSNR", higher_is_better=True, per_item=lambda x, y, spec: x.new_zeros(1))
    with pytest.raises(InputError, match="zoo already has a metric called 'psnr'"):
        Benchmark(["tiny-wetok"], image_folder, own_metrics=[metric], out=tmp_path)


def test_a_candidate_that_returns_another_size_fails_on_its_file(mine, image_folder, tmp_path):
    class Wrong(Softer):
        modality, sample_rate = "image", None

        def restore(self, payload, like):
            return like[..., :-1]

    with pytest.raises(MediaError, match=r"softer: expected \[1, 3, 48, 64\] back, got \[1, 3, 48, 63\]"):
        bench([], image_folder, candidates=[Wrong()], out=tmp_path / "out", baselines=False)


def test_the_command_takes_ones_own_and_writes_the_table(mine, image_folder, tmp_path):
    options = ["--data", image_folder, "--out", tmp_path / "out", "--metrics", "psnr", "--no-baselines"]
    own = ["--candidate", f"{mine}:every_step", "--metric", f"{mine}:greatest_error"]
    tables = ["--csv", tmp_path / "table.csv", "--latex", tmp_path / "table.tex"]
    result = CliRunner().invoke(app, ["bench", *map(str, [*options, *own, *tables])])
    assert result.exit_code == 0, result.output
    assert "averages, step of blocks 4" in result.stdout and "Greatest error" in result.stdout
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    results = Results.load(tmp_path / "out" / "results.json")
    assert [float(row["psnr"]) for row in rows] == [point.metrics["psnr"].value for point in results.points]
    assert json.loads(rows[1]["setting"]) == {"step of blocks": 8} and rows[0]["psnr_undefined"] == "0"
    assert r"\textbf{" in (tmp_path / "table.tex").read_text()


# Tables


def test_latex_escapes_what_it_would_read_as_commands(tiny_wetok, image_folder, tmp_path):
    metric = Metric(
        name="odd", label="50 % & a_b", unit="°", higher_is_better=False, per_item=lambda x, y, spec: x.new_zeros(1)
    )
    options = {"out": tmp_path / "out", "metrics": [], "own_metrics": [metric], "limit": 1}
    results = bench(["tiny-wetok"], image_folder, baselines=False, **options)
    write_latex(results, tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    assert r"50 \% \& a\_b (\textdegree{}) $\downarrow$" in text
    assert text.count(r"\\") == 2 and text.startswith(r"\begin{tabular}{lrr}")


def test_csv_counts_the_files_that_a_metric_has_no_figure_for(tiny_wetok, image_folder, tmp_path):
    def only_bright(reconstruction, original, spec):
        return original.mean(dim=(1, 2, 3)).masked_fill(original[:, 0, 0, 0] < 0.5, torch.nan)

    metric = Metric(name="bright", label="Bright", higher_is_better=True, per_item=only_bright)
    options = {"out": tmp_path / "out", "metrics": [], "own_metrics": [metric], "baselines": False}
    results = bench(["tiny-wetok"], image_folder, **options)
    write_csv(results, tmp_path / "table.csv")
    (row,) = csv.DictReader((tmp_path / "table.csv").open())
    dark = sum(float(zoo.media.load_image(path)[0, 0, 0]) < 0.5 for path in image_folder.iterdir())
    assert int(row["bright_undefined"]) == results.points[0].metrics["bright"].undefined == dark


# Several results as one


def test_merged_results_are_those_of_one_run(mine, tiny_wetok, image_folder, tmp_path):
    options = {"metrics": ["psnr"], "baselines": False, "limit": 3}
    one = bench(["tiny-wetok"], image_folder, out=tmp_path / "one", **options)
    two = bench([], image_folder, candidates=[f"{mine}:every_step"], out=tmp_path / "two", **options)
    whole = bench(["tiny-wetok"], image_folder, candidates=[f"{mine}:every_step"], out=tmp_path / "whole", **options)
    command = ["bench", "merge", str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "both" / "of")]
    result = CliRunner().invoke(app, [*command, "--data", str(image_folder)])
    assert result.exit_code == 0, result.output
    merged = Results.load(tmp_path / "both" / "of" / "results.json")
    assert [point.label for point in merged.points] == [point.label for point in whole.points]
    assert [point.metrics for point in merged.points] == [point.metrics for point in one.points + two.points]
    assert len(merged.comparisons) == len(whole.comparisons) > len(one.comparisons)
    for point in merged.points:
        assert all((tmp_path / "both" / "of" / item.reconstruction).is_file() for item in point.items)
    assert "Cannot be shown" not in (tmp_path / "both" / "of" / "report.html").read_text()


def test_results_of_other_files_or_settings_cannot_be_merged(tiny_wetok, image_folder, tmp_path):
    options = {"baselines": False}
    bench(["tiny-wetok"], image_folder, out=tmp_path / "one", metrics=["psnr"], **options)
    bench(["tiny-wetok"], image_folder, out=tmp_path / "fewer", metrics=["psnr"], limit=2, **options)
    bench(["tiny-wetok"], image_folder, out=tmp_path / "small", metrics=["psnr"], resolution=32, **options)
    bench(["tiny-wetok"], image_folder, out=tmp_path / "other", metrics=["ssim"], **options)
    for name, what in (("fewer", "number of files"), ("small", "preprocessing"), ("other", "set of metrics")):
        with pytest.raises(InputError, match=f"another {what} than in"):
            merge([tmp_path / "one", tmp_path / name], tmp_path / "out")
    with pytest.raises(InputError, match="expected at least two results to merge, got 1"):
        merge([tmp_path / "one"], tmp_path / "out")
