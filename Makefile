# make demo    everything on a fresh machine: .venv, what lingula needs, then the main job
# make setup   only installs: .venv with lingula, and nothing for its development
# make dev     adds what tests, linters and benchmarks need
# make test    make dev, then the tests (minutes)
# make test-slow, make lint, make format
# make test-oldest   the tests with the oldest versions that pyproject.toml allows, in .venv-oldest (7 GB more)
# make bench   what is to be fast, against the plain way (benchmarks/results)
# make docs    docs/methods from the source of the methods
PYTHON ?= python3
BIN := .venv/bin
OLDEST := .venv-oldest/bin

.PHONY: demo setup dev test test-slow test-oldest bench lint format docs

demo: setup
	$(BIN)/lingula demo --out demo

setup: .venv/.done
dev: .venv/.dev

# constraints.txt holds the exact versions that were tested; leave it out with `make setup CONSTRAINTS=`
CONSTRAINTS ?= -c constraints.txt
.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e . $(CONSTRAINTS)
	touch $@

.venv/.dev: .venv/.done
	$(BIN)/python -m pip install --quiet -e '.[dev]' $(CONSTRAINTS)
	touch $@

# For a release and after a floor was moved. CI leaves it out: the tests took 24 minutes (one process, on a busy machine)
# and the installation 1 to 4, beside the 6 to 13 that CI takes.
.venv-oldest/.done: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv .venv-oldest
	$(OLDEST)/python -m pip install --quiet --upgrade pip
	$(OLDEST)/python -m pip install --quiet -e '.[dev]' -c constraints-oldest.txt
	touch $@

test: dev
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist loadfile

test-slow: dev
	$(BIN)/python -m pytest -m slow

# What is deselected is no wrong number: PyTorch 2.11 shows the wait inside MGCA's nanquantile, which later ones do not.
test-oldest: .venv-oldest/.done
	$(OLDEST)/python -m pytest -m 'not slow' -n 2 --dist loadfile \
	    --deselect 'tests/test_train.py::test_no_operator_of_a_steady_step_waits[mgca]'

bench: dev
	$(BIN)/python benchmarks/bench.py

docs: setup
	$(BIN)/python docs/build_methods.py

lint: dev
	$(BIN)/ruff check src tests docs examples benchmarks
	$(BIN)/ruff format --check src tests docs examples benchmarks
	$(BIN)/mypy

format: dev
	$(BIN)/ruff check --fix src tests docs examples benchmarks
	$(BIN)/ruff format src tests docs examples benchmarks
