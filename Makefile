# Needs make and Python 3.11 or newer; the rest is installed into .venv, once.
#   make PYTHON=/path/to/python      another interpreter than the one found
#   make test ARGS="-k adam"         arguments for pytest, or for the demo's script

# The first that runs: a name alone may be a version manager's shim for a Python that is not there.
PROBE  := 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	$$python -c $(PROBE) >/dev/null 2>&1 && { echo $$python; break; }; done)
ARGS   ?=
# One process per core. Each begins with its own half of the tests; the first to be done takes from the others.
PARALLEL ?= -n auto --dist worksteal

VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL ?= 2
export MPLBACKEND ?= Agg
export NO_MKDOCS_2_WARNING := 1

.PHONY: help demo docs test test-slow test-matrix bench lint wheel clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP)  ## train the example language model
	$(PY) examples/train_language_model.py $(ARGS)

docs: $(STAMP)  ## build the site in site/, strictly; open site/index.html
	$(PY) -m mkdocs build --quiet

test: $(STAMP) lint docs  ## lint, the site, then the tests and doctests without the slow ones
	$(PY) -m pytest $(PARALLEL) $(ARGS)

test-slow: $(STAMP)  ## the slow tests only
	$(PY) -m pytest -m slow $(PARALLEL) $(ARGS)

test-matrix: $(STAMP)  ## the supported versions, each in an environment of its own; ARGS="oldest jax" picks rows
	$(PY) tests/matrix.py $(ARGS)

bench: $(STAMP)  ## how fast an update is, beside others; ARGS="--torch PYTHON" adds torch
	$(PY) -m benchmarks $(ARGS)

lint: $(STAMP)  ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

wheel: $(STAMP)  ## build dist/*.whl
	rm -rf build dist
	$(PY) -m build --wheel

clean:  ## remove everything that was built, except .venv
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name $(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# Written last, so that an install which failed half way is taken up again by the next make.
# pip that does not run means a .venv that was not finished, or whose Python is gone: start afresh.
$(STAMP): setup.cfg pyproject.toml
	@$(PY) -m pip --version >/dev/null 2>&1 || { $(check_python); rm -rf $(VENV); "$$python" -m venv $(VENV); }
	@$(choose_tensorflow); set -x; $(PY) -m pip install --editable ".[dev,docs,$$extra]" $$cuda
	@touch $@

define check_python
python="$(or $(PYTHON),none)"; \
	"$$python" -c $(PROBE) 2>/dev/null || { \
		echo "make: needs Python 3.11 or newer, found $$python; name one with make PYTHON=/path/to/python" >&2; \
		exit 1; }; \
	"$$python" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "make: $$python has no venv or ensurepip (Debian, Ubuntu: apt install python3-venv)," \
			"or name another one with make PYTHON=/path/to/python" >&2; \
		exit 1; }
endef

# Without a GPU TensorFlow's CPU build does the same, and is a smaller download.
define choose_tensorflow
if nvidia-smi -L 2>/dev/null | grep -q '^GPU' || test -e /dev/nvidia0; \
	then extra=tensorflow; cuda='tensorflow[and-cuda]'; \
	else extra=tensorflow-cpu; cuda=; fi
endef
