"""Variants to test, fewer where a test takes long."""

from collections.abc import Iterable, Sequence

import pytest

import zoo


def distinct() -> list[str]:
    """Return the variants whose small networks differ: one for each architecture, downsampling and configuration."""
    chosen: dict[tuple, str] = {}
    for name in zoo.list_tokenizers():
        variant = zoo.info(name)
        config = {**variant.config, **variant.builder.small}
        shape = (variant.spec.downsample, variant.spec.resolution, variant.spec.num_tokens, variant.spec.num_codebooks)
        chosen.setdefault((variant.builder, shape, repr(sorted(config.items()))), name)
    return sorted(chosen.values())


def slow_but(quick: tuple[str, ...], names: Sequence[str]) -> list:
    """Return the parameters of a test that takes long: all names but those in `quick` are marked slow."""
    assert set(quick) <= set(names)
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


def one_each() -> tuple[str, ...]:
    """Return one variant of each architecture."""
    return tuple({zoo.info(name).builder: name for name in distinct()}.values())


def traceable(names: Iterable[str]) -> tuple[str, ...]:
    """Return the variants that run without values, in graphs and on fake devices: not those with k-means in them."""
    return tuple(name for name in names if zoo.info(name).builder.own_codebook is None)
