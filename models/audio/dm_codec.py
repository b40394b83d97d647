"""DM-Codec: SpeechTokenizer's network, trained to resemble a language model as well.

Paper: DM-Codec: Distilling Multimodal Representations for Speech Tokenization (arXiv 2410.15017).
Reference: mubtasimahasan/DM-Codec at 25c742a.
The codes of the first codebook were made to resemble BERT's features of the transcript, and in the variant of two
teachers HuBERT's of the speech. The authors' weights are on Google Drive alone.
"""

from __future__ import annotations

from zoo.checkpoints import KeyMap
from zoo.models.audio.speechtokenizer import CHECKPOINT, IGNORED, RULES, SpeechTokenizer
from zoo.registry import FileSource, register, replace
from zoo.spec import TokenizerSpec


class DMCodec(SpeechTokenizer):
    """Speech tokenizer with the network, the arguments and the options of `SpeechTokenizer`, and weights of its own."""


# The authors do not say whether a file is the best model, a bare state dict, or a checkpoint to go on from.
CHECKPOINT_TO_GO_ON_FROM = KeyMap(*RULES, layout=("generator",), ignore=IGNORED)


def published(file_id: str) -> tuple[FileSource, FileSource]:
    """Return the sources of a file on Google Drive, in either layout."""
    where = f"https://drive.google.com/file/d/{file_id}"
    return FileSource(where, CHECKPOINT), FileSource(keys=CHECKPOINT_TO_GO_ON_FROM)


LM_SM = register(
    "dm-codec",
    DMCodec,
    spec=TokenizerSpec(
        modality="audio",
        quantizer="residual-vq",
        codebook_sizes=(1024,) * 8,
        residual=True,
        downsample=(320,),
        channels=1,
        sample_rate=16000,
        code_license="Apache-2.0",
        weights_license="not stated",
        paper="https://arxiv.org/abs/2410.15017",
        source="https://github.com/mubtasimahasan/DM-Codec",
    ),
    hub=published("1pvrPcbUTUAlo2_iGLIIf7IFNJPfzmHbh"),
    card="dm-codec",
)
register(replace(LM_SM, "dm-codec-lm", hub=published("14DMrDzIssP-8qzXBG8v65ctF4WPA_Uyv")))
