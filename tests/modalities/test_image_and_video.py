"""Images in files and in memory, and the finding of files."""

import resource
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torchvision
from matplotlib.cbook import get_sample_data
from PIL import Image

from zoo import media
from zoo.errors import InputError, MediaError


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    with get_sample_data("grace_hopper.jpg") as file:
        return Image.open(file).convert("RGB")


def gradient(height: int, width: int) -> torch.Tensor:
    """float `[3, H, W]` in [0, 1]; no two corners alike."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, y, (x + y) / 2])


@contextmanager
def no_file_may_exceed(num_bytes: int):
    """What a full disk does: writing past the limit fails with an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Reading images


def test_a_photograph_is_read_as_pillow_sees_it(photograph, tmp_path):
    photograph.save(tmp_path / "photo.png")
    image = media.read_image(tmp_path / "photo.png")
    assert image.dtype == torch.uint8
    assert torch.equal(image, torchvision.transforms.functional.pil_to_tensor(photograph))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr"])
def test_every_mode_becomes_three_channels(photograph, tmp_path, mode):
    picture = photograph.crop((100, 100, 231, 177)).convert(mode)
    path = tmp_path / ("image.png" if mode in ("1", "L", "P", "RGB") else "image.jpg")
    picture.save(path)
    image = media.read_image(path)
    assert image.shape == (3, 77, 131)
    with Image.open(path) as stored:
        assert torch.equal(image, torchvision.transforms.functional.pil_to_tensor(stored.convert("RGB")))


def test_transparency_becomes_white(tmp_path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0] = 200
    pixels[0, :, 3] = [255, 0, 128]  # opaque, clear, half
    Image.fromarray(pixels).save(tmp_path / "red.png")
    red = media.read_image(tmp_path / "red.png")
    assert red[:, 0, 0].tolist() == [200, 0, 0]
    assert red[:, 0, 1].tolist() == [255, 255, 255]
    assert red[:, 0, 2].tolist() == pytest.approx([227, 127, 127], abs=1)

    Image.fromarray(pixels).convert("LA").save(tmp_path / "grey.png")
    assert media.read_image(tmp_path / "grey.png")[:, 0, 1].tolist() == [255, 255, 255]

    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=1)
    assert media.read_image(tmp_path / "palette.png")[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    Image.fromarray(np.array([[0, 257, 32768, 65535]], np.uint16)).save(tmp_path / f"deep.{suffix}")
    assert media.read_image(tmp_path / f"deep.{suffix}").tolist() == [[[0, 1, 128, 255]]] * 3


def test_samples_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.array([[0.0, 1000.0]], np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(MediaError, match=r"float\.tif: .* got 32-bit floats"):
        media.read_image(tmp_path / "float.tif")
    Image.fromarray(np.array([[0, 100_000]], np.int32)).save(tmp_path / "integer.tif")
    with pytest.raises(MediaError, match=r"integer\.tif: .* got 32-bit integers"):
        media.read_image(tmp_path / "integer.tif")


def test_an_image_is_turned_as_exif_says(photograph, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    photograph.save(tmp_path / "turned.png", exif=exif)
    expected = torchvision.transforms.functional.pil_to_tensor(photograph.rotate(-90, expand=True))
    assert torch.equal(media.read_image(tmp_path / "turned.png"), expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_an_image_cut_short_is_damaged(photograph, tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    photograph.save(path)
    whole = path.read_bytes()
    for part in (0.002, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(MediaError, match=rf"cut\.{suffix}: cannot be read as an image"):
            media.read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", bytes(range(256)) * 20])
def test_what_is_no_image_is_named(tmp_path, content):
    (tmp_path / "foreign.png").write_bytes(content)
    with pytest.raises(MediaError, match=r"foreign\.png: cannot be read as an image: cannot identify"):
        media.read_image(tmp_path / "foreign.png")


def test_a_missing_image_and_a_folder_are_named(tmp_path):
    with pytest.raises(MediaError, match=r"none\.png: cannot be read as an image: No such file"):
        media.read_image(tmp_path / "none.png")
    with pytest.raises(MediaError, match="cannot be read as an image: Is a directory"):
        media.read_image(tmp_path)


def test_a_decompression_bomb_is_refused(tmp_path):
    Image.new("1", (1, 1)).save(tmp_path / "bomb.png")
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = (20_000).to_bytes(4, "big") * 2  # the stated width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(MediaError, match=r"bomb\.png: .*decompression bomb"):
        media.read_image(tmp_path / "bomb.png")


# Writing images


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (64, 48)])
def test_a_written_image_is_read_back_to_half_a_step(tmp_path, size):
    image = gradient(*size)
    media.write_image(tmp_path / "out.png", image)
    assert (media.read_image(tmp_path / "out.png") / 255 - image).abs().max() <= 0.5 / 255 + 1e-6


def test_what_is_beyond_the_range_is_clamped(tmp_path):
    image = torch.tensor([-0.5, 0.5, 1.5]).reshape(3, 1, 1)
    media.write_image(tmp_path / "out.png", image)
    assert media.read_image(tmp_path / "out.png").flatten().tolist() == [0, 128, 255]


def test_integers_are_written_as_they_are(tmp_path):
    image = torch.randint(256, (3, 5, 7), dtype=torch.uint8)
    media.write_image(tmp_path / "out.png", image)
    assert torch.equal(media.read_image(tmp_path / "out.png"), image)


@pytest.mark.parametrize("suffix", [s for s in media.SUFFIXES["image"] if s not in (".pgm", ".heic")])
def test_every_listed_image_format_is_written_and_read(photograph, tmp_path, suffix):
    image = media.to_image_tensor(photograph.resize((64, 48)))
    media.write_image(tmp_path / f"out{suffix}", image)
    assert (media.read_image(tmp_path / f"out{suffix}") / 255 - image).abs().mean() < 0.03


def test_an_existing_image_is_replaced_only_on_request(tmp_path):
    media.write_image(tmp_path / "out.png", torch.zeros(3, 2, 2))
    with pytest.raises(MediaError, match=r"out\.png: exists already"):
        media.write_image(tmp_path / "out.png", torch.ones(3, 2, 2))
    media.write_image(tmp_path / "out.png", torch.ones(3, 2, 2), overwrite=True)
    assert media.read_image(tmp_path / "out.png").min() == 255


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_full_disk_leaves_no_image(tmp_path, suffix):
    image = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0))
    with no_file_may_exceed(8192), pytest.raises(MediaError, match=rf"out\.{suffix}: cannot be written"):
        media.write_image(tmp_path / f"out.{suffix}", image)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp4"])
def test_a_full_disk_leaves_no_sound_or_video(tmp_path, suffix):
    noise = torch.rand(3, 20, 64, 64, generator=torch.Generator().manual_seed(0))
    with no_file_may_exceed(8192), pytest.raises(MediaError, match=rf"out\.{suffix}: cannot be written"):
        if suffix == "mp4":
            media.write_video(tmp_path / "out.mp4", noise, fps=10)
        else:
            media.write_audio(tmp_path / f"out.{suffix}", noise.reshape(1, -1), 24000)
    assert list(tmp_path.iterdir()) == []


def test_images_that_cannot_be_written_are_refused(tmp_path):
    image = torch.zeros(3, 2, 2)
    for path, bad, message in [
        ("out.txt", image, "expected a suffix of an image format, such as .png, got '.txt'"),
        ("out.png", image[None], r"expected an image tensor \[3, height, width\], got \[1, 3, 2, 2\]"),
        ("out.png", image.long(), "got torch.int64"),
        ("out.png", image / 0, "not finite"),
    ]:
        with pytest.raises(InputError, match=message):
            media.write_image(tmp_path / path, bad)
    assert list(tmp_path.iterdir()) == []


# Images in memory


def test_every_source_gives_the_same_tensor(photograph, tmp_path):
    photograph.save(tmp_path / "photo.png")
    array = np.array(photograph)
    expected = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    assert torch.equal(media.to_image_tensor(photograph), expected)
    assert torch.equal(media.to_image_tensor(array), expected)
    assert torch.equal(media.to_image_tensor(array[::-1, ::-1].copy()[::-1, ::-1]), expected)  # negative strides
    assert torch.equal(media.to_image_tensor((array / np.float32(255)).astype(np.float32)), expected)
    assert torch.equal(media.to_image_tensor(torch.from_numpy(array).permute(2, 0, 1)), expected)
    assert torch.equal(media.to_image_tensor(expected), expected)
    assert torch.equal(media.load_image(tmp_path / "photo.png"), expected)
    assert torch.equal(media.load_image(str(tmp_path / "photo.png")), expected)


def test_a_grey_array_is_repeated():
    grey = np.array([[0, 128, 255]], np.uint8)
    assert media.to_image_tensor(grey).tolist() == (torch.tensor(grey).float() / 255).expand(3, 1, 3).tolist()


def test_bad_sources_are_refused_with_what_came():
    image = torch.rand(3, 4, 5)
    array = image.permute(1, 2, 0).numpy()
    cases = [
        (image[None], r"expected an image tensor \[3, height, width\], got \[1, 3, 4, 5\]"),
        (image[:1], r"got \[1, 4, 5\]"),
        (image[..., :0], r"got \[3, 4, 0\]"),
        (image.long(), "expected an image tensor of uint8, or floats in .* got torch.int64"),
        (image * 255, "expected a float image in .* got values from .* to 2"),
        (image - 2, "got values from -1.* to -1"),
        (image.masked_fill(image == image.max(), torch.nan), "got values from nan to nan"),
        (array.transpose(2, 0, 1), r"expected an image array \[H, W, 3\] or \[H, W\], got \[3, 4, 5\]"),
        (array[..., [0, 1, 2, 0]], r"got \[4, 5, 4\]"),
        (array.astype(np.uint16), "expected an image array of uint8, or floats in .* got uint16"),
        ([[0.0]], r"expected an image as path, Pillow image, .* got list"),
    ]
    for bad, message in cases:
        with pytest.raises(InputError, match=message):
            media.to_image_tensor(bad)


# Resizing and cropping


@pytest.mark.parametrize("size", [(640, 480), (481, 641), (31, 97), (256, 256), (1, 5), (255, 700)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_resizing_is_torchvisions_on_a_pillow_image(photograph, size, interpolation):
    picture = photograph.resize(size)
    pixels = torchvision.transforms.functional.pil_to_tensor(picture)
    resized = media.resize_short_side(pixels, 256, interpolation)
    resize = torchvision.transforms.Resize(256, torchvision.transforms.InterpolationMode(interpolation))
    expected = torchvision.transforms.functional.pil_to_tensor(resize(picture))
    assert torch.equal(resized, expected)


# With weights below zero, Pillow also clips between its two passes.
@pytest.mark.parametrize(
    ("interpolation", "levels"),
    [("bilinear", 1.01), ("opencv", 1.01), ("box", 1.01), ("bicubic", 4), ("lanczos", 8), ("halved-bicubic", 8)],
)
def test_floats_are_resized_with_the_same_filter(photograph, interpolation, levels):
    pixels = torchvision.transforms.functional.pil_to_tensor(photograph)
    resized = media.resize_short_side(pixels / 255, 100, interpolation)
    assert (resized * 255 - media.resize_short_side(pixels, 100, interpolation)).abs().max() <= levels
    assert 0 <= resized.min() <= resized.max() <= 1


def bilinear_of_four_pixels(values: np.ndarray, size: int) -> np.ndarray:
    """Rows resized along axis 0 to `size`: each lies between the two whose centres are nearest to its own."""
    centres = np.clip((np.arange(size) + 0.5) * len(values) / size - 0.5, 0, len(values) - 1)
    above = np.floor(centres).astype(int)
    share = (centres - above)[:, None, None]
    return values[above] * (1 - share) + values[np.minimum(above + 1, len(values) - 1)] * share


@pytest.mark.parametrize(("size", "expected"), [((640, 480), (64, 85)), ((31, 97), (200, 64)), ((641, 500), (64, 82))])
def test_opencvs_resizing_takes_four_pixels_and_rounds_the_long_side(photograph, size, expected):
    picture = photograph.resize(size)
    pixels = torchvision.transforms.functional.pil_to_tensor(picture)
    rows = bilinear_of_four_pixels(np.asarray(picture, dtype=np.float64), expected[0])
    plain = bilinear_of_four_pixels(rows.swapaxes(0, 1), expected[1]).swapaxes(0, 1)
    resized = media.resize_short_side(pixels, 64, "opencv")
    assert resized.shape[1:] == expected
    assert np.abs(resized.movedim(0, -1).numpy() - plain).max() <= 0.501


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (8, 8), (11, 10)])
def test_cropping_is_torchvisions(size):
    image = gradient(11, 10)
    assert torch.equal(media.center_crop(image, size), torchvision.transforms.CenterCrop(size)(image))


def test_a_crop_beyond_the_image_is_refused():
    with pytest.raises(InputError, match=r"expected a crop within \[11, 10\], got \[11, 11\]"):
        media.center_crop(gradient(11, 10), 11)


def test_loading_at_a_resolution_is_the_usual_preprocessing(photograph, tmp_path):
    photograph.save(tmp_path / "photo.png")
    transforms = torchvision.transforms
    usual = transforms.Compose([transforms.Resize(128), transforms.CenterCrop(128), transforms.ToTensor()])
    for source in (tmp_path / "photo.png", photograph, np.array(photograph)):
        assert torch.equal(media.load_image(source, resolution=128), usual(photograph))
    with pytest.raises(InputError, match="at least 1 pixel, got 0"):
        media.load_image(photograph, resolution=0)


# Finding files


def test_a_folder_gives_its_files_of_one_modality_sorted(tmp_path):
    for name in ("b.WAV", "a/c.flac", "a/b.mp3", "photo.png", "notes.txt", ".hidden.wav", ".cache/d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = [tmp_path / "a/b.mp3", tmp_path / "a/c.flac", tmp_path / "b.WAV"]
    assert media.media_files(tmp_path, "audio") == expected
    assert media.media_files([str(tmp_path / "a"), tmp_path / "notes.txt"], "audio") == [
        *expected[:2],
        tmp_path / "notes.txt",
    ]


def test_what_cannot_be_found_is_named(tmp_path):
    with pytest.raises(MediaError, match="none: no such file or folder"):
        media.media_files([tmp_path / "none"], "audio")
    with pytest.raises(MediaError, match=r"holds no video file \(\.mp4 "):
        media.media_files(tmp_path, "video")
    with pytest.raises(InputError, match="expected a modality among image, audio, video, structure, got 'sound'"):
        media.media_files(tmp_path, "sound")


def test_the_suffix_tells_the_modality():
    assert media.modality_of("a/b.PNG") == "image"
    assert media.modality_of("speech.flac") == "audio"
    assert media.modality_of("clip.mkv") == "video"
    assert media.modality_of("1abc.cif") == "structure"
    with pytest.raises(InputError, match=r"notes\.txt: expected a suffix among .* got '\.txt'"):
        media.modality_of("notes.txt")
