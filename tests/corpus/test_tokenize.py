"""`zoo.corpus.tokenize`: exact codes, damaged items, going on after a stop, and jobs that share a folder."""

import json
import math
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from tests.support.media import write_pictures
from tests.support.tokenized import digest, rows_of, write_media
from tests.support.tokenizers import NANO
from zoo import corpus
from zoo.cli.tokenize import Engine, Format
from zoo.corpus import engines, sinks
from zoo.errors import InputError, MediaError, ZooError


@pytest.fixture
def pictures(tmp_path):
    """Eight pictures of two sizes."""
    folder = write_pictures(tmp_path / "pictures", {"a": 4, "b": 2}, (4, 4), (20, 24))
    return write_pictures(folder, {"c": 2}, (4, 4), (16, 12))


def codes_of(row) -> torch.Tensor:
    return torch.tensor(row["codes"]).unflatten(1, row["grid"])[None]


@pytest.mark.parametrize("name", NANO)
def test_an_item_has_the_codes_that_it_has_alone(tmp_path, name):
    tokenizer = zoo.load(name)
    folder = write_media(tmp_path / "in", tokenizer, 5)
    found = corpus.tokenize(name, folder, tmp_path / "out", items_per_shard=3)
    rows = rows_of(tmp_path / "out")
    assert (found.items, found.shards, found.failures, found.is_complete) == (5, 2, (), True)
    assert len({row["key"] for row in rows}) == 5
    for row in rows:
        alone = tokenizer.encode(tokenizer.preprocess(folder / row["key"]))
        assert torch.equal(codes_of(row), alone)
        assert tokenizer.decode(codes_of(row), size=tuple(row["size"])).isfinite().any()


@pytest.mark.parametrize("options", [{"max_batch": 1}, {"max_batch": 700}, {"readers": 0}, {"readers": 3}])
def test_batches_and_readers_change_no_byte(tiny_wetok, pictures, tmp_path, options):
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "a", items_per_shard=5)
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "b", items_per_shard=5, **options)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_options_of_preprocessing_and_of_codes_hold(tiny_residual, tmp_path):
    folder = write_media(tmp_path / "in", tiny_residual, 2)
    corpus.tokenize("tiny-residual", folder, tmp_path / "out", num_codebooks=2, seconds=0.001)
    for row in rows_of(tmp_path / "out"):
        signal = tiny_residual.preprocess(folder / row["key"], seconds=0.001)
        assert torch.equal(codes_of(row), tiny_residual.encode(signal, num_codebooks=2))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["codebook_sizes"] == [16, 16]
    assert manifest["options"] == {"seconds": 0.001, "num_codebooks": 2}


def test_an_excerpt_of_a_manifest_has_its_own_start_and_length(tiny_residual, tmp_path):
    write_media(tmp_path / "in", tiny_residual, 1)
    lines = [{"path": "in/part 0/item 0.wav"}, {"path": "in/part 0/item 0.wav", "start": 0.001, "duration": 0.001}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus.tokenize("tiny-residual", tmp_path / "list.jsonl", tmp_path / "out", start=0.0005, seconds=0.002)
    assert [row["size"] for row in rows_of(tmp_path / "out")] == [[16], [8]]


def test_a_long_video_is_encoded_window_by_window(tmp_path):
    tokenizer = zoo.load("cosmos-dv-nano")
    size = (2 * tokenizer.spec.chunk_frames + 3, 32, 32)
    clip = tokenizer.modality.example(tokenizer.spec, 1, size, torch.Generator().manual_seed(0))[0]
    tokenizer.modality.write(tmp_path / "clip.mkv", clip, tokenizer.spec, frame_rate=8.0)
    corpus.tokenize("cosmos-dv-nano", tmp_path / "clip.mkv", tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert row["size"] == list(size) and row["frame_rate"] == 8.0
    assert torch.equal(codes_of(row), tokenizer.encode(tokenizer.preprocess(tmp_path / "clip.mkv")))


def test_damaged_items_are_left_out_counted_and_named(tiny_wetok, pictures, tmp_path):
    (pictures / "a" / "broken.png").write_bytes(b"no picture")
    (pictures / "empty.png").touch()
    found = corpus.tokenize("tiny-wetok", pictures, tmp_path / "out")
    assert found.items == 8 and found.is_complete
    assert {failure.key for failure in found.failures} == {"a/broken.png", "empty.png"}
    lines = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert {line["key"] for line in lines} == {"a/broken.png", "empty.png"}
    assert all(str(pictures) in line["source"] and line["error"] for line in lines)


@pytest.mark.parametrize(("format", "lines"), [("npz", "tokens-00000/items.jsonl"), ("megatron", "tokens-00000.jsonl")])
def test_a_shard_that_has_lost_items_is_not_read_as_if_it_were_whole(tiny_wetok, pictures, tmp_path, format, lines):
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", format=format)
    file = tmp_path / "out" / lines
    file.write_bytes(file.read_bytes()[: file.read_bytes().rindex(b"\n", 0, -1) + 1])
    with pytest.raises(MediaError, match=r"tokens-00000.*damaged"):
        list(corpus.read(tmp_path / "out"))


def test_strict_stops_a_shard_at_a_damaged_item_and_leaves_nothing_of_it(tiny_wetok, pictures, tmp_path):
    (pictures / "a" / "broken.png").write_bytes(b"no picture")
    found = corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=6, strict=True)
    assert not found.is_complete and found.items == 3
    assert "broken.png" in str(found.failed_shards[0].error)
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1
    assert not (tmp_path / "out" / "manifest.json").exists()
    (pictures / "a" / "broken.png").unlink()
    Image.new("RGB", (20, 24)).save(pictures / "a" / "broken.png")
    assert corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=6, strict=True).is_complete


def test_a_signal_that_the_network_refuses_is_left_out_and_its_batch_is_not(
    tiny_wetok, pictures, tmp_path, monkeypatch
):
    refused, encode = tiny_wetok.preprocess(pictures / "a" / "1.png")[0], type(tiny_wetok).encode

    def refusing(self, x, *arguments, **options):
        if any(torch.equal(item, refused) for item in x):
            raise ZeroDivisionError("by 0")
        return encode(self, x, *arguments, **options)

    monkeypatch.setattr(type(tiny_wetok), "encode", refusing)
    found = corpus.tokenize("tiny-wetok", pictures, tmp_path / "out")
    assert found.items == 7
    assert [failure.key for failure in found.failures] == ["a/1.png"]
    assert "ZeroDivisionError: by 0" in found.failures[0].error


def test_a_stopped_run_goes_on_with_what_is_missing(tiny_wetok, pictures, tmp_path):
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "whole", items_per_shard=2)
    calls = []

    def stop(progress):
        calls.append(progress)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=2, progress=stop)
    seen = []
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=2, progress=seen.append)
    assert [progress.shards for progress in seen] == [3, 4] and seen[-1].items == 4
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=2, progress=seen.append).items == 8
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 16}, "options"),
        ({"dtype": torch.float64}, "options"),
        ({"format": "npz"}, "format"),
        ({"items_per_shard": 3}, "the source has changed"),
    ],
)
def test_another_job_in_the_same_folder_is_an_error(tiny_wetok, pictures, tmp_path, change, message):
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=2)
    before = digest(tmp_path / "out")
    with pytest.raises(InputError, match=f"holds another corpus: {message}"):
        corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", **{"items_per_shard": 2, **change})
    assert digest(tmp_path / "out") == before


def test_other_weights_and_another_source_in_the_same_folder_are_errors(tiny_wetok, pictures, tmp_path):
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "out")
    torch.manual_seed(1)
    zoo.create("tiny-wetok").save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="holds another corpus: weights is"):
        corpus.tokenize(tmp_path / "other", pictures, tmp_path / "out")
    (pictures / "a" / "0.png").rename(pictures / "a" / "9.png")
    with pytest.raises(InputError, match="the source has changed"):
        corpus.tokenize("tiny-wetok", pictures, tmp_path / "out")


def test_ranks_cut_the_work_and_the_last_finishes_it(tiny_wetok, pictures, tmp_path):
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "whole", items_per_shard=2)
    for rank in (2, 0, 1):
        assert not (tmp_path / "out" / "manifest.json").exists()
        found = corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=2, rank=rank, world_size=3)
    assert found.is_complete and found.items == 8
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_the_manifest_counts_what_is_there(tiny_wetok, pictures, tmp_path):
    found = corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=3)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    rows = rows_of(tmp_path / "out")
    all_codes = [np.concatenate([np.array(row["codes"][k]) for row in rows]) for k in range(2)]
    for k, codes in enumerate(all_codes):
        counts = np.unique(codes, return_counts=True)[1]
        assert manifest["usage"][k] == found.usage[k] == len(counts) / 256
        entropy = sum(-n / len(codes) * math.log2(n / len(codes)) for n in counts)
        assert manifest["entropy_bits"][k] == pytest.approx(entropy)
    assert manifest["tokens"] == found.tokens == 2 * sum(math.prod(row["grid"]) for row in rows)
    assert manifest["pixels"] == found.amount == 6 * 20 * 24 + 2 * 16 * 12
    assert [shard["items"] for shard in manifest["shards"]] == [3, 3, 2]
    assert manifest["weights_sha256"] == rows[0]["weights"] and len(manifest["weights_sha256"]) == 64


def test_code_files_become_rows_with_the_same_codes(tiny_wetok, pictures, tmp_path):
    list(zoo.encode_files(tiny_wetok, [pictures], tmp_path / "codes"))
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "a")
    corpus.tokenize("tiny-wetok", tmp_path / "codes", tmp_path / "b")
    direct, again = rows_of(tmp_path / "a"), rows_of(tmp_path / "b")
    assert [row["codes"] for row in direct] == [row["codes"] for row in again]
    assert [row["size"] for row in direct] == [row["size"] for row in again]


def test_codes_of_another_tokenizer_are_left_out(tiny_wetok, tiny_one_d_piece, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    list(zoo.encode_files(tiny_one_d_piece, [tmp_path / "a.png"], tmp_path / "codes"))
    found = corpus.tokenize("tiny-wetok", tmp_path / "codes", tmp_path / "out")
    assert found.items == 0 and "expected codes of 'tiny-wetok'" in found.failures[0].error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "slurm"}, "expected an engine among local, ray, got 'slurm'"),
        ({"format": "csv"}, "expected format"),
        ({"workers": 0}, "expected workers as an integer of at least 1, got 0"),
        ({"max_batch": 1.5}, "expected max_batch"),
        ({"device": "nonsense"}, "device 'nonsense' cannot be used"),
        ({"items_per_shard": 0}, "expected items_per_shard of at least 1, got 0"),
        ({"rank": 2, "world_size": 2}, "expected rank below world_size"),
        ({"num_codebooks": 1}, "num_codebooks"),
        ({"seconds": 1.0}, "takes images: preprocessing has no option 'seconds'"),
        ({"chunk_seconds": 1.0}, "no option 'chunk_seconds'"),
        ({"media": True}, "media"),
        ({"push_to": "owner/name"}, "expected push_to with format='huggingface'"),
    ],
)
def test_options_that_do_not_apply_are_refused_before_anything_is_written(
    tiny_wetok, pictures, tmp_path, options, message
):
    with pytest.raises(InputError, match=message):
        corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_damaged_job_or_record_is_named(tiny_wetok, pictures, tmp_path):
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=4)
    record = tmp_path / "out" / ".zoo" / "shards" / "tokens-00000.npz"
    record.write_bytes(b"PK")
    with pytest.raises(MediaError, match=r"tokens-00000\.npz: not the record of a shard"):
        corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=4)
    record.unlink()
    (tmp_path / "out" / ".zoo" / "job.json").write_text("{")
    with pytest.raises(ZooError, match=r"job\.json"):
        corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=4)


def test_the_command_offers_the_formats_and_engines_that_there_are():
    assert [choice.value for choice in Format] == list(sinks.FORMATS)
    assert [choice.value for choice in Engine] == list(engines.NAMES)


def test_no_thread_is_left_when_a_shard_ends_early(tiny_wetok, pictures, tmp_path):
    before = threading.active_count()
    (pictures / "a" / "broken.png").write_bytes(b"no picture")
    corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", strict=True, readers=3)
    assert threading.active_count() == before


def test_no_thread_is_left_when_a_run_is_stopped(tiny_wetok, pictures, tmp_path):
    def stop(progress: corpus.Progress) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        corpus.tokenize("tiny-wetok", pictures, tmp_path / "out", items_per_shard=2, readers=3, progress=stop)
    assert threading.active_count() == before
