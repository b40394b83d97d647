"""Codebooks that are made to resemble a teacher, with small stand-ins for the published ones."""

import pytest
import torch
import torchaudio
from lightning_fabric import Fabric
from safetensors.torch import load_file

import zoo
from tests.support.recipes import AUDIO, IMAGE, VIDEO, losses
from tests.support.runs import without_its_last_checkpoint
from tests.support.teachers import TinyImageTeacher
from zoo.checkpoints import read_checkpoint
from zoo.errors import InputError
from zoo.quantizers import AdditiveVQ, FactorizedVQ, GroupedLFQ, ResidualVQ, VectorQuantizer
from zoo.trainers import create_tokenizer, load_recipe, train
from zoo.trainers.losses.teachers import RepresentationTerms, distillation_loss, info_nce
from zoo.trainers.run_folder import RunFolder
from zoo.trainers.trainer import Trainer

pytestmark = pytest.mark.usefixtures("tiny_teachers")

SEMANTIC = {"teacher": "dinov2-small", "weight": 0.5}
IMAGE_TEACHERS = {**IMAGE, "losses": {"l1": 1.0}, "teachers": {"semantic": SEMANTIC}}
SPEECH_TEACHERS = {**AUDIO, "teachers": {"speech": {"teacher": "hubert-base-ls960", "weight": 2.0}}}
FACTORIZED = {
    "tokenizer": "fqgan-dual-16",
    "spec.resolution": [32, 32],
    "spec.codebook_sizes": [64, 64],
    **{f"config.{key}": value for key, value in zoo.info("fqgan-dual-16").builder.small.items()},
    "losses": {"l1": 1.0},
    "batch_size": 2,
    "steps": 1,
    "data.crop": 32,
}
# A semantic system without a decoder.
SEED = {
    "tokenizer": "seed-2",
    **{f"config.{key}": value for key, value in zoo.info("seed-2").builder.small.items()},
    "config.recovery_layers": 1,
    "losses": {"commitment_loss": 1.0, "codebook_loss": 0.25, "recovery_loss": 1.0},
    "teachers": {"embedding": {"teacher": "clip-vit-huge-patch14-laion2b", "weight": 0.5}},
    "data.crop": 224,
    "optimizer.warmup_steps": 0,
    "batch_size": 2,
    "steps": 1,
    "log_every": 1,
}


@pytest.mark.parametrize("values, folder", [(IMAGE_TEACHERS, "images"), (SPEECH_TEACHERS, "speech")])
def test_the_term_is_logged_and_weighed_and_falls(values, folder, request, tmp_path):
    train({}, {**values, "steps": 12}, data=request.getfixturevalue(folder) / "train", run_dir=tmp_path / "run")
    logged = losses(tmp_path / "run")
    (teacher,) = values["teachers"]
    weights = {**values["losses"], f"{teacher}_representation_loss": values["teachers"][teacher]["weight"]}
    assert logged[1]["loss"] == pytest.approx(sum(weight * logged[1][name] for name, weight in weights.items()))
    assert logged[12][f"{teacher}_representation_loss"] < logged[1][f"{teacher}_representation_loss"] - 0.003


@pytest.mark.parametrize("codebook", [0, 1])
def test_only_the_codebook_that_is_named_learns_from_the_teacher(codebook):
    teachers = {"semantic": {**SEMANTIC, "codebook": codebook}}
    recipe = load_recipe({}, {**FACTORIZED, "teachers": teachers})
    tokenizer = create_tokenizer(recipe).train()
    terms = RepresentationTerms(tokenizer, recipe)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (loss,) = terms(tokenizer(images), images).values()
    loss.backward()
    reached = [
        any(has_gradient(parameter) for parameter in branch.parameters()) for branch in tokenizer.encoder.branches
    ]
    assert reached == [codebook == 0, codebook == 1]
    assert all(parameter.grad is not None for parameter in terms.parameters())


def has_gradient(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def test_the_terms_are_those_of_the_losses_they_are_named_for():
    recipe = load_recipe({}, IMAGE_TEACHERS)
    tokenizer = create_tokenizer(recipe).train()
    terms, images = RepresentationTerms(tokenizer, recipe), torch.rand(2, 3, 16, 16)
    output = tokenizer(images)
    (value,) = terms(output, images).values()
    (loss,) = terms.losses.values()
    expected = info_nce(loss.head(output.latent), TinyImageTeacher("dinov2-small")(images))
    assert value.item() == pytest.approx(expected.item())

    # 60 frames a second at 12 kHz, against the teacher's 50 at 16 kHz.
    rate = {"spec.sample_rate": 12000, "spec.downsample": [200], "config.strides": [5, 5, 8]}
    recipe = load_recipe({}, {**SPEECH_TEACHERS, **rate})
    tokenizer = create_tokenizer(recipe).train()
    terms, audio = RepresentationTerms(tokenizer, recipe), 0.1 * torch.randn(2, 1, 6000)
    output = tokenizer(audio)
    (value,) = terms(output, audio).values()
    (loss,) = terms.losses.values()
    features = loss.teacher(torchaudio.functional.resample(audio, 12000, 16000)).mT
    features = torch.nn.functional.interpolate(features, size=30, mode="linear").mT
    assert output.latent.shape[-1] == 30
    assert value.item() == pytest.approx(distillation_loss(loss.project(output.latent.mT), features).item())


@pytest.mark.parametrize("values, folder", [(IMAGE_TEACHERS, "images"), (SPEECH_TEACHERS, "speech")])
def test_heads_are_resumed_step_for_step_and_not_exported(values, folder, request, tmp_path):
    data, values = request.getfixturevalue(folder) / "train", {**values, "checkpoint_every": 3}
    whole = train({}, values, data=data, run_dir=tmp_path / "whole")
    resumed = without_its_last_checkpoint(whole.run_dir, tmp_path / "resumed")
    train({}, values, data=data, run_dir=resumed)
    assert losses(resumed) == losses(whole.run_dir)
    checkpoints = [read_checkpoint(path) for path in RunFolder(whole.run_dir).steps()]
    assert all(not torch.equal(value, checkpoints[1]["heads"][key]) for key, value in checkpoints[0]["heads"].items())
    assert load_file(whole.weights).keys() == create_tokenizer(load_recipe({}, values)).state_dict().keys()


def test_a_head_takes_the_tokenizers_learning_rate_decay_and_clip(images):
    recipe = load_recipe({}, IMAGE_TEACHERS)
    trainer = Trainer(Fabric(accelerator="cpu"), recipe, create_tokenizer(recipe))
    heads = {id(parameter) for parameter in trainer.losses.parameters()}
    groups = trainer.optimizer.param_groups
    assert heads and heads <= {id(parameter) for group in groups for parameter in group["params"]}
    assert len({group["lr"] for group in groups}) == 1


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {**IMAGE, "teachers.a": {"teacher": "clip", "weight": 1.0}},
            r"unknown teacher 'clip'; zoo has clip-vit-large",
        ),
        ({**IMAGE, "teachers.a": {"teacher": "hubert-base-ls960", "weight": 1.0}}, r"unknown teacher 'hubert"),
        ({**IMAGE, "teachers.a": {**SEMANTIC, "codebook": 1}}, r"expected a codebook from 0 to 0, got 1"),
        ({**IMAGE, "teachers.a": {"teacher": "dinov2-small"}}, r"teachers.a.weight missing"),
        ({**IMAGE, "teachers.a": {**SEMANTIC, "code": 1}}, r"unknown key teachers.a.code; accepted: codebook, teacher"),
        ({**IMAGE, "teachers": {"a.b": SEMANTIC}}, r"expected teachers under names without dots, got a.b"),
        ({**IMAGE, "teachers.a": SEMANTIC, "batch_size": 1}, r"batch_size of at least 2"),
        ({**VIDEO, "teachers.a": SEMANTIC}, r"takes no teachers: they are for audio and for images"),
    ],
)
def test_teachers_that_cannot_be_used_are_named(values, message, tmp_path, images):
    with pytest.raises(InputError, match=message):
        train({}, values, data=images, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Which vectors a codebook has put into the latent


def quantized(quantizer, dim):
    z = torch.randn(2, 5, dim, generator=torch.Generator().manual_seed(0), requires_grad=True)
    output = quantizer(z)
    return z, output


@pytest.mark.parametrize(
    "quantizer, dim", [(VectorQuantizer(6, 8), 6), (FactorizedVQ(6, (8, 8)), 6), (GroupedLFQ(6, 3), 6)]
)
def test_the_vectors_of_codebooks_side_by_side_make_up_the_latent(quantizer, dim):
    _, output = quantized(quantizer, dim)
    parts = [quantizer.vectors_of(i, output.quantized, output.codes) for i in range(quantizer.num_codebooks)]
    assert torch.equal(torch.cat(parts, dim=-1), output.quantized)
    with pytest.raises(InputError, match=f"codebook from 0 to {quantizer.num_codebooks - 1}, got {len(parts)}"):
        quantizer.vectors_of(len(parts), output.quantized, output.codes)


def test_the_first_of_residual_codebooks_has_its_rows_with_the_latents_gradient():
    quantizer = ResidualVQ(6, 8, 3)
    z, output = quantized(quantizer, 6)
    vectors = quantizer.vectors_of(0, output.quantized, output.codes)
    assert torch.equal(vectors, quantizer.layers[0].codes_to_latent(output.codes[..., :1]))
    (vectors * torch.arange(6)).sum().backward()
    assert torch.equal(z.grad, torch.arange(6.0).expand(2, 5, 6))
    with pytest.raises(InputError, match="expected codebook 0"):
        quantizer.vectors_of(1, output.quantized, output.codes)


def test_codebooks_of_a_sum_in_no_order_have_no_vectors_of_their_own():
    quantizer = AdditiveVQ(6, (8, 8))
    _, output = quantized(quantizer, 6)
    with pytest.raises(InputError, match="in no order"):
        quantizer.vectors_of(0, output.quantized, output.codes)


def test_the_published_recipe_of_fqgan_has_its_teacher():
    recipe = load_recipe("fqgan-dual-16")
    assert recipe.teachers["semantic"].weight == 0.5 and recipe.teachers["semantic"].codebook == 1


def test_a_system_that_decodes_to_no_signal_learns_its_embedding_and_the_vectors_behind_its_codes(images, tmp_path):
    result = train({}, {**SEED, "steps": 8}, data=images, run_dir=tmp_path / "run")
    logged = losses(tmp_path / "run")
    for term in ("embedding_representation_loss", "recovery_loss"):
        assert logged[8][term] < logged[1][term]
    assert result.metrics.keys() == {"usage", "perplexity", "entropy", "dead_codes"}
    tokenizer = zoo.load(result.weights)
    codes = tokenizer.encode(torch.rand(1, 3, 224, 224))
    assert tokenizer.features(codes).shape == (1, 1024)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"teachers": {}}, "seed-2 decodes to no signal and so needs teachers to learn from, got none"),
        ({"losses": {"l1": 1.0}}, "unknown loss 'l1'; for image: none, since it decodes to no signal; .*recovery_loss"),
        ({"config.recovery_layers": 0}, "unknown loss 'recovery_loss'"),
        ({"validation.metrics": ["psnr"]}, "seed-2 decodes to no signal that psnr could measure"),
        ({"validation.best": "psnr"}, "validation.best among no metrics, got 'psnr'"),
        (
            {"adversarial.discriminators.patchgan": {"weight": 1.0}},
            "adversarial is for tokenizers that decode to a signal, got seed-2",
        ),
    ],
)
def test_what_needs_a_signal_is_refused_of_a_system_without_one(change, message, images, tmp_path):
    with pytest.raises(InputError, match=message):
        train({}, {**SEED, **change}, data=images, run_dir=tmp_path / "run")
