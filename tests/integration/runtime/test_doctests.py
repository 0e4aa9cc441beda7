"""The examples in the docstrings of all that ``ovray`` exports run as they stand."""

import doctest
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import numpy as np
import openvino
import pytest

import ovray
import ovray.devices
import ovray.driver.inspection
import ovray.driver.planning
import ovray.errors
import ovray.runtime
import ovray.scoring.report
import ovray.scoring.score
from tests.integration.models import save
from tests.integration.runtime.served_models import Served

MODULES = [
    importlib.import_module(f"ovray.runtime.{module.name}")
    for module in pkgutil.iter_modules(ovray.runtime.__path__)
] + [
    ovray.devices,
    ovray.driver.inspection,
    ovray.driver.planning,
    ovray.errors,
    ovray.scoring.report,
    ovray.scoring.score,
]

#: Ways to use public names that have an example each, too, by the module that holds them.
PUBLIC = {
    "core": ("Core", "Core.compile_model", "compile_model"),
    "compiled_model": ("CompiledModel", "CompiledModel.submit", "CompiledModel.map", "CompiledModel.infer_async"),
    "request": ("InferRequest", "InferRequest.infer", "InferRequest.start_async", "InferRequest.set_callback"),
    "async_queue": ("AsyncInferQueue",),
    "results": ("OVDict",),
}


def examples(module: ModuleType) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__)
    return [each for each in found if each.examples]


@pytest.mark.ray
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings_run(
    module: ModuleType, ours: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Results go where the reader is.
    monkeypatch.chdir(tmp_path)
    model = Served.MAKERS["perceptron"]()
    names = {"ov": ovray, "ovray": ovray, "np": np, "compiled": ours.perceptron, "model": model}
    names |= {"model_path": save(model, tmp_path / "model.xml")}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)

    for example in examples(module):
        example.globs = {**vars(module), **names}
        runner.run(example)

    assert runner.failures == 0, runner.summarize()


def test_everything_that_is_exported_has_an_example_that_runs() -> None:
    from_openvino = {name for name in ovray.__all__ if hasattr(openvino, name.replace("ConstOutput", "Output"))}
    own = set(ovray.__all__) - from_openvino
    own |= {"CompiledModel", "Core", "AsyncInferQueue", "InferRequest", "compile_model"}
    assert {"score", "iter_score", "devices", "ConfigError"} <= own

    for name in own:
        public = ovray.devices.__call__ if name == "devices" else getattr(ovray, name)
        shown = doctest.DocTestParser().get_examples(public.__doc__)
        assert shown, f"ovray.{name} shows no example"
        assert not any(doctest.SKIP in example.options for example in shown), f"ovray.{name}'s does not run"


def test_every_way_to_use_a_compiled_model_has_an_example() -> None:
    for module_name, public in PUBLIC.items():
        module = importlib.import_module(f"ovray.runtime.{module_name}")
        shown = {example.name.removeprefix(f"{module.__name__}.") for example in examples(module)}
        assert set(public) <= shown


def test_what_scripts_find_in_openvino_they_find_here() -> None:
    of_its_own = {"package_utils", "shutdown", "tools", "torch"}
    public = {name for name in openvino.__dict__ if not name.startswith("_")} - of_its_own

    missing = sorted(name for name in public if not hasattr(ovray, name))

    assert missing == []
