import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovray.errors import ConfigError
from ovray.replica.signature import Port
from ovray.scoring.reduction import Reduction, ResultOptions, best_classes, plan_results, reduce
from tests.data_builders import a_port

SCORES = a_port("scores", (None, 5))
TOTAL = a_port("total", (None, 1))


def planned(*outputs: Port, has_batch: bool = True, **options: Any) -> tuple[list[Port], list[Reduction]]:
    results, reductions = plan_results(outputs, ResultOptions.parse(**options), has_batch=has_batch)
    return list(results), list(reductions)


def described(results: list[Port]) -> list[tuple[str, tuple[int | None, ...] | None, str]]:
    return [(port.name, port.shape, port.element_type) for port in results]


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64, np.uint8])
@pytest.mark.parametrize("best", [1, 3, 7])
def test_the_best_classes_are_those_of_a_sort_in_which_ties_go_to_the_lower_class(kind: Any, best: int) -> None:
    scores = np.random.default_rng(1).integers(0, 4, (50, 7)).astype(kind)  # few values: many ties

    found = best_classes(scores, best)

    expected = [sorted(range(7), key=lambda at, row=row: (-float(row[at]), at))[:best] for row in scores]
    assert found.tolist() == expected


def test_a_score_that_is_no_number_comes_first_whatever_the_number_of_classes() -> None:
    scores = np.array([[0.5, np.nan, np.inf, np.nan]], np.float32)

    assert best_classes(scores, 1).tolist() == [[1]]
    assert best_classes(scores, 4).tolist() == [[1, 3, 2, 0]]


def test_top_k_gives_classes_and_scores_and_other_outputs_stay() -> None:
    results, _ = planned(SCORES, TOTAL, top_k=2)

    assert described(results) == [
        ("scores_classes", (None, 2), "i32"),
        ("scores_scores", (None, 2), "f32"),
        ("total", (None, 1), "f32"),
    ]


def test_argmax_gives_a_class_and_with_labels_its_name() -> None:
    results, reductions = planned(SCORES, argmax=True, labels=list("abcde"))

    made = reduce({"scores": np.eye(5, dtype=np.float32)[[3, 0]]}, reductions, 2)
    assert described(results) == [("scores_class", (None,), "i32"), ("scores_label", (None,), "string")]
    assert made["scores_class"].tolist() == [[3], [0]]
    assert made["scores_label"].tolist() == [["d"], ["a"]]


def test_a_model_without_a_batch_dimension_is_reduced_alike() -> None:
    results, reductions = planned(a_port("y", (5,)), has_batch=False, top_k=2)

    made = reduce({"y": np.array([1, 5, 3, 4, 2], np.float32)}, reductions, 1)
    assert described(results) == [("y_classes", (2,), "i32"), ("y_scores", (2,), "f32")]
    assert (made["y_classes"].tolist(), made["y_scores"].tolist()) == ([[1, 3]], [[5, 4]])


def test_dimensions_of_one_are_no_obstacle() -> None:
    _, (reduction,) = planned(a_port("y", (8, 1000, 1, 1)), top_k=5)

    made = reduce({"y": np.zeros((8, 1000, 1, 1), np.float32)}, [reduction], 8)
    assert made["y_classes"].tolist() == [[0, 1, 2, 3, 4]] * 8


def test_half_precision_is_for_floats_only() -> None:
    results, _ = planned(SCORES, a_port("wide", (None, 2), "f64"), a_port("ids", (None,), "i64"), dtype="float16")

    assert [port.element_type for port in results] == ["f16", "f16", "i64"]


def test_outputs_come_in_the_order_wanted_by_any_of_their_names() -> None:
    aliased = Port(name="a", names=("a", "alias"), shape=(None, 2), element_type="f32")

    results, _ = planned(aliased, SCORES, TOTAL, outputs=["total", "alias", "a"])

    assert [port.name for port in results] == ["total", "a"]
    assert [port.name for port in planned(aliased, SCORES, outputs="scores")[0]] == ["scores"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "--top-k 0: give a whole number from 1"),
        ({"top_k": "3"}, "--top-k '3': give a whole number from 1"),
        ({"top_k": 2, "argmax": True}, "give one"),
        ({"labels": ["a"]}, "give --argmax or --top-k with it"),
        ({"argmax": True, "labels": "no-such-file.txt"}, "--labels 'no-such-file.txt' cannot be read"),
        ({"dtype": "int8"}, "--dtype 'int8': give float16"),
        ({"top_k": 6}, "--top-k 6: output 'scores' (f32[?,5]) has 5 classes"),
        ({"top_k": 2, "labels": ["a", "b"]}, "2 labels, but output 'scores' (f32[?,5]) has 5 classes"),
        ({"outputs": ["score"]}, "no output 'score'; did you mean 'scores'?"),
        ({"outputs": []}, "--outputs names none"),
        ({"outputs": ["total"], "argmax": True}, "--argmax: for outputs that are one list of scores"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        planned(SCORES, TOTAL, **options)


@pytest.mark.parametrize(
    "port",
    [
        a_port("y", (None, None)),
        a_port("y", (None, 3, 4)),
        a_port("y", (None, 5), "string"),
        a_port("y", (None, 5), "boolean"),
        a_port("y", None),
    ],
)
def test_outputs_without_classes_are_refused(port: Port) -> None:
    with pytest.raises(ConfigError, match="one list of scores for each row"):
        planned(port, top_k=1)


def test_a_file_has_one_label_a_line_and_an_empty_line_is_a_label(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("tench, Tinca tinca\r\n\né\n".encode())

    assert ResultOptions.parse(argmax=True, labels=file).labels == ("tench, Tinca tinca", "", "é")
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        ResultOptions.parse(argmax=True, labels=str(file))
