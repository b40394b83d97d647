"""Signals for which a network needs more memory than there is: refused before the memory is gone."""

import pytest
import torch

import zoo
from zoo import memory

SIDE = 2400  # of an image that is large enough to be asked about


@pytest.fixture
def image():
    return zoo.create("wetok-nano", small=True).eval()


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**20)


def test_an_image_for_which_there_is_no_room_is_refused_before_it_is_encoded(image, little_memory):
    message = rf"wetok-nano: encoding {SIDE} x {SIDE} needs about .* GiB of memory at once, and 0\.0 GiB are free"
    with pytest.raises(zoo.InputError, match=message):
        image.encode(torch.zeros(1, 3, SIDE, SIDE))


def test_codes_for_whose_image_there_is_no_room_are_refused_before_they_are_decoded(image, little_memory):
    codes = torch.zeros(1, image.spec.num_codebooks, SIDE // 8, SIDE // 8, dtype=torch.int64)
    with pytest.raises(zoo.InputError, match="wetok-nano: decoding codes of 300 x 300 needs about"):
        image.decode(codes)


def test_small_images_are_encoded_without_the_question(image, little_memory):
    assert image.encode(torch.zeros(1, 3, 64, 64)).shape[0] == 1


def test_the_most_memory_at_once_counts_each_tensor_as_long_as_it_lives():
    def three_then_one(x):
        one = x + 1
        two = one * 2
        three = two.reshape(-1) - 1  # a view adds nothing
        del one, two
        return three.sum() + torch.zeros(1)

    size = 4 * 1000
    assert memory.peak_bytes(three_then_one, torch.zeros(10, 100)) == 3 * size


@pytest.fixture
def sizes_at_once(image):
    """How many items the encoder and the decoder of `image` are given, call by call."""
    sizes = []
    for network in (image.encoder, image.decoder):
        network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    return sizes


def test_large_items_of_a_batch_are_computed_a_few_at_a_time(image, sizes_at_once, monkeypatch):
    x = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    codes = image.encode(x)
    signal = image.decode(codes)
    assert sizes_at_once == [5, 5]
    sizes_at_once.clear()
    monkeypatch.setattr(memory, "AT_ONCE", 2 * x[0].numel())
    assert torch.equal(image.encode(x), codes)
    torch.testing.assert_close(image.decode(codes), signal, atol=1e-5, rtol=0)
    assert sizes_at_once == [2, 2, 1, 2, 2, 1]


def test_a_batch_with_an_option_that_may_be_of_each_item_stays_whole(monkeypatch):
    snac = zoo.create("snac-24khz", small=True).eval()
    codes = snac.encode(torch.randn(3, 1, 4000, generator=torch.Generator().manual_seed(0)))
    expected = snac.decode(codes, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(memory, "AT_ONCE", 1)
    assert torch.equal(snac.decode(codes, generator=torch.Generator().manual_seed(0)), expected)
