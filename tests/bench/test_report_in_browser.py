"""A browser shows the report whole."""

from collections.abc import Iterator

import pytest

from tests.support.browser import Browser, browser

MODALITIES = ("image", "audio", "video", "structure")


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
