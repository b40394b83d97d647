"""Variants to test, fewer where a test takes long."""

import pytest

import zoo


def distinct() -> list[str]:
    """Variants whose small networks differ: one for each architecture, downsampling and configuration."""
    chosen: dict[tuple, str] = {}
    for name in zoo.list_tokenizers():
        variant = zoo.info(name)
        config = {**variant.config, **variant.builder.small}
        shape = (variant.spec.downsample, variant.spec.resolution, variant.spec.num_tokens, variant.spec.num_codebooks)
        chosen.setdefault((variant.builder, shape, repr(sorted(config.items()))), name)
    return sorted(chosen.values())


def quick_first(names: list[str]) -> list:
    """Parameters of a test that takes long: one variant of each architecture, and the others marked slow."""
    seen: set[type] = set()
    parameters = []
    for name in names:
        builder = zoo.info(name).builder
        parameters.append(pytest.param(name, marks=pytest.mark.slow if builder in seen else ()))
        seen.add(builder)
    return parameters
