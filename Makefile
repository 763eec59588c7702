# Every target makes the virtual environment that it needs, so start with `make demo` or
# `make test` right after `git clone`. PYTHON chooses the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Jupyter refuses to run as root, as in a container, unless it is told that this is meant.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
# The JupyterLab extension: jlpm is Yarn as Jupyter ships it, and needs Node.js.
EXTENSION := nanhunt/labextension/package.json
# As many as cores: a page of JupyterLab keeps two of them busy while it loads.
WORKERS ?= 2
MODULES := labextension/node_modules/.ready
JLPM := cd labextension && PATH="$(abspath $(BIN)):$$PATH" jlpm
LINKED := $(VENV)/share/jupyter/labextensions/nanhunt

.PHONY: help demo lab test lint format bench campaign idioms kernels clean

help:
	@echo "make demo      run examples/01_first_hunt.ipynb and print what it found"
	@echo "make lab       open JupyterLab with the examples"
	@echo "make test      format, lint, types, import contracts, all tests, notebooks, browser (Node.js)"
	@echo "make lint      only the checks that run no test"
	@echo "make format    put the code into its form"
	@echo "make bench     what watching costs, against a bare step and other tools; the doctor's speed"
	@echo "make campaign  a thousand injected faults in models of others"
	@echo "make idioms    healthy training as people write it, and with a fault, through every way in"
	@echo "make kernels   every test of the panel in every version of ipykernel"
	@echo "make clean     remove the virtual environment and everything built"

$(READY): pyproject.toml constraints.txt
	@echo "Making the virtual environment $(VENV); the first time takes minutes."
	$(PYTHON) -m venv $(VENV)
	rm -rf $(LINKED)  # a link into this tree, through which pip would write
	SKIP_JUPYTER_BUILDER=1 $(BIN)/python -m pip install -qq --constraint constraints.txt --editable ".[test]"
	touch $@

$(MODULES): labextension/package.json labextension/yarn.lock | $(READY)
	@node --version >/dev/null || (echo "The JupyterLab extension is built with Node.js 20 or newer; there is none on PATH."; exit 1)
	$(JLPM) install --immutable
	touch $@

$(EXTENSION): $(READY) $(MODULES) labextension/tsconfig.json nanhunt/panel/controls.json $(wildcard labextension/s*/* labextension/src/*/*)
	$(JLPM) build
	rm -rf $(LINKED) && mkdir -p $(dir $(LINKED)) && ln -s $(abspath $(dir $@)) $(LINKED)

demo: $(READY)
	$(BIN)/python tools/demo.py

lab: $(READY) $(EXTENSION)
	PYTHONPATH=examples $(BIN)/jupyter lab $(AS_ROOT) --ServerApp.root_dir=.

lint: $(READY) $(EXTENSION)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(JLPM) lint

format: $(READY) $(MODULES)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(JLPM) format

test: lint
	$(JLPM) test
	$(BIN)/python tools/find_chromium.py --install
	$(BIN)/python -m pytest examples tests --nbmake -n $(WORKERS) -m "not alone"
	$(BIN)/python -m pytest tests -m alone

kernels: $(READY)
	NANHUNT_KERNELS=all $(BIN)/python -m pytest -n $(WORKERS) \
		tests/notebook/test_panel_in_kernels.py tests/notebook/test_live_comm.py

bench: $(READY)
	$(BIN)/python benchmarks/overhead.py --json build/overhead.json
	$(BIN)/python benchmarks/doctor.py --json build/doctor.json

campaign: $(READY)
	$(BIN)/python -m tests.campaign.run --injections 1000

idioms: $(READY)
	$(BIN)/python -m tests.idioms.grid --workers $(WORKERS)

clean:
	rm -rf $(VENV) build dist nanhunt/labextension labextension/node_modules labextension/lib
