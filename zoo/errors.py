"""The exceptions that zoo raises on purpose: all derive from `ZooError`."""

from typing import Any


class ZooError(Exception):
    """Base class of the errors that zoo raises on purpose."""


class InputError(ZooError, ValueError):
    """A signal, a set of codes or an option that the tokenizer cannot take."""


class MediaError(ZooError, OSError):
    """A media file that cannot be read, or an output that cannot be written."""


class UnknownTokenizerError(ZooError, LookupError):
    """A name that is not in the registry."""


class CheckpointError(ZooError, RuntimeError):
    """Weights with tensors that are missing, unexpected or of another shape, or a file that is truncated or unsafe."""


class WeightsUnavailableError(ZooError, OSError):
    """Weights that are not on this machine and that cannot be fetched from the Hub."""


class PublishError(ZooError, OSError):
    """A tokenizer that could not be pushed to the Hub."""


class UnexpectedError(ZooError, RuntimeError):
    """An error that zoo did not foresee, in one file of several; it names its type and has it as `__cause__`."""


def as_zoo_error(error: Exception) -> ZooError:
    """Return `error` if it is of this family, else an `UnexpectedError` of it."""
    if isinstance(error, ZooError):
        return error
    wrapped = UnexpectedError(f"unexpected {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def shown(value: Any) -> str:
    """A value for a message, cut short if it is long."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"one of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
