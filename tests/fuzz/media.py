"""Media files of every format, damaged or with other numbers, words and lines; read and encoded."""

import gzip
import warnings
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import av
import msgpack
import numpy as np
import soundfile
import torch
from biotite.structure.io import pdbx
from PIL import Image
from torch import Tensor

import zoo
from tests.fuzz.signals import odd_options
from tests.support.fuzz import Boundary, Case, changed_bytes, changed_text, changed_tree, odd_number, odd_value, shown
from tests.support.media import helix
from tests.support.tokenizers import expect, expect_codes, expect_round_trip, expect_usual
from zoo import media, modalities
from zoo.errors import ZooError
from zoo.tokenizer import PREPROCESS_OPTIONS

IMAGES = ("png", "jpg", "webp", "bmp", "tif", "gif", "ppm", "tga", "jp2", "avif")
SOUNDS = ("wav", "flac", "ogg", "mp3", "aiff")
SOUNDS_OF_FFMPEG = {"m4a": "aac", "aac": "aac", "opus": "libopus"}
VIDEOS = {"mp4": "libx264", "mkv": "ffv1", "webm": "libvpx", "avi": "mpeg4", "mov": "mjpeg"}
NAMES = {"image": "wetok-nano", "audio": "wavtokenizer-nano", "video": "cosmos-dv-nano", "structure": "dplm2-nano"}
USUAL: dict[str, dict[str, Any]] = {"image": {"resolution": 16}, "video": {"resolution": 16}}


def small_files(folder: Path) -> list[Path]:
    """Write a small file of each format into a folder."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    for suffix in IMAGES:
        Image.fromarray(pixels).save(folder / f"a.{suffix}")
    Image.fromarray(pixels).convert("P").save(folder / "palette.png")
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(folder / "deep.tif")
    Image.fromarray(pixels).convert("LA").save(folder / "alpha.png")
    sound = 0.3 * np.sin(np.arange(2400) * 0.115)
    for suffix in SOUNDS:
        soundfile.write(folder / f"a.{suffix}", sound, 24000)
    soundfile.write(folder / "gsm.wav", sound, 8000, subtype="GSM610")
    soundfile.write(folder / "float.wav", np.stack([sound, sound], 1), 44100, subtype="FLOAT")
    for suffix, codec in SOUNDS_OF_FFMPEG.items():
        with av.open(folder / f"a.{suffix}", "w") as container:
            stream = container.add_stream(codec, rate=48000, layout="mono")
            frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), "fltp", "mono")
            frame.sample_rate = 48000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    for suffix, codec in VIDEOS.items():
        with av.open(folder / f"a.{suffix}", "w") as container:
            stream = container.add_stream(codec, rate=Fraction(10))
            stream.width = stream.height = 16
            stream.pix_fmt = {"mjpeg": "yuvj420p", "ffv1": "bgr0"}.get(codec, "yuv420p")
            for _ in range(4):
                image = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode())
    for suffix in ("pdb", "cif", "bcif"):
        media.write_structure(folder / f"a.{suffix}", helix(5))
    packed = pdbx.compress(pdbx.BinaryCIFFile.read(folder / "a.bcif"))
    packed.write(folder / "packed.bcif")
    for suffix in ("pdb", "cif"):
        (folder / f"z.{suffix}.gz").write_bytes(gzip.compress((folder / f"a.{suffix}").read_bytes(), mtime=0))
    return sorted(folder.iterdir())


class Media(Boundary):
    name = "media"

    def __init__(self, folder: Path):
        (folder / "good").mkdir()
        self.folder = folder
        self.files = {path.name: path.read_bytes() for path in small_files(folder / "good")}
        self.tokenizers = {modality: zoo.load(name) for modality, name in NAMES.items()}
        self.originals = {name: self.original(name) for name in self.files}

    def case(self, random: Random) -> Case:
        name = random.choice(list(self.files))
        path, content = self.folder / name, self.files[name]
        modality = modalities.modality_of(path)
        options = USUAL.get(modality, {})
        if random.random() < 0.1:
            path.write_bytes(content)
            options = {**options, **odd_options(random, PREPROCESS_OPTIONS)}
            options.pop("other", None)
            source = random.choice([path, str(path), content, path.open("rb")])
            return Case(f"{name} with {shown(options)}", partial(self.encode, modality, source, options))
        same = random.random() < 0.1
        kinds = self.same(name) if same else self.changes(name)
        changed = random.choice(kinds)(random, content)
        path.write_bytes(changed)
        original = self.originals[name] if same else None
        what = f"{name}, {len(content)} bytes, changed to {len(changed)}" + (", of the same meaning" if same else "")
        return Case(what, partial(self.encode, modality, path, options, original))

    def changes(self, name: str) -> list[Callable[[Random, bytes], bytes]]:
        """Return ways to change a file into another, or a damaged one."""
        if name.endswith(".gz"):
            return [changed_bytes, lambda random, content: repacked(content, partial(changed_bytes, random))]
        if name.endswith((".pdb", ".cif", ".ppm")):
            return [changed_bytes, changed_words, changed_words]
        if name.endswith(".bcif"):
            return [changed_bytes, changed_map, changed_map, changed_atoms, changed_atoms]
        return [changed_bytes]

    def same(self, name: str) -> list[Callable[[Random, bytes], bytes]]:
        """Return ways to change a file that leave what it means."""
        if name.endswith((".pdb", ".cif")):
            return [
                lambda random, content: content.replace(b"\n", b"\r\n"),
                lambda random, content: content + b"\n" * random.randrange(4),
                lambda random, content: b"\n".join(line.rstrip() for line in content.split(b"\n")),
            ]
        if name.endswith(".gz"):
            return [lambda random, content: repacked(content, bytes)]
        if name.endswith((".png", ".jpg", ".bmp", ".gif", ".wav", ".flac", ".mkv", ".aiff", ".webp")):
            return [lambda random, content: content + bytes(random.choice([1, 2, 100]))]
        return [lambda random, content: content]

    def original(self, name: str) -> Tensor:
        modality = modalities.modality_of(self.folder / name)
        made = self.tokenizers[modality].preprocess(self.folder / "good" / name, **USUAL.get(modality, {}))
        assert isinstance(made, Tensor)
        return made

    def encode(self, modality: str, source: Any, options: dict[str, Any], original: Tensor | None = None) -> None:
        tokenizer = self.tokenizers[modality]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                x = tokenizer.preprocess(source, **options)
            except ZooError as error:
                expect(original is None, f"the same content is refused: {error}")
                raise
        assert isinstance(x, Tensor)
        if original is not None:
            same = x.shape == original.shape and bool(torch.isclose(x, original, equal_nan=True).all())
            expect(same, "the same content gives another signal")
        if x.numel() > 300_000:
            return
        codes = tokenizer.encode(x)
        expect_usual(tokenizer, x, bool(caught))
        expect_codes(tokenizer, codes, 1, tokenizer.spec.grid(tokenizer.size_of(x)))
        expect_round_trip(tokenizer, x, codes)


def changed_words(random: Random, content: bytes) -> bytes:
    return changed_text(random, content.decode("latin-1")).encode(errors="replace")


def repacked(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    return gzip.compress(change(gzip.decompress(content)), mtime=0)


def changed_map(random: Random, content: bytes) -> bytes:
    """Return BinaryCIF, a map of MessagePack, with another value in it."""
    return repacked_map(content, lambda tree: changed_tree(random, tree, odd_value))


def changed_atoms(random: Random, content: bytes) -> bytes:
    """Return BinaryCIF with another number in its table of atoms."""

    def change(tree: Any) -> Any:
        for category in tree["dataBlocks"][0]["categories"]:
            if category["name"] == "_atom_site":
                column = random.randrange(len(category["columns"]))
                category["columns"][column] = changed_tree(random, category["columns"][column], odd_number)
        return tree

    return repacked_map(content, change)


def repacked_map(content: bytes, change: Callable[[Any], Any]) -> bytes:
    while True:
        try:
            return msgpack.packb(change(msgpack.unpackb(content)))
        except (TypeError, ValueError, OverflowError):  # a value that MessagePack has not
            continue
