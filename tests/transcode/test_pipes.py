"""Raw samples to codes and back through pipes, and `--stream` of the commands."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from tests.support.cli import error_line, run
from zoo.testing import small
from zoo.transcode.pipes import decode_pcm, encode_pcm


@pytest.fixture(scope="module")
def mimi() -> zoo.Tokenizer:
    return small("mimi")


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Samples of 16 bits; the last frame is not whole."""
    return np.random.default_rng(0).integers(-3000, 3000, 1920 * 4 + 100).astype("<i2")


class Trickle(io.RawIOBase):
    """Bytes that arrive a few at a time, not sample by sample."""

    def __init__(self, data: bytes, step: int = 1001):
        self.data, self.step = data, step

    def read(self, size: int = -1) -> bytes:
        part, self.data = self.data[: self.step], self.data[self.step :]
        return part


def test_raw_samples_become_the_codes_of_the_whole_frame_by_frame(mimi, sound):
    out = io.BytesIO()
    encode_pcm(mimi, Trickle(sound.tobytes()), out, num_codebooks=5)
    codes = np.frombuffer(out.getvalue(), "<i2").reshape(-1, 5).T
    whole = mimi.encode(torch.from_numpy(sound / np.float32(32768))[None, None], num_codebooks=5)
    assert torch.equal(torch.from_numpy(codes.astype(np.int64))[None], whole)
    floats = io.BytesIO()
    encode_pcm(mimi, Trickle((sound / np.float32(32768)).tobytes()), floats, pcm="f32le", num_codebooks=5)
    assert floats.getvalue() == out.getvalue()


def test_raw_codes_become_the_samples_of_the_whole(mimi):
    codes = torch.randint(2048, (1, 8, 6), generator=torch.Generator().manual_seed(0))
    given = codes[0].T.numpy().astype("<i2").tobytes()
    whole = mimi.decode(codes)[0, 0].numpy()
    floats, integers = io.BytesIO(), io.BytesIO()
    decode_pcm(mimi, Trickle(given, 7), floats, pcm="f32le")
    np.testing.assert_allclose(np.frombuffer(floats.getvalue(), "<f4"), whole, atol=1e-5)
    decode_pcm(mimi, Trickle(given, 7), integers)
    np.testing.assert_allclose(np.frombuffer(integers.getvalue(), "<i2") / 32768, whole.clip(-1, 1), atol=1e-4)


def test_what_is_no_whole_stream_is_refused(mimi, sound):
    with pytest.raises(zoo.InputError, match="ends within a sample: 1 of 2 bytes"):
        encode_pcm(mimi, io.BytesIO(sound.tobytes()[:-1]), io.BytesIO())
    with pytest.raises(zoo.InputError, match="ends within a frame of codes: 2 of 16 bytes"):
        decode_pcm(mimi, io.BytesIO(bytes(18)), io.BytesIO())
    with pytest.raises(zoo.InputError, match="expected pcm among s16le, f32le, got 'u8'"):
        encode_pcm(mimi, io.BytesIO(), io.BytesIO(), pcm="u8")
    with pytest.raises(zoo.InputError, match="codes out of range"):
        decode_pcm(mimi, io.BytesIO(b"\xff" * 16), io.BytesIO())


def test_the_commands_stream_through_pipes(mimi, sound, tmp_path):
    mimi.save_pretrained(tmp_path / "mimi")
    environment = os.environ | {"PYTHONPATH": str(Path(zoo.__file__).parent.parent)}

    def command(*arguments, given: bytes) -> bytes:
        program = [sys.executable, "-c", "from zoo.cli import main; main()", *map(str, arguments)]
        return subprocess.run(program, input=given, capture_output=True, check=True, env=environment).stdout

    codes = command("encode", tmp_path / "mimi", "--stream", "--num-codebooks", 4, given=sound.tobytes())
    assert len(codes) == 5 * 4 * 2
    options = ("--stream", "--num-codebooks", 4, "--pcm", "f32le")
    samples = command("decode", "--name", tmp_path / "mimi", *options, given=codes)
    assert len(samples) == 5 * 1920 * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encode", "mimi", "x.wav", "--stream"), "INPUTS does not go with --stream"),
        (("encode", "mimi", "--stream", "--seconds", "2"), "--seconds does not go with --stream"),
        (("encode", "mimi", "x.wav"), "--out is missing"),
        (("encode", "mimi", "--out", "x"), "INPUTS is missing"),
        (("encode", "mimi", "x.wav", "--out", "x", "--pcm", "f32le"), "--pcm goes with --stream"),
        (("decode", "x.npz", "--out", "x", "--num-codebooks", "4"), "--num-codebooks goes with --stream"),
        (("decode", "--stream"), "--name is missing"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message):
    assert message in " ".join(run(*arguments, status=2).stderr.split())


def test_the_command_says_why_a_system_cannot_stream(tmp_path):
    assert "wavtokenizer-nano cannot stream" in error_line(run("encode", "wavtokenizer-nano", "--stream", status=1))
