"""Training that begins unquantized or with all tokens: what the decoder gets until when, and how a run resumes."""

import pytest
import torch
from torch.nn import functional

import zoo
from tests.support.recipes import IMAGE, VQ_IMAGE, losses
from tests.support.runs import without_its_last_checkpoint
from zoo.errors import InputError
from zoo.models.image.one_d_piece import OneDPiece
from zoo.quantizers import VectorQuantizer
from zoo.trainers import train
from zoo.trainers.unquantized import Unquantized

ONE_D_PIECE = {
    "tokenizer": "one-d-piece-nano",
    "config.width": 24,
    "config.num_layers": 1,
    "data.shorter_side": 64,
    "data.crop": 64,
    "losses": {"l2": 1.0},
    "steps": 6,
    "batch_size": 2,
    "log_every": 1,
}


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_latents_come_out_as_they_are_until_a_step(distance):
    quantizer = VectorQuantizer(6, 50, distance=distance)
    z = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain = quantizer(z)
    hook = Unquantized(quantizer, 3)
    quantizer.register_forward_hook(hook)
    expected = functional.normalize(z, dim=-1) if distance == "cosine" else z
    for step in (0, 2):
        hook.step = step
        output = quantizer(z)
        torch.testing.assert_close(output.quantized, expected)
        assert torch.equal(output.codes, plain.codes)
        assert set(output.losses) == set(plain.losses) and not any(output.losses.values())
    ours, theirs = (
        torch.autograd.grad(result.square().sum(), z, retain_graph=True)[0] for result in (output.quantized, expected)
    )
    torch.testing.assert_close(ours, theirs)
    hook.step = 3
    output = quantizer(z)
    assert torch.equal(output.quantized, plain.quantized) and output.losses == plain.losses


def test_a_run_is_quantized_from_its_step_on_and_resumes_step_for_step(images, tmp_path):
    values = {**VQ_IMAGE, "quantize_from": 3, "checkpoint_every": 2}
    whole = train({}, values, data=images / "train", run_dir=tmp_path / "whole")
    assert [value["commitment_loss"] > 0 for _, value in sorted(losses(whole.run_dir).items())] == [
        False,
        False,
        False,
        True,
    ]
    resumed = without_its_last_checkpoint(whole.run_dir, tmp_path / "resumed")
    train({}, values, data=images / "train", run_dir=resumed)
    assert losses(resumed) == losses(whole.run_dir)
    tokenizer = zoo.load(whole.weights)
    with torch.no_grad():
        output = tokenizer(torch.rand(2, 3, 16, 16))
    torch.testing.assert_close(output.latent, tokenizer.embed(output.codes))


def test_tail_tokens_are_dropped_from_a_step_on_and_a_run_resumes_step_for_step(images, tmp_path, monkeypatch):
    given = []

    def forward(self, x, forward=OneDPiece.forward):
        output = forward(self, x)
        if self.training:
            given.append(output.latent.shape[2])
        return output

    monkeypatch.setattr(OneDPiece, "forward", forward)
    values = {**ONE_D_PIECE, "tail_drop_from": 3, "checkpoint_every": 4}
    whole = train({}, values, data=images / "train", run_dir=tmp_path / "whole")
    assert given[:3] == [256, 256, 256] and len(set(given[3:])) > 1
    resumed = without_its_last_checkpoint(whole.run_dir, tmp_path / "resumed")
    train({}, values, data=images / "train", run_dir=resumed)
    assert losses(resumed) == losses(whole.run_dir) and given[6:] == given[4:6]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**IMAGE, "quantize_from": 1}, r"quantize_from is for a VectorQuantizer, got a GroupedLFQ"),
        ({**VQ_IMAGE, "quantize_from": -1}, r"expected quantize_from of at least 0, got -1"),
        (
            {**VQ_IMAGE, "tail_drop_from": 1},
            r"tail_drop_from is for tokenizers that drop tail tokens, got llama",
        ),
        ({**ONE_D_PIECE, "tail_drop_from": -1}, r"expected tail_drop_from of at least 0, got -1"),
    ],
)
def test_a_beginning_that_cannot_be_is_named(values, message, images, tmp_path):
    with pytest.raises(InputError, match=message):
        train({}, values, data=images, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
