"""Cosmos DI and DV against a plain computation from the published keys, at a small configuration."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from tests.support.paths import GOLDENS
from zoo.layers.haar import haar, inverse_haar
from zoo.models.image import cosmos as di
from zoo.models.video import cosmos as dv
from zoo.parity import parity, synthetic_checkpoint
from zoo.testing import small

MULTIPLIERS, NUM_BLOCKS, LATENT_WIDTH, LEVELS = (2, 4, 4), 2, 8, [8, 8, 8, 5, 5, 5]
# Per level of the encoder and, counted as the authors do, of the decoder: halved or doubled in (time, space).
LAYOUTS = {
    (4, 8, 8): ({0: (False, True)}, {2: (False, True)}),
    (8, 8, 8): ({0: (True, True)}, {1: (True, True)}),
    (8, 16, 16): ({0: (True, True), 1: (False, True)}, {2: (False, True), 1: (True, True)}),
}


def published_shapes(width, bands, down, up, conv, norm, attentions) -> dict[str, list[int]]:
    """Names and shapes of the authors' tensors; `conv` and `norm` are how the one or the other network names them."""
    shapes: dict[str, list[int]] = {}

    def block(key, c_in, c_out):
        shapes.update(norm(f"{key}.norm1", c_in) | conv(f"{key}.conv1", c_in, c_out, 3))
        shapes.update(norm(f"{key}.norm2", c_out) | conv(f"{key}.conv2", c_out, c_out, 3))
        if c_in != c_out:
            shapes.update(conv(f"{key}.nin_shortcut", c_in, c_out, 1))

    channels = [width * multiplier for multiplier in (1, *MULTIPLIERS)]
    last = channels[-1]
    shapes.update(conv("encoder.conv_in", bands, width, 3) | conv("encoder.conv_out", last, LATENT_WIDTH, 3))
    shapes.update(conv("decoder.conv_in", LATENT_WIDTH, last, 3) | conv("decoder.conv_out", channels[1], bands, 3))
    shapes.update(norm("encoder.norm_out", last) | norm("decoder.norm_out", channels[1]))
    shapes.update(conv("quant_conv", LATENT_WIDTH, 6, 1) | conv("post_quant_conv", 6, LATENT_WIDTH, 1))
    for side in ("encoder", "decoder"):
        block(f"{side}.mid.block_1", last, last)
        block(f"{side}.mid.block_2", last, last)
        for attention in attentions:
            shapes.update(norm(f"{side}.mid.{attention}.norm", last))
            for part in ("q", "k", "v", "proj_out"):
                shapes.update(conv(f"{side}.mid.{attention}.{part}", last, last, 1))
    for i in range(3):
        for j in range(NUM_BLOCKS):
            block(f"encoder.down.{i}.block.{j}", channels[i if j == 0 else i + 1], channels[i + 1])
        for j in range(NUM_BLOCKS + 1):
            block(f"decoder.up.{i}.block.{j}", channels[min(i + 2, 3) if j == 0 else i + 1], channels[i + 1])
        if i in down:
            shapes.update(down[i](f"encoder.down.{i}.downsample", channels[i + 1]))
        if i in up:
            shapes.update(up[i](f"decoder.up.{i}.upsample", channels[i + 1]))
    return shapes


def published_image_shapes(stride: int) -> dict[str, list[int]]:
    def conv(key, c_in, c_out, kernel):
        return {f"{key}.weight": [c_out, c_in, kernel, kernel], f"{key}.bias": [c_out]}

    def norm(key, channels):
        return {f"{key}.weight": [channels], f"{key}.bias": [channels]}

    def resampling(key, channels):
        return conv(f"{key}.conv", channels, channels, 3)

    down, up = ({0}, {2}) if stride == 8 else ({0, 1}, {2, 1})
    return published_shapes(
        32, 48, dict.fromkeys(down, resampling), dict.fromkeys(up, resampling), conv, norm, ["attn_1"]
    )


def published_video_shapes(strides: tuple[int, int, int]) -> dict[str, list[int]]:
    def kernel(key, c_in, c_out, *size):
        return {f"{key}.conv3d.weight": [c_out, c_in, *size], f"{key}.conv3d.bias": [c_out]}

    def conv(key, c_in, c_out, size):
        if size == 1:
            return kernel(key, c_in, c_out, 1, 1, 1)
        return kernel(f"{key}.0", c_in, c_out, 1, 3, 3) | kernel(f"{key}.1", c_out, c_out, 3, 1, 1)

    def norm(key, channels):
        return {f"{key}.norm.weight": [channels], f"{key}.norm.bias": [channels]}

    def resampling(time, space_conv, time_conv):
        def shapes(key, channels):
            found = kernel(f"{key}.{space_conv}", channels, channels, 1, 3, 3)
            if time:
                found |= kernel(f"{key}.{time_conv}", channels, channels, 3, 1, 1)
            return found | kernel(f"{key}.conv3", channels, channels, 1, 1, 1)

        return shapes

    down = {i: resampling(time, "conv1", "conv2") for i, (time, _) in LAYOUTS[strides][0].items()}
    up = {i: resampling(time, "conv2", "conv1") for i, (time, _) in LAYOUTS[strides][1].items()}
    return published_shapes(8, 192, down, up, conv, norm, ["attn_1.0", "attn_1.1"])


def swish(x):
    return x / (1 + torch.exp(-x))


class PlainNetwork:
    """What both networks do alike; `conv`, `norm`, `attend` and the resampling are their own."""

    def __init__(self, state):
        self.state = state

    def block(self, x, key):
        h = self.conv(swish(self.norm(x, f"{key}.norm1")), f"{key}.conv1")
        h = self.conv(swish(self.norm(h, f"{key}.norm2")), f"{key}.conv2")
        has_shortcut = any(name.startswith(f"{key}.nin_shortcut.") for name in self.state)
        return h + (self.conv(x, f"{key}.nin_shortcut") if has_shortcut else x)

    def mid(self, x, side):
        x = self.attend(self.block(x, f"{side}.mid.block_1"), f"{side}.mid.attn_1")
        return self.block(x, f"{side}.mid.block_2")

    def encode(self, x):
        x = self.conv(self.patches(x), "encoder.conv_in")
        for i in range(3):
            for j in range(NUM_BLOCKS):
                x = self.block(x, f"encoder.down.{i}.block.{j}")
            x = self.downsample(x, i)
        x = self.conv(swish(self.norm(self.mid(x, "encoder"), "encoder.norm_out")), "encoder.conv_out")
        return self.conv(x, "quant_conv")

    def decode(self, quantized):
        x = self.mid(self.conv(self.conv(quantized, "post_quant_conv"), "decoder.conv_in"), "decoder")
        for i in (2, 1, 0):
            for j in range(NUM_BLOCKS + 1):
                x = self.block(x, f"decoder.up.{i}.block.{j}")
            x = self.upsample(x, i)
        return self.pixels(self.conv(swish(self.norm(x, "decoder.norm_out")), "decoder.conv_out"))


class PlainImage(PlainNetwork):
    def __init__(self, state, stride):
        super().__init__(state)
        self.num_strides = {8: 1, 16: 2}[stride]

    def conv(self, x, key, padding=None, stride=1):
        weight = self.state[f"{key}.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.state[f"{key}.bias"], padding=padding, stride=stride)

    def norm(self, x, key):
        groups = min(32, x.shape[1] // 4)
        return F.group_norm(x, groups, self.state[f"{key}.weight"], self.state[f"{key}.bias"], eps=1e-6)

    def attend(self, x, key):
        h = self.norm(x, f"{key}.norm")
        q, k, v = (self.conv(h, f"{key}.{part}").flatten(2) for part in "qkv")
        shares = torch.softmax(torch.einsum("bci,bcj->bij", q, k) * q.shape[1] ** -0.5, dim=-1)
        return x + self.conv(torch.einsum("bij,bcj->bci", shares, v).reshape(x.shape), f"{key}.proj_out")

    def downsample(self, x, i):
        if i >= self.num_strides:
            return x
        return self.conv(F.pad(x, (0, 1, 0, 1)), f"encoder.down.{i}.downsample.conv", padding=0, stride=2)

    def upsample(self, x, i):
        if i < 3 - self.num_strides:
            return x
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), f"decoder.up.{i}.upsample.conv")

    def patches(self, x):
        for _ in range(2):
            a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
            x = torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], 1) / 4
        return x

    def pixels(self, x):
        for _ in range(2):
            ll, lh, hl, hh = x.chunk(4, 1)
            batch, channels, height, width = ll.shape
            x = torch.empty(batch, channels, 2 * height, 2 * width)
            x[..., ::2, ::2], x[..., ::2, 1::2] = ll + lh + hl + hh, ll + lh - hl - hh
            x[..., 1::2, ::2], x[..., 1::2, 1::2] = ll - lh + hl - hh, ll - lh - hl + hh
        return x


class PlainVideo(PlainNetwork):
    def __init__(self, state, strides):
        super().__init__(state)
        self.down, self.up = LAYOUTS[strides]

    def kernel(self, x, key, stride=(1, 1, 1), pad=True):
        """A published 3D convolution: the first frame repeated in front, zeros around."""
        weight = self.state[f"{key}.conv3d.weight"]
        time, height, width = weight.shape[2:]
        front = time - 1 + 1 - stride[0]
        x = torch.cat([x[:, :, :1]] * front + [x], 2)
        padding = (0, height // 2, width // 2) if pad else 0
        return F.conv3d(x, weight, self.state[f"{key}.conv3d.bias"], stride=stride, padding=padding)

    def conv(self, x, key):
        if f"{key}.conv3d.weight" in self.state:
            return self.kernel(x, key)
        return self.kernel(self.kernel(x, f"{key}.0"), f"{key}.1")

    def norm(self, x, key):
        mean = x.mean((1, 3, 4), keepdim=True)
        variance = ((x - mean) ** 2).mean((1, 3, 4), keepdim=True)
        scale, shift = (self.state[f"{key}.norm.{part}"][:, None, None, None] for part in ("weight", "bias"))
        return (x - mean) / (variance + 1e-6) ** 0.5 * scale + shift

    def attend(self, x, key):
        for part, axes in ((0, "bcthw,bctij->bthwij"), (1, "bcthw,bcshw->bhwts")):
            h = self.norm(x, f"{key}.{part}.norm")
            q, k, v = (self.kernel(h, f"{key}.{part}.{name}") for name in "qkv")
            logits = torch.einsum(axes, q, k) * q.shape[1] ** -0.5
            if part == 0:
                shares = torch.softmax(logits.flatten(4), dim=-1).reshape(logits.shape)
                h = torch.einsum("bthwij,bctij->bcthw", shares, v)
            else:
                later = torch.ones(logits.shape[-2:]).triu(1).bool()
                shares = torch.softmax(logits.masked_fill(later, -torch.inf), dim=-1)
                h = torch.einsum("bhwts,bcshw->bcthw", shares, v)
            x = x + self.kernel(h, f"{key}.{part}.proj_out")
        return x

    def downsample(self, x, i):
        if i not in self.down:
            return x
        key, (time, _) = f"encoder.down.{i}.downsample", self.down[i]
        x = F.pad(x, (0, 1, 0, 1))
        pooled = F.avg_pool3d(x, (1, 2, 2), (1, 2, 2))
        x = self.kernel(x, f"{key}.conv1", (1, 2, 2), pad=False) + pooled
        if time:
            x = torch.cat([x[:, :, :1], x], 2)
            x = self.kernel(x, f"{key}.conv2", (2, 1, 1)) + F.avg_pool3d(x, (2, 1, 1), (2, 1, 1))
        return self.kernel(x, f"{key}.conv3")

    def upsample(self, x, i):
        if i not in self.up:
            return x
        key, (time, _) = f"decoder.up.{i}.upsample", self.up[i]
        if time:
            if x.shape[2] > 1:
                x = torch.stack([x, x], 3).flatten(2, 3)[:, :, 1:]
            x = x + self.kernel(x, f"{key}.conv1")
        x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
        return self.kernel(x + self.kernel(x, f"{key}.conv2"), f"{key}.conv3")

    def patches(self, x):
        x = torch.cat([x[:, :, :1]] * 3 + [x], 2)
        for _ in range(2):
            bands = []
            for time in (1, -1):
                for height in (1, -1):
                    for width in (1, -1):
                        band = x[:, :, ::2] + time * x[:, :, 1::2]
                        band = band[:, :, :, ::2] + height * band[:, :, :, 1::2]
                        bands.append((band[..., ::2] + width * band[..., 1::2]) / 8)
            x = torch.cat(bands, 1)
        return x

    def pixels(self, x):
        for _ in range(2):
            bands = x.unflatten(1, (2, 2, 2, -1))
            batch, *_, channels, frames, height, width = bands.shape
            x = torch.empty(batch, channels, 2 * frames, 2 * height, 2 * width)
            for t in range(2):
                for h in range(2):
                    for w in range(2):
                        signs = torch.ones(2, 2, 2)
                        signs[1] *= (-1) ** t
                        signs[:, 1] *= (-1) ** h
                        signs[:, :, 1] *= (-1) ** w
                        x[:, :, t::2, h::2, w::2] = torch.einsum("zyx,bzyxcthw->bcthw", signs, bands)
        return x[:, :, 3:]


def plain_quantize(latent):
    """Codes and the normalised levels, channel by channel."""
    codes, quantized, basis = 0, [], 1
    for channel, level in enumerate(LEVELS):
        half_range = torch.tensor((level - 1) * 1.001 / 2)
        offset = 0.0 if level % 2 else 0.5
        n = torch.round(torch.tanh(latent[:, channel] + torch.atanh(offset / half_range)) * half_range - offset)
        codes = codes + (n.long() + level // 2) * basis
        quantized.append(n / (level // 2))
        basis *= level
    return codes, torch.stack(quantized, 1)


def register_small(like: str, config: dict) -> str:
    name = f"{like}-small"
    variant = zoo.info(like)
    spec = type(variant.spec)(**{**vars(variant.spec), "name": name})
    config = {**variant.config, "num_blocks": NUM_BLOCKS, "latent_width": LATENT_WIDTH, **config}
    zoo.register(name, variant.builder, spec=spec, config=config, keys=variant.keys, card="cosmos")
    return name


def small_image(stride: int):
    name = register_small(f"cosmos-di-{stride}x{stride}", {"width": 32})
    shapes = published_image_shapes(stride)
    return name, shapes, lambda state: PlainImage(state, stride), "b c h w"


def small_video(strides: tuple[int, int, int]):
    name = register_small("cosmos-dv-" + "x".join(map(str, strides)), {"width": 8})
    shapes = published_video_shapes(strides)
    return name, shapes, lambda state: PlainVideo(state, strides), "b c t h w"


def tensors(shapes: dict[str, list[int]]) -> dict[str, dict]:
    entries = {key: {"shape": shape, "dtype": "float32"} for key, shape in shapes.items()}
    # Latents that reach all levels of the quantizer.
    entries[next(key for key in shapes if key.startswith("quant_conv") and key.endswith("weight"))]["std"] = 0.7
    return entries


def write_golden(folder: Path, shapes, network, axes: str, size: tuple[int, ...], batch: int, seed: int):
    tolerance = {"code_agreement": 1.0, "latent_max_abs": 1e-4, "reconstruction_max_abs": 1e-4}
    axes_of = {"input": axes, "codes": axes.replace(" c", ""), "reconstruction": axes}
    manifest = {"tensors": tensors(shapes), "layout": [], "seed": seed, "axes": axes_of, "tolerance": tolerance}
    plain = network(synthetic_checkpoint(manifest))
    signal = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    latent = plain.encode(signal)
    codes, quantized = plain_quantize(latent)
    assert codes.unique().numel() > codes.numel() / 4
    arrays = {"input": signal, "latent": latent, "codes": codes, "quantized": quantized}
    arrays["reconstruction"] = plain.decode(quantized)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    np.savez(folder / "golden.npz", **{key: value.numpy() for key, value in arrays.items()})
    return folder / "manifest.json", folder / "golden.npz"


@pytest.fixture(autouse=True)
def registry_left_as_found(registrations):
    pass


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize(("size", "batch", "seed"), [((32, 32), 1, 0), ((48, 80), 3, 7)])
def test_small_di_computes_what_its_description_says(tmp_path, stride, size, batch, seed):
    name, *published = small_image(stride)
    report = parity(name, *write_golden(tmp_path, *published, size, batch, seed))
    assert set(report.differences) == {"latent", "quantized", "reconstruction"}
    assert report.passed, report
    assert report.differences["quantized"] == 0


@pytest.mark.parametrize("strides", LAYOUTS)
@pytest.mark.parametrize(("size", "batch", "seed"), [((9, 32, 48), 1, 0), ((17, 16, 32), 2, 7), ((1, 48, 16), 3, 1)])
def test_small_dv_computes_what_its_description_says(tmp_path, strides, size, batch, seed):
    name, *published = small_video(strides)
    report = parity(name, *write_golden(tmp_path, *published, size, batch, seed))
    assert set(report.differences) == {"latent", "quantized", "reconstruction"}
    assert report.passed, report
    assert report.differences["quantized"] == 0


@pytest.mark.parametrize(("build", "argument"), [(small_image, 16), (small_video, (8, 16, 16))], ids=["di", "dv"])
def test_weights_of_another_seed_are_not_at_parity(tmp_path, build, argument):
    name, *published = build(argument)
    size = (64, 64) if build is small_image else (9, 32, 32)
    report = parity(name, *write_golden(tmp_path, *published, size, 1, 0), seed=1)
    assert report.code_agreement < 0.5
    assert not report.passed


def write_archive(path: Path, state: dict[str, torch.Tensor]) -> None:
    """TorchScript, as NVIDIA publishes: tensors in bfloat16."""
    root = nn.Module()
    for key, tensor in state.items():
        *modules, name = key.split(".")
        module = root
        for child in modules:
            if child not in dict(module.named_children()):
                module.add_module(child, nn.Module())
            module = module.get_submodule(child)
        module.register_buffer(name, tensor.bfloat16() if tensor.is_floating_point() else tensor)
    torch.jit.save(torch.jit.script(root), path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("build", "argument", "buffers"),
    [
        (small_image, 8, ["encoder.patcher.wavelets", "encoder.patcher._arange", "decoder.unpatcher._arange"]),
        (
            small_video,
            (4, 8, 8),
            [
                *("encoder.patcher3d.wavelets", "encoder.patcher3d.patch_size_buffer", "decoder.unpatcher3d._arange"),
                # Of no use at this compression: in the authors' class, and in a file that is exported anew from it.
                *("encoder.down.0.downsample.conv2.conv3d.weight", "encoder.down.1.downsample.conv3.conv3d.bias"),
                *("decoder.up.2.upsample.conv1.conv3d.bias", "decoder.up.1.upsample.conv2.conv3d.weight"),
            ],
        ),
    ],
    ids=["di", "dv"],
)
def test_published_archives_load_in_float32_without_their_constants(tmp_path, build, argument, buffers):
    name, shapes, network, _ = build(argument)
    state = synthetic_checkpoint({"tensors": tensors(shapes)})
    constants = [*buffers, "quantizer.implicit_codebook", "quantizer._levels", "inv_quant.quantizer._basis"]
    write_archive(tmp_path / "autoencoder.jit", state | {key: torch.arange(6) for key in constants})
    tokenizer = zoo.load(name, weights=tmp_path / "autoencoder.jit")
    assert tokenizer.dtype == torch.float32
    plain = network({key: value.bfloat16().float() for key, value in state.items()})
    x = torch.rand(1, 3, 32, 32) if build is small_image else torch.rand(1, 3, 5, 16, 16)
    codes, quantized = plain_quantize(plain.encode(x * 2 - 1))
    assert torch.equal(tokenizer.encode(x)[:, 0], codes)
    expected = (plain.decode(quantized) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(tokenizer.decode(codes[:, None]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("build", "argument"), [(small_image, 16), (small_video, (8, 8, 8))], ids=["di", "dv"])
def test_resampling_that_a_variant_does_may_not_be_missing(build, argument):
    name, shapes, _, _ = build(argument)
    state = synthetic_checkpoint({"tensors": tensors(shapes)})
    key = next(key for key in state if "upsample" in key)
    del state[key]
    with pytest.raises(zoo.CheckpointError, match=f"1 tensor missing \\({key}\\)"):
        zoo.info(name).keys.convert(state, zoo.create(name).state_dict(), name)


@pytest.mark.parametrize(("name", "axes"), [("cosmos-di-16x16", di.WIDTH_HEIGHT), ("cosmos-dv-4x8x8", None)])
def test_wavelets_are_the_authors(name, axes):
    with np.load(GOLDENS / name / "golden.npz") as golden:
        signal, corner = (torch.from_numpy(golden[key]) for key in ("input", "wavelet_corner"))
    if axes is None:
        axes = dv.TIME_HEIGHT_WIDTH
        signal = torch.cat([signal[:, :, :1]] * dv.BEFORE_FIRST + [signal], 2)
    bands = haar(signal, axes, 2)
    torch.testing.assert_close(bands[..., :8, :8], corner, atol=1e-6, rtol=0)
    torch.testing.assert_close(inverse_haar(bands, axes, 2), signal, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "step"), [("cosmos-dv-4x8x8", 4), ("cosmos-dv-8x8x8", 8), ("cosmos-dv-8x16x16", 8)])
def test_the_first_codes_decode_to_the_first_frames(name, step):
    tokenizer = small(name)
    codes = torch.randint(64000, (1, 1, 3, 2, 3), generator=torch.Generator().manual_seed(0))
    whole = tokenizer.decode(codes)
    assert whole.shape[2] == 1 + 2 * step
    for positions in (1, 2):
        first = tokenizer.decode(codes[:, :, :positions])
        assert first.shape[2] == 1 + (positions - 1) * step
        torch.testing.assert_close(first, whole[:, :, : first.shape[2]], atol=1e-4, rtol=0)
    codes[:, :, 2] = 0
    assert not torch.equal(tokenizer.decode(codes)[:, :, -step:], whole[:, :, -step:])


def test_a_picture_is_a_video_of_one_frame():
    tokenizer = small("cosmos-dv-8x16x16")
    picture = torch.rand(2, 3, 1, 40, 32)
    codes = tokenizer.encode(picture)
    assert codes.shape == (2, 1, 1, 3, 2)
    assert tokenizer.decode(codes, size=(1, 40, 32)).shape == picture.shape


def test_frames_behind_the_last_are_its_copies():
    tokenizer = small("cosmos-dv-8x8x8")
    clip = torch.rand(1, 3, 6, 16, 20)
    padded = F.pad(clip, (0, 4, 0, 0, 0, 3), mode="replicate")
    assert torch.equal(tokenizer.encode(clip), tokenizer.encode(padded))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("cosmos-di-8x8", 79.0),
        ("cosmos-di-16x16", 83.7),
        ("cosmos-dv-4x8x8", 104.7),
        ("cosmos-dv-8x8x8", 105.7),
        ("cosmos-dv-8x16x16", 110.9),
        ("cosmos-dv-8x16x16-720p", 110.9),
    ],
)
def test_published_variants_have_the_published_number_of_parameters(name, millions):
    variant = zoo.info(name)
    with torch.device("meta"):
        tokenizer = variant.builder(variant.spec, **variant.config)
    assert tokenizer.num_parameters / 1e6 == pytest.approx(millions, abs=0.06)
