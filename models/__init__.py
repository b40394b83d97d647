"""The systems, one file each; `zoo.registry` is the way in."""
