"""Statistics of codes, against counts made with dictionaries, on codes of real images and real speech."""

import math
import warnings
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
import torch

import zoo
from zoo.demo.samples import samples
from zoo.errors import InputError
from zoo.metrics.codes import CodeStatistics, Noise, Shift, token_change


@pytest.fixture(scope="module")
def image_tokenizer() -> zoo.Tokenizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the license, once a process
        return zoo.load("wetok-nano")


@pytest.fixture(scope="module")
def speech_tokenizer() -> zoo.Tokenizer:
    return zoo.load("wavtokenizer-nano")


@pytest.fixture(scope="module")
def images(image_tokenizer) -> torch.Tensor:
    return torch.cat([image_tokenizer.preprocess(image) for image in samples("image").values()])[:, :, :256, :192]


@pytest.fixture(scope="module")
def speech(speech_tokenizer) -> torch.Tensor:
    return torch.cat(
        [speech_tokenizer.preprocess(samples("audio")[name])[:, :, :48000] for name in ("river", "tokens")]
    )


@pytest.fixture(scope="module")
def codes(image_tokenizer, images) -> torch.Tensor:
    """`[3, 2, 16, 12]`, the first two of eight codebooks of 256."""
    return image_tokenizer.encode(images)[:, :2]


def bits(values) -> float:
    counts = Counter(values)
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values())


def summary(codes, sizes, **options):
    statistics = CodeStatistics(sizes, **options)
    statistics.update(codes)
    return statistics.compute()


# What is counted


def test_usage_entropy_and_perplexity_are_those_of_the_histogram(codes):
    found = summary(codes, (256, 256))
    streams = [codes[:, k].flatten().tolist() for k in range(2)]
    assert found.positions == len(streams[0]) == 3 * 16 * 12
    assert found.usage == [len(set(stream)) / 256 for stream in streams]
    assert found.entropy == pytest.approx([bits(stream) for stream in streams])
    assert found.perplexity == pytest.approx([2 ** bits(stream) for stream in streams])
    assert 2 < found.bits_used < found.bits_paid == 8
    assert found.bits_used == pytest.approx(sum(map(bits, streams)) / 2)


def test_mutual_information_is_that_of_the_joint_frequencies(codes):
    joint = Counter(zip(codes[:, 0].flatten().tolist(), codes[:, 1].flatten().tolist(), strict=True))
    total = sum(joint.values())
    first, second = Counter(), Counter()
    for (a, b), count in joint.items():
        first[a] += count
        second[b] += count
    expected = sum(count / total * math.log2(count * total / (first[a] * second[b])) for (a, b), count in joint.items())
    found = summary(codes, (256, 256)).mutual_information
    assert expected > 1
    assert found[0][1] == found[1][0] == pytest.approx(expected)
    assert [found[0][0], found[1][1]] == summary(codes, (256, 256)).entropy


def test_codebooks_that_repeat_each_other_or_are_independent():
    first = torch.arange(16).repeat_interleave(16)
    second = torch.arange(16).repeat(16)
    found = summary(torch.stack([first, second, first])[None], (16, 16, 16)).mutual_information
    assert found[0][1] == pytest.approx(0, abs=1e-12)
    assert found[0][2] == pytest.approx(4)


@pytest.mark.parametrize("longest", [2, 3])
def test_conditional_entropy_is_that_of_the_contexts(speech_tokenizer, speech, longest):
    codes = speech_tokenizer.encode(speech) % 64  # few enough for trigrams
    after = [defaultdict(list) for _ in range(longest)]
    for stream in codes[:, 0].tolist():
        for n in range(1, longest + 1):
            for start in range(len(stream) - n + 1):
                after[n - 1][tuple(stream[start : start + n - 1])].append(stream[start + n - 1])
    expected = []
    for contexts in after:
        total = sum(map(len, contexts.values()))
        expected.append(sum(len(tokens) / total * bits(tokens) for tokens in contexts.values()))
    found = summary(codes, (64,), longest=longest).conditional_entropy
    assert expected[0] > expected[1] > 0
    assert [row[0] for row in found] == pytest.approx(expected)


def test_tokens_follow_each_other_in_raster_order_and_not_across_items():
    codes = torch.tensor([[[[0, 1], [2, 3]]], [[[0, 1], [2, 3]]]])  # each 0 1 2 3
    assert summary(codes, (4,)).conditional_entropy == [[2], [0]]
    across = summary(codes.reshape(1, 1, 8), (4,))  # 3 0 occurs here
    assert across.conditional_entropy == [[2], [0]]
    assert summary(torch.tensor([[[0, 1, 0, 0]]]), (2,)).conditional_entropy[1][0] == pytest.approx(2 / 3)


def test_positions_after_an_items_length_are_not_counted(codes):
    statistics = CodeStatistics((256, 256))
    statistics.update(codes, torch.tensor([16, 3, 7]))
    alone = CodeStatistics((256, 256))
    for item, length in zip(codes, (16, 3, 7), strict=True):
        alone.update(item[None, :, :length])
    assert statistics.compute() == alone.compute()
    assert statistics.compute().positions == (16 + 3 + 7) * 12


def test_an_item_shorter_than_an_n_gram_has_none():
    found = summary(torch.zeros(2, 1, 1, dtype=torch.int64), (4,), longest=3)
    assert found.conditional_entropy == [[0], [None], [None]]


# Estimates from few tokens


def test_the_bias_is_about_how_much_too_low_an_entropy_is():
    generator = torch.Generator().manual_seed(0)
    found = [summary(torch.randint(32, (1, 2, 400), generator=generator), (32, 32)) for _ in range(50)]
    off = sum(item.entropy[0] - 5 for item in found) / 50
    assert off < -0.04
    assert sum(item.entropy_bias[0] for item in found) / 50 == pytest.approx(off, abs=0.01)
    assert found[0].entropy_coverage[0] > 0.99


def test_the_bias_of_mutual_information_is_about_that_of_independent_codebooks():
    found = summary(torch.randint(16, (1, 2, 8000), generator=torch.Generator().manual_seed(0)), (16, 16))
    assert found.mutual_information[0][1] > 0.015
    assert found.mutual_information_bias[0][1] == pytest.approx(found.mutual_information[0][1], rel=0.2)


def test_coverage_is_low_where_a_stream_is_too_short_for_its_bigrams():
    codes = torch.randint(1024, (1, 1, 500), generator=torch.Generator().manual_seed(0))
    found = summary(codes, (1024,))
    assert found.conditional_entropy[1][0] < 1  # of 10 that are true
    assert found.conditional_entropy_coverage[1][0] < 0.05
    counts = Counter(pairwise(codes.flatten().tolist()))
    assert found.conditional_entropy_coverage[1][0] == pytest.approx(
        1 - sum(count == 1 for count in counts.values()) / 499
    )


# Streaming


def test_batches_merged_are_the_same_as_all_at_once(codes):
    parts = [CodeStatistics((256, 256)) for _ in range(2)]
    parts[0].update(codes[:1])
    parts[1].update(codes[1:2])
    parts[1].update(codes[2:])
    parts[0].merge_state(parts[1])
    assert parts[0].compute() == summary(codes, (256, 256))


def test_memory_does_not_grow(codes):
    statistics = CodeStatistics((256, 256))

    def held() -> int:
        return sum(state.numel() for state in statistics.metric_state.values())

    before = held()
    for _ in range(5):
        statistics.update(codes)
    assert held() == before == 1 + 2 * 256 + 256**2 + 2 * 256**2


def test_tables_that_would_take_too_much_memory_are_refused_with_the_reason():
    codes = torch.randint(100, (1, 3, 50), generator=torch.Generator().manual_seed(0))
    found = summary(codes, (100, 2**40, 100), max_counts=10_000)
    assert found.entropy[1] is found.usage[1] is found.perplexity[1] is found.bits_used is None
    assert found.entropy[0] == pytest.approx(bits(codes[0, 0].tolist()))
    assert found.mutual_information[0][1] is None
    assert found.mutual_information[0][2] is not None
    assert [figure is None for figure in found.conditional_entropy[1]] == [False, True, True]
    assert found.bits_paid == pytest.approx((2 * math.log2(100) + 40) / 3)
    assert found.refused[0] == (
        "usage and entropy of codebooks: 1 of 3 not counted (1); all take 1,099,511,627,976 counts of 8 bytes, "
        "and max_counts is 10,000"
    )
    assert [sentence.split(":")[0] for sentence in found.refused[1:]] == [
        "mutual information of pairs of codebooks",
        "entropy of 2-grams of codebooks",
    ]


def test_before_anything_is_counted_all_figures_are_none():
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        found = CodeStatistics((4,)).compute()
    assert found.positions == 0
    assert found.usage == found.entropy == found.perplexity == [None]


def test_codes_and_arguments_that_do_not_fit_are_refused(codes):
    statistics = CodeStatistics((256, 16))
    for bad, lengths, message in [
        (codes, None, r"codebook 1 in \[0, 16\)"),
        (codes[:, :1], None, r"expected codes as \[batch, 2, \*grid\]"),
        (codes.float(), None, "integer tensor"),
        (codes % 16, torch.tensor([16, 17, 1]), "expected lengths as 3 integers from 1 to 16, got"),
        (codes % 16, torch.tensor([16, 0, 1]), "expected lengths"),
        (codes % 16, torch.tensor([16, 1]), "expected lengths"),
    ]:
        with pytest.raises(InputError, match=message):
            statistics.update(bad, lengths)
    for arguments in [{"codebook_sizes": ()}, {"codebook_sizes": (4, 0)}, {"codebook_sizes": (4,), "longest": 0}]:
        with pytest.raises(InputError, match="as positive integers"):
            CodeStatistics(**arguments)


# Steadiness


def test_a_shift_repeats_the_border():
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert Shift((1, -1))(image)[0, 0].tolist() == [[1, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]]
    assert Shift((2,))(torch.tensor([[[5.0, 6, 7, 8]]])).tolist() == [[[5, 5, 5, 6]]]


def test_noise_has_its_strength_in_each_item(speech):
    noise = Noise(20)(speech) - speech
    ratio = speech.square().mean(dim=2) / noise.square().mean(dim=2)
    assert (10 * ratio.log10()).flatten().tolist() == pytest.approx([20, 20], abs=1e-2)
    torch.testing.assert_close(Noise(20)(speech[1:]), Noise(20)(speech)[1:])
    assert torch.equal(Noise(20)(torch.zeros(1, 1, 50)), torch.zeros(1, 1, 50))


def test_the_change_under_a_shift_is_the_share_of_codes_that_differ(speech_tokenizer, speech):
    moved = torch.cat([speech[:, :, :1].expand(-1, -1, 7), speech[:, :, :-7]], dim=2)
    pairs = zip(speech_tokenizer.encode(speech).tolist(), speech_tokenizer.encode(moved).tolist(), strict=True)
    expected = [[sum(a != b for a, b in zip(x[0], y[0], strict=True)) / len(x[0])] for x, y in pairs]
    assert 0.1 < expected[0][0] < 1
    assert token_change(speech_tokenizer, speech, Shift((7,))).tolist() == expected
    assert token_change(speech_tokenizer, speech, Shift((0,))).tolist() == [[0], [0]]


def test_images_change_more_the_stronger_the_noise(image_tokenizer, images, codes):
    found = [token_change(image_tokenizer, images, Noise(snr)) for snr in (60, 40, 20)]
    assert found[0].shape == (3, 8)
    means = [float(change.mean()) for change in found]
    assert means[0] < 0.02 < means[1] < 0.15 < means[2] < 1
    noisy = image_tokenizer.encode(Noise(20)(images).clamp(0, 1))
    assert torch.allclose(found[2][:, :2], (noisy[:, :2] != codes).double().mean(dim=(2, 3)))
    pixel = token_change(image_tokenizer, images, Shift((0, 1)))
    assert 0 < pixel.min() <= pixel.max() < 0.7


def test_tokens_that_lie_on_no_grid_take_any_shift():
    tokenizer = zoo.create("titok-s-128", small=True).eval()
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert token_change(tokenizer, image, Shift((40, 40))).shape == (1, 1)


def test_shifts_that_move_codes_to_other_positions_are_refused(speech_tokenizer, image_tokenizer, speech, images):
    for tokenizer, signal, steps in [
        (speech_tokenizer, speech, (320,)),
        (image_tokenizer, images, (0, -16)),
        (image_tokenizer, images, (16, 0)),
    ]:
        with pytest.raises(InputError, match=r"a shift of less than .* grid step"):
            token_change(tokenizer, signal, Shift(steps))
    for tokenizer, signal, steps in [(speech_tokenizer, speech, (1, 1)), (speech_tokenizer, speech, ())]:
        with pytest.raises(InputError, match=r"last axes \(samples\)"):
            token_change(tokenizer, signal, Shift(steps))
    with pytest.raises(InputError, match="perturbed signal of shape"):
        token_change(speech_tokenizer, speech, lambda signal: signal[:, :, 1:])
