"""Results on disk: one readable file without paths of a machine, and the items beside it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.support.bench import make_point, make_results, write_benchmark
from zoo.bench import bench
from zoo.bench.results import Results
from zoo.errors import InputError, MediaError


def test_results_and_their_items_come_back(tmp_path):
    results = write_benchmark(tmp_path, "image")
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def test_results_are_read_without_their_items(tmp_path):
    results = write_benchmark(tmp_path, "image")
    results.save(tmp_path / "results.json")
    (tmp_path / "items.jsonl").unlink()
    read = Results.load(tmp_path / "results.json")
    assert [point.metrics for point in read.points] == [point.metrics for point in results.points]
    assert all(point.items == [] for point in read.points)


def test_items_of_other_results_are_refused(tmp_path):
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        make_results([make_point("JPEG", 1.0, {"a": float(number)})]).save(folder / "results.json")
    (tmp_path / "0" / "items.jsonl").replace(tmp_path / "1" / "items.jsonl")
    with pytest.raises(MediaError, match=r"items\.jsonl: does not belong to the results beside it"):
        Results.load(tmp_path / "1" / "results.json")


def test_the_name_of_a_file_may_hold_any_character(tmp_path):
    results = make_results([make_point("JPEG", 1.0, {"a\u2028b\n.png": 1.0, "ü.png": 2.0})])
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def test_an_item_is_a_line_and_a_list_of_numbers_too(tmp_path):
    results = write_benchmark(tmp_path, "image")
    results.save(tmp_path / "results.json")
    assert len((tmp_path / "items.jsonl").read_text().splitlines()) == 3 * len(results.points)
    lines = [line.strip() for line in (tmp_path / "results.json").read_text().splitlines()]
    assert not [line for line in lines if line.strip("-,.").isdigit()]


def test_results_of_another_format_are_refused(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"format": "zoo-bench-1", "points": []}))
    with pytest.raises(InputError, match="expected results of format 'zoo-bench-2', got 'zoo-bench-1'"):
        Results.load(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(InputError, match="expected results of format"):
        Results.load(tmp_path / "results.json")


def test_results_hold_no_path_of_this_machine(tiny_wetok, image_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "home" / "hub"))
    (image_folder / "damaged.png").write_bytes(b"nothing")
    results = bench(["tiny-wetok"], image_folder, out=tmp_path / "out", baselines=False, metrics=["psnr", "lpips"])
    assert results.damaged and results.left_out
    text = (tmp_path / "out" / "results.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text and str(Path.home()) not in text


@pytest.mark.parametrize(("given", "name"), [("../set", "set"), ("deep/set", "deep/set")])
def test_the_data_are_named_as_given_but_not_by_where_they_are(tiny_wetok, tmp_path, monkeypatch, given, name):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path(given).mkdir(parents=True)
    Image.new("RGB", (16, 16), "teal").save(Path(given) / "a.png")
    results = bench(["tiny-wetok"], given, out=tmp_path / "out", baselines=False, metrics=["psnr"])
    assert results.data["name"] == name
