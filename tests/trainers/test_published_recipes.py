"""The recipes that ship with zoo, on networks and discriminators made small."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.support.recipes import losses
from zoo.trainers import list_recipes, load_recipe, train
from zoo.trainers.losses.perceptual import PERCEPTUAL_LOSSES
from zoo.trainers.recipe import Recipe

SMALL_DISCRIMINATORS = {
    "patchgan": {"width": 8},
    "blur_patchgan": {"width": 32, "num_stages": 2},
    "wavtokenizer_period": {"periods": [2, 3], "widths": [4, 8]},
    "multi_period": {"periods": [2, 3], "widths": [4, 8]},
    "multi_scale": {"width": 16},
    "multi_scale_stft": {"windows": [512], "width": 4},
    "multi_resolution_stft": {"windows": [512], "width": 4},
    "dac": {"windows": [512], "width": 4, "period_widths": [4, 8]},
    "bigcodec_period": {"periods": [2, 3], "widths": [4, 8]},
    "bigcodec_spectrogram": {"windows": [128], "width": 4},
}
SMALL_SIGNALS = {
    "image": {"data.crop": 32, "spec.resolution": [32, 32]},
    "audio": {"data.seconds": 0.5},
    "video": {"data.crop": 32, "data.frames": 5},
    "structure": {"data.max_residues": 24},
}
FOLDERS = {"image": "images", "audio": "speech", "video": "clips", "structure": "chains"}


def made_small(recipe: Recipe) -> dict[str, Any]:
    """Overrides for two steps, the second of them adversarial; the rest is the recipe's."""
    variant = zoo.info(recipe.tokenizer)
    values = {f"config.{key}": value for key, value in variant.builder.small.items()}
    if variant.spec.modality == "image" and (variant.spec.scales or not variant.spec.downsample):
        # One size of pictures is all that it takes, and large ones in bfloat16 are slow on a CPU.
        values |= {"batch_size": 1, "accumulate": 1, "precision": "32-true"}
    else:
        values |= {"batch_size": 2, **SMALL_SIGNALS[variant.spec.modality]}
    if variant.spec.modality == "audio":
        values["spec.codebook_sizes"] = [16] * variant.spec.num_codebooks
    if variant.spec.quantizer == "ibq":
        values["spec.codebook_sizes"] = [1024]  # all of them have a gradient
    # What others look through, networks whose weights are not at hand, looks at slopes here.
    values["losses"] = {
        "multi_scale_gradient" if name in PERCEPTUAL_LOSSES else name: weight for name, weight in recipe.losses.items()
    }
    if recipe.perturbation:
        values["perturbation.beta"] = 0.5  # one item of the two
    if recipe.adversarial:
        values["adversarial.start_step"] = 1
        for name in recipe.adversarial.discriminators:
            values[f"adversarial.discriminators.{name}.arguments"] = SMALL_DISCRIMINATORS[name]
    return values | {"steps": 2, "data.workers": 0, "log_every": 1, "validation.items": 1}


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_has_the_name_of_the_variant_that_it_trains_unless_it_changes_it(name):
    recipe = load_recipe(name)
    assert recipe.tokenizer in zoo.list_tokenizers()
    assert recipe.tokenizer == name or (recipe.spec and name not in zoo.list_tokenizers())


@pytest.mark.usefixtures("tiny_teachers")
@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_trains(name, request, tmp_path):
    recipe = load_recipe(name)
    modality = zoo.info(recipe.tokenizer).spec.modality
    data = request.getfixturevalue(FOLDERS[modality])
    values = made_small(recipe)
    if recipe.weights:
        values["weights"] = None  # which are not at hand
    if modality == "image" and recipe.data.inputs:
        values["data.inputs"] = str(data / "train")
    result = train(name, values, data=data, run_dir=tmp_path / "run")
    logged = losses(tmp_path / "run")
    terms = set(values["losses"]) | {f"{teacher}_representation_loss" for teacher in recipe.teachers}
    for family, options in recipe.adversarial.discriminators.items() if recipe.adversarial else ():
        terms |= {f"{family}_generator_loss", f"{family}_discriminator_loss"}
        terms |= {f"{family}_{term}" for term in ("feature_matching", "lecam") if getattr(options, term)}
    assert terms <= logged[2].keys()
    assert all(math.isfinite(value) for step in logged.values() for value in step.values())
    assert zoo.load(result.weights).spec.name == recipe.tokenizer


def test_the_script_for_the_weights_that_ship_trains_all_of_them():
    script = (Path(zoo.__file__).parents[1] / "trainers" / "nano.sh").read_text(encoding="utf-8")
    named = re.findall(r"(\w+)/([\w-]+-nano)\b", script)
    assert sorted(name for _, name in named) == [name for name in list_recipes() if name.endswith("-nano")]
    folders = {"image": "images", "audio": "speech", "video": "video", "structure": "proteins"}
    assert all(folder == folders[zoo.info(name).spec.modality] for folder, name in named)
