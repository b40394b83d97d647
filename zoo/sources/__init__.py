"""Where signals come from: folders, WebDataset shards, tables, manifests and code files, on disk or behind fsspec."""
