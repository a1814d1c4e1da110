# Each target makes the virtual environment it needs; nothing but Python and make must be there.
PYTHON ?= python3
VENV ?= .venv
PIP_OPTIONS ?=
BENCH_OPTIONS ?=
BIN := $(VENV)/bin

export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

# A local data folder beside the checkout is used where there is one.
ifneq ($(wildcard ../shared/data),)
export XR_SPDE_DATA_DIR ?= $(abspath ../shared/data)
endif

.PHONY: help demo test test-long lint docs bench clean

help:
	@echo "make demo   estimate, emulate and score on real data; writes demo/report.html"
	@echo "make test   style, layers, types, tests and doctests"
	@echo "make test-long   the tests that take minutes each: what small networks learn"
	@echo "make lint   style, layers and types only"
	@echo "make docs   documentation into docs/_build/html"
	@echo "make bench  benchmark tables into benchmarks/results (BENCH_OPTIONS=--quick: a few minutes, printed only)"
	@echo "make clean  removes what these made"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras: installed again only when the requirements change.
$(VENV)/.stamp-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt -e '.[$(subst +,$(comma),$*)]'
	@touch $@

comma := ,
RUN_ENV := $(VENV)/.stamp-io+plot+distributed
TEST_ENV := $(VENV)/.stamp-test+torch+io+plot+distributed
DOCS_ENV := $(VENV)/.stamp-docs+torch+io+plot
BENCH_ENV := $(VENV)/.stamp-bench+torch+io+plot

demo: $(RUN_ENV)
	$(BIN)/python -m xr_spde.demo

lint: $(TEST_ENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not long" -n 2 --dist loadfile --durations 10

test-long: $(TEST_ENV)
	$(BIN)/python -m pytest -m long -n 2 --durations 10

docs: $(DOCS_ENV)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(BENCH_ENV)
	@for script in benchmarks/[!_]*.py; do \
		echo "== $$script"; $(BIN)/python $$script $(BENCH_OPTIONS) || exit 1; \
	done

clean:
	rm -rf $(VENV) docs/_build docs/jupyter_execute docs/api/generated demo dist build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
