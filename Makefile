# Everything runs in .venv, which is made with pip through constraints.txt when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
# OpenMP's threads wait asleep, not spinning: on a busy machine a spinning thread keeps the one it waits for from running.
export GOMP_SPINCOUNT ?= 1000

.PHONY: demo test check lint slow gpu chaos benchmark

demo: .venv
	$(BIN)/vocable demo

# Two at a time: much of a test's time is waiting. A file stays together, so that its fixtures are made once.
test: .venv
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: lint test

lint: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow gpu: .venv
	$(BIN)/python -m pytest -m $@

# make chaos KILLS=200 SEED=7 kills so many services and as many workers; FIRST=120 goes on at the 120th kill of a seed.
KILLS ?= 200
SEED ?= 7
FIRST ?= 1
chaos: .venv
	VOCABLE_KILLS=$(KILLS) VOCABLE_SEED=$(SEED) VOCABLE_FIRST=$(FIRST) $(BIN)/python -m pytest -m chaos -s

benchmark: .venv
	$(BIN)/python benchmarks/step.py

.venv: pyproject.toml constraints.txt
	rm -rf .venv
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' \
		|| { rm -rf .venv; exit 1; }
	touch .venv
