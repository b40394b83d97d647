"""`encode` and `decode` given values, lengths, sizes and options that no signal has: refused, with a hint."""

import warnings

import numpy as np
import pytest
import torch

import zoo

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
AUDIO = torch.rand(2, 1, 4000, generator=torch.Generator().manual_seed(0)) - 0.5


@pytest.fixture(scope="module")
def image():
    return zoo.create("wetok-nano", small=True)


@pytest.fixture(scope="module")
def audio():
    return zoo.create("wavtokenizer-nano", small=True)


@pytest.mark.parametrize(
    ("x", "hint"),
    [
        (IMAGES * 255, r"\[0, 1\], got .* to 25\d.*; divide by 255\?"),
        (IMAGES * 2 - 1, r"got -0\.99.* to 0\.99.*; is it in \[-1, 1\]"),
        (IMAGES * 1e20, "divide by 255"),
    ],
)
def test_images_far_outside_the_public_range_are_refused_with_a_hint(image, x, hint):
    with pytest.raises(zoo.InputError, match=hint):
        image.encode(x)
    with pytest.raises(zoo.InputError, match=hint):
        image(x)


def test_what_resizing_overshoots_is_encoded(image):
    assert image.encode(IMAGES * 1.2 - 0.1).shape[0] == 2


def test_audio_far_outside_its_range_is_encoded_with_a_warning_and_absurd_audio_is_refused(audio):
    with pytest.warns(UserWarning, match="divided by 32768"):
        audio.encode(AUDIO * 32768)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio.encode(AUDIO * 8)
    with pytest.raises(zoo.InputError, match=r"about \[-1, 1\], got samples up to"):
        audio.encode(AUDIO * 1e20)


def test_coordinates_far_from_the_origin_are_refused():
    structure = torch.randn(1, 9, 5, 3) * 1e20
    with pytest.raises(zoo.InputError, match="coordinates in angstrom, at most 100000"):
        zoo.create("foldseek-3di").encode(structure)


def test_latents_that_overflow_have_no_codes():
    tokenizer = zoo.create("wavtokenizer-nano", small=True)
    with torch.no_grad():
        next(tokenizer.encoder.parameters()).fill_(3e38)
    with pytest.raises(zoo.InputError, match=r"latents are not finite.*weights are damaged"):
        tokenizer.encode(AUDIO)


def test_a_signal_that_overflows_in_the_decoder_is_refused():
    tokenizer = zoo.create("cosmos-di-8x8", small=True)
    codes = tokenizer.encode(IMAGES)
    with torch.no_grad():
        for parameter in tokenizer.decoder.parameters():
            parameter.fill_(3e38)
    with pytest.raises(zoo.InputError, match=r"decodes to values that are not finite.*damaged weights"):
        tokenizer.decode(codes)


@pytest.mark.parametrize(
    "kind",
    ["sparse", "nested", "quantized", "meta", "float8"],
)
def test_tensors_of_another_kind_are_refused_by_name(image, kind):
    x = {
        "sparse": lambda: IMAGES.to_sparse(),
        "nested": lambda: torch.nested.nested_tensor(list(IMAGES), layout=torch.jagged),
        "quantized": lambda: torch.quantize_per_tensor(IMAGES, 0.1, 0, torch.quint8),
        "meta": lambda: IMAGES.to("meta"),
        "float8": lambda: IMAGES.to(torch.float8_e4m3fn),
    }[kind]()
    with pytest.raises(zoo.InputError, match=kind):
        image.encode(x)


@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_codes_of_another_kind_are_refused_by_name(image, kind):
    codes = image.encode(IMAGES)
    with pytest.raises(zoo.InputError, match=f"expected codes .*{kind}"):
        image.decode(codes.to_sparse() if kind == "sparse" else codes.to("meta"))


@pytest.mark.parametrize(
    "lengths",
    [
        "ab",
        ["a", "b"],
        [None, 1],
        [True, False],
        [2**70, 1],
        [1.5, 2],
        [0, 1],
        [[1], [2]],
        [[1, 2], [3]],
        torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
        torch.ones(2, dtype=torch.int64, device="meta"),
        torch.ones(2, dtype=torch.int64).to_sparse(),
        torch.tensor([1j, 2j]),
    ],
    ids=str,
)
def test_lengths_that_are_no_numbers_of_steps_are_refused(audio, lengths):
    with pytest.raises(zoo.InputError, match="expected lengths as int"):
        audio.encode(AUDIO, lengths)


@pytest.mark.parametrize("lengths", [[10, 400], torch.tensor([10, 400], dtype=torch.int16)], ids=["list", "int16"])
def test_lengths_of_any_integers_are_taken(audio, lengths):
    assert torch.equal(audio.encode(AUDIO, lengths), audio.encode(AUDIO, torch.tensor([10, 400])))


@pytest.mark.parametrize("size", [2.5, "a", (2, 3), True, -1, 0, 10**9, (None,), [2.5]], ids=str)
def test_sizes_that_are_not_whole_or_do_not_fit_are_refused(audio, size):
    codes = audio.encode(AUDIO)
    with pytest.raises(zoo.InputError, match=r"expected size as \(samples\)"):
        audio.decode(codes, size=size)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), "a", None, 0, -1, True, 10**400, 1e-9], ids=str)
def test_chunks_of_no_length_are_refused(audio, seconds):
    with pytest.raises(zoo.InputError, match="expected chunk_seconds as a number of seconds"):
        audio.encode(AUDIO, chunk_seconds=seconds)


@pytest.mark.parametrize("frames", [0, 2.5, "a", None, True, -3], ids=str)
def test_windows_of_no_frames_are_refused(frames):
    video = zoo.create("cosmos-dv-nano", small=True)
    with pytest.raises(zoo.InputError, match="expected chunk_frames as an integer of at least 1"):
        video.encode(torch.rand(1, 3, 5, 32, 32), chunk_frames=frames)


@pytest.mark.parametrize("generator", [0, "seed", torch.Generator], ids=["number", "text", "class"])
def test_a_generator_that_is_none_is_refused(generator):
    tokenizer = zoo.create("tokenbridge", small=True)
    with pytest.raises(zoo.InputError, match=r"expected generator as a torch\.Generator"):
        tokenizer.encode(torch.rand(1, 3, 64, 64), generator=generator)


def test_sound_that_no_ear_could_hear_is_not_decoded():
    tokenizer = zoo.create("speechtokenizer-nano", small=True)
    codes = tokenizer.encode(AUDIO)
    with torch.no_grad():
        for parameter in tokenizer.decoder.parameters():
            parameter.mul_(1e8)
    with pytest.raises(zoo.InputError, match="beyond any audio"):
        tokenizer.decode(codes)


@pytest.mark.parametrize("memory", [-2.5, (), "state"])
def test_the_state_of_a_stream_is_checked(memory):
    mimi = zoo.create("mimi-nano", small=True)
    audio = torch.zeros(1, 1, 2 * mimi.spec.hop_length)
    with pytest.raises(zoo.InputError, match=r"state that stream\(\) keeps"):
        mimi.encode(audio, memory=memory)
    with pytest.raises(zoo.InputError, match=r"state that stream\(\) keeps"):
        mimi.decode(mimi.encode(audio), memory=memory)


@pytest.mark.parametrize("sample_rate", [np.array([None, 1]), "24000", torch.ones(2)])
def test_a_sample_rate_is_one_number(sample_rate):
    with pytest.raises(zoo.InputError, match="takes 24000 Hz, got"):
        zoo.create("wavtokenizer-nano", small=True).encode(AUDIO, sample_rate=sample_rate)
