"""EnCodec, DAC, X-Codec, XCodec2, NeuCodec and Higgs Audio v2: the networks of `transformers`, behind zoo's contract.

Papers: High Fidelity Neural Audio Compression (arXiv 2210.13438), High-Fidelity Audio Compression with Improved RVQGAN
(arXiv 2306.06546), Codec Does Matter (arXiv 2408.17175), Llasa (arXiv 2502.04128), Finite Scalar Quantization Enables
Redundant and Transmission-Robust Neural Audio Compression (arXiv 2509.09550). Reference: transformers 5.24.
The layers are those of `transformers`, which is imported when a network is built. What is here is the way through them
for clips that are encoded alone, as the feature extractor of each prepares them, so that codes do not depend on a
batch. Weight normalisation is folded into the weights. Codebooks searched by distance have no gradient and no rule
of their own: training moves encoder and decoder around them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.extras import extra
from zoo.registry import HubSource
from zoo.spec import TokenizerSpec
from zoo.tokenizer import Tokenizer

TEACHERS = ("hubert", "wavlm", "wav2vec2-bert")  # model types of the speech models inside


def build(model_type: str, settings: Mapping[str, Any]) -> Any:
    """Return a model of `transformers` with random weights, whose weight normalisation is folded.

    Raises:
        ZooError: `transformers` is not installed.
        InputError: settings that the model's configuration does not have or refuses.
    """
    with extra("transformers", f"the network {model_type}"):
        from transformers import AutoModel
    network = AutoModel.from_config(configured(model_type, settings))
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
            module._load_state_dict_pre_hooks.clear()  # the one that it leaves behind cannot be pickled
    return network


def configured(model_type: str, settings: Mapping[str, Any]) -> Any:
    """Return the configuration of `transformers` with these settings; InputError for any that it lacks or refuses."""
    with extra("transformers", f"the network {model_type}"):
        from transformers import AutoConfig
    if unknown := settings.keys() - settings_of(model_type):
        raise InputError(f"{model_type} of transformers has no setting {', '.join(sorted(map(repr, unknown)))}")
    try:
        return AutoConfig.for_model(model_type, **settings)
    except Exception as error:  # transformers has no family of errors for its settings
        raise InputError(f"{model_type} of transformers refuses its settings: {error}") from error


def settings_of(model_type: str) -> set[str]:
    """Return the names of the settings that only this model's configuration has, not every one of `transformers`."""
    with extra("transformers", f"the network {model_type}"):
        from transformers import CONFIG_MAPPING, PreTrainedConfig
    general = {field.name for field in fields(PreTrainedConfig)}
    return {field.name for field in fields(CONFIG_MAPPING[model_type])} - general


def speech_model(settings: Any) -> dict[str, Any]:
    """Return the settings of the speech model inside without those that hide parts of its input in training.

    Raises:
        InputError: another model than those that the codecs have inside.
    """
    given = dict(settings or {})
    if (kind := given.get("model_type")) not in TEACHERS:
        raise InputError(f"expected a speech model of type {', '.join(TEACHERS)}, got {kind!r}")
    if given.get("do_stable_layer_norm"):
        raise InputError(f"expected a {kind} that normalises before its layers, got one with do_stable_layer_norm")
    given = {key: value for key, value in given.items() if key in settings_of(kind)}
    return {**given, "model_type": kind, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}


class TransformersCodec(Tokenizer):
    """Audio tokenizer whose layers are those of a model of `transformers`.

    Args:
        settings: settings of that model's configuration that differ from its defaults, by the names there.
        sizes: further settings: numbers of channels, layers and heads.

    Raises:
        ZooError: `transformers` is not installed.
        InputError: settings that the model refuses, or that do not go with the spec.
    """

    model_type: ClassVar[str]
    cannot_stream = (
        "its networks see the whole clip, or keep no state between parts. Encoding parts of a signal one by one "
        "changes the codes at their ends"
    )

    def __init__(
        self, spec: TokenizerSpec, *, settings: Mapping[str, Any] | None = None, sizes: Mapping[str, Any] | None = None
    ):
        super().__init__(spec)
        network = build(self.model_type, self.checked({**(settings or {}), **(sizes or {})}))
        for fact, value in self.facts(network.config).items():
            if getattr(spec, fact) != value:
                raise InputError(
                    f"{type(self).__name__}: its settings make {fact} {value}, the spec has {getattr(spec, fact)}"
                )
        self.assemble(network)

    @classmethod
    def of_transformers(cls, config: Mapping[str, Any]) -> tuple[TokenizerSpec, dict[str, Any]]:
        """Return the spec and the settings that a `config.json` of `transformers` states.

        Raises:
            ZooError: `transformers` is not installed.
            InputError: settings that the model refuses.
        """
        settings = {key: value for key, value in config.items() if key in settings_of(cls.model_type)}
        spec = TokenizerSpec(
            name=cls.model_type,
            modality="audio",
            code_license="Apache-2.0",
            weights_license="not stated",
            paper="not stated",
            source="a repository of transformers",
            **cls.facts(configured(cls.model_type, cls.checked(settings))),
        )
        return spec, settings

    @classmethod
    def checked(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the settings as the model is built with them."""
        return settings

    @classmethod
    @abstractmethod
    def facts(cls, config: Any) -> dict[str, Any]:
        """Return the fields of the spec that follow from a configuration of `transformers`."""

    @abstractmethod
    def assemble(self, network: Any) -> None:
        """Set encoder, quantizer and decoder to parts of a model of `transformers`."""

    @classmethod
    @abstractmethod
    def keys_of(cls, settings: Mapping[str, Any]) -> KeyMap:
        """Return the key map of a file that `transformers` wrote for a model with these settings."""


def folded(published: str, ours: str, dim: int = 0) -> tuple[tuple[str, str], str, Callable[..., Tensor]]:
    """Return the rule of a key map that makes a weight of its norms along all axes but `dim`, and its directions."""
    return (f"{published}.weight_g", f"{published}.weight_v"), f"{ours}.weight", partial(with_norm, dim=dim)


def with_norm(norm: Tensor, direction: Tensor, dim: int) -> Tensor:
    return torch._weight_norm(direction, norm, dim)


def published(architecture: type[TransformersCodec], repo: str, **settings: Any) -> dict[str, Any]:
    """Return the file of a repository in the layout of `transformers`, and the network that it belongs to."""
    hub = HubSource(repo, "model.safetensors", keys=architecture.keys_of(settings))
    return {"hub": hub, "config": {"settings": settings}}
