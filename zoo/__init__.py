"""zoo: discrete tokenizers for images, sound, video and protein structures behind one interface.

    tokenizer = zoo.load("wavtokenizer-nano")
    codes = tokenizer.encode(audio)          # int64 [batch, num_codebooks, frames]
    audio = tokenizer.decode(codes)

`import zoo` is light: what a name needs is imported when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.discretization import discretize as discretize
    from zoo.errors import CheckpointError as CheckpointError
    from zoo.errors import InputError as InputError
    from zoo.errors import MediaError as MediaError
    from zoo.errors import PublishError as PublishError
    from zoo.errors import UnknownTokenizerError as UnknownTokenizerError
    from zoo.errors import WeightsUnavailableError as WeightsUnavailableError
    from zoo.errors import ZooError as ZooError
    from zoo.registry import HubSource as HubSource
    from zoo.registry import Variant as Variant
    from zoo.registry import alias as alias
    from zoo.registry import create as create
    from zoo.registry import info as info
    from zoo.registry import list_tokenizers as list_tokenizers
    from zoo.registry import load as load
    from zoo.registry import register as register
    from zoo.tokenizer import Tokenizer as Tokenizer
    from zoo.tokenizer import TokenizerOutput as TokenizerOutput
    from zoo.tokenizer import TokenizerSpec as TokenizerSpec

__version__ = "0.1.0"

_EXPORTS = {
    "zoo.discretization": "discretize",
    "zoo.errors": (
        "ZooError InputError MediaError UnknownTokenizerError CheckpointError WeightsUnavailableError PublishError"
    ),
    "zoo.registry": "HubSource Variant alias create info list_tokenizers load register",
    "zoo.tokenizer": "Tokenizer TokenizerOutput TokenizerSpec",
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names.split()}

_SUBMODULES = ("checkpoints", "codes", "hub", "media", "metrics", "parity", "quantizers", "trainers")

__all__ = list(_MODULE_OF)


def __getattr__(name: str):
    if name in _SUBMODULES:
        return import_module(f"zoo.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__, *_SUBMODULES]
