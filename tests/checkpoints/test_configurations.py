"""Saved configurations, names, devices and data types that no one should give: one clean error each, nothing read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo

WRONG = [
    ("architecture", None, "expected architecture as a name"),
    ("architecture", ["WeTok"], "expected architecture as a name"),
    ("spec", [], "expected spec as named values"),
    ("config", "width", "expected config as named values"),
    ("spec.modality", "smell", "expected modality among"),
    ("spec.modality", 3, "expected modality as str"),
    ("spec.codebook_sizes", [], "expected a spec with codebook_sizes, got none"),
    ("spec.codebook_sizes", [0], "expected codebook_sizes as a sequence, each item an integer of at least 1"),
    ("spec.codebook_sizes", "256", "expected codebook_sizes"),
    ("spec.codebook_sizes", [256.0], "expected codebook_sizes"),
    ("spec.downsample", [4], r"expected downsample as \(height, width\)"),
    ("spec.downsample", [4, -4], "expected downsample"),
    ("spec.resolution", "256x256", "expected resolution"),
    ("spec.resolution", [256], "expected resolution"),
    ("spec.channels", True, "expected channels as an integer"),
    ("spec.channels", 2**70, "expected channels as an integer"),
    ("spec.causal", 1, "expected causal as bool"),
    ("spec.smell", 1, "spec of TokenizerSpec: has an unknown key 'smell'"),
    ("spec.paper", ..., "spec of TokenizerSpec: has no 'paper'"),
    ("config.width", 0, "WeTok"),
    ("config.width", -32, "expected width as an integer of at least 0, got -32"),
    ("config.width", "32", "expected width as an integer of at least 0, got '32'"),
    ("config.width", 32.0, "expected width as an integer"),
    ("config.width", 2**70, "expected width as an integer"),
    ("config.multipliers", [], ""),
    ("config.multipliers", ["1"], "expected multipliers"),
    ("config.multipliers", {"a": 1}, "expected multipliers"),
    ("config.temperature", float("nan"), "expected temperature as a finite number"),
    ("config.generative", None, "expected generative as bool"),
    ("config.rotary", 1, "has an unknown key 'rotary'"),
    ("config.multipliers", ..., "has no 'multipliers'"),
    ("config.num_blocks", 10**9, "expected num_blocks as an integer of at most 1,048,576"),
    ("config.num_blocks", 10**5, "at most 5,000 modules and parameters"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_a_configuration_that_is_wrong_is_refused_with_file_and_key(tiny_wetok, tmp_path, key, value, message):
    tiny_wetok.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    part, _, field = key.partition(".")
    place, field = (saved[part], field) if field else (saved, part)
    place[field] = value
    if value is ...:
        del place[field]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(zoo.CheckpointError, match=rf"config\.json: .*{message}|is not a zoo tokenizer"):
        zoo.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downsample": [4, 8]}, r"codes are \[1, 2, 3, 6\], expected \[1, 2, 3, 3\] for signals of \(12, 24\)"),
        ({"downsample": [4, 1]}, "do not go together"),
        ({"num_tokens": 7}, r"codes are \[1, 2, 3, 3\], expected \[1, 2, 7\]"),
        ({"channels": 1}, "do not go together"),
        ({"downsample": [4, 2**20]}, "signals of at least .*, too large to try out"),
        ({"codebook_sizes": [256, 255]}, r"expected codebook_sizes \(256, 256\) of the quantizer, got \(256, 255\)"),
    ],
)
def test_a_spec_that_is_not_of_the_network_is_refused(tiny_wetok, tmp_path, change, message):
    tiny_wetok.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["spec"] |= change
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(zoo.CheckpointError, match=rf"config\.json: .*{message}"):
        zoo.load(tmp_path)


def test_a_spec_whose_padding_is_enormous_is_refused_before_anything_is_padded(tmp_path):
    zoo.create("emu3-vision-video", small=True).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["spec"]["downsample"] = [2**31 - 1, 8, 8]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(zoo.CheckpointError, match="too large to try out"):
        zoo.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"",
        b"\xff\xfe",
        b"9" * 10_000,
        b"null",
        b'{"architecture": "WeTok", "spec": ' + b"[" * 900 + b"]" * 900 + b', "config": {}}',
    ],
)
def test_a_configuration_that_is_no_json_for_people_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(zoo.CheckpointError, match=str(tmp_path)):
        zoo.load(tmp_path)


SIZES = """
import dataclasses, json, resource, sys
import zoo
from zoo import registry
registry.info("wetok"), registry.info("titok-l-32")
from zoo import saved
for name, config, spec in (
    ("wetok-imagenet-f16", {"width": 1_000_000}, {}),
    ("titok-l-32", {"width": 1_000_000}, {}),
    ("titok-l-32", {}, {"codebook_sizes": (2**40,)}),
):
    variant = registry.info(name)
    variant = dataclasses.replace(
        variant, config={**variant.config, **config}, spec=dataclasses.replace(variant.spec, **spec)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    saved.network_of(variant)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_networks_of_absurd_sizes_are_built_without_their_memory():
    output = subprocess.run([sys.executable, "-c", SIZES], check=True, capture_output=True, text=True).stdout
    assert max(map(int, output.split())) < 600  # MiB


NAMES = [
    "x" * 10_000,
    "x/" + "y" * 10_000,
    "wetok\0",
    "wetok\n",
    "we\x1b[31mtok",
    "",
    ".",
    "..",
    "../..",
    "~",
    b"wetok",
    None,
    5,
    ["wetok"],
    {"wetok": 1},
    Path("/"),
    Path("/nowhere"),
    Path("x" * 10_000),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_a_name_that_stands_for_nothing_is_refused(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    accepted = (zoo.InputError, zoo.UnknownTokenizerError, zoo.CheckpointError, zoo.WeightsUnavailableError)
    for load in (zoo.load, zoo.Tokenizer.from_pretrained):
        with pytest.raises(accepted) as caught:
            load(name)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", [b"wetok", None, 5, ["wetok"]])
def test_what_is_no_name_is_refused_by_the_registry_and_by_pull(name):
    for ask in (zoo.info, zoo.pull, zoo.create):
        with pytest.raises(zoo.InputError, match=r"expected .*name"):
            ask(name)


@pytest.mark.parametrize("device", ["warp", "", "cuda:99", "meta", None, 3.5, b"cpu", torch.device("meta"), "cpu:x"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(device):
    for load in (zoo.load, zoo.Tokenizer.from_pretrained):
        with pytest.raises(zoo.InputError, match=r"device .* cannot be used: "):
            load("no-such-name/at-all", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_cuda_without_a_device_is_refused():
    with pytest.raises(zoo.InputError, match="device 'cuda' cannot be used"):
        zoo.load("wetok-nano", device="cuda")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, "float32", 32, float])
def test_a_data_type_that_networks_do_not_run_in_is_refused_before_anything_is_read(dtype):
    for load in (zoo.load, zoo.Tokenizer.from_pretrained):
        with pytest.raises(zoo.InputError, match=r"expected dtype among torch\.float32"):
            load("no-such-name/at-all", dtype=dtype)


UNREADABLE = """
import os, sys
import zoo
from zoo import saved, Tokenizer
try:
    zoo.load("/nowhere")
except zoo.CheckpointError:
    pass
os.setuid(65534)
try:
    zoo.load(sys.argv[1])
except zoo.CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    folder.chmod(0)
    for parent in (tmp_path, *tmp_path.parents[:-1]):
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    command = [sys.executable, "-c", UNREADABLE, str(folder)]
    output = subprocess.run(command, capture_output=True, text=True)
    assert f"{folder}" in output.stdout and "Permission denied" in output.stdout, output.stderr
