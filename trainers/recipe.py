"""A training run as a typed recipe. Imports no torch; `zoo.trainers.reading` reads recipes from YAML."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.errors import InputError
from zoo.trainers.conversion import plain
from zoo.trainers.data.options import DataOptions
from zoo.trainers.yaml_text import write_yaml

MOST_STEPS = 10**8 - 1  # a checkpoint's name has eight digits


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW with a linear warm-up over `warmup_steps` and a cosine decay to `final_learning_rate` at the last step.

    clip_norm: greatest norm of the gradient; .inf: no limit.
    """

    learning_rate: float = 3e-4
    final_learning_rate: float = 0.0
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        for key in ("learning_rate", "final_learning_rate", "warmup_steps", "weight_decay"):
            if not getattr(self, key) >= 0:
                raise InputError(f"recipe: expected {key} of an optimizer >= 0, got {getattr(self, key)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"recipe: expected betas of an optimizer from 0 to below 1, got {list(self.betas)}")
        if not self.clip_norm > 0:
            raise InputError(f"recipe: expected clip_norm of an optimizer > 0 (.inf: none), got {self.clip_norm}")


@dataclass(frozen=True, kw_only=True)
class Optimizer(AdamW):
    """The tokenizer's optimizer: `AdamW`, and an average of the weights, which is what is validated and exported.

    ema_decay: decay of the averaged weights per step; 0: the weights themselves.
    """

    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"recipe: expected optimizer.ema_decay from 0 to below 1, got {self.ema_decay}")


@dataclass(frozen=True, kw_only=True)
class Discriminator:
    """One discriminator of `zoo.trainers.adversarial.discriminators`, which may consist of several networks.

    arguments: keywords of its class. loss: a name of `zoo.trainers.adversarial.losses.GAN_LOSSES`.
    weight: weight of its judgement in the tokenizer's loss. feature_matching: weight of the distance between its
    features in the tokenizer's loss.
    lecam, r1: weights of these two penalties in its own loss. All four weights multiply sums over its networks.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    loss: str = "hinge"
    weight: float
    feature_matching: float = 0.0
    lecam: float = 0.0
    r1: float = 0.0

    def __post_init__(self) -> None:
        for key in ("weight", "feature_matching", "lecam", "r1"):
            if not getattr(self, key) >= 0:
                raise InputError(f"recipe: expected {key} of a discriminator >= 0, got {getattr(self, key)}")


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """Training against discriminators, which share one optimizer.

    discriminators: by their names in `zoo.trainers.adversarial.discriminators.DISCRIMINATORS`.
    start_step: first adversarial step; the tokenizer trains alone before it, and the discriminators' warm-up counts
        from it.
    first: whose optimizer steps first. Both learn from the same reconstruction; the tokenizer's loss is computed with
        the discriminators before ("generator") or after ("discriminator") their step.
    adaptive_weight: whether the judgements' weights are multiplied by
        `zoo.trainers.adversarial.losses.adaptive_weight`.
    """

    discriminators: dict[str, Discriminator]
    start_step: int = 0
    first: Literal["generator", "discriminator"] = "generator"
    adaptive_weight: bool = False
    optimizer: AdamW = AdamW(learning_rate=1e-4, warmup_steps=0, weight_decay=0.0)

    def __post_init__(self) -> None:
        if not self.discriminators:
            raise InputError("recipe: expected a discriminator in adversarial.discriminators, got none")
        if self.start_step < 0:
            raise InputError(f"recipe: expected adversarial.start_step of at least 0, got {self.start_step}")


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A frozen, published network that the vectors of one codebook learn to resemble.

    teacher: a name of `zoo.trainers.losses.teachers`: one of `IMAGE_TEACHERS` for images, one of `SPEECH_TEACHERS`,
        `TEXT_TEACHERS` or `WHISPER_TEACHERS` for audio. One of Whisper's hears what the codebook alone decodes to, and
        so does a network of one's own, `package.module:NAME` (`zoo.trainers.losses.indirect.OwnTeacher`).
    codebook: number of the codebook, from 0; of residual codebooks only the first has a teacher.
    weight: weight of the loss.
    """

    teacher: str
    codebook: int = 0
    weight: float

    def __post_init__(self) -> None:
        if self.codebook < 0 or not self.weight >= 0:
            raise InputError(
                f"recipe: expected codebook and weight of a teacher >= 0, got {self.codebook} and {self.weight}"
            )


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Codes replaced by nearby ones before decoding, so that the decoder learns to tolerate wrong codes (RobusTok).

    alpha, delta, beta: share of the codes, number of nearby codes to draw from, and share of a pass's items, as in
        `zoo.metrics.perturbation.perturb_codes`; nearness is measured from the encoder's vector.
    anneal: steps between which the factor of `alpha` and `delta` falls linearly from 1 to `final_factor`; None: the
        factor stays 1.
    """

    alpha: float = 1.0
    delta: int = 100
    beta: float = 0.1
    anneal: tuple[int, int] | None = None
    final_factor: float = 0.5

    def __post_init__(self) -> None:
        for key in ("alpha", "beta", "final_factor"):
            if not 0 <= getattr(self, key) <= 1:
                raise InputError(f"recipe: expected perturbation.{key} from 0 to 1, got {getattr(self, key)}")
        if self.delta < 1:
            raise InputError(f"recipe: expected perturbation.delta of at least 1, got {self.delta}")
        if self.anneal is not None and not 0 <= self.anneal[0] < self.anneal[1]:
            raise InputError(f"recipe: expected perturbation.anneal as two rising steps, got {list(self.anneal)}")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """When and with what a run is validated.

    every: steps between validations. items: number of files, the first by name.
    examples: number of files that TensorBoard shows.
    metrics: names of `zoo.metrics.METRICS`; None: `validation_metrics` of the modality.
    best: the metric among these by which the best checkpoint is kept; None: no best checkpoint is kept.
    """

    every: int = 500
    items: int = 32
    examples: int = 4
    metrics: tuple[str, ...] | None = None
    best: str | None = None

    def __post_init__(self) -> None:
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
    quantizer: `name` and arguments of another quantizer than the tokenizer's, as `zoo.quantizers.create` takes them;
    the spec's facts about codes are then those of this quantizer. {}: the tokenizer's own.
    weights: what training starts from: a file that `zoo.load(tokenizer, weights=...)` takes, or the name of a variant;
    None: random weights. freeze: names of modules, such as `encoder` or `encoder.head`, that do not change and stay in
    eval mode.
    data: how the data are cut; an options class of `zoo.trainers.data.options`, the one of the tokenizer's modality.
    losses: weight of each term by name: those of `zoo.trainers.losses.terms.RECONSTRUCTION_LOSSES` and, unless it is
    frozen, the quantizer's own.
    teachers: networks that codebooks learn to resemble, by the names that the terms have in the logs.
    perturbation: perturbation of the codes; None: none.
    quantize_from: the first step whose latents are quantized; before it the decoder gets the latents themselves, as
    `zoo.trainers.unquantized.Unquantized` describes.
    tail_drop_from: the first step that drops tail tokens; before it the decoder gets all tokens (One-D-Piece).
    steps: number of the optimizer's steps. batch_size: items of one forward pass on one device.
    accumulate: forward passes of one step.
    adversarial: discriminators to train against; None: none.
    precision: Fabric's name, "32-true" or "bf16-mixed". compile: whether encoder and decoder are compiled.
    log_every: steps between two entries of the logs.
    checkpoint_every: steps between checkpoints. checkpoint_keep: how many of the last checkpoints are kept.
    """

    tokenizer: str
    config: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    quantizer: dict[str, Any] = field(default_factory=dict)
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

    def __post_init__(self) -> None:
        for key in ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "checkpoint_keep"):
            if getattr(self, key) < 1:
                raise InputError(f"recipe: expected {key} of at least 1, got {getattr(self, key)}")
        if self.steps > MOST_STEPS:
            raise InputError(f"recipe: expected steps of at most {MOST_STEPS}, got {self.steps}")
        if self.steps * self.accumulate * self.batch_size >= 2**63:
            raise InputError(
                f"recipe: expected fewer than 2**63 samples, got steps={self.steps}, accumulate={self.accumulate} and "
                f"batch_size={self.batch_size}"
            )
        if self.quantizer and not isinstance(self.quantizer.get("name"), str):
            raise InputError(f"recipe: expected the name of a quantizer, got {self.quantizer.get('name')!r}")
        for name, weight in self.losses.items():
            if not weight >= 0:
                raise InputError(f"recipe: expected losses.{name} >= 0, got {weight}")
        for key in ("seed", "quantize_from", "tail_drop_from"):
            if getattr(self, key) < 0:
                raise InputError(f"recipe: expected {key} of at least 0, got {getattr(self, key)}")
        if self.accumulate > 1 and self.adversarial and self.adversarial.first == "discriminator":
            raise InputError(
                "recipe: adversarial.first=discriminator takes accumulate=1: the discriminators step in each pass"
            )
        if dotted := [name for name in self.teachers if "." in name]:
            raise InputError(f"recipe: expected teachers under names without dots, got {', '.join(dotted)}")
        if self.perturbation and int(self.batch_size * self.perturbation.beta) < 1:
            raise InputError(
                f"recipe: perturbation.beta={self.perturbation.beta} of batch_size={self.batch_size} is less than one "
                "item"
            )

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify all values that shape the weights.

        Values that equal their fields' defaults do not count, so a field that is added later changes no digest.
        """
        content = json.dumps(_shaping_values(_departures(self)), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def shaping(self) -> dict[str, Any]:
        """The values that the weights depend on, by dotted key; without those for logging, saving and reading."""
        return _shaping_values(dataclasses.asdict(self))

    def to_yaml(self) -> str:
        """The recipe as YAML that `load_recipe` reads."""
        return write_yaml(plain(dataclasses.asdict(self)))


def _shaping_values(values: Mapping[str, Any]) -> dict[str, Any]:
    # Nested values to dotted key and plain value; only those that the weights depend on.
    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        elif not prefix.startswith(("validation", "log_", "checkpoint_", "data.cache_gib", "data.workers")):
            flat[prefix] = value

    flat: dict[str, Any] = {}
    walk("", plain(values))
    return flat


def _departures(value: Any) -> Any:
    # The values that differ from their fields' defaults, as mappings.
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
