# Every target sets up what it needs: .venv and packages, again only when pyproject.toml or constraints.txt change.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
WANTED := pyproject.toml constraints.txt
# One process a core; files stay together because fixtures of a file are shared, in the order of tests/conftest.py.
WORKERS ?= 2
# Stamps of an environment that is gone say nothing.
ifeq ($(wildcard $(BIN)/pip),)
$(shell rm -rf .make)
endif
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Most of it is PyTorch's build for GPUs, which is what pip takes.
ROOM := free=$$(df -Pm . | awk 'NR == 2 { print $$4 }'); if [ "$$free" -lt 10000 ]; then \
  echo "$$free MB are free on this disk; the packages of all extras take 8,500 MB, the tests 900 MB." >&2; fi

.PHONY: help demo test check test-all bench docs clean lint types arrows wheel release

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "make %-10s %s\n", $$1, $$2}'

demo: .make/train ## the whole pipeline on drawn street scenes, offline; results in demo/
	$(BIN)/workzone demo

test: .make/dev ## the default tests
	$(PYTEST)

test-all: .make/dev ## all tests, the slow ones included
	$(PYTEST) -m ''

check: lint types arrows test wheel ## what CI runs: style, types, imports, tests, wheel

lint: .make/dev ## ruff
	$(BIN)/ruff check .

types: .make/dev ## mypy --strict on src
	$(BIN)/mypy

arrows: .make/dev ## import-linter: imports point down
	$(BIN)/lint-imports

wheel: .make/dev ## build the wheel, install its core outside the tree, try it
	$(BIN)/python tools/check_wheel.py

release: .make/dev ## wheel, source distribution, bills of materials and hashes, in dist/
	$(BIN)/python tools/make_release.py

bench: .make/dev ## timed comparisons with what one would use instead
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

docs: .make/dev ## the documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove .venv, caches and build products; runs (outputs/, demo/) are kept
	rm -rf $(VENV) .make build dist site src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.make/venv:
	@python=$$(command -v python3.11 || command -v python3 || true); \
	if [ -z "$$python" ] || ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	  echo "workzone needs Python 3.11 or newer; found: $${python:-none} $$("$${python:-true}" --version 2>&1 || true)." \
	    "Install it (for example: apt install python3.11 python3.11-venv) and run make again." >&2; exit 1; fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python cannot make virtual environments. Install its venv package (for example: apt install python3.11-venv)." >&2; exit 1; fi; \
	"$$python" -m venv $(VENV)
	@mkdir -p $(@D) && touch $@

.make/train: .make/venv $(WANTED)
	@echo "Installing workzone[train] into $(VENV); this takes some minutes the first time."
	@$(ROOM)
	$(PIP) install --quiet -c constraints.txt -e '.[train]'
	@touch $@

.make/dev: .make/venv $(WANTED)
	@echo "Installing workzone[dev] into $(VENV); this takes some minutes the first time."
	@$(ROOM)
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
