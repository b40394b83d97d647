"""Patterns of ids against their definition, and ids as tokens of a text tokenizer."""

import itertools
import json

import pytest
import torch

from zoo.codes import Pattern, extend_tokenizer, flatten
from zoo.codes.patterns import MARKERS, ORDERS
from zoo.errors import InputError

SIZES = (10, 20, 5)


def some_codes(grid: tuple[int, ...], batch: int = 2, sizes: tuple[int, ...] = SIZES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(size, (batch, *grid), generator=generator) for size in sizes], dim=1)


def shown(pattern: Pattern, ids: torch.Tensor) -> list[str]:
    """Ids of codes that are all their codebook's entry t at frame t, as a1, b1, ...; specials by their first letter."""
    names = {value: name[0] for name, value in pattern.special_ids.items()}
    starts = [0, *itertools.accumulate(pattern.codebook_sizes)]

    def text(value: int) -> str:
        if value in names:
            return names[value]
        book = max(k for k, start in enumerate(starts[:-1]) if start <= value)
        return f"{'abc'[book]}{value - starts[book]}"

    return [" ".join(map(text, row)) for row in ids[0].reshape(-1, ids.shape[-1]).tolist()]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("frame_first", ["b a0 b0 c0 a1 b1 c1 e"]),
        ("coarse_first", ["b a0 a1 b0 b1 c0 c1 e"]),
        ("parallel", ["b a0 a1 e", "b b0 b1 e", "b c0 c1 e"]),
        ("delay", ["b a0 a1 E E e", "b E b0 b1 E e", "b E E c0 c1 e"]),
    ],
)
def test_each_order_is_as_its_drawing(order, expected):
    pattern = Pattern(SIZES, order, markers=("begin", "end"))
    drawn = shown(pattern, pattern.ids(torch.arange(2).expand(1, 3, 2)))
    assert [row.replace("E", "e") for row in expected] == drawn


def test_rows_and_frames_of_a_clip_end_in_markers():
    pattern = Pattern((8,), markers=("row", "frame"))
    ids = pattern.ids(torch.arange(8).view(1, 1, 2, 2, 2))
    row, frame = (pattern.special_ids[name] for name in ("row", "frame"))
    assert ids.tolist() == [[0, 1, row, 2, 3, row, frame, 4, 5, row, 6, 7, row, frame]]


def test_without_markers_frame_first_is_flatten():
    codes = some_codes((3, 4))
    assert torch.equal(Pattern(SIZES, offset=7).ids(codes), flatten(codes, SIZES, offset=7))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", [(1,), (6,), (2, 3), (3, 2, 4)])
@pytest.mark.parametrize("markers", [(), ("begin",), ("end", "begin"), MARKERS])
def test_ids_give_the_codes_back(order, grid, markers):
    markers = tuple(name for name in markers if len(grid) > {"row": 1, "frame": 2}.get(name, 0))
    pattern = Pattern(SIZES, order, markers, offset=1000)
    codes = some_codes(grid)
    ids = pattern.ids(codes)
    assert ids.min() >= 1000 and ids.max() < 1000 + pattern.vocabulary_size
    assert ids.shape[-1] == pattern.length(grid)
    assert torch.equal(pattern.codes(ids, grid), codes)
    if len(grid) == 1:
        assert torch.equal(pattern.codes(ids), codes)


def test_special_ids_follow_the_codebooks_in_one_order():
    pattern = Pattern(SIZES, "delay", markers=("end", "begin"), offset=100)
    assert pattern.special_ids == {"begin": 135, "end": 136, "empty": 137}
    assert pattern.vocabulary_size == 38


def test_a_marker_out_of_place_is_named():
    pattern = Pattern(SIZES, markers=("begin", "end"))
    ids = pattern.ids(some_codes((2,)))
    ids[1, -1] = 3
    with pytest.raises(InputError, match=r"expected id 36 \(end\) at item 1, place 7, got 3"):
        pattern.codes(ids)


def test_an_id_of_another_codebook_is_named():
    pattern = Pattern(SIZES, "parallel")
    ids = pattern.ids(some_codes((2,)))
    ids[0, 1, 1] = 9
    with pytest.raises(InputError, match=r"expected ids of codebook 1 in \[10, 30\), got 9 at item 0, position 1"):
        pattern.codes(ids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": "diagonal"}, "order as one of frame_first"),
        ({"markers": ("begin", "comma")}, "markers as some of begin"),
        ({"markers": "begin"}, "markers as some of begin"),
        ({"offset": -1}, "ids from 0"),
        ({"codebook_sizes": (0,)}, "codebook_sizes as integers"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Pattern(**{"codebook_sizes": SIZES, **arguments})


def test_a_grid_without_rows_takes_no_marker_of_rows():
    with pytest.raises(InputError, match="at least 2 axes for the marker row"):
        Pattern(SIZES, markers=("row",)).ids(some_codes((4,)))


@pytest.mark.parametrize("shape", [(2, 7), (2, 2), (2, 3, 6), (0, 6), (6,)])
def test_ids_of_another_shape_are_refused(shape):
    pattern = Pattern(SIZES, markers=("begin",))
    with pytest.raises(InputError, match="expected"):
        pattern.codes(torch.zeros(shape, dtype=torch.int64))


# Tokens of a text tokenizer


@pytest.fixture
def words(tmp_path):
    """A tokenizer of a few words, saved as Hugging Face's library saves it."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = {character: number for number, character in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(alphabet, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.mark.parametrize("as_file", [False, True])
def test_text_with_codes_in_it_comes_back(words, as_file):
    tokenizer, pattern = extend_tokenizer(
        words / "tokenizer.json" if as_file else words, Pattern(SIZES, markers=("begin", "end")), "audio"
    )
    assert pattern.offset == 256
    codes = some_codes((4,), batch=1)
    ids = pattern.ids(codes)[0].tolist()
    text = f"She said: {''.join(map(tokenizer.id_to_token, ids))} and left."
    read = tokenizer.encode(text).ids
    start = read.index(pattern.special_ids["begin"])
    assert read[start : start + len(ids)] == ids
    assert torch.equal(pattern.codes(torch.tensor([read[start : start + len(ids)]])), codes)
    assert tokenizer.decode(read) == text


def test_two_kinds_of_codes_have_ranges_of_their_own(words):
    tokenizer, audio = extend_tokenizer(words, Pattern((4,)), "audio")
    tokenizer, image = extend_tokenizer(tokenizer, Pattern((8, 8)), "image")
    assert (audio.offset, image.offset) == (256, 260)
    assert tokenizer.id_to_token(261) == "<|image:0:1|>"
    assert tokenizer.id_to_token(268) == "<|image:1:0|>"


def test_the_tokenizer_that_was_given_stays_as_it_is(words):
    before = json.loads((words / "tokenizer.json").read_text())
    tokenizer, _ = extend_tokenizer(words, Pattern((4,)), "audio")
    size = tokenizer.get_vocab_size()
    extend_tokenizer(tokenizer, Pattern((4,)), "more")
    assert tokenizer.get_vocab_size() == size
    assert json.loads((words / "tokenizer.json").read_text()) == before


def test_what_cannot_be_added_is_refused(words, tmp_path):
    tokenizer, _ = extend_tokenizer(words, Pattern((4,)), "audio")
    with pytest.raises(InputError, match=r"has the token <\|audio:0:0\|> already"):
        extend_tokenizer(tokenizer, Pattern((4,)), "audio")
    with pytest.raises(InputError, match="a name of letters"):
        extend_tokenizer(words, Pattern((4,)), "a b")
    with pytest.raises(InputError, match="up to 2,097,152 more tokens"):
        extend_tokenizer(words, Pattern((2**32,)), "audio")
    with pytest.raises(InputError, match=r"missing.json: expected the tokenizer.json"):
        extend_tokenizer(tmp_path / "missing.json", Pattern((4,)), "audio")
