"""DPLM-2's structure tokenizer: `tokenizer` has the whole, `esm_if1` its encoder's network, `folding` its decoder's."""
