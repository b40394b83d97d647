"""The model cards: one for every variant, with metadata that the Hub takes and the facts that the registry knows."""

from functools import cache

import pytest
from huggingface_hub import ModelCard

import zoo
from tests.support.paths import ROOT
from zoo.hub import HUB_LICENSES

FOLDER = ROOT / "hub_cards"
TASKS = {
    "image": {"image-to-image", "image-feature-extraction", "unconditional-image-generation"},
    "audio": {"audio-to-audio", "feature-extraction"},
    "video": {"video-to-video", "feature-extraction"},
    "structure": {"feature-extraction", "other"},
}
FAMILIES = sorted({zoo.info(name).card for name in zoo.list_tokenizers()})


@cache
def card(family: str) -> ModelCard:
    return ModelCard.load(FOLDER / f"{family}.md")


def variants(family: str) -> list:
    return [variant for name in zoo.list_tokenizers() if (variant := zoo.info(name)).card == family]


def test_every_card_belongs_to_a_variant():
    assert sorted(path.stem for path in FOLDER.glob("*.md")) == FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_metadata_is_what_the_hub_takes(family):
    data = card(family).data
    assert data.library_name == "tokenizer-zoo"
    modalities = {variant.spec.modality for variant in variants(family)}
    assert any(data.pipeline_tag in TASKS[modality] for modality in modalities)
    assert isinstance(data.tags, list) and all(isinstance(tag, str) for tag in data.tags)
    if data.license == "other":
        assert data.license_name and data.license_link
    else:
        assert data.license in (*HUB_LICENSES, "unknown")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_names_its_variants_and_says_what_their_licenses_forbid(family):
    text = card(family).text
    for variant in variants(family):
        assert variant.name in text
        if not variant.spec.allows_commercial_use:
            assert "commercial" in text
    for heading in ("## Use", "## Licenses"):
        assert heading in text or family.endswith("-nano")
