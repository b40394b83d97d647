"""Corpora as data sets: loaded from a folder, pushed to a Hub, loaded from there."""

import re

import datasets
import pytest
import torch
from huggingface_hub import DatasetCard, snapshot_download

from tests.support.corpora import LAYOUTS, facts, rows
from zoo.corpus import sinks
from zoo.corpus.rows import Facts, Row
from zoo.errors import InputError, PublishError


def written(folder, layout="residual audio", shards=("0", "test-1")):
    sink = sinks.create("huggingface", folder, facts(layout))
    sink.finish([sink.write(shard, rows(layout)) for shard in shards])
    return folder


def check(table, layout="residual audio", times=2):
    assert list(table) == ["train"]
    for fields, row in zip(table["train"], [*rows(layout)] * times, strict=True):
        assert torch.equal(torch.tensor(fields["codes"]).reshape(-1, *fields["grid"]), row.codes)
        assert (fields["id"], tuple(fields["size"])) == (row.id, row.size)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_datasets_loads_the_folder(layout, tmp_path):
    written(tmp_path / "tokens", layout)
    (tmp_path / "tokens" / "manifest.json").write_text("{}")
    check(datasets.load_dataset(str(tmp_path / "tokens"), cache_dir=str(tmp_path / "cache")), layout)


def test_the_card_says_what_made_the_codes_and_how_many_there_are(tmp_path):
    card = DatasetCard.load(written(tmp_path) / "README.md")
    assert card.data.tags == ["discrete-tokens", "audio", "sample"]
    tokens = 2 * sum(row.codes.numel() for row in rows())
    for line in (
        "| tokenizer | sample |",
        f"| SHA-256 of its weights | {'0f' * 32} |",
        "| license of its weights | MIT |",
        "| codebook sizes | 16, 16, 16 |",
        "| sample rate | 24000 Hz |",
        "| options | num_codebooks=3 |",
        "| items | 10 |",
        f"| tokens | {tokens} |",
    ):
        assert line in card.text


def test_the_code_on_the_card_decodes(tiny_wavtokenizer, tmp_path, monkeypatch):
    spec = tiny_wavtokenizer.spec
    about = Facts(spec.name, "0f", "audio", spec.codebook_sizes, spec.sample_rate, "MIT", {})
    codes = torch.randint(64, (1, 3))
    sink = sinks.create("huggingface", tmp_path / "tokens", about)
    sink.finish([sink.write("0", [Row("source", "a.wav", codes, (900,))])])
    code = re.search("```python\n(.*?)```", (tmp_path / "tokens" / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    names: dict = {}
    exec(code.replace("path/of/this/dataset", str(tmp_path / "tokens")), names)
    assert torch.equal(names["signal"], tiny_wavtokenizer.decode(codes[None], size=(900,)))


def test_a_pushed_data_set_loads_from_the_hub(server, tmp_path):
    folder = written(tmp_path / "tokens")
    (folder / "failures.jsonl").write_text("{}")
    address = sinks.push_to_hub(folder, "writer/tokens", token="writer", private=True)
    repository = server.repositories["datasets/writer/tokens"]
    assert repository.private
    assert address == f"{server.url}/datasets/writer/tokens/commit/{repository.commits[-1][0]}"
    copy = snapshot_download("writer/tokens", repo_type="dataset", token="writer", local_dir=tmp_path / "copy")
    assert not (tmp_path / "copy" / "failures.jsonl").exists()
    check(datasets.load_dataset(copy, cache_dir=str(tmp_path / "cache")))


def test_pushing_again_leaves_no_shard_of_the_first_push(server, tmp_path):
    sinks.push_to_hub(written(tmp_path / "one"), "writer/tokens", token="writer")
    sinks.push_to_hub(written(tmp_path / "two", shards=("0", "2")), "writer/tokens", token="writer")
    files = sorted(server.repositories["datasets/writer/tokens"].commits[-1][1])
    assert files == [".gitattributes", "README.md", "data/train-0.parquet", "data/train-2.parquet"]


def test_pushing_what_is_no_data_set_is_an_error(server, tmp_path):
    with pytest.raises(InputError, match=r"expected README.md and data/train-\*.parquet"):
        sinks.push_to_hub(tmp_path, "writer/tokens", token="writer")
    assert server.requests == []


@pytest.mark.parametrize(("token", "message"), [(None, "needs a token"), ("reader", r"refused the push .* \(403\)")])
def test_pushing_needs_a_token_that_may_write(server, token, message, tmp_path):
    with pytest.raises(PublishError, match=message):
        sinks.push_to_hub(written(tmp_path), "writer/tokens", token=token)
