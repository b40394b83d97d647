"""What is Mimi's own: both published layouts, the attention's window, the incomplete last frame, long audio."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import MimiConfig, MimiModel

import zoo
from tests.support.codebooks import spread_codebooks
from tests.support.paths import GOLDENS
from zoo.checkpoints.parity import read_manifest
from zoo.checkpoints.synthetic import synthetic_checkpoint
from zoo.demo.samples import samples
from zoo.testing import small

TINY = {"width": 4, "dim": 128, "num_layers": 2, "num_heads": 2, "window": 8, "codebook_dim": 16}

# What transformers 5 renames when it loads the published file, its names first.
FLAT = (
    ("encoder.encoder_seanet.", "encoder."),
    ("encoder.encoder_transformer.", "encoder_transformer."),
    ("encoder.downsample.", "downsample."),
    ("decoder.upsample.", "upsample."),
    ("decoder.decoder_transformer.", "decoder_transformer."),
    ("decoder.decoder_seanet.", "decoder."),
)
# The authors' names of a layer's tensors, by those of transformers.
AUTHORS = (
    ("self_attn.o_proj.", "self_attn.out_proj."),
    ("self_attn_layer_scale.", "layer_scale_1."),
    ("mlp_layer_scale.", "layer_scale_2."),
    ("input_layernorm.", "norm1."),
    ("post_attention_layernorm.", "norm2."),
    ("mlp.fc1.", "linear1."),
    ("mlp.fc2.", "linear2."),
    ("quantizer.semantic_residual_vector_quantizer.layers.", "quantizer.rvq_first.vq.layers."),
    ("quantizer.acoustic_residual_vector_quantizer.layers.", "quantizer.rvq_rest.vq.layers."),
    ("quantizer.semantic_residual_vector_quantizer.", "quantizer.rvq_first."),
    ("quantizer.acoustic_residual_vector_quantizer.", "quantizer.rvq_rest."),
    (".codebook.embed_sum", "._codebook.embedding_sum"),
    (".codebook.initialized", "._codebook._initialized"),
    (".codebook.", "._codebook."),
    ("transformer.layers.", "transformer.transformer.layers."),
)
TRANSPOSED = ("decoder.layers.2.", "decoder.layers.5.", "decoder.layers.8.", "decoder.layers.11.")


def flat(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of transformers' network under the names of the published file."""
    renamed = {}
    for key, tensor in state.items():
        for ours, published in FLAT:
            if key.startswith(ours):
                key = published + key.removeprefix(ours)
                break
        renamed[key] = tensor.contiguous()
    return renamed


def paired(rows: Tensor) -> Tensor:
    """Rows of queries or keys in the authors' order: dimensions 2i and 2i + 1 of a head are i and i + 32 here."""
    heads = rows.reshape(-1, 64, rows.shape[1])
    turned = torch.empty_like(heads)
    turned[:, 0::2], turned[:, 1::2] = heads[:, :32], heads[:, 32:]
    return turned.reshape(rows.shape)


def as_authors(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of transformers' published layout in the authors'."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in published.items():
        if key.endswith("q_proj.weight"):
            k, v = (published[key.replace("q_proj", f"{part}_proj")] for part in "kv")
            key = key.replace("q_proj.weight", "in_proj_weight")
            tensor = torch.cat([paired(tensor), paired(k), v])
        elif key.endswith(("k_proj.weight", "v_proj.weight")):
            continue
        for theirs, authors in AUTHORS:
            key = key.replace(theirs, authors)
        if key.startswith(("encoder.layers.", "decoder.layers.")):
            conv = "convtr.convtr." if key.startswith(TRANSPOSED) else "conv.conv."
            key = key.replace("layers.", "model.").replace("conv.", conv)
        key = key.replace("downsample.conv.", "downsample.conv.conv.conv.")
        renamed[key.replace("upsample.conv.", "upsample.convtr.convtr.convtr.")] = tensor
    return renamed


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """A sentence `[1, 1, samples]` at 24 kHz; the last frame is not whole."""
    return zoo.create("mimi", small=True).preprocess(samples("audio")["river"])


@pytest.fixture(scope="module")
def port(speech) -> MimiModel:
    """transformers' network, small; its codebooks lie around latents of the sentence."""
    torch.manual_seed(0)
    config = MimiConfig(
        num_filters=4,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=512,
        sliding_window=8,
        codebook_size=64,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=6,
        upsample_groups=128,
    )
    network = MimiModel(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("layer_scale.scale"):
                parameter.fill_(0.5)
            elif name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.normal_(std=0.1)  # so that it matters which steps attend to which
        latents = network.encoder(speech).latents
        quantizer = network.quantizer
        for part in (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer):
            vectors = part.input_proj(latents)[0].T
            for level, layer in enumerate(part.layers):
                rows = 0.8**level * torch.randn(64, 16) * vectors.std(dim=0) + (level == 0) * vectors.mean(dim=0)
                layer.codebook.cluster_usage.uniform_(0.5, 4)
                layer.codebook.embed_sum.copy_(rows * layer.codebook.cluster_usage[:, None])
        for parameter in network.decoder.decoder_seanet.layers[-1].parameters():
            parameter /= 100  # or the audio would reach 83 instead of 1
    return network


@pytest.fixture
def tiny(registrations) -> str:
    """A variant of the port's size, with the sources and key maps of the published one."""
    published = zoo.info("mimi")
    sizes = {"codebook_sizes": (64,) * 6, "default_codebooks": None}
    return zoo.register(zoo.replace(published, "tiny-mimi", hub=published.sources, config=TINY, **sizes)).name


@pytest.mark.parametrize("layout", [lambda state: state, as_authors], ids=["transformers", "authors"])
def test_both_published_layouts_give_the_codes_and_the_audio_of_transformers(port, tiny, speech, layout, tmp_path):
    save_file(layout(flat(port.state_dict())), tmp_path / "published.safetensors")
    tokenizer = zoo.load(tiny, weights=tmp_path / "published.safetensors")
    with torch.no_grad():
        expected = port.encode(speech, num_quantizers=6).audio_codes
        audio = port.decode(expected).audio_values
    assert all(row.unique().numel() > 5 for row in expected[0])
    assert torch.equal(tokenizer.encode(speech), expected)
    torch.testing.assert_close(tokenizer.decode(expected), audio, atol=1e-5, rtol=0)


def test_without_the_window_codes_change_after_it_and_only_there(speech):
    tokenizer = spread_codebooks(small("mimi"), speech)
    with torch.no_grad():
        for layer in tokenizer.encoder.transformer.layers:
            layer.scale1.fill_(1.0)
    limited, unlimited = tokenizer.encode(speech), tokenizer.encode(speech, windowed=False)
    assert torch.equal(unlimited[..., :4], limited[..., :4])  # 8 steps of the transformer
    assert not torch.equal(unlimited[..., 4:], limited[..., 4:])
    assert torch.equal(tokenizer.encode(speech, windowed=False, chunk_seconds=0.3), unlimited)


def test_padding_of_the_waveform_concerns_an_incomplete_last_frame_alone(speech):
    tokenizer = small("mimi")
    with torch.no_grad():
        for name, parameter in tokenizer.encoder.named_parameters():
            if name.endswith("bias"):  # without it, silence in the waveform is silence in every layer
                parameter.normal_(std=0.3)
    spread_codebooks(tokenizer, speech)
    codes, padded = tokenizer.encode(speech), tokenizer.encode(speech, pad_waveform=True)
    assert torch.equal(padded[..., :-1], codes[..., :-1])
    assert not torch.equal(padded[..., -1], codes[..., -1])
    silence = torch.nn.functional.pad(speech, (0, -speech.shape[-1] % 1920))
    assert torch.equal(tokenizer.encode(silence), padded)
    assert torch.equal(tokenizer.encode(silence, pad_waveform=True), padded)


@pytest.mark.parametrize("seconds", [0.08, 0.31, 60.0])
def test_chunks_change_neither_codes_nor_audio(speech, seconds):
    tokenizer = spread_codebooks(small("mimi"), speech)
    codes = tokenizer.encode(speech)
    assert torch.equal(tokenizer.encode(speech, chunk_seconds=seconds), codes)
    torch.testing.assert_close(
        tokenizer.decode(codes, chunk_seconds=seconds), tokenizer.decode(codes), atol=1e-5, rtol=0
    )


def test_strides_that_do_not_make_the_hop_length_are_refused():
    with pytest.raises(zoo.InputError, match="expected strides with a product of 960"):
        zoo.info("mimi").builder(zoo.info("mimi").spec, strides=(4, 5, 6))


@pytest.mark.slow
def test_golden_codes_of_all_codebooks_of_a_long_clip_and_of_the_authors_padding():
    variant, manifest = zoo.info("mimi"), read_manifest(GOLDENS / "mimi" / "manifest.json")
    golden = {key: torch.from_numpy(array) for key, array in np.load(GOLDENS / "mimi" / "golden.npz").items()}
    tokenizer = variant.build().eval()
    published = synthetic_checkpoint(manifest, manifest["seed"])
    for keys, layout in zip(
        (source.keys for source in variant.sources), (published, as_authors(published)), strict=True
    ):
        tokenizer.load_state_dict(keys.convert(layout, tokenizer.state_dict(), "synthetic mimi"))
        assert torch.equal(tokenizer.encode(golden["input"], num_codebooks=32), golden["codes_32"])
    padded = tokenizer.encode(golden["input"], num_codebooks=32, pad_waveform=True)
    assert torch.equal(padded, golden["codes_zero_padded"])
    assert torch.equal(tokenizer.encode(golden["long_input"]), golden["long_codes"])
    with tokenizer.stream() as stream:
        parts = [stream.encode(part) for part in golden["long_input"].split(4567, dim=-1)] + [stream.flush()]
    assert torch.equal(torch.cat(parts, dim=-1), golden["long_codes"])
    audio = tokenizer.decode(golden["codes_32"])
    torch.testing.assert_close(audio, golden["reconstruction_32"], atol=1e-4, rtol=0)


LONG = """
import pathlib, re, torch, zoo
tokenizer = zoo.create("mimi").eval()
audio = torch.randn(1, 1, 600 * 24000) * 0.1
codes = tokenizer.encode(audio)
assert tokenizer.decode(codes, size=audio.shape[-1]).shape == audio.shape
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_ten_minutes_stay_under_two_gibibytes():
    peak = subprocess.run([sys.executable, "-c", LONG], check=True, capture_output=True, text=True).stdout
    assert int(peak) < 2 * 2**20  # KiB of this process alone: ru_maxrss would begin with the parent's
