"""The demo: samples that ship with zoo, and a user's own files, through every variant whose weights ship too."""

from zoo.demo.runner import MODALITIES, Demo, DemoResult

__all__ = ["MODALITIES", "Demo", "DemoResult"]
