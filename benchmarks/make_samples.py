"""Make the shipped samples again: `python benchmarks/make_samples.py [FOLDER]` (the speech needs espeak-ng).

Without a folder they replace those in `zoo/demo/samples`. The images, the clip and the music are computed here, the
speech is espeak-ng's, and the protein is a chain of a file that tmtools installs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import soundfile
import tmtools
import torch
from PIL import Image
from scipy.signal import lfilter

from zoo import media

SAMPLES = Path(__file__).parents[1] / "zoo" / "demo" / "samples"
SIZE = 256
SUPERSAMPLING = 3
CLIP_SIZE, FRAMES, FRAME_RATE = 128, 33, 24
SPEECH = {
    "tokens": ("en-us", "A tokenizer turns a signal into a short sequence of numbers."),
    "river": ("en-gb", "The river was calm, and the evening light lay on the water."),
}
# The first bars of Bach's Prelude in C major (BWV 846, 1722), half of each, as MIDI notes, and a chord at the end.
BARS = ((60, 64, 67, 72, 76), (60, 62, 69, 74, 77), (59, 62, 67, 74, 77), (60, 64, 67, 72, 76))
ORDER = (0, 1, 2, 3, 4, 2, 3, 4)  # in which the notes of a bar are played
CHORD = (48, 60, 64, 67, 72)
SAMPLE_RATE = 24000


def rays(size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Horizontal and vertical position of every subpixel in [-1, 1], upwards; two `[side, side]`."""
    side = size * SUPERSAMPLING
    axis = (np.arange(side) + 0.5) / side * 2 - 1
    return np.meshgrid(axis, -axis)


def finish(color: np.ndarray) -> Image.Image:
    """Turn linear `[side, side, 3]` into an image: subpixels averaged, display gamma applied."""
    size = len(color) // SUPERSAMPLING
    color = color.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3).mean(axis=(1, 3))
    return Image.fromarray((np.clip(color, 0, 1) ** (1 / 2.2) * 255).round().astype(np.uint8))


def noise(x: np.ndarray, y: np.ndarray, octaves: int, seed: int) -> np.ndarray:
    """Fractal value noise around 0 at the positions `x`, `y`."""
    table = np.random.RandomState(seed).uniform(-1, 1, (256, 256))
    total = np.zeros_like(x)
    for octave in range(octaves):
        u, v = x * 2**octave + 17 * octave, y * 2**octave + 31 * octave
        i, j = np.floor(u).astype(int), np.floor(v).astype(int)
        s, t = ((w - np.floor(w)) for w in (u, v))
        s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
        low = table[i % 256, j % 256] * (1 - s) + table[(i + 1) % 256, j % 256] * s
        high = table[i % 256, (j + 1) % 256] * (1 - s) + table[(i + 1) % 256, (j + 1) % 256] * s
        total += (low * (1 - t) + high * t) / 2**octave
    return total


def lake() -> Image.Image:
    """Mountain ridges at sunset and a lake that mirrors them."""
    x, y = rays()
    shore = -0.25
    ripples = np.where(y < shore, noise(x * 6, 40 / (shore - y + 0.12), 3, 5) * (shore - y) * 0.07, 0)
    water = y < shore
    x, y = x + ripples, np.where(water, 2 * shore - y + ripples, y)
    height = np.clip((y + 0.3) / 1.3, 0, 1)[..., None]
    color = np.array([0.95, 0.45, 0.18]) * (1 - height) ** 2 + np.array([0.10, 0.22, 0.48]) * height
    clouds = np.clip(noise(x * 1.5 + 3, y * 5, 5, 1) - 0.1, 0, 1)[..., None] * np.clip(height * 3, 0, 1)
    color = color + clouds * np.array([0.55, 0.28, 0.22])
    glow = np.hypot(x - 0.35, y - 0.12)[..., None]
    color = color + np.exp(-glow * 5) * np.array([0.7, 0.4, 0.1]) + (glow < 0.075) * np.array([1.0, 0.8, 0.4])
    for distance, base, rough, seed in ((3.0, 0.22, 0.30, 2), (1.6, 0.05, 0.26, 3), (0.7, -0.13, 0.16, 4)):
        ridge = base + rough * noise(x * 1.6 + seed, np.zeros_like(x), 7, seed)
        shade = 0.7 + 0.5 * noise(x * 7, y * 7 + ridge * 6, 5, seed + 10)
        haze = np.array([0.55, 0.32, 0.25]) * (distance / 4)
        rock = haze + np.array([0.05, 0.07, 0.05]) * shade[..., None] * (1.3 - distance / 4)
        color = np.where((y < ridge)[..., None], rock, color)
    color = np.where(water[..., None], color * np.array([0.55, 0.62, 0.72]), color)
    return finish(color)


Balls = tuple[tuple[tuple[float, float, float], float, tuple[float, float, float]], ...]  # centre, radius, colour
BALLS: Balls = (
    ((-0.95, 0.62, 0.5), 0.62, (0.70, 0.10, 0.07)),
    ((0.45, 0.45, -0.45), 0.45, (0.08, 0.25, 0.60)),
    ((0.95, 0.75, 1.3), 0.75, (0.75, 0.50, 0.10)),
)
LAMP = np.array([-3.0, 5.0, -3.0])


def spheres() -> Image.Image:
    """Three spheres on a tiled floor under one lamp, traced with shadows and one reflection."""
    return view(BALLS, SIZE)


def bounce() -> list[Image.Image]:
    """The three spheres as the camera moves around them; one jumps and comes down again, one rolls away."""
    frames = []
    for time in np.arange(FRAMES) / FRAME_RATE:
        red, blue, gold = BALLS
        height = 4 * 0.55 * (time / 0.7 % 1) * (1 - time / 0.7 % 1)  # thrown up 0.55, down after 0.7 s
        jumping = ((blue[0][0], blue[0][1] + height, blue[0][2]), *blue[1:])
        rolling = ((red[0][0] + 0.3 * time, red[0][1], red[0][2] + 0.8 * time), *red[1:])
        frames.append(view((rolling, jumping, gold), CLIP_SIZE, angle=0.35 * (time - 0.7)))
    return frames


def view(balls: Balls, size: int, angle: float = 0.0) -> Image.Image:
    """`balls` on the floor, seen from `angle` radians around the middle."""
    x, y = rays(size)
    right, ahead = np.array([np.cos(angle), 0, -np.sin(angle)]), np.array([np.sin(angle), 0, np.cos(angle)])
    eye = np.array([0.0, 1.1, 0.0]) - 4.2 * ahead
    direction = np.stack([x * 0.36, y * 0.36 - 0.16, np.ones_like(x)], axis=-1) @ np.stack([right, [0, 1, 0], ahead])
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    color, normal, point, shine = trace(np.broadcast_to(eye, direction.shape), direction, balls)
    mirrored = direction - 2 * (direction * normal).sum(-1, keepdims=True) * normal
    reflection = trace(point + 1e-3 * normal, mirrored, balls)[0]
    return finish(color * (1 - shine) + reflection * shine)


def hit(origin: np.ndarray, direction: np.ndarray, center: tuple[float, ...], radius: float) -> np.ndarray:
    """Distance along each ray to the sphere, infinite where it is missed."""
    offset = origin - np.array(center)
    half = (offset * direction).sum(-1)
    root = half**2 - (offset**2).sum(-1) + radius**2
    distance = -half - np.sqrt(np.maximum(root, 0))
    return np.where((root > 0) & (distance > 1e-3), distance, np.inf)


def trace(
    origin: np.ndarray, direction: np.ndarray, balls: Balls
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Colour, surface normal, point and share of reflection where each ray ends; reflection 0 in the sky."""
    height = np.clip(direction[..., 1:2] * 1.6, 0, 1)
    sky = np.array([0.80, 0.84, 0.88]) * (1 - height) + np.array([0.22, 0.38, 0.62]) * height
    slope = np.where(np.abs(direction[..., 1]) < 1e-9, -1e-9, direction[..., 1])
    floor = np.where(direction[..., 1] < 0, -origin[..., 1] / slope, np.inf)
    distances = np.stack([floor, *(hit(origin, direction, center, radius) for center, radius, _ in balls)])
    nearest, distance = distances.argmin(0), distances.min(0)
    found = np.isfinite(distance)[..., None]
    point = origin + np.where(found, distance[..., None], 0) * direction
    normal = np.zeros_like(point) + np.array([0.0, 1.0, 0.0])
    tiles = (np.floor(point[..., 0] * 1.5) + np.floor(point[..., 2] * 1.5)) % 2
    grain = 1 + 0.12 * noise(point[..., 0] * 9, point[..., 2] * 9, 4, 8)
    albedo = np.where(tiles[..., None] > 0, [0.62, 0.58, 0.52], [0.16, 0.17, 0.19]) * grain[..., None]
    shine = np.full_like(distance, 0.12)
    for number, (center, radius, paint) in enumerate(balls, start=1):
        on = (nearest == number)[..., None]
        normal = np.where(on, (point - np.array(center)) / radius, normal)
        albedo = np.where(on, np.array(paint), albedo)
    to_lamp = LAMP - point
    to_lamp = to_lamp / np.linalg.norm(to_lamp, axis=-1, keepdims=True)
    start = point + 1e-3 * normal
    lit = np.ones_like(distance)
    for center, radius, _ in balls:
        lit = np.where(np.isfinite(hit(start, to_lamp, center, radius)), 0.0, lit)
    diffuse = np.clip((normal * to_lamp).sum(-1), 0, 1) * lit
    half = to_lamp - direction
    half = half / np.linalg.norm(half, axis=-1, keepdims=True)
    gloss = np.clip((normal * half).sum(-1), 0, 1) ** 90 * lit * (nearest > 0)
    color = albedo * (0.25 + 0.95 * diffuse[..., None]) + 0.7 * gloss[..., None]
    haze = np.clip(distance / 30, 0, 1)[..., None]
    color = np.where(found, color * (1 - haze) + np.array([0.80, 0.84, 0.88]) * haze, sky)
    return color, normal, point, np.where(found, shine[..., None], 0)


def speak(voice: str, text: str, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Mono speech in [-1, 1] from espeak-ng, resampled, its peak at -3 dB of full scale."""
    from torchaudio.functional import resample

    command = ["espeak-ng", "-v", voice, "-s", "165", "--stdout", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    # In a pipe, the header's lengths are placeholders: everything after its 44 bytes is samples.
    given_rate = int.from_bytes(wav[24:28], "little")
    samples = torch.frombuffer(bytearray(wav[44:]), dtype=torch.int16).float()
    speech = resample(samples, given_rate, sample_rate).numpy()
    return speech / np.abs(speech).max() * 10 ** (-3 / 20)


def write_clip(path: Path, frames: list[Image.Image]) -> None:
    """Write H.264 without subsampled colour: the same bytes on every machine that has this release of x264."""
    with av.open(path, "w", options={"fflags": "+bitexact"}) as container:
        options = {"crf": "12", "preset": "veryslow", "threads": "1"}
        stream = container.add_stream("libx264", rate=FRAME_RATE, options=options)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def prelude() -> np.ndarray:
    """Seven seconds of Bach on plucked strings, `[samples]` at `SAMPLE_RATE`."""
    random, step, ring = np.random.default_rng(0), 0.16, 2.0
    notes = [
        (bar[i], step * (len(ORDER) * number + place))
        for number, bar in enumerate(BARS)
        for place, i in enumerate(ORDER)
    ]
    end = step * len(ORDER) * len(BARS)
    notes += [(note, end + 0.03 * place) for place, note in enumerate(CHORD)]
    sound = np.zeros(int((end + ring) * SAMPLE_RATE))
    for note, start in notes:
        first = int(start * SAMPLE_RATE)
        string = pluck(440 * 2 ** ((note - 69) / 12), ring, random)[: len(sound) - first]
        sound[first : first + len(string)] += string
    sound[-SAMPLE_RATE // 2 :] *= np.linspace(1, 0, SAMPLE_RATE // 2)
    return sound / np.abs(sound).max() * 10 ** (-3 / 20)


def pluck(frequency: float, seconds: float, random: np.random.Generator) -> np.ndarray:
    """A plucked string, `[samples]`: noise in a delay line that loses its high frequencies (Karplus, Strong 1983)."""
    period = SAMPLE_RATE / frequency - 0.5  # the mean of two samples below delays by half a sample
    delay = int(period)
    tuning = (1 - (period - delay)) / (1 + (period - delay))  # of an all-pass filter, which delays by the rest
    loss = 0.5 ** (1 / frequency)  # of a period: the level falls to half in a second
    pulse = np.zeros(int(seconds * SAMPLE_RATE))
    pulse[: delay + 1] = lfilter([0.5, 0.5], [1], random.uniform(-1, 1, delay + 1))
    feedback = np.zeros(delay + 3)
    feedback[:2] = 1, tuning
    feedback[delay:] -= loss * np.array([tuning, 1 + tuning, 1]) / 2
    return lfilter([1, tuning], feedback, pulse)


def globin() -> media.Structure:
    """Chain B of the erythrocruorin of an earthworm, PDB entry 2GTL (Royer et al. 2006), whose files are CC0."""
    return media.read_structure(Path(tmtools.__file__).parent / "data" / "2gtl.pdb", chain="B")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in (("lake", lake()), ("spheres", spheres())):
        image.save(folder / f"{name}.png", optimize=True)
    write_clip(folder / "bounce.mkv", bounce())
    chain = globin()
    media.write_structure(folder / "globin.pdb", chain.coordinates, residue_names=chain.residue_names, overwrite=True)
    for name, (voice, text) in SPEECH.items():
        soundfile.write(folder / f"{name}.flac", speak(voice, text), SAMPLE_RATE, subtype="PCM_16")
    soundfile.write(folder / "strings.flac", prelude(), SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES)
