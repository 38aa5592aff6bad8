# Two commands for a new user: `make demo` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-slow check format fast bench soak constraints clean

demo: $(VENV)/.bench
	$(BIN)/speciate bench --out out/demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -q

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -q -m slow

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# An optional second form: decisions and simulator loop as machine code, in out/compiled (needs a C compiler).
fast: $(VENV)/.dev
	$(BIN)/python packaging/compiled.py --into out/compiled
	$(BIN)/python -m pytest -q tests/replay/test_compiled.py

bench: $(VENV)/.peers
	$(BIN)/python -m benchmarks.overhead --json out/bench/overhead.json
	$(BIN)/python -m benchmarks.scheduler --json out/bench/scheduler.json
	$(BIN)/python -m benchmarks.engine --json out/bench/engine.json

soak: $(VENV)/.bench
	$(BIN)/python -m benchmarks.soak --json out/bench/soak.json

# Each stamp installs one set of extras, again whenever the project's requirements change.
$(VENV)/.bench $(VENV)/.test $(VENV)/.dev $(VENV)/.peers: $(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing speciate[$*] into $(VENV) ..."
	@$(PIP) install --constraint constraints.txt --editable ".[$(if $(filter peers,$*),bench$(comma)peers,$*)]"
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Speciate needs Python 3.11 or newer; set PYTHON=')"
	@$(PYTHON) -m venv $(VENV)

constraints: $(VENV)/.dev
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

comma := ,
