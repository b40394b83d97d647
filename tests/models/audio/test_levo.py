"""What is the LeVo codec's own: tracks, loops, windows, and weights in several files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from safetensors.torch import save_file

import zoo
from tests.support.paths import GOLDENS
from zoo.bench.signals import Preprocessing
from zoo.checkpoints import pointwise_to_linear
from zoo.models.audio.levo.muencoder import halve_rate, log_mel
from zoo.models.audio.levo.tokenizer import SEPARATE, VAE
from zoo.parity import synthetic_checkpoint
from zoo.testing import small

HOP = 1920
WINDOW = 16 * HOP  # of the small networks


def sound(batch: int = 1, channels: int = 4, samples: int = WINDOW, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, channels, samples, generator=torch.Generator().manual_seed(seed)) - 0.5


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("samples", [2, 3, 480, 1921])
def test_the_rate_is_halved_as_torchaudio_does(samples):
    audio = torch.randn(2, samples, generator=drawn())
    torch.testing.assert_close(halve_rate(audio), torchaudio.functional.resample(audio, 48000, 24000))


def test_the_spectrogram_is_torchaudios_in_decibels():
    audio = torch.randn(1, 9600, generator=drawn())
    power = torchaudio.transforms.MelSpectrogram(24000, 2048, hop_length=240, n_mels=128)(audio)[..., :-1]
    expected = (torchaudio.transforms.AmplitudeToDB("power")(power) - 6.768444971712967) / 18.417922652295623
    torch.testing.assert_close(log_mel(audio), expected, atol=2e-3, rtol=0)


def test_a_short_clip_is_encoded_inside_a_loop_of_itself():
    tokenizer = small("levo-codec")
    clip = sound(samples=WINDOW // 4)
    codes = tokenizer.encode(clip)
    assert codes.shape == (1, 2, 4)
    assert torch.equal(tokenizer.encode(clip.repeat(1, 1, 4))[..., :4], codes)


def test_the_last_window_goes_on_with_the_beginning_of_the_clip():
    tokenizer = small("levo-codec-mixed")
    clip = sound(channels=2, samples=WINDOW + 5 * HOP + 7)
    codes = tokenizer.encode(clip)
    last = torch.cat([clip[..., WINDOW:], clip], dim=-1)[..., :WINDOW]
    # Both have the peak of the whole clip, so that it is not what differs.
    assert torch.equal(codes[..., :16], tokenizer.encode(clip[..., :WINDOW]))
    assert torch.equal(codes[..., 16:], tokenizer.encode(last)[..., :6])


def test_each_track_has_codes_of_its_own():
    tokenizer = small("levo-codec")
    x, other = sound(), sound(seed=1)
    with torch.no_grad():
        latent = tokenizer.to_latent(x)
        changed = tokenizer.to_latent(torch.cat([x[:, :2], other[:, 2:]], dim=1))
    assert torch.equal(latent[:, :24], changed[:, :24])
    assert not torch.equal(latent[:, 24:], changed[:, 24:])


def test_a_loud_track_is_brought_to_a_peak_of_four_fifths():
    tokenizer = small("levo-codec")
    x = sound() / sound().abs().max()  # each track has a peak of nearly 1
    x[:, 2:] *= 0.5
    louder = torch.cat([2 * x[:, :2], x[:, 2:]], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(tokenizer.to_latent(louder), tokenizer.to_latent(x), atol=1e-4, rtol=0)


def test_the_mix_is_decoded_in_stereo_and_can_be_compared_with_the_tracks():
    tokenizer = small("levo-codec")
    x = sound(samples=10000)
    assert tokenizer.decode(tokenizer.encode(x), size=10000).shape == (1, 2, 10000)
    torch.testing.assert_close(tokenizer.modality.target(x, tokenizer.spec), x[:, :2] + x[:, 2:])


def test_decoding_draws_with_the_generator_and_takes_as_many_steps_as_it_is_told():
    tokenizer = small("levo-codec")
    codes = torch.randint(16384, (1, 2, 5), generator=drawn())
    signal = tokenizer.decode(codes, generator=drawn())
    assert torch.equal(tokenizer.decode(codes, generator=drawn()), signal)
    assert torch.equal(tokenizer.decode(codes, generator=drawn(), num_steps=10), signal)
    assert not torch.equal(tokenizer.decode(codes, generator=drawn(1)), signal)
    assert not torch.equal(tokenizer.decode(codes, generator=drawn(), num_steps=3), signal)
    for steps in (0, 2.5, True):
        with pytest.raises(zoo.InputError, match="expected num_steps as an integer of at least 1, got"):
            tokenizer.decode(codes, num_steps=steps)


def test_chunks_of_the_waveform_decoder_do_not_change_the_signal():
    tokenizer = small("levo-codec").double()  # in float32, rounding differs with what is computed at once
    codes = torch.randint(16384, (1, 2, 30), generator=drawn())
    whole = tokenizer.decode(codes, generator=drawn(), chunk_seconds=60.0)
    part = tokenizer.decode(codes, generator=drawn(), chunk_seconds=0.04)
    assert whole.dtype == torch.float64
    torch.testing.assert_close(part, whole, atol=1e-12 * float(whole.abs().max()), rtol=0)


def test_a_long_song_is_decoded_in_windows_that_fade_into_each_other():
    tokenizer = small("levo-codec")
    decoder, codes = tokenizer.decoder, torch.randint(16384, (1, 2, 30), generator=drawn())
    signal = tokenizer.decode(codes, generator=drawn())
    generator, condition = drawn(), tokenizer.embed(codes)
    condition = condition[..., torch.arange(40) % 30]
    waves, latents = [], None
    with torch.no_grad():
        for start in (0, 12, 24):
            noise = torch.empty(1, 4, 16).normal_(generator=generator)
            context = None if latents is None else latents[..., 12:]
            latents = decoder.flow.sample(condition[..., start : start + 16], noise, 10, context)
            waves.append(decoder.vae.decode(latents, 16))
    expected = torch.zeros(1, 2, 40 * HOP)
    fade = torch.linspace(0, 1, 4 * HOP)
    for number, wave in enumerate(waves):
        if number > 0:
            wave[..., : 4 * HOP] *= fade
        if number < 2:
            wave[..., -4 * HOP :] *= 1 - fade
        expected[..., 12 * number * HOP : (12 * number + 16) * HOP] += wave
    torch.testing.assert_close(signal, expected[..., : 30 * HOP], atol=1e-6 * float(signal.abs().max()), rtol=0)


def test_training_returns_the_loss_of_the_flow_and_counts_latents():
    torch.manual_seed(0)
    tokenizer = small("levo-codec").train()
    output = tokenizer(sound(batch=2, samples=12 * HOP + 5))
    assert output.reconstruction.shape == (2, 2, 12 * HOP + 5)
    assert set(output.losses) == {"commitment_loss", "codebook_loss", "flow_loss"}
    output.losses["flow_loss"].backward()
    assert all(parameter.grad is not None for parameter in tokenizer.decoder.flow.parameters())
    assert all(parameter.grad is None for parameter in tokenizer.decoder.vae.parameters())
    assert float(tokenizer.decoder.flow.latent_count) == 26
    with pytest.raises(zoo.InputError, match="expected at most 16 frames for training, got 17"):
        tokenizer(sound(samples=17 * HOP))


def test_the_two_files_hold_each_tensor_of_the_network_once():
    variant = zoo.info("levo-codec")
    with torch.device("meta"):
        names = variant.builder(variant.spec, **variant.config).state_dict()
    assert sorted(SEPARATE.own(names) + VAE.own(names)) == sorted(names)


def published(tokenizer, keys) -> dict[str, torch.Tensor]:
    """The tensors that one file holds, as the authors name and store them."""
    state, tensors = tokenizer.state_dict(), {}
    for ours in keys.own(state):
        name, transform = keys.published_key(ours)
        value = state[ours].unsqueeze(-1) if transform is pointwise_to_linear else state[ours]
        if transform is pointwise_to_linear and state[ours].ndim == 1:
            value = state[ours]
        elif transform is not None and transform is not pointwise_to_linear:
            value = transform(value)
        tensors[name] = value.contiguous()
    return tensors


@pytest.fixture
def tiny(registrations) -> str:
    """The name of a variant that is LeVo's codec made small."""
    base = zoo.info("levo-codec")
    name = "levo-codec-tiny"
    zoo.register(zoo.replace(base, name, config=base.builder.small, hub=base.sources[0]))
    return name


def test_weights_are_read_from_a_folder_with_both_published_files(tiny, tmp_path):
    tokenizer = zoo.create(tiny).eval()
    folder = tmp_path / "SongGeneration"
    (folder / "ckpt" / "model_septoken").mkdir(parents=True)
    (folder / "ckpt" / "vae").mkdir()
    save_file(published(tokenizer, SEPARATE), folder / "ckpt" / "model_septoken" / "model_2.safetensors")
    with pytest.raises(zoo.CheckpointError, match=r"there is no ckpt/vae/autoencoder_music_1320k\.ckpt"):
        zoo.load(tiny, weights=folder)
    torch.save(
        {"state_dict": published(tokenizer, VAE), "epoch": 1}, folder / "ckpt" / "vae" / "autoencoder_music_1320k.ckpt"
    )
    loaded = zoo.load(tiny, weights=folder)
    assert loaded.state_dict().keys() == tokenizer.state_dict().keys()
    assert all(torch.equal(value, tokenizer.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_both_published_files_are_fetched_and_converted_together(tiny, server, tmp_path):
    tokenizer = zoo.create(tiny).eval()
    codec, vae = tmp_path / "codec.safetensors", tmp_path / "vae.ckpt"
    save_file(published(tokenizer, SEPARATE), codec)
    torch.save({"state_dict": published(tokenizer, VAE)}, vae)
    source = zoo.info(tiny).hub
    names = [file.filename for file in source.files]
    server.add(source.repo, dict(zip(names, (codec.read_bytes(), vae.read_bytes()), strict=True)))
    loaded = zoo.load(tiny)
    assert all(torch.equal(value, tokenizer.state_dict()[key]) for key, value in loaded.state_dict().items())


def test_one_of_several_files_alone_is_refused_with_what_is_needed(tiny, tmp_path):
    path = Path(tmp_path) / "model_2.safetensors"
    save_file(published(zoo.create(tiny), SEPARATE), path)
    with pytest.raises(zoo.CheckpointError, match=r"needs ckpt/model_septoken/model_2\.safetensors and ckpt/vae/"):
        zoo.load(tiny, weights=path)


def test_the_benchmark_refuses_a_tokenizer_of_several_tracks():
    with pytest.raises(zoo.InputError, match="levo-codec takes 2 tracks apart"):
        Preprocessing.of([zoo.info("levo-codec").spec], {})


@pytest.mark.slow
def test_the_loop_of_40_seconds_gives_the_authors_codes():
    from zoo.checkpoints.parity import network_with_weights, read_manifest

    manifest = read_manifest(GOLDENS / "levo-codec" / "manifest.json")
    _, tokenizer = network_with_weights(zoo.info("levo-codec"), synthetic_checkpoint(manifest), manifest["config"])
    golden = np.load(GOLDENS / "levo-codec" / "golden.npz")
    with torch.no_grad():
        codes = tokenizer.eval().quantize(tokenizer.encoder(torch.from_numpy(golden["input"])))
    expected = torch.from_numpy(golden["codes_looped"])[..., : codes.shape[-1]]  # the authors have one code more
    assert (codes == expected).float().mean() >= manifest["tolerance"]["codes_looped_agreement"]
