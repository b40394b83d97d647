"""The ids of codes as tokens of a language model's own tokenizer."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.codes.patterns import Pattern
from zoo.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_TOKENS = 2**21  # that a tokenizer of text can hold in sensible time and memory


def extend_tokenizer(
    source: Tokenizer | str | os.PathLike[str], pattern: Pattern, name: str
) -> tuple[Tokenizer, Pattern]:
    """Add the ids of codes to a text tokenizer of the Hugging Face library `tokenizers` (extra `transformers`).

    The tokens are `<|NAME:K:CODE|>` for each entry of codebook K, both counted from 0, and `<|NAME:MARKER|>` for each
    of the pattern's `special_ids`. Text that holds them is read as their ids, and `decode(ids)` gives the text back.
    `Tokenizer.save` writes the result.

    Args:
        source: a tokenizer, which stays as it is; a `tokenizer.json`; or a folder with one.
        pattern: order and markers of the ids. Its offset does not count.
        name: of what the codes stand for, such as "audio": letters, digits, `-` and `_`.

    Returns:
        A tokenizer with the tokens, and the pattern whose ids are theirs: its offset is the number of tokens before.

    Raises:
        InputError: no tokenizer at `source`, a bad `name`, tokens that are there already, or more than 2,097,152 ids.
    """
    from tokenizers import AddedToken, Tokenizer

    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise InputError(f"expected a name of letters, digits, - and _, got {name!r}")
    if pattern.vocabulary_size > MOST_TOKENS:
        raise InputError(f"a tokenizer takes up to {MOST_TOKENS:,} more tokens, got {pattern.vocabulary_size:,} ids")
    if isinstance(source, Tokenizer):
        tokenizer = Tokenizer.from_str(source.to_str())
    else:
        path = Path(source)
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no narrower class
            raise InputError(f"{path}: expected the tokenizer.json of a tokenizer: {error}") from error
    offset = max(tokenizer.get_vocab().values(), default=-1) + 1
    placed = dataclasses.replace(pattern, offset=offset)
    tokens = [
        f"<|{name}:{number}:{code}|>" for number, size in enumerate(pattern.codebook_sizes) for code in range(size)
    ]
    tokens += [f"<|{name}:{special}|>" for special in placed.special_ids]
    if known := next((token for token in tokens if tokenizer.token_to_id(token) is not None), None):
        raise InputError(f"the tokenizer has the token {known} already; give another name")
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    assert tokenizer.token_to_id(tokens[0]) == offset, "added tokens follow those that are there"
    assert tokenizer.token_to_id(tokens[-1]) == offset + len(tokens) - 1
    return tokenizer, placed
