# What a person types here. `make help` lists it.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
SITE_STAMP := .venv/.site-installed
export OMP_WAIT_POLICY ?= PASSIVE
# Each process would compile torch and Lightning anew, where the environment says so: 3 seconds each.
export PYTHONDONTWRITEBYTECODE :=

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv and install what constraints.txt pins

# Compiled once and by all cores, not by each test that is the first to import a package, except for what few of them need.
# A file for a newer Python, as torch has one, is no error.
$(STAMP): pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt $(TORCH) -e '.[all,dev]'
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|transformers/models|plotly|pip)/' $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || true
	touch $(STAMP)

# The CPU build where there is no NVIDIA driver: a plain torch would bring gigabytes of CUDA.
TORCH := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo torch==2.13.0)

train: setup  ## train the default: digits, an MLP, within a minute
	$(BIN)/cadence train

test: setup lint  ## lint, types, then the tests, with some of the cases of the longest ones
	$(MAKE) --no-print-directory -j2 types walls
	$(MAKE) --no-print-directory -j2 test-runs test-cluster

test-all: export PYTEST_ADDOPTS += --all-cases
test-all: $(SITE_STAMP) test  ## the same with all cases: before a release, after a change of the engine

# A thread for each process: many tests wait, so three of them keep two cores busy.
# Files of the tests lie in memory where there are 4 GB for them: a disk makes each save of a checkpoint wait.
test-runs: export OMP_NUM_THREADS ?= 1
test-runs: export TMPDIR ?= $(or $(shell df -k /dev/shm 2>/dev/null | awk '$$6 == "/dev/shm" && $$4 > 4000000 {print $$6}'),/tmp)
test-runs: setup
	nice $(BIN)/python -m pytest -n 3 --dist worksteal --ignore tests/lr --ignore tests/test_house.py -m 'not cluster'

# Beside the others, and before them where both want a core: a cluster has limits of time, and mostly waits.
test-cluster: setup
	$(BIN)/python -m pytest -q -m cluster tests/cluster

walls: setup  ## the walls of the house and trainer/lr, at the first failure it ends
	$(BIN)/python -m pytest -x -q -n 2 --dist worksteal tests/test_house.py tests/lr

check: setup lint types  ## lint, types and the quick tests
	$(BIN)/python -m pytest -x -q -n 2 -m 'not slow and not cluster'

# Another Hydra in front of the libraries of .venv, which it does not change.
NEXT := .venv-hydra-next

hydra-next: setup  ## the quick tests with the next Hydra, in an environment of its own
	test -x $(NEXT)/bin/python || $(PYTHON) -m venv $(NEXT)
	$(NEXT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps hydra-core==1.4.0rc3 omegaconf==2.4.1rc1
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(NEXT)/libraries
	cp $(NEXT)/libraries "$$($(NEXT)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/libraries.pth"
	PYTHONPATH=$(CURDIR) $(NEXT)/bin/python -m pytest -q -n 2 --dist worksteal -m 'not slow and not cluster'

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --no-cache .

types: setup
	$(BIN)/mypy

bench: setup  ## measure everything beside its peers, in five to ten minutes
	$(BIN)/python benchmarks/bench.py

gallery: setup  ## draw docs/gallery.md again, after a schedule has changed
	$(BIN)/python scripts/gallery.py

reference: setup  ## write docs/reference.md and docs/api.md again, after a config or a docstring has changed
	$(BIN)/python scripts/reference.py

# Only who builds the site needs its generator.
$(SITE_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH) -e '.[docs]'
	touch $(SITE_STAMP)

docs: $(SITE_STAMP)  ## build the site in site/ from README, docs and examples; a broken link fails
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs . site
	@echo site/index.html

clean:  ## remove environments, caches and what was built; runs stay
	rm -rf .venv $(NEXT) site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup train test test-all test-runs test-cluster walls check hydra-next lint types bench gallery reference docs clean
