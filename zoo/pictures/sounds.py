"""Sound inside a page."""

from __future__ import annotations

import io

from torch import Tensor

from zoo.pictures.markup import Markup, data_uri, element

FLAC_BYTES = 400_000  # longer sound becomes an MP3


def player(sound: Tensor, sample_rate: int, title: str) -> Markup:
    """Write a player of float `[channels, samples]` that is held by the page itself.

    Args:
        sound: written as FLAC (16 bits), or as MP3 where that takes more than `FLAC_BYTES`.
        sample_rate: sample rate in Hz.
        title: what is played, for readers who cannot see where the player stands.
    """
    content, media_type = compressed_sound(sound, sample_rate)
    return element(
        "audio", controls=True, preload="metadata", src=data_uri(content, media_type), aria_label=f"Play {title}"
    )


def compressed_sound(sound: Tensor, sample_rate: int) -> tuple[bytes, str]:
    """Encode float `[channels, samples]` as FLAC (16 bits), or as MP3 where that is too large.

    Returns:
        The file's content and its media type.
    """
    import soundfile

    samples = sound.clamp(-1, 1).T.numpy()
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate, "PCM_16", format="FLAC", compression_level=1.0)
    if len(encoded.getvalue()) <= FLAC_BYTES or sample_rate > 48000 or sound.shape[0] > 2:
        return encoded.getvalue(), "audio/flac"
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, sample_rate, "MPEG_LAYER_III", format="MP3", compression_level=0.0)
    return encoded.getvalue(), "audio/mpeg"
