import os
import pickle
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
import pyarrow as pa
import pytest
from openvino import opset13 as ops

from ovray.errors import ConfigError, DataError
from ovray.replica.model import pack
from ovray.replica.signature import Port
from ovray.scoring.cells import cells_of
from ovray.scoring.files import find_files
from ovray.scoring.given import GivenFiles
from ovray.scoring.inspection import inspect_all, inspects_here
from ovray.scoring.job_record import JobRecord, describe_job
from ovray.scoring.on_error import ErrorOptions, OnError
from ovray.scoring.picture_columns import fit_pictures
from ovray.scoring.picture_files import OWN_SIZE, Form
from ovray.scoring.preparation import GraphSteps
from ovray.scoring.reading import RowReader, read_sample
from ovray.scoring.records import FileRef, Format, Rows, Unreadable
from ovray.scoring.row_plan import RowOptions, plan_rows
from tests.data_builders import a_data_set, a_model, a_port, read_all
from tests.pictures import a_picture, some_pixels

U8, F32 = pa.uint8(), pa.float32()


def listed(refs: Sequence[FileRef]) -> list[tuple[str, list[str]]]:
    return [(ref.name, ref.pictures.names.to_pylist() if ref.pictures else []) for ref in refs]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    names = ("b.png", "a.JPG", "sub/c.webp", "z.gif", "_x.png", ".y.png", "labels.txt", "notes.md")
    for name in names:
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_text(name)
    return tmp_path


class TestFinding:
    @pytest.mark.parametrize(
        ("typed", "found"),
        [
            ("photos", [("photos", ["a.JPG", "b.png"]), ("photos/sub", ["c.webp"]), ("photos", ["z.gif"])]),
            ("photos/*.[jp]*", [("photos", ["b.png"])]),
            ("photos/**/*.webp", [("photos/sub", ["c.webp"])]),
            ("photos/b.png", [("photos/b.png", [""])]),
        ],
    )
    def test_pictures_come_as_folders_in_the_order_of_names(
        self, folder: Path, typed: str, found: list[tuple[str, list[str]]]
    ) -> None:
        assert listed(find_files([typed])) == found

    def test_texts_beside_pictures_are_notes(self, folder: Path) -> None:
        assert {ref.format for ref in find_files(["photos"])} == {Format.PICTURE}

    def test_tables_beside_pictures_are_an_open_question(self, folder: Path) -> None:
        Path("photos/labels.csv").touch()

        with pytest.raises(ConfigError) as raised:
            find_files(["photos"])

        assert str(raised.value) == (
            "input 'photos' holds tables and pictures, such as labels.csv and a.JPG, and it is open which are"
            " meant; name one kind, as in 'FOLDER/**/*.jpg'"
        )

    def test_a_listing_has_sizes_and_times_and_travels(self, folder: Path) -> None:
        ref = find_files(["photos"])[0]

        assert ref.pictures is not None
        assert ref.pictures.sizes_bytes.to_pylist() == [5, 5]
        assert ref.pictures.modified_ns[1].as_py() == os.stat("photos/b.png").st_mtime_ns
        assert pickle.loads(pickle.dumps(ref)) == ref

    def test_no_picture_is_opened_before_its_row_is_due(self, folder: Path) -> None:
        files = inspect_all(find_files(["photos"]), rows_wanted=None)

        assert [file.rows for file in files] == [2, 1, 1]
        assert [file.size_bytes for file in files] == [10, 10, 5]

    def test_folders_by_the_thousand_need_no_cluster_to_look_into(self, tmp_path: Path) -> None:
        for at in range(300):
            a_picture(tmp_path / f"class={at}" / "a.png", some_pixels(1, 1))

        files = find_files([tmp_path])

        assert len(files) == 300
        assert inspects_here(files)

    def test_without_pillow_the_way_to_it_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (ref,) = find_files([a_picture(tmp_path / "a.png", some_pixels(1, 1))])
        monkeypatch.setattr("ovray.scoring.picture_files.find_spec", lambda name: None)

        with pytest.raises(ConfigError, match=r"a\.png' holds pictures, which need Pillow: pip install 'ovray"):
            inspect_all([ref], rows_wanted=None)

    @pytest.mark.slow
    def test_many_pictures_are_listed_in_little_time_and_memory(self, tmp_path: Path) -> None:
        for at in range(20_000):
            os.close(os.open(tmp_path / f"{at:06}.jpg", os.O_CREAT))

        began_s = time.process_time()
        data = a_data_set(tmp_path)
        slices = data.slices(10_000, 10_100)

        assert time.process_time() - began_s < 10  # half a second; decoding them would take 20 times as long
        assert data.rows == 20_000
        assert [one.ref.name for one in slices] == [f"{tmp_path}/{at:06}.jpg" for at in range(10_000, 10_100)]
        assert len(pickle.dumps(data.files)) < 1_000_000
        assert data.cheap_cuts == (0, 20_000)


class TestReading:
    def test_a_folder_gives_paths_and_pictures_of_their_own_sizes(self, tmp_path: Path) -> None:
        pictures = [some_pixels(3, 4), some_pixels(2, 5)]
        for name, pixels in zip("ab", pictures, strict=True):
            a_picture(tmp_path / f"{name}.png", pixels)

        table = read_all(a_data_set(tmp_path))

        assert table.schema == pa.schema({"path": pa.string(), "image": OWN_SIZE})
        assert table["path"].to_pylist() == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
        assert table["image"].to_pylist() == [pixels.tolist() for pixels in pictures]

    def test_what_folders_say_becomes_columns(self, tmp_path: Path) -> None:
        for name in ("class=cat/size=1/b.png", "class=cat/size=1/a.png", "class=dog/size=2/c.png"):
            a_picture(tmp_path / name, some_pixels(2, 2))

        table = read_all(a_data_set(tmp_path), columns=["class", "path", "size"])

        assert table["class"].to_pylist() == ["cat", "cat", "dog"]
        assert table["size"].to_pylist() == [1, 1, 2]
        assert [os.path.basename(path) for path in table["path"].to_pylist()] == ["a.png", "b.png", "c.png"]

    def test_a_single_picture_and_a_url_are_read_too(self, tmp_path: Path) -> None:
        one = a_picture(tmp_path / "class=cat" / "a b%.png", some_pixels(2, 2))

        table = read_all(a_data_set(one, f"file://{tmp_path}"))

        assert table["path"].to_pylist() == [str(one), f"file://{tmp_path}/class%3Dcat/a%20b%25.png"]
        assert table["class"].to_pylist() == ["cat", "cat"]

    def test_a_limit_takes_the_first_ones(self, tmp_path: Path) -> None:
        for at in range(5):
            a_picture(tmp_path / f"{at}.png", some_pixels(1, 1))

        assert read_all(a_data_set(tmp_path, limit=3)).num_rows == 3

    @pytest.mark.parametrize(("kind", "resizes"), [(F32, True), (U8, True), (U8, False)])
    def test_pictures_come_in_the_form_that_the_schema_says(
        self, tmp_path: Path, kind: pa.DataType, resizes: bool
    ) -> None:
        pixels = some_pixels(2, 3)
        a_picture(tmp_path / "a.png", pixels)
        form = Form(height=2, width=3, channels=3, type=kind, resizes=resizes)
        data = a_data_set(tmp_path).with_pictures(form.as_field())

        sample = read_sample(data, ErrorOptions())

        assert Form.of_field(sample.schema.field("image")) == form
        assert np.array_equal(sample.column("image").to_numpy_ndarray()[0], pixels)
        assert cells_of(sample.column("image")).type == kind

    def test_a_picture_of_another_size_is_named_with_what_to_do(self, tmp_path: Path) -> None:
        a_picture(tmp_path / "a.png", some_pixels(2, 3))
        a_picture(tmp_path / "b.png", some_pixels(3, 2))
        data = a_data_set(tmp_path)
        form = Form(height=2, width=3, channels=3, type=U8, resizes=False)

        reader = RowReader(data.schema.set(1, form.as_field()), rows_per_batch=7)
        fitting, other = reader.read(data.slices(0, 2))

        assert isinstance(fitting, Rows)
        assert fitting.name_row(0) == f"{tmp_path}/a.png, row 0 (the first is 0)"
        assert isinstance(other, Unreadable)
        assert other.problem.startswith("cannot be read: it is 3x2 (height x width), 2x3 is wanted")

    def test_an_error_comes_at_its_turn_and_reading_can_go_on(self, tmp_path: Path) -> None:
        for at in range(40):
            a_picture(tmp_path / f"{at:02}.png", some_pixels(1, 1))
        (tmp_path / "20.png").write_bytes(b"\x89PNG")
        data = a_data_set(tmp_path)
        reader = RowReader(pa.schema([data.schema.field("path"), data.schema.field("image")]), rows_per_batch=7)
        read = list(reader.read(data.slices(0, 40)))
        reader.close()

        bad = read.pop(20)
        assert isinstance(bad, Unreadable)
        assert (bad.rows, bad.problem[:40]) == (1, "cannot be read: it is no whole picture: ")
        assert [rows.batch.column("path")[0].as_py()[-6:-4] for rows in read if isinstance(rows, Rows)] == [
            f"{at:02}" for at in range(40) if at != 20
        ]

    def test_where_bad_rows_are_recorded_the_first_good_picture_is_the_sample(self, tmp_path: Path) -> None:
        for at in range(70):
            (tmp_path / f"{at:02}.png").write_bytes(b"\x89PNG")
        data = a_data_set(tmp_path)
        record = ErrorOptions(on_error=OnError.RECORD)

        with pytest.raises(
            ConfigError, match=r"none of the 70 rows can be read; .*/00\.png, row 0 .*no whole pict"
        ):
            read_sample(data, record)
        a_picture(tmp_path / "69.png", some_pixels(1, 1))
        data = a_data_set(tmp_path)
        with pytest.raises(
            ConfigError, match=r"/00\.png, row 0 .*: cannot be read: .*; replace the file or leave"
        ):
            read_sample(data, ErrorOptions())
        assert read_sample(data, record).column("path").to_pylist() == [f"{tmp_path}/69.png"]

    def test_a_picture_that_changed_or_went_since_it_was_listed_is_named(self, tmp_path: Path) -> None:
        changed = a_picture(tmp_path / "a.png", some_pixels(1, 1))
        gone = a_picture(tmp_path / "b.png", some_pixels(1, 1))
        data = a_data_set(tmp_path)
        changed.write_bytes(changed.read_bytes() + b"!")
        gone.unlink()

        for at, message in (
            (0, r"a\.png' was changed while it was being"),
            (1, r"b\.png' is not there on"),
        ):
            with pytest.raises(DataError, match=message):
                list(RowReader(data.schema, rows_per_batch=7).read(data.slices(at, at + 1)))


class TestFitting:
    @pytest.mark.parametrize(
        ("port", "options", "form"),
        [
            (a_port(shape=(1, 3, 8, 9)), {}, (8, 9, 3, U8, False)),
            (a_port(shape=(None, 8, 9, 3)), {}, (8, 9, 3, U8, False)),
            (a_port(shape=(1, 1, 8, 9)), {}, (8, 9, 1, U8, False)),
            (a_port(shape=(None, 3, None, None)), {}, (2, 7, 3, U8, False)),
            (a_port(shape=(None, 3, None, None)), {"resize": "4x5"}, (4, 5, 3, F32, True)),
            (a_port(shape=(1, 3, 8, 9)), {"resize": "8x9"}, (8, 9, 3, F32, True)),
            (a_port(shape=(1, 3, 8, 9), element_type="u8"), {"resize": "8x9"}, (8, 9, 3, U8, True)),
            (a_port(shape=(None, 64)), {"resize": "8x8"}, (8, 8, 1, F32, True)),
            (a_port(shape=(None, 192)), {"resize": "8x8"}, (8, 8, 3, F32, True)),
            (a_port(shape=(None, 14)), {}, (2, 7, 1, U8, False)),
            (a_port(shape=(None, 8, 8)), {"resize": "8x8"}, (8, 8, 1, F32, True)),
        ],
    )
    def test_size_and_channels_follow_from_the_model(
        self, port: Port, options: dict[str, str], form: tuple[int, int, int, pa.DataType, bool]
    ) -> None:
        found, steps = fit_pictures(a_model(port), [""], GraphSteps.parse(**options), lambda: (2, 7))

        assert (found.height, found.width, found.channels, found.type, found.resizes) == form
        assert steps.resize is None
        assert steps.layout == ("NHWC" if len(port.shape or ()) == 4 else None)

    @pytest.mark.parametrize(
        ("port", "options", "message"),
        [
            (a_port(shape=(1, 3, 8, 9)), {"layout": "NCHW"}, "--layout NCHW: pictures are read as NHWC; leave"),
            (a_port(shape=(1, 3, 8, 9)), {"resize": "9x8"}, r"takes pictures of 8x9 .*give --resize 8x9"),
            (a_port(shape=(1, 4, 8, 9)), {}, "takes 4 channels; pictures are read with 1 or 3; prepare"),
            (a_port(shape=(3, 8, 9)), {}, "has no dimension for rows: give the model one"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, port: Port, options: dict[str, str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            fit_pictures(a_model(port), [""], GraphSteps.parse(**options), lambda: (2, 7))


def a_job(folder: Path) -> JobRecord:
    data = a_data_set(folder)
    x = ops.parameter([-1, 3], np.float32)
    x.output(0).set_names({"x"})
    model = ov.Model([ops.relu(x)], [x])
    model.outputs[0].get_tensor().set_names({"y"})
    given = GivenFiles(data, (), ErrorOptions())
    options = given.fit(model, RowOptions())
    plan = plan_rows(model, given.source, given.sample(), options)
    return describe_job(pack(model), given.stamps(plan), plan, {})


def test_a_picture_that_is_another_one_makes_another_job(tmp_path: Path) -> None:
    for name in ("photos/a.png", "photos/b/c.png", "photos/d.png"):
        a_picture(tmp_path / name, some_pixels(1, 1))
    before = a_job(tmp_path)
    assert a_job(tmp_path).differences(before) == []

    times = os.stat(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "d.png").rename(tmp_path / "photos" / "e.png")

    (difference,) = a_job(tmp_path).differences(before)
    assert difference.startswith(f"input {tmp_path}/photos (again) had 1 rows in {times.st_size} bytes, listing ")
