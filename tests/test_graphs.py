"""`zoo.export_onnx`: what is written, and that ONNX Runtime says what PyTorch says."""

import json

import pytest
import torch
from typer.testing import CliRunner

import zoo
from tests.support.tokenizers import decode_options, distinct, quick_first, signal, sizes, small
from zoo.cli import app

onnxruntime = pytest.importorskip("onnxruntime")
NANO = ["cosmos-dv-nano", "dplm2-nano", "foldseek-3di", "fqgan-nano", "one-d-piece-nano", "wavtokenizer-nano", "wetok-nano"]


def run(path, **given: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in given.items()})[0])


@pytest.mark.parametrize("name", quick_first(distinct()))
def test_onnx_gives_the_codes_and_the_signal_of_pytorch_for_any_batch_and_size(name, tmp_path):
    tokenizer = small(name)
    folder = zoo.export_onnx(tokenizer, tmp_path / "onnx")
    for batch, size in ((1, sizes(tokenizer)[0]), (3, sizes(tokenizer)[-1])):
        x = signal(tokenizer, batch, size)
        codes = tokenizer.encode(x)
        assert torch.equal(run(folder / "encoder.onnx", signal=x), codes)
        if tokenizer.encode_only is None:
            decoded, expected = run(folder / "decoder.onnx", codes=codes), tokenizer.decode(codes)
            assert decoded.shape == expected.shape
            if not decode_options(tokenizer):
                torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=0)
