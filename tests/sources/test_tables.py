"""Parquet files, saved data sets and streams of `datasets`."""

import pickle
import zipfile

import pytest

from tests.support.data import to_table
from tests.support.sources import bytes_of, contents, items_of, to_memory, write_files
from zoo.errors import InputError, MediaError
from zoo.sources import open_source

NAMES = [f"{number}.png" for number in range(5)]
ROWS = {str(number): name.encode() for number, name in enumerate(NAMES)}


@pytest.fixture
def files(tmp_path):
    return write_files(tmp_path / "files", *NAMES)


@pytest.mark.parametrize("kind, modality", [("Image", "image"), ("Audio", "audio"), ("Video", "video")])
def test_parquet_files_are_read_row_by_row(kind, modality, datasets, files, tmp_path):
    rows = to_table(datasets, files, kind)
    for name in ("test-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002"):
        rows.to_parquet(tmp_path / "table" / "data" / f"{name}.parquet")
    shards = open_source(tmp_path / "table", modality)
    assert [contents([shard]) for shard in shards] == [ROWS, ROWS]
    data = tmp_path / "table" / "data"
    assert {item.source for item in items_of(shards)} == {f"{data}/train-0000{n}-of-00002.parquet" for n in range(2)}
    (shard,) = open_source(f"hf://{tmp_path}/table:test:media", modality)
    assert next(shard.items()).source == f"{data}/test-00000-of-00001.parquet"
    assert contents(open_source(data / "test-00000-of-00001.parquet", modality)) == ROWS


def test_a_local_parquet_file_is_cut_between_row_groups(datasets, files, tmp_path):
    path = tmp_path / "0.parquet"
    to_table(datasets, files, "Image").to_parquet(path, batch_size=1)
    shards = open_source(path, "image", items_per_shard=2)
    assert [shard.name for shard in shards] == [f"{path}[0:2]", f"{path}[2:4]", f"{path}[4:5]"]
    assert [list(contents([shard])) for shard in shards] == [["0", "1"], ["2", "3"], ["4"]]
    assert contents(shards) == ROWS


def test_parquet_behind_fsspec_holds_what_it_holds_on_the_disk(datasets, files, tmp_path):
    for part in range(2):
        to_table(datasets, files, "Image").to_parquet(tmp_path / "table" / "data" / f"{part}.parquet", batch_size=2)
    url = to_memory(tmp_path / "table")
    shards = open_source(url, "image")
    assert [shard.name for shard in shards] == [f"{url}/data/{part}.parquet" for part in range(2)]
    assert [contents([shard]) for shard in shards] == [ROWS, ROWS]
    assert contents(open_source(f"hf://{url}/data/0.parquet::media", "image")) == ROWS
    with pytest.raises(InputError, match="expected no split of a folder behind fsspec, got 'train'"):
        open_source(f"hf://{url}:train", "image")


def test_a_saved_data_set_is_cut_into_rows(datasets, files, tmp_path):
    rows = to_table(datasets, files, "Image")
    rows.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict(train=rows, test=rows.select([4, 1])).save_to_disk(tmp_path / "splits")
    shards = open_source(tmp_path / "saved", "image", items_per_shard=2)
    assert [shard.name for shard in shards] == [f"{tmp_path}/saved[{n}:{min(n + 2, 5)}]" for n in (0, 2, 4)]
    assert contents(shards) == ROWS
    assert max(len(pickle.dumps(shard)) for shard in shards) < 1000
    test = open_source(f"hf://{tmp_path}/splits:test", "image")
    assert contents(test) == {"0": b"4.png", "1": b"1.png"}
    assert items_of(test)[0].source == f"{tmp_path}/splits:test"


def test_a_plain_column_holds_bytes_or_paths(datasets, files, tmp_path):
    cells = {"content": [name.encode() for name in NAMES], "file": [str(files / name) for name in NAMES]}
    rows = datasets.Dataset.from_dict(cells)
    rows.save_to_disk(tmp_path / "saved")
    rows.to_parquet(tmp_path / "0.parquet")
    for data in ("saved", "0.parquet"):
        for column in cells:
            assert contents(open_source(f"hf://{tmp_path}/{data}::{column}", "image")) == ROWS


def test_what_datasets_builds_from_other_files_is_streamed(datasets, files, tmp_path):
    shards = open_source(f"hf://{files}", "image")
    assert items_of(shards)[0].source == f"{files} part 0 of {len(shards)}"
    assert [bytes_of(item) for item in items_of(shards)] == list(ROWS.values())


def test_streamed_rows_may_be_files_in_an_archive(datasets, files, tmp_path):
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "train.zip", "w") as archive:
        for name in NAMES:
            archive.write(files / name, name)
    assert contents(open_source(f"hf://{tmp_path}/data", "image")) == ROWS


def test_damaged_cells_and_files_have_a_problem(datasets, files, tmp_path):
    cells = [{"bytes": b"0.png", "path": None}, None, {"bytes": None, "path": str(tmp_path / "none.png")}]
    features = datasets.Features({"media": datasets.Image(decode=False)})
    rows = datasets.Dataset.from_list([{"media": cell} for cell in cells], features=features)
    rows.to_parquet(tmp_path / "0.parquet", batch_size=3)
    first, second, third = items_of(open_source(tmp_path / "0.parquet", "image"))
    assert first.problem is None
    assert second.problem == f"{tmp_path}/0.parquet row 1: holds no image"
    assert "none.png: cannot be read: No such file or directory" in third.problem


def test_a_parquet_file_that_is_cut_short_is_an_item_with_a_problem(datasets, files, tmp_path):
    for part in range(2):
        to_table(datasets, files, "Image").to_parquet(tmp_path / "table" / f"{part}.parquet")
    path = tmp_path / "table" / "1.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    items = items_of(open_source(tmp_path / "table", "image"))
    assert [item.key for item in items] == [*ROWS, "from 0 on"]
    assert items[-1].problem.startswith(f"{path}: nothing can be read from row 0 on")


def test_columns_and_splits_are_chosen_by_name(datasets, files, tmp_path):
    rows = to_table(datasets, files, "Image")
    rows = rows.add_column("other", rows["media"]).cast_column("other", datasets.Image(decode=False))
    rows.to_parquet(tmp_path / "table" / "0.parquet")
    rows.select([]).to_parquet(tmp_path / "empty.parquet")
    for data, error, message in (
        ("table", InputError, "2 of the columns label, media, other are of image"),
        ("table::none", InputError, "expected a column among label, media, other, got 'none'"),
        ("table::label", InputError, "column 'label' holds no image: expected bytes or paths, got int64"),
        ("table:test:media", InputError, "expected a split among train, got 'test'"),
        ("table:train[:50%]:media", InputError, "expected a split among train"),
        ("empty.parquet::media", MediaError, "holds no row"),
    ):
        with pytest.raises(error, match=message.replace("[", r"\[")):
            open_source(f"hf://{tmp_path}/{data}", "image")
    (tmp_path / "table" / "0.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"0\.parquet: cannot be read as parquet"):
        open_source(tmp_path / "table", "image")
    with pytest.raises(InputError, match="tables hold image, audio, video"):
        open_source(f"hf://{files}", "structure")
