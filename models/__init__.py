"""The tokenizer systems, one file each; `zoo.load` and `zoo.create` build them by name."""
