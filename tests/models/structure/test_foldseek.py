"""Foldseek 3Di against the golden of the reference, a plain computation of its description, and real chains."""

import json

import numpy as np
import pytest
import torch
from biotite.structure import AtomArray
from biotite.structure.alphabet import to_3di
from biotite.structure.io.pdb import PDBFile

import zoo
from tests.support.paths import GOLDENS, SHARED
from zoo import media
from zoo.checkpoints import assign, without_storage
from zoo.models.structure import foldseek
from zoo.models.structure.foldseek import CHECKPOINT, describe_contacts, virtual_centers
from zoo.parity import parity, read_golden, synthetic_checkpoint

GOLDEN = GOLDENS / "foldseek-3di"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
CHAINS = [str(name) for name in np.load(GOLDEN / "golden.npz")["names"]]
PROTEINS = SHARED / "data" / "proteins"
PUBLISHED = zoo.pull("foldseek-3di")
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


@pytest.fixture(scope="module")
def tokenizer() -> zoo.Tokenizer:
    return zoo.load("3di")


def golden_chain(name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A chain as `[1, residues, 5, 3]`, and the golden's arrays of it."""
    arrays = read_golden(GOLDEN / "golden.npz")[CHAINS.index(name)]
    atoms = torch.full((1, len(arrays["input"]), 5, 3), torch.nan)
    atoms[0, :, :4] = arrays["input"]
    return atoms, arrays


# Parity


def test_the_published_network_is_at_parity():
    report = parity("foldseek-3di", GOLDEN / "manifest.json", GOLDEN / "golden.npz")
    assert set(report.differences) == {"latent", "quantized"}
    assert report.code_agreement == 1.0
    assert report.passed, report


@pytest.mark.parametrize("name", CHAINS)
def test_every_step_is_the_references(tokenizer, name):
    atoms, golden = golden_chain(name)
    contacts = describe_contacts(atoms.double())
    mask = golden["mask"]
    assert torch.equal(contacts.valid[0], mask)
    assert torch.equal(tokenizer.valid(atoms)[0], mask)
    assert torch.equal(contacts.partners[0][mask], golden["partner"][mask])
    centers = virtual_centers(atoms.double())[0]
    assert torch.allclose(centers, golden["virtual_center"], rtol=0, atol=2e-5, equal_nan=True)
    assert (contacts.features[0] - golden["descriptors"])[mask].abs().max() < 2e-5
    assert tokenizer.to_letters(tokenizer.encode(atoms)) == [MANIFEST["arrays"][name]]


# A plain computation of the description


def plain_3di(chain: np.ndarray, state: dict[str, np.ndarray]) -> tuple[list[int], list[bool]]:
    """States and validity of `[residues, 5, 3]`, residue by residue."""
    n, a, c, b = (chain[:, k].astype(np.float64) for k in range(4))
    length = len(chain)

    def u(v):
        return v / np.linalg.norm(v)

    centers, complete = [], [not np.isnan(chain[i, :3]).any() for i in range(length)]
    for i in range(length):
        beta = b[i]
        if np.isnan(beta).any():
            x, y = u(c[i] - a[i]), u(n[i] - a[i])
            p = u(y + x / 3)
            q = u(np.cross(x, p))
            beta = a[i] + 1.5336 * (-x / 3 - np.sqrt(8) / 3 * (p / 2 + np.sqrt(3) / 2 * q))
        w = beta - a[i]
        centers.append(a[i] - 2 * np.cross(u(np.cross(w, n[i] - a[i])), w))
    states, valid = [], []
    for i in range(length):
        candidates = [j for j in range(1, length - 1) if complete[j] and j != i]
        if i in (0, length - 1) or not complete[i] or not candidates:
            states.append(2)
            valid.append(False)
            continue
        j = min(candidates, key=lambda j: np.linalg.norm(centers[j] - centers[i]))
        if not all(complete[k] for k in (i - 1, i, i + 1, j - 1, j, j + 1)):
            states.append(2)
            valid.append(False)
            continue
        u1, u2, u3, u4 = u(a[i] - a[i - 1]), u(a[i + 1] - a[i]), u(a[j] - a[j - 1]), u(a[j + 1] - a[j])
        u5, s = u(a[j] - a[i]), j - i
        angles = [u1 @ u2, u3 @ u4, u1 @ u5, u3 @ u5, u1 @ u4, u2 @ u3, u1 @ u3]
        h = np.array([*angles, np.linalg.norm(a[j] - a[i]), np.clip(s, -4, 4), np.sign(s) * np.log(abs(s) + 1)])
        for layer in range(3):
            h = h @ state[f"dense.{layer}.weight"] + state[f"dense.{layer}.bias"]
            h = np.maximum(h, 0) if layer < 2 else h
        states.append(int(((h - state["centroids"]) ** 2).sum(1).argmin()))
        valid.append(True)
    return states, valid


def random_chains(batch: int, residues: int, seed: int) -> torch.Tensor:
    """Random walks with sparse CB, and here and there without an atom or a whole residue."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randn(batch, residues, 3, generator=generator)
    alpha = (3.8 * torch.nn.functional.normalize(steps, dim=-1)).cumsum(dim=1)
    atoms = alpha[:, :, None] + 1.5 * torch.nn.functional.normalize(
        torch.randn(batch, residues, 5, 3, generator=generator), dim=-1
    )
    atoms[:, :, 1] = alpha
    missing = torch.rand(batch, residues, 5, generator=generator) < torch.tensor([0.02, 0.01, 0.02, 0.3, 0.1])
    missing |= torch.rand(batch, residues, 1, generator=generator) < 0.01
    return atoms.masked_fill(missing[..., None], torch.nan)


def with_state(state: dict[str, torch.Tensor]) -> zoo.Tokenizer:
    variant = zoo.info("foldseek-3di")
    with without_storage():
        tokenizer = variant.builder(variant.spec)
    assign(tokenizer, CHECKPOINT.convert(state, tokenizer.state_dict(), "state"))
    return tokenizer.eval()


@pytest.mark.parametrize(("batch", "residues", "seed"), [(1, 90, 0), (3, 41, 5), (2, 4, 7), (2, 3, 8), (1, 1, 9)])
@pytest.mark.parametrize("trained", [True, False])
def test_codes_are_what_the_description_says(trained, batch, residues, seed):
    shapes = {"dense.0": [10, 10], "dense.1": [10, 10], "dense.2": [10, 2]}
    tensors = {f"{key}.weight": {"shape": shape, "dtype": "float32"} for key, shape in shapes.items()}
    tensors |= {f"{key}.bias": {"shape": shape[1:], "dtype": "float32"} for key, shape in shapes.items()}
    tensors["centroids"] = {"shape": [20, 2], "dtype": "float32"}
    state = synthetic_checkpoint(MANIFEST if trained else {"tensors": tensors, "seed": seed})
    tokenizer = with_state(state)
    atoms = random_chains(batch, residues, seed)
    codes, valid = tokenizer.encode(atoms), tokenizer.valid(atoms)
    plain = {key: value.double().numpy() for key, value in state.items()}
    for i in range(batch):
        assert (codes[i, 0].tolist(), valid[i].tolist()) == plain_3di(atoms[i].numpy(), plain)
    assert valid.any() == (residues > 3)


# What does not matter, and what does


def test_a_moved_chain_keeps_its_codes(tokenizer):
    atoms, golden = golden_chain("8crb_A")
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    turn = turn * turn.det()
    assert torch.equal(tokenizer.encode(atoms @ turn.T - 70)[0, 0], golden["codes"])
    assert torch.equal(tokenizer.encode(atoms + 5000)[0, 0], golden["codes"])
    assert not torch.equal(tokenizer.encode(-atoms)[0, 0], golden["codes"])  # a mirror image


def test_oxygen_is_not_looked_at(tokenizer):
    atoms, golden = golden_chain("8crb_C")
    atoms[:, :, 4] = 7.0
    assert torch.equal(tokenizer.encode(atoms)[0, 0], golden["codes"])


def test_partners_are_sought_piece_by_piece(tokenizer, monkeypatch):
    atoms, golden = golden_chain("1xso_A")
    monkeypatch.setattr(foldseek, "PAIRS_AT_ONCE", 1000)
    assert torch.equal(tokenizer.encode(atoms)[0, 0], golden["codes"])
    both = tokenizer.encode(torch.cat([atoms, atoms.flip(1)]))
    assert torch.equal(both[0, 0], golden["codes"])


def test_an_absent_atom_makes_its_neighbours_invalid(tokenizer):
    atoms, _ = golden_chain("8crb_C")
    for atom in (0, 1, 2):
        without = atoms.clone()
        without[0, 60, atom] = torch.nan
        invalid = ~tokenizer.valid(without)[0]
        assert invalid[[59, 60, 61]].all()
        assert (tokenizer.encode(without)[0, 0][invalid] == LETTERS.index("D")).all()
    without = atoms.clone()
    without[0, 60, 3] = torch.nan  # an ideal CB takes its place
    assert torch.equal(tokenizer.valid(without), tokenizer.valid(atoms))


def test_the_mask_of_a_padded_batch_is_that_of_each_chain(tokenizer):
    long, short = golden_chain("8crb_A")[0], golden_chain("8crb_C")[0]
    batch = torch.zeros(2, long.shape[1], 5, 3)
    batch[0], batch[1, : short.shape[1]] = long[0], short[0]
    valid = tokenizer.valid(batch, lengths=torch.tensor([long.shape[1], short.shape[1]]))
    assert torch.equal(valid[:1], tokenizer.valid(long))
    assert torch.equal(valid[1:, : short.shape[1]], tokenizer.valid(short))
    assert not valid[1, short.shape[1] :].any()
    with pytest.raises(zoo.InputError, match="expected lengths"):
        tokenizer.valid(batch, lengths=torch.tensor([0, 1]))


# Letters


def test_letters_and_codes_are_each_others_inverse(tokenizer):
    codes = torch.arange(20).repeat(2, 1, 1)
    assert tokenizer.to_letters(codes) == [LETTERS, LETTERS]
    assert torch.equal(tokenizer.from_letters([LETTERS, LETTERS]), codes)
    assert torch.equal(tokenizer.from_letters(LETTERS.lower()), codes[:1])
    latent = tokenizer.embed(tokenizer.from_letters("AY"))
    assert torch.equal(latent, torch.tensor([[[-1.0729, 1.0290], [-0.3600, 0.8772]]]))


@pytest.mark.parametrize(
    ("letters", "message"),
    [
        ("ACX", r"expected the letters .*, got X"),
        (["AC", "A"], r"got lengths \[1, 2\]"),
        ("", r"got lengths \[0\]"),
        ([], r"got lengths \[\]"),
    ],
)
def test_strings_that_stand_for_no_codes_are_refused(tokenizer, letters, message):
    with pytest.raises(zoo.InputError, match=message):
        tokenizer.from_letters(letters)


def test_codes_that_stand_for_no_letters_are_refused(tokenizer):
    with pytest.raises(zoo.InputError, match="out of range"):
        tokenizer.to_letters(torch.tensor([[[20]]]))
    with pytest.raises(zoo.InputError, match=r"expected codes as \[batch, 1, residues\]"):
        tokenizer.to_letters(torch.zeros(5, dtype=torch.long))


# Weights


def test_the_weights_come_with_biotite(tokenizer):
    assert len(PUBLISHED.read_bytes()) == 1032
    assert tokenizer.num_parameters == 282
    for key, entry in MANIFEST["tensors"].items():
        assert np.array_equal(foldseek.read_kerasify(PUBLISHED)[key], np.array(entry["value"], np.float32)), key


@pytest.mark.parametrize("size", [0, 3, 4, 20, 100, 1031])
def test_a_file_cut_short_is_refused(tmp_path, size):
    (tmp_path / "cut.kerasify").write_bytes(PUBLISHED.read_bytes()[:size])
    with pytest.raises(zoo.CheckpointError, match=r"cut\.kerasify: truncated .* bytes are missing"):
        zoo.load("foldseek-3di", weights=tmp_path / "cut.kerasify")


def test_a_file_of_another_kind_is_refused(tmp_path):
    published = PUBLISHED.read_bytes()
    cases = [
        (published + b"more", "4 bytes follow the layers"),
        (b"\4" + published[1:], "expected number of layers 3, found 4"),
        (published[:4] + b"\2" + published[5:], "expected layer type 1, found 2"),
        (published[:-4] + b"\2\0\0\0", "expected activation 1, found 2"),
        (published[:8] + b"\5\0\0\0\x14\0\0\0" + published[16:], r"dense\.0\.weight: \[5, 20\]"),
    ]
    for content, message in cases:
        (tmp_path / "other.kerasify").write_bytes(content)
        with pytest.raises(zoo.CheckpointError, match=message):
            zoo.load("foldseek-3di", weights=tmp_path / "other.kerasify")
    with pytest.raises(zoo.CheckpointError, match=r"none\.kerasify: No such file"):
        zoo.load("foldseek-3di", weights=tmp_path / "none.kerasify")


def test_saved_weights_are_weights_of_the_variant(tokenizer, tmp_path):
    atoms, golden = golden_chain("8crb_C")
    tokenizer.save_pretrained(tmp_path)
    loaded = zoo.load("foldseek-3di", weights=tmp_path / "model.safetensors")
    assert torch.equal(loaded.encode(atoms)[0, 0], golden["codes"])


# Files


def test_a_file_becomes_the_letters_of_its_chain(tokenizer, tmp_path):
    atoms, _ = golden_chain("3bww_A")
    media.write_structure(tmp_path / "chain.pdb", atoms[0])
    with open(tmp_path / "chain.pdb", "a") as file:  # water and calcium are no residues
        file.write("HETATM 9998  O   HOH A 901      10.000  10.000  10.000  1.00  0.00           O  \n")
        file.write("HETATM 9999 CA    CA A 902      12.000  10.000  10.000  1.00  0.00          CA  \n")
    codes = tokenizer.encode(tokenizer.preprocess(tmp_path / "chain.pdb"))
    assert tokenizer.to_letters(codes) == [MANIFEST["arrays"]["3bww_A"]]


needs_proteins = pytest.mark.skipif(not PROTEINS.is_dir(), reason=f"real chains are not here: no folder {PROTEINS}")


@needs_proteins
def test_real_files_become_the_letters_of_the_reference(tokenizer):
    assert len(MANIFEST["chains"]) == 45
    for file, letters in MANIFEST["chains"].items():
        assert tokenizer.to_letters(tokenizer.encode(tokenizer.preprocess(PROTEINS / file))) == [letters], file


@needs_proteins
def test_a_chain_whose_numbers_decrease_is_one_chain(tokenizer):
    file = "train/1dix_A.pdb"
    atoms: AtomArray = PDBFile.read(PROTEINS / file).get_structure(model=1)
    in_two, _ = to_3di(atoms)  # biotite starts a new chain where residue numbers decrease
    assert len(in_two) == 2
    letters = tokenizer.to_letters(tokenizer.encode(tokenizer.preprocess(PROTEINS / file)))[0]
    assert letters == MANIFEST["chains"][file]
    assert letters != "".join(map(str, in_two)).upper()
