"""How a running-average codebook starts, moves, revives, resumes, and stays the same on all ranks."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from zoo.quantizers import Quantizer, ResidualVQ, VectorQuantizer


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def set_codebook(quantizer: VectorQuantizer, rows: Tensor) -> None:
    quantizer.codebook.copy_(rows)
    quantizer.codebook_sum.copy_(rows)


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def squared_distances(z: Tensor, rows: Tensor) -> Tensor:
    return (z[:, None].double() - rows[None].double()).square().sum(-1)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_an_ema_step_is_the_ratio_of_running_sums_and_smoothed_counts(distance):
    quantizer = VectorQuantizer(3, 8, update="ema", decay=0.9, epsilon=0.01, distance=distance)
    set_codebook(quantizer, torch.randn(8, 3))
    rows = quantizer.codebook.clone()
    counts, sums = torch.ones(8), rows.clone()
    for _ in range(3):
        z = torch.randn(50, 3)
        quantizer(z)
        if distance == "cosine":
            z, rows = unit(z), unit(rows)
        codes = squared_distances(z, rows).argmin(1)
        for k in range(8):
            counts[k] = 0.9 * counts[k] + 0.1 * (codes == k).sum()
            sums[k] = 0.9 * sums[k] + 0.1 * z[codes == k].sum(0)
        smoothed = (counts + 0.01) / (counts.sum() + 8 * 0.01) * counts.sum()
        rows = sums / smoothed[:, None]
    assert torch.allclose(quantizer.cluster_size, counts, atol=1e-5)
    assert torch.allclose(quantizer.codebook_sum, sums, atol=1e-5)
    assert torch.allclose(quantizer.codebook, rows, atol=1e-5)


def clusters(number: int, each: int, dim: int) -> tuple[Tensor, Tensor]:
    centres = 10 * torch.randn(number, dim)
    return centres, (centres[:, None] + 0.01 * torch.randn(number, each, dim)).flatten(0, 1)


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_kmeans_starts_the_codebook_at_the_clusters_of_the_first_batch(distance):
    centres, z = clusters(5, 100, 4)
    quantizer = VectorQuantizer(4, 40, update="ema", kmeans_init=True, distance=distance)
    assert not quantizer.initialized
    quantizer(z)
    assert quantizer.initialized
    rows = quantizer.codebook
    if distance == "cosine":
        centres, rows = unit(centres), unit(rows)
    assert squared_distances(centres, rows).min(1).values.max() < 0.01
    assert squared_distances(rows, centres).min(1).values.max() < 0.01


def test_the_codebook_stays_where_kmeans_put_it_when_the_same_latents_come_again():
    _, z = clusters(5, 100, 4)
    quantizer = VectorQuantizer(4, 5, update="ema", kmeans_init=True)
    quantizer(z)
    first = quantizer.codebook.clone()
    for _ in range(20):
        quantizer(z)
    assert torch.allclose(quantizer.codebook, first, rtol=1e-3)


def test_kmeans_runs_once_and_never_in_eval_mode_or_encode():
    quantizer = VectorQuantizer(4, 5, update="ema", kmeans_init=True)
    before = quantizer.codebook.clone()
    quantizer.encode(torch.randn(50, 4))
    quantizer.eval()(torch.randn(50, 4))
    assert torch.equal(quantizer.codebook, before)
    quantizer.train()(torch.randn(50, 4))
    started = quantizer.codebook.clone()
    quantizer(100 + torch.randn(50, 4))
    assert (quantizer.codebook - started).norm(dim=1).min() < 10


def test_kmeans_manages_with_fewer_latents_than_rows():
    quantizer = VectorQuantizer(4, 50, update="ema", kmeans_init=True)
    z = torch.randn(10, 4)
    assert (quantizer(z).quantized - z).abs().max() < 1e-4
    assert quantizer.codebook.isfinite().all()


def test_a_dead_row_moves_to_a_latent_and_stays_there():
    z = torch.randn(100, 3)
    quantizer = VectorQuantizer(3, 4, update="ema", revive_below=0.5)
    set_codebook(quantizer, torch.tensor([[0.0, 0, 0], [1, 1, 1], [-1, -1, -1], [1000, 1000, 1000]]))
    quantizer.cluster_size[3] = 0.1
    quantizer(z)
    revived = quantizer.codebook[3].clone()
    assert squared_distances(revived[None], z).min() < 1e-6
    assert quantizer.cluster_size[3] == 1.0
    quantizer(z)
    assert torch.allclose(quantizer.codebook_sum[3] / quantizer.cluster_size[3], quantizer.codebook[3], rtol=1e-3)
    assert quantizer.codebook[3].norm() < 10
    assert (quantizer.encode(z) == 3).any()


def test_rows_below_no_threshold_are_not_revived():
    quantizer = VectorQuantizer(3, 2, update="ema")
    set_codebook(quantizer, torch.tensor([[0.0, 0, 0], [1000, 1000, 1000]]))
    quantizer(torch.randn(100, 3))
    assert torch.allclose(quantizer.codebook[1], torch.tensor(1000.0), rtol=1e-3)


def test_training_resumed_from_saved_state_is_identical(tmp_path: Path):
    def steps(quantizer: Quantizer, numbers: range) -> None:
        for number in numbers:
            torch.manual_seed(number)
            quantizer(torch.randn(200, 4))

    options = {"update": "ema", "kmeans_init": True, "revive_below": 1.0}
    whole, first, second = (VectorQuantizer(4, 64, **options) for _ in range(3))
    steps(whole, range(6))
    steps(first, range(3))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    steps(second, range(3, 6))
    assert all(torch.equal(whole.state_dict()[key], tensor) for key, tensor in second.state_dict().items())


def train_on_rank(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    result = {}
    for name, options in (("plain", {}), ("started", {"kmeans_init": True, "revive_below": 4.0})):
        torch.manual_seed(7)
        quantizer = ResidualVQ(3, 16, 2, update="ema", quantizer_dropout=name == "started", **options)
        torch.manual_seed(rank)
        for _ in range(4):
            quantizer(torch.randn(40, 3))
        result[name] = quantizer.state_dict()
    torch.save(result, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_ranks_with_different_data_keep_one_codebook_that_saw_all_of_it(tmp_path: Path):
    other = multiprocessing.get_context("spawn").Process(target=train_on_rank, args=(1, str(tmp_path)))
    other.start()
    train_on_rank(0, str(tmp_path))
    other.join()
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name in ("plain", "started"):
        assert all(torch.equal(ranks[0][name][key], ranks[1][name][key]) for key in ranks[0][name])
    torch.manual_seed(7)
    alone = ResidualVQ(3, 16, 2, update="ema")
    data = []
    for rank in range(2):
        torch.manual_seed(rank)
        data.append([torch.randn(40, 3) for _ in range(4)])
    for batches in zip(*data, strict=True):
        alone(torch.cat(batches))
    for key, tensor in alone.state_dict().items():
        assert torch.allclose(tensor.float(), ranks[0]["plain"][key].float(), atol=1e-5)
