"""`zoo.testing` finds what is wrong with a tokenizer, and says which contract it breaks."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import zoo
from zoo.quantizers import FSQ


class Blocks(zoo.Tokenizer):
    """Sound to a code of 125 for each 8 samples, and back."""

    def __init__(self, spec):
        super().__init__(spec)
        self.encoder = nn.Conv1d(1, 3, 8, stride=8)
        self.quantizer = FSQ((5, 5, 5))
        self.decoder = nn.ConvTranspose1d(3, 1, 8, stride=8)

    def to_latent(self, signal):
        return self.encoder(self.modality.pad(signal, self.spec))


class LeakingBlocks(Blocks):
    """Encodes the padding with the signal, as if `lengths` were only for show."""

    def encode(self, x, lengths=None, **options):
        if lengths is None:
            return super().encode(x, **options)
        self.modality.check_lengths(lengths, x)
        codes = super().encode(x - x.mean(dim=-1, keepdim=True), **options)
        for item, length in zip(codes, self.code_lengths(lengths), strict=True):
            item[:, length:] = 0
        return codes


class DeafBlocks(Blocks):
    """Drops the options that it does not know."""

    def encode(self, x, lengths=None, *, sample_rate=None, **options):
        return super().encode(x, lengths, sample_rate=sample_rate)


class UnboundedBlocks(Blocks):
    """Its codebook is larger than the spec says."""

    def __init__(self, spec):
        super().__init__(spec)
        self.quantizer = FSQ((7, 7, 7))


def spec(name: str) -> zoo.TokenizerSpec:
    return zoo.TokenizerSpec(
        name=name,
        modality="audio",
        quantizer="fsq",
        codebook_sizes=(125,),
        downsample=(8,),
        channels=1,
        sample_rate=8000,
        code_license="MIT",
        weights_license="MIT",
        paper="none",
        source="none",
    )


def broken_contracts(tokenizer: zoo.Tokenizer | str) -> list[str]:
    """Names of the contracts in the error of `check`."""
    with pytest.raises(AssertionError) as raised:
        zoo.testing.check(tokenizer)
    return [line.split(": ")[1] for line in str(raised.value).splitlines()]


def test_a_tokenizer_that_keeps_its_contracts_passes(registrations):
    zoo.register("blocks", Blocks, spec=spec("blocks"))
    zoo.testing.check("blocks")


def test_a_tokenizer_that_is_no_variant_passes_too():
    zoo.testing.check(Blocks(spec("blocks")))


def test_a_discretized_autoencoder_passes():
    autoencoder = zoo.testing.small("llamagen-vq-16")
    calibration = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    zoo.testing.check(zoo.discretize(autoencoder, bits=4, calibration=calibration))


def test_padding_that_leaks_into_codes_is_found(registrations):
    zoo.register("leaking", LeakingBlocks, spec=spec("leaking"))
    assert broken_contracts("leaking") == ["padding does not change codes"]


def test_a_wrong_codebook_size_is_found(registrations):
    zoo.register("unbounded", UnboundedBlocks, spec=spec("unbounded"))
    assert "spec and network agree" in broken_contracts("unbounded")
    (contract,) = [each for each in zoo.testing.CONTRACTS if each.name == "spec and network agree"]
    message = r"unbounded: spec and network agree: the spec has codebook_sizes \(125,\), the quantizer \(343,\)"
    with pytest.raises(AssertionError, match=message):
        contract("unbounded")


def test_an_option_that_is_dropped_in_silence_is_found(registrations):
    zoo.register("deaf", DeafBlocks, spec=spec("deaf"))
    assert broken_contracts("deaf") == ["an option that a system lacks is named"]


def test_the_error_says_what_came_instead(registrations):
    zoo.register("deaf", DeafBlocks, spec=spec("deaf"))
    with pytest.raises(AssertionError, match=r"^deaf: an option .*: encode\(num_bananas=8\): expected an InputError"):
        zoo.testing.check("deaf")


def test_a_tokenizer_is_checked_without_being_changed():
    tokenizer = Blocks(spec("blocks"))
    before = {key: value.clone() for key, value in tokenizer.state_dict().items()}
    zoo.testing.check(tokenizer)
    assert tokenizer.training
    assert all(value.grad is None for value in tokenizer.parameters())
    assert all(torch.equal(value, before[key]) for key, value in tokenizer.state_dict().items())


def test_every_contract_is_one_of_a_variant():
    assert {contract for _, contract in zoo.testing.parameters()} == set(zoo.testing.CONTRACTS)


def test_parameters_are_those_of_the_names_that_are_asked_for(registrations):
    zoo.register("blocks", Blocks, spec=spec("blocks"))
    parameters = zoo.testing.parameters("blocks")
    assert {name for name, _ in parameters} == {"blocks"}
    names = [contract.name for _, contract in parameters]
    assert "padding does not change codes" in names
    assert "the first codes decode alone" not in names


def test_the_kit_works_without_pytest():
    program = "import sys; sys.modules['pytest'] = None; import zoo; zoo.testing.check('wavtokenizer-nano')"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
