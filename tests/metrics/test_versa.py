"""Scores of VERSA by its command, for which a script stands in that takes the same options and files."""

import math
import os
import sys

import pytest
import soundfile
import torch

from tests.support.bench import voice
from zoo.bench import bench
from zoo.errors import InputError, WeightsUnavailableError, ZooError
from zoo.metrics.versa import score_of, versa_metric
from zoo.spec import TokenizerSpec

COMMAND = """#!{python}
import argparse
import json
import sys

import soundfile

options = argparse.ArgumentParser()
for name in ("score_config", "pred", "gt", "output_file", "io"):
    options.add_argument(f"--{{name}}", required=True)
options = options.parse_args()
assert options.io == "soundfile"
with open({log!r}, "a") as log:
    log.write("run\\n")
config = json.load(open(options.score_config))
if config[0]["name"] == "broken":
    print("loading", file=sys.stderr)
    sys.exit("no such network")
pairs = [dict(line.split(maxsplit=1) for line in open(name)) for name in (options.pred, options.gt)]
with open(options.output_file, "w") as out:
    for key, path in pairs[0].items():
        (first, rate), (second, _) = (soundfile.read(name.strip()) for name in (path, pairs[1][key]))
        if len(first) / rate < 0.1:
            continue
        score = float(abs(first - second).max())
        out.write(f"{{{{'key': {{key!r}}, 'rate': {{rate}}, 'worst': {{score}}, 'text': 'a, b'}}}}\\n")
"""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Puts the command on the path; the file that has a line a run."""
    log = tmp_path / "runs"
    log.touch()
    command = tmp_path / "bin" / "versa-score"
    command.parent.mkdir()
    command.write_text(COMMAND.format(python=sys.executable, log=str(log)))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    return log


def audio_spec(sample_rate=16000):
    return TokenizerSpec(
        modality="audio",
        quantizer="VQ",
        codebook_sizes=(2,),
        downsample=(320,),
        channels=1,
        sample_rate=sample_rate,
        code_license="MIT",
        weights_license="MIT",
        paper="",
        source="",
    )


def worst():
    return versa_metric("worst", [{"name": "worst"}], higher_is_better=False)


def pairs(number, samples=4000, channels=1):
    originals = torch.rand(number, channels, samples, generator=torch.Generator().manual_seed(0)) - 0.5
    return originals * 0.5, originals


def test_the_mean_is_over_files_channels_and_merged_parts_and_each_part_is_scored_once(runs):
    reconstructions, originals = pairs(6, channels=2)
    parts = [worst().streaming(audio_spec()) for _ in range(2)]
    for number in range(6):
        parts[number % 2].update(reconstructions[number : number + 1], originals[number : number + 1])
    for _ in range(2):
        whole = worst().streaming(audio_spec())
        for part in parts:
            whole.merge_state(part)
        expected = (reconstructions - originals).abs().amax(dim=2).mean()
        assert whole.compute().item() == pytest.approx(expected.item(), abs=1e-6)
    assert runs.read_text().count("run") == 2


def test_files_that_versa_leaves_out_do_not_count(runs):
    metric = worst().streaming(audio_spec())
    metric.update(*pairs(1, samples=1000))
    assert math.isnan(metric.compute().item())
    metric.update(*pairs(2))
    reconstructions, originals = pairs(2)
    assert metric.compute().item() == pytest.approx((reconstructions - originals).abs().amax(dim=2).mean().item())


def test_the_command_gets_the_tokenizers_rate(runs):
    metric = versa_metric("rate", [{"name": "worst"}], higher_is_better=None).streaming(audio_spec(22050))
    metric.update(*pairs(1))
    assert metric.compute().item() == 22050


def test_a_bench_takes_it_as_a_metric_of_ones_own(runs, tiny_wavtokenizer, tmp_path):
    (tmp_path / "sound").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / "sound" / f"{number}.wav", voice(0.5, 24000)[0].numpy(), 24000)
    results = bench(
        ["tiny-wavtokenizer"],
        tmp_path / "sound",
        out=tmp_path / "out",
        metrics=["si_sdr"],
        own_metrics=[worst()],
        baselines=False,
    )
    assert results.points[0].metrics["versa_worst"].value > 0
    assert results.metrics["versa_worst"]["settings"] == {"config": [{"name": "worst"}]}


def test_what_the_command_says_when_it_fails_is_told(runs):
    metric = versa_metric("worst", [{"name": "broken"}], higher_is_better=False).streaming(audio_spec())
    metric.update(*pairs(1))
    with pytest.raises(ZooError, match="versa-score failed with exit status 1: no such network"):
        metric.compute()


def test_a_score_that_versa_does_not_give_is_an_error_with_what_it_gave(runs):
    metric = versa_metric("utmos", [{"name": "worst"}], higher_is_better=True).streaming(audio_spec())
    metric.update(*pairs(1))
    with pytest.raises(ZooError, match=r"no score 'utmos'.*'worst'"):
        metric.compute()


def test_without_the_command_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "pip install git+https://github.com/wavlab-speech/versa" in worst().missing()
    metric = worst().streaming(audio_spec())
    metric.update(*pairs(1))
    with pytest.raises(WeightsUnavailableError, match="needs the command versa-score"):
        metric.compute()


@pytest.mark.parametrize(("score", "config"), [("", [{"name": "stoi"}]), ("stoi", []), ("stoi", [{"nome": "stoi"}])])
def test_a_configuration_that_versa_cannot_have_is_an_error(score, config):
    with pytest.raises(InputError, match="expected"):
        versa_metric(score, config, higher_is_better=True)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("{'key': 'a', 'stoi': 0.5, 'pesq': 2}", 0.5),
        ('{"key": "a", "pesq": 2, "stoi": 5e-1}', 0.5),
        ("{'key': 'a', 'stoi': np.float64(0.5)}", 0.5),
        ("{'key': 'a', 'stoi': nan}", math.nan),
        ("{'key': 'a', 'stoi': 'low'}", math.nan),
        ("{'key': 'a', 'estoi': 0.5}", math.nan),
    ],
)
def test_a_score_is_read_from_a_line_as_python_or_json_writes_it(line, value):
    assert score_of(line, "stoi") == pytest.approx(value, nan_ok=True)
