# Everything runs in .venv, which every target makes when it is needed.
# PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := -c constraints.txt
SOURCES := src tests bench docs studies tools

.PHONY: help install dev demo test test-oldest check format docs bench bench-full readme clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet $(CONSTRAINTS) --editable .
	@touch $@

$(VENV)/.developed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet $(CONSTRAINTS) --editable '.[dev]'
	@touch $@ $(VENV)/.installed

install: $(VENV)/.installed ## Make .venv and leave .venv/bin/salience
dev: $(VENV)/.developed ## The same with the development extras

demo: $(VENV)/.installed ## Explain three photographs; writes out/demo/index.html
	$(BIN)/salience demo --out out/demo

test: $(VENV)/.developed ## Run all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-oldest: pyproject.toml constraints-oldest.txt ## All tests with the oldest versions that pyproject.toml allows, in .venv-oldest (Python 3.11 or 3.12)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip --disable-pip-version-check install --quiet -c constraints-oldest.txt --editable '.[data,lpips,peers,ray]' beartype pytest pytest-xdist
	.venv-oldest/bin/python -m pytest -n auto --dist worksteal -o filterwarnings=ignore

check: $(VENV)/.developed ## Format, lint, types, tests, docs
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(MAKE) test
	$(MAKE) docs

format: $(VENV)/.developed ## Format and mend what can be mended
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

docs: $(VENV)/.developed ## Build the documentation into site/, warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

readme: $(VENV)/.developed ## Write the table of methods into README.md anew
	$(BIN)/python docs/tables.py README.md

bench: $(VENV)/.developed ## Speed, memory and the RISE estimators, about an hour; tables and JSON in out/bench
	$(BIN)/python bench/run.py

bench-full: $(VENV)/.developed ## The same with 20 photographs for RISE
	$(BIN)/python bench/run.py --photos 20

clean: ## Remove what was made
	rm -rf $(VENV) .venv-oldest out site .pytest_cache .ruff_cache .mypy_cache
