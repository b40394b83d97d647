"""The demo: samples that ship with zoo, and a user's own files, through every variant whose weights ship too.

`zoo.demo(...)` runs it.
"""

from zoo.callable_module import make_callable
from zoo.demo.runner import Demo, DemoResult, demo

__all__ = ["Demo", "DemoResult", "demo"]

make_callable(__name__)
