"""Residual codebooks, the first few of which are a coarser code: what all residual tokenizers have from the base."""

from dataclasses import replace

import pytest
import torch

import zoo
from tests.support.cli import error_line, run
from tests.support.residual import Residual, residual_spec
from zoo import graphs
from zoo.codes import load_codes, save_codes
from zoo.facts import codebooks


def residual(**facts) -> Residual:
    torch.manual_seed(0)
    return Residual(residual_spec(**facts)).eval()


@pytest.fixture
def sound() -> torch.Tensor:
    return 0.3 * torch.randn(2, 1, 1000, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("facts", [{}, {"default_codebooks": 2}, {"codebook_sizes": (16, 8, 4)}])
def test_a_residual_tokenizer_keeps_the_contracts(facts):
    zoo.testing.check(residual(**facts))


@pytest.mark.parametrize("number", [1, 2, 6])
def test_the_first_codebooks_are_those_of_all(sound, number):
    tokenizer = residual()
    every, codes = tokenizer.encode(sound), tokenizer.encode(sound, num_codebooks=number)
    assert torch.equal(codes, every[:, :number])
    assert torch.equal(tokenizer.decode(codes), tokenizer.decode(every, num_codebooks=number))
    assert torch.equal(tokenizer.embed(codes), tokenizer.embed(every[:, :number]))


def test_codebooks_that_are_not_asked_for_are_not_computed(sound):
    tokenizer = residual()
    del tokenizer.quantizer.layers[2:]
    assert tokenizer.encode(sound, num_codebooks=2).shape == (2, 2, 125)


def test_more_codebooks_come_nearer(sound):
    tokenizer = residual()
    latent = tokenizer.encoder(sound).detach()
    errors = [
        float((tokenizer.embed(tokenizer.encode(sound, num_codebooks=number)) - latent).square().mean().detach())
        for number in range(1, 7)
    ]
    assert errors == sorted(errors, reverse=True)


def test_the_default_number_is_what_encode_returns_and_what_is_counted(sound):
    tokenizer = residual(default_codebooks=2)
    assert tokenizer.encode(sound).shape == (2, 2, 125)
    assert tokenizer.encode(sound, lengths=torch.tensor([1000, 9])).shape == (2, 2, 125)
    assert tokenizer.encode(sound, num_codebooks=6).shape == (2, 6, 125)
    assert tokenizer.reconstruct(sound).shape == tokenizer.reconstruct(sound, num_codebooks=6).shape == sound.shape
    spec = tokenizer.spec
    assert (spec.num_codebooks, spec.tokens_per_second, spec.bits_per_second) == (6, 2000, 8000)
    assert (spec.tokens((1000,)), spec.bits((1000,)), spec.bits_of(6)) == (250, 1000, 24)
    assert codebooks(spec) == "2 of 6x16" and codebooks(replace(spec, default_codebooks=None)) == "6x16"


@pytest.mark.parametrize("number", [0, 7, True, 2.0, "all"])
def test_a_number_of_codebooks_that_there_is_not_is_refused(sound, number):
    tokenizer = residual(default_codebooks=3)
    with pytest.raises(zoo.InputError, match=f"expected num_codebooks from 1 to 6, got {number}"):
        tokenizer.encode(sound, num_codebooks=number)
    with pytest.raises(zoo.InputError, match=f"expected num_codebooks from 1 to 3, got {number}"):
        tokenizer.decode(tokenizer.encode(sound), num_codebooks=number)


def test_codes_of_more_codebooks_than_there_are_say_what_is_accepted(sound):
    tokenizer = residual()
    codes = tokenizer.encode(sound)
    with pytest.raises(zoo.InputError, match=r"expected codes as \[batch, 1 to 6, samples\] .*, got \[2, 12, 125\]"):
        tokenizer.decode(torch.cat([codes, codes], dim=1))


def test_a_tokenizer_without_residual_codebooks_has_no_such_option():
    tokenizer = zoo.create("wavtokenizer", small=True)
    with pytest.raises(zoo.InputError, match="encode has no option 'num_codebooks'; it takes: chunk_seconds"):
        tokenizer.encode(torch.zeros(1, 1, 1000), num_codebooks=1)
    with pytest.raises(zoo.InputError, match="encode has no option 'num_codebooks'"):
        zoo.encode_files(tokenizer, ["sound.wav"], "codes", num_codebooks=1)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"default_codebooks": 7}, "expected default_codebooks from 1 to 6 residual ones, got 7"),
        ({"residual": False, "default_codebooks": 2}, "expected default_codebooks from 1 to 0 residual ones"),
        ({"tail_drop": True}, "expected one of residual, tail_drop and scales, got residual and tail_drop"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(facts, message):
    with pytest.raises(zoo.InputError, match=message):
        residual_spec(**facts)


def test_the_exported_network_encodes_the_default_number(sound):
    tokenizer = residual(default_codebooks=2)
    graph = torch.export.export(graphs.Encode(tokenizer), (sound,), strict=False).module()
    assert torch.equal(graph(sound), tokenizer.encode(sound))
    _, codes = graphs.example(tokenizer)
    assert codes.shape[1] == 2


# Files


@pytest.fixture
def recording(tmp_path, tiny_residual, sound):
    path = tmp_path / "sound.wav"
    tiny_residual.modality.write(path, sound[0], tiny_residual.spec)
    return path


def test_a_code_file_keeps_how_many_codebooks_it_has(tiny_residual, recording, tmp_path):
    run("encode", "tiny-residual", recording, "--num-codebooks", 2, "--out", tmp_path / "codes")
    file = load_codes(tmp_path / "codes" / "sound.npz")
    assert (file.codes.shape[1], file.codebook_sizes, file.options) == (2, (16, 16), {"num_codebooks": 2})
    every = tiny_residual.encode(tiny_residual.preprocess(recording), num_codebooks=6)
    assert torch.equal(file.codes, every[:, :2])
    run("decode", tmp_path / "codes", "--out", tmp_path / "decoded")
    decoded = tiny_residual.preprocess(tmp_path / "decoded" / "sound.wav")
    assert torch.allclose(decoded, tiny_residual.decode(file.codes, size=1000).clamp(-1, 1), atol=1e-4)


def test_another_number_of_codebooks_does_not_go_on(tiny_residual, recording, tmp_path):
    options = ("encode", "tiny-residual", recording, "--out", tmp_path / "codes")
    run(*options, "--num-codebooks", 2)
    run(*options, "--num-codebooks", 2)
    assert "{'num_codebooks': 2} instead of {}" in run(*options, status=1).stderr
    run(*options, "--num-codebooks", 5, "--overwrite")
    run(*options)  # the default is no option


def test_reconstructing_counts_the_codebooks_in_use(tiny_residual, recording, tmp_path):
    (two,) = zoo.reconstruct_files(tiny_residual, [recording], tmp_path / "two", num_codebooks=2)
    (default,) = zoo.reconstruct_files(tiny_residual, [recording], tmp_path / "default")
    assert (two.codes_shape, two.figures.tokens, two.figures.bits) == ((2, 125), 250, 1000)
    assert (default.codes_shape, default.figures.tokens, default.figures.bits) == ((5, 125), 625, 2500)


def test_the_command_names_an_option_that_a_tokenizer_does_not_have(tiny_residual, recording, tmp_path):
    result = run("encode", "tiny-residual", recording, "--num-tokens", 2, "--out", tmp_path, status=1)
    assert "tiny-residual.encode has no option 'num_tokens'; it takes: num_codebooks" in error_line(result)


def test_the_benchmark_takes_the_numbers_of_codebooks(tiny_residual, recording, tmp_path):
    options = ("--no-baselines", "--metrics", "si_sdr", "--num-codebooks", "1,3", "--out", tmp_path / "out")
    result = run("bench", "tiny-residual", "--data", recording, *options)
    assert "tiny-residual, 1 codebooks" in result.stdout and "tiny-residual, 3 codebooks" in result.stdout
    assert "6 codebooks" not in result.stdout
    assert "1,2,4" in run("bench", "tiny-residual", "--data", recording, "--num-codebooks", "some", status=2).stderr


def test_codes_of_other_codebooks_than_the_first_are_refused(tiny_residual):
    codes = torch.zeros(1, 2, 5, dtype=torch.int64)
    file = zoo.codes.CodeFile(codes, "tiny-residual", (16, 8))
    with pytest.raises(zoo.InputError, match=r"expected codebook_sizes \(16, .*, or the first of them, of tiny-resid"):
        file.check(tiny_residual.spec)


def test_codes_in_part_are_for_residual_codebooks_alone(tmp_path):
    spec = zoo.info("wetok-nano").spec
    sizes = spec.codebook_sizes[:1]
    save_codes(tmp_path / "a.npz", torch.zeros(1, 1, 6, 5, dtype=torch.int64), name=spec.name, codebook_sizes=sizes)
    with pytest.raises(zoo.InputError, match="expected codebook_sizes"):
        load_codes(tmp_path / "a.npz").check(spec)
