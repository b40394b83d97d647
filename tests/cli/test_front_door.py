"""What the terminal can do, Python can do with the same words; and help names only commands that there are."""

import inspect
import re

import pytest
import typer

import zoo
from tests.support.cli import run
from zoo.cli import app

GROUP = typer.main.get_command(app)
# `zoo bench NAMES` is the command `run` of the group `bench`.
COMMANDS = {name: getattr(command, "commands", {}).get("run", command) for name, command in GROUP.commands.items()}

# Functions that are not called like their command.
FUNCTIONS = {
    "encode": "encode_files",
    "decode": "decode_files",
    "reconstruct": "reconstruct_files",
    "list": "list_tokenizers",
}
# With `--stream`, a command calls another function.
STREAMING = {"encode": zoo.encode_pcm, "decode": zoo.decode_pcm}
# How a result is printed is the terminal's alone; tables are written by functions of their own.
PRINTING = {"json", "markdown", "csv", "latex"}
# Where a function takes a tokenizer, the command loads it: `zoo.load(name, device=..., dtype=...)`.
LOADING = {"encode": {"device", "dtype"}, "reconstruct": {"device", "dtype"}}
RENAMED = {
    ("bench", "candidate"): "candidates",
    ("bench", "metric"): "own_metrics",
    ("encode", "name"): "tokenizer",
    ("reconstruct", "name"): "tokenizer",
    ("export", "out"): "path",
    ("export-onnx", "name"): "tokenizer",
    ("tokenize", "name"): "tokenizer",
    ("train", "out"): "run_dir",
    ("train", "restart"): "resume",
}


def function_name(command: str) -> str:
    return FUNCTIONS.get(command, command.replace("-", "_"))


def keywords(command: str) -> set[str]:
    """Parameters of a command's function; of a module that can be called, those of its function of that name."""
    name = function_name(command)
    found = getattr(zoo, name)
    function = getattr(found, name) if inspect.ismodule(found) else found
    streaming = set(inspect.signature(STREAMING[command]).parameters) | {"stream"} if command in STREAMING else set()
    return set(inspect.signature(function).parameters) | streaming


def words(command: str) -> set[str]:
    """Arguments and options of a command."""
    return {parameter.name for parameter in COMMANDS[command].params if parameter.name != "help"} - PRINTING


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_function(command):
    assert callable(getattr(zoo, function_name(command)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_a_keyword_of_its_function(command):
    wanted = {RENAMED.get((command, word), word) for word in words(command) - LOADING.get(command, set())}
    assert wanted - keywords(command) == set()


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_names_only_commands_that_there_are(command):
    text = run(*([command] if command else []), "--help").output
    named = set(re.findall(r"`zoo ([a-z][a-z-]*)", text))
    assert named - COMMANDS.keys() == set()
