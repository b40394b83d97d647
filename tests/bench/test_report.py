"""The report: what it says follows from the figures, it holds everything itself, and a browser shows it whole."""

import base64
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo import media
from zoo.bench.report import write_report
from zoo.bench.results import Interval, Item, Point, Results
from zoo.bench.signals import Preprocessing, Signal
from zoo.bench.verdict import Span, elsewhere, sentence, spans

MODALITIES = ("image", "audio", "video", "structure")
METRIC = {
    "image": ("psnr", {"label": "PSNR", "unit": "dB", "digits": 2, "higher_is_better": True, "per_item": True}),
    "audio": ("mel", {"label": "Mel distance", "unit": "", "digits": 3, "higher_is_better": False, "per_item": True}),
    "video": ("psnr", {"label": "PSNR", "unit": "dB", "digits": 2, "higher_is_better": True, "per_item": True}),
    "structure": ("rmsd", {"label": "RMSD", "unit": "Å", "digits": 2, "higher_is_better": False, "per_item": True}),
}
UNIT = {"image": "bits per pixel", "audio": "kbit/s", "video": "kbit/s", "structure": "bits/residue"}
SUFFIX = {"image": ".png", "audio": ".flac", "video": ".mkv", "structure": ".bcif"}
EVIL = "<script>alert('x')</script> & \"quotes\""


# Results made by hand


def signal(modality: str, number: int) -> Signal:
    generator = torch.Generator().manual_seed(number)
    if modality == "image":
        across, down = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 56), indexing="ij")
        return Signal(torch.stack([across, down, (across * (number + 2) * 3).sin() / 2 + 0.5])[None])
    if modality == "audio":
        return Signal((torch.arange(8000) * 0.05 * (number + 1)).sin()[None, None] * 0.5)
    if modality == "video":
        return Signal(torch.rand(1, 3, 5, 1, 1, generator=generator).expand(-1, -1, -1, 32, 48).contiguous(), 10.0)
    turn = torch.arange(30) * (1.75 + number * 0.01)
    helix = torch.stack([2.3 * turn.cos(), 2.3 * turn.sin(), torch.arange(30) * 1.5], dim=1)
    return Signal((helix[:, None] + torch.randn(30, 5, 3, generator=generator) * 0.1)[None])


def make_point(family: str, rate: float, values: dict[str, float], *, baseline: bool = True, **fields) -> Point:
    """`values`: of the first metric, by source."""
    known = np.array(list(values.values()))
    spread = 1.96 * known.std() / max(1, len(known) - 1) ** 0.5
    mean = float(known.mean())
    metric = fields.pop("metric", "psnr")
    interval = Interval(value=mean, low=mean - spread, high=mean + spread)
    defaults = {
        "label": f"{family} at {rate:g}",
        "setting": {"quality": rate},
        "identity": f"{family} 1.0; {rate:g}",
        "bytes": 1000 * rate,
        "metrics": {metric: interval},
        "encode_speed": 12.0,
        "decode_speed": 340.0,
        "peak_bytes": 5_000_000,
        "codes": None,
        "note": f"what {family} counts",
        "items": [
            Item(
                source=source,
                bytes=1000 * rate,
                encode_seconds=0.1,
                decode_seconds=0.1,
                metrics={metric: value},
                reconstruction="",
            )
            for source, value in values.items()
        ],
    }
    return Point(family=family, baseline=baseline, rate=rate, **{**defaults, **fields})


def make_results(points: list[Point], modality: str = "image", **fields) -> Results:
    name, what = METRIC[modality]
    defaults = {
        "metrics": {name: what},
        "left_out": {},
        "damaged": {},
        "data": {"folder": "/data/set", "files": len(points[0].items), "sha256": "ab" * 32, "preprocessing": {}},
        "machine": {"processor": "a processor", "cores": 2},
        "versions": {"python": "3.11", "zoo": "0.1"},
        "seeds": {"bootstrap": 0},
        "comparisons": [],
    }
    return Results(modality=modality, rate_unit=UNIT[modality], points=points, **{**defaults, **fields})


def write_benchmark(folder: Path, modality: str) -> Results:
    """Three files and their reconstructions by one tokenizer at two rates and one codec, as `zoo bench` leaves them."""
    data = folder / "data"
    data.mkdir(parents=True)
    is_audio = modality == "audio"
    preprocessing = Preprocessing(
        modality=modality, sample_rate=8000 if is_audio else None, channels=1 if is_audio else None
    )
    name = METRIC[modality][0]
    sources = [f"file {number}{SUFFIX[modality]}" for number in range(3)]
    originals = [signal(modality, number) for number in range(3)]
    for source, original in zip(sources, originals, strict=True):
        preprocessing.write(data / source, original)
    points = []
    for family, rate, baseline in (
        ("some-tokenizer", 1.0, False),
        ("some-tokenizer", 2.0, False),
        ("Codec", 12.0, True),
    ):
        point = make_point(
            family, rate, dict(zip(sources, (3.0, 1.0, 2.0), strict=True)), baseline=baseline, metric=name
        )
        items = []
        for item, original in zip(point.items, originals, strict=True):
            target = f"cache/{family}-{rate:g}-{item.source}"
            (folder / target).parent.mkdir(exist_ok=True)
            noise = torch.randn(original.values.shape, generator=torch.Generator().manual_seed(0)) * 0.05
            preprocessing.write(folder / target, replace(original, values=(original.values + noise)))
            items.append(replace(item, reconstruction=target))
        histogram = [[9, 5, 1, 0], [2, 2, 2, 2]]
        codes = {
            "tokens": 12,
            "usage": [0.75, 1.0],
            "perplexity": [2.5, 4.0],
            "entropy_bits": [1.3, 2.0],
            "paid_bits": [2.0, 2.0],
            "histogram": histogram,
        }
        points.append(replace(point, items=items, codes=None if baseline else codes))
    kept = {"resolution": None, "sample_rate": preprocessing.sample_rate, "channels": preprocessing.channels}
    comparison = {"metric": name, "family": "some-tokenizer", "reference": "Codec", "reference_is_baseline": True}
    return make_results(
        points,
        modality,
        data={"folder": str(data), "files": 3, "sha256": "cd" * 32, "preprocessing": {**kept, "seconds": None}},
        left_out={"LPIPS": "its weights are not on this machine", "JPEG XL": "Pillow does not write it"},
        damaged={"broken.file": "cut short"},
        comparisons=[{**comparison, "kind": "bd", "bd_rate": -12.34, "bd_metric": 1.5, "reason": None}],
        variants={"some-tokenizer": {"weights_sha256": "ef" * 32, "codebook_sizes": [4, 4]}},
    )


# What the page holds


class Page(HTMLParser):
    """The page's elements as (name, attributes), the text of each section, and what was opened but not closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, content: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, str | None]] = []
        self.texts: dict[str, str] = {}
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attributes).get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        for tag, identity in self.open:
            if tag in ("section", "footer", "header") and identity:
                self.texts[identity] = self.texts.get(identity, "") + text

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> Callable[[str], Path]:
    """The report of each modality, written once."""
    written: dict[str, Path] = {}

    def report(modality: str) -> Path:
        if modality not in written:
            folder = tmp_path_factory.mktemp(modality)
            write_report(write_benchmark(folder, modality), folder, folder / "report.html")
            written[modality] = folder / "report.html"
        return written[modality]

    return report


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
def test_pictures_and_sound_in_the_page_decode_and_are_described(reports, modality):
    page = Page(reports(modality).read_text(encoding="utf-8"))
    for attributes in page.all("img"):
        picture = Image.open(io.BytesIO(content_of(attributes["src"], "image/")))
        assert picture.size == (int(attributes["width"]), int(attributes["height"]))
        assert "file" in attributes["alt"]
    for attributes in page.all("audio"):
        import soundfile

        samples, rate = soundfile.read(io.BytesIO(content_of(attributes["src"], "audio/")))
        assert (rate, samples.shape) == (8000, (8000,))
        assert attributes["aria-label"].startswith("Play file")
    # Best, median and worst in three columns, and the median at two rates.
    counts = {"image": (11, 0), "audio": (11, 11), "video": (11, 0), "structure": (0, 0)}
    assert (len(page.all("img")), len(page.all("audio"))) == counts[modality]
    drawn = [attributes["aria-label"] for attributes in page.all("svg") if attributes.get("role") == "img"]
    assert len([label for label in drawn if "CA traces" in label]) == (8 if modality == "structure" else 0)
    assert len([label for label in drawn if "codebook" in label]) == 2


def content_of(uri: str, media_type: str) -> bytes:
    kind, encoded = uri.split(";base64,")
    assert kind.startswith(f"data:{media_type}")
    return base64.b64decode(encoded, validate=True)


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
    comparison = {"metric": "psnr", "family": EVIL, "reference": EVIL, "kind": "point", "reason": EVIL}
    results = make_results(
        [point, make_point("Codec", 1.0, {"b": 2.0})],
        metrics={"psnr": {**METRIC["image"][1], "label": EVIL, "unit": EVIL}},
        left_out={EVIL: EVIL},
        damaged={EVIL: EVIL},
        data={"folder": f"/{EVIL}", "files": 2, EVIL: EVIL},
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
    write_report(results, tmp_path, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.texts["examples"].count("Cannot be shown") == 4  # three of the first file, one of the second
    assert len(page.all("img")) == 7


def test_large_pictures_are_reduced(tmp_path):
    results = write_benchmark(tmp_path, "image")
    noise = torch.randint(0, 256, (3, 700, 900), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for path in [*(tmp_path / "data").iterdir(), *(tmp_path / "cache").iterdir()]:
        media.write_image(path, noise, overwrite=True)
    write_report(results, tmp_path, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {attributes["width"] for attributes in page.all("img")} == {"512"}
    assert all(attributes["src"].startswith("data:image/jpeg") for attributes in page.all("img"))


def test_report_without_examples_has_no_picture_or_sound(tmp_path):
    results = write_benchmark(tmp_path, "image")
    write_report(results, tmp_path, tmp_path / "report.html", examples=False)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "examples" not in page.texts and not page.all("img") and page.all("svg")


def test_report_without_figures_is_written_too(tmp_path):
    nothing = make_point("t", 1.0, {"a": 1.0}, baseline=False, metrics={"psnr": Interval(value=None)}, items=[])
    write_report(make_results([nothing]), tmp_path, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Nobody has a figure." in page.texts["verdict"] and "examples" not in page.texts


# Verdicts


def curve(family: str, figures: dict[float, float], noise: float = 0.0, **fields) -> list[Point]:
    """Points by rate; twenty files that differ widely from each other, and by `noise` from one family to the next."""
    generator = np.random.default_rng(len(family))
    files = np.linspace(-5, 5, 20)
    return [
        make_point(
            family,
            rate,
            {str(i): value + file + noise * generator.normal() for i, file in enumerate(files)},
            **fields,
        )
        for rate, value in figures.items()
    ]


def said(results: Results, in_words: Callable = sentence) -> str:
    metric = next(iter(results.metrics))
    pieces = in_words(results, metric, spans(results, metric))
    return "".join(piece if isinstance(piece, str) else piece[0] for piece in pieces)


def test_small_differences_win_where_every_file_shows_them():
    results = make_results([*curve("A", {1: 20.0, 4: 30.0}), *curve("B", {1: 19.5, 4: 29.5})])
    assert spans(results, "psnr") == [Span(low=1, high=4, families=("A",))]
    assert said(results) == "A wins at every rate, 1 to 4 bits per pixel."


def test_differences_within_the_noise_are_ties():
    results = make_results([*curve("A", {1: 20.0, 4: 30.0}, 3.0), *curve("BB", {1: 20.1, 4: 30.1}, 3.0)])
    assert spans(results, "psnr") == [Span(low=1, high=4, families=("A", "BB"))]
    assert said(results) == "A and BB tie at every rate, 1 to 4 bits per pixel."


def test_curves_that_cross_win_on_their_sides():
    results = make_results([*curve("A", {1: 20.0, 4: 22.0}), *curve("B", {1: 18.0, 4: 24.0})])
    ranges = spans(results, "psnr")
    assert [span.families for span in ranges] == [("A",), ("B",)]
    assert ranges[0].high == pytest.approx(2, rel=0.02)  # the middle of 1 and 4 on the logarithm
    assert said(results) == "A wins below 2 bits per pixel; B wins above 2."


def test_lower_is_better_where_the_metric_says_so():
    lower = {"psnr": {**METRIC["image"][1], "higher_is_better": False}}
    results = make_results([*curve("A", {1: 20.0, 4: 10.0}), *curve("B", {1: 19.0, 4: 9.0})], metrics=lower)
    assert said(results) == "B wins at every rate, 1 to 4 bits per pixel."


def test_a_tokenizer_below_all_codecs_is_alone_there_and_then_keeps_its_figure():
    tokenizer = curve("T", {0.1: 25.0}, baseline=False)
    results = make_results([*tokenizer, *curve("C", {1: 20.0, 100: 30.0})])
    assert [(span.families, span.alone) for span in spans(results, "psnr")] == [
        (("T",), True),
        (("T",), False),
        (("C",), False),
    ]
    assert said(results) == "T is alone below 1 bits per pixel and wins from 1 to 10; C wins above 10."


def test_a_tokenizer_that_wins_nowhere_is_compared_at_its_rate():
    results = make_results([*curve("T", {2: 15.0}, baseline=False), *curve("C", {1: 20.0, 4: 30.0})])
    assert said(results) == "C is alone below 2 bits per pixel and wins above 2."
    assert said(results, elsewhere) == "At 2 bits per pixel T has 15.00 against C with 25.00 dB."


def test_a_tokenizer_that_is_best_only_at_its_own_rate_is_said_to_be():
    results = make_results([*curve("T", {2: 25.01}, baseline=False), *curve("C", {1: 20.0, 4: 30.0})])
    assert said(results, elsewhere) == "At 2 bits per pixel T has 25.01 against C with 25.00 dB, and wins there."


def test_figures_of_a_set_are_compared_by_their_intervals():
    def point(family: str, value: float, half: float) -> Point:
        interval = Interval(value=value, low=value - half, high=value + half)
        return make_point(family, 1.0, {"a": 0.0}, metrics={"psnr": interval}, items=[])

    apart = make_results([point("A", 10, 1), point("B", 13, 1)])
    overlapping = make_results([point("A", 10, 2), point("B", 13, 2)])
    assert said(apart) == "B wins at 1 bits per pixel."
    assert said(overlapping) == "A and B tie at 1 bits per pixel."


def test_without_a_better_direction_or_a_rival_there_is_no_winner():
    neither = {"psnr": {**METRIC["image"][1], "higher_is_better": None}}
    points = curve("A", {1: 20.0, 4: 30.0})
    assert "Neither direction" in said(make_results([*points, *curve("B", {1: 2.0})], metrics=neither))
    assert said(make_results(points)) == "Only A has a figure: there is nothing to compare."


# In a browser


def browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = [path for name in names if (path := shutil.which(name))]
    of_playwright = sorted(Path.home().glob(".cache/ms-playwright/chromium-*/chrome-linux*/chrome"))
    return next(iter([*found, *map(str, of_playwright)]), None)


# Chromium reads commands from file 3 and writes answers to file 4.
ON_PIPES = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """Headless Chromium, spoken to in its DevTools protocol over two pipes."""

    def __init__(self, path: str, profile: Path):
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_PIPES, str(commands), str(answers), path, *arguments],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self.buffer, self.number, self.events = b"", 0, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    session = None

    def __call__(self, method: str, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def receive(self, seconds: float = 30) -> dict:
        deadline = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self.answers, 2**16) if ready else b""
            assert chunk, "the browser does not answer"
            self.buffer += chunk
        message, self.buffer = self.buffer.split(b"\0", 1)
        answer = json.loads(message)
        self.events.append(answer)
        return answer

    def show(self, page: Path, width: int, scheme: str) -> None:
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.receive()

    def value(self, script: str):
        result = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        return result["result"]["value"]

    def close(self) -> None:
        os.close(self.commands)
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.answers)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Browser]:
    path = browser()
    if path is None:
        pytest.skip("no Chromium on this machine (chromium, google-chrome, or Playwright's)")
    started = Browser(path, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")], ids=["phone", "desktop"])
def test_browser_shows_the_page_whole(reports, chromium, modality, width, scheme):
    chromium.show(reports(modality), width, scheme)
    assert chromium.value("innerWidth") == width
    assert chromium.value("document.documentElement.scrollWidth") <= width
    beyond = """[...document.querySelectorAll('body *')].filter(
        element => !element.closest('.scroll, svg') && element.getBoundingClientRect().right > innerWidth + 1
    ).map(element => element.outerHTML.slice(0, 200))"""
    assert chromium.value(beyond) == []
    letters = "Math.min(...[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height))"
    assert chromium.value(letters) >= 10  # pixels
    assert chromium.value("[...document.images].filter(image => !image.naturalWidth).length") == 0
    loaded = """Promise.all([...document.querySelectorAll('audio')].map(audio => new Promise(done => {
        audio.addEventListener('loadedmetadata', () => done(audio.duration));
        audio.addEventListener('error', () => done(0));
        audio.load();
    })))"""
    assert all(seconds == pytest.approx(1, abs=0.01) for seconds in chromium.value(loaded))
    background = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 22, 26)") == (scheme == "dark")
    told = [
        event
        for event in chromium.events
        if event.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    ]
    assert told == []
    asked = [
        event["params"]["request"]["url"]
        for event in chromium.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file")] == [reports(modality).as_uri()]
