"""Foldseek 3Di: for each residue of a protein, one of 20 letters for its place relative to its nearest partner.

Paper: Fast and accurate protein structure search with Foldseek (Nature Biotechnology 42, 2024,
doi 10.1038/s41587-023-01773-0). Reference: steineggerlab/foldseek, and althonos/mini3di at 4632109, its port.
The encoder, of 282 values, of a VQ-VAE whose decoder was never published, so letters cannot be decoded. Its input is
ten angles and distances of a pair of residues, so that moving a chain changes nothing. Residues without such a pair
(both ends, neighbours of absent atoms) have the letter D, which others have too: `valid` distinguishes them.

The weights are read from biotite (BSD-3-Clause; its encoder is Copyright (c) 2023 Martin Larralde); the centroids
are constants of the authors' program.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints import KeyMap
from zoo.errors import CheckpointError, InputError
from zoo.quantizers import VectorQuantizer
from zoo.registry import PackageSource, alias, register
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
INVALID = LETTERS.index("D")
IDEAL_BETA_LENGTH = 1.5336  # angstrom, from CA to a CB that is absent
CENTER_FACTOR = 2.0  # distance of the virtual centre, in distances from CA to CB
PAIRS_AT_ONCE = 2**21  # distances in memory (16 MiB) during the search for partners

CENTROIDS = (
    *((-1.0729, -0.3600), (-0.1356, -1.8914), (0.4948, -0.4205), (-0.9874, 0.8128), (-1.6621, -0.4259)),
    *((2.1394, 0.0486), (1.5558, -0.1503), (2.9179, 1.1437), (-2.8814, 0.9956), (-1.1400, -2.0068)),
    *((3.2025, 1.7356), (1.7769, -1.3037), (0.6901, -1.2554), (-1.1061, -1.3397), (2.1495, -0.8030)),
    *((2.3060, -1.4988), (2.5522, 0.6046), (0.7786, -2.1660), (-2.3030, 0.3813), (1.0290, 0.8772)),
)


def unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)


def ideal_beta(nitrogen: Tensor, alpha: Tensor, carbon: Tensor) -> Tensor:
    """CB `[..., 3]` of an L-amino acid with the angles of a tetrahedron."""
    to_carbon = unit(carbon - alpha)
    between = unit(unit(nitrogen - alpha) + to_carbon / 3)
    across = unit(torch.linalg.cross(to_carbon, between))
    return alpha - IDEAL_BETA_LENGTH * (to_carbon / 3 + 8**0.5 / 3 * (between / 2 + 3**0.5 / 2 * across))


def virtual_centers(atoms: Tensor) -> Tensor:
    """Atoms `[..., 5, 3]` to the points `[..., 3]` whose distances decide partners; NaN without N, CA or both CB and C.

    A point lies in the plane of N, CA and CB, seen from CA at a right angle to CB and on the side away from N.
    """
    nitrogen, alpha, carbon, beta, _ = atoms.unbind(dim=-2)
    to_beta = torch.where(beta.isnan(), ideal_beta(nitrogen, alpha, carbon), beta) - alpha
    normal = unit(torch.linalg.cross(to_beta, nitrogen - alpha))
    return alpha - CENTER_FACTOR * torch.linalg.cross(normal, to_beta)


def find_partners(centers: Tensor, complete: Tensor) -> tuple[Tensor, Tensor]:
    """The partner of each residue: the one with the nearest virtual centre, of all complete residues but both ends.

    Args:
        centers: `[B, residues, 3]`.
        complete: bool `[B, residues]`.

    Returns:
        Number of the partner, int64 `[B, residues]`, the lowest on a tie; whether there is one, bool `[B, residues]`.
    """
    batch, residues, _ = centers.shape
    centers = centers.nan_to_num()
    index = torch.arange(residues, device=centers.device)
    candidate = complete & (index > 0) & (index < residues - 1)
    # A traced graph has to work for any number of residues, so it takes all of them at once.
    traced = torch.compiler.is_compiling()
    partners, found = [], []
    for some in [index] if traced else index.split(max(1, PAIRS_AT_ONCE // (batch * residues))):
        # From differences: products of vectors are faster, but far from the origin they lose the digits that decide.
        pairs = zip(centers[:, some].unbind(dim=2), centers.unbind(dim=2), strict=True)
        distances = reduce(torch.add, [(one[:, :, None] - other[:, None]).square() for one, other in pairs]).sqrt()
        distances = distances.masked_fill(~candidate[:, None] | (some[:, None] == index), torch.inf)
        least, where = distances.min(dim=2)
        partners.append(where)
        found.append(least.isfinite())
    return torch.cat(partners, dim=1), torch.cat(found, dim=1)


class Contacts(NamedTuple):
    """Residues and their partners.

    features: ten numbers each, `[B, residues, 10]`; NaN or meaningless where not valid.
    partners: int64 `[B, residues]`. valid: bool `[B, residues]`.
    """

    features: Tensor
    partners: Tensor
    valid: Tensor


def describe_contacts(atoms: Tensor) -> Contacts:
    """Return how each residue lies relative to its partner, from atoms `[B, residues, 5, 3]`."""
    complete = ~atoms[:, :, :3].isnan().flatten(2).any(dim=2)
    partners, found = find_partners(virtual_centers(atoms), complete)

    def of_partner(values: Tensor) -> Tensor:
        # (`take_along_dim` broadcasts, which would tie an exported graph to one number of residues.)
        return values.gather(1, partners[..., None].expand(-1, -1, values.shape[2]))

    alpha = atoms[:, :, 1]
    steps = F.pad(unit(alpha.diff(dim=1)), (0, 0, 1, 1))
    before, after = steps[:, :-1], steps[:, 1:]
    before_partner, after_partner = of_partner(before), of_partner(after)
    offset = of_partner(alpha) - alpha
    to_partner = unit(offset)
    cosines = (
        (before, after),
        (before_partner, after_partner),
        (before, to_partner),
        (before_partner, to_partner),
        (before, after_partner),
        (after, before_partner),
        (before, before_partner),
    )
    separation = partners - torch.arange(atoms.shape[1], device=atoms.device)
    features = [(one * other).sum(dim=-1) for one, other in cosines]
    features += [offset.norm(dim=-1), separation.clamp(-4, 4), separation.sign() * separation.abs().log1p()]

    # Only the CA of neighbours are used, but the reference asks for their N and C too.
    neighbours = F.pad(complete, (1, 1))
    surrounded = neighbours[:, :-2] & complete & neighbours[:, 2:]
    valid = surrounded & of_partner(surrounded[..., None])[..., 0] & found
    return Contacts(torch.stack([feature.to(atoms.dtype) for feature in features], dim=-1), partners, valid)


class Encoder(nn.Module):
    """Features `[..., 10]` to `[..., 2]`; the batch normalisation of training is folded into the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.ModuleList([nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 2)])

    def forward(self, features: Tensor) -> Tensor:
        first, second, last = self.dense
        return last(F.relu(second(F.relu(first(features)))))


class Foldseek(Tokenizer):
    """Protein chains to the 3Di alphabet, one code per residue, without a decoder.

    Structures `[B, residues, 5, 3]` in angstrom, of which N, CA, C and CB are used (O is not), one chain an item.
    A residue without CB gets an ideal one. One without N, CA or C is invalid, and so are those beside it and those
    whose partner is beside it; a row without any atom is such a residue, not a gap to be skipped. Foldseek itself
    knows only residues with a CA, which are those that zoo reads from files.
    """

    encode_only = (
        "its letters stand for a few angles and distances between two residues, which do not fix a structure, "
        "and no decoder was ever published"
    )

    def __init__(self, spec: TokenizerSpec):
        super().__init__(spec)
        self.encoder = Encoder()
        self.quantizer = VectorQuantizer(2, len(LETTERS))

    def to_latent(self, signal: Tensor) -> Tensor:
        # In float64, so that coordinates far from the origin keep the precision of the file.
        contacts = describe_contacts(signal.double())
        latent = self.encoder(contacts.features.to(self.dtype))
        # The reference gives invalid residues a fixed letter. The latent is the centroid that becomes this letter.
        invalid = self.quantizer.codes_to_latent(torch.full_like(contacts.partners, INVALID)[..., None])
        latent = torch.where(contacts.valid[..., None], latent, invalid)
        return latent.movedim(-1, 1)

    @torch.no_grad()
    def valid(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return which residues have a code that describes a contact, as opposed to the D that stands for "unknown".

        Args:
            x: floating `[B, residues, 5, 3]`, as in `encode`.
            lengths: int `[B]`, as in `encode`.

        Returns:
            bool `[B, residues]`, false after an item's length.

        Raises:
            InputError: as for `encode`.
        """
        x = self._check_signal(x)
        if lengths is None:
            return describe_contacts(x.double()).valid
        valid = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        for i, length in enumerate(self.modality.check_lengths(lengths, x).tolist()):
            valid[i, :length] = describe_contacts(x[i : i + 1, :length].double()).valid[0]
        return valid

    def to_letters(self, codes: Tensor) -> list[str]:
        """Return codes `[B, 1, residues]` as one string per item, in Foldseek's letters; InputError as for `embed`."""
        codes = self.quantizer.check_codes(self._check_codes(codes).movedim(1, -1))[..., 0]
        return ["".join(LETTERS[code] for code in item) for item in codes.tolist()]

    def from_letters(self, letters: str | Sequence[str]) -> Tensor:
        """Return strings of equal length, in upper or lower case, as codes int64 `[B, 1, residues]`.

        Args:
            letters: a string for each item; a single string is a batch of one.

        Raises:
            InputError: no string, an empty one, lengths that differ, or a letter outside the alphabet.
        """
        strings = [letters.upper()] if isinstance(letters, str) else [string.upper() for string in letters]
        lengths = sorted({len(string) for string in strings})
        if len(lengths) != 1 or lengths[0] == 0:
            raise InputError(f"expected strings of equal length, at least 1, got lengths {lengths}")
        if unknown := sorted(set("".join(strings)) - set(LETTERS)):
            raise InputError(f"expected the letters {LETTERS}, got {', '.join(unknown)}")
        codes = [[LETTERS.index(letter) for letter in string] for string in strings]
        return torch.tensor(codes, device=self.device)[:, None]


DENSE_LAYER = 1
LINEAR, RELU = 1, 2
LAYER_ACTIVATIONS = (RELU, RELU, LINEAR)


def read_kerasify(path: Path) -> dict[str, Tensor]:
    """Return the published network, a little-endian file without names, and the centroids of the program.

    Raises:
        CheckpointError: no such file, truncated, longer than stated, or with layers of another kind.
    """
    try:
        file = io.BytesIO(Path(path).read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None

    def take(kind: str, number: int) -> tuple[Any, ...]:
        data = file.read(4 * number)
        if len(data) < 4 * number:
            raise CheckpointError(
                f"{path}: truncated or not a kerasify file: {4 * number - len(data)} bytes are missing"
            )
        return struct.unpack(f"<{number}{kind}", data)

    def expect(what: str, value: int) -> None:
        (found,) = take("I", 1)
        if found != value:
            raise CheckpointError(f"{path}: not a kerasify file as published: expected {what} {value}, found {found}")

    state = {}
    expect("number of layers", len(LAYER_ACTIVATIONS))
    for i, activation in enumerate(LAYER_ACTIVATIONS):
        expect("layer type", DENSE_LAYER)
        rows, columns, biases = take("I", 3)
        state[f"dense.{i}.weight"] = torch.tensor(take("f", rows * columns)).reshape(rows, columns)
        state[f"dense.{i}.bias"] = torch.tensor(take("f", biases))
        expect("activation", activation)
    if rest := len(file.read()):
        raise CheckpointError(f"{path}: not a kerasify file as published: {rest} bytes follow the layers")
    return state | {"centroids": torch.tensor(CENTROIDS)}


CHECKPOINT = KeyMap(
    ("dense.{i}.weight", "encoder.dense.{i}.weight", torch.t),  # rows are inputs
    ("dense.{i}.bias", "encoder.dense.{i}.bias"),
    ("centroids", "quantizer.codebook"),
)

register(
    "foldseek-3di",
    Foldseek,
    spec=TokenizerSpec(
        modality="structure",
        quantizer="vq",
        codebook_sizes=(len(LETTERS),),
        downsample=(1,),
        channels=5,
        code_license="GPL-3.0 (Foldseek); BSD-3-Clause (mini3di, its port)",
        weights_license="BSD-3-Clause",
        paper="https://doi.org/10.1038/s41587-023-01773-0",
        source="https://github.com/steineggerlab/foldseek",
    ),
    config={},
    hub=PackageSource("biotite", "structure/alphabet/encoder_weights_3di.kerasify", read_kerasify),
    keys=CHECKPOINT,
    card="foldseek-3di",
    figures={
        "search with 3Di and amino acids, sensitivity over Dali's": 0.86,
        "search with 3Di and amino acids, sensitivity over TM-align's": 0.88,
        "search with 3Di and amino acids, sensitivity over CE's": 1.33,
    },
)
alias("3di", "foldseek-3di")
