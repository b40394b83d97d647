"""The package as installed: light to import, whole, and true to its README."""

import subprocess
import sys

import zoo


def test_importing_zoo_imports_nothing_heavy():
    program = "import sys, zoo; print([name for name in ('torch', 'numpy', 'huggingface_hub') if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert loaded.strip() == "[]"


def test_every_public_name_is_there():
    for name in zoo.__all__:
        assert getattr(zoo, name) is not None
