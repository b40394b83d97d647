"""Training with another quantizer than the tokenizer's own, by a recipe."""

import pytest

import zoo
from tests.support.quantizers import PACKAGE
from tests.support.recipes import VQ_IMAGE, losses
from zoo.trainers import train

# With the name of a loss of their own, if they have any.
TRAINED = {
    "ResidualFSQ": None,
    "GroupedResidualVQ": "commitment_loss",
    "ResidualLFQ": "entropy_loss",
    "RandomProjectionQuantizer": None,
    "LatentQuantize": "codebook_loss",
    "SimVQ": "quantization_loss",
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_recipe_trains_with_a_quantizer_of_the_package(name, tmp_path, images):
    own, arguments = TRAINED[name], PACKAGE[name]
    values = VQ_IMAGE | {
        "quantizer": {"name": f"vector-quantize-pytorch/{name}", **arguments},
        "losses": {"l2": 1.0, **({own: 0.1} if own else {})},
        "steps": 2,
    }
    del values["spec.codebook_sizes"]
    result = train({}, values, data=images, run_dir=tmp_path / "run")
    assert own is None or own in losses(tmp_path / "run")[2]
    tokenizer = zoo.load(result.weights)
    expected = zoo.requantize(zoo.create("llamagen-vq-8"), f"vector-quantize-pytorch/{name}", **arguments)
    assert tokenizer.spec == expected.spec
    assert type(tokenizer.quantizer.module) is type(expected.quantizer.module)


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        ({"levels": [4, 4]}, "expected the name of a quantizer, got None"),
        ({"name": "fsk"}, "unknown quantizer 'fsk'; did you mean 'fsq'"),
        ({"name": "lfq", "bits": 3}, "lfq has no argument bits"),
        ({"name": "vq", "codebook_size": 2**40}, "expected quantizer.codebook_size as a whole number of at most"),
    ],
)
def test_a_recipe_with_a_quantizer_that_there_is_not_is_refused(quantizer, message, images, tmp_path):
    with pytest.raises(zoo.InputError, match=message):
        train({}, VQ_IMAGE | {"quantizer": quantizer}, data=images, run_dir=tmp_path / "run")
