"""Reading and writing images, sound, video and protein structures.

These are functions of `zoo.modalities`, which also has one object for each of the four modalities.
"""

from zoo.modalities import MediaBytes, every, media_files, modality_of
from zoo.modalities.audio import load_audio, read_audio, resample, stream_audio, to_channels, write_audio
from zoo.modalities.image import center_crop, load_image, read_image, resize_short_side, to_image_tensor, write_image
from zoo.modalities.structure import Structure, read_structure, write_structure
from zoo.modalities.video import load_video, read_video, write_video

SUFFIXES = {modality.name: modality.suffixes for modality in every()}

__all__ = [
    "SUFFIXES",
    "MediaBytes",
    "Structure",
    "center_crop",
    "load_audio",
    "load_image",
    "load_video",
    "media_files",
    "modality_of",
    "read_audio",
    "read_image",
    "read_structure",
    "read_video",
    "resample",
    "resize_short_side",
    "stream_audio",
    "to_channels",
    "to_image_tensor",
    "write_audio",
    "write_image",
    "write_structure",
    "write_video",
]
