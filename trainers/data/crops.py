"""Random training crops of signals, and the fixed excerpts of them that are validated."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional

from zoo.spec import TokenizerSpec
from zoo.trainers.data.options import AudioData, DataOptions, ImageData, VideoData


def crop(signal: Tensor, options: DataOptions, spec: TokenizerSpec, random: np.random.Generator) -> Tensor:
    """A random part of a signal of `zoo.trainers.data.signals.Signals`.

    Returns:
        Image: uint8 `[3, crop, crop]`. Audio: float32 `[channels, samples]`. Video: uint8 `[3, frames, crop, crop]`.
        Structure: float32 `[residues, 5, 3]`.
    """
    if isinstance(options, ImageData):
        return crop_image(signal, options, random)
    if isinstance(options, AudioData):
        assert spec.sample_rate is not None
        return crop_audio(signal, options, spec.sample_rate, random)
    if isinstance(options, VideoData):
        return crop_video(signal, options, random)
    length = min(len(signal), options.max_residues)
    start = int(random.integers(len(signal) - length + 1))
    stretch = signal[start : start + length]
    return bent(stretch, options.bend * random.random() ** 3, random) if options.bend else stretch


def excerpt(signal: Tensor, options: DataOptions, spec: TokenizerSpec) -> Tensor:
    """A fixed part of a signal, in the form of `crop`: the centre of an image, the start of any other signal."""
    if isinstance(options, ImageData):
        return centre_square(signal, options.crop)
    if isinstance(options, AudioData):
        assert spec.sample_rate is not None
        length = round(options.seconds * spec.sample_rate)
        peak = 10 ** (sum(options.peak_db) / 40)
        return repeated(signal, length)[:, :length].float() * (peak / 32767)
    if isinstance(options, VideoData):
        return centre_square(clip(signal, options, start=0), options.crop)
    return signal[: options.max_residues]


def crop_image(image: Tensor, options: ImageData, random: np.random.Generator) -> Tensor:
    """uint8 `[3, H, W]` to a random `[3, crop, crop]`."""
    low, high = options.scale
    # The part that the crop of the resized image shows is cut out first and then resized.
    return random_square(image, round(options.crop / random.uniform(low, high)), options.crop, options.flip, random)


def crop_audio(audio: Tensor, options: AudioData, sample_rate: int, random: np.random.Generator) -> Tensor:
    """int16 `[channels, samples]` to a random float32 crop of `options.seconds`; with `bucket` it may be shorter."""
    length = round(options.seconds * sample_rate)
    peak = 10 ** (random.uniform(*options.peak_db) / 20)
    audio = repeated(audio, min(length, round(options.min_seconds * sample_rate)) if options.bucket else length)
    length = min(length, audio.shape[1])
    start = int(random.integers(audio.shape[1] - length + 1))
    return audio[:, start : start + length].float() * (peak / 32767)


def crop_video(video: Tensor, options: VideoData, random: np.random.Generator) -> Tensor:
    """uint8 `[3, T, H, W]` to a random `[3, frames, crop, crop]`."""
    if options.stills and video.shape[1] == 1:
        return move_camera(video[:, 0], options, random)
    span = (options.frames - 1) * options.frame_stride + 1
    start = int(random.integers(max(1, video.shape[1] - span + 1)))
    return random_square(clip(video, options, start), options.crop, options.crop, options.flip, random)


def move_camera(image: Tensor, options: VideoData, random: np.random.Generator) -> Tensor:
    """An image, uint8 `[3, H, W]`, to a clip, `[3, frames, crop, crop]`: a square moves over it and grows or shrinks.

    The side of the square is between `crop` and 1.5 times that, but not greater than the image. Its middle moves by up
    to 3 pixels a frame along each axis, and the square stays inside the image.
    """
    size = np.array(image.shape[1:])
    sides = np.minimum(options.crop * random.uniform(1, 1.5, size=2), min(size))
    steps = options.frames - 1
    start = random.uniform(sides[0] / 2, size - sides[0] / 2)
    end = np.clip(start + steps * random.uniform(-3, 3, size=2), sides[1] / 2, size - sides[1] / 2)
    part = torch.linspace(0, 1, options.frames)[:, None]
    middle = torch.from_numpy(start) + part * torch.from_numpy(end - start)
    scale = (sides[0] + part * (sides[1] - sides[0])) / torch.from_numpy(size)
    offset = 2 * middle / torch.from_numpy(size) - 1
    mirror = -1 if options.flip and random.random() < 0.5 else 1
    motion = torch.zeros(options.frames, 2, 3)  # from the clip's coordinates to the image's, x first, from -1 to 1
    motion[:, 0, 0], motion[:, 1, 1] = mirror * scale[:, 1], scale[:, 0]
    motion[:, :, 2] = offset.flip(1)
    grid = functional.affine_grid(motion, [options.frames, 3, options.crop, options.crop], align_corners=False)
    frames = image.float().expand(options.frames, -1, -1, -1)
    pixels = functional.grid_sample(frames, grid, padding_mode="border", align_corners=False)
    return pixels.round().clamp(0, 255).to(torch.uint8).movedim(0, 1).contiguous()


def bent(chain: Tensor, degrees: float, random: np.random.Generator) -> Tensor:
    """A chain `[residues, 5, 3]` whose phi and psi change by normal angles of this standard deviation.

    Each turns what follows it in the chain: phi about the bond from N to CA, psi about that from CA to C. A residue
    that lacks one of the three is no hinge.
    """
    atoms = chain.double().numpy()
    nitrogen, alpha, carbon = atoms[:, 0], atoms[:, 1], atoms[:, 2]
    whole = np.isfinite(atoms[:, :3]).all(axis=(1, 2))
    angles = np.radians(degrees) * random.standard_normal((len(atoms), 2)) * whole[:, None]
    turns = [hinge(nitrogen, alpha, angles[:, 0]), hinge(alpha, carbon, angles[:, 1])]
    # The last hinge turns first, when all before it are where they were: motion = first @ second @ ... @ last.
    motion, moved = np.eye(4), np.empty_like(atoms)
    for residue, (phi, psi) in enumerate(zip(*turns, strict=True)):
        for turn, slots in ((phi, slice(0, 4)), (psi, slice(4, 5))):  # N and CA are on the axis of phi, C on psi's
            motion = motion @ turn
            moved[residue, slots] = atoms[residue, slots] @ motion[:3, :3].T + motion[:3, 3]
    return torch.from_numpy(moved).to(chain.dtype)


def hinge(start: np.ndarray, end: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Motions `[n, 4, 4]` that turn by `angles` about the lines from `start` to `end`, `[n, 3]`; angle 0: at rest."""
    turning = angles != 0
    start, axes = start[turning], (end - start)[turning]
    vectors = axes / np.linalg.norm(axes, axis=1, keepdims=True) * angles[turning, None]
    rotations = Rotation.from_rotvec(vectors).as_matrix()
    motions = np.tile(np.eye(4), (len(angles), 1, 1))
    motions[turning, :3, :3] = rotations
    motions[turning, :3, 3] = start - (rotations @ start[:, :, None])[:, :, 0]
    return motions


def clip(video: Tensor, options: VideoData, start: int) -> Tensor:
    """`options.frames` frames of `[3, T, H, W]` from `start`; the last one is repeated if there are too few."""
    numbers = start + options.frame_stride * torch.arange(options.frames)
    return video[:, numbers.clamp(max=video.shape[1] - 1)]


def random_square(pixels: Tensor, part: int, side: int, flip: bool, random: np.random.Generator) -> Tensor:
    """A random square of uint8 `[3, ..., H, W]`, `part` pixels a side or less if there are less, resized to `side`."""
    part = min(part, *pixels.shape[-2:])
    top, left = (int(random.integers(length - part + 1)) for length in pixels.shape[-2:])
    square = pixels[..., top : top + part, left : left + part]
    if flip and random.random() < 0.5:
        square = square.flip(-1)
    return resize_square(square, side)


def centre_square(pixels: Tensor, side: int) -> Tensor:
    """The middle square of uint8 `[3, ..., H, W]`, resized if it is smaller than `side`."""
    part = min(side, *pixels.shape[-2:])
    top, left = (round((length - part) / 2) for length in pixels.shape[-2:])
    return resize_square(pixels[..., top : top + part, left : left + part], side)


def repeated(audio: Tensor, length: int) -> Tensor:
    """Audio `[channels, samples]` repeated end to end until it has at least `length` samples."""
    return audio.repeat(1, -(-length // audio.shape[1])) if audio.shape[1] < length else audio


def resize_square(pixels: Tensor, side: int) -> Tensor:
    """uint8 `[3, ..., H, H]` to `[3, ..., side, side]`, with antialiasing."""
    if pixels.shape[-1] == side:
        return pixels.contiguous()
    flat = pixels.flatten(0, -3)[None]
    return functional.interpolate(flat, (side, side), mode="bilinear", antialias=True, align_corners=False).view(
        *pixels.shape[:-2], side, side
    )
