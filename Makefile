# `make demo` and `make test` work on a fresh clone with nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
INSTALLED := $(VENV)/.installed
ARGS ?=

.PHONY: demo test check bench clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/adamas run recipes/demo.yaml $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

$(BENCH)/.installed: pyproject.toml constraints.txt benchmarks/peers.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	$(BENCH)/bin/python -m pip install --quiet --no-deps --requirement benchmarks/peers.txt
	touch $@

bench: $(BENCH)/.installed
	$(BENCH)/bin/python benchmarks/bench_steps.py
	$(BENCH)/bin/python benchmarks/bench_memory.py
	$(BENCH)/bin/python benchmarks/bench_compressors.py
	$(BENCH)/bin/python benchmarks/bench_channels.py
	$(BENCH)/bin/python benchmarks/bench_peers.py $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH) runs build dist
