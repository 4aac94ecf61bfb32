# Two commands for a start: `make demo` and `make test`. Both set up .venv on a fresh machine.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# the editable install of a renamed folder makes setuptools warn on every installation; nothing in it helps a user
RUN_SETTINGS := PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONWARNINGS=ignore

.PHONY: demo test test-fast attack lint format build docs reference embedded-model benchmarks clean

demo: .venv/.demo-ready
	$(BIN)/dreamdiff demo --out demo

test: .venv/.test-ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: .venv/.test-ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

attack: .venv/.test-ready
	$(BIN)/python tools/attack/run.py --write docs/reliability.md

lint: .venv/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: .venv/.test-ready
	rm -rf build dist
	$(BIN)/python -m build

docs: .venv/.docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

reference: .venv/.test-ready
	$(BIN)/python -m tools.reference

embedded-model: .venv/.test-ready
	$(BIN)/python -m tools.embedded_model.train

benchmarks: .venv/.bench-ready
	for script in $(filter-out benchmarks/motor_imagery%.py benchmarks/%_stores.py benchmarks/gpu.py,$(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf build dist demo site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(RUN_SETTINGS) $(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

.venv/.demo-ready: .venv/bin/python pyproject.toml
	@echo "installing (about 7 GB with PyTorch; two to three minutes)"
	$(RUN_SETTINGS) $(BIN)/python -m pip install --quiet -e '.[models,evaluation,app]'
	touch $@

.venv/.test-ready: .venv/bin/python pyproject.toml
	@echo "installing (about 7 GB with PyTorch; two to three minutes)"
	$(RUN_SETTINGS) $(BIN)/python -m pip install --quiet -e '.[models,app,cluster,evaluation,formats,views]' --group dev
	touch $@ .venv/.demo-ready

.venv/.docs-ready: .venv/.test-ready
	$(RUN_SETTINGS) $(BIN)/python -m pip install --quiet --group docs
	touch $@

.venv/.bench-ready: .venv/.test-ready
	$(RUN_SETTINGS) $(BIN)/python -m pip install --quiet --group bench
	touch $@
