"""A view of protein chains that turns by itself and by hand: a canvas, its data, and the script that draws it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.pictures.markup import Markup, element
from zoo.pictures.plots import trace_plot
from zoo.pictures.structures import LONGEST_BOND, bezier_curves, curve_points

PIECES_PER_BOND = 3


def turning_view(chains: Sequence[Tensor], description: str) -> Markup:
    """Write a view of chains on one another; the page needs `SCRIPT` and `STYLE`, and shows a still where none runs.

    Args:
        chains: CA atoms as `zoo.pictures.structures` has them, in one frame of reference: the original, a wide band in
            `--ghost`, then others, in the colours of the rainbow from N to C.
        description: what the view shows, for readers who cannot see it.
    """
    first = chains[0]
    center = first[first.isfinite().all(dim=1)].mean(dim=0)
    pieces = json.dumps([_pieces(chain - center) for chain in chains], separators=(",", ":"))
    still = trace_plot([(chain, "var(--t0)" if number else "var(--ghost)") for number, chain in enumerate(chains)], "")
    canvas = element("canvas", class_="turning", role="img", aria_label=description, data_chains=pieces)
    return Markup(canvas + element("noscript", still))


def _pieces(chain: Tensor) -> list[list[float]]:
    """Return the curve through a chain as short straight pieces: x, y, z of both ends, and the place from 0 to 1."""
    curves = curve_points(bezier_curves(chain).numpy(), PIECES_PER_BOND + 1)  # [bonds, points, 3]
    near = torch.nonzero(chain.diff(dim=0).norm(dim=-1) < LONGEST_BOND).flatten().tolist()  # NaN is not less
    last = max(len(chain) - 2, 1)
    return [
        [round(value, 1) for value in (*start, *end)] + [round(bond / last, 3)]
        for bond in near
        for start, end in zip(curves[bond, :-1].tolist(), curves[bond, 1:].tolist(), strict=True)
    ]


STYLE = """
.turning { display: block; width: 100%; aspect-ratio: 6 / 5; cursor: grab; touch-action: pan-y; }
"""

SCRIPT = """
for (const canvas of document.querySelectorAll("canvas.turning")) {
  const chains = JSON.parse(canvas.dataset.chains), context = canvas.getContext("2d");
  const pieces = chains.flatMap((members, chain) => members.map(piece => ({chain, piece, depth: 0})));
  const reach = Math.max(1, ...pieces.map(({piece}) => Math.hypot(piece[0], piece[1], piece[2])));
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let yaw = 0.6, pitch = 0.35, held = null, before = null;

  function draw() {
    const ratio = devicePixelRatio, width = canvas.clientWidth * ratio, height = canvas.clientHeight * ratio;
    if (canvas.width !== Math.round(width) || canvas.height !== Math.round(height)) {
      [canvas.width, canvas.height] = [Math.round(width), Math.round(height)];
    }
    const scale = 0.5 * Math.min(width, height) / reach, ghost = getComputedStyle(canvas).getPropertyValue("--ghost");
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const place = (x, y, z) => {
      const turned = z * cy - x * sy;
      return [width / 2 + scale * (x * cy + z * sy), height / 2 - scale * (y * cp - turned * sp), y * sp + turned * cp];
    };
    for (const item of pieces) {
      const [x0, y0, z0, x1, y1, z1] = item.piece;
      [item.start, item.end] = [place(x0, y0, z0), place(x1, y1, z1)];
      item.depth = (item.start[2] + item.end[2]) / 2 - (item.chain ? 0 : 2);
    }
    pieces.sort((a, b) => a.depth - b.depth);
    context.clearRect(0, 0, width, height);
    context.lineCap = "round";
    for (const {chain, piece, start, end, depth} of pieces) {
      const near = 0.5 + 0.5 * depth / reach;
      context.strokeStyle = chain ? `hsl(${240 * (1 - piece[6])} 75% ${38 + 18 * near}%)` : ghost;
      context.lineWidth = (chain ? 3.5 : 9) * (0.6 + 0.8 * near) * width / 400;
      context.beginPath();
      context.moveTo(start[0], start[1]);
      context.lineTo(end[0], end[1]);
      context.stroke();
    }
  }
  function step(now) {
    if (held === null && !still.matches && before !== null) yaw += 0.0006 * Math.min(now - before, 100);
    before = now;
    const box = canvas.getBoundingClientRect();
    if (box.bottom > 0 && box.top < innerHeight) draw();
    requestAnimationFrame(step);
  }
  canvas.addEventListener("pointerdown", event => {
    held = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", event => {
    if (held === null) return;
    yaw += (event.clientX - held[0]) / 100;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + (event.clientY - held[1]) / 100));
    held = [event.clientX, event.clientY];
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = null; });
  requestAnimationFrame(step);
}
"""
