"""Losses that make code vectors resemble what a frozen, published network, their teacher, knows of the signal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional

from zoo.checkpoints import read_checkpoint
from zoo.errors import InputError
from zoo.layers.transformer import TransformerBlock
from zoo.metrics.networks import Weights
from zoo.spec import TokenizerOutput
from zoo.tokenizer import Tokenizer
from zoo.trainers.data.options import AudioData, ImageData
from zoo.trainers.frozen import Frozen, from_hub, require
from zoo.trainers.losses.indirect import WHISPER_TEACHERS, IndirectDistillation, is_indirect
from zoo.trainers.losses.perceptual import Normalize
from zoo.trainers.recipe import Recipe, Teacher

Found = TypeVar("Found")


@dataclass(frozen=True)
class VisionTeacher:
    """A published vision transformer.

    timm: its name in timm. width: width of its features. final_norm: whether they are taken after its last norm.
    projected: whether they are projected to the space that CLIP's images and texts share.
    """

    timm: str
    width: int
    final_norm: bool
    projected: bool = False


IMAGE_TEACHERS = {
    "clip-vit-large-patch14": VisionTeacher("vit_large_patch14_clip_quickgelu_224.openai", 1024, final_norm=False),
    "clip-vit-base-patch16": VisionTeacher("vit_base_patch16_clip_quickgelu_224.openai", 768, final_norm=False),
    "clip-vit-base-patch16-projected": VisionTeacher(
        "vit_base_patch16_clip_quickgelu_224.openai", 512, final_norm=True, projected=True
    ),
    "clip-vit-huge-patch14-laion2b": VisionTeacher(
        "vit_huge_patch14_clip_224.laion2b", 1024, final_norm=True, projected=True
    ),
    "dinov2-small": VisionTeacher("vit_small_patch14_dinov2.lvd142m", 384, final_norm=True),
}
SPEECH_TEACHERS = {
    "hubert-base-ls960": Weights(
        network="HuBERT base (LibriSpeech 960 h, torchaudio)",
        names=("hubert_fairseq_base_ls960.pth",),
        url="https://download.pytorch.org/torchaudio/models/hubert_fairseq_base_ls960.pth",
    )
}
TEXT_TEACHERS = {"bert-base-uncased": "google-bert/bert-base-uncased"}  # repositories on the Hub
RECOGNIZER = Weights(
    network="wav2vec 2.0 base that writes English down (LibriSpeech 960 h, torchaudio)",
    names=("wav2vec2_fairseq_base_ls960_asr_ls960.pth",),
    url="https://download.pytorch.org/torchaudio/models/wav2vec2_fairseq_base_ls960_asr_ls960.pth",
)
BLANK, BETWEEN_WORDS = "-", "|"
LETTERS = f"{BLANK}{BETWEEN_WORDS}ETAONIHSRDLUMWCFGYPBVK'XJQZ"  # of the recognizer's outputs, in their order
SPEECH_WIDTH = 768
SPEECH_RATE = 16000  # sample rate of the teachers' input, in Hz
SPEECH_FRAMES = 50  # frames a second of the teachers' features


class ImageTeacher(nn.Module):
    """A ViT with the weights that timm has for it: its feature of an image as a whole, the class token, or of patches.

    As in FQGAN (arXiv 2411.16681): images are resized to 224 by 224 by the nearest pixel and normalised as the network
    expects; CLIP's last state is taken before its norm and projection, DINOv2's after its norm.

    Takes `[B, 3, H, W]` in [0, 1], returns `[B, width]` without a gradient; `patches` returns `[B, patches, width]`.

    Args:
        name: a key of `IMAGE_TEACHERS`.

    Raises:
        InputError: an unknown name, or weights that are not in the Hub's cache and cannot be fetched.
    """

    def __init__(self, name: str):
        super().__init__()
        teacher = lookup(name, IMAGE_TEACHERS)
        import timm
        from timm.models import VisionTransformer

        settings = timm.get_pretrained_cfg(teacher.timm)
        assert settings is not None  # timm knows the names of IMAGE_TEACHERS
        self.width = teacher.width
        self.normalize = Normalize(settings.mean, settings.std)
        try:
            outputs = teacher.width if teacher.projected else 0
            network = timm.create_model(teacher.timm, pretrained=True, num_classes=outputs, img_size=224)
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(
                f"the teacher {name} needs the weights of {settings.hf_hub_id}, which cannot be fetched ({reason}); "
                f"fetch them ahead with `hf download {settings.hf_hub_id}`; a network with random weights would not do"
            ) from error
        if not teacher.final_norm:
            network.norm = nn.Identity()
        assert isinstance(network, VisionTransformer)
        self.frozen = Frozen(network)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self._tokens(images)[:, 0]

    @torch.no_grad()
    def patches(self, images: Tensor) -> Tensor:
        """Return the features of the 16x16 or 14x14 patches of images `[B, 3, H, W]` in [0, 1], row by row."""
        return self._tokens(images)[:, 1:]

    def _tokens(self, images: Tensor) -> Tensor:
        network = self.frozen.network
        images = functional.interpolate(images, (224, 224), mode="nearest")
        return network.head(network.forward_features(self.normalize(images)))


class FeatureHead(nn.Module):
    """Feature of an image as a whole from its code vectors: FQGAN's head between a codebook and its teacher.

    Two layers make each vector `width` wide; a learned class token is put before them and learned positions are added;
    three transformer blocks follow, between two norms. Takes quantized latents `[B, dim, *grid]`, returns the class
    token `[B, width]`.

    Args:
        dim: channels of the code vectors. width: width of the teacher's features. positions: number of grid positions.
    """

    def __init__(self, dim: int, width: int, positions: int):
        super().__init__()
        self.expand = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width))
        self.class_embedding = nn.Parameter(torch.randn(1, width) / width**0.5)
        self.positional_embedding = nn.Parameter(torch.randn(positions + 1, width) / width**0.5)
        self.norm_pre = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, num_heads=8) for _ in range(3)))
        self.norm_post = nn.LayerNorm(width)

    def forward(self, quantized: Tensor) -> Tensor:
        return self.tokens(quantized)[:, 0]

    def tokens(self, quantized: Tensor) -> Tensor:
        """`[B, 1 + positions, width]`, the class token first."""
        x = self.expand(quantized.flatten(2).mT)
        x = torch.cat([self.class_embedding.expand(len(x), -1, -1), x], dim=1)
        return self.norm_post(self.blocks(self.norm_pre(x + self.positional_embedding)))


def info_nce(student: Tensor, teacher: Tensor) -> Tensor:
    """Loss of picking each student feature's own teacher feature among those of the batch (FQGAN): scalar.

    With features of unit norm, -mean over i of log(exp(s_i . t_i) / sum over j of exp(s_i . t_j)): no temperature, from
    student to teacher only, j over this process's batch.

    Args:
        student, teacher: `[B, width]`, B at least 2.

    Raises:
        InputError: a batch of 1, in which there is nothing to pick from.
    """
    if len(student) < 2:
        raise InputError(f"expected a batch of at least 2 to tell apart, got {len(student)}")
    similarities = functional.normalize(student, dim=-1) @ functional.normalize(teacher, dim=-1).mT
    return functional.cross_entropy(similarities, torch.arange(len(student), device=student.device))


class RepresentationLoss(nn.Module):
    """InfoNCE between code vectors, through a head that is trained with them, and a frozen teacher of images.

    `forward(quantized, images)` takes one codebook's vectors `[B, dim, *grid]` and images `[B, 3, H, W]` in [0, 1]; the
    gradient goes to the vectors. Parameters and state dict are those of the head.

    Args:
        teacher: a key of `IMAGE_TEACHERS`. dim: channels of the code vectors. positions: number of grid positions.
    """

    def __init__(self, teacher: str, dim: int, positions: int):
        super().__init__()
        self.teacher = ImageTeacher(teacher)
        self.head = FeatureHead(dim, self.teacher.width, positions)

    def forward(self, quantized: Tensor, images: Tensor) -> Tensor:
        return info_nce(self.head(quantized), self.teacher(images))


class FeatureDistillation(nn.Module):
    """Mean over patches of 1 - cos between the features that codes stand for and those of a frozen teacher (TokenFlow).

    `forward(features, images)` takes features `[B, patches, width]`, as `Tokenizer.to_features` returns them, and
    images `[B, 3, H, W]` in [0, 1]; the gradient goes to the features.

    Args:
        teacher: a key of `IMAGE_TEACHERS`.

    Raises:
        InputError: from `forward`: features of other patches or of another width than the teacher's.
    """

    def __init__(self, teacher: str):
        super().__init__()
        self.teacher = ImageTeacher(teacher)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        expected = self.teacher.patches(images)
        check_shapes(features, expected)
        return 1 - functional.cosine_similarity(features, expected, dim=-1).mean()


class EmbeddingDistillation(nn.Module):
    """Mean squared difference of the embedding that codes stand for from a frozen teacher's of the image (SEED).

    `forward(features, images)` takes features `[B, width]`, as `Tokenizer.to_features` returns them, and images
    `[B, 3, H, W]` in [0, 1]; the gradient goes to the features.

    Args:
        teacher: a key of `IMAGE_TEACHERS`.

    Raises:
        InputError: from `forward`: features of another width than the teacher's.
    """

    def __init__(self, teacher: str):
        super().__init__()
        self.teacher = ImageTeacher(teacher)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        expected = self.teacher(images)
        check_shapes(features, expected)
        return functional.mse_loss(features, expected)


def check_shapes(features: Tensor, expected: Tensor) -> None:
    """Raise InputError unless a tokenizer's features have the shape of its teacher's."""
    if features.shape != expected.shape:
        raise InputError(
            f"recipe: the tokenizer's features are {list(features.shape)}, the teacher's {list(expected.shape)}"
        )


class SpeechTeacher(nn.Module):
    """HuBERT's features of speech: the mean of its 13 states, the one before its layers and those after each layer.

    As in SpeechTokenizer (arXiv 2308.16692) and DM-Codec (arXiv 2410.15017), with torchaudio's network; each item is
    normalised to mean 0 and variance 1. Takes `[B, 1, samples]` at 16 kHz, returns `[B, frames, 768]` without a
    gradient: one frame for every 320 samples, less one.

    Args:
        name: a key of `SPEECH_TEACHERS`.

    Raises:
        InputError: an unknown name, or weights that are not in torch hub's folder of checkpoints.
    """

    def __init__(self, name: str):
        super().__init__()
        weights = lookup(name, SPEECH_TEACHERS, others=(*TEXT_TEACHERS, *WHISPER_TEACHERS))
        require(weights, f"the teacher {name}")
        network = torchaudio.models.hubert_base()
        path = weights.path()
        assert path is not None  # `require` has found it
        network.load_state_dict(read_checkpoint(path))
        self.frozen = Frozen(network)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        network, audio = self.frozen.network, audio[:, 0].float()
        variance, mean = torch.var_mean(audio, dim=-1, correction=0, keepdim=True)
        states: list[Tensor] = []
        first_layer = network.get_submodule("encoder.transformer.layers.0")
        with first_layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])):
            after_layers, _ = network.extract_features((audio - mean) / (variance + 1e-7).sqrt())
        return torch.stack([*states, *after_layers]).mean(dim=0)


class TextTeacher(nn.Module):
    """BERT's features of what is said: the mean of its 13 states, the one before its layers and those after each layer.

    As in DM-Codec (arXiv 2410.15017): wav2vec 2.0 writes speech down, the best letter of each frame without a language
    model, and the words go through BERT, filled with [PAD] to as many tokens as there are frames, which is nearly
    always many more than there are words. Tokens and frames are not aligned: token i is the target of frame i, and most
    targets are BERT's features of [PAD]. Takes `[B, 1, samples]` at 16 kHz, returns `[B, frames, 768]` without a
    gradient: one for every 320 samples, less one.

    Args:
        name: a key of `TEXT_TEACHERS`.

    Raises:
        InputError: an unknown name, weights of wav2vec 2.0 that are not in torch hub's folder of checkpoints, or a
            language model that `transformers` cannot load.
    """

    def __init__(self, name: str):
        super().__init__()
        repository = lookup(name, TEXT_TEACHERS)
        require(RECOGNIZER, f"the teacher {name}")
        network = torchaudio.models.wav2vec2_base(aux_num_out=len(LETTERS))
        path = RECOGNIZER.path()
        assert path is not None  # `require` has found it
        network.load_state_dict(without_unused_letters(read_checkpoint(path)))
        self.recognizer = Frozen(network)

        def load() -> tuple[Any, nn.Module]:
            from transformers import AutoModel, AutoTokenizer

            return AutoTokenizer.from_pretrained(repository), AutoModel.from_pretrained(repository)

        self.words, language_model = from_hub(name, repository, load)
        self.frozen = Frozen(language_model)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        logits, _ = self.recognizer.network(audio[:, 0].float())
        frames = logits.shape[1]
        words = self.words(
            [spoken(item) for item in logits.argmax(dim=-1)],
            padding="max_length",
            truncation=True,
            max_length=frames,
            return_tensors="pt",
        ).to(audio.device)
        return torch.stack(self.frozen.network(**words, output_hidden_states=True).hidden_states).mean(dim=0)


def spoken(letters: Tensor) -> str:
    """The text of the letters `[frames]` that wav2vec 2.0 hears: repetitions and blanks left out."""
    heard = [LETTERS[letter] for letter in letters.unique_consecutive().tolist()]
    return " ".join("".join(letter for letter in heard if letter != BLANK).replace(BETWEEN_WORDS, " ").split())


def without_unused_letters(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The published tensors of the recognizer without three outputs that are no letters, as torchaudio has them."""
    kept = [0, *range(4, 4 + len(LETTERS) - 1)]
    return {key: tensor[kept] if key.startswith("aux.") else tensor for key, tensor in state.items()}


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Difference of each feature's course over time: SpeechTokenizer's loss along the feature axis, a scalar.

    It is -mean over items and features of log sigmoid(cosine of the two courses); the longer one is cut to the shorter.

    Args:
        student, teacher: `[B, frames, width]`, at most one frame apart in length.

    Raises:
        InputError: other shapes.
    """
    if student.ndim != 3 or student.shape[::2] != teacher.shape[::2] or abs(student.shape[1] - teacher.shape[1]) > 1:
        raise InputError(
            f"expected features of student and teacher as [batch, frames, width], at most one frame apart, "
            f"got {list(student.shape)} and {list(teacher.shape)}"
        )
    frames = min(student.shape[1], teacher.shape[1])
    cosine = functional.cosine_similarity(student[:, :frames], teacher[:, :frames], dim=1)
    return -functional.logsigmoid(cosine).mean()


class SemanticDistillation(nn.Module):
    """Makes a codebook's vectors resemble a frozen teacher of speech, through a projection that is trained with them.

    The loss of SpeechTokenizer and, with two teachers, of DM-Codec. `forward(quantized, audio)` takes the first
    codebook's vectors `[B, dim, frames]` and audio `[B, 1, samples]`; the gradient goes to the vectors. The teacher
    gets the crop, as in DM-Codec; SpeechTokenizer's got the whole file. Theirs have 16 kHz and 50 frames a second;
    audio of another rate is resampled, and for another frame rate the teacher's features are interpolated. Parameters
    and state dict are those of the projection.

    Args:
        teacher: a key of `SPEECH_TEACHERS` or `TEXT_TEACHERS`. dim: channels of the code vectors.
        sample_rate: sample rate of the audio in Hz. frame_rate: frames a second of the code vectors.
    """

    def __init__(self, teacher: str, dim: int, sample_rate: int = SPEECH_RATE, frame_rate: float = SPEECH_FRAMES):
        super().__init__()
        self.teacher = (TextTeacher if teacher in TEXT_TEACHERS else SpeechTeacher)(teacher)
        self.project = nn.Linear(dim, SPEECH_WIDTH)
        self.sample_rate, self.frame_rate = sample_rate, frame_rate

    def forward(self, quantized: Tensor, audio: Tensor) -> Tensor:
        features = self.teacher(torchaudio.functional.resample(audio, self.sample_rate, SPEECH_RATE))
        if self.frame_rate != SPEECH_FRAMES:
            features = functional.interpolate(features.mT, size=quantized.shape[-1], mode="linear").mT
        return distillation_loss(self.project(quantized.mT), features)


class RepresentationTerms(nn.Module):
    """The terms of a recipe's `teachers`, each between the vectors of one codebook and one teacher.

    In a semantic system (`Tokenizer.teacher_features`), they are between its features, of patches or of the image as a
    whole, and the teacher's.
    Parameters and state dict are those of the losses' heads, which start with random weights that the seed decides.

    Args:
        tokenizer: the one that is trained, of images or audio.
        recipe: a recipe with `teachers`.

    Raises:
        InputError: an unknown teacher or codebook, or a recipe or tokenizer that cannot have teachers.
    """

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe):
        super().__init__()
        self.options = {f"{name}_representation_loss": options for name, options in recipe.teachers.items()}
        self._tokenizer = (tokenizer,)  # in a tuple, which leaves its parameters to the tokenizer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.losses = nn.ModuleDict(
                {name: make_loss(options, tokenizer, recipe) for name, options in self.options.items()}
            )

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term by its name."""
        return {name: options.weight for name, options in self.options.items()}

    def forward(self, output: TokenizerOutput, original: Tensor) -> dict[str, Tensor]:
        """The unweighted terms by name, of the tokenizer's output for `original`."""
        quantized, codes = output.latent.movedim(1, -1), output.codes.movedim(1, -1)
        (tokenizer,) = self._tokenizer
        if tokenizer.teacher_features is not None:
            features = tokenizer.to_features(output.latent.float())
            return {name: loss(features, original) for name, loss in self.losses.items()}
        vectors_of = tokenizer.quantizer.vectors_of
        return {
            name: loss(vectors_of(self.options[name].codebook, quantized, codes).movedim(-1, 1).float(), original)
            for name, loss in self.losses.items()
        }


def make_loss(
    options: Teacher, tokenizer: Tokenizer, recipe: Recipe
) -> RepresentationLoss | SemanticDistillation | IndirectDistillation | FeatureDistillation | EmbeddingDistillation:
    """The loss between a teacher and the codebook, or the features, of a tokenizer that a recipe trains."""
    spec, quantizer, data = tokenizer.spec, tokenizer.quantizer, recipe.data
    if tokenizer.teacher_features is not None:
        one_vector = tokenizer.encode_only is not None
        return EmbeddingDistillation(options.teacher) if one_vector else FeatureDistillation(options.teacher)
    nothing = torch.zeros(1, quantizer.dim), torch.zeros(1, quantizer.num_codebooks, dtype=torch.int64)
    vectors = quantizer.vectors_of(options.codebook, *(tensor.to(tokenizer.device) for tensor in nothing))
    dim = vectors.shape[-1]
    if isinstance(data, AudioData):
        if is_indirect(options.teacher):
            return IndirectDistillation(options.teacher, tokenizer)
        assert spec.sample_rate is not None and spec.frame_rate is not None
        return SemanticDistillation(options.teacher, dim, spec.sample_rate, spec.frame_rate)
    if not isinstance(data, ImageData) or spec.tail_drop:
        raise InputError(
            f"recipe: {spec.name} takes no teachers: they are for audio and for images whose tokens are all decoded"
        )
    if recipe.batch_size < 2:
        raise InputError("recipe: teachers of images need a batch_size of at least 2, to tell them apart")
    size = (data.crop, data.crop) if spec.variable_size else spec.resolution
    assert size is not None  # a fixed size is the resolution
    return RepresentationLoss(options.teacher, dim, math.prod(spec.grid(size)))


def lookup(name: str, teachers: Mapping[str, Found], others: Iterable[str] = ()) -> Found:
    """The teacher of this name; InputError with the known names, and those of `others`, if there is none."""
    if name not in teachers:
        raise InputError(f"recipe: unknown teacher {name!r}; zoo has {', '.join((*teachers, *others))}")
    return teachers[name]
