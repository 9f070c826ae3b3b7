# What a person types here. `make help` lists it.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export OMP_WAIT_POLICY ?= PASSIVE

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP)  ## make .venv and install what constraints.txt pins

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH) -e '.[dev]'
	touch $(STAMP)

# The CPU build where there is no NVIDIA driver: a plain torch would bring gigabytes of CUDA.
TORCH := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo torch==2.13.0)

train: setup  ## train the default: digits, an MLP, within a minute
	$(BIN)/python train.py

test: setup lint types  ## lint, types, then all tests
	$(BIN)/python -m pytest -x -n 2 --dist worksteal tests/lr tests/test_house.py
	$(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/lr --ignore tests/test_house.py -m 'not cluster'
	$(BIN)/python -m pytest -m cluster tests/cluster

check: setup lint types  ## lint, types and the quick tests
	$(BIN)/python -m pytest -x -q -n 2 -m 'not slow and not cluster'

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

bench: setup  ## measure the update against the bare loop and the peers
	$(BIN)/python benchmarks/benchmark.py

gallery: setup  ## draw docs/gallery.md again, after a schedule has changed
	$(BIN)/python scripts/gallery.py

clean:  ## remove .venv, caches and outputs
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis outputs *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup train test check lint types bench gallery clean
