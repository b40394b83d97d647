"""zoo: discrete tokenizers for images, sound, video and protein structures behind one interface.

    tokenizer = zoo.load("wavtokenizer-nano")
    codes = tokenizer.encode(audio)          # int64 [batch, num_codebooks, frames]
    audio = tokenizer.decode(codes)

The commands of the terminal are functions too: `zoo.encode_files`, `zoo.bench`, `zoo.train`, `zoo.pull` and so on.
`import zoo` is light: modules are imported when a name that needs them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.bench.probes import probe as probe
    from zoo.corpus import tokenize as tokenize
    from zoo.discretization import discretize as discretize
    from zoo.errors import CheckpointError as CheckpointError
    from zoo.errors import InputError as InputError
    from zoo.errors import MediaError as MediaError
    from zoo.errors import PublishError as PublishError
    from zoo.errors import UnknownTokenizerError as UnknownTokenizerError
    from zoo.errors import WeightsUnavailableError as WeightsUnavailableError
    from zoo.errors import ZooError as ZooError
    from zoo.graphs import export_onnx as export_onnx
    from zoo.hub import push as push
    from zoo.inference import for_inference as for_inference
    from zoo.loading import load as load
    from zoo.loading import pull as pull
    from zoo.registry import HubSource as HubSource
    from zoo.registry import PackageSource as PackageSource
    from zoo.registry import Variant as Variant
    from zoo.registry import alias as alias
    from zoo.registry import create as create
    from zoo.registry import info as info
    from zoo.registry import list_tokenizers as list_tokenizers
    from zoo.registry import register as register
    from zoo.registry import replace as replace
    from zoo.requantization import requantize as requantize
    from zoo.spec import TokenizerOutput as TokenizerOutput
    from zoo.spec import TokenizerSpec as TokenizerSpec
    from zoo.system_memory import keep_freed_memory as keep_freed_memory
    from zoo.tokenizer import Tokenizer as Tokenizer
    from zoo.trainers import export as export
    from zoo.trainers import train as train
    from zoo.transcode import decode_files as decode_files
    from zoo.transcode import decode_pcm as decode_pcm
    from zoo.transcode import encode_files as encode_files
    from zoo.transcode import encode_pcm as encode_pcm
    from zoo.transcode import reconstruct_files as reconstruct_files

__version__ = "0.1.0"

_EXPORTS = {
    "zoo.bench.probes": "probe",
    "zoo.corpus": "tokenize",
    "zoo.discretization": "discretize",
    "zoo.errors": (
        "ZooError InputError MediaError UnknownTokenizerError CheckpointError WeightsUnavailableError PublishError"
    ),
    "zoo.graphs": "export_onnx",
    "zoo.hub": "push",
    "zoo.inference": "for_inference",
    "zoo.loading": "load pull",
    "zoo.registry": "HubSource PackageSource Variant alias create info list_tokenizers register replace",
    "zoo.requantization": "requantize",
    "zoo.spec": "TokenizerOutput TokenizerSpec",
    "zoo.system_memory": "keep_freed_memory",
    "zoo.tokenizer": "Tokenizer",
    "zoo.trainers": "export train",
    "zoo.transcode": "decode_files decode_pcm encode_files encode_pcm reconstruct_files",
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names.split()}

# Modules, of which `bench`, `demo` and `parity` can also be called like the command of their name.
_SUBMODULES = (
    *(
        "bench",
        "checkpoints",
        "codes",
        "corpus",
        "demo",
        "hub",
        "media",
        "metrics",
        "modalities",
        "parity",
        "quantizers",
    ),
    *("testing", "trainers"),
)

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"zoo.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__, *_SUBMODULES]
