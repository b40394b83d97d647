"""DPLM-2's structure tokenizer: `tokenizer` is the system, `esm_if1` its encoder's network, `folding` its decoder's."""
