from pathlib import Path

import pytest

from ovray.errors import ConfigError
from ovray.scoring.files import find_files, open_file
from ovray.scoring.records import FileRef, Format


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        "data/b.parquet",
        "data/a.csv",
        "data/c.PQ",
        "data/notes.txt",
        "data/_ovray.json",
        "data/.hidden.csv",
        "data/_temporary/x.parquet",
        "data/deep/d.csv.gz",
        "data/deep/er/e.csv",
        "texts/readme.md",
        "letters/b.txt",
        "letters/a.txt",
        "plus.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "nothing").mkdir()
    return tmp_path


def names(refs: tuple[FileRef, ...]) -> list[str]:
    return [ref.name for ref in refs]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("plus.csv", ["plus.csv"]),
        ("./plus.csv", ["./plus.csv"]),
        ("data", ["data/a.csv", "data/b.parquet", "data/c.PQ", "data/deep/d.csv.gz", "data/deep/er/e.csv"]),
        ("data/", ["data/a.csv", "data/b.parquet", "data/c.PQ", "data/deep/d.csv.gz", "data/deep/er/e.csv"]),
        ("data/*", ["data/a.csv", "data/b.parquet", "data/c.PQ", "data/deep/d.csv.gz", "data/deep/er/e.csv"]),
        ("data/[ab].*", ["data/a.csv", "data/b.parquet"]),
        ("*.csv", ["plus.csv"]),
        ("data/?.csv", ["data/a.csv"]),
        ("**/*.csv", ["data/a.csv", "data/deep/er/e.csv", "plus.csv"]),
        ("data/**/*.csv*", ["data/a.csv", "data/deep/d.csv.gz", "data/deep/er/e.csv"]),
        ("d*/deep", ["data/deep/d.csv.gz", "data/deep/er/e.csv"]),
        ("letters", ["letters/a.txt", "letters/b.txt"]),
        ("data/*.txt", ["data/notes.txt"]),
        ("data/_temporary/*.parquet", ["data/_temporary/x.parquet"]),
        ("data/_t*/*.parquet", ["data/_temporary/x.parquet"]),
    ],
)
def test_an_input_means_these_files_in_the_order_of_names(folder: Path, typed: str, found: list[str]) -> None:
    assert names(find_files([typed])) == found


def test_inputs_count_in_the_order_given(folder: Path) -> None:
    assert names(find_files(["plus.csv", "data/b.parquet", Path("data/a.csv")])) == [
        "plus.csv",
        "data/b.parquet",
        "data/a.csv",
    ]


def test_one_input_needs_no_list(folder: Path) -> None:
    assert find_files("plus.csv") == find_files(["plus.csv"])


def test_a_file_opens_from_any_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ref,) = find_files(["data/a.csv"])

    monkeypatch.chdir("/")

    assert ref.format is Format.CSV
    with open_file(ref) as file:
        assert file.read() == b"data/a.csv"


def test_a_url_finds_and_opens_the_same_files(folder: Path) -> None:
    url = f"file://{folder}"

    refs = (
        *find_files([f"{url}/data/deep"]),
        *find_files([f"{url}/**/[a]*.csv"]),
        *find_files([f"{url}/plus.csv"]),
    )

    assert names(refs) == [
        f"{url}/{name}" for name in ("data/deep/d.csv.gz", "data/deep/er/e.csv", "data/a.csv", "plus.csv")
    ]
    with open_file(refs[2]) as file:
        assert file.read() == b"data/a.csv"


def test_a_url_below_a_folder_may_hold_spaces(folder: Path) -> None:
    (folder / "nothing" / "a b%41.csv").write_text("spaced")

    (ref,) = find_files([f"file://{folder}/nothing"])

    with open_file(ref) as file:
        assert file.read() == b"spaced"


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(folder: Path) -> None:
    (folder / "plus[1].csv").write_text("")

    assert names(find_files(["plus[1].csv"])) == ["plus[1].csv"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("gone.csv", "input 'gone.csv' matches nothing: there is no such file or folder"),
        ("gone/*.csv", "input 'gone/*.csv' matches no file"),
        ("data/*.orc", "input 'data/*.orc' matches no file"),
        ("nothing", "input 'nothing' is a folder without files"),
        (
            "texts",
            "input 'texts' holds no file that ovray reads (.parquet, .pq, .csv, .csv.gz, ",
        ),
        ("texts/*", "input 'texts/*' holds no file that ovray reads"),
        (
            "texts/readme.md",
            "input 'texts/readme.md' is of no known format: ovray goes by the name and reads .parquet",
        ),
        ("plus.csv/x.csv", "input 'plus.csv/x.csv'"),
        ("ftp://host/x.csv", "input 'ftp://host/x.csv' cannot be looked at: Unrecognized filesystem type"),
        ("file:///gone.csv", "input 'file:///gone.csv' matches nothing"),
    ],
)
def test_an_input_that_means_no_file_is_named_as_typed(folder: Path, typed: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        find_files(["plus.csv", typed])

    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_no_input_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no input was given"):
        find_files([])
