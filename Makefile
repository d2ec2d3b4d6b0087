# Each target sets up .venv by itself. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# The newest supported Python on this machine. Another one: make PYTHON=/path/to/python3 book
PYTHON ?= $(shell for v in 3.13 3.12 3.11 3.10 3; do \
	python$$v -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo python$$v; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 8000
TEST_WORKERS ?= 2

.PHONY: help install book test lab serve wheels clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 12

install: $(STAMP)  ## set up .venv with everything that the other targets need

book: $(STAMP)  ## build the book into _build/html; warnings are errors
	@# Sphinx reads unchanged pages only once: without the rm, a second build would hide the warnings.
	$(BIN)/jupyter-book build . -W -n --keep-going || { rm -rf _build/.doctrees; exit 1; }
	@echo "Open _build/html/index.html, or run: make serve"

test: $(STAMP)  ## check the code's style and run all tests, two at a time (TEST_WORKERS=2)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n $(TEST_WORKERS) --dist loadgroup --no-loadscope-reorder

lab: $(STAMP)  ## open copies of the chapters (work/) in JupyterLab
	$(BIN)/medseg work
	$(BIN)/jupyter lab work

serve:  ## serve the built book on this machine (PORT=8000)
	@test -f _build/html/index.html || $(MAKE) book
	$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

wheels: $(STAMP)  ## collect what a GPU machine without a network lacks (WHEELS_PYTHON=3.12 ...)
	@# Unset, for this Python, this kind of machine, the tested torch. WHEELS_PLATFORM is a wheel's tag.
	$(BIN)/python tools/wheels.py $(if $(WHEELS_PYTHON),--python $(WHEELS_PYTHON)) $(if $(WHEELS_PLATFORM),--platform $(WHEELS_PLATFORM)) $(if $(WHEELS_TORCH),--torch $(WHEELS_TORCH))

clean:  ## remove what was built (not .venv, runs/, wheels/)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.13 found; name one: make PYTHON=/path/to/python3 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[book,qp,live,data,sweep,dev]'
	@touch $@
