"""A small variant that seems to be one of zoo's own, with weights published by somebody else."""

from __future__ import annotations

from dataclasses import replace

import zoo
from zoo import registry

NAME, REPOSITORY, PUBLISHED = "tiny-wetok", "authors/tiny", "weights/tiny.ckpt"


def register_tiny() -> zoo.Variant:
    """Register `tiny-wetok`: WeTok's code and key map, made small, published by `authors/tiny`."""
    model = registry.info("wetok-imagenet-f16")
    registry.register(
        NAME,
        model.builder,
        spec=replace(model.spec, name=NAME, downsample=(2, 2), weights_license="MIT"),
        config={"multipliers": (1, 1), "width": 32, "num_blocks": 1},
        hub=registry.HubSource(REPOSITORY, PUBLISHED),
        keys=model.keys,
        card="wetok",
        figures={"rFID, ImageNet 256x256": 0.74},
    )
    return registry.info(NAME)
