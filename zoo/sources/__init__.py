"""Where signals come from: folders, WebDataset shards, tables, manifests and code files, on disk or behind fsspec."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from zoo.extras import extra
from zoo.sources.items import Item, Shard

__all__ = ["Item", "Shard", "open_source"]


def open_source(
    data: str | Path | Iterable[str | Path], modality: str, *, items_per_shard: int | None = None
) -> list[Shard]:
    """Return data as shards, which workers read; without reading more than what tells the shards apart.

    | data | shards | source and key of an item |
    | --- | --- | --- |
    | a folder, files | `items_per_shard` files, in the order of their paths | the folder, and the path in it |
    | `.tar` shards | one each | the shard, and the member's name |
    | parquet files | local: row groups, about `items_per_shard` rows; else one each | the file, and the row's number |
    | saved by `datasets` | `items_per_shard` rows | the table, and the row's number in the split |
    | other data sets of the Hub | the parts that `datasets` streams | the table and the part, and the row's number |
    | a manifest | `items_per_shard` lines | the manifest, and the line's id or path |
    | code files | `items_per_shard` files | the folder, and the path in it |

    Shards can be pickled, and a shard's name is the same as long as the data are. A damaged item has a `problem`; where
    the rest of a shard cannot be read, its last item has the problem.

    Of a folder, the files with a suffix of the modality count, also in its subfolders and in linked ones, each folder
    once; hidden files and folders do not. A file that is named twice, or by itself and through its folder, is taken
    once. The item of a single file has its folder as source. Keys have slashes on every system. An empty file is a
    damaged one.

    Args:
        data: as `zoo.sources.locations.locate` takes it, or several of these.
        modality: the kind of signal.
        items_per_shard: how many items a shard has where the data do not say so; None: as many as make 64 shards, but
            from 16 to 1000.

    Raises:
        InputError: nothing is there, a folder holds several kinds of data, a table has no such column, or a URL's
            protocol is not known or needs a package.
        MediaError: a folder without files of the modality, or a store that cannot be reached or refuses.
        ZooError: a package of the extra `scale` is missing.
    """
    with extra("scale", "reading data"):
        from zoo.sources.opening import open_shards
    return open_shards(data, modality, items_per_shard)
