import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import openvino as ov
import pyarrow as pa
import pytest
from openvino import opset13 as ops

from ovray.replica.model import pack, reshape
from ovray.scoring.fingerprint import fingerprint
from ovray.scoring.job_record import InputStamp, JobRecord, describe_job, stamps_of
from ovray.scoring.on_error import ErrorOptions
from ovray.scoring.preparation import GraphSteps
from ovray.scoring.reading import read_sample
from ovray.scoring.reduction import ResultOptions
from ovray.scoring.row_plan import RowOptions, plan_rows
from tests.data_builders import a_data_set, a_parquet_file

STAMP = InputStamp(location="/data/a.parquet", rows=1000, size_bytes=4096, modified_ns=0)
JOB = JobRecord(
    model="ab12",
    inputs=(STAMP,),
    bindings={"x": "f as f32[4]"},
    results={"id": "int64", "y": "float"},
    options={"--limit": "100"},
)


def a_linear_model(*, weight: float = 1.0, rows: int = -1) -> ov.Model:
    x = ops.parameter([rows, 4], np.float32)
    x.output(0).set_names({"x"})
    y = ops.matmul(x, ops.constant(np.full((4, 3), weight, np.float32)), False, False)
    y.output(0).set_names({"y"})
    return ov.Model([y], [x])


def describe(folder: Path, model: ov.Model, **options: object) -> JobRecord:
    data = a_data_set(folder / "a.parquet")
    rows = plan_rows(model, data, read_sample(data, ErrorOptions()), RowOptions(batch_size=2))
    return describe_job(pack(model), stamps_of(data), rows, options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = pa.table({"id": [0, 1], "x": pa.array([[0.0] * 4] * 2, pa.list_(pa.float32()))})
    a_parquet_file(tmp_path / "a.parquet", table)
    return tmp_path


def test_a_record_survives_its_file() -> None:
    assert JobRecord.from_json(JOB.to_json()) == JOB


def test_the_file_names_the_versions() -> None:
    assert set(json.loads(JOB.to_json())["versions"]) == {"python", "ovray", "openvino", "pyarrow"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "Expecting value"),
        (b"[]", "it is damaged"),
        (b'{"format": 2}', "it has format 2, this ovray knows 1"),
        (b'{"format": 1, "job": {"inputs": []}}', "it is damaged .*model"),
    ],
)
def test_a_file_that_is_no_record_says_why(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        JobRecord.from_json(text)


def tampered(**changes: object) -> bytes:
    """A record in which somebody has put other values."""
    content = json.loads(JOB.to_json())
    content["job"] |= changes
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        tampered(model=["../../model"]),
        tampered(options=[["--limit", "100"]]),
        tampered(options={"--limit": 100}),
        tampered(results={"y": None}),
        tampered(inputs="../../etc"),
        tampered(inputs=[asdict(STAMP) | {"location": 7}]),
        tampered(inputs=[asdict(STAMP) | {"rows": "many"}]),
        tampered(inputs=[asdict(STAMP) | {"rows": True}]),
        tampered(inputs=[asdict(STAMP) | {"modified_ns": 10**40}]),
        tampered(inputs=[asdict(STAMP) | {"run": "rm -rf"}]),
        tampered(output="../../elsewhere"),
    ],
)
def test_a_record_that_was_tampered_with_is_damaged(text: bytes) -> None:
    with pytest.raises(ValueError, match="it is damaged"):
        JobRecord.from_json(text)


def test_the_same_job_differs_in_nothing() -> None:
    assert JOB.differences(replace(JOB)) == []


@pytest.mark.parametrize(
    ("earlier", "difference"),
    [
        (replace(JOB, model="cd34"), "the model is another one"),
        (replace(JOB, options={}), "option --limit was not given and is now 100"),
        (replace(JOB, bindings={"x": "g as f32[4]"}), "what feeds input x was g as f32[4] and is now f as f32[4]"),
        (replace(JOB, results={"y": "float"}), "result column id was not there and is now int64"),
        (replace(JOB, results={**JOB.results, "y": "double"}), "result column y was double and is now float"),
        (replace(JOB, inputs=()), "input /data/a.parquet was not among them"),
        (
            replace(JOB, inputs=(replace(STAMP, size_bytes=1, modified_ns=10**18 + 5000),)),
            "input /data/a.parquet had 1,000 rows in 1 bytes, written 2001-09-09 01:46:40.000005 UTC and now has"
            " 1,000 rows in 4,096 bytes, written 1970-01-01 00:00:00.000000 UTC",
        ),
        (
            replace(JOB, inputs=(STAMP, replace(STAMP, location="/data/b.parquet"))),
            "input /data/b.parquet is no longer among them",
        ),
        (replace(JOB, inputs=(STAMP, STAMP)), "input /data/a.parquet (again) is no longer among them"),
    ],
)
def test_each_difference_is_named(earlier: JobRecord, difference: str) -> None:
    assert JOB.differences(earlier) == [difference]


def test_inputs_in_another_order_are_another_job() -> None:
    other = replace(STAMP, location="/data/b.parquet")

    assert replace(JOB, inputs=(STAMP, other)).differences(replace(JOB, inputs=(other, STAMP))) == [
        "the inputs come in another order"
    ]


def test_a_job_described_twice_is_the_same(folder: Path) -> None:
    # OpenVINO numbers the nodes of each model anew.
    assert describe(folder, a_linear_model()) == describe(folder, a_linear_model())


def test_the_record_has_what_rows_depend_on(folder: Path) -> None:
    job = describe(folder, a_linear_model(), **{"--config": {"B": "2", "A": "1"}, "--limit": None})

    assert job.inputs[0].location == str(folder / "a.parquet")
    assert (job.inputs[0].rows, job.inputs[0].size_bytes) == (2, os.path.getsize(folder / "a.parquet"))
    assert job.bindings == {"x": "x as f32[4]"}
    assert job.results == {"id": "int64", "y": "fixed_size_list<item: float>[3]"}
    assert job.options == {"--config": "A=1, B=2"}


def test_an_input_that_was_written_again_is_another_one(folder: Path) -> None:
    before = describe(folder, a_linear_model())
    os.utime(folder / "a.parquet", ns=(0, 1))

    (difference,) = describe(folder, a_linear_model()).differences(before)

    assert difference.startswith(f"input {folder / 'a.parquet'} had 2 rows")


def test_other_weights_make_another_model() -> None:
    assert fingerprint(pack(a_linear_model())) != fingerprint(pack(a_linear_model(weight=2.0)))


def test_another_operation_makes_another_model() -> None:
    def a_model(activation: object) -> ov.Model:
        x = ops.parameter([1, 4], np.float32)
        return ov.Model([activation(x)], [x])  # type: ignore[operator]

    assert fingerprint(pack(a_model(ops.sigmoid))) != fingerprint(pack(a_model(ops.tanh)))


def test_another_batch_size_makes_no_other_model() -> None:
    fixed = a_linear_model()
    reshape(fixed, {"x": (8, 4)})

    assert fingerprint(pack(fixed)) == fingerprint(pack(a_linear_model()))


def test_options_that_decide_about_results_are_part_of_a_job(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    given = RowOptions(
        steps=GraphSteps.parse(layout="NHWC", scale="255"),
        results=ResultOptions.parse(argmax=True, labels=str(labels)),
    )

    changing = {flag: value for flag, value in given.changing_results.items() if value not in (None, (), {})}

    assert changing == {"--layout": "NHWC", "--scale": (255.0,), "--argmax": True, "--labels": ("cat", "dog")}
    assert all(value in (None, ()) for value in RowOptions().changing_results.values())
