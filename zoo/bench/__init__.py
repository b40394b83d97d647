"""Which tokenizer at which rate: reconstructions of a folder of files, measured beside the classical codecs."""
