"""Recipes: read, changed, refused, and without torch where an error needs none."""

import dataclasses
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.recipes import AUDIO, IMAGE
from zoo.errors import InputError
from zoo.trainers import load_recipe, train
from zoo.trainers.recipe import AdamW, Adversarial


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stepz": 3}, r"unknown key stepz; accepted: .*steps"),
        ({"data.seconds": 1}, r"unknown key data.seconds; accepted: cache_gib, crop"),
        ({"optimizer.lr": 1}, r"unknown key optimizer.lr; accepted: betas"),
        ({"config.depth": 1}, r"unknown key config.depth; accepted: dim"),
        ({"spec.rate": 1}, r"unknown key spec.rate"),
        ({"steps": 1.5}, r"expected steps as a whole number, got 1.5"),
        ({"steps": 0}, r"expected steps of at least 1, got 0"),
        ({"data.scale": [1, 2, 3]}, r"expected data.scale as \[a number, a number\]"),
        ({"optimizer.learning_rate": "fast"}, r"expected optimizer.learning_rate as a number, got 'fast'"),
        ({"optimizer.learning_rate": -1e-3}, r"expected learning_rate of an optimizer >= 0, got -0.001"),
        ({"optimizer.betas": [0.9, 1.5]}, r"expected betas of an optimizer from 0 to below 1, got \[0.9, 1.5\]"),
        ({"optimizer.clip_norm": 0}, r"expected clip_norm of an optimizer > 0 \(.inf: none\), got 0"),
        ({"optimizer.ema_decay": 1.5}, r"expected optimizer.ema_decay from 0 to below 1, got 1.5"),
        ({"validation.examples": -1}, r"validation.examples >= 0, got 3, 2 and -1"),
        ({"data.workers": -1}, r"expected data.cache_gib and data.workers >= 0, got 2.0 and -1"),
        (
            {"tokenizer": "one-d-piece-nano", "config": {"patch": 12}},
            r"a patch of 2, 4, 8 or 16 pixels that divides 64",
        ),
        ({"precision": "16"}, r"expected precision as '32-true' or 'bf16-mixed'"),
        ({"config.width": "wide"}, r"expected config.width as a whole number"),
        (
            {"losses.mel": 1},
            r"unknown loss 'mel'; for image: l1, l2, psnr, ssim, .*; of the quantizer: commitment_loss",
        ),
        ({"validation.metrics": ["stoi"]}, r"unknown metric 'stoi' for image; there are psnr"),
        ({"validation.best": "lpips"}, r"expected validation.best among psnr, ssim, got 'lpips'"),
        ({"adversarial.start_step": 1}, r"adversarial.discriminators missing"),
        ({"adversarial.discriminators": {}}, r"expected a discriminator in adversarial.discriminators"),
        (
            {"adversarial.discriminators.patchgan.weight": 1, "adversarial.start_step": -5},
            r"expected adversarial.start_step of at least 0, got -5",
        ),
        ({"adversarial.discriminators.patchgan": {"weight": 1, "wait": 1}}, r"unknown key adversarial.*patchgan.wait"),
        ({"adversarial.discriminators.patchgan": {}}, r"adversarial.discriminators.patchgan.weight missing"),
        (
            {"adversarial.discriminators.multi_period.weight": 1},
            r"unknown discriminator 'multi_period' for wetok",
        ),
        (
            {"adversarial.discriminators.patchgan": {"weight": 1, "arguments": {"depth": 1}}},
            r"unknown key adversarial.discriminators.patchgan.arguments.depth; accepted: num_layers, width",
        ),
        (
            {"adversarial.discriminators.patchgan": {"weight": 1, "loss": "wasserstein"}},
            r"expected adversarial.discriminators.patchgan.loss among hinge, .*, got 'wasserstein'",
        ),
    ],
)
def test_a_recipe_that_cannot_be_used_is_named(change, message, images, tmp_path):
    with pytest.raises(InputError, match=message):
        train({}, {**IMAGE, **change}, data=images, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_overrides_are_read_as_yaml():
    recipe = load_recipe("wetok-nano", ["optimizer.learning_rate=3e-5", "data.flip=false", "data.scale=[0.25, 1]"])
    assert recipe.optimizer.learning_rate == 3e-5
    assert recipe.data.flip is False
    assert recipe.data.scale == (0.25, 1.0)


def test_keys_of_an_optimizer_that_are_not_written_have_the_declared_values():
    judge = {"patchgan": {"weight": 1.0}}
    for optimizer in ({}, {"learning_rate": 3e-5}):
        recipe = load_recipe({}, {**IMAGE, "adversarial": {"discriminators": judge, "optimizer": optimizer}})
        expected = Adversarial(discriminators={"patchgan": recipe.adversarial.discriminators["patchgan"]}).optimizer
        assert expected == AdamW(learning_rate=1e-4, warmup_steps=0, weight_decay=0.0)
        assert recipe.adversarial.optimizer == dataclasses.replace(expected, **optimizer)
    assert load_recipe({}, {**IMAGE, "optimizer": {"learning_rate": 3e-5}}).optimizer.warmup_steps == 200


@pytest.mark.parametrize(
    "values",
    [
        AUDIO,
        {**IMAGE, "weights": "start.safetensors", "freeze": ["encoder", "decoder.mid"]},
        {**IMAGE, "teachers.semantic": {"teacher": "dinov2-small", "weight": 0.5}},
        {**AUDIO, "perturbation": {"beta": 0.5, "anneal": [2, 4]}},
    ],
)
def test_a_written_recipe_reads_back(values, tmp_path):
    recipe = load_recipe({}, values)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


HEAVY = ("torch", "numpy", "lightning_fabric")


def modules_after(code: str) -> set[str]:
    """Names of the heavy modules that a fresh process has imported at the end of `code`."""
    code += f"\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(process.stdout.split())


def error_of(call: str) -> str:
    """Code that makes a call and expects an error of zoo."""
    return f"""
from zoo import trainers
from zoo.errors import ZooError
try:
    {call}
except ZooError:
    pass
else:
    raise AssertionError("no error")
"""


def test_importing_the_trainers_and_listing_recipes_takes_no_torch():
    assert modules_after("import zoo.trainers; assert 'wetok-nano' in zoo.trainers.list_recipes()") == set()


@pytest.mark.parametrize(
    "call",
    [
        "trainers.train('nope', data='x')",
        "trainers.train('nope.yaml', data='x')",
        "trainers.train('wetok-nano', ['stepz=3'], data='x')",
        "trainers.train('wetok-nano', ['stepz'], data='x')",
        "trainers.train('wetok-nano', ['optimizer.lr=3'], data='x')",
        "trainers.train('wetok-nano', ['steps=many'], data='x')",
        "trainers.train('wetok-nano', ['optimizer.betas=[0.9, 1.5]'], data='x')",
        "trainers.train('wetok-nano', ['data=3'], data='x')",
        "trainers.train({'tokenizer': 'wetok-nano'}, data='x')",
        "trainers.train('wetok-nano', ['tokenizer=wetok-nanoo'], data='x')",
    ],
)
def test_an_error_that_the_recipe_alone_has_is_reported_without_torch(call):
    assert modules_after(error_of(call)) == set()


def test_a_missing_package_of_the_extra_is_reported_with_the_command_that_installs_it():
    code = "import sys; sys.modules['lightning_fabric'] = None"
    code += error_of("trainers.train('wetok-nano', data='x')").replace("    pass", "    raise")
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ZooError: training needs lightning_fabric" in process.stderr
    assert process.stderr.rstrip().endswith("pip install 'tokenizer-zoo[train]'")
