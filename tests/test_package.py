"""The package as installed: whole, light to import, and seen by every tool."""

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

import zoo
from tests.support.modules import FOLDERS
from tests.support.paths import ROOT

OUTSIDE_THE_PACKAGE = ("cards", "models", "trainers")  # links in zoo/ to folders of the repository


def run(program: str, *arguments: str, options: tuple[str, ...] = (), cwd: Path | None = None, **environment: str):
    """What a program prints in a Python process of its own."""
    command = [sys.executable, *options, "-c", program, *arguments]
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_every_public_name_is_there():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None


# Imports


def test_importing_zoo_imports_nothing_heavy():
    heavy = "('torch', 'numpy', 'huggingface_hub', 'PIL', 'rich', 'typer')"
    assert run(f"import sys, zoo; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_loading_a_tokenizer_imports_one_model_file():
    program = """
import sys, zoo
zoo.load("wavtokenizer-nano")
models = [name for name in sys.modules if name.startswith("zoo.models.")]
print([name for name in models if not hasattr(sys.modules[name], "__path__")], "zoo.trainers" in sys.modules)
"""
    assert run(program) == "['zoo.models.audio.wavtokenizer'] False"


@pytest.mark.parametrize(
    "arguments",
    [("info", "wavtokeniser"), ("pull", "wavtokeniser"), ("encode", "wavtokeniser", "x.wav", "--out", "codes")],
    ids=lambda arguments: arguments[0],
)
def test_the_command_reports_an_unknown_tokenizer_without_torch(arguments):
    program = """
import sys
from zoo.cli import main
try:
    main()
except SystemExit as stop:
    print(stop.code, "torch" in sys.modules)
"""
    assert run(program, *arguments) == "1 False"


def test_python_reports_an_unknown_tokenizer_without_torch():
    program = """
import sys, zoo
try:
    zoo.info("wavtokeniser")
except zoo.UnknownTokenizerError as error:
    print(error, "torch" in sys.modules)
"""
    assert run(program).startswith("unknown tokenizer 'wavtokeniser'; did you mean 'wavtokenizer'")
    assert run(program).endswith("False")


# The editable install


@pytest.fixture(scope="module")
def editable():
    """The folder that the editable install adds to the path."""
    distribution = importlib.metadata.distribution("tokenizer-zoo")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        pytest.skip("zoo is not installed as editable")
    names = [Path(str(path)) for path in distribution.files or []]
    assert not [path for path in names if path.name.startswith("__editable__") and path.suffix == ".py"], "a finder"
    (pth,) = [path for path in names if path.suffix == ".pth"]
    (line,) = Path(str(distribution.locate_file(pth))).read_text().splitlines()
    assert Path(line).is_dir(), f"{line}: expected a plain path"
    return line


@pytest.mark.parametrize("module", ["zoo.registry", "zoo.models.image.wetok", "zoo.trainers"])
def test_an_editable_install_is_a_plain_path_in_which_modules_are_found(editable, module):
    program = "import sys, importlib.util as u; sys.path.insert(0, sys.argv[1]); print(u.find_spec(sys.argv[2]).origin)"
    found = run(program, editable, module, options=("-I", "-S"))  # no hook of site-packages runs
    path = Path(editable, *module.split("."))
    assert Path(found) in (path.with_suffix(".py"), path / "__init__.py")


def test_a_type_checker_resolves_the_modules(editable, tmp_path):
    pytest.importorskip("mypy")
    source = "import zoo.models.image.wetok\nimport zoo.trainers.recipe\nimport zoo.no_such_module\n"
    command = [sys.executable, "-m", "mypy", "--follow-imports=skip", "--cache-dir", str(tmp_path), "-c", source]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert "zoo.no_such_module" in errors[0]


def test_a_clone_called_zoo_does_not_shadow_the_package(tmp_path):
    clone = tmp_path / "zoo"
    clone.mkdir()
    for name in ("zoo", *FOLDERS, "hub_cards", "tests", "pyproject.toml"):
        if not (clone / name).exists():
            (clone / name).symlink_to(ROOT / name)
    program = "import zoo; print(zoo.load.__name__, zoo.list_tokenizers.__name__, zoo.__file__)"
    printed = run(program, cwd=tmp_path)
    assert printed.startswith("load list_tokenizers ")
    assert not Path(printed.split()[-1]).is_relative_to(tmp_path)


# Wheel and sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist of a copy of the repository."""
    pytest.importorskip("setuptools", minversion="77")  # as pyproject.toml's build-system asks for
    source, out = tmp_path_factory.mktemp("source") / "checkout", tmp_path_factory.mktemp("out")
    left_out = ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "tests", "benchmarks", "shared")
    copytree(ROOT, source, symlinks=True, ignore=left_out)
    for build in ("build_wheel", "build_sdist"):
        run(f"import sys; from setuptools import build_meta; build_meta.{build}(sys.argv[1])", str(out), cwd=source)
    return out


def packaged_files() -> set[str]:
    """All files of the package, links followed."""
    return {
        str(path.relative_to(ROOT))
        for folder in (ROOT / "zoo", *(ROOT / "zoo" / name for name in OUTSIDE_THE_PACKAGE))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_wheel_holds_the_files_of_the_package_and_no_others(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {entry.filename for entry in archive.infolist()}
        links = [entry.filename for entry in archive.infolist() if (entry.external_attr >> 16) & 0o170000 == 0o120000]
    assert links == []
    assert packaged_files() - held == set()
    assert {name for name in held - packaged_files() if ".dist-info/" not in name} == set()


def test_a_wheel_loads_what_it_ships(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = "import zoo; print(zoo.load('wetok-nano').spec.name, zoo.__file__)"
    name, file = run(program, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site")).split()
    assert name == "wetok-nano"
    assert Path(file).is_relative_to(tmp_path / "site")


def test_an_sdist_holds_real_files_of_the_whole_package(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries if entry.issym() or entry.islnk()] == []
    held = {entry.name.partition("/")[2] for entry in entries}
    assert (packaged_files() | {"pyproject.toml", "README.md", "LICENSE"}) - held == set()
