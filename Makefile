# make demo    everything on a fresh machine: .venv, dependencies, then the main job
# make setup   .venv and dependencies only
# make test    set up, then the tests (minutes)
# make test-slow, make lint, make format
# make bench   what is to be fast, against the plain way (benchmarks/results)
# make docs    docs/methods from the source of the methods
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo setup test test-slow bench lint format docs

demo: setup
	$(BIN)/lingula demo --out demo

setup: .venv/.done

# constraints.txt holds the exact versions that were tested; leave it out with `make setup CONSTRAINTS=`
CONSTRAINTS ?= -c constraints.txt
.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev,dicom]' $(CONSTRAINTS)
	touch $@

test: setup
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

bench: setup
	$(BIN)/python benchmarks/bench.py

docs: setup
	$(BIN)/python docs/build_methods.py

lint: setup
	$(BIN)/ruff check src tests docs examples benchmarks
	$(BIN)/ruff format --check src tests docs examples benchmarks
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix src tests docs examples benchmarks
	$(BIN)/ruff format src tests docs examples benchmarks
