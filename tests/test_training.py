"""Training through its front door, on tiny networks and synthetic data."""

import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import zoo
from zoo.checkpoints import read_metadata
from zoo.errors import InputError, MediaError, ZooError
from zoo.trainers import create_tokenizer, export, list_recipes, load_recipe, train
from zoo.trainers.data import Crops, Excerpts, Files, training_batches
from zoo.trainers.loop import Trainer, learning_rate
from zoo.trainers.losses import (
    WeightedLosses,
    convergence_loss,
    mel_loss,
    multi_scale_mel_loss,
    ssim_loss,
    stft_loss,
    stoi_loss,
)
from zoo.trainers.run import RunFolder, halved
from zoo.trainers.validation import codebook_health, has_collapsed, validate

IMAGE = {
    "tokenizer": "wetok-imagenet-f8",
    "spec.downsample": [2, 2],
    "spec.codebook_sizes": [256],
    "config.width": 32,
    "config.multipliers": [1, 1],
    "config.num_blocks": 1,
    "config.dim": 8,
    "data.crop": 16,
    "losses": {"l1": 1.0, "l2": 1.0, "ssim": 0.1, "commitment_loss": 0.1, "entropy_loss": 0.01},
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 2,
    "steps": 6,
    "batch_size": 2,
    "log_every": 1,
    "validation.every": 3,
    "validation.items": 2,
}
AUDIO = {
    "tokenizer": "wavtokenizer-small-320-24k-4096",
    "spec.downsample": [80],
    "spec.codebook_sizes": [16],
    "config.strides": [4, 4, 5],
    "config.encoder_width": 4,
    "config.dim": 8,
    "config.decoder_dim": 32,
    "config.hidden_dim": 32,
    "config.num_layers": 1,
    "data.seconds": 0.5,
    "losses": {"mel": 1.0, "commitment_loss": 1.0},
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 2,
    "steps": 6,
    "batch_size": 2,
    "log_every": 1,
    "validation.every": 3,
    "validation.items": 2,
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images(tmp_path):
    """Folder with six smooth pictures of 40 by 24 to train on, and two to validate with."""
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        (tmp_path / "images" / part).mkdir(parents=True)
        for number in range(count):
            coarse = Image.fromarray(random.integers(0, 256, (3, 5, 3), dtype=np.uint8))
            coarse.resize((40, 24), Image.Resampling.BICUBIC).save(tmp_path / "images" / part / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture
def speech(tmp_path):
    """Folder with four chirps of half a second at 16 kHz to train on, and two to validate with."""
    seconds = np.arange(8000) / 16000
    for part, count in (("train", 4), ("val", 2)):
        (tmp_path / "speech" / part).mkdir(parents=True)
        for number in range(count):
            chirp = 0.3 * np.sin(2 * np.pi * (200 + 150 * number) * seconds * (1 + seconds))
            soundfile.write(tmp_path / "speech" / part / f"{number}.wav", chirp, 16000)
    return tmp_path / "speech"


@pytest.fixture
def noise():
    """Two float signals `[2, 1, 4800]`."""
    return torch.randn(2, 2, 1, 4800, generator=torch.Generator().manual_seed(0)).unbind()


def losses(run_dir) -> dict[int, dict[str, float]]:
    """What was logged of each step's losses."""
    return {entry["step"]: entry["training"] for entry in RunFolder(run_dir).history() if "training" in entry}


def test_the_loss_falls_on_a_few_images(images, tmp_path):
    train({}, {**IMAGE, "steps": 25}, data=images / "train", run_dir=tmp_path / "run")
    values = losses(tmp_path / "run")
    assert values[25]["loss"] < 0.8 * values[1]["loss"]


def test_the_loss_falls_on_a_few_sounds(speech, tmp_path):
    train({}, {**AUDIO, "steps": 25}, data=speech / "train", run_dir=tmp_path / "run")
    values = losses(tmp_path / "run")
    assert values[25]["loss"] < 0.8 * values[1]["loss"]


@pytest.mark.parametrize("values, folder", [(IMAGE, "images"), (AUDIO, "speech")])
def test_a_resumed_run_repeats_an_uninterrupted_one_step_for_step(values, folder, request, tmp_path):
    data = request.getfixturevalue(folder)
    whole = train({}, values, data=data, run_dir=tmp_path / "whole")

    recipe = load_recipe({}, values)
    trainer = Trainer(Fabric(accelerator="cpu"), recipe, create_tokenizer(recipe))
    files = Files(data / "train", trainer.tokenizer.spec, cache_gib=1)
    batches = iter(training_batches(Crops(files, recipe.data, recipe.seed), recipe, step=0))
    for _ in range(3):
        trainer.advance(batches)
    stopped = RunFolder(tmp_path / "stopped")
    stopped.start(recipe, 0)
    stopped.save(trainer.state_dict())
    resumed = train({}, values, data=data, run_dir=tmp_path / "stopped")

    assert [losses(resumed.run_dir)[step] for step in (4, 5, 6)] == [losses(whole.run_dir)[step] for step in (4, 5, 6)]
    expected = load_file(whole.weights)
    assert all(torch.equal(value, expected[key]) for key, value in load_file(resumed.weights).items())


def test_a_run_killed_at_any_moment_goes_on_from_its_last_checkpoint(images, tmp_path):
    endless = load_recipe({}, {**IMAGE, "steps": 1000000, "checkpoint_every": 1})
    (tmp_path / "endless.yaml").write_text(endless.to_yaml())
    script = f"import zoo; zoo.trainers.train('endless.yaml', data={str(images / 'train')!r}, run_dir='run')"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    folder = RunFolder(tmp_path / "run")
    while not folder.checkpoint.is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()

    step = folder.load(endless)["step"]
    result = train(endless, data=images / "train", run_dir=folder.path, minutes=0)
    assert result.step == step >= 1


def test_a_run_stops_when_its_minutes_are_over_and_leaves_weights(images, tmp_path):
    result = train({}, IMAGE, data=images, run_dir=tmp_path / "run", minutes=0)
    assert result.step == 0
    assert result.weights.is_file()


def test_a_run_of_another_recipe_is_not_gone_on_with(images, tmp_path):
    train({}, {**IMAGE, "steps": 1}, data=images / "train", run_dir=tmp_path / "run")
    with pytest.raises(InputError, match=r"batch_size: 2, now 1"):
        train({}, {**IMAGE, "steps": 1, "batch_size": 1}, data=images / "train", run_dir=tmp_path / "run")


def test_starting_anew_replaces_the_run(images, tmp_path):
    train({}, IMAGE, data=images / "train", run_dir=tmp_path / "run")
    result = train({}, {**IMAGE, "steps": 2}, data=images / "train", run_dir=tmp_path / "run", resume=False)
    assert result.step == 2
    assert sorted(losses(tmp_path / "run")) == [1, 2]


def test_accumulated_passes_draw_the_same_samples_as_one_large_batch(images):
    whole, parts = load_recipe({}, {**IMAGE, "batch_size": 4}), load_recipe({}, {**IMAGE, "accumulate": 2})
    spec = create_tokenizer(whole).spec
    crops = Crops(Files(images / "train", spec, cache_gib=1), whole.data, seed=0)
    large, small = training_batches(crops, whole, step=0), training_batches(crops, parts, step=0)
    assert torch.equal(torch.cat(list(large)), torch.cat(list(small)))


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_builds_its_tokenizer(name):
    recipe = load_recipe(name)
    tokenizer = create_tokenizer(recipe)
    assert tokenizer.spec.name == name
    WeightedLosses(tokenizer, recipe.losses)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stepz": 3}, r"unknown key stepz; accepted: .*steps"),
        ({"data.seconds": 1}, r"unknown key data.seconds; accepted: cache_gib, crop"),
        ({"optimizer.lr": 1}, r"unknown key optimizer.lr; accepted: betas"),
        ({"config.depth": 1}, r"unknown key config.depth; accepted: dim"),
        ({"spec.rate": 1}, r"unknown key spec.rate"),
        ({"steps": 1.5}, r"expected steps as a whole number, got 1.5"),
        ({"steps": 0}, r"expected steps of at least 1, got 0"),
        ({"data.scale": [1, 2, 3]}, r"expected data.scale as \[a number, a number\]"),
        ({"optimizer.learning_rate": "fast"}, r"expected optimizer.learning_rate as a number, got 'fast'"),
        ({"precision": "16"}, r"expected precision as '32-true' or 'bf16-mixed'"),
        ({"config.width": "wide"}, r"expected config.width as a whole number"),
        ({"losses.lpips": 1}, r"unknown loss 'lpips'; for image: l1, l2, ssim; of the quantizer: commitment_loss"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_named(change, message, images, tmp_path):
    with pytest.raises(InputError, match=message):
        train({}, {**IMAGE, **change}, data=images, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_overrides_are_read_as_yaml():
    recipe = load_recipe("wetok-nano", ["optimizer.learning_rate=3e-5", "data.flip=false", "data.scale=[0.25, 1]"])
    assert recipe.optimizer.learning_rate == 3e-5
    assert recipe.data.flip is False
    assert recipe.data.scale == (0.25, 1.0)


def test_a_written_recipe_reads_back(tmp_path):
    recipe = load_recipe({}, AUDIO)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "recipe.yaml").digest == recipe.digest


def test_a_damaged_file_is_skipped_and_named(images, tmp_path, capfd):
    (images / "train" / "broken.png").write_bytes(b"no picture")
    result = train({}, IMAGE, data=images, run_dir=tmp_path / "run")
    assert result.step == IMAGE["steps"]
    error = capfd.readouterr().err
    assert "broken.png" in error
    assert "1 of 7 files skipped" in error


def test_a_damaged_file_beyond_the_cache_is_replaced_by_the_next(images):
    (images / "train" / "1.png").write_bytes(b"no picture")
    files = Files(images / "train", zoo.info("wetok").spec, cache_gib=0)
    assert torch.equal(files[1], files[2])
    assert [path.name for path in files.damaged] == ["1.png"]


def test_a_folder_without_a_readable_file_is_an_error(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match="none of the 1"):
        Files(tmp_path, zoo.info("wetok").spec, cache_gib=1)


@pytest.mark.parametrize("values, folder", [(IMAGE, "images"), (AUDIO, "speech")])
def test_the_order_of_the_data_depends_on_the_seed_alone(values, folder, request):
    data = request.getfixturevalue(folder)
    recipe = load_recipe({}, values)
    spec = create_tokenizer(recipe).spec

    def numbered(seed, cache_gib):
        crops = Crops(Files(data / "train", spec, cache_gib), recipe.data, seed)
        return torch.stack([crops[number] for number in range(12)])

    torch.manual_seed(1)
    first = numbered(0, cache_gib=1)
    torch.manual_seed(2)
    assert torch.equal(first, numbered(0, cache_gib=0))
    assert not torch.equal(first, numbered(1, cache_gib=1))


def test_a_pass_over_the_data_takes_every_file_once(images):
    recipe = load_recipe({}, {**IMAGE, "data.crop": 24, "data.flip": False})
    files = Files(images / "train", zoo.info("wetok").spec, cache_gib=1)
    crops = Crops(files, recipe.data, seed=0)
    seen = {
        index
        for number in range(6)
        for index in range(6)
        if any(torch.equal(crops[number], files[index][..., left : left + 24]) for left in range(17))
    }
    assert seen == set(range(6))


def test_a_short_sound_is_repeated_end_to_end(speech):
    recipe = load_recipe({}, {**AUDIO, "data.seconds": 1.0, "data.peak_db": [0, 0]})
    files = Files(speech / "train", create_tokenizer(recipe).spec, cache_gib=1)
    crop = Crops(files, recipe.data, seed=0)[0]
    assert crop.shape == (1, 24000)
    assert torch.equal(crop[:, :12000], crop[:, 12000:])
    assert crop.abs().max() == 1


def test_the_codebook_moves(speech, tmp_path):
    recipe = load_recipe({}, AUDIO)
    untrained = create_tokenizer(recipe)
    result = train(recipe, data=speech, run_dir=tmp_path / "run")
    weights = load_file(result.weights)
    assert bool(weights["quantizer.initialized"])
    assert not torch.equal(weights["quantizer.codebook"].float(), untrained.quantizer.codebook)


@pytest.mark.parametrize("values, folder", [(IMAGE, "images"), (AUDIO, "speech")])
def test_exported_weights_load_as_a_tokenizer_that_gives_the_validated_metrics(values, folder, request, tmp_path):
    data = request.getfixturevalue(folder)
    result = train({}, values, data=data, run_dir=tmp_path / "run")
    path = export(result.run_dir, tmp_path / "weights.safetensors")
    tokenizer = zoo.load(path)
    excerpts = Excerpts(Files(data / "val", tokenizer.spec, cache_gib=1), load_recipe({}, values).data)
    metrics = validate(tokenizer, DataLoader(excerpts, batch_size=2), examples=1).metrics
    name = {"images": "psnr", "speech": "mel_distance"}[folder]
    assert metrics[name] == pytest.approx(result.metrics[name], rel=0.02)


def test_exported_weights_say_what_they_are(images, tmp_path):
    result = train({}, IMAGE, data=images, run_dir=tmp_path / "run")
    metadata = read_metadata(result.weights)
    assert metadata["tokenizer"] == "wetok-imagenet-f8"
    assert metadata["recipe"] == load_recipe({}, IMAGE).digest
    assert metadata["steps"] == "6"
    assert metadata["zoo"] == zoo.__version__
    assert {value.dtype for value in load_file(result.weights).values()} == {torch.float16}


@pytest.mark.parametrize("value", [[1e6, 2.0], [1e-7, 2e-7], [70000], [True]])
def test_an_exported_tensor_that_float16_would_not_hold_stays_as_it_is(value):
    assert torch.equal(halved(torch.tensor(value)), torch.tensor(value))


def test_a_run_that_diverges_stops_and_keeps_its_checkpoint(images, tmp_path):
    values = {**IMAGE, "optimizer.learning_rate": 1e20, "optimizer.clip_norm": 1e20, "checkpoint_every": 1}
    with pytest.raises(ZooError, match="training diverged at or before step"):
        train({}, {**values, "steps": 20}, data=images / "train", run_dir=tmp_path / "run")
    assert RunFolder(tmp_path / "run").checkpoint.is_file()


def test_bfloat16_trains(images, tmp_path):
    result = train({}, {**IMAGE, "precision": "bf16-mixed"}, data=images, run_dir=tmp_path / "run")
    assert result.step == IMAGE["steps"]


def test_the_learning_rate_warms_up_and_decays_to_its_end():
    changes = {"steps": 100, "optimizer.warmup_steps": 10, "optimizer.final_learning_rate": 1e-4}
    recipe = load_recipe({}, {**IMAGE, **changes})
    rates = [learning_rate(step, recipe) for step in range(101)]
    assert rates[0] == pytest.approx(2e-4)
    assert rates[9] == rates[10] == max(rates) == pytest.approx(2e-3)
    assert rates[55] == pytest.approx((2e-3 + 1e-4) / 2)
    assert rates[100] == pytest.approx(1e-4)


def test_codebook_health_counts_entries_in_use():
    codes = torch.tensor([[[0, 0, 1, 1]], [[2, 2, 3, 3]]])
    health = codebook_health(codes, (16,))
    assert health["usage"] == 0.25
    assert health["perplexity"] == pytest.approx(4)
    assert health["dead_codes"] == 12


def test_a_codebook_has_collapsed_when_few_of_the_entries_in_reach_are_in_use():
    assert has_collapsed(torch.zeros(1, 1, 100, dtype=torch.int64), (4096,))
    assert not has_collapsed(torch.arange(100)[None, None], (4096,))


def test_the_ssim_loss_is_the_published_formula():
    x, y = torch.rand(2, 1, 3, 20, 16, generator=torch.Generator().manual_seed(0))
    taps = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2
    values = []
    for channel in range(3):
        for top in range(10):
            for left in range(6):
                a = x[0, channel, top : top + 11, left : left + 11].double().numpy()
                b = y[0, channel, top : top + 11, left : left + 11].double().numpy()
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                covariance = (window * (a - mean_a) * (b - mean_b)).sum()
                values.append(
                    (2 * mean_a * mean_b + 1e-4)
                    * (2 * covariance + 9e-4)
                    / ((mean_a**2 + mean_b**2 + 1e-4) * (variance_a + variance_b + 9e-4))
                )
    assert float(ssim_loss(x, y)) == pytest.approx(1 - np.mean(values), abs=1e-5)


def plain_spectrum(audio, window: int, hop: int) -> np.ndarray:
    """Magnitudes `[frames, window / 2 + 1]` of samples `[n]`, reflected by half a window at both ends."""
    padded = np.pad(audio.double().numpy(), window // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = range(0, len(padded) - window + 1, hop)
    return np.stack([np.abs(np.fft.rfft(padded[start : start + window] * hann)) for start in starts])


def plain_mel(audio, window: int, bands: int, hop: int) -> np.ndarray:
    """Log mel magnitudes `[frames, bands]` of samples at 24 kHz: triangles evenly spaced on the HTK scale."""
    points = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 12000 / 700), bands + 2) / 2595) - 1)
    frequencies = np.linspace(0, 12000, window // 2 + 1)[:, None]
    rising = (frequencies - points[:-2]) / (points[1:-1] - points[:-2])
    falling = (points[2:] - frequencies) / (points[2:] - points[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.log(np.maximum(plain_spectrum(audio, window, hop) @ triangles, 1e-7))


def test_the_mel_loss_is_wavtokenizers_formula(noise):
    x, y = noise
    pairs = [(plain_mel(a[0], 1024, 100, 256), plain_mel(b[0], 1024, 100, 256)) for a, b in zip(x, y, strict=True)]
    expected = np.mean([np.abs(a - b).mean() for a, b in pairs])
    assert float(mel_loss(x, y, 24000)) == pytest.approx(expected, rel=1e-4)


def test_the_multi_scale_mel_loss_is_the_mean_over_scales(noise):
    x, y = noise
    expected = np.mean(
        [
            np.abs(plain_mel(a[0], window, bands, window // 4) - plain_mel(b[0], window, bands, window // 4)).mean()
            for a, b in zip(x, y, strict=True)
            for window, bands in ((256, 20), (512, 40), (1024, 80), (2048, 160))
        ]
    )
    assert float(multi_scale_mel_loss(x, y, 24000)) == pytest.approx(expected, rel=1e-4)


def test_the_stft_loss_is_the_mean_of_log_magnitude_differences(noise):
    x, y = noise
    expected = np.mean(
        [
            np.abs(
                np.log(np.maximum(plain_spectrum(a[0], window, window // 4), 1e-5))
                - np.log(np.maximum(plain_spectrum(b[0], window, window // 4), 1e-5))
            ).mean()
            for a, b in zip(x, y, strict=True)
            for window in (512, 1024, 2048)
        ]
    )
    assert float(stft_loss(x, y)) == pytest.approx(expected, rel=1e-4)


def test_the_convergence_loss_is_the_relative_error_of_the_magnitudes(noise):
    x, y = noise
    expected = []
    for pair in zip(x, y, strict=True):
        ours, theirs = (plain_spectrum(audio[0], 768, 192) for audio in pair)
        expected.append(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    assert float(convergence_loss(x, y, window=768)) == pytest.approx(np.mean(expected), rel=1e-4)


def test_the_stoi_loss_is_what_stoi_lacks_to_one():
    from zoo.metrics.audio import stoi

    generator = torch.Generator().manual_seed(0)
    level = 0.2 + torch.rand(1, 1, 40, generator=generator).repeat_interleave(1200, dim=-1)
    original = level * torch.randn(1, 1, 48000, generator=generator) * 0.1
    noisy = original + 0.05 * torch.randn(1, 1, 48000, generator=generator)
    assert float(stoi_loss(noisy, original, 24000)) == pytest.approx(1 - float(stoi(noisy, original, 24000)), abs=0.01)
    assert float(stoi_loss(original, original, 24000)) == pytest.approx(0, abs=1e-4)
    with pytest.raises(InputError, match="at least half a second, got 9600 samples at 24000 Hz"):
        stoi_loss(noisy[..., :9600], original[..., :9600], 24000)


@pytest.mark.parametrize("loss", [convergence_loss, stft_loss, lambda x, y: mel_loss(x, y, 24000)])
def test_silence_has_a_finite_gradient(loss, noise):
    silence = torch.zeros_like(noise[0], requires_grad=True)
    loss(silence, noise[0]).backward()
    assert silence.grad.isfinite().all()
