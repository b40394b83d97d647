"""The package as installed: light to import, whole, and true to its README."""

import subprocess
import sys
import tomllib
from pathlib import Path

import zoo

ROOT = Path(__file__).parents[1]


def test_importing_zoo_imports_nothing_heavy():
    program = "import sys, zoo; print([name for name in ('torch', 'numpy', 'huggingface_hub') if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"


def test_every_package_folder_is_installed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("zoo", "models", "trainers")
        for path in (ROOT / top).rglob("__init__.py")
    }
    installed_as = {folder if folder.startswith("zoo") else f"zoo.{folder}" for folder in folders}
    assert installed_as == set(packages)


def test_every_public_name_is_there():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
