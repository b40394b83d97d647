"""Figures of images and of sets of them, each against its own computation.

Networks get random weights here, from files that lie where the published ones would: what is tested is that the file
is read and the formula followed.
"""

import copy
import math
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch
import torchmetrics
import torchvision
from matplotlib.cbook import get_sample_data
from PIL import Image
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric

import zoo
from zoo.errors import InputError, WeightsUnavailableError
from zoo.media import load_image
from zoo.metrics import networks
from zoo.metrics.image import IMAGE, inception_score, lpips, ms_ssim, rfid
from zoo.metrics.perturbation import PFID, codebook_rows, perturb_codes, perturbed_reconstruction
from zoo.metrics.sets import FrechetDistance, InceptionScore


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    """`[3, 600, 512]`."""
    with get_sample_data("grace_hopper.jpg") as file:
        return load_image(Image.open(file).convert("RGB"))


def damaged(images: Tensor) -> Tensor:
    """Noisier from one to the next, and blurred."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    strength = torch.linspace(0.03, 0.15, len(images))[:, None, None, None]
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    return (blurred + strength * noise).clamp(0, 1)


@pytest.fixture(scope="module")
def large(photograph) -> tuple[Tensor, Tensor]:
    """Reconstructions and originals `[2, 3, 200, 177]`."""
    originals = torch.stack([photograph[:, 60:260, 170:347], photograph[:, 350:550, 100:277]])
    return damaged(originals), originals


@pytest.fixture(scope="module")
def crops(photograph) -> tuple[Tensor, Tensor]:
    """Reconstructions and originals `[5, 3, 72, 64]`."""
    originals = torch.stack([photograph[:, 90 * i : 90 * i + 72, 60 * i : 60 * i + 64] for i in range(5)])
    return damaged(originals), originals


@pytest.fixture
def no_checkpoints(tmp_path, monkeypatch) -> Path:
    """Torch hub's folder of checkpoints, empty for the time of a test."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def spread(network: nn.Module) -> None:
    """Random weights that neither shrink nor blow up what passes."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


# MS-SSIM


def direct_ms_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """For `[3, H, W]`."""

    def smooth(image: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(image, (0, 1.5, 1.5), radius=(0, 5, 5), mode="mirror")

    result = 1.0
    for scale, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean_x, mean_y = smooth(first), smooth(second)
        variance_x, variance_y = smooth(first**2) - mean_x**2, smooth(second**2) - mean_y**2
        covariance = smooth(first * second) - mean_x * mean_y
        figure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
        if scale == 4:
            figure *= (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        else:
            figure = figure[:, 5:-5, 5:-5]
        result *= max(figure.mean(), 0) ** exponent
        _, height, width = (side - side % 2 for side in first.shape)
        first, second = (
            image[:, :height, :width].reshape(3, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
            for image in (first, second)
        )
    return float(result)


def test_ms_ssim_is_that_of_its_formula(large):
    expected = [direct_ms_ssim(*item) for item in zip(*(batch.double().numpy() for batch in large), strict=True)]
    assert 0.5 < min(expected) < max(expected) < 0.99
    assert ms_ssim(*large).tolist() == pytest.approx(expected, abs=1e-5)


def test_an_image_has_the_same_ms_ssim_alone_and_equal_images_have_one(large):
    alone = [ms_ssim(*(batch[i : i + 1] for batch in large)).item() for i in range(2)]
    assert ms_ssim(*large).tolist() == pytest.approx(alone, abs=1e-6)
    assert ms_ssim(large[1], large[1]).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_images_that_are_too_small_have_no_ms_ssim(large):
    cut = [batch[..., :175] for batch in large]
    assert ms_ssim(*cut).isnan().tolist() == [True, True]
    assert ms_ssim(*(batch[..., :176] for batch in large)).isfinite().all()


# LPIPS


def random_vgg16() -> nn.Sequential:
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    spread(features)
    return features


def save_vgg16(features: nn.Sequential, folder: Path) -> None:
    """As torchvision publishes it; what follows the features are zeros, stored once."""
    sizes = {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    for index, (outputs, inputs) in sizes.items():
        state[f"classifier.{index}.weight"] = torch.zeros(()).expand(outputs, inputs)
        state[f"classifier.{index}.bias"] = torch.zeros(outputs)
    torch.save(state, folder / "vgg16-397923af.pth")


def direct_lpips(features: nn.Sequential, first: Tensor, second: Tensor) -> list[float]:
    path = Path(torchmetrics.__file__).parent / "functional/image/lpips_models/vgg.pth"
    heads = torch.load(path, map_location="cpu", weights_only=True)
    mean, deviation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # of ImageNet, to three digits in LPIPS
    shift = torch.tensor([2 * m - 1 for m in mean])[:, None, None]
    scale = torch.tensor([2 * d for d in deviation])[:, None, None]
    x = (torch.cat([first, second]) * 2 - 1 - shift) / scale
    total = torch.zeros(len(first))
    layer = 0
    for index, module in enumerate(features):
        x = module(x)
        if index in (3, 8, 15, 22, 29):
            units = x / x.square().sum(dim=1, keepdim=True).sqrt()
            difference = (units[: len(first)] - units[len(first) :]).square()
            total += (difference * heads[f"lin{layer}.model.1.weight"]).sum(dim=1).mean(dim=(1, 2))
            layer += 1
    return total.tolist()


@torch.no_grad()
def test_lpips_is_that_of_its_formula_with_the_weights_in_the_file(crops, no_checkpoints):
    features = random_vgg16()
    save_vgg16(features, no_checkpoints)
    assert IMAGE["lpips"].missing() is None
    reconstruction, original = (batch[:2] for batch in crops)
    expected = direct_lpips(features, reconstruction, original)
    assert 0.003 < expected[0] != pytest.approx(expected[1], rel=0.05)
    assert lpips(reconstruction, original).tolist() == pytest.approx(expected, rel=2e-3)
    assert lpips(reconstruction[1:], original[1:]).tolist() == pytest.approx(expected[1:], rel=2e-3)
    assert lpips(original, original).tolist() == [0, 0]
    assert lpips(original[..., :15], original[..., :15]).isnan().all()


def test_without_vgg16_lpips_says_which_file_goes_where(crops, no_checkpoints):
    message = IMAGE["lpips"].missing()
    assert "vgg16-397923af.pth is not in " + str(no_checkpoints) in message
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in message
    with pytest.raises(WeightsUnavailableError, match=r"vgg16-397923af\.pth is not in"):
        lpips(*crops)
    assert not any(no_checkpoints.iterdir())


# Fréchet distance


def sides(seed: int, numbers: tuple[int, int], size: int) -> tuple[Tensor, Tensor]:
    """Features of two sets: float32, correlated, of different means and scales."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator)
    first = torch.randn(numbers[0], size, generator=generator) @ mixing
    second = 1.5 * torch.randn(numbers[1], size, generator=generator) @ (mixing + 0.3) + 0.5
    return first, second


def direct_frechet_distance(first: Tensor, second: Tensor) -> float:
    first, second = first.double().numpy(), second.double().numpy()
    covariances = [np.cov(side, rowvar=False) for side in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = first.mean(axis=0) - second.mean(axis=0)
    return float(shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root))


def test_frechet_distance_is_that_of_its_formula_and_of_torch_fidelity():
    first, second = sides(0, (300, 211), 24)
    metric = FrechetDistance(nn.Identity(), 24)
    for some, others in zip(first.tensor_split(4), second.tensor_split(4), strict=True):
        metric.update(some, others)
    statistics = [fid_features_to_statistics(side.double()) for side in (first, second)]
    published = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert metric.compute().item() == pytest.approx(direct_frechet_distance(first, second), rel=1e-9)
    assert metric.compute().item() == pytest.approx(published, rel=1e-9)


def test_frechet_distance_of_fewer_items_than_features():
    first, second = (side.double() for side in sides(1, (9, 7), 64))
    metric = FrechetDistance(nn.Identity(), 64)
    metric.update(first, second)
    # The trace of the root of a product of two covariances is the sum of the singular values of what is between.
    first, second = ((side - side.mean(dim=0)) / math.sqrt(len(side) - 1) for side in (first, second))
    shift = metric.reconstruction_sum / 9 - metric.original_sum / 7
    overlap = torch.linalg.matrix_norm(first @ second.T, "nuc")
    expected = shift.square().sum() + first.square().sum() + second.square().sum() - 2 * overlap
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_set_has_distance_zero_from_itself_and_one_item_has_no_distance():
    first, _ = sides(2, (50, 2), 16)
    metric = FrechetDistance(nn.Identity(), 16)
    metric.update(first[:1], first[:1])
    assert metric.compute().isnan()
    metric.update(first[1:], first[1:])
    assert metric.compute().item() == pytest.approx(0, abs=1e-5)


def set_metrics() -> list[torchmetrics.Metric]:
    return [FrechetDistance(nn.Identity(), 12), InceptionScore(nn.Identity(), 12)]


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
@pytest.mark.parametrize("index", [0, 1])
def test_metrics_of_parts_merge_to_that_of_the_whole(index):
    first, second = sides(3, (90, 90), 12)
    whole, one, other, empty = (set_metrics()[index] for _ in range(4))
    whole.update(first, second)
    one.update(first[:40], second[:40])
    one.compute()
    other.update(first[40:], second[40:])
    other = pickle.loads(pickle.dumps(other))  # as it comes from another process
    one.merge_state(other)
    empty.merge_state(one)
    assert one.compute().item() == pytest.approx(whole.compute().item(), rel=1e-12)
    assert empty.compute().item() == pytest.approx(whole.compute().item(), rel=1e-12)


@pytest.mark.parametrize("index", [0, 1])
def test_the_state_does_not_grow_and_resets(index):
    first, second = sides(4, (20, 20), 12)
    metric = set_metrics()[index]
    metric.update(first, second)
    before = copy.deepcopy(metric.metric_state)
    for _ in range(3):
        metric.update(first, second)
    assert {name: value.shape for name, value in metric.metric_state.items()} == {
        name: value.shape for name, value in before.items()
    }
    metric.reset()
    metric.update(first, second)
    assert all(torch.equal(metric.metric_state[name], value) for name, value in before.items())


# Inception score


def test_inception_score_is_that_of_torch_fidelity_in_one_split():
    logits, _ = sides(5, (400, 2), 10)
    metric = InceptionScore(nn.Identity(), 10)
    for some in logits.split(150):
        metric.update(some, some)
    one, ten = (
        isc_features_to_metric(logits, splits=splits, shuffle=False)["inception_score_mean"] for splits in (1, 10)
    )
    assert metric.compute().item() == pytest.approx(one, rel=1e-9)
    assert ten < one


def test_inception_score_has_its_limits():
    metric = InceptionScore(nn.Identity(), 4)
    metric.update(1000 * torch.eye(4), torch.zeros(4))
    assert metric.compute().item() == pytest.approx(4)
    metric.reset()
    metric.update(torch.ones(7, 4), torch.zeros(7))
    assert metric.compute().item() == pytest.approx(1)


# Through Inception


class RandomInception(FeatureExtractorInceptionV3):
    def load_state_dict(self, state: dict) -> None:
        spread(self)


@pytest.fixture(scope="module")
def inception_network(tmp_path_factory) -> nn.Module:
    path = tmp_path_factory.mktemp("inception") / "none.pth"
    torch.save({}, path)
    network = RandomInception("random", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path))
    network.fc.weight *= 30
    return network


@pytest.mark.parametrize("name", networks.INCEPTION.names)
def test_the_file_of_inception_is_found_by_either_name(no_checkpoints, name):
    (no_checkpoints / name).touch()
    assert networks.INCEPTION.path() == no_checkpoints / name
    assert IMAGE["rfid"].missing() is IMAGE["inception_score"].missing() is PFID.missing() is None


def test_rfid_and_inception_score_are_those_of_their_formulas_on_the_features(crops, inception_network, no_checkpoints):
    torch.save(inception_network.state_dict(), no_checkpoints / networks.INCEPTION.names[0])
    spec = zoo.info("wetok-nano").spec
    distance, score = (IMAGE[name].streaming(spec) for name in ("rfid", "inception_score"))
    reconstruction, original = crops = [batch[:2] for batch in crops]
    for i in (slice(0, 1), slice(1, 2)):
        distance.update(reconstruction[i], original[i])
        score.update(reconstruction[i], original[i])
    as_bytes = [torch.from_numpy(np.rint(255 * batch.double().numpy()).astype(np.uint8)) for batch in crops]
    (first, logits), (second, _) = (inception_network(batch) for batch in as_bytes)
    expected = isc_features_to_metric(logits, splits=1, shuffle=False)["inception_score_mean"]
    assert expected > 1.005
    assert score.compute().item() == pytest.approx(expected, rel=1e-4)
    for side, features in (("reconstruction", first.double()), ("original", second.double())):
        assert distance.metric_state[f"{side}_count"] == 2
        assert torch.allclose(distance.metric_state[f"{side}_sum"], features.sum(dim=0), rtol=1e-3)
        assert torch.allclose(distance.metric_state[f"{side}_products"], features.T @ features, rtol=1e-3, atol=1e-6)


def test_without_inception_the_metrics_say_which_file_goes_where(no_checkpoints, monkeypatch):
    for metric, build in ((IMAGE["rfid"], rfid), (IMAGE["inception_score"], inception_score), (PFID, rfid)):
        message = metric.missing()
        assert "weights-inception-2015-12-05-6726825d.pth" in message
        assert f"is not in {no_checkpoints}; put it there, from https://github.com/toshas/torch-fidelity" in message
        with pytest.raises(WeightsUnavailableError, match="6726825d"):
            build()
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    assert 'pip install "tokenizer-zoo[metrics]"' in IMAGE["rfid"].missing()


def test_a_file_that_would_run_code_is_not_read(no_checkpoints):
    torch.save({"weight": subprocess.Popen}, no_checkpoints / networks.INCEPTION.names[0])
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        networks.inception(torch.zeros(1, 3, 64, 64))


# Perturbed codes


def direct_perturbation(
    codes: np.ndarray, rows: np.ndarray, alpha: float, delta: int, drawn: np.ndarray, rank: np.ndarray
) -> np.ndarray:
    result = codes.copy()
    for position in np.ndindex(codes.shape):
        if drawn[position] < alpha:
            distances = ((rows - rows[codes[position]]) ** 2).sum(axis=1)
            result[position] = np.argsort(distances, kind="stable")[rank[position]]
    return result


def test_codes_are_perturbed_as_the_definition_says():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(50, 6, generator=generator)
    codes = torch.randint(50, (4, 1, 5, 7), generator=generator)
    perturbed = perturb_codes(codes, [rows], alpha=0.6, delta=8, beta=0.8, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    drawn = torch.rand(3, 5, 7, generator=generator).numpy()
    rank = torch.randint(8, (3, 5, 7), generator=generator).numpy()
    expected = direct_perturbation(codes[:3, 0].numpy(), rows.double().numpy(), 0.6, 8, drawn, rank)
    assert (perturbed[:3, 0].numpy() == expected).all()
    assert torch.equal(perturbed[3], codes[3])


def test_the_share_of_codes_that_change_is_alpha_except_for_those_drawn_again():
    rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    rows[1] = rows[0]  # a row that comes twice is two codes
    codes = torch.arange(64).repeat(4, 2, 40)
    perturbed = perturb_codes(codes, [rows, rows], alpha=0.7, delta=4, generator=torch.Generator().manual_seed(0))
    for index in range(2):
        share = (perturbed[:, index] != codes[:, index]).double().mean().item()
        assert share == pytest.approx(0.7 * 3 / 4, abs=0.02)
    assert torch.equal(perturb_codes(codes, [rows, rows], alpha=0, delta=4), codes)
    assert torch.equal(perturb_codes(codes, [rows, rows], alpha=1, delta=1), codes)
    assert perturb_codes(codes, [rows, rows], alpha=1, delta=200).unique().tolist() == list(range(64))


def test_codes_that_cannot_be_perturbed_are_refused():
    codes, rows = torch.zeros(2, 1, 3, dtype=torch.int64), torch.zeros(4, 2)
    for changed, message in [
        ({"codes": codes.float()}, "integer codes, got torch.float32"),
        ({"codes": codes + 4}, "codes from 0 to 3, got 4 to 4"),
        ({"codebooks": [rows, rows]}, r"\[batch, 2, \*grid\], got \[2, 1, 3\]"),
        ({"codebooks": [rows[0]]}, r"floating \[codebook_size, dim\]"),
        ({"alpha": 1.5}, "alpha from 0 to 1, got 1.5"),
        ({"beta": -1}, "beta from 0 to 1, got -1"),
        ({"delta": 0}, "delta of at least 1, got 0"),
    ]:
        with pytest.raises(InputError, match=message):
            perturb_codes(**{"codes": codes, "codebooks": [rows], "alpha": 0.5, "delta": 2, **changed})


def test_a_tokenizers_images_are_perturbed(tiny_wetok, crops):
    books = codebook_rows(tiny_wetok.quantizer)
    assert [len(book) for book in books] == list(tiny_wetok.spec.codebook_sizes)
    _, original = crops
    plain = tiny_wetok.reconstruct(original)
    same = perturbed_reconstruction(tiny_wetok, original, books, alpha=0.0, delta=200)
    other = perturbed_reconstruction(tiny_wetok, original, books, alpha=0.9, delta=200)
    assert torch.equal(same, plain)
    assert other.shape == original.shape and not torch.equal(other, plain)


def test_rows_of_a_codebook_are_those_that_the_decoder_receives():
    quantizer = zoo.quantizers.VectorQuantizer(6, 20, distance="cosine")
    assert torch.equal(codebook_rows(quantizer)[0], quantizer.rows())


# The table


def test_every_metric_of_images_gives_the_figure_that_it_is_named_for(large):
    spec = zoo.info("wetok-nano").spec
    assert {"psnr", "ssim", "ms_ssim", "lpips", "character_error_rate", "rfid", "inception_score"} <= set(IMAGE)
    for name in ("psnr", "ssim", "ms_ssim"):
        metric = pickle.loads(pickle.dumps(IMAGE[name].streaming(spec)))
        metric.update(*large)
        function = getattr(zoo.metrics.image, name)
        assert metric.compute().item() == pytest.approx(function(*large).double().mean().item())
        assert IMAGE[name].missing() is None and IMAGE[name].higher_is_better
