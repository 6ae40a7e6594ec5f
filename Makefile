# Two commands: `make quickstart` runs the main job, `make test` checks everything.
# Needed beforehand: Python 3.11 or newer with pip, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --constraint constraints.txt
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help quickstart install test lint types notebooks bench torchgeo clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/.demo  ## Install what the quickstart needs, and run it: from a search to a trained model
	$(BIN)/python examples/01_quickstart.py

install: $(VENV)/.all  ## Install everything, for development

test: lint types $(VENV)/.all  ## Lint, check types, run all tests; ARGS="-k chips" chooses some
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

lint: $(VENV)/.all  ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.all  ## Check types
	$(BIN)/mypy

notebooks: $(VENV)/.all  ## Write the notebooks anew from examples/walkthroughs
	for script in examples/walkthroughs/*.py; do \
	  $(BIN)/jupytext --quiet --update --to ipynb --output notebooks/$$(basename $$script .py).ipynb $$script || exit 1; done

bench: $(VENV)/.all  ## Measure beside the peers and the floor; ARGS="--quick" for a small world
	$(BIN)/python -m benchmarks $(ARGS)

torchgeo: $(VENV)/torchgeo/.made  ## Install TorchGeo, in an environment of its own, for make bench

clean:  ## Remove the environment, caches and outputs
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each file marks what is installed; it is older than the files it depends on where these have changed.
# Not the folder itself: that may exist, empty, beforehand.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "geopipes needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)"; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip  # groups of dependencies need pip 25.1
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.all: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) --editable '.[all]' --group dev
	@touch $@

# Without its dependencies: these are the main environment's, torch among them.
$(VENV)/torchgeo/.made: $(VENV)/.all
	$(BIN)/python -m venv $(VENV)/torchgeo
	$(VENV)/torchgeo/bin/python -m pip install --no-deps torchgeo==0.8.1 einops==0.8.1
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > "$$($(VENV)/torchgeo/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/geopipes.pth"
	@touch $@
