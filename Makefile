# make run    sets everything up and runs the pipeline on the embedded sample (ENGINE=prefect: under Prefect)
# make test   sets everything up and passes the tests (JOBS=2: so many files at a time)
# Needs python3 (3.11 or newer), git and make; uv is used where it is installed, else put into the environment.

ENGINE ?= dvc
JOBS ?= 2
PYTHON ?= python3
BIN := .venv/bin

export DO_NOT_TRACK := true
export DVC_NO_ANALYTICS := 1

.PHONY: setup run test lint clean

setup: .venv/.complete

# A changed lock or pyproject installs again; otherwise nothing is done.
.venv/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("error: python3 is %d.%d, acclimate needs 3.11 or newer; name another with make PYTHON=…" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@if command -v uv >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv; then \
	  PATH="$$PWD/$(BIN):$$PATH"; export VIRTUAL_ENV="$$PWD/.venv"; \
	  uv pip install --quiet --require-hashes -r requirements.lock && uv pip install --quiet --no-deps --no-build-isolation -e .; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

run: setup
	@$(BIN)/acclimate run --engine $(ENGINE)

test: setup lint
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: setup
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary

clean:
	rm -rf .venv .acclimate .prefect
