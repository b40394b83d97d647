"""VidTok: `tokenizer` is the system, `blocks` what its networks are made of."""
