# Every target works on a fresh clone: .venv is made and filled first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test bench lint clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

demo: install
	$(BIN)/ovray demo

test: install
	$(BIN)/python -m pytest

# Nothing else should run meanwhile: both sides of a ratio need every core.
bench: install
	$(BIN)/python -m tests.benchmarks.scheduler_cost
	$(BIN)/python -m tests.benchmarks.scoring --json build/bench-scoring.json

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
