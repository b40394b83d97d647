"""Published evaluations by name: each against its own computation, on images, sound and video that are drawn here."""

import numpy as np
import pytest
import scipy.ndimage
import soundfile
import torch
import torchvision
from PIL import Image
from torchmetrics.image import StructuralSimilarityIndexMeasure
from torchvision.transforms import v2
from typer.testing import CliRunner

from tests.support.bench import voice
from zoo.bench import Benchmark, Candidate, protocols
from zoo.cli import app
from zoo.errors import InputError
from zoo.media import load_video, write_structure, write_video
from zoo.metrics import metric_with


class Damaging(Candidate):
    """Keeps what it is given and returns it with an error that is not a whole number of levels."""

    def __init__(self, modality: str, sample_rate: int | None = None):
        super().__init__("damaging")
        self.modality, self.sample_rate, self.seen = modality, sample_rate, []

    def compress(self, signal):
        self.seen.append(signal[0])
        return 1, None

    def restore(self, payload, like):
        return damaged(like)

    def identity(self):
        return "damaging 1"


def damaged(signal: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(signal.shape[1:], generator=torch.Generator().manual_seed(0))
    return (signal + 0.03 * noise).clamp(0 if signal.ndim > 3 else -1, 1)


@pytest.fixture
def pictures(tmp_path) -> list[Image.Image]:
    """Three images of odd sizes, one of them more than twice as large as a protocol needs."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    drawn = []
    for number, (height, width) in enumerate(((301, 418), (555, 641), (419, 300))):
        rows, columns = np.mgrid[:height, :width]
        waves = [np.sin(rows / (3 + number)) + np.cos(columns / (5 + k)) for k in range(3)]
        drawn.append(Image.fromarray((np.stack(waves, axis=-1) * 60 + 128).astype(np.uint8)))
        drawn[-1].save(folder / f"{number}.png")
    return drawn


def run(protocol: str, folder, tmp_path, candidate: Candidate, **options):
    """The only point of a run by a protocol, with what the candidate saw of each file."""
    work = Benchmark(
        [], folder, candidates=[candidate], protocol=protocol, out=tmp_path / "out", baselines=False, **options
    )
    results = work.run()
    return results, results.points[0], candidate.seen[1:]  # the first is handled twice


def direct_guided_crop(image: Image.Image, size: int) -> np.ndarray:
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def direct_cover(image: Image.Image, size: int) -> np.ndarray:
    scale = max(size / image.width, size / image.height)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def direct_resize(image: Image.Image, size: int) -> np.ndarray:
    resize = torchvision.transforms.Resize(size, torchvision.transforms.InterpolationMode.BICUBIC, antialias=True)
    return np.asarray(torchvision.transforms.CenterCrop(size)(resize(image)))


def direct_uniform_ssim(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
    """scikit-image's, of `[H, W, 3]`."""
    figures = []
    for first, second in zip(np.moveaxis(x, 2, 0), np.moveaxis(y, 2, 0), strict=True):
        mean = [scipy.ndimage.uniform_filter(values, 7) for values in (first, second)]
        squares = [
            scipy.ndimage.uniform_filter(values, 7) for values in (first * first, second * second, first * second)
        ]
        variance = [49 / 48 * (squares[i] - mean[i] ** 2) for i in range(2)]
        covariance = 49 / 48 * (squares[2] - mean[0] * mean[1])
        one, two = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        top = (2 * mean[0] * mean[1] + one) * (2 * covariance + two)
        figure = top / ((mean[0] ** 2 + mean[1] ** 2 + one) * (variance[0] + variance[1] + two))
        figures.append(figure[3:-3, 3:-3].mean())
    return float(np.mean(figures))


# Images


@pytest.mark.parametrize(
    ("protocol", "direct"),
    [("titok-imagenet", direct_resize), ("llamagen-imagenet", direct_guided_crop), ("vtbench", direct_cover)],
)
def test_images_are_cropped_as_the_authors_do(pictures, tmp_path, protocol, direct):
    metrics = None if protocol != "titok-imagenet" else []
    _, _, seen = run(protocol, tmp_path / "pictures", tmp_path, Damaging("image"), metrics=metrics)
    for image, picture in zip(seen, pictures, strict=True):
        assert torch.equal(image, torch.from_numpy(direct(picture, 256).copy()).permute(2, 0, 1) / 255)


def test_llamagens_figures_are_those_of_rounded_pixels_by_scikit_image(pictures, tmp_path):
    results, point, seen = run("llamagen-imagenet", tmp_path / "pictures", tmp_path, Damaging("image"))
    assert "rFID" in results.left_out or "rfid" in point.metrics
    psnr, ssim = [], []
    for image in seen:
        original = image.permute(1, 2, 0).double().numpy()
        samples = 2 * damaged(image[None])[0] - 1
        pixels = torch.clamp(127.5 * samples + 128, 0, 255).to(torch.uint8).permute(1, 2, 0).double().numpy() / 255
        psnr.append(10 * np.log10(1 / np.mean((pixels - original) ** 2)))
        ssim.append(direct_uniform_ssim(pixels, original, 2.0))
    assert point.metrics["psnr"].value == pytest.approx(np.mean(psnr), abs=1e-4)
    assert point.metrics["ssim"].value == pytest.approx(np.mean(ssim), abs=1e-5)


def test_vtbenchs_figures_are_those_of_truncated_pixels_pooled_over_the_set(pictures, tmp_path):
    _, point, seen = run("vtbench", tmp_path / "pictures", tmp_path, Damaging("image"), metrics=["psnr", "ssim"])
    errors, ssim = [], []
    for image in seen:
        pixels = (damaged(image[None])[0].numpy() * 255).astype(np.uint8) / 255
        errors.append(((pixels - image.double().numpy()) ** 2).mean())
        pair = [torch.from_numpy(pixels)[None].float(), image[None]]
        ssim.append(float(StructuralSimilarityIndexMeasure()(*pair)))
    peak = max(float(image.max()) for image in seen)
    assert point.metrics["psnr"].value == pytest.approx(10 * np.log10(peak**2 / np.mean(errors)), abs=1e-3)
    assert point.metrics["ssim"].value == pytest.approx(np.mean(ssim), abs=1e-5)


def test_titoks_pixels_are_rounded_to_the_nearest_level(pictures, tmp_path):
    results, point, seen = run("titok-imagenet", tmp_path / "pictures", tmp_path, Damaging("image"), metrics=[])
    for image, item in zip(seen, point.items, strict=True):
        kept = np.asarray(Image.open(tmp_path / "out" / item.reconstruction))
        rounded = torch.round(damaged(image[None])[0] * 255).permute(1, 2, 0)
        assert np.array_equal(kept, rounded.to(torch.uint8).numpy())
    assert "3 files instead of 50,000" in results.protocol["differences"]


# Sound


def direct_losses(x: np.ndarray, y: np.ndarray, rate: int, bands: tuple[int, ...] | None) -> float:
    """descript-audio-codec's losses on `[samples]`, with Slaney's filters written out."""
    total = 0.0
    for index, size in enumerate((2048, 512)):
        window = np.hanning(size + 1)[:-1]

        def spectra(samples, size=size, window=window):
            padded = np.pad(samples, size // 2, mode="reflect")
            frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 4]
            return np.abs(np.fft.rfft(frames * window)).T

        magnitudes = [spectra(x), spectra(y)]
        if bands is not None:
            mels = np.linspace(0, 15 + 27 * np.log(rate / 2000) / np.log(6.4), bands[index] + 2)
            edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
            frequency = np.fft.rfftfreq(size, 1 / rate)
            filters = [
                np.interp(frequency, edges[k : k + 3], [0, 2 / (edges[k + 2] - edges[k]), 0], 0, 0)
                for k in range(bands[index])
            ]
            magnitudes = [np.stack(filters) @ values for values in magnitudes]
        levels = [np.log10(values.clip(min=1e-5) ** 2) for values in magnitudes]
        total += sum(np.abs(first - second).mean() for first, second in (magnitudes, levels))
    return total


def test_codec_superbs_losses_are_those_of_their_formulas(tmp_path):
    (tmp_path / "sound").mkdir()
    soundfile.write(tmp_path / "sound" / "a.wav", voice(1.0, 16000)[0].numpy(), 16000, subtype="FLOAT")
    candidate = Damaging("audio", 16000)
    names = ["mel_distance", "stft_distance", "waveform_distance"]
    results, point, seen = run("codec-superb", tmp_path / "sound", tmp_path, candidate, metrics=names)
    kept, _ = soundfile.read(tmp_path / "out" / point.items[0].reconstruction)
    original = seen[0][0].double().numpy()
    assert point.metrics["mel_distance"].value == pytest.approx(
        direct_losses(kept, original, 16000, (150, 80)), rel=1e-4
    )
    assert point.metrics["stft_distance"].value == pytest.approx(direct_losses(kept, original, 16000, None), rel=1e-4)
    assert point.metrics["waveform_distance"].value == pytest.approx(np.abs(kept - original).mean(), rel=1e-4)
    assert results.metrics["mel_distance"]["settings"] == {"definition": "dac"}


def test_a_file_that_a_metric_fails_on_is_counted_and_not_scored(tmp_path):
    (tmp_path / "sound").mkdir()
    soundfile.write(tmp_path / "sound" / "speech.wav", voice(1.0, 16000)[0].numpy(), 16000)
    soundfile.write(tmp_path / "sound" / "silence.wav", np.zeros(16000), 16000)
    _, point, _ = run("codec-superb", tmp_path / "sound", tmp_path, Damaging("audio", 16000), metrics=["stoi"])
    assert point.metrics["stoi"].undefined == 1 and 0 < point.metrics["stoi"].value < 1


# Video


def test_vidtoks_clips_are_resized_as_floats_and_measured_unrounded(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    rows, columns = np.mgrid[:270, :360]
    frames = [np.stack([np.sin((rows + 3 * t) / 9) + np.cos((columns - k) / 7) for k in range(3)]) for t in range(40)]
    clip = torch.from_numpy((np.stack(frames, axis=1) * 0.2 + 0.5).astype(np.float32))
    write_video(folder / "a.mp4", clip, 60.0)
    _, point, seen = run("vidtok-mcl", folder, tmp_path, Damaging("video"), metrics=["psnr", "ssim"])
    read = load_video(folder / "a.mp4")
    transform = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop((256, 256))])
    taken = transform(read[:, ::2].movedim(1, 0))
    assert [item.source for item in point.items] == ["a.mp4#0", "a.mp4#1"]
    assert torch.allclose(torch.cat(seen, dim=1)[:, :20].movedim(1, 0), taken, atol=1e-6)
    assert all(torch.equal(seen[1][:, 3], seen[1][:, t]) for t in range(3, 17))
    psnr = [
        (-10 * ((damaged(clip[None])[0] - clip).square().mean(dim=(0, 2, 3)) + 1e-8).log10()).mean() for clip in seen
    ]
    assert point.metrics["psnr"].value == pytest.approx(float(np.mean(psnr)), abs=1e-4)
    assert point.metrics["ssim"].value == pytest.approx(
        np.mean([direct_inner_ssim(damaged(clip[None])[0, :, t], clip[:, t]) for clip in seen for t in range(17)]),
        abs=1e-4,
    )


def direct_inner_ssim(x: torch.Tensor, y: torch.Tensor) -> float:
    """With a Gaussian window of 11 within the image, of `[3, H, W]`."""

    def smooth(image):
        return scipy.ndimage.gaussian_filter(image, (0, 1.5, 1.5), radius=(0, 5, 5))[:, 5:-5, 5:-5]

    x, y = x.double().numpy(), y.double().numpy()
    mean_x, mean_y = smooth(x), smooth(y)
    variances = smooth(x * x) - mean_x**2 + smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    return float((top / ((mean_x**2 + mean_y**2 + 0.01**2) * (variances + 0.03**2))).mean())


# Structures


def test_long_chains_are_excluded_and_counted(tmp_path):
    folder = tmp_path / "chains"
    folder.mkdir()
    for name, residues in (("short", 40), ("long", 513)):
        turn = torch.arange(residues) * 1.75
        helix = torch.stack([2.3 * turn.cos(), 2.3 * turn.sin(), torch.arange(residues) * 1.5], dim=1)
        draw = torch.Generator().manual_seed(0)
        write_structure(folder / f"{name}.pdb", helix[:, None] + torch.randn(residues, 5, 3, generator=draw) * 0.1)

    class Shaken(Damaging):
        def restore(self, payload, like):
            return like + 0.1 * torch.randn(like.shape, generator=torch.Generator().manual_seed(1))

    results, point, seen = run("casp14-structure", folder, tmp_path, Shaken("structure"))
    assert results.excluded == {"long.pdb": "513 residues, more than 512"}
    assert results.damaged == {} and results.data["files"] == 1
    original = seen[0][:, :3].flatten(0, 1).double().numpy()
    moved = Shaken("structure").restore(None, seen[0][None])[0, :, :3].flatten(0, 1).double().numpy()
    centred = [points - points.mean(axis=0) for points in (original, moved)]
    left, values, right = np.linalg.svd(centred[1].T @ centred[0])
    sign = np.sign(np.linalg.det(left @ right))
    least = (centred[0] ** 2).sum() + (centred[1] ** 2).sum() - 2 * (values[0] + values[1] + sign * values[2])
    assert point.metrics["rmsd"].value == pytest.approx(np.sqrt(least / len(original)), abs=2e-3)
    assert "by the protocol casp14-structure; 1 further file excluded." in (tmp_path / "out/report.html").read_text()


# What a protocol needs


@pytest.mark.parametrize("name", protocols.names())
def test_a_protocol_says_where_its_settings_are_from_and_its_metrics_exist(name):
    protocol = protocols.load(name)
    assert protocol.sources and protocol.differences and protocol.data
    assert {metric.name for metric in protocol.chosen_metrics().values()} == set(protocol.metrics)


def test_missing_weights_are_named_before_the_run(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    work = Benchmark(
        [], tmp_path / "pictures", candidates=[Damaging("image")], protocol="vtbench", out=tmp_path / "out"
    )
    assert "alexnet-owt-7be5be79.pth is not in" in work.left_out["LPIPS (AlexNet)"]
    assert "weights-inception-2015-12-05-6726825d.pth" in work.left_out["rFID"]
    assert not (tmp_path / "out").exists()


def test_speech_networks_of_the_hub_are_named_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sound").mkdir()
    soundfile.write(tmp_path / "sound" / "a.wav", voice(1.0, 16000)[0].numpy(), 16000)
    work = Benchmark(
        [],
        tmp_path / "sound",
        candidates=[Damaging("audio", 16000)],
        protocol="dasb-resynthesis",
        out=tmp_path / "out",
    )
    assert "model.safetensors" in work.left_out["dWER"] and "openai/whisper-tiny" in work.left_out["dWER"]
    assert "microsoft/wavlm-base-sv" in work.left_out["Speaker similarity (WavLM)"]


def test_a_protocol_takes_no_settings_beside_its_own_and_no_other_modality(pictures, tiny_wavtokenizer, tmp_path):
    candidate, folder = Damaging("image"), tmp_path / "pictures"
    for options, message in (
        ({"protocol": "titok-imagenet", "resolution": 128}, "has its own settings, got resolution=128"),
        ({"protocol": "codec-superb"}, "the protocol codec-superb is for audio, damaging for image"),
        ({"protocol": "titok"}, "unknown protocol 'titok'; there are casp14-structure"),
        ({"protocol": "titok-imagenet", "metrics": ["psnr"]}, "unknown image metric 'psnr'; there are rfid"),
    ):
        with pytest.raises(InputError, match=message):
            Benchmark([], folder, candidates=[candidate], out=tmp_path, **options)
    with pytest.raises(InputError, match=r"does not take .'colour': 3."):
        metric_with("image", "ssim", {"colour": 3})


def test_the_command_lists_the_protocols():
    result = CliRunner().invoke(app, ["bench", "protocols"])
    assert result.exit_code == 0 and all(f"{name}: " in result.stdout for name in protocols.names())
    one = CliRunner().invoke(app, ["bench", "protocols", "llamagen-imagenet"]).stdout
    assert "interpolation = halved-bicubic" in one and "source: github.com/FoundationVision/LlamaGen" in one
