"""The registry and its index."""

import json

import pytest

import zoo
from zoo import catalog, facts, index, registry


def test_the_index_names_every_variant_alias_and_architecture_with_its_module():
    variants = {variant.name: variant.module for variant in registry.import_models()}
    architectures = {
        each.__name__: each.__module__ for each in registry.architectures() if each.__module__.startswith("zoo.")
    }
    assert index.read().variants == variants
    assert index.read().aliases == {alias: name for alias, name in registry.aliases().items() if name in variants}
    assert index.read().architectures == architectures


def test_the_index_is_what_the_model_files_make_of_it():
    assert json.loads(index.PATH.read_text(encoding="utf-8")) == json.loads(facts.make_index())


def test_the_catalog_is_what_the_model_files_make_of_it():
    assert json.loads(index.CATALOG.read_text(encoding="utf-8")) == json.loads(facts.make_catalog())


def test_a_plug_in_is_in_the_catalog_beside_the_variants_of_zoo(registrations):
    zoo.register(zoo.replace(zoo.info("wetok-nano"), "theirs", package="their_package.models"))
    zoo.alias("ours-by-another-name", "wetok-nano")
    entries = {entry.name: entry for entry in catalog.catalog(modality="Image")}
    assert entries["theirs"].parameters == entries["wetok-nano"].parameters
    assert entries["wetok-nano"].aliases == ("ours-by-another-name",)
    assert catalog.facts("ours-by-another-name") == catalog.facts("wetok-nano")


@pytest.mark.parametrize("taken", ["wetok-nano", "wetok"])
def test_a_name_is_taken_once(registrations, taken):
    variant = zoo.info("llamagen-vq-16")
    with pytest.raises(ValueError, match=f"tokenizer '{taken}' is registered twice"):
        zoo.register(zoo.replace(variant, taken))
    with pytest.raises(ValueError, match=f"tokenizer '{taken}' is registered twice"):
        zoo.alias(taken, variant.name)


def test_a_variant_that_another_package_makes_of_ours_has_its_own_package_and_no_card_of_ours():
    ours = zoo.info("wetok-nano")
    theirs = zoo.replace(ours, "theirs", package="their_package.models")
    assert (ours.package, theirs.package) == ("zoo", "their_package")
    assert ours.card is not None
    assert theirs.card is None
