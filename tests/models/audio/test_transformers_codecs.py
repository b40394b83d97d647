"""Codecs of transformers: what its own classes return for each clip alone, from the folders that it writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
from tests.support.hub_server import Repository
from zoo.modalities.resampling import resample
from zoo.testing import small

transformers = pytest.importorskip("transformers")

LENGTHS = [700, 960, 3000, 5001, 5760]
NAMES = (
    *("encodec-24khz", "encodec-32khz", "dac-44khz", "dac-24khz", "xcodec-hubert-librispeech"),
    *("higgs-audio-v2", "xcodec2", "neucodec"),
)


def sound(samples: int, channels: int = 1, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(seed))


def theirs(name: str, **settings: Any) -> Any:
    """Return the small model of transformers that a variant is built on, with random weights."""
    variant = zoo.info(name)
    architecture: Any = variant.builder
    given = {**variant.config["settings"], **architecture.small["sizes"], **settings}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(architecture.model_type, **architecture.checked(given))
    model = transformers.AutoModel.from_config(config).eval()
    for key, tensor in model.state_dict().items():
        if key.endswith("codebook.embed"):
            tensor.normal_(std=0.1)
        elif "semantic_model.feature_extractor" in key and key.endswith("conv.weight"):
            tensor.mul_(3.0)
    return model


def padded(clip: Tensor, multiple: int) -> Tensor:
    return torch.nn.functional.pad(clip, (0, -clip.shape[-1] % multiple))[None]


@torch.no_grad()
def encoded(name: str, model: Any, clip: Tensor) -> Tensor:
    """Return the codes of a clip alone, prepared as the feature extractor of its model prepares it."""
    hop = zoo.info(name).spec.hop_length
    if name.startswith("encodec"):
        return model.encode(clip[None], bandwidth=model.config.target_bandwidths[-1]).audio_codes[0]
    if name in ("xcodec2", "neucodec"):
        kind = transformers.NeuCodecFeatureExtractor if name == "neucodec" else transformers.Xcodec2FeatureExtractor
        clip = resample(padded(clip, hop)[0], 24000, 16000) if name == "neucodec" else clip
        inputs = kind()(clip[0].numpy(), sampling_rate=16000, return_tensors="pt")
        return model.encode(**inputs).audio_codes.long()
    return model.encode(padded(clip, hop)).audio_codes


@torch.no_grad()
def decoded(model: Any, codes: Tensor) -> Tensor:
    if model.config.model_type == "encodec":
        return model.decode(codes[None], [None]).audio_values
    audio = model.decode(audio_codes=codes).audio_values
    return audio if audio.ndim == 3 else audio[:, None]


@pytest.mark.parametrize("name", NAMES)
def test_clips_of_a_padded_batch_have_the_codes_and_the_signal_that_transformers_gives_each_alone(name, tmp_path):
    model = theirs(name)
    model.save_pretrained(tmp_path)
    tokenizer = zoo.load(tmp_path)
    clips = [sound(length, seed=length) for length in LENGTHS]
    batch = torch.nn.utils.rnn.pad_sequence([clip.T for clip in clips], batch_first=True).mT
    codes = tokenizer.encode(batch, lengths=torch.tensor(LENGTHS))
    for clip, together, length in zip(clips, codes, tokenizer.code_lengths(torch.tensor(LENGTHS)), strict=True):
        alone = encoded(name, model, clip)
        assert torch.equal(together[None, :, :length], alone)
        assert alone.unique().numel() > 1
        signal = tokenizer.decode(alone)
        expected = decoded(model, alone)
        torch.testing.assert_close(signal[..., : expected.shape[-1]], expected, atol=1e-5, rtol=1e-5)
        assert tokenizer.decode(alone, size=clip.shape[-1]).shape == (1, 1, clip.shape[-1])


@pytest.mark.parametrize(
    ("name", "bandwidth", "number"), [("encodec-24khz", 6.0, 8), ("encodec-24khz", 1.5, 2), ("xcodec", 1.5, 3)]
)
def test_the_first_codebooks_are_those_of_a_bandwidth_of_transformers(name, bandwidth, number, tmp_path):
    name = zoo.info(name).name
    model = theirs(name)
    model.save_pretrained(tmp_path)
    clip = sound(3200)[None]
    with torch.no_grad():
        codes = model.encode(clip, bandwidth=bandwidth).audio_codes
    assert torch.equal(zoo.load(tmp_path).encode(clip, num_codebooks=number), codes.reshape(1, number, -1))


def test_encodec_uses_eight_codebooks_unless_told_otherwise():
    spec = zoo.info("encodec").spec
    assert (spec.num_codebooks, spec.tokens_per_second, spec.bits_per_second) == (32, 600, 6000)


@pytest.mark.parametrize(
    ("name", "tokens", "bits"),
    [
        ("encodec-32khz", 200, 2200),
        ("dac-16khz", 600, 6000),
        ("dac-24khz", 2400, 24000),
        ("dac-44khz", 775.2, 7752),
        ("xcodec", 400, 4000),
        ("higgs-audio-v2", 200, 2000),
        ("xcodec2", 50, 800),
        ("neucodec", 50, 800),
    ],
)
def test_rates_are_the_published_ones(name, tokens, bits):
    spec = zoo.info(name).spec
    assert (spec.tokens_per_second, spec.bits_per_second) == pytest.approx((tokens, bits), abs=0.1)


def test_a_repository_of_transformers_loads_by_its_name_and_can_be_saved_as_ours(server, tmp_path):
    model = theirs("dac-24khz")
    model.save_pretrained(tmp_path / "theirs")
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    server.repositories["descript/tiny"] = repository = Repository()
    repository.commit(files)
    tokenizer = zoo.load("descript/tiny")
    clip = sound(2000)[None]
    codes = tokenizer.encode(clip)
    assert torch.equal(codes, encoded("dac-24khz", model, clip[0]))
    tokenizer.save_pretrained(tmp_path / "ours")
    assert torch.equal(zoo.load(tmp_path / "ours").encode(clip), codes)


def test_the_file_of_a_variant_is_read_through_its_key_map(registrations, tmp_path):
    published = zoo.info("encodec-32khz")
    zoo.register(
        zoo.replace(
            published, "tiny-encodec", hub=published.sources, config={"sizes": published.builder.small["sizes"]}
        )
    )
    model = theirs("encodec-32khz")
    model.save_pretrained(tmp_path)
    tokenizer = zoo.load("tiny-encodec", weights=tmp_path / "model.safetensors")
    clip = sound(3000)
    assert torch.equal(tokenizer.encode(clip[None]), encoded("encodec-32khz", model, clip))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"model_type": "mimi"}, r"'mimi' of transformers; those that load too: encodec, .*zoo.load\(NAME"),
        ({"model_type": 3}, "3 of transformers"),
        ({"model_type": "encodec", "normalize": True}, "divided by its loudness, which is no code"),
        ({"model_type": "dac", "n_codebooks": "many"}, "dac of transformers refuses its settings: .*n_codebooks"),
        ({"model_type": "xcodec", "semantic_model_config": {"model_type": "gpt2"}}, "type hubert, .* got 'gpt2'"),
        ({"model_type": "xcodec", "acoustic_model_config": {"model_type": "gpt2"}}, "type dac, got 'gpt2'"),
    ],
)
def test_other_configurations_of_transformers_are_refused(stated, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(stated))
    with pytest.raises(zoo.CheckpointError, match=message):
        zoo.load(tmp_path)


def test_nothing_that_a_repository_brings_is_executed(tmp_path):
    model = theirs("dac-44khz")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text("raise SystemExit('executed')")
    clip = sound(2000)
    assert torch.equal(zoo.load(tmp_path).encode(clip[None]), encoded("dac-44khz", model, clip))


def test_settings_that_do_not_go_with_the_spec_or_do_not_exist_are_refused():
    variant = zoo.info("dac-44khz")
    with pytest.raises(zoo.InputError, match=r"DAC: its settings make downsample \(8,\), the spec has \(512,\)"):
        variant.builder(variant.spec, settings={"downsampling_ratios": (2, 4), "sampling_rate": 44100})
    with pytest.raises(zoo.InputError, match="dac of transformers has no setting 'width'"):
        variant.builder(variant.spec, settings={"width": 3})


@pytest.mark.parametrize("name", ["encodec-24khz", "dac-44khz", "xcodec", "higgs-audio-v2", "xcodec2", "neucodec"])
def test_training_reaches_encoder_and_decoder_but_not_the_speech_model(name):
    tokenizer = small(name).train()
    output = tokenizer(sound(4000)[None])
    (output.reconstruction.square().mean() + sum(output.losses.values())).backward()
    trained = {key for key, parameter in tokenizer.named_parameters() if parameter.grad is not None}
    assert any(key.startswith("encoder.") for key in trained) and any(key.startswith("decoder.") for key in trained)
    assert not any(key.startswith("encoder.teacher.") for key in trained)
    assert not any(module.training for key, module in tokenizer.named_modules() if key.startswith("encoder.teacher"))
