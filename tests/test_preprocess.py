"""What `preprocess` takes: files, bytes, file objects, signals in memory and lists of them, and which options apply."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import zoo
from tests.support.cli import error_line, run
from tests.support.media import helix
from zoo.bench.candidates import LazyTokenizer, TokenizerCandidate
from zoo.codes import load_codes
from zoo.demo.samples import samples
from zoo.media import read_structure, write_structure, write_video
from zoo.transcode import reconstruct

OPTIONS = {"resolution": 32, "crop": 32, "sample_rate": 24000, "resample": True, "chain": "A"}
OPTIONS |= {"start": 0.25, "seconds": 0.5}
TAKEN = {
    "wetok-imagenet-f8": {"resolution", "crop"},
    "wavtokenizer-small-320-24k-4096": {"sample_rate", "resample", "start", "seconds"},
    "cosmos-dv-4x8x8": {"resolution", "crop", "start", "seconds"},
    "dplm2-struct-tokenizer": {"chain"},
}


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """A small file for each of `TAKEN`."""
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(256, size=(40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    soundfile.write(tmp_path / "a.wav", random.uniform(-0.5, 0.5, 24000), 24000)
    write_video(tmp_path / "a.mp4", torch.rand(3, 10, 40, 60), 10)
    write_structure(tmp_path / "a.pdb", helix(9))
    return {
        name: str(tmp_path / f"a{suffix}") for name, suffix in zip(TAKEN, (".png", ".wav", ".mp4", ".pdb"), strict=True)
    }


def small(name: str) -> zoo.Tokenizer:
    return zoo.create(name, small=True).eval()


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_applies_or_is_refused_and_never_dropped(files, name, option):
    tokenizer = small(name)
    if option in TAKEN[name]:
        tokenizer.preprocess(files[name], **{option: OPTIONS[option]})
    else:
        with pytest.raises(zoo.InputError, match=rf"has no option '{option}'; it takes: "):
            tokenizer.preprocess(files[name], **{option: OPTIONS[option]})


@pytest.mark.parametrize("name", [name for name in TAKEN if "sample_rate" not in TAKEN[name]])
def test_only_sound_has_a_sample_rate_to_check(files, name):
    tokenizer = small(name)
    with pytest.raises(zoo.InputError, match="have no sample_rate"):
        tokenizer.encode(tokenizer.preprocess(files[name]), sample_rate=24000)


@pytest.mark.parametrize(("option", "value"), [("chain", "Z"), ("seconds", 1)])
def test_the_command_refuses_an_option_of_another_modality(tiny_wetok, tmp_path, files, option, value):
    image = files["wetok-imagenet-f8"]
    line = error_line(run("encode", "tiny-wetok", image, "--out", tmp_path / "out", f"--{option}", value, status=1))
    assert f"has no option '{option}'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", TAKEN)
def test_bytes_and_file_objects_are_read_like_files(files, name):
    tokenizer = small(name)
    expected = tokenizer.preprocess(files[name])
    content = Path(files[name]).read_bytes()
    with open(files[name], "rb") as file:
        sources = [content, bytearray(content), io.BytesIO(content), file]
        for source in sources:
            assert torch.equal(tokenizer.preprocess(source).nan_to_num(), expected.nan_to_num())


@pytest.mark.parametrize("suffix", [".cif", ".bcif"])
def test_bytes_of_a_structure_show_their_format(tmp_path, suffix):
    path = tmp_path / f"chain{suffix}"
    write_structure(path, helix(9))
    tokenizer = small("dplm2-struct-tokenizer")
    read = tokenizer.preprocess(path.read_bytes())
    assert torch.equal(read.nan_to_num(), read_structure(path).coordinates[None].nan_to_num())


def test_images_in_memory_are_what_their_file_is(files):
    tokenizer = small("wetok-imagenet-f8")
    expected = tokenizer.preprocess(files["wetok-imagenet-f8"])
    picture = Image.open(files["wetok-imagenet-f8"])
    for source in (picture, np.asarray(picture), torch.from_numpy(np.array(picture)).permute(2, 0, 1)):
        assert torch.equal(tokenizer.preprocess(source), expected)


def test_video_and_structures_in_memory_are_taken():
    clip = torch.rand(3, 6, 16, 16)
    tokenizer = small("cosmos-dv-4x8x8")
    assert torch.equal(tokenizer.preprocess(clip)[0], clip)
    frames = (clip * 255).to(torch.uint8).permute(1, 2, 3, 0).numpy()
    assert torch.equal(tokenizer.preprocess(frames)[0], torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 255)
    chain = helix(7)
    for source in (chain, chain.numpy()):
        assert torch.equal(small("dplm2-struct-tokenizer").preprocess(source)[0], chain)


def test_a_list_of_equal_signals_is_a_batch_without_lengths(files):
    tokenizer = small("wetok-imagenet-f8")
    batch = tokenizer.preprocess([files["wetok-imagenet-f8"], Image.open(files["wetok-imagenet-f8"])])
    assert batch.signal.shape == (2, 3, 40, 60)
    assert batch.lengths is None
    codes = tokenizer.encode(*batch)
    assert torch.equal(codes[0], codes[1])


@pytest.mark.parametrize("name", [name for name in TAKEN if not name.startswith("wetok")])
def test_a_list_of_unequal_signals_is_padded_and_keeps_each_items_codes(name):
    tokenizer = small(name)
    items = {
        "audio": [torch.rand(1, 1000) - 0.5, torch.rand(1, 700) - 0.5],
        "video": [torch.rand(3, 9, 16, 16), torch.rand(3, 5, 16, 16)],
        "structure": [helix(9), helix(6)],
    }[tokenizer.spec.modality]
    options = {"sample_rate": 24000} if tokenizer.spec.sample_rate else {}
    batch = tokenizer.preprocess(items, **options)
    assert batch.lengths is not None
    codes = tokenizer.encode(*batch)
    for item, code, positions in zip(items, codes, tokenizer.code_lengths(batch.lengths), strict=True):
        alone = tokenizer.encode(tokenizer.preprocess(item, **options))
        assert torch.equal(code[:, :positions], alone[0])


def test_images_of_unequal_size_do_not_share_a_batch():
    tokenizer = small("wetok-imagenet-f8")
    images = [torch.rand(3, 32, 32), torch.rand(3, 32, 48)]
    with pytest.raises(zoo.InputError, match=r"one size, got \(32, 32\), \(32, 48\); resolution= resizes them to one"):
        tokenizer.preprocess(images)
    assert tokenizer.preprocess(images, resolution=32).signal.shape == (2, 3, 32, 32)
    with pytest.raises(zoo.InputError, match="one size, got none"):
        tokenizer.preprocess([])


def test_resolution_crop_and_seconds_decide_what_is_kept(files):
    image = small("wetok-imagenet-f8")
    path = files["wetok-imagenet-f8"]
    assert image.preprocess(path, resolution=32).shape == (1, 3, 32, 32)
    assert image.preprocess(path, resolution=32, crop=0).shape == (1, 3, 32, 48)
    assert image.preprocess(path, resolution=32, crop=24).shape == (1, 3, 24, 24)
    assert torch.equal(image.preprocess(path, crop=24), image.preprocess(path)[..., 8:32, 18:42])
    for bad in ({"resolution": 0}, {"resolution": 2.5}, {"crop": -1}, {"crop": 41}):
        with pytest.raises(zoo.InputError, match="expected"):
            image.preprocess(path, **bad)
    clip = small("cosmos-dv-4x8x8")
    path = files["cosmos-dv-4x8x8"]
    assert clip.preprocess(path, resolution=24, seconds=0.5).shape == (1, 3, 5, 24, 24)
    sound = small("wavtokenizer-small-320-24k-4096")
    path = files["wavtokenizer-small-320-24k-4096"]
    assert torch.equal(sound.preprocess(path, seconds=0.25), sound.preprocess(path)[..., :6000])
    with pytest.raises(zoo.InputError, match="more than 0 seconds"):
        sound.preprocess(path, seconds=0)


def test_start_leaves_out_the_seconds_before_it(files):
    clip, sound = small("cosmos-dv-4x8x8"), small("wavtokenizer-small-320-24k-4096")
    path = files[clip.spec.name]
    assert torch.equal(clip.preprocess(path, start=0.4), clip.preprocess(path)[:, :, 4:])
    assert torch.equal(clip.preprocess(path, start=0.4, seconds=0.3), clip.preprocess(path)[:, :, 4:7])
    path = files[sound.spec.name]
    whole = sound.preprocess(path)
    assert torch.equal(sound.preprocess(path, start=0.25), whole[..., 6000:])
    assert torch.equal(sound.preprocess(path, start=0.25, seconds=0.5), whole[..., 6000:18000])
    assert torch.equal(sound.preprocess(whole[0], sample_rate=24000, start=0.25, seconds=0.5), whole[..., 6000:18000])


def test_a_start_is_before_the_end_and_not_negative(files):
    clip, sound = small("cosmos-dv-4x8x8"), small("wavtokenizer-small-320-24k-4096")
    for tokenizer in (clip, sound):
        path = files[tokenizer.spec.name]
        with pytest.raises(zoo.InputError, match="expected a start before the end, got 1 seconds"):
            tokenizer.preprocess(path, start=1)
        for start in (-1, float("nan"), "1", True):
            with pytest.raises(zoo.InputError, match="expected a start of at least 0 seconds"):
                tokenizer.preprocess(path, start=start)
    with pytest.raises(zoo.InputError, match="expected a start before the end"):
        sound.preprocess(torch.zeros(24000), sample_rate=24000, start=1)
    with pytest.raises(zoo.InputError, match="with a file that states its frame rate"):
        clip.preprocess(torch.rand(3, 4, 16, 16), start=0.1)


def test_the_command_takes_them_too(tiny_wetok, tiny_cosmos, tmp_path, files):
    run(
        "encode",
        "tiny-wetok",
        files["wetok-imagenet-f8"],
        "--out",
        tmp_path / "a.npz",
        "--resolution",
        32,
        "--crop",
        24,
    )
    assert load_codes(tmp_path / "a.npz").size == (24, 24)
    video = files["cosmos-dv-4x8x8"]
    options = ("--resolution", 16, "--start", 0.2, "--seconds", 0.5)
    run("encode", "tiny-cosmos", video, "--out", tmp_path / "b.npz", *options)
    assert load_codes(tmp_path / "b.npz").size == (5, 16, 16)
    assert load_codes(tmp_path / "b.npz").options == {"resolution": 16, "start": 0.2, "seconds": 0.5}


def test_residues_that_are_missing_stay_missing_however_a_chain_is_reconstructed(tiny_dplm2, tmp_path):
    chain = read_structure(samples("structure")["globin"]).coordinates[None]
    chain[:, 5:8] = torch.nan
    missing = torch.zeros(chain.shape[1], dtype=torch.bool)
    missing[5:8] = True
    for result in (tiny_dplm2.reconstruct(chain), reconstruct(tiny_dplm2, chain).reconstruction):
        assert torch.equal(result[0].isnan().flatten(1).all(dim=1), missing)
    codes = tiny_dplm2.encode(chain)
    restored = tiny_dplm2.restore(codes, chain)
    assert torch.equal(restored.nan_to_num(), tiny_dplm2.reconstruct(chain).nan_to_num())


def test_bench_command_and_demo_restore_a_chain_as_the_tokenizer_does(tiny_dplm2, tmp_path):
    chain = read_structure(samples("structure")["globin"]).coordinates
    chain[5, 1:] = torch.nan  # a residue without CA, which a file does not show as one
    write_structure(tmp_path / "chain.pdb", chain)
    signal = tiny_dplm2.preprocess(tmp_path / "chain.pdb")
    expected = tiny_dplm2.reconstruct(signal)
    candidate = TokenizerCandidate("tiny", LazyTokenizer("tiny-dplm2"), {}, 0)
    _, payload = candidate.compress(signal)
    assert torch.equal(candidate.restore(payload, signal).nan_to_num(), expected.nan_to_num())
    (result,) = zoo.reconstruct_files(tiny_dplm2, [tmp_path / "chain.pdb"], tmp_path / "out.pdb")
    assert result.error is None
    written = read_structure(tmp_path / "out.pdb").coordinates
    assert torch.allclose(written, expected[0], atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("name", ["fqgan-dual-16", "llamagen-vq-16", "robustok", "tokenbridge", "tokenflow"])
@pytest.mark.parametrize("size", [(700, 1100), (1301, 1029), (300, 271), (200, 347), (512, 512)])
def test_images_are_halved_with_a_box_filter_and_then_resized_bicubically(name, size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    expected = picture
    while min(expected.size) >= 512:
        expected = expected.resize(tuple(side // 2 for side in expected.size), Image.Resampling.BOX)
    factor = 256 / min(expected.size)
    expected = expected.resize(tuple(round(side * factor) for side in expected.size), Image.Resampling.BICUBIC)
    left, top = ((side - 256) // 2 for side in expected.size)
    pixels = np.asarray(expected, dtype=np.float32)[top : top + 256, left : left + 256] / 255
    image = small(name).preprocess(picture, resolution=256)
    assert torch.allclose(image[0].movedim(0, -1), torch.from_numpy(pixels))
