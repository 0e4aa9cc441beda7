import gzip
from pathlib import Path

import pytest

from ovray.errors import ConfigError
from ovray.scoring import text_blocks
from tests.data_builders import a_data_set, a_text_file, read_all


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb", ["a", "b"]),
        (b"a\n\n\nb\n\n", ["a", "", "", "b", ""]),
        (b"\n", [""]),
        (b"a\rb\r", ["a\rb\r"]),
        ("\ufeffé \n\tü".encode(), ["é ", "\tü"]),
        (b'"a,\n', ['"a,']),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("block_bytes", [1, 3, 1 << 20])
def test_each_line_is_a_row_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, lines: list[str], name: str, block_bytes: int
) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", block_bytes)
    path = a_text_file(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)

    assert read_all(a_data_set(path)).to_pydict() == {"text": lines}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.txt", b"", "'nothing.txt' is empty: it holds no rows"),
        ("mark.txt", b"\xef\xbb\xbf", "'mark.txt' is empty: it holds no rows"),
        ("latin.txt", b"a\nb\n\xe9\n", "'latin.txt', line 3: byte 0xe9 is not UTF-8; convert the file first"),
        ("utf16.txt", "a\n".encode("utf-16"), "'utf16.txt' is encoded in UTF-16: ovray reads text in UTF-8"),
        ("endless.txt", b"x" * 200, "'endless.txt': the record that begins in line 1 does not end within"),
        ("plain.txt.gz", b"a\n", "'plain.txt.gz' cannot be read as text: "),
    ],
)
def test_a_damaged_or_empty_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", 16)
    monkeypatch.setattr(text_blocks, "MAX_RECORD_BYTES", 128)

    with pytest.raises(ConfigError) as raised:
        a_data_set(a_text_file(Path(name), content))

    assert str(raised.value).startswith(message)
