"""Protein structures: from files to the backbone atoms of a chain and back.

Coordinates are float32 `[residues, 5, 3]` in angstrom, atoms N, CA, C, CB and O, NaN where one is absent.
biotite, which reads and writes the files, is imported when it is first needed.
"""

from __future__ import annotations

import io
import re
import reprlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InputError, MediaError, ZooError
from zoo.files import atomic_path
from zoo.modalities.base import FLOATING, Modality, Signal, check_ordinary
from zoo.modalities.binary_cif import read_binary_cif
from zoo.modalities.files import MediaBytes, MediaFile, as_file, named_warnings
from zoo.modalities.structure_files import content_of, first_locations, polymer_lines, without_ligands

if TYPE_CHECKING:
    from biotite.structure import AtomArray

    from zoo.spec import TokenizerSpec

FARTHEST = 1e5  # angstrom from the origin: beyond it, float32 no longer tells atoms apart well
ATOMS = ("N", "CA", "C", "CB", "O")  # of a residue, the first five of atom37
SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".bcif")
PDB_SUFFIXES = (".pdb", ".ent")
UNKNOWN_RESIDUE = "UNK"


class StructureModality(Modality):
    """Structures `[B, residues, 5, 3]` in angstrom, NaN where an atom is absent; one chain an item."""

    name = "structure"
    title = "Protein structures"
    noun = ("structure", "structures")
    axes = ("residues",)
    axis = 1
    suffixes = (*SUFFIXES, *(f"{suffix}.gz" for suffix in SUFFIXES))
    signal_suffix = ".pdb"
    lossless_suffix = ".bcif"
    options = ("chain", "residues")
    is_sampled = False
    networks_pad = True
    keeps_float32 = True
    largest_decoded = 1e6
    network_range = None
    raw_bits = 32
    unit = "/residue"
    reference = "residue"
    reference_size = (1,)
    amount_unit = "residues"
    batch_size = 2**12
    rate_unit = "bits/residue"
    speed_unit = "residues/s"
    quality = ("ca_rmsd", "rmsd")
    validation_metrics = ("ca_rmsd", "tm_score", "lddt")
    padding_value = torch.nan

    def layout(self, spec: TokenizerSpec) -> str:
        return f"[batch, residues, {len(ATOMS)}, 3]"

    def has_layout(self, x: Tensor, spec: TokenizerSpec) -> bool:
        return x.ndim == 4 and x.shape[2:] == (len(ATOMS), 3)

    def check_values(self, x: Tensor) -> None:
        present = ~x.isnan()
        if bool(x.isinf().any()) or bool((present.any(dim=-1) != present.all(dim=-1)).any()):
            raise InputError("structure has coordinates that are not finite; an absent atom is NaN in all three")
        if not bool(present.flatten(1).any(dim=1).all()):
            raise InputError("structure has an item without a single atom")
        if (farthest := float(x.nan_to_num().abs().max())) > FARTHEST:
            raise InputError(f"expected coordinates in angstrom, at most {FARTHEST:g}, got {farthest:g}")

    def like(self, x: Tensor, original: Tensor) -> Tensor:
        """Return a decoded batch without the residues that have no atom in `original`: their codes mean nothing."""
        absent = original.isnan().flatten(2).all(dim=2)
        return x.masked_fill(absent[..., None, None], torch.nan)

    def sizes(self, spec: TokenizerSpec) -> list[tuple[int, ...]]:
        return [(24,), (7,)]

    def example(self, spec: TokenizerSpec, batch: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return helices of noisy atoms, without the second residue and the fourth's O."""
        (residues,) = size
        angle = torch.arange(residues)[:, None] * 1.745 + torch.tensor([-0.5, 0.0, 0.45, 0.1, 0.6])
        radius = torch.tensor([1.5, 2.3, 1.7, 3.3, 2.0])
        rise = torch.arange(residues)[:, None] * 1.5 + torch.tensor([-0.9, 0.0, 1.1, -0.4, 2.2])
        helix = torch.stack([radius * angle.cos(), radius * angle.sin(), rise], dim=-1)
        atoms = helix + 0.3 * torch.randn(batch, residues, len(ATOMS), 3, generator=generator)
        atoms[:, 1:2] = torch.nan
        atoms[:, 3:4, ATOMS.index("O")] = torch.nan
        return atoms

    def load(self, source: Any, spec: TokenizerSpec, **options: Any) -> Signal:
        residues, chain = options.get("residues"), options.get("chain")
        file = as_file(source)
        if file is not None:
            values = read_structure(file, chain=chain).coordinates
        elif chain is not None:
            raise InputError("expected chain= with a file; coordinates in memory are one chain")
        else:
            values = _from_memory(source)
        _check_backbone(values, file)
        return Signal(values[:residues])

    def chains(self, source: Any) -> tuple[str, ...]:
        return chain_ids(source)

    def write(
        self,
        path: str | Path,
        signal: Any,
        spec: TokenizerSpec,
        *,
        frame_rate: float | None = None,
        pixel_aspect: float | None = None,
        overwrite: bool = False,
    ) -> None:
        write_structure(path, signal, overwrite=overwrite)

    def read_lossless(self, path: Path, like: Tensor, spec: TokenizerSpec) -> Tensor:
        structure = read_structure(path)  # without residues that have no CA
        values = torch.full((len(like), len(ATOMS), 3), torch.nan)
        values[torch.tensor(structure.residue_ids) - 1] = structure.coordinates
        return values


@dataclass(frozen=True, eq=False)
class Structure:
    """One chain of a file.

    chain: id of the chain, as the authors of the file named it.
    coordinates: float32 `[residues, 5, 3]` in angstrom; NaN where an atom is absent.
    residue_names, residue_ids, insertion_codes: one for each residue, such as "ALA", 52 and "A" (or ""). Ids may jump,
        repeat or decrease.
    """

    chain: str
    coordinates: Tensor
    residue_names: tuple[str, ...]
    residue_ids: tuple[int, ...]
    insertion_codes: tuple[str, ...]


def read_structure(path: MediaFile, chain: str | None = None, model: int = 1) -> Structure:
    """Read a chain's residues, in file order.

    A residue is anything with a CA atom of carbon: this includes modified residues of the chain (HETATM), but not
    waters and ligands, which follow the TER of the chain (PDB) or have no number in it (mmCIF). Residues that the
    experiment did not resolve are not in the file and have no row here; gaps in the residue ids show them. Of
    alternate locations, the one named first in the residue is taken. Everything else is as biotite reads it: chain and
    residue ids are the authors' (mmCIF `auth_*`), and residues with insertion codes are residues of their own.

    Args:
        path: ends in `.pdb` or `.ent` (PDB), `.cif` or `.mmcif` (mmCIF), or `.bcif` (BinaryCIF), each also with `.gz`.
        chain: id of the chain; None: the only one that has residues.
        model: number of the model, from 1.

    Raises:
        InputError: another suffix, a chain that has no residues, no chain where there are several, or a model that is
            not in the file.
        MediaError: a file that is missing, damaged, cut short or holds no residue. A PDB or mmCIF file that was cut
            after a whole atom cannot be distinguished from a whole one, since these formats state no length.
    """
    path, first_atoms, coordinates = _read_residues(path, model)
    wanted = first_atoms.chain_id == _choose_chain(path, first_atoms.chain_id.tolist(), chain)
    residues = first_atoms[wanted]
    return Structure(
        chain=str(residues.chain_id[0]),
        coordinates=torch.from_numpy(coordinates[wanted]),
        residue_names=tuple(residues.res_name.tolist()),
        residue_ids=tuple(residues.res_id.tolist()),
        insertion_codes=tuple(residues.ins_code.tolist()),
    )


def chain_ids(path: MediaFile, model: int = 1) -> tuple[str, ...]:
    """Ids of the chains that have residues, in file order; arguments and errors as in `read_structure`."""
    path, first_atoms, _ = _read_residues(path, model)
    return tuple(_chains_of(path, first_atoms.chain_id.tolist()))


def write_structure(
    path: str | Path,
    coordinates: Tensor,
    *,
    residue_names: Sequence[str] | None = None,
    residue_ids: Sequence[int] | None = None,
    insertion_codes: Sequence[str] | None = None,
    chain: str = "A",
    overwrite: bool = False,
) -> None:
    """Write a chain, whole or not at all; `read_structure` returns what was written, to 0.001 angstrom in PDB.

    Args:
        path: ends as in `read_structure`.
        coordinates: floating point `[residues, 5, 3]` in angstrom. Atoms that are NaN are left out, and so are
            residues without atoms.
        residue_names: one for each residue, of up to 3 characters in PDB; None: UNK, unknown.
        residue_ids: one for each residue, in PDB from -999 to 9999; None: from 1.
        insertion_codes: one for each residue, a character or ""; None: none.
        chain: id of the chain, a single character in PDB.
        overwrite: whether an existing file is replaced.

    Raises:
        InputError: another suffix, shape or dtype, no atom, a coordinate that is infinite, or anything that the format
            cannot hold.
        MediaError: the file exists or cannot be written.
    """
    path = Path(path)
    _check_suffix(path)
    if path.suffix.lower() == ".gz":
        raise InputError(f"{path}: expected a suffix among {' '.join(SUFFIXES)}; compressed files are only read")
    array = _check_coordinates(coordinates)
    residues = len(array)
    names = [UNKNOWN_RESIDUE] * residues if residue_names is None else list(residue_names)
    ids = list(range(1, residues + 1)) if residue_ids is None else list(residue_ids)
    codes = [""] * residues if insertion_codes is None else list(insertion_codes)
    for what, values in (("residue_names", names), ("residue_ids", ids), ("insertion_codes", codes)):
        if len(values) != residues:
            raise InputError(f"expected {residues} {what}, one a residue, got {len(values)}")
    _check_fits(path, array, names, ids, codes, chain)
    atoms = _atom_array(array, names, ids, codes, chain)
    from biotite.structure.io import pdb, pdbx

    if path.suffix.lower() in PDB_SUFFIXES:
        file: Any = pdb.PDBFile()
        file.set_structure(atoms)
    else:
        file = pdbx.BinaryCIFFile() if path.suffix.lower() == ".bcif" else pdbx.CIFFile()
        pdbx.set_structure(file, atoms)
    with atomic_path(path, overwrite) as temporary:
        file.write(temporary)


# Reading


def _named(file: MediaFile) -> str:
    """Return the name of a file; for bytes without a suffix, with the suffix that their content shows."""
    if not isinstance(file, MediaBytes) or _suffix(Path(file.name)) in SUFFIXES:
        return str(file)
    start = content_of(file)[:512].lstrip()
    if start.startswith((b"data_", b"#", b"loop_")):
        return f"{file.name}.cif"
    # BinaryCIF is a MessagePack map, whose first byte does not occur in text.
    return f"{file.name}.bcif" if start[:1] >= b"\x80" else f"{file.name}.pdb"


def _from_memory(source: Any) -> Tensor:
    """Return coordinates `[residues, 5, 3]` as float32."""
    if isinstance(source, np.ndarray) and source.dtype.kind != "f":
        raise InputError(f"expected coordinates as an array of floats, got {source.dtype}")
    coordinates = torch.from_numpy(source.astype(np.float32)) if isinstance(source, np.ndarray) else source
    if not isinstance(coordinates, Tensor):
        kinds = "path, bytes, or coordinates [residues, 5, 3] as array or tensor"
        raise InputError(f"expected a structure as {kinds}, got {type(source).__name__}")
    return torch.from_numpy(_check_coordinates(coordinates))


def _read_residues(source: MediaFile, model: int) -> tuple[Path, AtomArray, np.ndarray]:
    """The file's name, the first atom of each residue that has a CA atom, and the coordinates `[residues, 5, 3]`."""
    file = as_file(source)
    if file is None:
        raise InputError(f"expected a structure as the path of a file, got {type(source).__name__}")
    path = Path(_named(file))
    _check_suffix(path)
    atoms = _read_atoms(file, path, model)
    # Calcium is called CA too, and taken for carbon where the file names no elements.
    atoms = atoms[(atoms.element != "CA") & (atoms.res_name != "CA")]
    starts, coordinates = _backbone(atoms)
    has_alpha = ~np.isnan(coordinates[:, ATOMS.index("CA")]).any(axis=1)
    return path, atoms[starts[has_alpha]], coordinates[has_alpha]


def _read_atoms(file: MediaFile, path: Path, model: int) -> AtomArray:
    from biotite.structure.io import pdb, pdbx

    suffix = _suffix(path)
    try:
        with named_warnings(path):
            content: Any = content_of(file)
            parsed: Any
            chains: set[str] | None = None
            if suffix in PDB_SUFFIXES:
                lines, chains = polymer_lines(content.decode(errors="replace").splitlines())
                parsed = pdb.PDBFile.read(io.StringIO("\n".join(lines)))
                models, get_structure = parsed.get_model_count(), partial(parsed.get_structure, altloc="all")
            else:
                if suffix == ".bcif":
                    parsed = read_binary_cif(content)
                else:
                    parsed = pdbx.CIFFile.read(io.StringIO(content.decode(errors="replace")))
                models = pdbx.get_model_count(parsed)
                extra = ["label_seq_id"] if "label_seq_id" in parsed.block["atom_site"] else []
                get_structure = partial(pdbx.get_structure, parsed, altloc="all", extra_fields=extra)
            if models == 0:
                raise MediaError(f"{path}: holds no atom")
            if not 1 <= model <= models:
                raise InputError(f"{path}: expected a model from 1 to {models}, got {model}")
            atoms = first_locations(get_structure(model))
        atoms = without_ligands(atoms, chains)
    except ZooError:
        raise
    except OSError as error:
        raise MediaError(f"{path}: cannot be read as a structure: {error.strerror or error}") from error
    except KeyError as error:  # a category or a column of mmCIF
        raise MediaError(f"{path}: cannot be read as a structure: it has no {error}") from error
    except Exception as error:  # a damaged file makes biotite's parsers raise nearly anything
        raise MediaError(f"{path}: cannot be read as a structure: {error}") from error
    if not np.isfinite(atoms.coord).all():
        raise MediaError(f"{path}: has coordinates that are not finite")
    return atoms


def _backbone(atoms: AtomArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each residue's first atom, and the coordinates `[residues, 5, 3]` of its `ATOMS`."""
    from biotite.structure import get_residue_starts

    starts = get_residue_starts(atoms)
    residue = np.searchsorted(starts, np.arange(len(atoms)), side="right") - 1
    coordinates = np.full((len(starts), len(ATOMS), 3), np.nan, np.float32)
    for column, name in enumerate(ATOMS):
        found = np.flatnonzero(atoms.atom_name == name)[::-1]  # of two atoms with the same name, the first is set last
        coordinates[residue[found], column] = atoms.coord[found]
    return starts, coordinates


def _chains_of(path: Path, chain_of_residue: list[str]) -> list[str]:
    chains = list(dict.fromkeys(chain_of_residue))
    if not chains:
        raise MediaError(f"{path}: holds no residue with a CA atom")
    return chains


def _choose_chain(path: Path, chain_of_residue: list[str], chain: str | None) -> str:
    chains = _chains_of(path, chain_of_residue)
    named = ", ".join(map(repr, chains))
    if chain is None and len(chains) > 1:
        raise InputError(f"{path}: expected chain= (--chain, or --all-chains for each) to choose among {named}")
    if chain is not None and (not isinstance(chain, str) or chain not in chains):
        raise InputError(f"{path}: expected a chain among {named}, got {reprlib.repr(chain)}")
    return chains[0] if chain is None else chain


# Writing


def _atom_array(coordinates: np.ndarray, names: list[str], ids: list[int], codes: list[str], chain: str) -> AtomArray:
    from biotite.structure import AtomArray

    residue, atom = np.nonzero(~np.isnan(coordinates[..., 0]))
    atoms = AtomArray(len(residue))
    atoms.coord = coordinates[residue, atom]
    atoms.chain_id = np.full(len(residue), chain)
    atoms.res_id = np.array(ids)[residue]
    atoms.ins_code = np.array(codes)[residue]
    atoms.res_name = np.array(names)[residue]
    atoms.atom_name = np.array(ATOMS)[atom]
    atoms.element = np.array([name[0] for name in ATOMS])[atom]
    return atoms


# Checks


def _suffix(path: Path) -> str:
    """Return the suffix that names the format, without that of a compressed file."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def _check_backbone(coordinates: Tensor, file: MediaFile | None) -> None:
    """Raise InputError if no residue has all of N, CA and C, and warn if most lack one."""
    absent = coordinates[:, :3].isnan().any(dim=-1)
    incomplete = int(absent.any(dim=-1).sum())
    if 2 * incomplete <= len(absent):
        return
    lacking = ", ".join(name for name, missing in zip(ATOMS, absent.any(dim=0).tolist(), strict=False) if missing)
    message = f"{file or 'structure'}: {incomplete} of {len(absent)} residues lack one of {lacking}"
    if incomplete == len(absent):
        raise InputError(f"{message}; expected the backbone atoms N, CA and C")
    warnings.warn(f"{message}; codes need the backbone atoms N, CA and C", stacklevel=3)


def _check_suffix(path: Path) -> None:
    if _suffix(path) not in SUFFIXES:
        raise InputError(f"{path}: expected a suffix among {' '.join(SUFFIXES)}, got {path.suffix!r}")


def _check_coordinates(coordinates: Tensor) -> np.ndarray:
    """Return coordinates as float32 `[residues, 5, 3]`; InputError for another shape, type or value."""
    if not isinstance(coordinates, Tensor):
        raise InputError(f"expected coordinates as a tensor [residues, 5, 3], got {type(coordinates).__name__}")
    check_ordinary(coordinates, "coordinates")
    if coordinates.ndim != 3 or coordinates.shape[1:] != (len(ATOMS), 3) or coordinates.dtype not in FLOATING:
        raise InputError(
            f"expected coordinates as floating [residues, 5, 3], got {coordinates.dtype} {list(coordinates.shape)}"
        )
    absent = coordinates.isnan()
    if bool(coordinates.isinf().any()) or bool((absent.any(dim=-1) != absent.all(dim=-1)).any()):
        raise InputError("expected finite coordinates, or NaN in all three of an absent atom")
    if bool(absent.all()):
        raise InputError("expected at least one atom, got none")
    return coordinates.detach().cpu().float().numpy()


def _check_fits(
    path: Path, coordinates: np.ndarray, names: list[str], ids: list[int], codes: list[str], chain: str
) -> None:
    """Raise InputError for anything that the columns of PDB or the words of mmCIF cannot hold."""
    is_pdb = path.suffix.lower() in PDB_SUFFIXES
    words = (
        ("residue names", names, "1 to 3 characters" if is_pdb else "words", "[!-~]{1,3}" if is_pdb else "[!-~]+"),
        ("insertion codes", codes, "a character or none", "[!-~]?"),
        ("a chain id", [chain], "one character" if is_pdb else "a word", "[!-~]" if is_pdb else "[!-~]+"),
    )
    for what, values, wanted, pattern in words:
        for value in values:
            if not isinstance(value, str) or not re.fullmatch(pattern, value):
                raise InputError(f"{path}: expected {what} of {wanted}, got {value!r}")
    lowest, highest = (-999, 9999) if is_pdb else (-(2**31), 2**31 - 1)
    for number in ids:
        if not isinstance(number, Integral) or not lowest <= number <= highest:
            raise InputError(f"{path}: expected residue ids as integers from {lowest} to {highest}, got {number!r}")
    if is_pdb and not (np.nanmin(coordinates) > -999.9995 and np.nanmax(coordinates) < 9999.9995):
        raise InputError(f"{path}: expected coordinates from -999.999 to 9999.999 angstrom; .cif takes any")


MODALITY = StructureModality()
