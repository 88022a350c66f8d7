# deskhouse: `make demo` and `make test` set up everything they need; only Python 3.11+, make and a package index are taken as given
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
# one more than cores: a test that waits for its processes leaves one idle
WORKERS = $$($(PYTHON) -c "import os; print((os.cpu_count() or 1) + 1)")

.DEFAULT_GOAL := help
.PHONY: help demo dashboard explore test test-deep lint format docs docs-check simulate faults bench lock clean

help: ## show the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/.runtime ## load the sandbox twice and look at the result; no account needed
	@$(RUN)/deskhouse demo

dashboard: $(VENV)/.runtime ## open the dashboard on the demo's warehouse
	@DESKHOUSE__WAREHOUSE_DIR=$${DESKHOUSE__WAREHOUSE_DIR:-demo-warehouse} $(RUN)/deskhouse dashboard

explore: $(VENV)/.runtime ## open a notebook that teaches the tables, on the demo's warehouse
	@DESKHOUSE__WAREHOUSE_DIR=$${DESKHOUSE__WAREHOUSE_DIR:-demo-warehouse} $(RUN)/marimo edit --skip-update-check --no-sandbox notebooks/explore.py

test: $(VENV)/.dev ## run the tests
	@$(RUN)/pytest --numprocesses $(WORKERS) --dist worksteal

test-deep: $(VENV)/.dev ## the long whole-run tests of privacy and erasure
	@$(RUN)/pytest --numprocesses $(WORKERS) --dist worksteal -m deep

test-dbt: $(VENV)/.dev ## build a dbt project on the published tables during syncs, with dbt in an environment of its own
	@test -x .venv-dbt/bin/dbt || { $(PYTHON) -m venv .venv-dbt && .venv-dbt/bin/pip install --quiet "dbt-core<1.12" "dbt-duckdb>=1.11" "duckdb>=1.5.5,<2"; }
	@DESKHOUSE_DBT=$(CURDIR)/.venv-dbt/bin/dbt $(RUN)/pytest tests/test_bi.py

lint: $(VENV)/.dev ## lint, format check, import bans and types
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

format: $(VENV)/.dev ## format the code
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

docs: $(VENV)/.runtime ## write what is generated in docs/: tables, models and their picture, dbt's sources
	$(RUN)/python -m pipelines.dictionary
	$(RUN)/python -m pipelines.model_docs
	$(RUN)/python -m pipelines.dbt_sources

docs-check: $(VENV)/.runtime ## fail if these files differ from what is declared
	$(RUN)/python -m pipelines.dictionary --check
	$(RUN)/python -m pipelines.model_docs --check
	$(RUN)/python -m pipelines.dbt_sources --check

simulate: $(VENV)/.dev ## play 5,000 histories of moving, failing vendors against the sync engine (a quarter of an hour)
	@cd tests && ../$(RUN)/python -m simulation --histories 5000 --jobs 2

faults: $(VENV)/.dev ## 36 faults in turn, with nothing lost; SEEDS=20 for the long form
	@cd tests && ../$(RUN)/python -m faults --seeds $${SEEDS:-1} --jobs 2

bench: $(VENV)/.dev ## deskhouse, its peers and the limit on one server; writes bench/RESULTS.md (three quarters of an hour; needs nginx-light)
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target bench/.pandas pandas
	@$(RUN)/python -m venv bench/.dlt
	@bench/.dlt/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "dlt[duckdb,parquet]"
	@$(RUN)/python bench/run.py

lock: $(VENV)/.dev ## resolve the dependencies of pyproject.toml anew and write both lock files
	$(RUN)/uv pip compile pyproject.toml --extra build --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-header --no-annotate --quiet --output-file requirements.lock
	$(RUN)/uv pip compile pyproject.toml --extra build --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --quiet --constraints requirements.lock --output-file requirements-dev.lock

clean: ## remove the virtual environment, caches and the demo's data; never a warehouse
	rm -rf $(VENV) .venv-dbt bench/.pandas bench/.dlt demo-warehouse .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "deskhouse needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Setting up (once) ..."
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	@echo "Setting up for tests (once) ..."
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.lock
	@$(RUN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
