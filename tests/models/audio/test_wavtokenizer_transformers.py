"""The layout of transformers' port of WavTokenizer beside the authors': the same weights, codes and audio."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import WavTokenizerConfig, WavTokenizerModel

import zoo
from tests.support.paths import GOLDENS
from zoo.checkpoints.parity import read_manifest
from zoo.checkpoints.synthetic import synthetic_checkpoint
from zoo.demo.samples import samples
from zoo.loading import load_into

PUBLISHED = "wavtokenizer-large-unify-600-24k"
TINY = "tiny-wavtokenizer-600"

# What transformers' conversion script renames, the authors' names first.
RENAMED = (
    ("feature_extractor.encodec.encoder.model.", "encoder_model.encoder.layers."),
    ("feature_extractor.encodec.quantizer.vq.layers.0._codebook.", "encoder_model.quantizer.codebook."),
    ("head.out.", "head.linear."),
    (".conv.conv.weight_g", ".conv.parametrizations.weight.original0"),
    (".conv.conv.weight_v", ".conv.parametrizations.weight.original1"),
    (".conv.conv.bias", ".conv.bias"),
)
DROPPED = ("feature_extractor.encodec.decoder.", "head.istft.window")


def as_transformers(authors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in authors.items():
        if not key.startswith(DROPPED):
            for old, new in RENAMED:
                key = key.replace(old, new)
            renamed[key] = tensor
    return renamed


def as_authors(transformers: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in transformers.items():
        for new, old in RENAMED:
            key = key.replace(old, new)
        renamed[key] = tensor
    return renamed


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """A sentence `[1, 1, samples]` at 24 kHz; the last frame is not whole."""
    audio = zoo.create("wavtokenizer-nano").preprocess(samples("audio")["river"])
    assert isinstance(audio, Tensor)
    return audio


@pytest.fixture
def tiny(registrations) -> zoo.Variant:
    """`tiny-wavtokenizer-600`: the published variant, its sources and their key maps, made small."""
    published = zoo.info(PUBLISHED)
    config, sources = published.builder.small, published.sources
    return zoo.register(zoo.replace(published, TINY, hub=sources, config=config, codebook_sizes=(64,)))


@pytest.fixture
def port(speech: Tensor) -> WavTokenizerModel:
    """transformers' network of that size. Unit norms let the speech through, and the codebook holds latents of it, so
    that many codes occur and none is a tie."""
    torch.manual_seed(0)
    config = WavTokenizerConfig(
        num_filters=4,
        hidden_size=16,
        codebook_dim=16,
        codebook_size=64,
        decoder_hidden_size=32,
        decoder_intermediate_size=48,
        decoder_num_layers=2,
        decoder_attention_num_groups=8,
    )
    network = WavTokenizerModel(config).eval()
    with torch.no_grad():
        for name, parameter in network.encoder_model.encoder.named_parameters():
            if name.endswith("original0"):
                parameter.fill_(1.0)
            elif name.endswith("conv.bias"):
                parameter.zero_()
        latents = network.encoder_model.encoder(speech)[0].T
        network.encoder_model.quantizer.codebook.embed.copy_(latents[:: len(latents) // 64][:64])
    return network


def saved_by_transformers(port: WavTokenizerModel, folder: Path) -> Path:
    port.save_pretrained(folder)
    return folder / "model.safetensors"


def saved_by_the_authors(port: WavTokenizerModel, path: Path) -> Path:
    discriminator = {"multiperioddisc.discriminators.0.bias": torch.zeros(1)}
    torch.save({"epoch": 1, "state_dict": as_authors(port.state_dict()) | discriminator}, path)
    return path


def assert_gives_what_transformers_gives(tokenizer: zoo.Tokenizer, port: WavTokenizerModel, audio: Tensor) -> None:
    with torch.no_grad():
        codes = port.encode(audio).audio_codes
        decoded = port.decode(codes).audio_values
    assert len(codes.unique()) > 20
    assert torch.equal(tokenizer.encode(audio), codes)
    torch.testing.assert_close(tokenizer.decode(codes), decoded, atol=1e-4, rtol=0)


def test_a_file_that_transformers_saved_gives_its_codes_and_audio(tiny, port, speech, tmp_path):
    tokenizer = zoo.load(TINY, weights=saved_by_transformers(port, tmp_path))
    assert_gives_what_transformers_gives(tokenizer, port, speech)


def test_an_item_of_a_padded_batch_gets_the_codes_that_transformers_gives_it_alone(tiny, port, speech, tmp_path):
    tokenizer = zoo.load(TINY, weights=saved_by_transformers(port, tmp_path))
    length = 40_123
    batch = torch.cat([speech, torch.nn.functional.pad(speech[..., :length], (0, speech.shape[-1] - length))])
    codes = tokenizer.encode(batch, lengths=torch.tensor([speech.shape[-1], length]))
    with torch.no_grad():
        alone = port.encode(speech[..., :length]).audio_codes
    assert torch.equal(codes[1:, :, : alone.shape[-1]], alone)


def test_the_same_weights_in_either_layout_make_the_same_network(tiny, port, tmp_path):
    transformers = zoo.load(TINY, weights=saved_by_transformers(port, tmp_path)).state_dict()
    authors = zoo.load(TINY, weights=saved_by_the_authors(port, tmp_path / "authors.ckpt")).state_dict()
    assert all(torch.equal(transformers[key], tensor) for key, tensor in authors.items())


def test_weights_of_transformers_go_into_a_network_that_is_there(tiny, port, speech, tmp_path):
    tokenizer = zoo.create(TINY).eval()
    load_into(tokenizer, TINY, saved_by_transformers(port, tmp_path))
    assert_gives_what_transformers_gives(tokenizer, port, speech)


def test_a_tensor_that_transformers_file_lacks_is_named_with_the_file(tiny, port, tmp_path):
    path = saved_by_transformers(port, tmp_path)
    state = load_file(path)
    del state["backbone.embed.bias"]
    save_file(state, path)
    with pytest.raises(zoo.CheckpointError) as caught:
        zoo.load(TINY, weights=path)
    assert str(caught.value) == f"{path}: 1 tensor missing (backbone.embed.bias); nothing was loaded"


def test_a_tensor_that_the_authors_file_lacks_is_named_with_the_file(tiny, port, tmp_path):
    path = saved_by_the_authors(port, tmp_path / "authors.ckpt")
    checkpoint = torch.load(path)
    del checkpoint["state_dict"]["head.out.bias"]
    torch.save(checkpoint, path)
    with pytest.raises(zoo.CheckpointError) as caught:
        zoo.load(TINY, weights=path)
    assert str(caught.value) == f"{path}: 1 tensor missing (head.out.bias); nothing was loaded"


@pytest.mark.parametrize("name", ["other.safetensors", "other.ckpt"])
def test_a_file_in_neither_layout_is_refused_with_its_name_and_what_is_missing(tiny, tmp_path, name):
    path, tensors = tmp_path / name, {"some.weight": torch.zeros(1)}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    with pytest.raises(zoo.CheckpointError) as caught:
        zoo.load(TINY, weights=path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "tensors missing (encoder.stem" in message
    assert message.endswith("1 tensor unexpected (some.weight); nothing was loaded")


@pytest.mark.slow
def test_at_full_size_either_layout_gives_what_transformers_gives(speech, tmp_path):
    manifest = read_manifest(GOLDENS / "wavtokenizer-small-600-24k-4096" / "manifest.json")
    checkpoint = synthetic_checkpoint(manifest)
    torch.save(checkpoint, tmp_path / "authors.ckpt")
    port = WavTokenizerModel(WavTokenizerConfig()).eval()
    port.load_state_dict(as_transformers(checkpoint["state_dict"]))
    for path in (tmp_path / "authors.ckpt", saved_by_transformers(port, tmp_path)):
        assert_gives_what_transformers_gives(zoo.load(PUBLISHED, weights=path), port, speech)
