"""What a training run is made of: a typed recipe, read from YAML and changed by `key=value`."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

import zoo
from zoo.errors import InputError
from zoo.tokenizer import Tokenizer

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """How training images are cut.

    shorter_side: pixels to which a picture's shorter side is resized when it is read; None: as the file has it.
    crop: height and width in pixels. flip: mirror every second one, by chance.
    scale: range of the factor by which a picture is resized before it is cropped; (1, 1): not at all. A picture
        that would come out smaller than the crop is resized to it.
    inputs: folder of pictures that the tokenizer is given in place of the training data's of the same paths but for
        their suffixes, while losses compare with those: a decoder's post-training (RobusTok), of what generators make.
        None: it is given what the losses compare with. See `zoo.trainers.data.Pairs`.
    cache_gib: memory for decoded pictures; those beyond it are read from disk each time.
    workers: processes that read; None: none where all pictures are in memory, else 2.
    """

    inputs: str | None = None
    shorter_side: int | None = None
    crop: int = 128
    flip: bool = True
    scale: tuple[float, float] = (1.0, 1.0)
    cache_gib: float = 2.0
    workers: int | None = None

    def __post_init__(self):
        _check_reading(self)
        if self.crop < 1 or not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"recipe: expected data.crop >= 1 and data.scale > 0, got {self.crop} and {self.scale}")
        if self.shorter_side is not None and self.shorter_side < 1:
            raise InputError(f"recipe: expected data.shorter_side of at least 1, got {self.shorter_side}")


@dataclass(frozen=True, kw_only=True)
class AudioData:
    """How training audio is cut.

    seconds: of a crop; a shorter file is repeated end to end.
    bucket: so many files, drawn at random, are put in the order of their sizes in bytes, and a batch is as long as its
        shortest file, where that is shorter than `seconds`; None: batches of any files, all `seconds` long.
    min_seconds: with `bucket`, the least length; a shorter file is repeated.
    peak_db: range in dB of full scale to which a file's peak is set; validation takes the middle.
    cache_gib: memory for decoded files; those beyond it are read from disk each time.
    workers: processes that read; None: none where all files are in memory, else 2.
    """

    seconds: float = 1.0
    bucket: int | None = None
    min_seconds: float = 0.25
    peak_db: tuple[float, float] = (-6.0, -1.0)
    cache_gib: float = 2.0
    workers: int | None = None

    def __post_init__(self):
        _check_reading(self)
        if not (self.seconds > 0 and self.min_seconds > 0):
            raise InputError(
                f"recipe: expected data.seconds and data.min_seconds > 0, got {self.seconds} and {self.min_seconds}"
            )
        if self.bucket is not None and self.bucket < 1:
            raise InputError(f"recipe: expected data.bucket of at least 1, got {self.bucket}")


@dataclass(frozen=True, kw_only=True)
class VideoData:
    """How training clips are cut.

    frames: of a clip; a shorter file's last frame is repeated. frame_stride: every how manyth frame of a file is taken.
    crop: height and width in pixels; a smaller picture is resized to it. flip: mirror every second clip, by chance.
    stills: whether a folder's pictures are clips too, of a camera that moves over them at an even speed, closer or
        farther, at random.
    max_frames: how many frames of a file are read, from its start; what is behind them is not seen.
    cache_gib: memory for decoded files; those beyond it are read from disk each time.
    workers: processes that read; None: none where all files are in memory, else 2.
    """

    frames: int = 17
    frame_stride: int = 1
    crop: int = 128
    flip: bool = True
    stills: bool = False
    max_frames: int = 256
    cache_gib: float = 2.0
    workers: int | None = None

    def __post_init__(self):
        _check_reading(self)
        for key in ("frames", "frame_stride", "crop", "max_frames"):
            if getattr(self, key) < 1:
                raise InputError(f"recipe: expected data.{key} of at least 1, got {getattr(self, key)}")


@dataclass(frozen=True, kw_only=True)
class StructureData:
    """How training structures are cut.

    max_residues: a longer chain is cut to a stretch of so many, at a random place; shorter ones stay whole and are
        padded to the longest of their batch with residues that are absent.
    bucket: so many chains, drawn at random, are put in the order of their files' sizes, so that those of a batch are
        about as long; 1: batches of any lengths.
    cache_gib: memory for decoded files; those beyond it are read from disk each time.
    workers: processes that read; None: none where all files are in memory, else 2.
    """

    max_residues: int = 256
    bucket: int = 64
    cache_gib: float = 2.0
    workers: int | None = None

    def __post_init__(self):
        _check_reading(self)
        if self.max_residues < 1 or self.bucket < 1:
            raise InputError(
                f"recipe: expected data.max_residues and data.bucket >= 1, got {self.max_residues} and {self.bucket}"
            )


DataOptions = ImageData | AudioData | VideoData | StructureData
DATA_OPTIONS: dict[str, type[DataOptions]] = {
    "image": ImageData,
    "audio": AudioData,
    "video": VideoData,
    "structure": StructureData,
}


def _check_reading(options: DataOptions) -> None:
    if not options.cache_gib >= 0 or (options.workers is not None and options.workers < 0):
        raise InputError(
            f"recipe: expected data.cache_gib and data.workers >= 0, got {options.cache_gib} and {options.workers}"
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW with a linear warm-up over `warmup_steps` and a cosine decay to `final_learning_rate` at the last step.

    clip_norm: greatest norm of the gradient; .inf: none.
    """

    learning_rate: float = 3e-4
    final_learning_rate: float = 0.0
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def __post_init__(self):
        for key in ("learning_rate", "final_learning_rate", "warmup_steps", "weight_decay"):
            if not getattr(self, key) >= 0:
                raise InputError(f"recipe: expected {key} of an optimizer >= 0, got {getattr(self, key)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"recipe: expected betas of an optimizer from 0 to below 1, got {list(self.betas)}")
        if not self.clip_norm > 0:
            raise InputError(f"recipe: expected clip_norm of an optimizer > 0 (.inf: none), got {self.clip_norm}")


@dataclass(frozen=True, kw_only=True)
class Optimizer(AdamW):
    """As `AdamW`. ema_decay: of the averaged weights, which are validated and exported."""

    ema_decay: float = 0.999

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"recipe: expected optimizer.ema_decay from 0 to below 1, got {self.ema_decay}")


@dataclass(frozen=True, kw_only=True)
class Discriminator:
    """One family of networks of `zoo.trainers.discriminators`.

    arguments: keywords of its class. loss: a name of `zoo.trainers.adversarial.GAN_LOSSES`.
    weight, feature_matching: of its judgement and of the distance between its features, in the tokenizer's loss.
    lecam, r1: of these two penalties, in its own loss. All four multiply sums over the family's networks.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    loss: str = "hinge"
    weight: float
    feature_matching: float = 0.0
    lecam: float = 0.0
    r1: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """Training against discriminators, all with one optimizer.

    discriminators: by their names in `zoo.trainers.discriminators.DISCRIMINATORS`.
    start_step: the tokenizer trains alone before it; the optimizer's warm-up counts from there.
    first: whose step is taken first. Both learn from the same reconstruction; the tokenizer's loss meets the
        discriminators before ("generator") or behind ("discriminator") their step.
    adaptive_weight: whether the judgements' weights are multiplied by `zoo.trainers.adversarial.adaptive_weight`.
    """

    discriminators: dict[str, Discriminator]
    start_step: int = 0
    first: Literal["generator", "discriminator"] = "generator"
    adaptive_weight: bool = False
    optimizer: AdamW = AdamW(learning_rate=1e-4, warmup_steps=0, weight_decay=0.0)

    def __post_init__(self):
        if not self.discriminators:
            raise InputError("recipe: expected a discriminator in adversarial.discriminators, got none")
        if self.start_step < 0:
            raise InputError(f"recipe: expected adversarial.start_step of at least 0, got {self.start_step}")


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A frozen, published network that the vectors of one codebook are made to resemble.

    teacher: a name of `zoo.trainers.representation`, where the losses are: of pictures `IMAGE_TEACHERS`, of sounds
    `SPEECH_TEACHERS`. codebook: counted from 0; of residual ones the first alone. weight: of the loss.
    """

    teacher: str
    codebook: int = 0
    weight: float


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Codes replaced by near ones before they are decoded, so that the decoder bears wrong ones (RobusTok).

    alpha, delta, beta: share of the codes, number of near codes to draw from, and share of a pass's items, as in
        `zoo.metrics.perturbation.perturb_codes`; near is what is near to the encoder's vector.
    anneal: steps between which the factor of `alpha` and `delta` falls evenly from 1 to `final_factor`; None: it is 1.
    """

    alpha: float = 1.0
    delta: int = 100
    beta: float = 0.1
    anneal: tuple[int, int] | None = None
    final_factor: float = 0.5

    def __post_init__(self):
        for key in ("alpha", "beta", "final_factor"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"recipe: expected perturbation.{key} from 0 to 1, got {getattr(self, key)}")
        if self.delta < 1:
            raise InputError(f"recipe: expected perturbation.delta of at least 1, got {self.delta}")
        if self.anneal is not None and not 0 <= self.anneal[0] < self.anneal[1]:
            raise InputError(f"recipe: expected perturbation.anneal as two rising steps, got {list(self.anneal)}")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """every: steps between validations. items: how many files, the first by name. examples: how many are shown.

    metrics: names of `zoo.metrics.METRICS`; None: those of `zoo.trainers.validation.DEFAULT_METRICS`.
    best: that of these metrics by which the best checkpoint is kept; None: none is.
    """

    every: int = 500
    items: int = 32
    examples: int = 4
    metrics: tuple[str, ...] | None = None
    best: str | None = None

    def __post_init__(self):
        if self.every < 1 or self.items < 1 or self.examples < 0:
            raise InputError(
                "recipe: expected validation.every and validation.items >= 1 and validation.examples >= 0, "
                f"got {self.every}, {self.items} and {self.examples}"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training run.

    tokenizer: registered variant whose network is trained. config: changes to its configuration, the keywords of
    its class. spec: changes to its `TokenizerSpec`, such as `codebook_sizes`.
    weights: what training starts from: a file that `zoo.load(tokenizer, weights=...)` takes, or the name of a variant;
    None: random weights. freeze: names of modules, such as `encoder` or `encoder.head`, that stay as they are, in eval
    mode.
    losses: weight of each term by name: those of `zoo.trainers.terms.reconstruction_losses`,
    `zoo.trainers.perceptual.PERCEPTUAL_LOSSES` and, unless it is frozen, the quantizer's own.
    teachers: networks that codebooks are made to resemble; the terms are called after their keys.
    perturbation: of codes; None: none.
    quantize_from: the step before which the decoder has the latents as they are, as `Unquantized` says.
    tail_drop_from: the step before which the decoder has all tokens (One-D-Piece).
    steps: of the optimizer. batch_size: items of one forward pass and device; accumulate: passes of one step.
    adversarial: discriminators to train against; None: none.
    precision: of Fabric, as "32-true" or "bf16-mixed". compile: whether encoder and decoder are compiled.
    checkpoint_every: steps between checkpoints. checkpoint_keep: how many of the last are kept.
    """

    tokenizer: str
    config: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    freeze: tuple[str, ...] = ()
    data: DataOptions
    losses: dict[str, float]
    teachers: dict[str, Teacher] = field(default_factory=dict)
    perturbation: Perturbation | None = None
    quantize_from: int = 0
    tail_drop_from: int = 0
    adversarial: Adversarial | None = None
    optimizer: Optimizer = Optimizer()
    steps: int
    batch_size: int
    accumulate: int = 1
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    compile: bool = False
    validation: Validation = Validation()
    log_every: int = 20
    checkpoint_every: int = 500
    checkpoint_keep: int = 2

    def __post_init__(self):
        for key in ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "checkpoint_keep"):
            if getattr(self, key) < 1:
                raise InputError(f"recipe: expected {key} of at least 1, got {getattr(self, key)}")
        for key in ("quantize_from", "tail_drop_from"):
            if getattr(self, key) < 0:
                raise InputError(f"recipe: expected {key} of at least 0, got {getattr(self, key)}")
        if self.accumulate > 1 and self.adversarial and self.adversarial.first == "discriminator":
            raise InputError("recipe: adversarial.first=discriminator takes accumulate=1: it steps before the other")
        if dotted := [name for name in self.teachers if "." in name]:
            raise InputError(f"recipe: expected teachers under names without dots, got {', '.join(dotted)}")
        if self.perturbation and int(self.batch_size * self.perturbation.beta) < 1:
            raise InputError(
                f"recipe: perturbation.beta={self.perturbation.beta} of batch_size={self.batch_size} is less than one "
                "item"
            )

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for all that shapes the weights.

        Values that are their fields' defaults do not count: a field that is added later changes no digest.
        """
        content = json.dumps(_shaping(_departures(self)), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def shaping(self) -> dict[str, Any]:
        """The values that the weights depend on, by dotted key: without how often to report and to save."""
        return _shaping(dataclasses.asdict(self))

    def to_yaml(self) -> str:
        """The recipe as `load_recipe` reads it."""
        return yaml.safe_dump(_plain(dataclasses.asdict(self)), sort_keys=False)


def list_recipes() -> list[str]:
    """Names of the recipes that ship with zoo."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(
    source: str | Path | Recipe | Mapping[str, Any], overrides: Mapping[str, Any] | Sequence[str] = ()
) -> Recipe:
    """Read a recipe and change it.

    Args:
        source: name of a recipe that ships with zoo, path of a YAML file, a recipe, or keys and values as YAML has
            them.
        overrides: `{"optimizer.learning_rate": 1e-4}` or `["optimizer.learning_rate=1e-4"]`.

    Raises:
        InputError: no such recipe, an unknown key, a value of the wrong type or YAML that cannot be read.
    """
    if isinstance(source, Recipe):
        source = dataclasses.asdict(source)
    if isinstance(source, Mapping):
        values, origin = _plain(source), "recipe"
    else:
        path = Path(source) if str(source).endswith((".yaml", ".yml")) else RECIPES / f"{source}.yaml"
        if not path.is_file():
            raise InputError(f"no recipe {str(source)!r}; zoo has {', '.join(list_recipes())}, or give a .yaml file")
        values, origin = read_yaml(path.read_text(), str(path)), path.name
    if not isinstance(values, dict):
        raise InputError(f"{origin}: expected keys and values, got {type(values).__name__}")
    if not isinstance(overrides, Mapping):
        overrides = dict(_split(text) for text in overrides)
    for key, value in overrides.items():
        _assign(values, key, value)
    if not isinstance(values.get("tokenizer"), str):
        raise InputError(f"{origin}: expected tokenizer as the name of a variant, got {values.get('tokenizer')!r}")
    modality = zoo.info(values["tokenizer"]).spec.modality
    if modality not in DATA_OPTIONS:
        raise InputError(f"{origin}: {values['tokenizer']} is for {modality}; trainers take {', '.join(DATA_OPTIONS)}")
    values.setdefault("data", {})
    hints = {**typing.get_type_hints(Recipe), "data": DATA_OPTIONS[modality]}
    return _build(Recipe, values, origin, "", hints)


def create_tokenizer(recipe: Recipe) -> Tokenizer:
    """The recipe's network, in training mode, with random weights that its seed decides.

    Raises:
        InputError: a `config` or `spec` key that the tokenizer does not have, or a value of the wrong type.
    """
    variant = zoo.info(recipe.tokenizer)
    spec = _convert_all(recipe.spec, typing.get_type_hints(type(variant.spec)), "recipe", "spec.")
    config = check_keywords(variant.builder.__init__, recipe.config, "config.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return variant.builder(dataclasses.replace(variant.spec, **spec), **{**variant.config, **config})


def check_keywords(function: Callable[..., Any], values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """`values`, which a recipe gives under `prefix`, as the keywords of `function`; InputError names what is not."""
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    keywords = {item.name: hints.get(item.name, Any) for item in parameters if item.kind is item.KEYWORD_ONLY}
    return _convert_all(values, keywords, "recipe", prefix)


def _shaping(values: Mapping[str, Any]) -> dict[str, Any]:
    # Dotted key to plain value, of what weights depend on.
    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        elif not prefix.startswith(("validation", "log_", "checkpoint_", "data.cache_gib", "data.workers")):
            flat[prefix] = value

    flat: dict[str, Any] = {}
    walk("", _plain(values))
    return flat


def _departures(value: Any) -> Any:
    # What is not its field's default, as mappings.
    if isinstance(value, dict):
        return {key: _departures(inner) for key, inner in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    departures = {}
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if inner != default:
            departures[item.name] = _departures(inner)
    return departures


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number, as in version 1.2, and not text."""


_Loader.yaml_implicit_resolvers = {key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str, origin: str) -> Any:
    """The plain value that `text` stands for; InputError names `origin` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{origin}: not YAML: {' '.join(str(error).split())}") from None


def _split(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"expected key=value, got {text!r}")
    return key, read_yaml(value, key)


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise InputError(f"recipe: {key}: {parent} is a single value, it has no keys")
    values[last] = _plain(value)


def _build(cls: type, values: Any, origin: str, prefix: str, hints: Mapping[str, Any]) -> Any:
    fields = dataclasses.fields(cls)
    required = [item.name for item in fields if item.default is item.default_factory]
    missing = [prefix + name for name in required if name not in values]
    if missing:
        raise InputError(f"{origin}: {', '.join(missing)} missing")
    for item in fields:
        # Keys that are not written have what the field declares, which need not be the defaults of its class.
        if dataclasses.is_dataclass(item.default) and isinstance(values.get(item.name), dict):
            values = {**values, item.name: {**_plain(dataclasses.asdict(item.default)), **values[item.name]}}
    return cls(**_convert_all(values, hints, origin, prefix))


def _convert_all(values: Mapping[str, Any], hints: Mapping[str, Any], origin: str, prefix: str) -> dict[str, Any]:
    for key in values:
        if key not in hints:
            raise InputError(f"{origin}: unknown key {prefix}{key}; accepted: {', '.join(sorted(hints))}")
    return {key: _convert(value, hints[key], origin, prefix + key) for key, value in values.items()}


def _convert(value: Any, hint: Any, origin: str, key: str) -> Any:
    # What YAML gives to what a field of this type holds.
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind is types.UnionType:
        return None if value is None else _convert(value, arguments[0], origin, key)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return _build(hint, value, origin, f"{key}.", typing.get_type_hints(hint))
    if kind is dict and isinstance(value, dict):
        return {name: _convert(inner, arguments[1], origin, f"{key}.{name}") for name, inner in value.items()}
    if kind in (tuple, Sequence) and isinstance(value, list | tuple):
        inner = arguments[:1] * len(value) if kind is Sequence or arguments[1:] == (...,) else arguments
        if len(inner) == len(value):
            return tuple(
                _convert(*pair, origin, f"{key}[{i}]") for i, pair in enumerate(zip(value, inner, strict=True))
            )
    if hint is float and type(value) is int:
        return float(value)
    if hint is Any or type(value) is hint or (kind is Literal and value in arguments):
        return value
    raise InputError(f"{origin}: expected {key} as {_describe(hint)}, got {value!r}")


def _describe(hint: Any) -> str:
    kind, arguments = typing.get_origin(hint), typing.get_args(hint)
    if kind is Literal:
        return " or ".join(map(repr, arguments))
    if kind in (tuple, Sequence):
        arguments = (*arguments, ...) if kind is Sequence else arguments
        return f"[{', '.join('...' if argument is ... else _describe(argument) for argument in arguments)}]"
    if kind is dict or dataclasses.is_dataclass(hint):
        return "keys and values"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[hint]


def _plain(value: Any) -> Any:
    # Tuples as lists, which is what YAML gives back.
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
