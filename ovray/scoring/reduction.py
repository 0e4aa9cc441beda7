"""Decides what of a model's outputs becomes results, and makes it: whole, in half precision, or the best classes.

One definition in NumPy for every device, so that ties fall alike: the lower class comes first.
May not enter: inference, what a column looks like (outputs.py).
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovray.errors import ConfigError
from ovray.replica.signature import Port
from ovray.scoring.cells import show_port
from ovray.scoring.elements import ELEMENTS

#: What ``--dtype`` takes, and the element type that it means.
DTYPES = {"float16": "f16"}

Labels = str | os.PathLike[str] | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultOptions:
    """Says what of the outputs is wanted."""

    #: Outputs by name; ``None`` takes all.
    outputs: tuple[str, ...] | None = None
    top_k: int | None = None
    argmax: bool = False
    #: One text for each class.
    labels: tuple[str, ...] = ()
    #: The element type that floats get; ``None`` leaves them.
    float_type: str | None = None

    @property
    def finds_classes(self) -> bool:
        """Says whether the best classes are wanted instead of all scores."""
        return self.argmax or self.top_k is not None

    @staticmethod
    def parse(
        *,
        outputs: str | Iterable[str] | None = None,
        top_k: int | None = None,
        argmax: bool = False,
        labels: Labels | None = None,
        dtype: str | None = None,
    ) -> "ResultOptions":
        """Reads what a caller wrote, and the file of labels.

        Raises:
            ConfigError: options do not go together, or one is not what it can be.
        """
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ConfigError(f"--top-k {top_k!r}: give a whole number from 1")
        if top_k is not None and argmax:
            raise ConfigError("--top-k and --argmax: give one; --top-k 1 is --argmax with the score beside it")
        if labels is not None and top_k is None and not argmax:
            raise ConfigError("--labels name classes; give --argmax or --top-k with it")
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError(
                f"--dtype {dtype!r}: give {' or '.join(DTYPES)}, or leave it out for the model's own"
            )
        return ResultOptions(
            outputs=(outputs,) if isinstance(outputs, str) else None if outputs is None else tuple(outputs),
            top_k=top_k,
            argmax=argmax,
            labels=() if labels is None else _read_labels(labels),
            float_type=None if dtype is None else DTYPES[dtype],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """Makes the best classes of one output's scores."""

    output: str
    #: Result columns by name; ``None`` where they are not wanted.
    classes: str
    scores: str | None
    labels: str | None
    #: How many classes each row keeps.
    best: int
    #: Of the classes.
    texts: tuple[str, ...] = ()

    def apply(self, scores: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Returns result columns ``[n, best]`` of scores ``[n, classes]``."""
        classes = best_classes(scores, self.best)
        made: dict[str, NDArray[Any]] = {self.classes: classes.astype(np.int32)}
        if self.labels is not None:
            made[self.labels] = np.array(self.texts, dtype=object)[classes]
        if self.scores is not None:
            made[self.scores] = np.take_along_axis(scores, classes, axis=1)
        return made


def best_classes(scores: NDArray[Any], best: int) -> NDArray[Any]:
    """Returns the classes of the highest scores, highest first, of equal scores the lower class first.

    A score that is no number counts as the highest, as in ``numpy.argmax``, so that it is seen.
    """
    if best == 1:
        first: NDArray[Any] = scores.argmax(axis=1)
        return first[:, None]
    # Ascending and stable, read from behind; the classes are turned around first, and so keep their order in ties.
    ascending: NDArray[Any] = np.argsort(scores[:, ::-1], axis=1, kind="stable")
    classes: NDArray[Any] = scores.shape[1] - 1 - ascending[:, : -best - 1 : -1]
    return classes


def plan_results(
    outputs: Sequence[Port], options: ResultOptions, *, has_batch: bool
) -> tuple[tuple[Port, ...], tuple[Reduction, ...]]:
    """Returns what a row of results has, described as outputs are, and what must be made for it.

    Args:
        outputs: of the model, with the shapes that follow from those of its inputs.
        options: what is wanted.
        has_batch: whether the first dimension of an output counts rows.

    Raises:
        ConfigError: there is no such output, none that has classes, fewer classes than wanted, or more or fewer
            labels.
    """
    rows_first: tuple[int | None, ...] = (None,) if has_batch else ()
    results: list[Port] = []
    reductions: list[Reduction] = []
    for port in chosen_outputs(outputs, options):
        classes = _classes(port, has_batch=has_batch)
        if classes is None or not options.finds_classes:
            results.append(port)
        else:
            reduction = _reduction(port, classes, options)
            reductions.append(reduction)
            results.extend(_made_of(reduction, port, rows_first))
    if options.finds_classes and not reductions:
        shown = ", ".join(f"{port.name!r} ({show_port(port)})" for port in outputs)
        raise ConfigError(
            f"{_option(options)}: for outputs that are one list of scores for each row; this model gives {shown}"
        )
    return as_stored(results, options), tuple(reductions)


def as_stored(results: Iterable[Port], options: ResultOptions) -> tuple[Port, ...]:
    """Returns results with the type in which they are stored."""
    return tuple(_as_type(port, options.float_type) for port in results)


def chosen_outputs(outputs: Sequence[Port], options: ResultOptions) -> list[Port]:
    """Returns the outputs that are wanted, in the order wanted.

    Raises:
        ConfigError: there is no such output.
    """
    names = options.outputs
    if names is None:
        return list(outputs)
    if not names:
        raise ConfigError("--outputs names none; leave it out for all of them")
    by_name = {name: port for port in outputs for name in (*port.names, port.name)}
    for name in names:
        if name not in by_name:
            close = get_close_matches(name, by_name, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            has = ", ".join(f"{port.name!r} ({show_port(port)})" for port in outputs)
            raise ConfigError(f"--outputs: the model has no output {name!r}; {hint}it has {has}")
    return list(dict.fromkeys(by_name[name] for name in names))


def reduce(
    outputs: Mapping[str, NDArray[Any]], reductions: Iterable[Reduction], batch_rows: int
) -> dict[str, NDArray[Any]]:
    """Returns the outputs of one inference and, beside them, what the reductions make of them."""
    found = dict(outputs)
    for reduction in reductions:
        found.update(reduction.apply(outputs[reduction.output].reshape(batch_rows, -1)))
    return found


def _classes(port: Port, *, has_batch: bool) -> int | None:
    """Returns how many scores a row of an output has; ``None`` where it is no list of them."""
    element = ELEMENTS.get(port.element_type)
    if port.shape is None or element is None or element.dtype.kind not in "fiu":
        return None
    dims = port.shape[1:] if has_batch else port.shape
    sizes = [dim for dim in dims if dim != 1]
    return sizes[0] if len(sizes) == 1 else None


def _reduction(port: Port, classes: int, options: ResultOptions) -> Reduction:
    best = options.top_k or 1
    if best > classes:
        raise ConfigError(f"--top-k {best}: output {port.name!r} ({show_port(port)}) has {classes} classes")
    if options.labels and len(options.labels) != classes:
        raise ConfigError(
            f"--labels: {len(options.labels)} labels, but output {port.name!r} ({show_port(port)}) has {classes}"
            " classes; give one label for each, in their order, and choose among several outputs with --outputs"
        )
    ending = "" if options.argmax else "s"
    return Reduction(
        output=port.name,
        classes=f"{port.name}_class{'es' if ending else ''}",
        scores=None if options.argmax else f"{port.name}_scores",
        labels=f"{port.name}_label{ending}" if options.labels else None,
        best=best,
        texts=options.labels,
    )


def _made_of(reduction: Reduction, port: Port, rows_first: tuple[int | None, ...]) -> list[Port]:
    kinds = (
        (reduction.classes, "i32"),
        (reduction.labels, "string"),
        (reduction.scores, port.element_type),
    )
    # One class of each row is a number, not a list of one.
    best = () if reduction.scores is None else (reduction.best,)
    return [
        Port(name=name, names=(name,), shape=(*rows_first, *best), element_type=element_type)
        for name, element_type in kinds
        if name is not None
    ]


def _as_type(port: Port, float_type: str | None) -> Port:
    is_float = port.element_type in ("f32", "f64")
    return replace(port, element_type=float_type) if float_type is not None and is_float else port


def _option(options: ResultOptions) -> str:
    return "--argmax" if options.argmax else f"--top-k {options.top_k}"


def _read_labels(labels: Labels) -> tuple[str, ...]:
    if not isinstance(labels, (str, os.PathLike)):
        return tuple(labels)
    try:
        with open(labels, encoding="utf-8") as file:
            return tuple(line.rstrip("\n") for line in file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--labels {os.fspath(labels)!r} cannot be read ({error}); give a UTF-8 text file, one label a line"
        ) from error
