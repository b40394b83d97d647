"""Losses that tie codes to what a frozen, published network sees or hears in the original."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
from zoo.trainers.frozen import Frozen, require
from zoo.trainers.perceptual import Normalize
from zoo.trainers.recipe import Recipe, Teacher


@dataclass(frozen=True)
class VisionTeacher:
    """timm: the network's name there. width: of its features. final_norm: whether they are taken behind it."""

    timm: str
    width: int
    final_norm: bool


IMAGE_TEACHERS = {
    "clip-vit-large-patch14": VisionTeacher("vit_large_patch14_clip_quickgelu_224.openai", 1024, final_norm=False),
    "clip-vit-base-patch16": VisionTeacher("vit_base_patch16_clip_quickgelu_224.openai", 768, final_norm=False),
    "dinov2-small": VisionTeacher("vit_small_patch14_dinov2.lvd142m", 384, final_norm=True),
}
SPEECH_TEACHERS = {
    "hubert-base-ls960": Weights(
        network="HuBERT base (LibriSpeech 960 h, torchaudio)",
        names=("hubert_fairseq_base_ls960.pth",),
        url="https://download.pytorch.org/torchaudio/models/hubert_fairseq_base_ls960.pth",
    )
}
SPEECH_WIDTH = 768
SPEECH_RATE = 16000  # Hz that the teachers hear
SPEECH_FRAMES = 50  # of theirs a second


class ImageTeacher(nn.Module):
    """What a ViT says of a picture as a whole: its class token, with the weights that timm has for it.

    As FQGAN takes it (arXiv 2411.16681): pictures resized to 224 by 224 by the nearest pixel and normalised as the
    network wants them; of CLIP the last state before its norm and projection, of DINOv2 behind its norm.

    Takes `[B, 3, H, W]` in [0, 1], gives `[B, width]` without a gradient.

    Args:
        name: of `IMAGE_TEACHERS`.

    Raises:
        InputError: an unknown name, or weights that are neither in the Hub's cache nor to be had.
    """

    def __init__(self, name: str):
        super().__init__()
        teacher = lookup(name, IMAGE_TEACHERS)
        import timm

        settings = timm.get_pretrained_cfg(teacher.timm)
        self.width = teacher.width
        self.normalize = Normalize(settings.mean, settings.std)
        try:
            network = timm.create_model(teacher.timm, pretrained=True, num_classes=0, img_size=224)
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(
                f"the teacher {name} needs the weights of {settings.hf_hub_id}, which cannot be had ({reason}); "
                f"fetch them ahead with `hf download {settings.hf_hub_id}`; no network is used with random weights "
                "in its place"
            ) from error
        if not teacher.final_norm:
            network.norm = nn.Identity()
        self.frozen = Frozen(network)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        images = functional.interpolate(images, (224, 224), mode="nearest")
        tokens = self.frozen.network.forward_features(self.normalize(images))
        return tokens[:, 0]


class FeatureHead(nn.Module):
    """What code vectors say of a picture as a whole: FQGAN's head between a codebook and its teacher.

    Each vector becomes `width` wide through two layers; a learned class token before them, learned positions, and
    three transformer blocks between two norms. Takes quantized latents `[B, dim, *grid]`, gives the class token
    `[B, width]`.

    Args:
        dim: channels of the code vectors. width: the teacher's. positions: of the grid.
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
    """How well each student feature picks its own teacher feature among those of the batch (FQGAN).

    With all of unit norm, -mean over i of log(exp(s_i . t_i) / sum over j of exp(s_i . t_j)): no temperature, from
    student to teacher only, j over this process's batch.

    Args:
        student, teacher: `[B, width]`, B at least 2. InputError else: alone, a feature is always picked.
    """
    if len(student) < 2:
        raise InputError(f"expected a batch of at least 2 to tell apart, got {len(student)}")
    similarities = functional.normalize(student, dim=-1) @ functional.normalize(teacher, dim=-1).mT
    return functional.cross_entropy(similarities, torch.arange(len(student), device=student.device))


class RepresentationLoss(nn.Module):
    """InfoNCE between code vectors, through a head that is trained with them, and a frozen teacher of pictures.

    `forward(quantized, images)`: `[B, dim, *grid]` of one codebook, with their gradient, and `[B, 3, H, W]` in [0, 1].
    Parameters and state dict are the head's alone.

    Args:
        teacher: of `IMAGE_TEACHERS`. dim: channels of the code vectors. positions: of the grid.
    """

    def __init__(self, teacher: str, dim: int, positions: int):
        super().__init__()
        self.teacher = ImageTeacher(teacher)
        self.head = FeatureHead(dim, self.teacher.width, positions)

    def forward(self, quantized: Tensor, images: Tensor) -> Tensor:
        return info_nce(self.head(quantized), self.teacher(images))


class SpeechTeacher(nn.Module):
    """What HuBERT hears in speech: the mean of its 13 states, those before and behind each layer.

    As SpeechTokenizer (arXiv 2308.16692) and DM-Codec (arXiv 2410.15017) take it, by torchaudio's network; each item
    is brought to mean 0 and variance 1. Takes `[B, 1, samples]` at 16 kHz, gives `[B, frames, 768]` without a
    gradient, a frame for every 320 samples but, at the end, one less.

    Args:
        name: of `SPEECH_TEACHERS`.

    Raises:
        InputError: an unknown name, or weights that are not in torch hub's folder of checkpoints.
    """

    def __init__(self, name: str):
        super().__init__()
        weights = lookup(name, SPEECH_TEACHERS)
        require(weights, f"the teacher {name}")
        network = torchaudio.models.hubert_base()
        network.load_state_dict(read_checkpoint(weights.path()))
        self.frozen = Frozen(network)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        network, audio = self.frozen.network, audio[:, 0].float()
        variance, mean = torch.var_mean(audio, dim=-1, correction=0, keepdim=True)
        features, _ = network.feature_extractor((audio - mean) / (variance + 1e-7).sqrt(), None)
        states = []
        hook = network.encoder.transformer.layers[0].register_forward_pre_hook(
            lambda _, inputs: states.append(inputs[0])
        )
        with hook:
            states += network.encoder.extract_features(features)
        return torch.stack(states).mean(dim=0)


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Likeness of each feature's course over time: SpeechTokenizer's loss along the feature axis.

    -mean over items and features of log sigmoid(cosine of the two courses); the longer is cut to the shorter.

    Args:
        student, teacher: `[B, frames, width]`, at most one frame apart in length. InputError else.
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

    SpeechTokenizer's and, with HuBERT alone, DM-Codec's: `forward(quantized, audio)` takes the first level's vectors
    `[B, dim, frames]`, with their gradient, and `[B, 1, samples]`. The teacher hears the crop, as in DM-Codec;
    SpeechTokenizer's heard the whole file. Theirs are 16 kHz and 50 frames a second; other audio is resampled, and for
    other frames the teacher's features are interpolated between its own. Parameters and state dict are the
    projection's.

    Args:
        teacher: of `SPEECH_TEACHERS`. dim: channels of the code vectors.
        sample_rate: of the audio, in Hz. frame_rate: of the code vectors, in Hz.
    """

    def __init__(self, teacher: str, dim: int, sample_rate: int = SPEECH_RATE, frame_rate: float = SPEECH_FRAMES):
        super().__init__()
        self.teacher = SpeechTeacher(teacher)
        self.project = nn.Linear(dim, SPEECH_WIDTH)
        self.sample_rate, self.frame_rate = sample_rate, frame_rate

    def forward(self, quantized: Tensor, audio: Tensor) -> Tensor:
        features = self.teacher(torchaudio.functional.resample(audio, self.sample_rate, SPEECH_RATE))
        if self.frame_rate != SPEECH_FRAMES:
            features = functional.interpolate(features.mT, size=quantized.shape[-1], mode="linear").mT
        return distillation_loss(self.project(quantized.mT), features)


class RepresentationTerms(nn.Module):
    """The terms of a recipe's `teachers`, each between the vectors of one codebook and one teacher.

    Parameters and state dict are those of the losses' heads, random at first as the recipe's seed decides.

    Args:
        tokenizer: the one that is trained, of images or audio.
        recipe: one that has `teachers`.

    Raises:
        InputError: a teacher or codebook that there is not, or a recipe or tokenizer that the losses do not go with.
    """

    def __init__(self, tokenizer: Tokenizer, recipe: Recipe):
        super().__init__()
        self.options = {f"{name}_representation_loss": options for name, options in recipe.teachers.items()}
        self._quantizer = (tokenizer.quantizer,)  # in a tuple, which leaves its parameters to the tokenizer
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.losses = nn.ModuleDict(
                {name: make_loss(options, tokenizer, recipe) for name, options in self.options.items()}
            )

    @property
    def weights(self) -> dict[str, float]:
        """By the terms' names."""
        return {name: options.weight for name, options in self.options.items()}

    def forward(self, output: TokenizerOutput, original: Tensor) -> dict[str, Tensor]:
        """The unweighted terms by name, of what the tokenizer made of `original`."""
        quantized, codes = output.latent.movedim(1, -1), output.codes.movedim(1, -1)
        (quantizer,) = self._quantizer
        return {
            name: loss(
                quantizer.vectors_of(self.options[name].codebook, quantized, codes).movedim(-1, 1).float(), original
            )
            for name, loss in self.losses.items()
        }


def make_loss(options: Teacher, tokenizer: Tokenizer, recipe: Recipe) -> RepresentationLoss | SemanticDistillation:
    """The loss between a teacher and the codebook of a tokenizer that a recipe trains."""
    spec, quantizer = tokenizer.spec, tokenizer.quantizer
    nothing = torch.zeros(1, quantizer.dim), torch.zeros(1, quantizer.num_codebooks, dtype=torch.int64)
    vectors = quantizer.vectors_of(options.codebook, *(tensor.to(tokenizer.device) for tensor in nothing))
    dim = vectors.shape[-1]
    if spec.modality == "audio":
        return SemanticDistillation(options.teacher, dim, spec.sample_rate, spec.frame_rate)
    if spec.modality != "image" or spec.tail_drop:
        raise InputError(f"recipe: {spec.name} takes no teachers: they are for audio and for images of all tokens")
    if recipe.batch_size < 2:
        raise InputError("recipe: teachers of images need a batch_size of at least 2, to tell them apart")
    size = (recipe.data.crop,) * 2 if spec.variable_size else spec.resolution
    return RepresentationLoss(options.teacher, dim, math.prod(spec.grid(size)))


def lookup(name: str, teachers: dict):
    """The teacher of this name; InputError that lists those there are."""
    if name not in teachers:
        raise InputError(f"recipe: unknown teacher {name!r}; zoo has {', '.join(teachers)}")
    return teachers[name]
