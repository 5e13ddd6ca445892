# make demo | test | lint | bench: each sets up a virtual environment on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aiq needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[digits,nsga2,onnxruntime,openvino]' --group dev
	touch $@

$(VENV)/.bench: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	touch $@

demo: $(READY)
	$(BIN)/python examples/demo.py

test: lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/tracing.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/decoder_70b.py
	$(BIN)/python benchmarks/search_speed.py

clean:
	rm -rf $(VENV) out dist build
