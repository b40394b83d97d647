"""Code files of a corpus, as `zoo decode` reads them."""

import json

import pytest
import torch

import zoo
from tests.support.corpora import LAYOUTS, SHARD, facts, rows
from zoo.codes import load_codes
from zoo.corpus import sinks
from zoo.corpus.rows import Facts, Row


@pytest.mark.parametrize("layout", LAYOUTS)
def test_items_are_code_files(layout, tmp_path):
    about = facts(layout)
    sinks.create("npz", tmp_path, about).write(SHARD, rows(layout))
    lines = (tmp_path / SHARD / "items.jsonl").read_text("utf-8").splitlines()
    for line, row in zip(lines, rows(layout), strict=True):
        fields = json.loads(line)
        file = load_codes(tmp_path / SHARD / fields["file"])
        assert torch.equal(file.codes[0], row.codes)
        assert (fields["id"], file.name, file.codebook_sizes) == (row.id, about.tokenizer, about.codebook_sizes)
        assert (file.size, file.frame_rate, file.pixel_aspect) == (row.size, row.frame_rate, row.pixel_aspect)
        assert file.options == about.options


def test_files_are_named_by_key(tmp_path):
    keys = ("a/b.flac", "a/b.wav", "../c.wav", "d")
    given = [Row("source", key, torch.zeros(3, 2, dtype=torch.int64), (640,)) for key in keys]
    sinks.create("npz", tmp_path, facts()).write(SHARD, given)
    found = sorted(str(path.relative_to(tmp_path / SHARD)) for path in tmp_path.rglob("*.npz"))
    assert found == ["_/c.npz", "a/b-2.npz", "a/b.npz", "d.npz"]


def test_zoo_decodes_the_folder(tiny_wavtokenizer, tmp_path):
    spec = tiny_wavtokenizer.spec
    about = Facts(spec.name, "0f", "audio", spec.codebook_sizes, spec.sample_rate, "MIT", {})
    given = [Row("source", f"{n}.wav", torch.zeros(1, 2, dtype=torch.int64), (500 + n,)) for n in range(2)]
    sink = sinks.create("npz", tmp_path / "tokens", about)
    sink.finish([sink.write("0", given)])
    results = list(zoo.decode_files([tmp_path / "tokens"], tmp_path / "out"))
    assert all(result.error is None for result in results)
    assert sorted(path.stem for path in (tmp_path / "out").rglob("*.wav")) == ["0", "1"]
