"""`zoo.export_onnx`: what is written, and that ONNX Runtime returns what PyTorch returns."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import zoo
from tests.support.variants import distinct, slow_but, traceable
from zoo.cli import app
from zoo.demo.samples import samples
from zoo.testing import decode_options, signal, sizes, small

onnxruntime = pytest.importorskip("onnxruntime")
SHIPPED = [name for name in zoo.list_tokenizers() if zoo.info(name).shipped is not None]


def run(path: Path, **given: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path)
    return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in given.items()})[0])


def assert_equal_to_pytorch(tokenizer: zoo.Tokenizer, folder: Path, x: torch.Tensor, agreement: float = 1.0) -> None:
    codes = tokenizer.encode(x)
    assert (run(folder / "encoder.onnx", signal=x) == codes).double().mean() >= agreement
    if tokenizer.encode_only is None:
        decoded, expected = run(folder / "decoder.onnx", codes=codes), tokenizer.decode(codes)
        assert decoded.shape == expected.shape
        if not decode_options(tokenizer):
            # Of an untrained decoder at 512x512, PyTorch's float32 and float64 differ by up to 3e-4.
            torch.testing.assert_close(decoded, expected, atol=5e-4, rtol=0)


@pytest.mark.parametrize("name", slow_but(("wetok-nano",), traceable(distinct())))
def test_onnx_returns_the_codes_and_the_signal_of_pytorch_for_any_batch_and_size(name, tmp_path):
    tokenizer = small(name)
    folder = zoo.export_onnx(tokenizer, tmp_path / "onnx")
    if tokenizer.spec.modality == "image" and not tokenizer.spec.variable_size:
        # A photograph: of noise that is resized, a code is now and then as near to one row as to another.
        photo = tokenizer.preprocess(samples("image")["lake"])
        signals = [photo, torch.cat([photo.flip(3), photo.flip(2), photo])]
    else:
        signals = [signal(tokenizer, 1, sizes(tokenizer)[0]), signal(tokenizer, 3, sizes(tokenizer)[-1])]
    for x in signals:
        assert_equal_to_pytorch(tokenizer, folder, x)


def test_a_network_whose_graph_is_right_for_one_size_alone_is_not_written(tmp_path):
    tokenizer = small("wavtokenizer-nano")
    width = tokenizer.quantizer.dim
    steps = torch.nn.LSTM(width, width, batch_first=True)  # traced, it loops over as many steps as there were then
    tokenizer.encoder.register_forward_hook(lambda encoder, given, latent: steps(latent.mT)[0].mT)
    with pytest.raises(zoo.ZooError, match="of codes for any signal"):
        zoo.export_onnx(tokenizer, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_onnx_returns_the_codes_of_pytorch_for_the_samples(name, tmp_path):
    tokenizer = zoo.load(name)
    folder = zoo.export_onnx(name, tmp_path / "onnx")
    for sample in samples(tokenizer.spec.modality).values():
        x = tokenizer.preprocess(sample)
        assert isinstance(x, torch.Tensor)
        if tokenizer.spec.chunk_frames is not None:
            x = x[:, :, : tokenizer.spec.chunk_frames]
        # In the sound of mimi-nano, one frame of 382 is as near to one row as to another.
        assert_equal_to_pytorch(tokenizer, folder, x, agreement=0.999)


def test_the_first_tokens_of_an_image_decode_in_onnx(tmp_path):
    tokenizer = small("one-d-piece-nano")
    folder = zoo.export_onnx(tokenizer, tmp_path / "onnx")
    codes = tokenizer.encode(signal(tokenizer, 1, (64, 64)))[..., :3]
    torch.testing.assert_close(run(folder / "decoder.onnx", codes=codes), tokenizer.decode(codes), atol=1e-4, rtol=0)


def test_the_command_writes_the_folder_and_prints_it(tmp_path):
    out = tmp_path / "onnx"
    result = CliRunner().invoke(app, ["export-onnx", "foldseek-3di", "--out", str(out)])
    assert result.output.strip() == str(out)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "encoder.onnx"]
    configuration = json.loads((out / "config.json").read_text())
    assert configuration["shapes"]["signal"] == ["batch", "residues", 5, 3]
    assert configuration["spec"]["name"] == "foldseek-3di"


def test_a_folder_with_files_in_it_is_left_as_it_is(tmp_path):
    (tmp_path / "encoder.onnx").write_text("mine")
    with pytest.raises(zoo.MediaError, match="exists already"):
        zoo.export_onnx(small("foldseek-3di"), tmp_path)
    assert (tmp_path / "encoder.onnx").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]


def test_what_cannot_be_exported_leaves_no_folder(tmp_path, registrations):
    class Unexportable(type(small("foldseek-3di"))):
        def to_latent(self, signal: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no graph")

    tokenizer = Unexportable(zoo.info("foldseek-3di").spec)
    with pytest.raises(Exception, match="no graph"):
        zoo.export_onnx(tokenizer, tmp_path / "onnx")
    assert list(tmp_path.iterdir()) == []
