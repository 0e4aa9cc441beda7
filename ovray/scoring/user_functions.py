"""Finds a function that the caller named, lets it travel to the replicas, and calls it; its errors say where.

May not enter: what functions are given and what is made of what they give (feeding.py, finishing.py).
"""

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import ray.cloudpickle
from numpy.typing import NDArray

from ovray.errors import ConfigError
from ovray.scoring.bad_rows import BadRowError

Arrays = dict[str, NDArray[Any]]

# Ray gives it no annotations.
_cloudpickle: Any = ray.cloudpickle

#: Takes a batch as arrays by name; gives arrays by name, with a row for each row.
Function = Callable[[Arrays], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFunction:
    """Is a caller's function, ready to travel."""

    #: The option that named it, and its name, for messages.
    option: str
    name: str
    pickled: bytes

    def load(self) -> Function:
        """Makes the function of its travelling form."""
        function: Function = _cloudpickle.loads(self.pickled)
        return function

    def call(self, function: Function, batch: Arrays, rows: int, where: str) -> Arrays:
        """Calls the function, loaded, on a batch.

        Args:
            function: what ``load`` gave.
            batch: arrays of ``rows`` rows.
            rows: as many must come back.
            where: which rows they are, as messages show it.

        Raises:
            BadRowError: the function failed, or gave something else than arrays of as many rows.
        """
        try:
            made = function(batch)
            if not isinstance(made, Mapping):
                raise TypeError(f"it gave {type(made).__name__}, not a dict of arrays by name")
            arrays = {str(name): np.asarray(values) for name, values in made.items()}
        except Exception as error:  # the caller's own code, which may raise anything: those rows are to blame
            raise self.refusal(where, f"failed with {type(error).__name__}: {error}") from error
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != rows:
                has = f"{len(array)} rows" if array.ndim else "a single value"
                raise self.refusal(where, f"gave {has} of {name!r} for {rows} rows")
        return arrays

    def refusal(self, where: str, problem: str) -> BadRowError:
        """Returns the error that says what the function did to which rows."""
        problem = f"{self.option} {self.name} {problem}"
        return BadRowError(f"{where}: {problem}", problem)


def find_function(option: str, given: str | Function) -> UserFunction:
    """Returns the function that the caller named as ``module:function``, or gave as it is.

    The module is looked for where the command was started, too.  Nothing else is loaded.

    Raises:
        ConfigError: it is not there, cannot be imported, is no function, or cannot travel.
    """
    if isinstance(given, str):
        name, function = given, _import(option, given)
    else:
        name, function = getattr(given, "__qualname__", repr(given)), given
    if not callable(function):
        raise ConfigError(f"{option} {name}: is {type(function).__name__}, not a function")
    return UserFunction(option=option, name=name, pickled=_pickle(option, name, function))


def _import(option: str, name: str) -> Any:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise ConfigError(f"{option} {name!r}: give MODULE:FUNCTION, such as prepare:to_tensor for prepare.py")
    try:
        with _importable_from(os.getcwd()):
            module = import_module(module_name)
    except Exception as error:  # the caller's own module, which may raise anything when it is imported
        raise ConfigError(
            f"{option} {name}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{option} {name}: {module_name} has no {attribute!r}")
    return getattr(module, attribute)


@contextmanager
def _importable_from(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _pickle(option: str, name: str, function: Function) -> bytes:
    # What is installed is on every host; a file of the caller's need only be here, so it travels as it is.
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    travels = module is not None and module.__name__ != "__main__" and not _is_installed(module)
    try:
        if not travels or module is None:
            return bytes(_cloudpickle.dumps(function))
        _cloudpickle.register_pickle_by_value(module)
        try:
            return bytes(_cloudpickle.dumps(function))
        finally:
            _cloudpickle.unregister_pickle_by_value(module)
    except Exception as error:  # pickling asks the caller's own objects, which may raise anything
        raise ConfigError(
            f"{option} {name} cannot be sent to the replicas ({type(error).__name__}: {error}); make what it needs"
            " inside the function"
        ) from error


def _is_installed(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if file is None:
        return True
    paths = sysconfig.get_paths()
    return any(file.startswith(paths[kind] + os.sep) for kind in ("purelib", "platlib", "stdlib"))
