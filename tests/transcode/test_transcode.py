"""Video and protein structures from file to codes and back, through the command."""

import json

import pytest
import torch

import zoo
from tests.support.cli import error_line, run
from zoo import media, modalities
from zoo.codes import load_codes, save_codes

FRAMES, HEIGHT, WIDTH, RATE = 40, 24, 36, 12.5


@pytest.fixture
def clip(tmp_path):
    """Forty frames of a bar that wanders over a gradient."""
    video = torch.linspace(0, 1, WIDTH).expand(3, FRAMES, HEIGHT, WIDTH).clone()
    for frame in range(FRAMES):
        video[:, frame, :, frame % WIDTH] = 1 - video[:, frame, :, frame % WIDTH]
    path = tmp_path / "clip.mp4"
    media.write_video(path, video, RATE)
    return path


@pytest.fixture
def protein(tmp_path):
    """Two helices, chains A of 30 residues and B of 21."""
    generator = torch.Generator().manual_seed(0)
    structure, spec = modalities.get("structure"), zoo.info("dplm2-nano").spec
    path = tmp_path / "protein.pdb"
    lines = []
    for name, residues in (("A", 30), ("B", 21)):
        part = tmp_path / f"{name}.pdb"
        media.write_structure(part, structure.example(spec, 1, (residues,), generator)[0], chain=name)
        lines += [line for line in part.read_text().splitlines() if line.startswith("ATOM")]
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def test_video_becomes_the_codes_of_its_windows_and_video_again(tiny_cosmos, clip, tmp_path):
    run("encode", "tiny-cosmos", clip, "--out", tmp_path / "codes")
    file = load_codes(tmp_path / "codes" / "clip.npz")
    assert file.size == (FRAMES, HEIGHT, WIDTH) and file.frame_rate == RATE
    assert torch.equal(file.codes, tiny_cosmos.encode(tiny_cosmos.preprocess(clip)))
    run("decode", tmp_path / "codes", "--out", tmp_path / "decoded")
    ((decoded, rate),) = media.read_video(tmp_path / "decoded" / "clip.mp4", 100)
    assert decoded.shape == (3, FRAMES, HEIGHT, WIDTH) and rate == RATE
    media.write_video(tmp_path / "whole.mp4", tiny_cosmos.decode(file.codes, size=file.size)[0], RATE)
    ((expected, _),) = media.read_video(tmp_path / "whole.mp4", 100)
    # The encoder makes more of a last bit that windows and threads decide.
    assert (decoded.float() - expected.float()).abs().mean() < 1


def test_reconstructing_video_reports_the_mean_over_frames(tiny_cosmos, clip, tmp_path):
    result = run("reconstruct", "tiny-cosmos", clip, "--out", tmp_path / "out", "--json")
    (report,) = json.loads(result.stdout)
    original = tiny_cosmos.preprocess(clip)
    codes = tiny_cosmos.encode(original)
    assert report["codes_shape"] == list(codes.shape[1:])
    assert report["tokens"] == codes.numel()
    error = (tiny_cosmos.reconstruct(original) - original)[0].square().mean(dim=(0, 2, 3))
    assert report["psnr"] == pytest.approx(float((-10 * error.log10()).mean()), abs=1e-3)
    assert report["compression_ratio"] == pytest.approx(8 * original.numel() / report["bits"])
    assert (tmp_path / "out" / "clip.mp4").is_file()


def test_video_codes_without_a_frame_rate_are_refused(tiny_cosmos, tmp_path):
    path = tmp_path / "codes.npz"
    codes = torch.zeros(1, 1, 2, 3, 5, dtype=torch.int64)
    save_codes(path, codes, name="tiny-cosmos", codebook_sizes=(64000,), size=(5, 24, 40))
    result = run("decode", path, "--out", tmp_path / "out.mp4", status=1)
    assert "frame rate" in result.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_a_chain_of_a_file_becomes_codes_and_a_structure_again(tiny_dplm2, protein, tmp_path):
    result = run("encode", "tiny-dplm2", protein, "--out", tmp_path / "codes.npz", status=1)
    assert "choose among 'A', 'B'" in result.stderr
    run("encode", "tiny-dplm2", protein, "--chain", "B", "--out", tmp_path / "codes.npz")
    assert load_codes(tmp_path / "codes.npz").codes.shape == (1, 1, 20)  # the second residue has no atom in the file
    run("decode", tmp_path / "codes.npz", "--out", tmp_path / "decoded.cif")
    assert media.read_structure(tmp_path / "decoded.cif").coordinates.shape == (20, 5, 3)


def test_reconstructing_a_structure_reports_its_deviation_after_superposition(tiny_dplm2, protein, tmp_path):
    options = ["--chain", "A", "--out", tmp_path / "out", "--json"]
    (report,) = json.loads(run("reconstruct", "tiny-dplm2", protein, *options).stdout)
    original = media.read_structure(protein, chain="A").coordinates
    written = media.read_structure(tmp_path / "out" / "protein.pdb").coordinates
    assert report["ca_rmsd"] == pytest.approx(kabsch(written[:, 1], original[:, 1]), abs=2e-3)


def kabsch(moved: torch.Tensor, fixed: torch.Tensor) -> float:
    """Root mean square deviation after the best rotation and translation."""
    moved, fixed = moved.double() - moved.double().mean(0), fixed.double() - fixed.double().mean(0)
    u, _, v = torch.linalg.svd(moved.T @ fixed)
    sign = torch.tensor([1.0, 1.0, float(torch.sign(torch.linalg.det(u @ v)))], dtype=torch.float64)
    return float((moved @ u @ torch.diag(sign) @ v - fixed).square().sum(1).mean().sqrt())


def test_a_system_that_only_encodes_reconstructs_nothing(protein, tmp_path):
    result = run("reconstruct", "foldseek-3di", protein, "--chain", "A", "--out", tmp_path / "out", status=1)
    assert "foldseek-3di cannot decode: its letters" in error_line(result)
    run("encode", "foldseek-3di", protein, "--chain", "A", "--out", tmp_path / "codes")
    assert load_codes(tmp_path / "codes" / "protein.npz").codes.shape == (1, 1, 29)


def test_the_shape_of_a_videos_pixels_comes_back(tiny_cosmos, tmp_path):
    media.write_video(tmp_path / "clip.mp4", torch.rand(3, 5, 16, 16), 10, pixel_aspect=64 / 45)
    (encoded,) = zoo.encode_files(tiny_cosmos, [tmp_path / "clip.mp4"], tmp_path / "clip.npz")
    assert encoded.error is None
    assert load_codes(tmp_path / "clip.npz").pixel_aspect == pytest.approx(64 / 45)
    (decoded,) = zoo.decode_files([tmp_path / "clip.npz"], tmp_path / "decoded.mp4", name="tiny-cosmos")
    (restored,) = zoo.reconstruct_files(tiny_cosmos, [tmp_path / "clip.mp4"], tmp_path / "restored.mp4")
    for result in (decoded, restored):
        assert result.error is None
        signal = tiny_cosmos.modality.load(result.target, tiny_cosmos.spec)
        assert signal.pixel_aspect == pytest.approx(64 / 45)
