"""The page that the demo writes: what stands on it, and that it holds everything itself."""

import io

import pytest
import soundfile
from PIL import Image

from tests.support.browser import Browser, browser
from tests.support.html import Page, content_of
from zoo import media
from zoo.demo import Demo
from zoo.demo.samples import samples


def written_page(out) -> Page:
    work = Demo(out=out)
    assert all(result.error is None for result in work)
    return Page(work.page.read_text(encoding="utf-8"))


def test_an_image_stands_beside_its_codes_its_reconstruction_and_a_jpeg(tiny_wetok, tmp_path):
    page = written_page(tmp_path)
    assert page.open == []
    images = {image["alt"]: image["src"] for image in page.all("img")}
    original = Image.open(io.BytesIO(content_of(images["lake, tiny-wetok: original"], "image/png")))
    assert original.tobytes() == Image.open(samples("image")["lake"]).convert("RGB").tobytes()
    assert "lake, tiny-wetok: reconstruction" in images
    assert any(alt.startswith("lake, tiny-wetok: JPEG") for alt in images)
    codes = Image.open(io.BytesIO(content_of(images["Codes of lake, tiny-wetok"], "image/png")))
    assert codes.size == (2 * 64 + 1, 64)  # two codebooks side by side
    assert f"{2 * 64 * 64:,} tokens" in page.texts["image"]


def test_tail_drop_is_shown_from_one_token_to_all(tiny_one_d_piece, tmp_path):
    alts = [image["alt"] for image in written_page(tmp_path).all("img")]
    for label in ("1 token", "4 tokens", "16 tokens", "all 20 tokens"):
        assert f"hopper, tiny-one-d-piece: {label}" in alts


def test_sound_is_played_with_1_2_4_and_all_codebooks_and_as_opus(tiny_residual, tmp_path):
    players = {player["aria-label"]: player["src"] for player in written_page(tmp_path).all("audio")}
    labels = [label.removeprefix("Play river, tiny-residual: ") for label in players if "river" in label]
    assert labels[:5] == ["original", "1 codebook", "2 codebooks", "4 codebooks", "all 5 codebooks"]
    assert labels[5].startswith("Opus")
    heard, rate = soundfile.read(
        io.BytesIO(content_of(players["Play river, tiny-residual: 2 codebooks"], "audio/flac"))
    )
    written, written_rate = soundfile.read(tmp_path / "tiny-residual" / "river.2-codebooks.wav")
    assert rate == written_rate and abs(heard - written).max() < 1e-4


def test_a_clip_moves(tiny_cosmos, tmp_path):
    images = {image["alt"]: image["src"] for image in written_page(tmp_path).all("img")}
    for label in ("original", "reconstruction"):
        with Image.open(io.BytesIO(content_of(images[f"bounce, tiny-cosmos: {label}"], "image/webp"))) as clip:
            assert (clip.n_frames, clip.size) == (33, (128, 128))
    assert any(alt.startswith("bounce, tiny-cosmos: H.264") for alt in images)


def test_a_protein_turns_beside_foldseeks_letters(tiny_dplm2, tmp_path):
    page = written_page(tmp_path)
    assert [canvas["class"] for canvas in page.all("canvas")] == ["turning"]
    residues = len(media.read_structure(samples("structure")["globin"]).coordinates)
    assert len([span for span in page.all("span") if (span.get("title") or "").startswith("residue")]) == residues


def test_the_page_and_its_poster_are_small_and_ask_for_nothing(tiny_wetok, tiny_wavtokenizer, tiny_dplm2, tmp_path):
    page = written_page(tmp_path)
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert sources and all(source.startswith("data:") for source in sources)
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")
    assert (tmp_path / "poster.jpg").stat().st_size < 300_000
    with Image.open(tmp_path / "poster.jpg") as poster:
        assert poster.width > 1000


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")], ids=["phone", "desktop"])
def test_browser_shows_the_page_whole(
    tiny_wetok, tiny_one_d_piece, tiny_residual, tiny_cosmos, tiny_dplm2, tmp_path, width, scheme
):
    path = browser()
    if path is None:
        pytest.skip("no Chromium on this machine (chromium, google-chrome, or Playwright's)")
    work = Demo(out=tmp_path / "out")
    list(work)
    chromium = Browser(path, tmp_path / "profile")
    try:
        chromium.show(work.page, width, scheme)
        assert chromium.value("document.documentElement.scrollWidth") <= width
        beyond = """[...document.querySelectorAll('body *')].filter(
            element => !element.closest('.scroll') && element.getBoundingClientRect().right > innerWidth + 1
        ).map(element => element.outerHTML.slice(0, 200))"""
        assert chromium.value(beyond) == []
        assert chromium.value("[...document.images].filter(image => !image.naturalWidth).length") == 0
        drawn = """new Promise(done => setTimeout(() => {
            const canvas = document.querySelector('canvas');
            canvas.scrollIntoView();
            const pixels = () => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
            setTimeout(() => done(pixels().some(Boolean)), 500);
        }, 0))"""
        assert chromium.value(drawn)
        told = [
            event
            for event in chromium.events
            if event.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        ]
        assert told == []
    finally:
        chromium.close()
