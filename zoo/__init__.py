"""zoo: discrete tokenizers for images, sound, video and protein structures behind one interface.

    tokenizer = zoo.load("wavtokenizer-nano")
    codes = tokenizer.encode(audio)          # int64 [batch, num_codebooks, frames]
    audio = tokenizer.decode(codes)

`import zoo` is light: what a name needs is imported when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.errors import (
        CheckpointError,
        InputError,
        MediaError,
        UnknownTokenizerError,
        WeightsUnavailableError,
        ZooError,
    )
    from zoo.registry import (
        HubSource,
        Variant,
        alias,
        create,
        info,
        list_tokenizers,
        load,
        register,
    )
    from zoo.tokenizer import Tokenizer, TokenizerOutput, TokenizerSpec

_HOMES = {
    "zoo.errors": (
        "ZooError",
        "InputError",
        "MediaError",
        "UnknownTokenizerError",
        "CheckpointError",
        "WeightsUnavailableError",
    ),
    "zoo.registry": (
        "HubSource",
        "Variant",
        "alias",
        "create",
        "info",
        "list_tokenizers",
        "load",
        "register",
    ),
    "zoo.tokenizer": ("Tokenizer", "TokenizerOutput", "TokenizerSpec"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME_OF)


def __getattr__(name: str):
    if name not in _HOME_OF:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
