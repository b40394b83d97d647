"""Structure files as they are found: compressed, with short lines, alternate locations and ligands."""

from __future__ import annotations

import gzip
import io
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.errors import MediaError
from zoo.modalities.files import MediaBytes, MediaFile

if TYPE_CHECKING:
    from biotite.structure import AtomArray

MOST_BYTES, BLOCK = 2**29, 2**20  # of a file that was compressed
BONDED = 4.5  # angstrom, more than the distance between the CA of bonded residues


def content_of(file: MediaFile) -> bytes:
    """Return the bytes of a file, decompressed."""
    content = file.content if isinstance(file, MediaBytes) else Path(file).read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    unpacked = bytearray()
    with gzip.open(io.BytesIO(content)) as compressed:
        while block := compressed.read(BLOCK):  # which asks for the memory of a whole block
            unpacked += block
            if len(unpacked) > MOST_BYTES:
                raise MediaError(f"{file}: has more than {MOST_BYTES} bytes when decompressed")
    return bytes(unpacked)


def polymer_lines(lines: list[str]) -> tuple[list[str], set[str]]:
    """Return the lines of a PDB file that biotite can read, and the chains whose end is marked by TER.

    HETATM lines after the TER of their chain are ligands and left out. Columns after the coordinates may be missing.
    """
    chain = ""
    marked: set[str] = set()
    ended: set[str] = set()
    after_end: dict[str, list[int]] = {}
    ligands: list[int] = []
    for number, line in enumerate(lines):
        if line.startswith(("MODEL", "ENDMDL")):
            ligands += (number for numbers in after_end.values() for number in numbers)
            ended, after_end = set(), {}
        elif line.startswith("TER"):
            marked.add(chain)
            ended.add(chain)
        elif line.startswith("ATOM"):
            chain = line[21:22].strip()
            ended.discard(chain)  # the TER before marked a gap
            after_end.pop(chain, None)
        elif line.startswith("HETATM"):
            chain = line[21:22].strip()
            if chain in ended:
                after_end.setdefault(chain, []).append(number)
        if line.startswith(("ATOM", "HETATM")) and len(line) < 66:
            occupancy, factor = line[54:60].strip() or "1.00", line[60:66].strip() or "0.00"
            lines[number] = f"{line[:54]:<54}{occupancy:>6}{factor:>6}"
    ligands += (number for numbers in after_end.values() for number in numbers)
    left_out = set(ligands)
    return [line for number, line in enumerate(lines) if number not in left_out], marked


def first_locations(atoms: AtomArray) -> AtomArray:
    """Return the atoms without alternate locations other than the one that is named first in each residue."""
    from biotite.structure import get_residue_starts

    unnamed = np.isin(atoms.altloc_id, [".", "?", " ", ""])
    kept = unnamed.copy()
    bounds = get_residue_starts(atoms, add_exclusive_stop=True)
    for start, stop in pairwise(bounds):
        if not unnamed[start:stop].all():
            names = atoms.altloc_id[start:stop]
            kept[start:stop] |= names == names[~unnamed[start:stop]][0]
    return atoms[kept]


def without_ligands(atoms: AtomArray, marked: set[str] | None) -> AtomArray:
    """Return the atoms without residues of HETATM records that are not part of a chain.

    mmCIF numbers the residues of a chain. If it does not, or if the end of a chain is not `marked` in a PDB file,
    residues after the last one of ATOM records are part of the chain if they are bonded to a neighbour.
    """
    from biotite.structure import get_residue_starts

    if "label_seq_id" in atoms.get_annotation_categories():
        unnumbered = np.isin(atoms.label_seq_id, [".", "?", ""])
        if not unnumbered.all():
            return atoms[~(atoms.hetero & unnumbered)]
    kept = np.ones(len(atoms), bool)
    starts = get_residue_starts(atoms, add_exclusive_stop=True)
    alphas: dict[str, list[tuple[int, int, int]]] = {}  # of each chain: start, stop and CA of its residues
    for start, stop in pairwise(starts.tolist()):
        found = np.flatnonzero((atoms.atom_name[start:stop] == "CA") & (atoms.element[start:stop] != "CA"))
        if len(found):
            alphas.setdefault(str(atoms.chain_id[start]), []).append((start, stop, start + int(found[0])))
    for chain, residues in alphas.items():
        if marked is not None and chain in marked:
            continue
        steps = np.linalg.norm(np.diff(atoms.coord[[alpha for _, _, alpha in residues]], axis=0), axis=1) <= BONDED
        bonded = np.append(False, steps) | np.append(steps, False)
        last = max((number for number, (start, _, _) in enumerate(residues) if not atoms.hetero[start]), default=-1)
        for (start, stop, _), is_bonded in zip(residues[last + 1 :], bonded[last + 1 :], strict=True):
            kept[start:stop] = is_bonded
    return atoms[kept]
