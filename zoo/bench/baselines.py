"""The codecs that people would use instead, through well-kept libraries, each at a few settings on one thread.

Bytes are the codec's own: without a container around them and without headers that a longer signal would spread thin,
so that they compare with codes, which have neither. Each codec's `note` says what is counted.
"""

from __future__ import annotations

import io
import math
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import PIL
import soundfile
import torch
from PIL import Image, features
from torch import Tensor

import zoo
from zoo import media
from zoo.bench.candidates import Candidate
from zoo.bench.signals import Preprocessing, from_pixels, to_pixels
from zoo.modalities.structure import ATOMS

PICTURE_QUALITIES = {
    "JPEG": (1, 5, 10, 20, 40, 75),
    "JPEG 4:4:4": (5, 20, 75),
    "WebP": (0, 5, 20, 50, 80),
    "AVIF": (1, 20, 40, 60, 75),
    "JPEG XL": (5, 20, 40, 60, 80),
}
OPUS_BITRATES = (6, 10, 16, 24, 32)  # kbit/s a channel
MP3_BITRATES = (8, 16, 32, 64)
VORBIS_QUALITIES = (0, 2, 5)  # of 10
CONSTANT_RATE_FACTORS = {"H.264": (18, 26, 34, 42, 50), "H.265": (18, 26, 34, 42, 50), "AV1": (20, 32, 44, 54, 63)}
GRID_STEPS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)  # angstrom

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# libopus does not count the delay of its resampler in the narrow band, which it takes below about 9 kbit/s: measured,
# 5 to 6 samples at 48 kHz (tests/test_bench.py).
OPUS_NARROW_BAND, OPUS_NARROW_BAND_DELAY = 9, 5


class Codec(Candidate):
    """A classical codec at one setting. `version`: of the libraries that decide its output."""

    baseline = True

    def __init__(self, family: str, setting: dict[str, Any], version: str, note: str):
        super().__init__(family, setting)
        self.version, self.note = version, note

    def identity(self) -> str:
        return f"{self.label}; {self.note}; {self.version}; zoo {zoo.__version__}"

    @abstractmethod
    def compress(self, signal: Tensor) -> tuple[float, Any]: ...


def baselines(preprocessing: Preprocessing) -> tuple[list[Codec], dict[str, str]]:
    """All codecs of a modality at all their settings, and those that are not to be had here, with the reason."""
    ways = {"image": pictures, "audio": sounds, "video": videos, "structure": structures}
    found: list[Codec] = []
    left_out: dict[str, str] = {}
    for family, codecs in ways[preprocessing.modality](preprocessing):
        if isinstance(codecs, str):
            left_out[family] = codecs
        else:
            found += codecs
    return found, left_out


Found = Iterator[tuple[str, Sequence[Codec] | str]]  # codecs of a family, or why there are none


# Images


class Picture(Codec):
    """A still image through Pillow."""

    def __init__(
        self,
        family: str,
        quality: int,
        note: str,
        version: str,
        *,
        format: str,
        options: dict[str, Any],
        payload_bytes: Callable[[bytes], int] = len,
    ):
        super().__init__(family, {"quality": quality}, version, note)
        self.format, self.options, self.payload_bytes = format, {"quality": quality, **options}, payload_bytes

    def compress(self, signal: Tensor) -> tuple[int, bytes]:
        stream = io.BytesIO()
        Image.fromarray(to_pixels(signal[0])).save(stream, self.format, **self.options)
        return self.payload_bytes(stream.getvalue()), stream.getvalue()

    def restore(self, payload: bytes, size: tuple[int, ...]) -> Tensor:
        with Image.open(io.BytesIO(payload)) as image:
            return from_pixels(np.asarray(image.convert("RGB")))[None]


def pictures(preprocessing: Preprocessing) -> Found:
    Image.init()
    jpeg = {"optimize": True}
    whole = "whole file, with its tables; Huffman codes optimised"
    kinds = {
        "JPEG": ("JPEG", "jpg", {**jpeg, "subsampling": "4:2:0"}, f"{whole}; colour 4:2:0", len),
        "JPEG 4:4:4": ("JPEG", "jpg", {**jpeg, "subsampling": "4:4:4"}, f"{whole}; colour 4:4:4", len),
        "WebP": ("WEBP", "webp", {"method": 4}, "without the RIFF container; method 4; colour 4:2:0", webp_payload),
        "AVIF": (
            "AVIF",
            "avif",
            {"speed": 6, "subsampling": "4:2:0", "max_threads": 1},
            "without the HEIF container; speed 6; colour 4:2:0",
            avif_payload,
        ),
        "JPEG XL": ("JXL", None, {}, "whole file", len),
    }
    for family, (format, feature, options, note, payload_bytes) in kinds.items():
        if format not in Image.SAVE:
            yield family, f"Pillow {PIL.__version__} as installed does not write it"
            continue
        version = f"Pillow {PIL.__version__}" + (f", {feature} {features.version(feature)}" if feature else "")
        yield (
            family,
            [
                Picture(family, quality, note, version, format=format, options=options, payload_bytes=payload_bytes)
                for quality in PICTURE_QUALITIES[family]
            ],
        )


def webp_payload(file: bytes) -> int:
    """Bytes behind the header of RIFF, of the form and of the one chunk."""
    return len(file) - 20


def avif_payload(file: bytes) -> int:
    """Bytes in the boxes `mdat` of a HEIF file."""
    position = total = 0
    while position + 8 <= len(file):
        length, kind = int.from_bytes(file[position : position + 4], "big"), file[position + 4 : position + 8]
        length = length or len(file) - position  # 0: up to the end
        if kind == b"mdat":
            total += length - 8
        position += max(length, 8)
    return total


# Audio


class Sound(Codec):
    """A sound codec, which codes at a rate that it takes and whose decoder is told by a container where it begins.

    Args:
        rates: in Hz, that it takes; of others audio is resampled to 48 kHz and back.
        delay: samples of what is decoded that the container does not count.
    """

    def __init__(
        self,
        family: str,
        setting: dict[str, Any],
        version: str,
        note: str,
        preprocessing: Preprocessing,
        rates: Sequence[int] | None,
        delay: int = 0,
    ):
        super().__init__(family, setting, version, note)
        self.rate, self.delay = preprocessing.sample_rate, delay
        self.coded_rate = self.rate if rates is None or self.rate in rates else 48000

    @abstractmethod
    def encode(self, samples: np.ndarray) -> bytes:
        """float32 `[channels, samples]` at `coded_rate` to a file."""

    def compress(self, signal: Tensor) -> tuple[int, bytes]:
        file = self.encode(media.resample(signal[0], self.rate, self.coded_rate).clamp(-1, 1).numpy())
        with av.open(io.BytesIO(file)) as container:
            return sum(packet.size for packet in container.demux(audio=0)), file

    def restore(self, payload: bytes, size: tuple[int, ...]) -> Tensor:
        parts = []
        to_float = av.AudioResampler(format="fltp")
        with av.open(io.BytesIO(payload)) as container:
            for frame in container.decode(audio=0):
                decoded_rate = frame.sample_rate
                parts += [torch.from_numpy(part.to_ndarray()) for part in to_float.resample(frame)]
        audio = media.resample(torch.cat(parts, dim=1)[:, self.delay :], decoded_rate, self.rate)
        audio = torch.nn.functional.pad(audio, (0, max(0, size[0] - audio.shape[1])))
        return audio[None, :, : size[0]]


class FFmpegSound(Sound):
    """Opus or MP3 through PyAV."""

    def __init__(self, *arguments: Any, encoder: str, container: str, bit_rate: int, **options: Any):
        super().__init__(*arguments, **options)
        self.encoder, self.container, self.bit_rate = encoder, container, bit_rate

    def encode(self, samples: np.ndarray) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=self.container) as container:
            layout = {1: "mono", 2: "stereo"}[len(samples)]
            stream = container.add_stream(self.encoder, rate=self.coded_rate, layout=layout)
            stream.bit_rate = self.bit_rate
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
            frame.sample_rate = self.coded_rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return file.getvalue()


class Vorbis(Sound):
    """Vorbis through libsndfile, whose `compression_level` is one minus a tenth of libvorbis's quality."""

    def encode(self, samples: np.ndarray) -> bytes:
        file = io.BytesIO()
        level = 1 - self.setting["quality"] / 10
        soundfile.write(file, samples.T, self.coded_rate, format="OGG", subtype="VORBIS", compression_level=level)
        return file.getvalue()


def sounds(preprocessing: Preprocessing) -> Found:
    channels, rate = preprocessing.channels, preprocessing.sample_rate
    ffmpeg = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"
    if channels > 2:
        for family in ("Opus", "MP3", "Vorbis"):
            yield family, f"used here for one or two channels, not for {channels}"
        return
    if not can_encode("libopus"):
        yield "Opus", f"{ffmpeg} has no libopus"
    else:
        note = "packets without Ogg; variable bit rate; the delay that the container states is taken out"
        yield (
            "Opus",
            [
                FFmpegSound(
                    "Opus",
                    {"kbit/s": channels * kilobits},
                    ffmpeg,
                    note,
                    preprocessing,
                    OPUS_RATES,
                    delay=OPUS_NARROW_BAND_DELAY if kilobits < OPUS_NARROW_BAND else 0,
                    encoder="libopus",
                    container="ogg",
                    bit_rate=1000 * channels * kilobits,
                )
                for kilobits in OPUS_BITRATES
            ],
        )
    if not can_encode("libmp3lame"):
        yield "MP3", f"{ffmpeg} has no LAME"
    else:
        lowest = 8 if rate in MP3_RATES and rate <= 24000 else 32  # of MPEG 2 and MPEG 1
        bitrates = [channels * kilobits for kilobits in MP3_BITRATES if channels * kilobits >= lowest]
        note = "frames without the one that holds a header; constant bit rate; the delay that it states is taken out"
        yield (
            "MP3",
            [
                FFmpegSound(
                    "MP3",
                    {"kbit/s": kilobits},
                    ffmpeg,
                    note,
                    preprocessing,
                    MP3_RATES,
                    encoder="libmp3lame",
                    container="mp3",
                    bit_rate=1000 * kilobits,
                )
                for kilobits in bitrates
            ],
        )
    sndfile = f"soundfile {soundfile.__version__}, libsndfile {soundfile.__libsndfile_version__}"
    if "VORBIS" not in soundfile.available_subtypes("OGG"):
        yield "Vorbis", f"{sndfile} does not write it"
    else:
        note = "packets without Ogg and without the about 4 kB of codebooks at the start of every stream"
        yield (
            "Vorbis",
            [
                Vorbis("Vorbis", {"quality": quality}, f"{sndfile}; {ffmpeg}", note, preprocessing, None)
                for quality in VORBIS_QUALITIES
            ],
        )


def can_encode(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


# Video


class Video(Codec):
    """A video codec through PyAV, at a nominal 25 frames a second; sides are padded to even ones by replication."""

    def __init__(
        self,
        family: str,
        factor: int,
        note: str,
        *,
        encoder: str,
        decoder: str,
        options: dict[str, str],
        slim: Callable[[bytes], bytes] = bytes,
    ):
        super().__init__(family, {"CRF": factor}, f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}", note)
        self.encoder, self.decoder, self.slim = encoder, decoder, slim
        self.options = {"crf": str(factor), **options}

    def compress(self, signal: Tensor) -> tuple[int, list[bytes]]:
        height, width = signal.shape[3:]
        padded = torch.nn.functional.pad(signal[0], (0, width % 2, 0, height % 2), mode="replicate")
        context = av.CodecContext.create(self.encoder, "w")
        context.height, context.width = padded.shape[2:]
        context.pix_fmt, context.framerate, context.time_base = "yuv420p", Fraction(25), Fraction(1, 25)
        context.options, context.thread_count = self.options, 1
        packets = []
        for number, picture in enumerate(padded.unbind(1)):
            frame = av.VideoFrame.from_ndarray(to_pixels(picture), "rgb24")
            frame.pts = number
            packets += context.encode(frame)
        packets += context.encode(None)
        payload = [self.slim(bytes(packet)) for packet in packets]
        return sum(map(len, payload)), payload

    def restore(self, payload: list[bytes], size: tuple[int, ...]) -> Tensor:
        context = av.CodecContext.create(self.decoder, "r")
        context.thread_count = 1
        frames = [frame for data in payload for frame in context.decode(av.Packet(data))]
        frames += context.decode(None)
        _, height, width = size
        pictures = [from_pixels(frame.to_ndarray(format="rgb24"))[:, :height, :width] for frame in frames]
        return torch.stack(pictures, dim=1)[None]


def videos(preprocessing: Preprocessing) -> Found:
    os.environ.setdefault("SVT_LOG", "1")  # errors; it writes its settings to stderr otherwise
    note = "packets without container; colour 4:2:0"
    kinds = {
        "H.264": (
            f"{note}; x264's preset medium, without its note of its settings",
            {"encoder": "libx264", "decoder": "h264", "options": {"preset": "medium"}, "slim": without_messages},
        ),
        "H.265": (
            f"{note}; x265's preset medium",
            {
                "encoder": "libx265",
                "decoder": "hevc",
                "options": {"preset": "medium", "x265-params": "log-level=error:info=0:pools=none:frame-threads=1"},
            },
        ),
        "AV1": (
            f"{note}; SVT-AV1's preset 6",
            {
                "encoder": "libsvtav1",
                "decoder": "libdav1d",
                "options": {"preset": "6", "svtav1-params": "lp=1"},
            },
        ),
    }
    for family, (note, options) in kinds.items():
        if not can_encode(options["encoder"]):
            yield family, f"PyAV {av.__version__} has no {options['encoder']}"
        else:
            yield family, [Video(family, factor, note, **options) for factor in CONSTANT_RATE_FACTORS[family]]


def without_messages(packet: bytes) -> bytes:
    """An H.264 packet without its supplemental units (type 6), which decoding does not need."""
    units = re.split(b"\0?\0\0\1", packet)[1:]
    return b"".join(b"\0\0\1" + unit for unit in units if unit[0] & 31 != 6)


# Structures


class Grid(Codec):
    """Coordinates of N, CA and C rounded to a grid; CB and O are not kept."""

    def __init__(self, step: float):
        note = (
            "N, CA and C alone; each axis with as many bits as its extent takes in steps, and a value for absent "
            "atoms; no entropy coding, no header"
        )
        super().__init__("Rounded coordinates", {"step": step}, "zoo", note)
        self.step = step

    def compress(self, signal: Tensor) -> tuple[int, tuple[Tensor, Tensor]]:
        atoms = signal[0, :, : ATOMS.index("C") + 1].double()  # [residues, 3 atoms, 3]
        points = atoms.flatten(0, 1)
        least = torch.where(points.isnan(), torch.inf, points).amin(dim=0)
        steps = ((points - least) / self.step).round()
        values = torch.where(steps.isnan(), -torch.inf, steps).amax(dim=0) + 2  # 0 to the greatest, and absent
        bits = sum(math.ceil(math.log2(number)) for number in values.tolist())
        return -(-len(points) * bits // 8), (least, steps)

    def restore(self, payload: tuple[Tensor, Tensor], size: tuple[int, ...]) -> Tensor:
        least, steps = payload
        values = torch.full((1, *size, len(ATOMS), 3), torch.nan)
        values[0, :, : ATOMS.index("C") + 1] = (steps * self.step + least).float().unflatten(0, (*size, -1))
        return values


def structures(preprocessing: Preprocessing) -> Found:
    yield "Rounded coordinates", [Grid(step) for step in GRID_STEPS]
