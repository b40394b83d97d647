"""The report: it says what follows from the figures, and it holds everything itself."""

import io
from dataclasses import replace

import pytest
import soundfile
import torch
from PIL import Image

from tests.support.bench import METRIC, make_point, make_results, write_benchmark
from tests.support.html import Page, content_of
from zoo import media
from zoo.bench.report import write_report
from zoo.bench.results import Interval

MODALITIES = ("image", "audio", "video", "structure")
EVIL = "<script>alert('x')</script> & \"quotes\""


@pytest.mark.parametrize("modality", MODALITIES)
def test_report_has_every_section_and_takes_nothing_from_outside(reports, modality):
    content = reports(modality).read_text(encoding="utf-8")
    page = Page(content)
    assert not page.open
    assert list(page.texts) == [
        "verdict", "curves", "examples", "distances", "points", "codes", "missing", "origin"
    ]  # fmt: skip
    assert "http" not in content.replace("http-equiv", "")
    assert "url(" not in content and "@import" not in content
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "data", "xlink:href", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:" if tag in ("img", "audio") else "#")
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert {attributes["href"][1:] for attributes in page.all("a")} <= targets


@pytest.mark.parametrize("modality", MODALITIES)
def test_images_and_sound_in_the_page_decode_and_are_described(reports, modality):
    page = Page(reports(modality).read_text(encoding="utf-8"))
    for attributes in page.all("img"):
        image = Image.open(io.BytesIO(content_of(attributes["src"], "image/")))
        assert image.size == (int(attributes["width"]), int(attributes["height"]))
        assert "file" in attributes["alt"]
    for attributes in page.all("audio"):
        samples, rate = soundfile.read(io.BytesIO(content_of(attributes["src"], "audio/")))
        assert (rate, samples.shape) == (8000, (8000,))
        assert attributes["aria-label"].startswith("Play file")
    # Best, median and worst in three columns, and the median at two rates.
    counts = {"image": (11, 0), "audio": (11, 11), "video": (11, 0), "structure": (0, 0)}
    assert (len(page.all("img")), len(page.all("audio"))) == counts[modality]
    drawn = [attributes["aria-label"] for attributes in page.all("svg") if attributes.get("role") == "img"]
    assert len([label for label in drawn if "CA traces" in label]) == (8 if modality == "structure" else 0)
    assert len([label for label in drawn if "codebook" in label]) == 2


def test_best_and_worst_follow_the_direction_of_the_metric(reports):
    psnr = Page(reports("image").read_text(encoding="utf-8")).texts["examples"]
    distance = Page(reports("audio").read_text(encoding="utf-8")).texts["examples"]
    assert "Best of 3: file 0.png" in psnr and "Median of 3: file 2.png" in psnr and "Worst of 3: file 1.png" in psnr
    assert "Best of 3: file 1.flac" in distance and "Worst of 3: file 0.flac" in distance


def test_figures_reasons_and_hashes_are_told(reports):
    texts = Page(reports("image").read_text(encoding="utf-8")).texts
    assert "-12.3 %" in texts["distances"] and "+1.50 dB" in texts["distances"]
    assert "2.00" in texts["points"] and "what Codec counts" in texts["points"]
    assert "87.5 %" in texts["codes"] and "75.0 % used" in texts["codes"]
    assert "its weights are not on this machine" in texts["missing"] and "broken.file" in texts["missing"]
    assert "cd" * 32 in texts["origin"] and "ef" * 32 in texts["origin"] and "Codec 1.0; 12" in texts["origin"]


def test_all_text_is_escaped(tmp_path):
    point = make_point(EVIL, 1.0, {EVIL: 1.0, "b": 2.0}, baseline=False, label=EVIL, note=EVIL, identity=EVIL)
    comparison = {"metric": "psnr", "method": EVIL, "reference": EVIL, "kind": "point", "reason": EVIL}
    results = make_results(
        [point, make_point("Codec", 1.0, {"b": 2.0})],
        metrics={"psnr": {**METRIC["image"][1], "label": EVIL, "unit": EVIL}},
        left_out={EVIL: EVIL},
        damaged={EVIL: EVIL},
        data={"name": EVIL, "files": 2, EVIL: EVIL},
        machine={EVIL: EVIL},
        versions={EVIL: EVIL},
        comparisons=[comparison],
        variants={EVIL: {EVIL: EVIL}},
    )
    write_report(replace(results, rate_unit=EVIL), tmp_path, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.all("script")
    assert all(EVIL in page.texts[section] for section in ("verdict", "points", "distances", "missing", "origin"))


def test_what_cannot_be_shown_is_said_in_its_place(tmp_path):
    results = write_benchmark(tmp_path, "image")
    (tmp_path / "data" / "file 0.png").unlink()
    (tmp_path / results.points[1].items[1].reconstruction).write_bytes(b"nothing")
    write_report(results, tmp_path, tmp_path / "report.html", tmp_path / "data")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.texts["examples"].count("Cannot be shown") == 4  # three of the first file, one of the second
    assert len(page.all("img")) == 7


def test_large_images_are_reduced(tmp_path):
    results = write_benchmark(tmp_path, "image")
    noise = torch.randint(0, 256, (3, 700, 900), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for path in [*(tmp_path / "data").iterdir(), *(tmp_path / "cache").iterdir()]:
        media.write_image(path, noise, overwrite=True)
    write_report(results, tmp_path, tmp_path / "report.html", tmp_path / "data")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {attributes["width"] for attributes in page.all("img")} == {"512"}
    assert all(attributes["src"].startswith("data:image/jpeg") for attributes in page.all("img"))


def test_report_without_examples_has_no_image_or_sound(tmp_path):
    results = write_benchmark(tmp_path, "image")
    write_report(results, tmp_path, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "examples" not in page.texts and not page.all("img") and page.all("svg")


def test_report_without_figures_is_written_too(tmp_path):
    nothing = make_point("t", 1.0, {"a": 1.0}, baseline=False, metrics={"psnr": Interval(value=None)}, items=[])
    write_report(make_results([nothing]), tmp_path, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No method has a figure." in page.texts["verdict"] and "examples" not in page.texts
