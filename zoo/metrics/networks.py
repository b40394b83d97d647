"""Networks that metrics compute features with, and the weights that the field uses for them.

Their files are looked for in torch hub's folder of checkpoints, where torchvision and torch-fidelity keep what they
download. Nothing is downloaded here, and no network is ever used with other weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.errors import WeightsUnavailableError


class NetworkFiles(ABC):
    """What a network needs on this machine."""

    @abstractmethod
    def path(self) -> Path | None:
        """Return where it is; None: it is not there."""

    @abstractmethod
    def missing(self) -> str | None:
        """Return what is missing on this machine and how to get it; None: nothing."""

    def require(self) -> Path:
        """Return where it is; WeightsUnavailableError if a file or a package is missing."""
        reason, path = self.missing(), self.path()
        if reason is not None or path is None:
            raise WeightsUnavailableError(f"this metric {reason}")
        return path


@dataclass(frozen=True, kw_only=True)
class Weights(NetworkFiles):
    """The published file of a network.

    network: its name. names: file names that the same file goes by, the preferred one first. url: its address.
    package: the package that must be installed for the network itself.
    """

    network: str
    names: tuple[str, ...]
    url: str
    package: str | None = None

    def path(self) -> Path | None:
        """Return the file in torch hub's folder of checkpoints; None: it is not there."""
        paths = (checkpoints() / name for name in self.names)
        return next((path for path in paths if path.is_file()), None)

    def missing(self) -> str | None:
        if self.package is not None and find_spec(self.package.replace("-", "_")) is None:
            return f'needs the package {self.package}: pip install "tokenizer-zoo[metrics]"'
        if self.path() is None:
            return (
                f"needs the weights of {self.network}: {' or '.join(self.names)} is not in {checkpoints()}; "
                f"put it there, from {self.url}"
            )
        return None


@dataclass(frozen=True, kw_only=True)
class HubWeights(NetworkFiles):
    """The published files of a network that transformers has.

    network: its name. repository: on the Hugging Face Hub. files: what is needed of it.
    """

    network: str
    repository: str
    files: tuple[str, ...]

    def path(self) -> Path | None:
        """Return the folder of the files in the Hub's cache; None: one of them is not there."""
        from huggingface_hub import try_to_load_from_cache

        found = [try_to_load_from_cache(self.repository, file) for file in self.files]
        return Path(found[0]).parent if all(isinstance(path, str) for path in found) else None  # type: ignore[arg-type]

    def missing(self) -> str | None:
        if find_spec("transformers") is None:
            return 'needs the package transformers: pip install "tokenizer-zoo[transformers]"'
        if self.path() is None:
            return (
                f"needs the weights of {self.network}: {', '.join(self.files)} of {self.repository} are not in the "
                f"Hub's cache; hf download {self.repository} fetches them"
            )
        return None


VGG16 = Weights(
    network="VGG16 (torchvision, ImageNet)",
    names=("vgg16-397923af.pth",),
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
)
ALEXNET = Weights(
    network="AlexNet (torchvision, ImageNet)",
    names=("alexnet-owt-7be5be79.pth",),
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
)
SQUEEZENET = Weights(
    network="SqueezeNet 1.1 (torchvision, ImageNet)",
    names=("squeezenet1_1-b8a52dc0.pth",),
    url="https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
)
Backbone = Literal["vgg", "alex", "squeeze"]
LPIPS_BACKBONES: dict[Backbone, Weights] = {"vgg": VGG16, "alex": ALEXNET, "squeeze": SQUEEZENET}
BACKBONE_NAMES: dict[Backbone, str] = {"vgg": "VGG16", "alex": "AlexNet", "squeeze": "SqueezeNet"}
INCEPTION = Weights(
    network="InceptionV3 (2015-12-05, TensorFlow's)",
    names=("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    url=("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"),
    package="torch-fidelity",
)
I3D = Weights(
    network="I3D (Kinetics-400, TensorFlow Hub's, as TorchScript)",
    names=("i3d_torchscript.pt",),
    url="https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
)
INCEPTION_FEATURES = 2048
INCEPTION_CLASSES = 1008
I3D_FEATURES = 400


def checkpoints() -> Path:
    """Return torch hub's folder of checkpoints (`TORCH_HOME`, `torch.hub.set_dir`)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def lpips_label(backbone: Backbone) -> str:
    """Return how LPIPS through a backbone is called."""
    return f"LPIPS ({BACKBONE_NAMES[backbone]})"


@torch.no_grad()
def perceptual_distance(first: Tensor, second: Tensor, *, backbone: Backbone, from_minus_one: bool) -> Tensor:
    """Return LPIPS, `[B]`, of two float32 `[B, 3, H, W]` in [0, 1], scaled to [-1, 1] if `from_minus_one`.

    Raises:
        WeightsUnavailableError: the weights are not there.
    """
    network = _lpips(backbone, LPIPS_BACKBONES[backbone].require()).to(first.device)
    return network(first, second, normalize=from_minus_one).flatten()


@torch.no_grad()
def inception(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs of the Inception network of FID and Inception score, by torch-fidelity.

    Args:
        images: floating `[B, 3, H, W]` in [0, 1]; rounded to 8 bits, and resized to 299 by 299 as TensorFlow 1 did:
            bilinear, without antialiasing, corners not aligned.

    Returns:
        float32 `[B, 2048]`, the features of the last pooling, and `[B, 1008]`, the logits without bias.

    Raises:
        WeightsUnavailableError: torch-fidelity or the weights are not there.
    """
    network = _inception(INCEPTION.require()).to(images.device)
    features, logits = network(to_bytes(images))
    return features, logits


def inception_features(images: Tensor) -> Tensor:
    """Return the features of `inception`, `[B, 2048]`."""
    return inception(images)[0]


def inception_logits(images: Tensor) -> Tensor:
    """Return the logits of `inception`, `[B, 1008]`."""
    return inception(images)[1]


@torch.no_grad()
def i3d_features(clips: Tensor) -> Tensor:
    """Return the features of FVD: the logits of the 400 classes of its I3D network.

    Args:
        clips: floating `[B, 3, T, H, W]` in [0, 1]; rounded to 8 bits. The network itself scales them to [-1, 1] and
            resizes every frame to 224 by 224, bilinear.

    Returns:
        float32 `[B, 400]`.

    Raises:
        WeightsUnavailableError: the file is not there.
    """
    network = _i3d(I3D.require()).to(clips.device)
    return network(to_bytes(clips).float(), rescale=True, resize=True, return_features=True)


def to_bytes(signal: Tensor) -> Tensor:
    """Return a floating signal in [0, 1] as the nearest uint8 in 0 to 255."""
    return (signal.float() * 255).round().clamp(0, 255).to(torch.uint8)


@cache
def _lpips(backbone: Backbone, path: Path) -> nn.Module:
    """Return LPIPS with the backbone at `path`, where torchvision finds it, and the heads of torchmetrics."""
    from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type=backbone).net


@cache
def _inception(path: Path) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity would run code that is in the file
    return FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )


@cache
def _i3d(path: Path) -> nn.Module:
    return torch.jit.load(path, map_location="cpu").eval()
