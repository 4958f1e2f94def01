# `make sweep` and `make test` set up what they need in .venv (once) and run.
PYTHON ?= python3
SWEEP ?= soap_schedulefree_vs_adamw_cosine
ARGS ?=
BIN := .venv/bin
PORT ?=
SEED ?= 1
KILLS ?= 200
OUTAGES ?= 20
REPLAY ?=

export MLFLOW_DISABLE_TELEMETRY := true
export NO_MKDOCS_2_WARNING := true
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help sweep test test-browser test-integration check chaos audit ui report bench docs site gallery clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("optsweep needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt setuptools wheel
	$(BIN)/pip install -q -c constraints.txt torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

sweep: .venv/ready ## run a sweep and write its report: make sweep [SWEEP=name] [ARGS="key=value …"]
	@$(BIN)/optsweep -cn $(SWEEP) $(ARGS)

test: .venv/ready check ## lint, types and the tests, without those of a browser and of servers
	@$(BIN)/pytest -n 2 $(ARGS)

test-browser: .venv/ready ## the report's page and MLflow's in a headless Chromium, Debian's chromium and chromium-driver
	@{ command -v chromium && command -v chromedriver; } >/dev/null || { echo "no browser: apt-get install chromium chromium-driver"; exit 2; }
	@$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[browser]'
	@$(BIN)/pytest tests/browser $(ARGS)

test-integration: .venv/ready ## sweeps on PostgreSQL, an MLflow server, Ray and SLURM, which are installed where they can be
	@tests/servers/install.sh
	@$(BIN)/pytest -rs tests/servers $(ARGS)

check: .venv/ready ## lint, directions of imports, and types
	@$(BIN)/ruff check -q src tests benchmarks docs
	@$(BIN)/ruff format --check -q src tests benchmarks docs
	@PYTHONPATH=src $(BIN)/lint-imports --no-cache --no-logo > .venv/imports.txt 2>&1 || { cat .venv/imports.txt; exit 1; }
	@$(BIN)/mypy

chaos: .venv/ready ## kill, freeze and starve small sweeps, and compare: make chaos [SEED=1] [KILLS=200] [REPLAY=1/7]
	@PYTHONPATH=tests $(BIN)/python -m chaos --seed $(SEED) --kills $(KILLS) --outages $(OUTAGES) \
	  $(if $(REPLAY),--replay $(REPLAY)) $(ARGS)

audit: .venv/ready ## look for known vulnerabilities of the installed packages (asks a database on the network)
	@$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[audit]'
	@$(BIN)/pip freeze --exclude-editable | sed 's/+.*//' > .venv/installed.txt
	@$(BIN)/pip-audit --strict --no-deps --disable-pip -r .venv/installed.txt $(ARGS)

ui: .venv/ready ## browse every run in the MLflow UI on 127.0.0.1:5000: make ui [ARGS=name] [PORT=…]
	@$(BIN)/optsweep ui $(if $(PORT),--port $(PORT)) $(ARGS)

report: .venv/ready ## write the report of a sweep again: make report [SWEEP=name]
	@$(BIN)/optsweep report $(SWEEP) $(ARGS)

bench: .venv/ready ## run the benchmarks; results go to benchmarks/results/ and docs/performance.md
	@$(BIN)/python benchmarks/run.py $(ARGS)
	@$(BIN)/python docs/performance.py

docs: .venv/ready ## write docs/catalogue.md and docs/commands.md from the code, docs/performance.md from the benchmarks' results
	@$(BIN)/python docs/catalogue.py
	@$(BIN)/python docs/commands.py
	@$(BIN)/python docs/performance.py

site: .venv/ready ## build the docs as a site, into site/: make site, then open site/index.html
	@$(BIN)/mkdocs build --strict $(ARGS)

gallery: .venv/ready ## run all named sweeps (resumable, about an hour on two cores) and write docs/gallery/
	@$(BIN)/python docs/gallery.py --run $(ARGS)

clean: ## remove the virtual environment and caches; sweeps and reports stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info src/*.egg-info
