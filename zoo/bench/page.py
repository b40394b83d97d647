"""The frame of a report: the HTML document, its tables and its style, besides that of the drawings."""

from __future__ import annotations

import base64
import hashlib

from zoo.pictures.markup import Markup, element
from zoo.pictures.plots import STYLE as DRAWING_STYLE

# Nothing is fetched, and no script runs but the page's own: a browser refuses whatever the page does not hold itself.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def document(title: str, *body: str, style: str = "", script: str = "") -> str:
    """Write a whole page that loads nothing from outside.

    Args:
        title: title of the page.
        body: its elements.
        style: rules besides those of reports and drawings.
        script: a script that runs after the body; "": none may run.
    """
    policy, ran = POLICY, []
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy, ran = f"{POLICY}; script-src 'sha256-{digest}'", [element("script", Markup(script))]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("title", title),
        element("style", Markup(DRAWING_STYLE + STYLE + style)),
    )
    return f'<!doctype html>\n<html lang="en">\n{head}\n{element("body", *body, *ran)}\n</html>\n'


def table(caption: str, columns: list[str], rows: list[list[str]], *, numeric_from: int = 1) -> Markup:
    """Write a table that scrolls by itself where the page is narrower.

    Args:
        caption: what the table holds.
        columns: headings.
        rows: the cells of each row, of which the first is its heading.
        numeric_from: index of the first column of numbers.
    """

    def kind(index: int) -> str | None:
        return "number" if index >= numeric_from else None

    header = element("tr", *(element("th", name, scope="col", class_=kind(i)) for i, name in enumerate(columns)))
    lines = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, class_=kind(i)) for i, cell in enumerate(row[1:], start=1)),
        )
        for row in rows
    ]
    whole = element(
        "table", element("caption", caption), element("thead", header), element("tbody", *lines, Markup("\n"))
    )
    return element("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


STYLE = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 70rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere;
}
h1 {
  font-size: clamp(1.5rem, 1.1rem + 1.8vw, 2.25rem); line-height: 1.15; margin: 0 0 .5rem; letter-spacing: -.015em;
}
h2 {
  font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 .75rem; padding-top: .75rem;
  border-top: 2px solid var(--ink);
}
h3 { font-size: 1.05rem; line-height: 1.3; margin: 1.75rem 0 .5rem; }
h4 { font-size: .95rem; margin: 1.25rem 0 .5rem; }
p { margin: .4rem 0; max-width: 46rem; }
a { color: inherit; text-underline-offset: .2em; }
small, figcaption, caption, .soft { color: var(--soft); }
small, figcaption, .soft { font-size: .85rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1rem 0 0; padding: 0; list-style: none; }
nav a { font-size: .9rem; display: inline-block; padding: .2rem 0; }

.verdicts { list-style: none; margin: 1rem 0 0; padding: 0; }
.verdicts > li { padding: .85rem 0 1rem; border-top: 1px solid var(--line); }
.verdicts > li:first-child { border-top: 0; }
.verdicts h3 { margin: 0; font-size: .85rem; font-weight: 600; color: var(--soft); }
.verdicts p { font-size: 1.1rem; line-height: 1.4; margin: .1rem 0 .6rem; max-width: none; text-wrap: pretty; }
.verdicts .others { font-size: .9rem; margin: .5rem 0 0; color: var(--soft); }
.strip { position: relative; display: flex; height: 1.7rem; gap: 2px; }
.strip > span {
  min-width: 0; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; font-size: .8rem; line-height: 1.55rem;
  padding: 0 .4rem; border-bottom: 3px solid var(--c); background: color-mix(in srgb, var(--c) 14%, transparent);
}
.strip > .tie {
  border-image: repeating-linear-gradient(90deg, var(--c) 0 8px, var(--d) 8px 16px) 1; background: var(--wash);
}
.strip > .alone { background: transparent; color: var(--soft); }
.ticks {
  position: relative; height: 1.1rem; font-size: .72rem; color: var(--soft); font-variant-numeric: tabular-nums;
}
.ticks > span { position: absolute; transform: translateX(-50%); white-space: nowrap; }

.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr)); gap: 2rem 2.5rem; }
.plots > figure { max-width: 32rem; }
figure { margin: 0; min-width: 0; }
.plots figcaption { color: var(--ink); font-weight: 600; font-size: 1rem; margin-bottom: .25rem; }
.plots figcaption small { font-weight: 400; margin-left: .4rem; }

.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.pictures .panels { grid-template-columns: repeat(auto-fill, minmax(min(46%, 16rem), 1fr)); gap: .75rem; }
.panels figure { display: flex; flex-direction: column; justify-content: flex-end; }
.panels img { display: block; width: 100%; height: auto; background: var(--wash); }
.panels figcaption { margin-top: .3rem; line-height: 1.35; }
.panels figcaption b { color: var(--ink); font-weight: 600; display: block; }
audio { display: block; width: 100%; margin-top: .4rem; height: 40px; }
.lost { padding: 1rem; background: var(--wash); color: var(--soft); font-size: .85rem; }

.scroll { overflow-x: auto; border: 1px solid var(--line); margin: .75rem 0; }
table {
  border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal;
}
caption { text-align: left; padding: .5rem .75rem; font-size: .85rem; }
th, td { padding: .35rem .75rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--paper); min-width: 7rem; }
@media (min-width: 40rem) { tbody th { min-width: 11rem; } }
td:last-child:not(.number) { min-width: 14rem; }
.number { text-align: right; white-space: nowrap; }
.number small { display: block; }
thead .number { white-space: normal; }
.usage { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: 1rem 1.5rem; }
.usage > figure { max-width: 18rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; padding: .3rem 0; font-weight: 600; font-size: .95rem; }
dl {
  display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .25rem 1rem; font-size: .85rem;
  margin: .5rem 0;
}
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; }
footer { margin-top: 3rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@media print { .scroll { overflow: visible; } audio { display: none; } }
"""
