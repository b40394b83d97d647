"""The classical codecs that people would use instead, through well-kept libraries, at a few settings, on one thread.

Bytes are the codec's own, so that they can be compared with those of codes: without a container, and without headers
that cost little in a longer signal. Each codec's `note` says what is counted.
"""

from __future__ import annotations

import io
import math
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import av
import numpy as np
import PIL
import soundfile
import torch
from av.audio.stream import AudioStream
from av.video.codeccontext import VideoCodecContext
from PIL import Image, features
from torch import Tensor

import zoo
from zoo import media
from zoo.bench.candidates import Candidate
from zoo.bench.signals import Preprocessing
from zoo.modalities.structure import ATOMS
from zoo.pictures.images import to_pixels

IMAGE_QUALITIES = {
    "JPEG": (1, 5, 10, 20, 40, 75),
    "JPEG 4:4:4": (5, 20, 75),
    "WebP": (0, 5, 20, 50, 80),
    "AVIF": (1, 20, 40, 60, 75),
    "JPEG XL": (5, 20, 40, 60, 80),
}
OPUS_BITRATES = (6, 10, 16, 24, 32)  # kbit/s per channel
MP3_BITRATES = (8, 16, 32, 64)
VORBIS_QUALITIES = (0, 2, 5)  # of 10
CONSTANT_RATE_FACTORS = {"H.264": (18, 26, 34, 42, 50), "H.265": (18, 26, 34, 42, 50), "AV1": (20, 32, 44, 54, 63)}
GRID_STEPS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)  # angstrom

OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# Below about 9 kbit/s libopus codes the narrow band and does not count the delay of its resampler: 5 to 6 samples at
# 48 kHz, as measured (tests/bench/test_baselines.py).
OPUS_NARROW_BAND, OPUS_NARROW_BAND_DELAY = 9, 5


class Codec(Candidate):
    """A classical codec at one setting.

    Args:
        method: name of the codec.
        setting: as `Candidate.setting`.
        version: versions of the libraries that decide its output.
        note: what is counted as its bytes.
    """

    baseline = True

    def __init__(self, method: str, setting: dict[str, Any], version: str, note: str):
        super().__init__(method, setting)
        self.version, self.note = version, note

    def identity(self) -> str:
        return f"{self.label}; {self.note}; {self.version}; zoo {zoo.__version__}"

    @abstractmethod
    def compress(self, signal: Tensor) -> tuple[float, Any]: ...


Found = Iterator[tuple[str, Sequence[Codec] | str]]  # name of a codec, and all its settings or why there are none


def classical_codecs(preprocessing: Preprocessing) -> tuple[list[Codec], dict[str, str]]:
    """Return all codecs of a modality at all their settings, and those that are not available, with the reason."""
    found: list[Codec] = []
    left_out: dict[str, str] = {}
    for method, codecs in CODECS[preprocessing.modality](preprocessing):
        if isinstance(codecs, str):
            left_out[method] = codecs
        else:
            found += codecs
    return found, left_out


# Images


class ImageCodec(Codec):
    """A codec for still images, through Pillow.

    Args:
        method, quality, note, version: as in `Codec`; `quality` is its setting.
        format: Pillow's name of the file format.
        options: options for Pillow besides the quality.
        payload_bytes: counts the bytes of a file without its container.
    """

    modality = "image"

    def __init__(
        self,
        method: str,
        quality: int,
        note: str,
        version: str,
        *,
        format: str,
        options: Mapping[str, Any],
        payload_bytes: Callable[[bytes], int] = len,
    ):
        super().__init__(method, {"quality": quality}, version, note)
        self.format, self.options, self.payload_bytes = format, {"quality": quality, **options}, payload_bytes

    def compress(self, signal: Tensor) -> tuple[int, bytes]:
        stream = io.BytesIO()
        Image.fromarray(to_pixels(signal[0])).save(stream, self.format, **self.options)
        return self.payload_bytes(stream.getvalue()), stream.getvalue()

    def restore(self, payload: bytes, like: Tensor) -> Tensor:
        with Image.open(io.BytesIO(payload)) as image:
            return media.to_image_tensor(image.convert("RGB"))[None]


def image_codecs(preprocessing: Preprocessing) -> Found:
    Image.init()
    whole = "whole file, with its tables; Huffman codes optimised"
    kinds: dict[str, tuple[str, str | None, dict[str, Any], str, Callable[[bytes], int]]] = {
        "JPEG": ("JPEG", "jpg", {"optimize": True, "subsampling": "4:2:0"}, f"{whole}; colour 4:2:0", len),
        "JPEG 4:4:4": ("JPEG", "jpg", {"optimize": True, "subsampling": "4:4:4"}, f"{whole}; colour 4:4:4", len),
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
    for method, (format, feature, options, note, payload_bytes) in kinds.items():
        if format not in Image.SAVE:
            yield method, f"Pillow {PIL.__version__} as installed does not write it"
            continue
        version = f"Pillow {PIL.__version__}" + (f", {feature} {features.version(feature)}" if feature else "")
        yield (
            method,
            [
                ImageCodec(method, quality, note, version, format=format, options=options, payload_bytes=payload_bytes)
                for quality in IMAGE_QUALITIES[method]
            ],
        )


def webp_payload(file: bytes) -> int:
    """Count the bytes of a WebP file after its headers: those of RIFF, of the form and of the only chunk."""
    return len(file) - 20


def avif_payload(file: bytes) -> int:
    """Count the bytes in the boxes `mdat` of a HEIF file."""
    position = total = 0
    while position + 8 <= len(file):
        length, kind = int.from_bytes(file[position : position + 4], "big"), file[position + 4 : position + 8]
        length = length or len(file) - position  # 0: to the end
        if kind == b"mdat":
            total += length - 8
        position += max(length, 8)
    return total


# Audio


class SoundCodec(Codec):
    """A sound codec, in a container that tells the decoder where the sound begins.

    Args:
        method, setting, version, note: as in `Codec`.
        preprocessing: facts about the signals.
        rates: sample rates in Hz that the codec takes; audio of any other is resampled to 48 kHz and back. None: all.
        delay: decoded samples at the start that the container does not count.
    """

    modality = "audio"

    def __init__(
        self,
        method: str,
        setting: dict[str, Any],
        version: str,
        note: str,
        preprocessing: Preprocessing,
        rates: Sequence[int] | None,
        delay: int = 0,
    ):
        super().__init__(method, setting, version, note)
        assert preprocessing.sample_rate is not None  # of audio
        self.rate, self.delay = preprocessing.sample_rate, delay
        self.coded_rate = self.rate if rates is None or self.rate in rates else 48000

    @abstractmethod
    def encode(self, samples: np.ndarray) -> bytes:
        """Encode float32 `[channels, samples]` at `coded_rate` as a file."""

    def compress(self, signal: Tensor) -> tuple[int, bytes]:
        file = self.encode(media.resample(signal[0], self.rate, self.coded_rate).clamp(-1, 1).numpy())
        with av.open(io.BytesIO(file), "r") as container:
            num_bytes = 0
            for packet in container.demux(audio=0):
                num_bytes += packet.size
            return num_bytes, file

    def restore(self, payload: bytes, like: Tensor) -> Tensor:
        parts, decoded_rate = [], self.coded_rate
        to_float = av.AudioResampler(format="fltp")
        with av.open(io.BytesIO(payload), "r") as container:
            for frame in container.decode(audio=0):
                decoded_rate = frame.sample_rate
                parts += [torch.from_numpy(part.to_ndarray()) for part in to_float.resample(frame)]
        audio = media.resample(torch.cat(parts, dim=1)[:, self.delay :], decoded_rate, self.rate)
        samples = like.shape[2]
        audio = torch.nn.functional.pad(audio, (0, max(0, samples - audio.shape[1])))
        return audio[None, :, :samples]


class FFmpegSound(SoundCodec):
    """Opus or MP3 through PyAV."""

    def __init__(self, *arguments: Any, encoder: str, container: str, bit_rate: int, **options: Any):
        super().__init__(*arguments, **options)
        self.encoder, self.container, self.bit_rate = encoder, container, bit_rate

    def encode(self, samples: np.ndarray) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format=self.container) as container:
            layout = {1: "mono", 2: "stereo"}[len(samples)]
            stream = container.add_stream(self.encoder, rate=self.coded_rate, layout=layout)
            assert isinstance(stream, AudioStream)
            stream.bit_rate = self.bit_rate
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
            frame.sample_rate = self.coded_rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return file.getvalue()


class Vorbis(SoundCodec):
    """Vorbis through libsndfile; its `compression_level` is 1 - quality / 10 of libvorbis."""

    def encode(self, samples: np.ndarray) -> bytes:
        file = io.BytesIO()
        level = 1 - self.setting["quality"] / 10
        soundfile.write(file, samples.T, self.coded_rate, format="OGG", subtype="VORBIS", compression_level=level)
        return file.getvalue()


def sound_codecs(preprocessing: Preprocessing) -> Found:
    channels, rate = preprocessing.channels, preprocessing.sample_rate
    assert channels is not None and rate is not None  # of audio
    ffmpeg = f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}"
    if channels > 2:
        for method in ("Opus", "MP3", "Vorbis"):
            yield method, f"used here for one or two channels, not for {channels}"
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
        lowest = 8 if rate in MP3_RATES and rate <= 24000 else 32  # kbit/s, of MPEG 2 and of MPEG 1
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
        note = "packets without Ogg and without about 4 kB of codebooks at the start of every stream"
        yield (
            "Vorbis",
            [
                Vorbis("Vorbis", {"quality": quality}, f"{sndfile}; {ffmpeg}", note, preprocessing, None)
                for quality in VORBIS_QUALITIES
            ],
        )


def can_encode(name: str) -> bool:
    """Return whether the installed FFmpeg has an encoder."""
    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


# Video


class VideoSettings(NamedTuple):
    """Encoder and decoder as FFmpeg names them, the encoder's options, and what takes needless data out of a packet."""

    encoder: str
    decoder: str
    options: dict[str, str]
    slim: Callable[[bytes], bytes] = bytes


class VideoCodec(Codec):
    """A video codec through PyAV, at a nominal 25 frames per second; odd sides are padded by repeating the last pixels.

    Args:
        method, note: as in `Codec`.
        factor: constant rate factor, its setting.
        settings: settings of encoder and decoder, the same at each factor.
    """

    modality = "video"

    def __init__(self, method: str, factor: int, note: str, settings: VideoSettings):
        super().__init__(method, {"CRF": factor}, f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}", note)
        self.settings, self.options = settings, {"crf": str(factor), **settings.options}

    def compress(self, signal: Tensor) -> tuple[int, list[bytes]]:
        height, width = signal.shape[3:]
        padded = torch.nn.functional.pad(signal[0], (0, width % 2, 0, height % 2), mode="replicate")
        context = video_context(self.settings.encoder, "w")
        context.height, context.width = padded.shape[2:]
        context.pix_fmt, context.framerate, context.time_base = "yuv420p", Fraction(25), Fraction(1, 25)
        context.options = self.options
        packets = []
        for number, image in enumerate(padded.unbind(1)):
            frame = av.VideoFrame.from_ndarray(to_pixels(image), "rgb24")
            frame.pts = number
            packets += context.encode(frame)
        packets += context.encode(None)
        payload = [self.settings.slim(bytes(packet)) for packet in packets]
        return sum(map(len, payload)), payload

    def restore(self, payload: list[bytes], like: Tensor) -> Tensor:
        context = video_context(self.settings.decoder, "r")
        frames = [frame for data in payload for frame in context.decode(av.Packet(data))]
        frames += context.decode(None)
        height, width = like.shape[3:]
        images = [media.to_image_tensor(frame.to_ndarray(format="rgb24"))[:, :height, :width] for frame in frames]
        return torch.stack(images, dim=1)[None]


def video_context(codec: str, mode: Literal["r", "w"]) -> VideoCodecContext:
    """Return an encoder ("w") or a decoder ("r") that runs on one thread."""
    context = av.CodecContext.create(codec, mode)
    assert isinstance(context, VideoCodecContext)
    context.thread_count = 1
    return context


def video_codecs(preprocessing: Preprocessing) -> Found:
    os.environ.setdefault("SVT_LOG", "1")  # errors only; otherwise it writes its settings to stderr
    note = "packets without container; colour 4:2:0"
    x265 = "log-level=error:info=0:pools=none:frame-threads=1"
    settings = {
        "H.264": (
            f"{note}; x264's preset medium, without its note of its settings",
            VideoSettings("libx264", "h264", {"preset": "medium"}, without_messages),
        ),
        "H.265": (
            f"{note}; x265's preset medium",
            VideoSettings("libx265", "hevc", {"preset": "medium", "x265-params": x265}),
        ),
        "AV1": (
            f"{note}; SVT-AV1's preset 6",
            VideoSettings("libsvtav1", "libdav1d", {"preset": "6", "svtav1-params": "lp=1"}),
        ),
    }
    for method, (note, setting) in settings.items():
        if not can_encode(setting.encoder):
            yield method, f"PyAV {av.__version__} has no {setting.encoder}"
        else:
            yield method, [VideoCodec(method, factor, note, setting) for factor in CONSTANT_RATE_FACTORS[method]]


def without_messages(packet: bytes) -> bytes:
    """Remove the supplemental units (type 6) from an H.264 packet; decoding does not need them."""
    units = re.split(b"\0?\0\0\1", packet)[1:]
    return b"".join(b"\0\0\1" + unit for unit in units if unit[0] & 31 != 6)


# Structures


class RoundedCoordinates(Codec):
    """Coordinates of N, CA and C rounded to multiples of `step` angstrom; CB and O are not kept."""

    modality = "structure"

    def __init__(self, step: float):
        note = (
            "N, CA and C alone; each axis with as many bits as its extent in steps needs, and a value for absent "
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

    def restore(self, payload: tuple[Tensor, Tensor], like: Tensor) -> Tensor:
        least, steps = payload
        values = torch.full_like(like, torch.nan)
        values[0, :, : ATOMS.index("C") + 1] = (steps * self.step + least).float().unflatten(0, (like.shape[1], -1))
        return values


def structure_codecs(preprocessing: Preprocessing) -> Found:
    yield "Rounded coordinates", [RoundedCoordinates(step) for step in GRID_STEPS]


CODECS: dict[str, Callable[[Preprocessing], Found]] = {
    "image": image_codecs,
    "audio": sound_codecs,
    "video": video_codecs,
    "structure": structure_codecs,
}
