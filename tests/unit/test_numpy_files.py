import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ovray.errors import ConfigError, DataError
from ovray.scoring.reading import RowReader
from tests.data_builders import a_data_set, a_text_file, read_all


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.arange(3, dtype=np.uint8), pa.uint8()),
        (np.arange(3, dtype=">i4"), pa.int32()),
        (np.array([1.5, np.nan, -0.0], np.float16), pa.float16()),
        (np.array([2**63, 1], np.uint64), pa.uint64()),
        (np.array([True, False]), pa.bool_()),
        (np.array(["a", "bé\0c", ""]), pa.string()),
        (np.array([b"a", b"b\0c", b""]), pa.binary()),
        (np.array(["2024-01-01", "1969-12-31"], "M8[ns]"), pa.timestamp("ns")),
        (np.array(["2024-01-01"], "M8[D]"), pa.date32()),
        (np.array([1, -1], "m8[us]"), pa.duration("us")),
        (np.arange(6, dtype=np.float32).reshape(3, 2), pa.list_(pa.float32(), 2)),
        (np.arange(24, dtype=np.uint8).reshape(2, 3, 4), pa.list_(pa.list_(pa.uint8(), 4), 3)),
        (np.arange(24).reshape(4, 3, 2).transpose(2, 0, 1), pa.list_(pa.list_(pa.int64(), 3), 4)),
    ],
)
def test_an_array_is_the_column_array_with_its_values_untouched(
    here: Path, array: np.ndarray[Any, Any], kind: pa.DataType
) -> None:
    np.save("a.npy", array)

    data = a_data_set("a.npy")

    assert data.schema == pa.schema({"array": kind})
    expected = pa.array(array.tolist(), kind) if array.dtype.kind not in "Mm" else pa.array(array, kind)
    assert str(read_all(data, rows_per_batch=2).column("array").to_pylist()) == str(expected.to_pylist())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_each_array_of_an_archive_is_a_column(here: Path, save: Any) -> None:
    save("a.npz", pixels=np.arange(6, dtype=np.uint8).reshape(3, 2), label=np.array(["a", "b", "c"]))

    data = a_data_set("a.npz")

    assert data.schema == pa.schema({"pixels": pa.list_(pa.uint8(), 2), "label": pa.string()})
    assert read_all(data, columns=["label", "pixels"], rows_per_batch=2).to_pylist() == [
        {"label": "a", "pixels": [0, 1]},
        {"label": "b", "pixels": [2, 3]},
        {"label": "c", "pixels": [4, 5]},
    ]


def test_an_archive_may_hold_arrays_stored_column_by_column(here: Path) -> None:
    array = np.asfortranarray(np.arange(12).reshape(4, 3))
    np.savez("a.npz", x=array)

    assert read_all(a_data_set("a.npz"), rows_per_batch=3).column("x").to_pylist() == array.tolist()


def test_any_row_of_a_large_array_is_read_by_itself(here: Path) -> None:
    # given: a file of 8 GB that has no blocks on the disk but for its header and one row
    rows, length = 2**20, 2**10
    array = np.lib.format.open_memmap("a.npy", mode="w+", dtype=np.float64, shape=(rows, length))
    array[rows - 2] = range(length)
    array.flush()
    del array

    data = a_data_set("a.npy")
    (batch,) = (
        found.batch for found in RowReader(data.schema, rows_per_batch=8).read(data.slices(rows - 2, rows - 1))
    )

    assert batch.column("array").to_pylist() == [list(range(length))]


def header_of(array: np.ndarray[Any, Any]) -> bytes:
    return npy(array)[: -array.nbytes]


def npy(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    np.save("made.npy", array, **options)
    return Path("made.npy").read_bytes()


BAD_ARRAYS = {
    "object": (np.array([{}, 1]), "it holds Python objects, which ovray does not unpickle"),
    "complex": (np.array([1j]), "it holds complex128, which has no Arrow type; convert it first"),
    "record": (np.zeros(2, [("a", "i4")]), "it holds [('a', '<i4')], which has no Arrow type"),
    "records": (np.zeros(2, [("é", "i4"), ("\u20ac", "i4")]), "it is an array of records"),
    "hours": (np.array(["2024-01-01"], "M8[h]"), "it holds datetime64[h], which has no Arrow type"),
    "scalar": (np.array(1), "its shape is [], so it has no rows"),
    "void": (np.zeros((3, 0)), "its rows hold no values: it is float64[3, 0]"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
def test_an_array_that_makes_no_rows_is_named(here: Path, name: str) -> None:
    array, reason = BAD_ARRAYS[name]

    with pytest.raises(ConfigError) as raised:
        a_data_set(a_text_file(Path("bad.npy"), npy(array)))

    assert str(raised.value).startswith(f"'bad.npy' cannot be read as NumPy: {reason}")


def test_an_array_without_rows_is_named(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"'none\.npy' is empty: it holds no rows"):
        a_data_set(a_text_file(Path("none.npy"), npy(np.zeros((0, 3)))))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: b"", "EOF: reading magic string"),
        (lambda content: content[:9], "EOF: reading array header length"),
        (lambda content: content[:50], "EOF: reading array header, expected"),
        (lambda content: content[:-1], "array 'array' is int64[4], 32 bytes, but there are 31"),
        (lambda content: content + b"x", "array 'array' is int64[4], 32 bytes, but there are 33"),
        (lambda content: b"x" * 200, "the magic string is not correct"),
        (lambda content: content[:10] + b"?" * 70 + content[80:], "Cannot parse header"),
        (lambda content: content.replace(b"(4,)", b"(-4,"), "its header is damaged"),
    ],
)
def test_a_damaged_array_is_named(here: Path, change: Any, reason: str) -> None:
    path = a_text_file(Path("bad.npy"), change(npy(np.arange(4))))

    with pytest.raises(ConfigError) as raised:
        a_data_set(path)

    assert str(raised.value).startswith(f"'bad.npy' cannot be read as NumPy: {reason}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("left", [0, 10, 0.5, -1, -30])
def test_a_cut_archive_is_named(here: Path, left: int | float) -> None:
    np.savez("cut.npz", x=np.arange(100))
    content = Path("cut.npz").read_bytes()
    Path("cut.npz").write_bytes(content[: int(left * len(content)) if isinstance(left, float) else left])

    with pytest.raises(ConfigError, match=r"^'cut\.npz' cannot be read as NumPy: "):
        a_data_set("cut.npz")


def test_an_archive_of_other_things_is_named(here: Path) -> None:
    with zipfile.ZipFile("a.npz", "w") as archive:
        archive.writestr("readme.md", "x")

    with pytest.raises(ConfigError, match=r"'a\.npz' cannot be read as NumPy: it holds 'readme\.md', which is no"):
        a_data_set("a.npz")


def test_an_archive_without_arrays_is_named(here: Path) -> None:
    np.savez("a.npz")

    with pytest.raises(ConfigError, match=r"^'a\.npz' cannot be read as NumPy: "):
        a_data_set("a.npz")


def test_arrays_of_one_archive_count_the_same_rows(here: Path) -> None:
    np.savez("a.npz", x=np.arange(3), y=np.arange(4))

    with pytest.raises(ConfigError, match=r"'a\.npz': array 'x' has 3 rows but 'y' has 4"):
        a_data_set("a.npz")


def test_what_is_packed_must_be_stored_row_by_row(here: Path) -> None:
    np.savez_compressed("a.npz", x=np.asfortranarray(np.zeros((3, 2))))

    with pytest.raises(ConfigError, match=r"array 'x' is packed and stored column by column"):
        a_data_set("a.npz")


def test_damage_to_what_is_packed_names_its_rows(here: Path) -> None:
    np.savez_compressed("a.npz", x=np.random.default_rng(0).random(10_000))
    content = bytearray(Path("a.npz").read_bytes())
    content[20_000:20_100] = b"\xff" * 100
    Path("a.npz").write_bytes(content)
    data = a_data_set("a.npz")

    with pytest.raises(DataError, match=r"a\.npz, rows \d+ to 9999 \(the first is 0\): cannot be read: "):
        read_all(data, rows_per_batch=1000)
