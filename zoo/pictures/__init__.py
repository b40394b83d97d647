"""Figures of images, sound, video and protein structures, for the demo, the benchmark's report and training.

`plots` draws curves, codebooks and traces as inline SVG, `turning` a view of proteins that turns, `codes` a square for
each
token, `sounds` players, and `markup` writes the elements of an HTML page. They share what `images`, `spectrograms` and
`structures` compute.
"""
