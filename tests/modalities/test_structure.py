"""Protein structures in files, and the distance between two of them."""

import math
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from biotite.structure.io import pdbx

from tests.support.paths import GOLDENS
from zoo import media
from zoo.errors import InputError, MediaError
from zoo.metrics import rmsd

SUFFIXES = tuple(suffix for suffix in media.SUFFIXES["structure"] if not suffix.endswith(".gz"))
ATOMS = ("N", "CA", "C", "CB", "O")


@pytest.fixture(scope="module")
def chain() -> torch.Tensor:
    """253 residues of PDB entry 3bww `[253, 5, 3]`, the glycines without CB and all without O."""
    with np.load(GOLDENS / "foldseek-3di" / "golden.npz") as golden:
        atoms = torch.from_numpy(golden["3bww_A.input"])
    return torch.cat([atoms, torch.full((len(atoms), 1, 3), torch.nan)], dim=1)


def line(
    name: str,
    residue: str,
    number: int,
    position: tuple[float, float, float] = (0.0, 0.0, 0.0),
    *,
    chain: str = "A",
    record: str = "ATOM",
    location: str = " ",
    insertion: str = " ",
    element: str | None = None,
) -> str:
    """One atom of a PDB file; `element` "" leaves its column out."""
    element = name[0] if element is None else element
    column = f"{name:<4}" if len(element) == 2 else f" {name:<3}"
    x, y, z = position
    return (
        f"{record:<6}{1:>5} {column}{location}{residue:>3} {chain}{number:>4}{insertion}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{0:6.2f}          {element:>2}  \n"
    )


def residue_lines(residue: str, number: int, x: float, **options: str) -> str:
    return "".join(line(name, residue, number, (x, k, 0.0), **options) for k, name in enumerate(ATOMS))


def same(one: torch.Tensor, other: torch.Tensor, tolerance: float = 0.0) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True)


# Writing and reading again


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_again(chain, tmp_path, suffix):
    path = tmp_path / f"chain{suffix}"
    names = ["MSE" if i == 7 else "ALA" for i in range(len(chain))]
    ids = [i - 5 if i < 100 else i - 6 for i in range(len(chain))]  # 94 comes twice
    codes = ["A" if i == 100 else "" for i in range(len(chain))]
    media.write_structure(path, chain, residue_names=names, residue_ids=ids, insertion_codes=codes, chain="B")
    structure = media.read_structure(path)
    assert structure.coordinates.dtype == torch.float32
    assert same(structure.coordinates, chain, 0.000501 if suffix in (".pdb", ".ent") else 0.0)
    assert structure.residue_names == tuple(names)
    assert structure.residue_ids == tuple(ids)
    assert structure.insertion_codes == tuple(codes)
    assert structure.chain == "B"


def with_sizes(content: bytes, kind: str, change: Callable[[int], int]) -> bytes:
    """BinaryCIF whose columns of atoms state other numbers of values where they have such an encoding."""
    tree = msgpack.unpackb(content)
    for category in tree["dataBlocks"][0]["categories"]:
        for column in category["columns"] if category["name"] == "_atom_site" else ():
            first = column["data"]["encoding"]
            for encoding in (*first, *first[0].get("dataEncoding", ())):
                if encoding["kind"] == kind:
                    encoding["srcSize"] = change(encoding["srcSize"])
    return msgpack.packb(tree)


def packed(chain: torch.Tensor, folder: Path) -> bytes:
    media.write_structure(folder / "plain.bcif", chain)
    pdbx.compress(pdbx.BinaryCIFFile.read(folder / "plain.bcif")).write(folder / "packed.bcif")
    return (folder / "packed.bcif").read_bytes()


def test_packed_columns_are_read(chain, tmp_path):
    content = with_sizes(packed(chain, tmp_path), "RunLength", int)
    structure = media.read_structure(media.MediaBytes(content, "packed.bcif"))
    assert same(structure.coordinates, chain, 1e-3)


@pytest.mark.parametrize("kind", ["RunLength", "IntegerPacking"])
@pytest.mark.parametrize(
    "change", [lambda size: 2**31 - 1, lambda size: size + 1, lambda size: size - 1, lambda size: -1]
)
def test_columns_that_state_other_lengths_than_they_hold_are_refused(chain, tmp_path, kind, change):
    content = with_sizes(packed(chain, tmp_path), kind, change)
    with pytest.raises(MediaError, match=r"damaged\.bcif: .*column '.*' states"):
        media.read_structure(media.MediaBytes(content, "damaged.bcif"))


def test_a_column_of_text_that_unfolds_to_gigabytes_is_refused(chain, tmp_path):
    tree = msgpack.unpackb(packed(chain, tmp_path))
    atoms = next(category for category in tree["dataBlocks"][0]["categories"] if category["name"] == "_atom_site")
    column = next(column for column in atoms["columns"] if column["name"] == "group_PDB")
    length = 2**20
    column["data"]["encoding"][0]["stringData"] = "A" * length
    plain = {"kind": "ByteArray", "type": 3}
    column["data"]["encoding"][0] |= {"offsets": struct.pack("<2i", 0, length), "offsetEncoding": [plain]}
    with pytest.raises(MediaError, match=r"column 'group_PDB' unfolds to .* bytes of text"):
        media.read_structure(media.MediaBytes(msgpack.packb(tree), "text.bcif"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_residues_without_atoms_are_left_out_and_counted(chain, tmp_path, suffix):
    coordinates = chain[:6].clone()
    coordinates[2] = torch.nan
    media.write_structure(tmp_path / f"gap{suffix}", coordinates)
    structure = media.read_structure(tmp_path / f"gap{suffix}")
    assert structure.residue_ids == (1, 2, 4, 5, 6)
    assert structure.residue_names == ("UNK",) * 5
    assert structure.chain == "A"
    assert same(structure.coordinates, coordinates[[0, 1, 3, 4, 5]], 0.000501)


def test_a_file_is_replaced_only_when_that_is_asked_for(chain, tmp_path):
    path = tmp_path / "chain.cif"
    media.write_structure(path, chain[:5])
    with pytest.raises(MediaError, match=r"chain\.cif: exists already"):
        media.write_structure(path, chain)
    assert len(media.read_structure(path).coordinates) == 5
    media.write_structure(path, chain, overwrite=True)
    assert len(media.read_structure(path).coordinates) == 253


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_nothing(chain, tmp_path, suffix):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(MediaError, match=rf"out\{suffix}: cannot be written"):
            media.write_structure(tmp_path / f"out{suffix}", chain)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_what_a_format_has_no_room_for_is_refused(chain, tmp_path):
    coordinates = chain[:3]
    far = coordinates.clone()
    far[1, 1] = torch.tensor([0.0, -1000.0, 0.0])
    infinite = coordinates.clone()
    infinite[0, 0, 0] = torch.inf
    half = coordinates.clone()
    half[0, 0, 0] = torch.nan
    cases = [
        (coordinates, {"residue_ids": [1, 2, 10000]}, "residue ids as integers from -999 to 9999, got 10000"),
        (coordinates, {"residue_ids": [1, 2, 3.0]}, "residue ids as integers"),
        (coordinates, {"residue_ids": [1, 2]}, "expected 3 residue_ids, one a residue, got 2"),
        (coordinates, {"residue_names": ["ALA", "GLY", "A1H5Z"]}, "residue names of 1 to 3 characters, got 'A1H5Z'"),
        (coordinates, {"residue_names": ["ALA", "GLY", ""]}, "residue names"),
        (coordinates, {"insertion_codes": ["", "", "AB"]}, "insertion codes of a character or none, got 'AB'"),
        (coordinates, {"chain": "AB"}, "a chain id of one character, got 'AB'"),
        (far, {}, "coordinates from -999.999 to 9999.999"),
        (infinite, {}, "finite coordinates, or NaN in all three"),
        (half, {}, "finite coordinates, or NaN in all three"),
        (torch.full((3, 5, 3), torch.nan), {}, "at least one atom, got none"),
        (coordinates[:0], {}, "at least one atom, got none"),
        (coordinates[:, :3], {}, r"\[residues, 5, 3\], got torch.float32 \[3, 3, 3\]"),
        (coordinates.long(), {}, "got torch.int64"),
        (coordinates.numpy(), {}, "got ndarray"),
    ]
    for bad, options, message in cases:
        with pytest.raises(InputError, match=message):
            media.write_structure(tmp_path / "out.pdb", bad, **options)
    for bad, options, _ in (cases[0], cases[3], cases[6], cases[7]):
        media.write_structure(tmp_path / "out.cif", bad, **options, overwrite=True)
        structure = media.read_structure(tmp_path / "out.cif")
        assert same(structure.coordinates, bad)
        assert structure.residue_ids == tuple(options.get("residue_ids", (1, 2, 3)))
        assert structure.residue_names[-1] == options.get("residue_names", ["UNK"])[-1]
        assert structure.chain == options.get("chain", "A")
    with pytest.raises(InputError, match=r"suffix among \.pdb .* got '\.gro'"):
        media.write_structure(tmp_path / "out.gro", coordinates)


# What is a residue


def test_residues_are_what_has_a_carbon_called_ca(tmp_path):
    (tmp_path / "all.pdb").write_text(
        residue_lines("ALA", 1, 1.0)
        + residue_lines("MSE", 2, 2.0, record="HETATM")
        + "".join(line(name, "SER", 3, (3.0, 0.0, 0.0)) for name in ("N", "C"))
        + line("CA", "GLY", 4, (4.0, 1.0, 0.0))
        + line("CA", "CA", 5, (5.0, 0.0, 0.0), record="HETATM", element="CA")
        + line("CA", "CA", 6, (6.0, 0.0, 0.0), record="HETATM", element="")
        + line("C1", "HEM", 7, (7.0, 0.0, 0.0), record="HETATM")
        + line("O", "HOH", 8, (8.0, 0.0, 0.0), record="HETATM")
    )
    with pytest.warns(UserWarning, match="elements were guessed"):
        structure = media.read_structure(tmp_path / "all.pdb")
    assert structure.residue_names == ("ALA", "MSE", "GLY")
    assert structure.residue_ids == (1, 2, 4)
    assert structure.coordinates[1].tolist() == [[2.0, k, 0.0] for k in range(5)]
    assert structure.coordinates[2, 1].tolist() == [4.0, 1.0, 0.0]
    assert structure.coordinates[2, [0, 2, 3, 4]].isnan().all()


def test_the_location_named_first_is_taken(tmp_path):
    (tmp_path / "two.pdb").write_text(
        residue_lines("ALA", 1, 1.0)
        + line("N", "SER", 2, (2.0, 0.0, 0.0))
        + "".join(
            line(name, residue, 2, (x, k, 0.0), location=location)
            for k, name in enumerate(ATOMS[1:4], start=1)
            for x, location, residue in ((2.0, "B", "SER"), (9.0, "A", "CYS"))  # two kinds of residue, interleaved
        )
        + residue_lines("ALA", 3, 3.0)
    )
    structure = media.read_structure(tmp_path / "two.pdb")
    assert structure.residue_names == ("ALA", "SER", "ALA")
    assert structure.coordinates[1, :4].tolist() == [[2.0, k, 0.0] for k in range(4)]


def test_insertion_codes_make_residues_and_numbers_may_decrease(tmp_path):
    places = [(1, "X"), (2, "X"), (2, " "), (2, "A"), (-3, " "), (7, " ")]
    (tmp_path / "odd.pdb").write_text(
        "".join(residue_lines("ALA", number, i, insertion=code) for i, (number, code) in enumerate(places))
    )
    structure = media.read_structure(tmp_path / "odd.pdb")
    assert structure.residue_ids == (1, 2, 2, 2, -3, 7)
    assert structure.insertion_codes == ("X", "X", "", "A", "", "")
    assert structure.coordinates[:, 1, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_of_several_chains_one_is_named(tmp_path):
    (tmp_path / "three.pdb").write_text(
        residue_lines("ALA", 1, 1.0, chain="B")
        + residue_lines("ALA", 1, 2.0, chain="A")
        + residue_lines("MSE", 2, 3.0, chain="B", record="HETATM")
        + line("O", "HOH", 1, chain="W", record="HETATM")
    )
    with pytest.raises(InputError, match=r"three\.pdb: expected chain= .*to choose among 'B', 'A'"):
        media.read_structure(tmp_path / "three.pdb")
    for absent in ("C", "W", "a", ""):
        with pytest.raises(InputError, match=f"expected a chain among 'B', 'A', got '{absent}'"):
            media.read_structure(tmp_path / "three.pdb", chain=absent)
    structure = media.read_structure(tmp_path / "three.pdb", chain="B")
    assert structure.coordinates[:, 0, 0].tolist() == [1.0, 3.0]
    assert structure.chain == "B"


def test_one_of_several_models_is_read(tmp_path):
    models = [f"MODEL     {i:>4}\n{residue_lines('ALA', 1, i)}ENDMDL\n" for i in (1, 2, 3)]
    (tmp_path / "nmr.pdb").write_text("".join(models))
    assert media.read_structure(tmp_path / "nmr.pdb").coordinates[0, 0, 0] == 1
    assert media.read_structure(tmp_path / "nmr.pdb", model=3).coordinates[0, 0, 0] == 3
    for model in (0, -1, 4):
        with pytest.raises(InputError, match=f"expected a model from 1 to 3, got {model}"):
            media.read_structure(tmp_path / "nmr.pdb", model=model)


@pytest.mark.parametrize("suffix", [".cif", ".bcif"])
def test_a_model_that_an_mmcif_file_lacks_is_named(chain, tmp_path, suffix):
    media.write_structure(tmp_path / f"one{suffix}", chain[:3])
    with pytest.raises(InputError, match="expected a model from 1 to 1, got 2"):
        media.read_structure(tmp_path / f"one{suffix}", model=2)


# Files that cannot be read


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"not a structure", bytes(range(256)) * 20])
def test_what_is_no_structure_is_named(tmp_path, suffix, content):
    (tmp_path / f"foreign{suffix}").write_bytes(content)
    with pytest.raises(MediaError, match=rf"foreign\{suffix}: (cannot be read as a structure: .|holds no atom)"):
        media.read_structure(tmp_path / f"foreign{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_short_is_damaged(chain, tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    media.write_structure(path, chain[:40])
    whole = path.read_bytes()
    for part in (0.01, 0.5, 0.99):
        size = int(len(whole) * part)
        if suffix != ".bcif":  # within the coordinates of a line
            size = whole.rindex(b"\n", 0, size) + 40
        path.write_bytes(whole[:size])
        with pytest.raises(MediaError, match=rf"cut\{suffix}: cannot be read as a structure"):
            media.read_structure(path)


def test_other_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "water.pdb").write_text(line("O", "HOH", 1, record="HETATM"))
    (tmp_path / "nan.pdb").write_text(residue_lines("ALA", 1, 1.0) + residue_lines("ALA", 2, math.nan))
    (tmp_path / "other.cif").write_text("data_x\n_cell.length_a 10\n")
    for name, message in (
        ("water.pdb", "holds no residue with a CA atom"),
        ("nan.pdb", "has coordinates that are not finite"),
        ("other.cif", "cannot be read as a structure: it has no 'atom_site'"),
        ("none.cif", "cannot be read as a structure: No such file"),
    ):
        with pytest.raises(MediaError, match=f"{name}: {message}"):
            media.read_structure(tmp_path / name)
    with pytest.raises(InputError, match=r"suffix among \.pdb .* got '\.txt'"):
        media.read_structure(tmp_path / "chain.txt")
    with pytest.raises(InputError, match="expected a structure as the path of a file, got Tensor"):
        media.read_structure(torch.zeros(3, 5, 3))


# Distances


def kabsch(mobile: np.ndarray, fixed: np.ndarray) -> float:
    """The least root mean square distance of `[points, 3]` over rotations and shifts, from singular values alone."""
    mobile, fixed = mobile - mobile.mean(0), fixed - fixed.mean(0)
    u, s, v = np.linalg.svd(mobile.T @ fixed)
    s[2] *= np.sign(np.linalg.det(u) * np.linalg.det(v))
    return math.sqrt(max(0.0, (mobile**2).sum() + (fixed**2).sum() - 2 * s.sum()) / len(mobile))


def pair_of_chains(chain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy, turned and shifted chains with gaps of their own, and the chains, `[2, 253, 5, 3]`."""
    generator = torch.Generator().manual_seed(0)
    original = torch.stack([chain, chain.flip(0)])
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    noise = torch.tensor([0.1, 3.0])[:, None, None, None] * torch.randn(original.shape, generator=generator)
    reconstruction = (original + noise) @ (turn * turn.det()) + 30
    original[0, 10, 0] = torch.nan
    original[1, 20] = torch.nan
    reconstruction[0, 30, 2] = torch.nan
    return reconstruction, original


@pytest.mark.parametrize("atoms", [("CA",), ("N", "CA", "C")])
def test_rmsd_is_the_least_over_what_both_have(chain, atoms):
    reconstruction, original = pair_of_chains(chain)
    columns = [ATOMS.index(name) for name in atoms]
    expected = []
    for mobile, fixed in zip(reconstruction.double().numpy(), original.double().numpy(), strict=True):
        mobile, fixed = mobile[:, columns], fixed[:, columns]
        kept = [i for i in range(len(fixed)) if not np.isnan([mobile[i], fixed[i]]).any()]
        expected.append(kabsch(mobile[kept].reshape(-1, 3), fixed[kept].reshape(-1, 3)))
    found = rmsd(reconstruction, original, atoms=atoms)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert rmsd(reconstruction[1], original[1], atoms=atoms).tolist() == found[1]
    assert 0.1 < found[0] < 0.3 < 3 < found[1] < 6


def test_rmsd_of_a_moved_chain_is_zero_and_of_a_mirrored_one_is_not(chain):
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3)))[0]
    moved = (chain @ (turn * turn.det()) - 8)[None]
    for atoms in (("CA",), ("N", "CA", "C")):
        assert rmsd(moved, chain[None], atoms=atoms).tolist() == pytest.approx([0], abs=1e-4)
        assert rmsd(-moved, chain[None], atoms=atoms) > 10


def test_rmsd_without_a_residue_in_both_is_not_defined(chain):
    one, other = chain[None].clone(), chain[None].clone()
    one[:, ::2] = torch.nan
    other[:, 1::2, 0] = torch.nan
    assert rmsd(one, other).isnan().tolist() == [True]
    assert rmsd(one, other, atoms=("CA",)).tolist() == pytest.approx([0], abs=1e-4)


def test_bad_structures_are_refused_with_what_came(chain):
    batch = chain[None]
    cases = [
        (batch.numpy(), batch, ("CA",), "reconstruction as a float tensor .* got ndarray"),
        (batch, batch.nan_to_num().long(), ("CA",), "original as a float tensor .* got torch.int64"),
        (batch[:, :, :4], batch, ("CA",), r"got \[1, 253, 4, 3\]"),
        (batch[:, :0], batch, ("CA",), r"got \[1, 0, 5, 3\]"),
        (batch[:, :9], batch, ("CA",), r"shape \[1, 253, 5, 3\], got \[1, 9, 5, 3\]"),
        (batch / 0, batch, ("CA",), "infinite coordinate"),
        (batch, batch, "CA", "expected atoms as a tuple of names among N, CA, C, CB, O, got 'CA'"),
        (batch, batch, ("CD",), r"got \('CD',\)"),
        (batch, batch, (), r"got \(\)"),
    ]
    for reconstruction, original, atoms, message in cases:
        with pytest.raises(InputError, match=message):
            rmsd(reconstruction, original, atoms=atoms)
