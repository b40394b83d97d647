"""The demo's page: a summary of each modality, every input through every tokenizer, and what to try next."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from PIL import Image

import zoo
from zoo import modalities
from zoo.bench.page import document, table
from zoo.demo.exhibits import Exhibit, Part
from zoo.demo.poster import Summary, poster, summary
from zoo.demo.table import COLUMNS, NUMERIC_COLUMNS, table_cells
from zoo.metrics import METRICS
from zoo.pictures import turning
from zoo.pictures.codes import code_image
from zoo.pictures.images import to_image
from zoo.pictures.markup import Markup, clip_element, element, image_element, joined
from zoo.pictures.sounds import player
from zoo.pictures.spectrograms import DYNAMIC_RANGE, spectrogram
from zoo.pictures.structures import ca_atoms, rainbow

SPECTROGRAM_SIZE = (400, 130)
SMALL = 128  # pixels; smaller images are enlarged without smoothing
MOST_INPUTS = 12  # of a modality on the page; the files of further ones are written all the same

ABOUT = (
    "zoo turns images, sound, video and proteins into integers, and integers back into signals. One interface holds "
    "every tokenizer; the small ones below ship with it."
)
NEXT = """\
zoo demo photo.jpg recordings/ protein.cif                # the same page with your own files
zoo encode wetok-nano photo.jpg --out codes/              # a file of integers ...
zoo decode codes/ --out decoded/                          # ... and the image again
zoo list                                                  # all tokenizers, with rates and licenses
zoo pull mimi                                             # a full-size one, from its authors
zoo bench wetok-nano --data photographs/ --out results/   # against JPEG, WebP and AVIF
zoo tokenize wavtokenizer-nano speech/ --out corpus/      # a data set for a language model
zoo train --help                                          # a tokenizer of your own
"""
PYTHON = """\
import zoo

tokenizer = zoo.load("wavtokenizer-nano")
audio = tokenizer.preprocess("speech.wav")      # [1, 1, samples]
codes = tokenizer.encode(audio)                 # int64 [1, 1, frames]
audio = tokenizer.decode(codes)
"""


class DemoPage:
    """Collects what the page shows, of each result only what is needed later."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []  # of the table
        self.variants: set[str] = set()
        self.summaries: dict[str, list[Summary]] = {}  # of the first input of each modality, by modality
        self.sections: dict[str, dict[str, list[Markup]]] = {}  # by modality and input

    @property
    def is_empty(self) -> bool:
        return not self.rows

    def add(self, shown: Exhibit) -> None:
        """Add a result."""
        self.rows.append(table_cells(shown.input, shown.spec, shown.figures))
        self.variants.add(shown.spec.name)
        inputs = self.sections.setdefault(shown.spec.modality, {})
        if shown.input in inputs or len(inputs) < MOST_INPUTS:
            inputs.setdefault(shown.input, []).append(exhibit_row(shown))
        summaries = self.summaries.setdefault(shown.spec.modality, [])
        if not summaries or summaries[0].input == shown.input:
            summaries.append(summary(shown))

    def best(self) -> list[Summary]:
        """Return, of the first input of each modality, the result with the best first metric."""
        return [max(summaries, key=partial(closeness, modality)) for modality, summaries in self.summaries.items()]

    def poster(self) -> Image.Image:
        """Draw the summaries as one image."""
        return poster(ABOUT, self.best())

    def html(self) -> str:
        """Write the page."""
        links = [element("li", element("a", modalities.get(name).title, href=f"#{name}")) for name in self.sections] + [
            element("li", element("a", "Try next", href="#next"))
        ]
        opening = element(
            "header",
            element("h1", "Signals to integers, and back"),
            element("p", ABOUT),
            element(
                "p",
                f"This page shows what came out when {len(self.variants)} of them ran on this machine: each "
                "original, its codes (a coloured square for every token; the same colour is the same integer), and "
                "what these integers alone decode to. They have about a million parameters each; the published "
                "networks are some hundred times as large, and their results better.",
                class_="soft",
            ),
            element("nav", element("ul", *links)),
        )
        glance = element("section", *map(summary_figure, self.best()), class_="glance", id="glance")
        parts = [
            element(
                "section",
                element("h2", modalities.get(name).title),
                element("p", EXPLANATIONS[name], class_="soft"),
                *(joined(element("h3", title), *exhibits) for title, exhibits in inputs.items()),
                id=name,
            )
            for name, inputs in self.sections.items()
        ]
        following = element(
            "section",
            element("h2", "What to try next"),
            element("pre", element("code", NEXT), class_="scroll", tabindex=0),
            element("pre", element("code", PYTHON), class_="scroll", tabindex=0),
            id="next",
        )
        figures = element(
            "section",
            element("h2", "All results"),
            table(
                "Cost and loss of each input; (NC): the license of the weights forbids commercial use.",
                list(COLUMNS),
                self.rows,
                numeric_from=COLUMNS.index(NUMERIC_COLUMNS[0]),
            ),
            id="results",
        )
        footer = element("footer", element("p", f"zoo {zoo.__version__}. This file needs no network.", class_="soft"))
        return document(
            "zoo demo", opening, glance, *parts, following, figures, footer, style=STYLE, script=turning.SCRIPT
        )


def closeness(modality: str, shown: Summary) -> float:
    """Return a number that is greater for a closer result by the first metric of the modality."""
    metric = METRICS[modality][modalities.get(modality).quality[0]]
    if shown.quality is None:
        return -math.inf
    return shown.quality if metric.higher_is_better else -shown.quality


def summary_figure(shown: Summary) -> Markup:
    tiles = element("div", *(image_element(tile, label) for label, tile in shown.tiles.items()), class_="tiles")
    return element("figure", tiles, element("figcaption", element("b", shown.title), shown.caption))


def exhibit_row(shown: Exhibit) -> Markup:
    """Show one result: the original, the codes, what they decode to, and the classical codec of nearest size."""
    spec, figures = shown.spec, shown.figures
    panel, title = PANELS[spec.modality], f"{shown.input}, {spec.name}"
    raw = figures.bits * figures.compression_ratio / 8
    original = Part("original", shown.original, raw, "")
    found = [figure(panel(shown, original), original)]
    found.append(
        element(
            "figure",
            element("div", image_element(code_image(shown.codes), f"Codes of {title}"), class_="pixels"),
            letters_beside(shown.letters) if shown.letters else None,
            element(
                "figcaption",
                element("b", f"{figures.tokens:,} tokens"),
                f"{figures.bits / 8:,.0f} bytes, 1/{figures.compression_ratio:,.0f} of the original",
            ),
        )
    )
    found += [figure(panel(shown, part), part) for part in shown.parts]
    if shown.rival is not None:
        found.append(figure(panel(shown, shown.rival), shown.rival))
    name = element("h4", spec.name, element("small", f" {spec.quantizer}, {spec.weights_license}"))
    return joined(name, element("div", *found, class_="row"))


def figure(content: Markup | None, part: Part) -> Markup | None:
    if content is None:
        return None
    facts = ", ".join(filter(None, [f"{part.bytes:,.0f} bytes", part.quality]))
    return element("figure", content, element("figcaption", element("b", part.label), facts))


def letters_beside(letters: str) -> Markup:
    """Write Foldseek's letters in the colours that their residues have in the view of the chain."""
    last = max(len(letters) - 1, 1)
    marked = (
        element("span", letter, style=f"--r:rgb{rainbow(index / last)}", title=f"residue {index + 1}")
        for index, letter in enumerate(letters)
    )
    caption = element("p", "The same chain in Foldseek's 3Di letters, from blue (N) to red (C):", class_="soft")
    return joined(caption, element("p", *marked, class_="letters"))


# One panel of each modality; None where there is nothing to show.


def image_panel(shown: Exhibit, part: Part) -> Markup:
    image = image_element(to_image(part.signal), f"{shown.input}, {shown.spec.name}: {part.label}")
    return element("div", image, class_="pixels" if max(part.signal.shape[1:]) <= SMALL else None)


def audio_panel(shown: Exhibit, part: Part) -> Markup:
    rate, title = shown.spec.sample_rate, f"{shown.input}, {shown.spec.name}: {part.label}"
    assert rate is not None  # of audio
    image = spectrogram(part.signal, shown.original, SPECTROGRAM_SIZE)
    return joined(image_element(image, f"Spectrogram of {title}"), player(part.signal, rate, title))


def video_panel(shown: Exhibit, part: Part) -> Markup:
    assert shown.frame_rate is not None  # of video
    frames = [to_image(frame) for frame in part.signal.unbind(1)]
    return clip_element(frames, shown.frame_rate, f"{shown.input}, {shown.spec.name}: {part.label}")


def structure_panel(shown: Exhibit, part: Part) -> Markup | None:
    if part.label == "original":  # it is in each view
        return None
    chains = [ca_atoms(shown.original), ca_atoms(part.signal)]
    return turning.turning_view(chains, f"CA trace of {shown.input}, {shown.spec.name}, on the original's")


PANELS: dict[str, Callable[[Exhibit, Part], Markup | None]] = {
    "image": image_panel,
    "audio": audio_panel,
    "video": video_panel,
    "structure": structure_panel,
}
EXPLANATIONS: dict[str, str] = {
    "image": "One-D-Piece puts what matters most into its first tokens, so that 1, 4, 16, ... of them decode alone. "
    "The last image of each row is the JPEG whose size is nearest.",
    "audio": "Residual codecs refine codebook by codebook: listen to 1, 2, 4 and all of them. The last sound of each "
    "row is the Opus stream whose size is nearest; the lowest rate of Opus is 6 kbit/s. Spectrograms show "
    f"{DYNAMIC_RANGE:.0f} dB, from black to white.",
    "video": "A token stands for a block of pixels in several frames. The last clip of each row is the H.264 stream "
    "whose size is nearest.",
    "structure": "One token for each residue holds the fold. Drag the view to turn it: the pale band is the original, "
    "the coloured line was decoded from the tokens.",
}
STYLE = (
    turning.STYLE
    + """
.glance { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1.5rem 2rem; }
.glance { margin-top: 1.5rem; }
.tiles { display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem; }
.tiles img { display: block; width: 100%; height: auto; }
figcaption { margin-top: .3rem; line-height: 1.35; }
figcaption b { color: var(--ink); font-weight: 600; display: block; }
h4 small { font-weight: 400; margin-left: .4rem; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(46%, 15rem), 1fr)); gap: .75rem; }
#audio .row { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.row img { display: block; width: 100%; height: auto; background: var(--wash); }
.pixels img { image-rendering: pixelated; background: none; }
#structure .row { grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
.letters { font: 600 .9rem/1.6 ui-monospace, "DejaVu Sans Mono", monospace; display: flex; flex-wrap: wrap; }
.letters span { padding: 0 .18rem; border-bottom: 3px solid var(--r); }
pre { padding: .75rem; margin: .75rem 0; background: var(--wash); font-size: .85rem; overflow-wrap: normal; }
"""
)
