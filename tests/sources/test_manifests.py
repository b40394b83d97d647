"""Manifests: lists of files and excerpts."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import zoo
from tests.support.sources import contents, items_of, to_memory, write_files
from zoo import modalities
from zoo.errors import InputError, MediaError
from zoo.sources import open_source


def write_manifest(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_list_of_paths_is_read_in_its_order(tmp_path):
    write_files(tmp_path, "b 1.wav", "sub/ü.flac", "other.bin")
    names = ["b 1.wav", "sub/ü.flac", "other.bin", str(tmp_path / "b 1.wav")]
    manifest = tmp_path / "list.txt"
    manifest.write_bytes("\ufeff".encode() + "\r\n".join([*names, "", ""]).encode())
    shards = open_source(manifest, "audio", items_per_shard=3)
    assert [len(list(shard.items())) for shard in shards] == [3, 1]
    assert list(contents(shards)) == names
    assert [item.content for item in items_of(shards)] == [tmp_path / name for name in names]
    assert {item.source for item in items_of(shards)} == {str(manifest)}


def test_a_manifest_behind_fsspec_names_files_beside_it_and_elsewhere(tmp_path):
    write_files(tmp_path / "all", "a.wav", "sub/b.wav")
    local = write_files(tmp_path / "local", "c.wav") / "c.wav"
    (tmp_path / "all" / "list.txt").write_text(f"a.wav\nsub/b.wav\nmemory://all/a.wav\nfile://{local}\n")
    expected = {"a.wav": b"a.wav", "sub/b.wav": b"sub/b.wav", "memory://all/a.wav": b"a.wav"}
    expected[f"file://{local}"] = b"c.wav"
    assert contents(open_source(f"{to_memory(tmp_path / 'all')}/list.txt", "audio")) == expected


def test_start_and_duration_are_options_of_the_item(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 24000), 24000)
    lines = [{"path": "a.wav"}, {"path": "a.wav", "start": 0.25, "duration": 0.5, "speaker": 3}]
    lines += [{"path": "a.wav", "start": 0.5}, {"path": "a.wav", "duration": 1, "id": "one"}]
    items = items_of(open_source(write_manifest(tmp_path / "list.jsonl", *lines), "audio"))
    assert [item.key for item in items] == ["a.wav", "a.wav[0.25+0.5]", "a.wav[0.5+]", "one"]
    assert [item.options for item in items] == [{}, {"start": 0.25, "seconds": 0.5}, {"start": 0.5}, {"seconds": 1.0}]
    spec = zoo.info("wavtokenizer-nano").spec
    whole, excerpt = (modalities.get("audio").load(item.content, spec, **item.options).values for item in items[:2])
    assert torch.equal(excerpt, whole[:, 6000:18000])


def test_damaged_lines_are_items_with_a_problem_that_names_the_line(tmp_path):
    write_files(tmp_path, "a.wav")
    lines = [b'{"path": "a.wav"}', b'{"path": ', b"[1]", b'{"id": "x"}', b'{"path": "a.wav", "start": -1}']
    lines += [b'{"path": "a.wav", "duration": NaN}', b"\xff", b"[" * 100_000, b'{"path": "a.wav", "start": 1e999}']
    lines += [b'{"path": "a.wav", "id": 3}', b'{"path": "none.wav"}', b'{"path": "a\\u0000"}', b'{"path": "a.wav"}']
    (tmp_path / "list.jsonl").write_bytes(b"\n".join(lines))
    items = items_of(open_source(tmp_path / "list.jsonl", "audio"))
    named = {1: "a.wav", 11: "none.wav"}
    assert [item.key for item in items] == [named.get(number, f"line {number}") for number in range(1, 14)]
    problems = [item.problem or "" for item in items]
    for number, reason in (
        (2, "list.jsonl: line 2: expected an object in JSON"),
        (3, "expected an object with a path, got [1]"),
        (4, "expected path as text, got None"),
        (5, "expected start as seconds of at least 0, got -1"),
        (6, "expected duration as more than 0 seconds, got nan"),
        (7, "expected UTF-8, got byte 0xff"),
        (9, "expected start as seconds of at least 0, got inf"),
        (10, "expected id as text, got 3"),
        (11, "none.wav: cannot be read: No such file or directory"),
        (12, "expected path as text"),
        (13, "'a.wav' is in line 1 already"),
    ):
        assert reason in problems[number - 1]


def test_images_have_no_excerpts(tmp_path):
    write_files(tmp_path, "a.png")
    (item,) = items_of(open_source(write_manifest(tmp_path / "a.jsonl", {"path": "a.png", "start": 1}), "image"))
    assert "expected no start or duration, which images do not have" in item.problem


def test_a_manifest_without_lines_is_an_error(tmp_path):
    (tmp_path / "list.txt").write_text("\n\n")
    with pytest.raises(InputError, match="got no line"):
        open_source(tmp_path / "list.txt", "audio")
    (tmp_path / "secret.txt").mkdir()
    with pytest.raises(MediaError, match="holds no file"):
        open_source(tmp_path / "secret.txt", "audio")
