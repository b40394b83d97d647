"""The frame of the report: the HTML document, its style and its tables."""

from __future__ import annotations

from zoo.pictures.markup import Markup, element

# Nothing is fetched and no script runs: a browser refuses whatever the page does not hold itself.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def document(title: str, *body: str) -> str:
    """Write a whole page that loads nothing from outside."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    return f'<!doctype html>\n<html lang="en">\n{head}\n{element("body", *body)}\n</html>\n'


def table(caption: str, columns: list[str], rows: list[list[str]], *, numeric_from: int = 1) -> Markup:
    """Write a table that scrolls by itself where the page is narrower.

    Args:
        caption: what the table holds.
        columns: headings.
        rows: of cells; the first cell of a row is its heading.
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
:root {
  --paper: #fcfcfa; --ink: #16181d; --soft: #5a606b; --line: #dcdcd6; --wash: #f1f1ec; --ghost: #c6c6be;
  --t0: #0a5fc2; --t1: #c4430a; --t2: #08794c; --t3: #8438ba; --t4: #bd1e66; --t5: #00757f;
  --b0: #6c727d; --b1: #8c6a12; --b2: #7b4a38; --b3: #4e7350; --b4: #5c5f9e; --b5: #94567c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --ink: #e9e9e4; --soft: #a0a6b0; --line: #33373f; --wash: #1e2127; --ghost: #4b515c;
    --t0: #6cb0ff; --t1: #ff8f5a; --t2: #4fcf96; --t3: #c995f5; --t4: #ff7fb3; --t5: #4fd0da;
    --b0: #9aa1ad; --b1: #d1ae57; --b2: #c79683; --b3: #93bd95; --b4: #a3a7e6; --b5: #d89cc0;
  }
}
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
.curve-name { font-weight: 650; color: var(--c); white-space: nowrap; }
@media (max-width: 40rem) { .curve-name { white-space: normal; } }

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
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text {
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  fill: var(--soft);
}
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .curve { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
svg .bar { stroke: var(--c); stroke-width: 1.25; opacity: .55; }
svg .mark { fill: var(--c); stroke: var(--paper); stroke-width: 1; }
svg .baseline .curve { stroke-width: 1.5; stroke-dasharray: 5 3; }
svg .baseline .mark { fill: var(--paper); stroke: var(--c); stroke-width: 1.5; }
svg .area { fill: color-mix(in srgb, var(--c) 45%, transparent); }
svg .trace { fill: none; stroke-linecap: round; stroke-linejoin: round; }
.legend {
  display: flex; flex-wrap: wrap; gap: .1rem 1rem; list-style: none; margin: .4rem 0 0; padding: 0;
  font-size: .85rem;
}
.legend li { display: flex; align-items: center; gap: .4rem; }
.legend svg { width: 28px; height: 12px; flex: none; }

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
