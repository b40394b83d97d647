"""Tiny tokenizers with random weights that are registered and load by name, as if they shipped, for one test; a Hub."""

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

import zoo
from tests.support.hub_server import HubServer
from tests.support.residual import Residual, residual_spec
from zoo import registry

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores
    torch.set_num_threads(1)


@pytest.fixture
def registrations() -> Iterator[None]:
    """Whatever the test registers is gone after it."""
    with registry.temporary():
        yield


@pytest.fixture
def install(tmp_path_factory, registrations, monkeypatch) -> Callable[..., zoo.Tokenizer]:
    folder = tmp_path_factory.mktemp("weights")
    shipped = zoo.Variant.shipped.fget

    def shipped_here(variant: zoo.Variant) -> Path | None:
        ours = variant.weights is not None and folder not in Path(variant.weights).parents
        return None if ours else shipped(variant)

    monkeypatch.setattr(zoo.Variant, "shipped", property(shipped_here))  # only what this test installs

    def install(name: str, like: str, spec: dict, config: dict) -> zoo.Tokenizer:
        variant = zoo.info(like)
        weights = folder / f"{name}.safetensors"
        zoo.register(zoo.replace(variant, name, config=config, weights=str(weights), **spec))
        torch.manual_seed(0)
        tokenizer = zoo.create(name).eval()
        save_file(tokenizer.state_dict(), weights)
        return tokenizer

    return install


@pytest.fixture
def tiny_wetok(install) -> zoo.Tokenizer:
    """Images to 2 codes of 256 for each 4x4 pixels."""
    spec = {"downsample": (4, 4), "codebook_sizes": (256, 256)}
    config = {"width": 32, "multipliers": (1, 1, 1), "num_blocks": 1, "dim": 16}
    return install("tiny-wetok", "wetok-imagenet-f8", spec, config)


@pytest.fixture
def tiny_wavtokenizer(install) -> zoo.Tokenizer:
    """Audio at 24 kHz to 1 code of 64 for each 320 samples."""
    config = {"encoder_width": 4, "dim": 16, "decoder_dim": 32, "hidden_dim": 48, "num_layers": 2, "norm_groups": 8}
    return install("tiny-wavtokenizer", "wavtokenizer-small-320-24k-4096", {"codebook_sizes": (64,)}, config)


@pytest.fixture
def tiny_one_d_piece(install) -> zoo.Tokenizer:
    """Images of 32x32 to 20 codes of 64, of which any first few decode."""
    spec = {"resolution": (32, 32), "num_tokens": 20, "codebook_sizes": (64,)}
    config = {"width": 16, "num_layers": 1, "num_heads": 2, "pixel_width": 8}
    return install("tiny-one-d-piece", "one-d-piece-s-256", spec, config)


@pytest.fixture
def tiny_residual(install) -> zoo.Tokenizer:
    """Audio at 8 kHz to six residual codes of 16 for each 8 samples, of which five are used unless told otherwise."""
    zoo.register("like-tiny-residual", Residual, spec=residual_spec("like-tiny-residual", default_codebooks=5))
    return install("tiny-residual", "like-tiny-residual", {}, {})


@pytest.fixture
def tiny_cosmos(install) -> zoo.Tokenizer:
    """Video to a code of 64,000 for each 4x8x8 pixels, in windows of 17 frames."""
    return install("tiny-cosmos", "cosmos-dv-4x8x8", {}, {"width": 8, "multipliers": (1, 1, 1), "num_blocks": 1})


@pytest.fixture
def tiny_dplm2(install) -> zoo.Tokenizer:
    """Structures to a code of 8,192 for each residue."""
    return install("tiny-dplm2", "dplm2-struct-tokenizer", {}, dict(zoo.info("dplm2-struct-tokenizer").builder.small))


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[HubServer]:
    """A Hub that huggingface_hub is pointed at, and a cache of its own; nobody is logged in."""
    for variable in ("HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        importlib.reload(constants)
        yield server
    monkeypatch.undo()
    importlib.reload(constants)
