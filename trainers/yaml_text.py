"""Recipes as YAML text in the core schema of version 1.2: 3e-4 is a number, 010 is 10, and yes and dates are text.

Of the values that YAML can hold, only plain ones are read: keys and values, lists, text, numbers, true, false and null.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from zoo.errors import InputError
from zoo.nesting import deepest

MOST_BYTES = 2**16  # of a recipe's text; PyYAML reads this much in about a second
MOST_DIGITS = 100  # of a number
MOST_OPEN = 300  # brackets at one place

PREFIX = "tag:yaml.org,2002:"
CORE_SCHEMA = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    (
        "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - as PyYAML has it


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - as PyYAML has it


for _name, _pattern, _first in CORE_SCHEMA:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(PREFIX + _name, _pattern, _first)


def write_yaml(values: Any) -> str:
    """Plain values as text that `read_yaml` reads."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def read_yaml(text: str | bytes, origin: str) -> Any:
    """The plain value that `text` stands for. What an alias repeats is one object, which may contain itself.

    Raises:
        InputError: text that is too long, not UTF-8 or not YAML, a key that is given twice or is not text, or a value
            that is not plain; the message has `origin` and, where possible, the line.
    """
    if len(text) > MOST_BYTES:
        raise InputError(f"{origin}: expected a recipe of at most {MOST_BYTES} bytes, got more")
    try:
        text = text if isinstance(text, str) else text.decode("utf-8-sig")
        if deepest(text) > MOST_OPEN:  # PyYAML would take long to find out
            raise InputError(f"{origin}: nested too deep")
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _Builder(origin).value(node)
    except UnicodeDecodeError as error:
        raise InputError(f"{origin}: not UTF-8: byte {error.object[error.start]:#04x} at {error.start}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{origin}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise InputError(f"{origin}: nested too deep") from None
    except InputError:
        raise
    except (ValueError, OverflowError) as error:  # escapes such as \UFFFFFFFF, which PyYAML does not check
        raise InputError(f"{origin}: not YAML: {error}") from None


class _Builder:
    # From PyYAML's nodes to values, each node once.
    def __init__(self, origin: str):
        self.origin = origin
        self.built: dict[int, Any] = {}

    def value(self, node: yaml.Node) -> Any:
        if id(node) in self.built:
            return self.built[id(node)]
        kind = node.tag.removeprefix(PREFIX)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            mapping = self.built[id(node)] = {}
            for key_node, inner in node.value:
                key = self.key(key_node)
                if key in mapping:
                    raise self.error(key_node, f"the key {key[:MOST_DIGITS]!r} is given twice")
                mapping[key] = self.value(inner)
            return mapping
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            values = self.built[id(node)] = []
            values.extend(self.value(inner) for inner in node.value)
            return values
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, kind)
        raise self.unplain(node)

    def key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != f"{PREFIX}str":
            got = node.value[:MOST_DIGITS] if isinstance(node, yaml.ScalarNode) else node.id
            raise self.error(node, f"expected text as a key, got {got}")
        return node.value

    def scalar(self, node: yaml.ScalarNode, kind: str) -> Any:
        text = node.value
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind not in ("int", "float"):
            raise self.unplain(node)
        if len(text) > MOST_DIGITS:
            raise self.error(node, f"expected a number of at most {MOST_DIGITS} digits, got {len(text)}")
        try:
            if kind == "float":
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
            return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
        except ValueError:
            raise self.error(node, f"expected a number, got {text!r}") from None

    def unplain(self, node: yaml.Node) -> InputError:
        tag = node.tag.replace(PREFIX, "!!")[:MOST_DIGITS]
        return self.error(node, f"expected keys and values, a list, text, a number, true, false or null, got {tag}")

    def error(self, node: yaml.Node, message: str) -> InputError:
        return InputError(f"{self.origin}: line {node.start_mark.line + 1}: {message}")
