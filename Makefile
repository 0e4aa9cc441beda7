# Every target works on a fresh clone: .venv is made and filled first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test bench bench-quick soak lint clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

demo: install
	$(BIN)/ovray demo

# Where this can be had, as root on Linux, workers share most of the tests, each on a machine of its own.  Those that
# measure how soon a fault is noticed run alone.
TEST_WORKERS ?= 3
SHARED := $(shell tests/own_machine.sh --can-be-had 2> /dev/null \
  && echo --dist loadfile --tx '$(TEST_WORKERS)*popen//python=tests/own_machine.sh')

test: install
	$(BIN)/python -m pytest -m internet
	$(BIN)/python -m pytest -m 'not internet and not alone' $(SHARED)
	$(BIN)/python -m pytest -m alone

# Nothing else should run meanwhile: both sides of a ratio need every core.  Three rounds take some 25 minutes on
# two cores, which start some hundred processes meanwhile; ROUNDS=5 half as long again.
ROUNDS ?= 3
bench: install
	$(BIN)/python -m tests.benchmarks.scheduler_cost
	$(BIN)/python -m tests.benchmarks.requests --rounds $(ROUNDS) --json build/bench-requests.json
	$(BIN)/python -m tests.benchmarks.scoring --rounds $(ROUNDS) --json build/bench-scoring.json
	$(BIN)/python -m tests.benchmarks.tables build/bench-requests.json build/bench-scoring.json

# Shows that all of it works, and no more.
bench-quick: install
	$(BIN)/python -m tests.benchmarks.requests --quick --json build/bench-requests-quick.json
	$(BIN)/python -m tests.benchmarks.scoring --quick --json build/bench-scoring-quick.json
	$(BIN)/python -m tests.benchmarks.growth --replicas 1 4
	$(BIN)/python -m tests.benchmarks.tables build/bench-requests-quick.json build/bench-scoring-quick.json

# Every fault at random while requests and scoring jobs run; as root, on Linux.
MINUTES ?= 10
soak: install
	$(BIN)/python -m tests.multihost.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
