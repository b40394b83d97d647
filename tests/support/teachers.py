"""Small stand-ins for published teachers, which give features of as many frames and channels."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo.trainers.frozen import Frozen
from zoo.trainers.losses import indirect, teachers


class TinyImageTeacher(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        teacher = teachers.lookup(name, teachers.IMAGE_TEACHERS)
        self.width = teacher.width if teacher.projected else 16
        weights = torch.randn(48, self.width, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weights", weights, persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return (functional.adaptive_avg_pool2d(images, 4).flatten(1) - 0.5) @ self.weights

    @torch.no_grad()
    def patches(self, images: Tensor) -> Tensor:
        """Features of 14x14 patches, as wide as CLIP's joint space."""
        cells = functional.adaptive_avg_pool2d(images, 14).flatten(2).mT - 0.5
        return cells @ torch.randn(3, 512, generator=torch.Generator().manual_seed(0))


class TinySpeechTeacher(nn.Module):
    def __init__(self, name: str):
        super().__init__()
        teachers.lookup(name, teachers.SPEECH_TEACHERS | teachers.TEXT_TEACHERS)
        weights = torch.randn(320, teachers.SPEECH_WIDTH, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weights", weights, persistent=False)

    @torch.no_grad()
    def forward(self, audio: Tensor) -> Tensor:
        return audio[:, 0].unfold(-1, 320, 320) @ self.weights


class TinyWhisperTeacher(nn.Module):
    sample_rate = 16000

    def __init__(self, name: str):
        super().__init__()
        assert name in indirect.WHISPER_TEACHERS
        self.frozen = Frozen(indirect.WhisperEncoder(80, 16, 2, 16, 1))

    def forward(self, audio: Tensor) -> Tensor:
        return self.frozen(audio[:, 0])


def install(setattr: Callable[[object, str, object], None] = setattr) -> None:
    setattr(teachers, "ImageTeacher", TinyImageTeacher)
    setattr(teachers, "SpeechTeacher", TinySpeechTeacher)
    setattr(teachers, "TextTeacher", TinySpeechTeacher)
    setattr(indirect, "WhisperTeacher", TinyWhisperTeacher)
