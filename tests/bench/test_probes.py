"""Probes of codebooks: similar rows, use in a corpus, and steady codes."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from zoo import corpus, probe
from zoo.cli import app
from zoo.errors import InputError, MediaError
from zoo.metrics.perturbation import codebook_rows


def test_similarity_is_that_of_its_formulas(tiny_wavtokenizer):
    (book,) = probe("tiny-wavtokenizer")["codebooks"]
    (rows,) = (each.double().numpy() for each in codebook_rows(tiny_wavtokenizer.quantizer))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = units @ units.T - 2 * np.eye(len(rows))
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2) + np.diag(np.full(len(rows), np.inf))
    values = np.linalg.eigvalsh(np.cov(rows.T))
    assert (book["size"], book["dim"]) == rows.shape
    assert book["nearest_cosine"] == pytest.approx(cosine.max(axis=1).mean(), abs=1e-5)
    near = distance.min(axis=1) < 0.01 * np.sqrt((rows**2).sum(axis=1).mean())
    assert book["redundancy"] == pytest.approx(near.mean())
    assert book["effective_dim"] == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-4)


def test_rows_that_are_copies_are_redundant(tiny_wavtokenizer, tmp_path):
    state = tiny_wavtokenizer.state_dict()
    with torch.no_grad():
        for key, value in state.items():
            if key.startswith("quantizer") and value.ndim == 2:  # the rows, and sums that they are means of
                value[1] = value[0]
    tiny_wavtokenizer.save_pretrained(tmp_path / "copies")
    before, after = (probe(name)["codebooks"][0]["redundancy"] for name in ("tiny-wavtokenizer", tmp_path / "copies"))
    assert after == pytest.approx(before + 2 / 64)


def test_usage_is_that_of_the_corpus(tiny_wetok, image_folder, tmp_path):
    corpus.tokenize("tiny-wetok", image_folder, tmp_path / "tokens")
    books = probe("tiny-wetok", corpus=tmp_path / "tokens")["codebooks"]
    codes = torch.cat([tiny_wetok.encode(tiny_wetok.preprocess(path)) for path in sorted(image_folder.iterdir())])
    for index, book in enumerate(books):
        counts = codes[:, index].flatten().bincount(minlength=256).double()
        shares = counts[counts > 0] / counts.sum()
        assert book["usage"] == int((counts > 0).sum()) / 256
        assert book["effective_codes"] == pytest.approx(float(2 ** -(shares * shares.log2()).sum()))


def test_a_corpus_of_other_weights_is_refused(tiny_wetok, tiny_wavtokenizer, image_folder, tmp_path):
    corpus.tokenize("tiny-wetok", image_folder, tmp_path / "tokens")
    with pytest.raises(InputError, match="made by tiny-wetok with other weights than tiny-wavtokenizer has"):
        probe("tiny-wavtokenizer", corpus=tmp_path / "tokens")
    with pytest.raises(MediaError, match="cannot be read as the manifest of a finished corpus"):
        probe("tiny-wetok", corpus=tmp_path)


def test_steadiness_is_the_share_of_codes_that_change(tiny_wetok, image_folder):
    found = probe("tiny-wetok", data=image_folder, limit=2)
    wanted = {"shift by a pixel": [], "JPEG quality 90": []}
    for path in sorted(image_folder.iterdir())[:2]:
        image = tiny_wetok.preprocess(path)
        shifted = torch.cat([image[..., :1], image[..., :-1]], dim=3)
        stream = io.BytesIO()
        Image.open(path).save(stream, "JPEG", quality=90)
        jpeg = torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1)[None] / 255
        codes = tiny_wetok.encode(image)
        for name, changed in (("shift by a pixel", shifted), ("JPEG quality 90", jpeg)):
            wanted[name].append((tiny_wetok.encode(changed) != codes).double().mean(dim=(0, 2, 3)))
    for name, shares in wanted.items():
        assert found["steadiness"][name] == pytest.approx(torch.stack(shares).mean(dim=0).tolist())
    assert 0 < found["steadiness"]["noise at 40 dB"][0] < 1 and found["files"] == 2


def test_a_file_that_fails_is_reported_and_not_counted(tiny_wetok, image_folder):
    (image_folder / "broken.png").write_bytes(b"nothing")
    found = probe("tiny-wetok", data=image_folder)
    assert found["files"] == 4 and list(found["failed"]) == ["broken.png"]


def test_the_command_shows_a_row_for_each_codebook(tiny_wetok, image_folder):
    result = CliRunner().invoke(app, ["probe", "tiny-wetok", "--data", str(image_folder), "--limit", "1"])
    assert result.exit_code == 0, result.output
    assert "nearest cosine" in result.stdout and "noise at 40 dB: changed" in result.stdout
    plain = json.loads(CliRunner().invoke(app, ["probe", "tiny-wetok", "--json"]).stdout)
    assert [book["size"] for book in plain["codebooks"]] == [256, 256]
