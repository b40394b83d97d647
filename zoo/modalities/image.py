"""Images: from files, Pillow images and arrays to tensors and back, and the resizing of inputs of image models.

Images are `[3, H, W]`, uint8 as read or float in [0, 1].
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.errors import InputError, MediaError
from zoo.files import atomic_path
from zoo.modalities.base import FLOATING, Modality, Signal, check_ordinary, cut_square
from zoo.modalities.files import MediaFile, as_file, named_warnings, opened

if TYPE_CHECKING:
    from PIL import Image

    from zoo.spec import TokenizerSpec

Interpolation = Literal["bilinear", "bicubic", "lanczos", "box", "opencv", "halved-bicubic", "rounded-lanczos"]
MOST_PIXELS = 178_956_970  # of a resized image; Pillow's own limit for files
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF


class ImageModality(Modality):
    """Images `[B, 3, H, W]` in [0, 1]."""

    name = "image"
    title = "Images"
    noun = ("image", "images")
    axes = ("height", "width")
    suffixes = (
        ".png",
        ".jpg",
        ".jpeg",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".jfif",
        ".jpe",
        ".tga",
        ".avif",
        ".jp2",
        ".heic",
    )
    signal_suffix = ".png"
    lossless_suffix = ".png"
    options = ("resolution", "crop", "interpolation", "margin", "stretch", "target_size")
    has_unit_range = True
    batches_have_lengths = False
    network_range = (0.5, 0.5)
    raw_bits = 8
    unit = "/image"
    reference = "256x256 image"
    reference_size = (256, 256)
    amount_unit = "pixels"
    rate_unit = "bits per pixel"
    speed_unit = "megapixels/s"
    speed_scale = 1e-6
    quality = ("psnr", "ssim")
    validation_metrics = ("psnr", "ssim")
    size_hint = "; resolution= resizes them to one"

    def check_lengths(self, lengths: Any, x: Tensor) -> Tensor:
        raise InputError("lengths are for audio, video and structures; images of a batch have one size")

    def load(self, source: Any, spec: TokenizerSpec, **options: Any) -> Signal:
        return Signal(_to_float(fitted(_read(source), spec, options)))

    def write(
        self,
        path: str | Path,
        signal: Any,
        spec: TokenizerSpec,
        *,
        frame_rate: float | None = None,
        pixel_aspect: float | None = None,
        overwrite: bool = False,
    ) -> None:
        write_image(path, signal, overwrite=overwrite)


def read_image(path: MediaFile) -> Tensor:
    """Read an image file as uint8 `[3, H, W]`.

    The image is rotated as its EXIF data says. The first frame of an animation is read. Grey is repeated, palettes are
    looked up, transparency is composited on white, and 16 bits are reduced to 8.

    Raises:
        MediaError: a file that is missing or damaged, is not an image, is larger than Pillow's limit against
            decompression bombs, or has samples without a stated range (32-bit integers or floats).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with named_warnings(path), Image.open(opened(path)) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _pixels(image)
    except UnidentifiedImageError as error:
        heic = "; pillow-heif's register_heif_opener() makes Pillow read HEIC"
        hint = heic if Path(str(path)).suffix.lower() == ".heic" else ""
        raise MediaError(f"{path}: cannot be read as an image: {error}{hint}") from error
    except OSError as error:
        raise MediaError(f"{path}: cannot be read as an image: {error.strerror or error}") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise MediaError(f"{path}: cannot be read as an image: {error}") from error


def write_image(path: str | Path, image: Tensor, overwrite: bool = False) -> None:
    """Write an image in the format that the suffix names, whole or not at all.

    Args:
        path: ends in `.png` or another suffix that Pillow writes; JPEG and WebP are written at quality 95.
        image: float `[3, H, W]` in [0, 1], clamped; or uint8.
        overwrite: whether an existing file is replaced.

    Raises:
        InputError: an unknown suffix, another shape or dtype of the image, or a value that is not finite.
        MediaError: the file exists or cannot be written.
    """
    from PIL import Image

    path = Path(path)
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format not in Image.SAVE:
        raise InputError(f"{path}: expected a suffix of an image format, such as .png, got {path.suffix!r}")
    _check_image(image)
    if image.is_floating_point():
        if not image.isfinite().all():
            raise InputError("expected an image in [0, 1], got values that are not finite")
        image = (image.float().clamp(0, 1) * 255).round().to(torch.uint8)
    encoded = io.BytesIO()  # to a file, Pillow's JPEG encoder would not notice a full disk
    with atomic_path(path, overwrite) as temporary:
        Image.fromarray(image.permute(1, 2, 0).cpu().numpy()).save(encoded, image_format, quality=95)
        temporary.write_bytes(encoded.getbuffer())


def to_image_tensor(source: Image.Image | np.ndarray | Tensor) -> Tensor:
    """Return an image in memory as float32 `[3, H, W]` in [0, 1].

    Args:
        source: a Pillow image of any mode that `read_image` takes; an array `[H, W, 3]` or `[H, W]` or a tensor
            `[3, H, W]`, either uint8 or floating point in [0, 1].

    Raises:
        InputError: another type, dtype, shape or range, or a value that is not finite.
    """
    return _to_float(_from_memory(source))


def load_image(
    source: Any, *, resolution: int | None = None, crop: int | None = None, interpolation: Interpolation = "bilinear"
) -> Tensor:
    """Load the input of an image model: float32 `[3, H, W]` in [0, 1].

    Args:
        source: path, bytes, file object, or anything that `to_image_tensor` takes.
        resolution: the short side is resized to this; None: it is not resized.
        crop: side of the centre square that is kept; None: `resolution`; 0: the whole image.
        interpolation: as in `resize_short_side`.

    Raises:
        InputError: as in `to_image_tensor`, or a crop larger than the image.
        MediaError: as in `read_image`.
    """
    return _to_float(square(_read(source), resolution, resolution if crop is None else crop, interpolation))


def fitted(image: Tensor, spec: TokenizerSpec, options: dict[str, Any]) -> Tensor:
    """Return an image or a frame `[3, H, W]`, resized and cut as the options of `load` say, in its own data type.

    Raises:
        InputError: options or an image that the network does not take.
    """
    interpolation = options.get("interpolation", "bilinear")
    resolution, crop = cut_square(options, spec)
    if options.get("stretch") and not {"resolution", "crop"} & options.keys():
        assert spec.resolution is not None, "the network has one size"
        return resize(image, spec.resolution, interpolation)
    if "target_size" in options and resolution is not None:
        image = resize(image, options["target_size"](*image.shape[1:], resolution), interpolation)
        return center_crop(image, crop) if options.get("crop") and crop else image
    if not spec.other_scales:
        return square(image, resolution, crop, interpolation)
    if "crop" in options:
        raise InputError(f"{spec.name} chooses the crop by the shape of the image; resolution= chooses the size")
    return covered(image, nearest_size(spec, image, resolution or 0), interpolation)


def square(image: Tensor, resolution: int | None, crop: int | None, interpolation: Interpolation) -> Tensor:
    """Return an image whose short side is resized to `resolution` and whose middle is cut out, where they are given."""
    if resolution is not None:
        image = resize_short_side(image, resolution, interpolation)
    if not crop:
        return image
    upper_left = interpolation in ("halved-bicubic", "rounded-lanczos")
    return middle(image, (crop, crop)) if upper_left else center_crop(image, crop)


def resize_short_side(image: Tensor, size: int, interpolation: Interpolation = "bilinear") -> Tensor:
    """Resize so that the short side has `size` pixels, as torchvision's Resize does.

    The long side is `int(size * long / short)`; for "opencv", "halved-bicubic" and "rounded-lanczos" that is rounded to
    the nearest integer, halves to even.

    Args:
        image: `[3, H, W]`, uint8 or floating point in [0, 1].
        size: pixels, at least 1.
        interpolation: as in `resize`; "halved-bicubic" halves both sides with "box" while the short one is at least
            twice too long, and then is "bicubic", as in OpenAI's guided-diffusion and what follows it;
            "rounded-lanczos" is "lanczos".

    Raises:
        InputError: shape or dtype of the image, or a size below 1.
    """
    _check_image(image)
    if size < 1:
        raise InputError(f"expected a size of at least 1 pixel, got {size}")
    rounded = interpolation in ("opencv", "halved-bicubic", "rounded-lanczos")
    if interpolation == "halved-bicubic":
        while min(image.shape[1:]) >= 2 * size:
            image = resize(image, (image.shape[1] // 2, image.shape[2] // 2), "box")
        interpolation = "bicubic"
    elif interpolation == "rounded-lanczos":
        interpolation = "lanczos"
    height, width = image.shape[1:]
    short, long = sorted((height, width))
    long = round(long * (size / short)) if rounded else size * long // short
    return resize(image, (size, long) if height <= width else (long, size), interpolation)


def resize(image: Tensor, size: tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
    """Resize to a height and a width.

    Args:
        image: `[3, H, W]`, uint8 or floating point in [0, 1].
        size: height and width in pixels.
        interpolation: "bilinear", "bicubic", "lanczos" and "box" are antialiased: uint8 goes through Pillow; float is
            interpolated with the same filter and not rounded (for the last two by Pillow, channel by channel). "opencv"
            is OpenCV's bilinear interpolation, of four pixels even where an image is made much smaller, and within one
            level of its bytes.

    Raises:
        InputError: shape or dtype of the image, or an image that would be too large.
    """
    from torchvision.transforms import InterpolationMode, functional

    _check_image(image)
    if tuple(image.shape[1:]) == size:
        return image
    if size[0] * size[1] > MOST_PIXELS:
        raise InputError(
            f"expected a resized image of at most {MOST_PIXELS} pixels, got {size[0]}x{size[1]} "
            f"from {image.shape[1]}x{image.shape[2]}"
        )
    if interpolation == "opencv":
        resized = torch.nn.functional.interpolate(image[None].float(), size, mode="bilinear")[0]
        return resized.to(image.dtype) if image.is_floating_point() else resized.add_(0.5).to(torch.uint8)
    mode = InterpolationMode(interpolation)
    if not image.is_floating_point():
        return _pixels(functional.resize(functional.to_pil_image(image), list(size), mode)).to(image.device)
    # Clamped, as bytes are: interpolation exceeds the range of its input.
    if interpolation not in ("lanczos", "box"):
        return functional.resize(image, list(size), mode, antialias=True).clamp(0, 1)
    channels = [functional.to_pil_image(channel.float().cpu(), mode="F") for channel in image]
    planes = [torch.from_numpy(np.array(functional.resize(channel, list(size), mode))) for channel in channels]
    return torch.stack(planes).clamp(0, 1).to(image)


def center_crop(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Return the middle of an image, as torchvision's CenterCrop places it.

    Args:
        image: `[3, H, W]`, uint8 or floating point.
        size: height and width, or the side of a square.

    Raises:
        InputError: shape or dtype of the image, or a size beyond it.
    """
    from torchvision.transforms import functional

    _check_image(image)
    height, width = (size, size) if isinstance(size, int) else size
    if not (1 <= height <= image.shape[1] and 1 <= width <= image.shape[2]):
        raise InputError(f"expected a crop within {list(image.shape[1:])}, got {[height, width]}")
    return functional.center_crop(image, [height, width])


def middle(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the middle of an image `[3, H, W]`; where it cannot be in the middle, it is nearer to the upper left."""
    top, left = ((present - wanted) // 2 for present, wanted in zip(image.shape[1:], size, strict=True))
    return image[:, top : top + size[0], left : left + size[1]]


def covered(image: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Return an image resized so that it just covers `size` (height, width), its ratio kept, and cut to that."""
    (height, width), (wanted_height, wanted_width) = image.shape[1:], size
    if width * wanted_height <= wanted_width * height:
        resized = (wanted_width * height // width, wanted_width)
    else:
        resized = (wanted_height, wanted_height * width // height)
    return middle(resize(image, resized, interpolation), size)


def nearest_size(spec: TokenizerSpec, image: Tensor, resolution: int) -> tuple[int, int]:
    """Return the size of a spec with many whose ratio of height and width is nearest to that of an image.

    Args:
        resolution: side of the square that has as many scales.

    Raises:
        InputError: another resolution than that of such a square.
    """
    if (resolution, resolution) not in spec.sizes:
        sides = ", ".join(str(height) for height, width in spec.sizes if height == width)
        raise InputError(f"{spec.name} takes images of the resolutions {sides}, got {resolution}")
    number = len(spec.scales_of((resolution, resolution)))
    sizes = [size for size, scales in zip(spec.sizes, spec.pyramids, strict=True) if len(scales) == number]
    ratio = image.shape[1] / image.shape[2]
    height, width = min(sizes, key=lambda size: abs(size[0] / size[1] - ratio))
    return height, width


def _pixels(image: Image.Image) -> Tensor:
    """Return a Pillow image of any mode as uint8 `[3, H, W]`."""
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image)
        tags = getattr(image, "tag_v2", {})
        greatest = 2 ** min(tags.get(BITS_PER_SAMPLE, (16,))[0], 16) - 1
        if values.min() < 0 or values.max() > greatest:
            raise InputError("expected 8 or 16 bits a sample, got 32-bit integers")
        levels = ((np.arange(greatest + 1) * 255 + greatest // 2) // greatest).astype(np.uint8)
        if tags.get(PHOTOMETRIC) == 0:  # 0 is white
            levels = levels[::-1].copy()
        return torch.from_numpy(levels[values]).expand(3, -1, -1).contiguous()
    if image.mode == "F":
        raise InputError("expected 8 or 16 bits a sample, got 32-bit floats")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _read(source: Any) -> Tensor:
    """Return an image from a file or from memory as `[3, H, W]`, uint8 or floating point in [0, 1]."""
    file = as_file(source)
    return _from_memory(source) if file is None else read_image(file)


def _from_memory(source: Image.Image | np.ndarray | Tensor) -> Tensor:
    """Return an image in memory as `[3, H, W]`, uint8 or floating point in [0, 1]."""
    from PIL import Image, ImageOps

    if isinstance(source, Image.Image):
        return _pixels(ImageOps.exif_transpose(source))
    if isinstance(source, np.ndarray):
        if source.ndim == 2:
            source = np.stack([source] * 3, axis=-1)
        if source.ndim != 3 or source.shape[2] != 3 or source.size == 0:
            raise InputError(f"expected an image array [H, W, 3] or [H, W], got {list(source.shape)}")
        if source.dtype != np.uint8 and source.dtype not in (np.float16, np.float32, np.float64):
            raise InputError(f"expected an image array of uint8, or floats in [0, 1], got {source.dtype}")
        source = torch.from_numpy(np.array(source)).permute(2, 0, 1)
    elif not isinstance(source, Tensor):
        kinds = "path, Pillow image, bytes, array [H, W, 3] or tensor [3, H, W]"
        raise InputError(f"expected an image as {kinds}, got {type(source).__name__}")
    _check_image(source)
    if source.is_floating_point():
        check_unit_range(source, "a float image")
    return source


def check_unit_range(values: Tensor, what: str) -> None:
    """Raise InputError for values outside [0, 1] and for NaN, with a hint if they look like bytes."""
    least, greatest = (bound.item() for bound in values.aminmax())
    if not (least >= 0 and greatest <= 1):  # NaN fails too
        hint = "; divide by 255?" if least >= 0 and 1 < greatest <= 256 else ""
        raise InputError(f"expected {what} in [0, 1], got values from {least:.4g} to {greatest:.4g}{hint}")


def _to_float(image: Tensor) -> Tensor:
    return image.float() if image.is_floating_point() else image.float().div_(255)


def _check_image(image: Tensor) -> None:
    if isinstance(image, Tensor):
        check_ordinary(image, "an image")
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3 or image.numel() == 0:
        came = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"expected an image tensor [3, height, width], got {came}")
    if image.dtype != torch.uint8 and image.dtype not in FLOATING:
        raise InputError(f"expected an image tensor of uint8, or floats in [0, 1], got {image.dtype}")


MODALITY = ImageModality()
