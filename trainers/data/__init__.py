"""Training data: where they lie, the files in them, decoded signals, crops and batches."""
