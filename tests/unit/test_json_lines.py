import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from ovray.errors import ConfigError
from ovray.scoring import text_blocks
from ovray.scoring.files import find_files
from ovray.scoring.inputs import inspect
from tests.data_builders import a_data_set, a_parquet_file, a_text_file, read_all


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Part text after a line or two, as real files are parted after megabytes."""
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 16)
    monkeypatch.setattr(text_blocks, "MAX_RECORD_BYTES", 128)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('{"a":1,"b":"x"}\n{"a":2,"b":"y"}\n', {"a": [1, 2], "b": ["x", "y"]}),
        ('{"a":1}\r\n{"a":2}', {"a": [1, 2]}),
        ('\ufeff{"a":1}\n', {"a": [1]}),
        ('\n  {"a":1}\n\n \t\n{"a":2}\n\n', {"a": [1, 2]}),
        ('{"a":1}\n{"b":true}\n', {"a": [1, None], "b": [None, True]}),
        ('{"a":null}\n{"a":1.5}\n', {"a": [None, 1.5]}),
        ('{"a":9007199254740993}\n{"a":-1}\n', {"a": [9007199254740993, -1]}),
        ('{"a":NaN}\n{"a":-Infinity}\n', {"a": [float("nan"), float("-inf")]}),
        ('{"a":[[1,2],[3,4]]}\n{"a":[[5,6.5],[7,8]]}\n', {"a": [[[1, 2], [3, 4]], [[5, 6.5], [7, 8]]]}),
        ('{"a":[]}\n{"a":[1]}\n', {"a": [[], [1]]}),
        ('{"s":{"x":1}}\n{"s":{"y":["z"]}}\n', {"s": [{"x": 1, "y": None}, {"x": None, "y": ["z"]}]}),
        ('{"t":"2024-01-01"}\n{"t":"2024-01-01T00:00:00Z"}\n', {"t": ["2024-01-01", "2024-01-01T00:00:00Z"]}),
        ('{"s":{"t":["2024-01-01"]}}\n', {"s": [{"t": ["2024-01-01"]}]}),
        ('{"a":"} null {","é":"}{ü"}\n', {"a": ["} null {"], "é": ["}{ü"]}),
        ('{"a":"' + "[" * 600 + '"}\n', {"a": ["[" * 600]}),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.NDJSON", "a.jsonl.gz", "a.ndjson.gz"])
@pytest.mark.parametrize("block_bytes", [3, 16, 1 << 20])
def test_json_lines_are_read_as_they_are_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    columns: dict[str, list[object]],
    name: str,
    block_bytes: int,
) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(text_blocks, "MAX_RECORD_BYTES", 1 << 20)
    content = text.encode()
    path = a_text_file(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)

    table = read_all(a_data_set(path))

    # As text, since NaN is not equal to itself; numbers that are whole may have become floating.
    expected = pa.table({key: pa.array(values, table.schema.field(key).type) for key, values in columns.items()})
    assert str(table.to_pydict()) == str(expected.to_pydict())


@pytest.mark.parametrize(
    ("values", "together"),
    [
        (["1", "null"], pa.int64()),
        (["null", "1.5"], pa.float64()),
        (["1", "1.5"], pa.float64()),
        (["[1]", "[1.5]"], pa.list_(pa.float64())),
        (["[[]]", "[[1]]"], pa.list_(pa.list_(pa.int64()))),
        (['{"x":1}', '{"y":[2]}'], pa.struct({"x": pa.int64(), "y": pa.list_(pa.int64())})),
        (['"2024-01-01"', '"x"'], pa.string()),
        (["null", "null"], pa.null()),
    ],
)
def test_a_key_has_one_type_in_all_blocks_and_files(
    here: Path, small_blocks: None, values: list[str], together: pa.DataType
) -> None:
    # given: one file whose blocks look different, and two files that do
    lines = [f'{{"a":{value},"filler":"{"x" * 30}"}}\n' for value in values]
    one = a_text_file(Path("one.jsonl"), "".join(lines))
    first, second = (a_text_file(Path(f"{at}.jsonl"), line) for at, line in enumerate(lines))

    as_blocks, as_files = a_data_set(one), a_data_set(first, second)

    assert as_blocks.schema.field("a").type == as_files.schema.field("a").type == together
    assert len(as_blocks.files[0].blocks) == 2
    assert read_all(as_blocks) == read_all(as_files)


def test_values_of_different_kinds_are_refused_with_the_line_or_the_files(here: Path, small_blocks: None) -> None:
    number, text = '{"a":1,"filler":"xxxxxxxxxxxx"}\n', '{"a":"1","filler":"xxxxxxxxxxxx"}\n'

    with pytest.raises(
        ConfigError, match=r"'one.jsonl': column 'a' is int64 up to line 2 but string from there on"
    ):
        a_data_set(a_text_file(Path("one.jsonl"), number * 2 + text))
    with pytest.raises(ConfigError, match=r"column 'a' is int64 in '1.jsonl' but string in '2.jsonl'"):
        a_data_set(a_text_file(Path("1.jsonl"), number), a_text_file(Path("2.jsonl"), text))


def test_whole_numbers_of_json_lines_may_be_floats_elsewhere(here: Path) -> None:
    lines = a_text_file(Path("a.jsonl"), '{"a":2}\n')
    table = a_parquet_file(Path("b.parquet"), pa.table({"a": pa.array([1.5], pa.float32())}))
    cells = a_text_file(Path("c.csv"), "a\n0.5\n")

    assert read_all(a_data_set(lines, table)).column("a") == pa.chunked_array([[2.0, 1.5]], pa.float32())
    assert read_all(a_data_set(cells, lines)).column("a").to_pylist() == [0.5, 2.0]


def test_only_the_keys_asked_for_are_read_in_their_order(here: Path) -> None:
    data = a_data_set(a_text_file(Path("a.jsonl"), '{"a":1,"b":{"c":[2]},"d":"x"}\n'))

    assert read_all(data, columns=["d", "b"]).to_pylist() == [{"d": "x", "b": {"c": [2]}}]


def test_lines_are_looked_into_only_as_far_as_rows_are_wanted(here: Path, small_blocks: None) -> None:
    a_text_file(Path("a.jsonl"), '{"a":1}\n' * 20 + "broken\n")
    (ref,) = find_files(["a.jsonl"])

    assert 5 <= inspect(ref, rows_wanted=5).rows < 20


BAD_CONTENT = {
    "nothing.jsonl": (b"", "'nothing.jsonl' is empty: it holds no rows"),
    "blank.jsonl": (b"\n \r\n\n", "'blank.jsonl' is empty: it holds no rows"),
    "keyless.jsonl": (b"{}\n{}\n", "'keyless.jsonl' holds objects without keys"),
    "null.jsonl": (b"null\n", "'null.jsonl', line 1: it does not begin with '{'"),
    "late.jsonl": (b'{"a":1}\n' * 9 + b" null\n", "'late.jsonl', line 10: it does not begin with '{'"),
    "list.jsonl": (b'[{"a":1},\n{"a":2}]\n', "'list.jsonl', line 1: it does not begin with '{'"),
    "pretty.jsonl": (b'{\n "a":1\n}\n', "'pretty.jsonl', line 1: Expecting property name"),
    "twice.jsonl": (b'{"a":1}\n{"a":1}{"a":2}\n', "'twice.jsonl', line 2: Extra data at column 8"),
    "after.jsonl": (b'{"a":1}\n{"a":1} null\n', "'after.jsonl', line 2: Extra data at column 9"),
    "comma.jsonl": (b'{"a":1},\n{"a":2}\n', "'comma.jsonl', line 1: Extra data at column 8"),
    "cut.jsonl": (b'{"a":1}\n\n{"a":2}\n{"a":', "'cut.jsonl', line 4: Expecting value at column 6"),
    "kind.jsonl": (b'{"a":1}\n\n{"a":"x"}', "'kind.jsonl', line 3: Column(/a) changed from number to string"),
    "key.jsonl": (b'{"a":1,"a":2}', "'key.jsonl', line 1: Column(/a) was specified twice"),
    "latin.jsonl": (b'{"a":1}\n{"a":"\xe9"}\n', "'latin.jsonl', line 2: byte 0xe9 is not UTF-8; convert"),
    "utf16.jsonl": ('{"a":1}\n'.encode("utf-16"), "'utf16.jsonl' is encoded in UTF-16: ovray reads JSON Lines in"),
    "endless.jsonl": (b'{"a":"' + b"x" * 200, "'endless.jsonl': the record that begins in line 1 does not end"),
    "plain.jsonl.gz": (b'{"a":1}\n', "'plain.jsonl.gz' cannot be read as JSON Lines: "),
    "cut.jsonl.gz": (gzip.compress(b'{"a":1}\n' * 100)[:-20], "'cut.jsonl.gz' cannot be read as JSON Lines: "),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_a_damaged_or_empty_file_is_named(here: Path, small_blocks: None, name: str) -> None:
    content, message = BAD_CONTENT[name]

    with pytest.raises(ConfigError) as raised:
        a_data_set(a_text_file(Path(name), content))

    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"a":[]}\n{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}\n", "lists and objects nest deeper than 500 "),
        (b'{"a":[]}\n' + b'{"a":[\n' * 200_000, "Expecting value at column 7"),
        (
            b'{"a":[]}\n{"a":"' + b"]" * 1000 + b'","b":' + b"[" * 900 + b"]" * 900 + b"}\n",
            "lists and objects nest",
        ),
    ],
)
def test_nesting_that_would_end_the_process_is_refused(here: Path, content: bytes, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        a_data_set(a_text_file(Path("deep.jsonl"), content))

    assert str(raised.value).startswith(f"'deep.jsonl', line 2: {problem}")
