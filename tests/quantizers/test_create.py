"""Quantizers by name: every family is found, and what does not fit is named."""

import subprocess
import sys

import pytest
import torch

from tests.support.quantizers import DIM, PACKAGE, latents
from zoo.errors import InputError
from zoo.quantizers import AdditiveVQ, ResidualVQ, VectorQuantizePytorch, VectorQuantizer, create

OURS = {
    "vq": {"codebook_size": 16, "distance": "cosine"},
    "residual-vq": {"codebook_size": 16, "num_quantizers": 2, "update": "ema"},
    "product-vq": {"codebook_sizes": (8, 8), "distance": "cosine"},
    "additive-vq": {"codebook_sizes": (8, 8)},
    "factorized-vq": {"codebook_sizes": (8, 8)},
    "shared-mapping-vq": {"dims": (4, 2), "codebook_size": 16},
    "sim-vq": {"codebook_size": 16},
    "gumbel-vq": {"codebook_size": 16},
    "ibq": {"codebook_size": 16},
    "fsq": {"levels": (4, 3, 3, 3, 3, 3)},
    "lfq": {},
    "grouped-lfq": {"num_groups": 2},
    "bsq": {},
    "dimensionwise": {"bits": 3},
}


@pytest.mark.parametrize("name", OURS)
def test_every_family_of_ours_is_built_by_name(name):
    quantizer = create(name, DIM, **OURS[name]).eval()
    assert quantizer.dim == DIM
    output = quantizer(latents(2, 5))
    assert torch.equal(quantizer.codes_to_latent(output.codes), output.quantized)


@pytest.mark.parametrize("name", PACKAGE)
def test_every_class_of_the_package_is_built_by_name(name):
    quantizer = create(f"vector-quantize-pytorch/{name.partition(',')[0]}", DIM, **PACKAGE[name])
    assert isinstance(quantizer, VectorQuantizePytorch)
    assert quantizer.dim == DIM


def test_options_reach_the_quantizer():
    quantizer = create("residual-vq", 4, codebook_size=(16, 8), num_quantizers=2, quantizer_dropout=True, decay=0.5)
    assert isinstance(quantizer, ResidualVQ) and quantizer.quantizer_dropout
    assert [layer.decay for layer in quantizer.layers] == [0.5, 0.5]
    additive = create("additive-vq", 4, codebook_sizes=(8, 8), beam_width=3)
    assert isinstance(additive, AdditiveVQ) and additive.beam_width == 3
    assert isinstance(create("vq", 4, codebook_size=8), VectorQuantizer)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("residual_vq", "'residual-vq'"),
        ("groupedlfq", "'grouped-lfq'"),
        ("vector-quantize-pytorch/ResidualFsq", "'ResidualFSQ'"),
        ("vector-quantize-pytorch/EvoLFQ", "'LFQ'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_near_ones(name, near):
    with pytest.raises(InputError, match=f"unknown quantizer.*did you mean.*{near}"):
        create(name, DIM)


def test_a_name_that_is_near_none_is_refused_with_all():
    with pytest.raises(InputError, match=r"expected one of vq, residual-vq, .*vector-quantize-pytorch/VectorQuantize"):
        create("zzzz", DIM)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vq", {"codebook_size": 8, "size": 9}, "vq has no argument size; it accepts codebook_size, distance, update"),
        ("residual-vq", {"codebook_size": 8, "num_quantizers": 2, "levels": 3}, "no argument levels.*decay"),
        ("vq", {}, "vq needs codebook_size"),
        ("fsq", {"levels": (4, 3)}, "for dim 6, got those for 2"),
        ("vq", {"codebook_size": 0}, "codebook_size"),
        ("vector-quantize-pytorch/FSQ", {"level": [4, 3]}, "FSQ has no argument level; it accepts levels"),
        ("vector-quantize-pytorch/FSQ", {}, "FSQ needs levels"),
        ("vector-quantize-pytorch/FSQ", {"levels": [4, 2]}, "FSQ refuses dim 6 with .*2.*preserve_symmetry"),
        ("vector-quantize-pytorch/ResidualVQ", {"codebook_size": 8, "decays": 1}, "no argument decays.*decay"),
        ("vector-quantize-pytorch/VectorQuantize", {"codebook_size": 8, "commitment_weight": 2.0}, "no argument"),
        ("vector-quantize-pytorch/LFQ", {"codebook_size": 8, "commitment_loss_weight": 2.0}, "no argument"),
        ("vector-quantize-pytorch/LFQ", {"codebook_size": 9}, "power of 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_what_is_accepted(name, arguments, message):
    with pytest.raises(InputError, match=message):
        create(name, DIM, **arguments)


def test_the_package_is_imported_when_the_first_of_its_quantizers_is_built():
    program = """
import sys
from zoo.quantizers import create
create("vq", 4, codebook_size=8)
assert "vector_quantize_pytorch" not in sys.modules
create("vector-quantize-pytorch/FSQ", 4, levels=[3, 3, 3, 3])
assert "vector_quantize_pytorch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
