"""VQToken: `tokenizer` is the system, `k_means` its quantizer."""
