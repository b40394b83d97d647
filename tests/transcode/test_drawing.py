"""Seeds of decoders that draw noise, for files."""

import numpy as np
import pytest
import soundfile
import torch

import zoo
from tests.support.cli import run
from zoo.errors import InputError


@pytest.fixture
def snac(install) -> zoo.Tokenizer:
    """Music at 44.1 kHz to codes from which noise is drawn."""
    return install("tiny-snac", "snac-44khz", {}, dict(zoo.info("snac-44khz").builder.small))


@pytest.fixture
def sounds(tmp_path):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * np.sin(np.arange(6000) * 0.05), 44100)
    return [tmp_path / f"{name}.wav" for name in "ab"]


def test_a_seed_makes_decoded_files_the_same_in_any_order(snac, sounds, tmp_path):
    list(zoo.encode_files(snac, sounds, tmp_path / "codes"))
    codes = [tmp_path / "codes" / f"{name}.npz" for name in "ab"]

    def decoded(order, **options) -> list[bytes]:
        results = list(zoo.decode_files(order, tmp_path / "out", name="tiny-snac", overwrite=True, **options))
        assert [result.error for result in results] == [None, None]
        return [(tmp_path / "out" / f"{name}.wav").read_bytes() for name in "ab"]

    first = decoded(codes, seed=5)
    assert first[0] == first[1]
    assert decoded(codes[::-1], seed=5) == first
    assert decoded(codes, seed=6) != first
    assert decoded(codes) != first


def test_a_seed_makes_reconstructions_those_of_the_decoded_codes(snac, sounds, tmp_path):
    list(zoo.encode_files(snac, sounds[:1], tmp_path / "a.npz"))
    run("decode", tmp_path / "a.npz", "--name", "tiny-snac", "--seed", "3", "--out", tmp_path / "decoded.wav")
    run("reconstruct", "tiny-snac", sounds[0], "--seed", "3", "--out", tmp_path / "restored.wav")
    assert (tmp_path / "decoded.wav").read_bytes() == (tmp_path / "restored.wav").read_bytes()


def test_a_decoder_that_draws_nothing_has_no_seed(tiny_wetok, tmp_path):
    with pytest.raises(InputError, match="tiny-wetok has no seed: its decoder draws nothing"):
        zoo.reconstruct_files(tiny_wetok, [tmp_path], tmp_path / "out", seed=0)
    zoo.codes.save_codes(
        tmp_path / "a.npz", torch.zeros(1, 2, 4, 4, dtype=torch.int64), name="tiny-wetok", codebook_sizes=(256, 256)
    )
    result = run("decode", tmp_path / "a.npz", "--seed", "0", "--out", tmp_path / "out", status=1)
    assert "a.npz: tiny-wetok has no seed" in result.stderr


@pytest.mark.parametrize("seed", [-1, 2**63, True, 0.5, "0"])
def test_a_seed_is_a_number(seed, tmp_path):
    with pytest.raises(InputError, match="expected seed as an integer"):
        zoo.decode_files([tmp_path], tmp_path / "out", seed=seed)
