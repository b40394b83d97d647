"""Figures of images, sound, video and protein structures, for the demo, the benchmark's report and training.

`pages` compares originals and reconstructions on a page (matplotlib), `plots` draws curves, codebooks and traces as
inline SVG, `markup` writes the elements of an HTML page. They share what `images`, `spectrograms` and `structures`
compute. matplotlib is imported when a figure is drawn.
"""
