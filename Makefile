# Everything happens in one virtual environment, .venv, which `make clean` removes.
PYTHON ?= python3
WORKERS ?= 2
EXTRAS ?=

COMMA := ,

BIN := .venv/bin
INSTALLED := .venv/.installed$(if $(EXTRAS),-with-$(subst $(COMMA),-,$(EXTRAS)))
# Python compiles what is used when it is first used; to compile all of it would take as long as the rest.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-compile -c constraints.txt

.DELETE_ON_ERROR:
.PHONY: help install test run bench clean

help:
	@echo "make install   the command .venv/bin/cheaplip and the library, from this folder; EXTRAS=attacks,ray adds those"
	@echo "make test      style, types, tests and every example in a docstring (2 cores: WORKERS=2)"
	@echo "make run       install, then the first run, on data that comes with the package: runs/first"
	@echo "make bench     install, then what a training step costs, beside its floor"
	@echo "make clean     remove .venv and what the tools left; runs/ and data/ stay"
	@echo "Another Python: make install PYTHON=python3.12"

install: $(INSTALLED)

test: .venv/.installed-test
	@echo "== style"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "== types"
	@$(BIN)/mypy --num-workers $(WORKERS)
	@echo "== tests"
	@# A file's tests share what takes long to make; files in their order, since many quick ones come last.
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

run: $(INSTALLED)
	@$(BIN)/python examples/first_run.py --out runs/first

bench: $(INSTALLED)
	@$(BIN)/python benchmarks/step_cost.py

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The files below say that a step is done; it is done again when pyproject.toml or constraints.txt is newer.
.venv/.made:
	@command -v $(PYTHON) >/dev/null || { echo "cheaplip needs Python 3.10 or newer; no $(PYTHON) was found: name one with PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "cheaplip needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1): name another with PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "cheaplip installs into a virtual environment; $(PYTHON) lacks the module venv or ensurepip: install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "== virtual environment .venv"
	@$(PYTHON) -m venv --clear .venv
	@touch $@

$(INSTALLED): .venv/.made pyproject.toml constraints.txt
	@echo "== installing cheaplip and its command (torch is large: a minute or more)"
	@$(PIP_INSTALL) -e ".[cli$(if $(EXTRAS),$(COMMA)$(EXTRAS))]"
	@touch $@

# The test extra holds the cli extra, so both steps are done.
.venv/.installed-test: .venv/.made pyproject.toml constraints.txt
	@echo "== installing cheaplip and what its tests need (torch is large: a minute or more)"
	@$(PIP_INSTALL) -e ".[test]"
	@touch .venv/.installed $@
