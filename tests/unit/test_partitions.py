import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ovray.errors import ConfigError
from ovray.scoring.files import find_files
from ovray.scoring.partitions import partitions_of
from tests.data_builders import a_data_set, a_parquet_file, a_text_file, read_all


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_part(path: str, table: pa.Table) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return a_parquet_file(Path(path), table)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.parquet", {}),
        ("year=2024.parquet", {}),
        ("data/year=2024/a.parquet", {"year": "2024"}),
        ("s3://bucket/year=2024/month=07/a.parquet", {"year": "2024", "month": "07"}),
        ("city=a%2Fb%20c/x=/a.csv", {"city": "a/b c", "x": ""}),
        ("eq=a=b/a.csv", {"eq": "a=b"}),
        ("=a/b/c.csv", {}),
        ("day=__HIVE_DEFAULT_PARTITION__/a.csv", {"day": None}),
        ("x=1/x=2/a.csv", {"x": "2"}),
    ],
)
def test_folders_say_what_a_column_holds(name: str, found: dict[str, str | None]) -> None:
    assert {one.column: one.value for one in partitions_of(name)} == found


def test_folders_of_a_data_set_become_columns(here: Path) -> None:
    for year, city, numbers in ((2023, "Rome", [1, 2]), (2024, "Oslo", [3]), (2024, "Rome", [4, 5])):
        a_part(f"data/year={year}/city={city}/part-0.parquet", pa.table({"n": numbers}))

    data = a_data_set("data")

    assert data.schema == pa.schema({"n": pa.int64(), "year": pa.int64(), "city": pa.string()})
    assert read_all(data).to_pydict() == {
        "n": [1, 2, 3, 4, 5],
        "year": [2023, 2023, 2024, 2024, 2024],
        "city": ["Rome", "Rome", "Oslo", "Rome", "Rome"],
    }
    assert read_all(data, columns=["city", "n"]).column_names == ["city", "n"]


def test_what_pyarrow_parts_is_put_together_again(here: Path) -> None:
    import pyarrow.dataset as pads

    table = pa.table({"n": [1, 2, 3], "key": ["a b/c", "é=%", None]})
    pads.write_dataset(table, "data", format="parquet", partitioning=["key"], partitioning_flavor="hive")

    read = read_all(a_data_set("data"))

    assert sorted(read.to_pylist(), key=lambda row: row["n"]) == table.to_pylist()


def test_columns_of_folders_alone_can_be_read(here: Path) -> None:
    a_part("year=2024/a.parquet", pa.table({"n": range(5)}))

    assert read_all(a_data_set("year=2024"), columns=["year"], rows_per_batch=2).to_pydict() == {
        "year": [2024] * 5
    }


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2"], pa.int64()),
        (["1", "__HIVE_DEFAULT_PARTITION__"], pa.int64()),
        (["07", "x"], pa.string()),
        (["1.5", "2"], pa.string()),
        (["9" * 30, "1"], pa.string()),
        (["__HIVE_DEFAULT_PARTITION__", "__HIVE_DEFAULT_PARTITION__"], pa.null()),
    ],
)
def test_a_column_of_folders_has_one_type(here: Path, values: list[str], kind: pa.DataType) -> None:
    for at, value in enumerate(values):
        a_part(f"data/key={value}/{at}.parquet", pa.table({"n": [at]}))

    data = a_data_set("data/key=*")

    assert data.schema.field("key").type == kind
    as_read = ["null" if key is None else str(key) for key in read_all(data).column("key").to_pylist()]
    assert sorted(as_read) == sorted("null" if value.startswith("__") else value for value in values)


def test_a_file_s_own_column_counts_more_than_its_folder_s(here: Path) -> None:
    a_part("data/year=1/a.parquet", pa.table({"n": [1], "year": [2024]}))
    a_part("data/year=2025/b.parquet", pa.table({"n": [2]}))

    assert read_all(a_data_set("data")).to_pydict() == {"n": [1, 2], "year": [2024, 2025]}


def test_files_of_every_format_take_the_columns_of_their_folders(here: Path) -> None:
    for at, name in enumerate(("a.parquet", "a.csv", "a.jsonl", "a.npz")):
        folder = Path(f"data/at={at}")
        folder.mkdir(parents=True)
        if name == "a.parquet":
            a_parquet_file(folder / name, pa.table({"n": [at]}))
        elif name == "a.npz":
            np.savez(folder / name, n=np.array([at]))
        else:
            a_text_file(folder / name, f"n\n{at}\n" if name == "a.csv" else f'{{"n":{at}}}\n')

    assert read_all(a_data_set("data")).to_pydict() == {"n": [0, 1, 2, 3], "at": [0, 1, 2, 3]}


def test_a_file_without_the_folder_of_the_others_is_named(here: Path) -> None:
    a_part("data/year=2024/a.parquet", pa.table({"n": [1]}))
    a_part("data/b.parquet", pa.table({"n": [1]}))

    with pytest.raises(
        ConfigError, match=r"'data/b\.parquet' has no column 'year', 'data/year=2024/a\.parquet' has"
    ):
        a_data_set("data")


def test_folders_travel_with_a_file(here: Path) -> None:
    a_part("data/year=2024/a.parquet", pa.table({"n": [1]}))
    (ref,) = find_files(["data"])

    assert pickle.loads(pickle.dumps(ref)) == ref
