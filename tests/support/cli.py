"""The `zoo` command, run in this process."""

from typer.testing import CliRunner

from zoo.cli import app


def run(*arguments, status: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def error_line(result) -> str:
    """The one line on stderr."""
    (line,) = result.stderr.splitlines()
    return line
