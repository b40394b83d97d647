"""The class of contracts, and the checks in them. None is an `assert` statement, which `python -O` drops."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.errors import InputError
from zoo.testing.subject import Subject
from zoo.tokenizer import Tokenizer


class Contract:
    """One promise of a tokenizer. `contract(tokenizer)` checks it.

    name: the promise as a sentence. `__name__`: the same in one word, by which pytest calls the test.
    """

    def __init__(self, holds: Callable[[Tokenizer], None], condition: Callable[[Subject], bool]):
        self.__name__ = holds.__name__
        self.name = holds.__name__.replace("_", " ")
        self._holds = holds
        self._condition = condition

    def __repr__(self) -> str:
        return f"<contract: {self.name}>"

    def applies(self, tokenizer: Tokenizer | str) -> bool:
        """Return whether the promise is one of this tokenizer's; its network is not built."""
        return self._condition(Subject.of(tokenizer))

    def __call__(self, tokenizer: Tokenizer | str) -> None:
        """Check the promise.

        Args:
            tokenizer: name of a variant, whose network is made small; or a tokenizer, which stays as it is.

        Raises:
            AssertionError: the promise does not hold; the message has its name and what came instead.
            UnknownTokenizerError: a name that is not registered.
        """
        subject = Subject.of(tokenizer)
        try:
            self._holds(subject.build())
        except AssertionError as error:
            raise AssertionError(f"{subject.spec.name}: {self.name}: {error}") from error
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise AssertionError(f"{subject.spec.name}: {self.name}: raised {what}") from error


def contract(
    condition: Callable[[Subject], bool] = lambda subject: True,
) -> Callable[[Callable[[Tokenizer], None]], Contract]:
    """Turn a function that raises AssertionError into a contract of the tokenizers for which `condition` is true."""
    return lambda holds: Contract(holds, condition)


def expect(holds: object, message: str) -> None:
    """Raise AssertionError with `message` unless `holds`."""
    if not holds:
        raise AssertionError(message)


def expect_equal(got: Tensor, expected: Tensor, what: str) -> None:
    """Raise AssertionError unless two tensors are equal in shape and in every value."""
    if got.shape != expected.shape:
        raise AssertionError(f"{what}: expected shape {list(expected.shape)}, got {list(got.shape)}")
    if not torch.equal(got, expected):
        raise AssertionError(f"{what}: {int((got != expected).sum())} of {got.numel()} values differ")


def expect_refused(call: Callable[[], object], message: str, what: str) -> None:
    """Raise AssertionError unless the call raises InputError with a text that matches the pattern `message`."""
    try:
        call()
    except InputError as error:
        if not re.search(message, str(error)):
            raise AssertionError(f"{what}: expected an error with {message!r}, got {str(error)!r}") from error
    except Exception as error:
        raise AssertionError(f"{what}: expected an InputError, got {type(error).__name__}: {error}") from error
    else:
        raise AssertionError(f"{what}: expected an InputError with {message!r}, got none")
