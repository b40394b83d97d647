"""A data set that `datasets.load_dataset` loads from a folder and from the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.corpus.sinks.parquet import ParquetSink
from zoo.errors import InputError
from zoo.files import atomic_path
from zoo.hub import LIBRARY, publisher, publishing
from zoo.registry import CARD

SHARDS = "data/train-*.parquet"


class HuggingFaceSink(ParquetSink):
    """`data/train-SHARD.parquet`, as `ParquetSink` writes it, and from `finish` the card `README.md`."""

    format = "huggingface"
    pattern = SHARDS

    def files(self, shard: str) -> tuple[str, ...]:
        return (SHARDS.replace("*", shard),)

    def finish(self, files: Sequence[tuple[str, ...]]) -> None:
        import pyarrow.parquet as pq

        super().finish(files)
        with atomic_path(self.folder / CARD, overwrite=True) as temporary:
            items = tokens = 0
            for (file,) in filter(None, files):
                metadata = pq.read_metadata(self.folder / file)
                items += metadata.num_rows
                place = next(i for i, column in enumerate(metadata.schema) if column.path.startswith("codes."))
                tokens += sum(
                    metadata.row_group(group).column(place).num_values for group in range(metadata.num_row_groups)
                )
            temporary.write_text(self._card(items, tokens), encoding="utf-8")

    def _card(self, items: int, tokens: int) -> str:
        from huggingface_hub import DatasetCardData

        facts = self.facts
        data = DatasetCardData(
            tags=["discrete-tokens", facts.modality, facts.tokenizer],
            configs=[{"config_name": "default", "data_files": [{"split": "train", "path": SHARDS}]}],
        )
        rows = {
            "tokenizer": facts.tokenizer,
            "SHA-256 of its weights": facts.weights,
            "license of its weights": facts.license,
            "codebook sizes": ", ".join(map(str, facts.codebook_sizes)),
            "sample rate": f"{facts.sample_rate} Hz" if facts.sample_rate else "",
            "options": ", ".join(f"{name}={value}" for name, value in facts.options.items() if value is not None),
            "items": f"{items:,}",
            "tokens": f"{tokens:,}",
        }
        table = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value)
        return f"""---
{data.to_yaml()}
---

# Tokens of {facts.tokenizer}

Codes of {items:,} items, made with `zoo tokenize` of [{LIBRARY}](https://pypi.org/project/{LIBRARY}/).

| | |
| --- | --- |
{table}

## Use

```python
import torch
import zoo
from datasets import load_dataset

row = load_dataset("path/of/this/dataset", split="train")[0]
codes = torch.tensor(row["codes"]).reshape(1, -1, *row["grid"])
signal = zoo.load("{facts.tokenizer}").decode(codes, size=tuple(row["size"]))
```

## License

The license of the weights does not cover this data; the license of the media that it was made from does.
"""


def push_to_hub(folder: str | Path, repo_id: str, *, token: str | None = None, private: bool | None = None) -> str:
    """Put a data set into a Hub repository, in place of the shards there; a new repository is created.

    Args:
        folder: what the format "huggingface" has written: `README.md` and `data/train-*.parquet`. Only these are put.
        repo_id: `owner/name`, or `name` for one's own.
        token: access token with write access; None: the one that `hf auth login` stored.
        private: whether a new repository is private; None: as the owner's settings say.

    Returns:
        The address of the commit.

    Raises:
        InputError: a folder without a data set.
        PublishError: no token, one without write access, or a Hub that cannot be reached.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file() or not any(folder.glob(SHARDS)):
        raise InputError(f"{folder}: expected {CARD} and {SHARDS}, which the format huggingface writes")
    api = publisher(repo_id, token)
    with publishing(repo_id):
        repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
        return api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Push tokens made with zoo",
            allow_patterns=[CARD, SHARDS],
            delete_patterns=SHARDS,
        )
