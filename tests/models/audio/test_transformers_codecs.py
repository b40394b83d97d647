"""Codecs of transformers: what its own classes return for each clip alone, from the folders that it writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import zoo
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
