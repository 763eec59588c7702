# Each target makes what it needs; on a fresh machine start with `make demo` or `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo lab test lint format bench campaign

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[jupyterlab,test]"
	touch $@

demo: $(READY)
	$(BIN)/python tools/demo.py

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=.

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(READY) lint
	$(BIN)/python tools/find_chromium.py
	$(BIN)/python -m pytest
	PYTHONPATH=examples $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 examples

bench: $(READY)
	$(BIN)/python benchmarks/overhead.py --json build/overhead.json

campaign: $(READY)
	$(BIN)/python -m tests.campaign.run --injections 1000
