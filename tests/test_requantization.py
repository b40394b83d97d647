"""Another quantizer in a tokenizer: its codes, saving and loading."""

import json

import pytest
import torch

import zoo
from tests.support.quantizers import DIM, PACKAGE
from zoo.testing import signal

NAMED = {f"vector-quantize-pytorch/{name}": arguments for name, arguments in PACKAGE.items()}
OURS = {"residual-vq": {"codebook_size": 16, "num_quantizers": 2}, "lfq": {}, "fsq": {"levels": [4, 3, 3, 3, 3, 3]}}
ANOTHER = pytest.mark.parametrize("title", NAMED | OURS)


def requantized(title: str) -> zoo.Tokenizer:
    torch.manual_seed(0)
    variant = zoo.info("llamagen-vq-8")
    tokenizer = variant.builder(variant.spec, **{**variant.config, **variant.builder.small, "dim": DIM})
    arguments = (NAMED | OURS)[title]
    return zoo.requantize(tokenizer, title.partition(",")[0], **arguments).eval()


@ANOTHER
def test_codes_and_spec_are_those_of_the_quantizer(title):
    tokenizer = requantized(title)
    codes = tokenizer.encode(signal(tokenizer, 2, (32, 48)))
    sizes = tokenizer.quantizer.codebook_sizes
    assert tokenizer.spec.codebook_sizes == sizes
    assert tokenizer.spec.quantizer == title.partition(",")[0]
    assert codes.shape[:2] == (2, len(sizes))
    assert (codes < torch.tensor(sizes)[:, None, None]).all()
    assert tokenizer.decode(codes).isfinite().all()
    zoo.codes.flatten(codes, sizes)


@ANOTHER
def test_what_is_saved_comes_back_with_its_quantizer(title, tmp_path):
    if "spherical" in title:
        pytest.skip("the package scales values of the whole codebook by a function, which is neither saved nor needed")
    tokenizer = requantized(title)
    x = signal(tokenizer, 2, (32, 32))
    tokenizer.save_pretrained(tmp_path)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        loaded = zoo.load(path)
        assert loaded.spec == tokenizer.spec
        assert torch.equal(loaded.encode(x), tokenizer.encode(x))
        torch.testing.assert_close(loaded.reconstruct(x), tokenizer.reconstruct(x))


def test_residual_codebooks_decode_first_few_alone():
    tokenizer = requantized("vector-quantize-pytorch/ResidualFSQ")
    codes = tokenizer.encode(signal(tokenizer, 1, (32, 32)))
    assert torch.equal(tokenizer.decode(codes[:, :1]), tokenizer.decode(codes, num_codebooks=1))
    assert not tokenizer.spec.default_codebooks
    assert not requantized("vector-quantize-pytorch/GroupedResidualFSQ").spec.residual


def test_the_last_of_several_quantizers_is_the_one_that_is_saved(tmp_path):
    tokenizer = requantized("vector-quantize-pytorch/ResidualFSQ")
    zoo.requantize(tokenizer, "grouped-lfq", num_groups=2).save_pretrained(tmp_path)
    assert zoo.load(tmp_path).spec == tokenizer.spec
    assert tokenizer.spec.codebook_sizes == (8, 8) and not tokenizer.spec.residual


def test_a_configuration_with_a_quantizer_that_there_is_not_is_refused(tmp_path):
    requantized("vector-quantize-pytorch/FSQ").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    right = config["config"]["quantizer"]
    for quantizer, message in (
        ("FSQ", "expected quantizer as its name, arguments and what it replaces, got 'FSQ'"),
        (right | {"name": "vector-quantize-pytorch/FSK"}, "did you mean 'FSQ'"),
        (right | {"arguments": {"levels": [4, 2**40]}}, "expected levels as an integer of at most"),
        (right | {"arguments": {"levels": [4, 4]}}, "spec: is not that of a llamagen-vq-8 with the quantizer"),
        (right | {"arguments": {"bananas": 3}}, "FSQ has no argument bananas"),
        (right | {"replaces": {"bananas": 3}}, "spec of TokenizerSpec: has an unknown key 'bananas'"),
    ):
        config["config"]["quantizer"] = quantizer
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(zoo.CheckpointError, match=message):
            zoo.load(tmp_path)
