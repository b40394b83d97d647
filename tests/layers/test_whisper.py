"""Whisper's blocks, against those of transformers."""

import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper import modeling_whisper

from zoo.checkpoints import KeyMap
from zoo.layers.whisper import Layer, LogMel, layer_rules, sinusoids


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("samples", [1600, 16000, 480000])
def test_log_mel_is_that_of_transformers(bands, samples):
    audio = torch.randn(2, samples, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.3], [0.001]])
    audio[:, samples // 2 :] = 0.0
    extract = WhisperFeatureExtractor(feature_size=bands)
    expected = extract(list(audio.numpy()), sampling_rate=16000, return_tensors="pt", padding="longest")
    torch.testing.assert_close(LogMel(bands)(audio), expected.input_features, atol=1e-4, rtol=0)


def test_the_log_mel_of_silence_is_finite():
    assert LogMel(80)(torch.zeros(1, 1600)).isfinite().all()


def test_an_items_log_mel_does_not_depend_on_the_other_items():
    audio = torch.randn(2, 3200, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [1e-4]])
    torch.testing.assert_close(LogMel(80)(audio)[1:], LogMel(80)(audio[1:]))


def test_positions_are_whispers():
    torch.testing.assert_close(sinusoids(1500, 64), modeling_whisper.sinusoids(1500, 64))


@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_is_that_of_transformers(masked):
    config = WhisperConfig(
        d_model=32, encoder_attention_heads=4, encoder_ffn_dim=48, dropout=0.0, attn_implementation="eager"
    )
    published = modeling_whisper.WhisperEncoderLayer(config).eval()
    layer = Layer(32, 4, 48)
    keys = KeyMap(*layer_rules("layers", "layers"))
    state = {f"layers.0.{key}": tensor for key, tensor in published.state_dict().items()}
    expected = {f"layers.0.{key}": tensor for key, tensor in layer.state_dict().items()}
    converted = keys.convert(state, expected, "a layer of transformers")
    layer.load_state_dict({key.removeprefix("layers.0."): tensor for key, tensor in converted.items()})
    x = torch.randn(2, 9, 32)
    allowed = torch.ones(9, 9, dtype=torch.bool).tril() if masked else None
    added = torch.zeros(9, 9) if allowed is None else torch.zeros(9, 9).masked_fill(~allowed, -torch.inf)
    torch.testing.assert_close(layer(x, allowed), published(x, added[None, None]))
