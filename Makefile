# Two commands do all the set-up on a machine that has only Python >= 3.11 and make:
#
#   make demo    install, train on scikit-learn's digits, say where the model and its report lie
#   make test    install with what the tests need, run the whole suite
#
# Without a GPU on Linux, torch's CPU build saves a download of gigabytes:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# Exact versions, the build backend included: newer pips read its pin under the second name.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.PHONY: help demo test check clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.ready-demo
	$(BIN)/leadline train digits

# One thread per worker: two workers with two threads each would fight for two cores.
test: $(VENV)/.ready-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q

check: $(VENV)/.ready-check
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/architecture

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp file per set of packages: nothing is installed twice unless the lists have changed.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("expected Python 3.11 or newer\nreceived " + sys.version.split()[0] + "\ndo this  make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

# The oracles go beside the environment's own packages, where tests/conftest.py alone looks for
# them, and without their dependencies. torchvision's wheel is built against one CUDA and would pull
# it in; beside another torch its import fails, and with it that of torchmetrics, an oracle too, which
# imports it wherever it is installed. Its models, in Python, are all that the tests need; timm's the same.
# curvlinops asks for BackPACK, which asks for torchvision; the others are what these two import.
ORACLES := torchvision timm curvlinops-for-pytorch backpack-for-pytorch einconv einops \
	linear_operator opt-einsum tqdm unfoldNd

$(VENV)/.ready-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[test]'
	rm -rf $(VENV)/oracles
	$(PIP) --no-deps --target $(VENV)/oracles $(ORACLES)
	@touch $@

$(VENV)/.ready-check: $(VENV)/.ready-test
	$(PIP) --editable '.[test,dev]'
	@touch $@
