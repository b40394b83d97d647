"""Indirect distillation: a frozen network must hear in what one codebook decodes to what it hears in the original."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torchaudio
from torch import Tensor, nn
from torch.nn import functional

from zoo.checkpoints import KeyMap
from zoo.errors import InputError
from zoo.layers.whisper import HOP_LENGTH, SAMPLE_RATE, LogMel, Stem, Transformer, layer_rules
from zoo.tokenizer import Tokenizer
from zoo.trainers.frozen import Frozen, from_hub

WHISPER_TEACHERS = {
    f"whisper-{size}": f"openai/whisper-{size}" for size in ("tiny", "base", "small", "medium", "large-v3")
}  # repositories on the Hub


class WhisperEncoder(nn.Module):
    """Whisper's encoder without its padding to 30 seconds: `[B, samples]` to `[B, samples / 320, width]`."""

    def __init__(self, bands: int, width: int, num_heads: int, hidden_dim: int, num_layers: int):
        super().__init__()
        self.log_mel = LogMel(bands)
        self.stem = Stem(bands, width)
        self.transformer = Transformer(width, num_heads, hidden_dim, num_layers)

    def forward(self, audio: Tensor) -> Tensor:
        return self.transformer(self.stem(self.log_mel(functional.pad(audio, (0, -audio.shape[-1] % HOP_LENGTH)))))


WHISPER = KeyMap(
    ("conv1.", "stem.conv1."),
    ("conv2.", "stem.conv2."),
    *layer_rules("layers", "transformer.layers"),
    ("layer_norm.", "transformer.norm."),
    ignore=("embed_positions.weight",),  # sines, which are computed
)


class WhisperTeacher(nn.Module):
    """Features of what is said, by Whisper's encoder (arXiv 2212.04356), with a gradient to the audio.

    Takes `[B, 1, samples]` at 16 kHz, returns `[B, ceil(samples / 320), width]`. The log-mel front passes no gradient
    where a band is weaker than the loudest one by more than 80 dB.

    Args:
        name: a key of `WHISPER_TEACHERS`.

    Raises:
        InputError: an unknown name, or weights that `transformers` cannot load.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, name: str):
        super().__init__()
        if name not in WHISPER_TEACHERS:
            raise InputError(f"recipe: unknown teacher {name!r}; expected one of {', '.join(WHISPER_TEACHERS)}")
        repository = WHISPER_TEACHERS[name]

        def load() -> Any:
            from transformers import WhisperModel

            return WhisperModel.from_pretrained(repository).get_encoder()

        published = from_hub(name, repository, load)
        config = published.config
        network = WhisperEncoder(
            config.num_mel_bins,
            config.d_model,
            config.encoder_attention_heads,
            config.encoder_ffn_dim,
            config.encoder_layers,
        )
        network.load_state_dict(WHISPER.convert(published.state_dict(), network.state_dict(), repository))
        self.frozen = Frozen(network)

    def forward(self, audio: Tensor) -> Tensor:
        return self.frozen(audio[:, 0].float())


class OwnTeacher(nn.Module):
    """A frozen network of one's own, in the place of Whisper's encoder.

    Args:
        name: `package.module:NAME`, a function or class that gives the network when it is called without arguments: a
            module that takes audio `[B, samples]` at 16 kHz, or at its attribute `sample_rate` in Hz, and returns
            features `[B, frames, width]`, with a gradient to the audio.

    Raises:
        InputError: nothing of this name can be imported, or what it gives is no `torch.nn.Module`.
    """

    def __init__(self, name: str):
        super().__init__()
        module, _, attribute = name.partition(":")
        try:
            network = getattr(import_module(module), attribute)()
        except Exception as error:  # of whatever the module does when it is imported
            raise InputError(f"recipe: the teacher {name} cannot be had: {type(error).__name__}: {error}") from error
        if not isinstance(network, nn.Module):
            raise InputError(f"recipe: expected the teacher {name} as a torch.nn.Module, got {type(network).__name__}")
        self.sample_rate = int(getattr(network, "sample_rate", SAMPLE_RATE))
        self.frozen = Frozen(network)

    def forward(self, audio: Tensor) -> Tensor:
        return self.frozen(audio[:, 0].float())


def is_indirect(teacher: str) -> bool:
    """Whether a teacher of this name hears audio, rather than being resembled frame by frame."""
    return teacher in WHISPER_TEACHERS or ":" in teacher


class IndirectDistillation(nn.Module):
    """1 - the mean cosine between a teacher's features of the original and of what one codebook decodes to.

    The idea of LM-SPT (arXiv 2506.16738): since the teacher hears audio both times, its frames and those of the codes
    need not be aligned. The distance is our reading of the paper's abstract. `forward(quantized, audio)` takes the
    codebook's vectors `[B, dim, frames]` and audio `[B, 1, samples]`; the gradient goes through the teacher and the
    tokenizer's decoder to the vectors. Audio of another rate than the teacher's is resampled for it.

    Args:
        teacher: a key of `WHISPER_TEACHERS`, or a network of one's own, as `OwnTeacher` takes it. tokenizer: of audio;
            its decoder is used, and belongs to it.
    """

    def __init__(self, teacher: str, tokenizer: Tokenizer):
        super().__init__()
        self.teacher = OwnTeacher(teacher) if ":" in teacher else WhisperTeacher(teacher)
        self._tokenizer = (tokenizer,)  # in a tuple, which leaves its parameters to the tokenizer

    def forward(self, quantized: Tensor, audio: Tensor) -> Tensor:
        (tokenizer,) = self._tokenizer
        resynthesis = tokenizer.from_latent(quantized)[..., : audio.shape[-1]]
        rate, wanted = tokenizer.spec.sample_rate or SAMPLE_RATE, self.teacher.sample_rate
        heard, expected = (
            self.teacher(torchaudio.functional.resample(sound, rate, wanted)) for sound in (resynthesis.float(), audio)
        )
        return 1 - functional.cosine_similarity(heard, expected, dim=-1).mean()
