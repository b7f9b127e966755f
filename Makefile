# `make help` lists what there is. PYTHON=... chooses the interpreter, NPM=... the npm, JOBS=... how
# many tests run side by side.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
NPM ?= npm
PARLEY_URL ?= http://127.0.0.1:8000
PORT ?= 8000
PACKAGES := config domain store fanout actions handlers server
ARGS ?=
JOBS ?= 4
SIDE_BY_SIDE := -n $(JOBS) --dist worksteal

# Installed once per change of the lock file: each stamp is newer than the lock it stands for.
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
PINNED_PIP := $(VENV)/.pip
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command 'make lock'

.PHONY: help setup run demo cluster cluster-demo test test-full coverage bench lint format types imports docs docs-check check lock swagger-ui clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV) node-clients ## Install what developing and testing needs

run: $(RUNTIME) ## Serve on http://127.0.0.1:8000, with SQLite in ./data
	@exec $(BIN)/python -m server

demo: demo/node_modules/.package-lock.json ## Two people talk through a running server, one is cut off
	@PARLEY_URL='$(PARLEY_URL)' node demo/demo.mjs

cluster: $(DEV) ## Three nodes behind HAProxy, with Redis (PORT=8000 is the balancer's)
	@exec $(BIN)/python -m deploy.cluster --port '$(PORT)'

cluster-demo: $(DEV) demo/node_modules/.package-lock.json ## The demo across two nodes, one of which is killed
	@exec $(BIN)/python -m deploy.cluster --demo

# Where bytecode is not kept, each worker and each server compiles everything anew.
test coverage: export PYTHONDONTWRITEBYTECODE =
test: $(DEV) node-clients ## Run all tests (ARGS="-k presence" narrows), JOBS=4 of them side by side
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-full: $(DEV) node-clients ## Run all tests in their full size (many minutes)
	@$(BIN)/python -m pytest --full $(ARGS)

coverage: $(DEV) node-clients ## Run all tests and show the lines they miss
	@$(BIN)/python -m coverage erase
	@$(BIN)/python -m coverage run -m pytest $(SIDE_BY_SIDE) $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report

bench: $(DEV) ## Measure Parley and its peers side by side
	@$(BIN)/python -m bench $(ARGS)

lint: $(DEV) ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(DEV) ## Mend style and formatting
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(DEV) ## Check types
	@$(BIN)/mypy

imports: $(DEV) ## Check that imports point one way
	@$(BIN)/lint-imports --no-logo

docs: $(DEV) ## Write the generated parts of the documentation
	@$(BIN)/python -m config.docs --write
	@$(BIN)/python -m server.docs.limits --write

docs-check: $(DEV) ## Check that the generated documentation is up to date
	@$(BIN)/python -m config.docs --check
	@$(BIN)/python -m server.docs.limits --check

check: lint types imports docs-check ## Everything that is checked without running the server

lock: $(DEV) ## Pin the newest versions that requirements*.in allow
	@$(COMPILE) --upgrade requirements.in -o requirements.txt
	@$(COMPILE) --upgrade requirements-telemetry.in -o requirements-telemetry.txt
	@$(COMPILE) --upgrade requirements-dev.in -o requirements-dev.txt
	@$(COMPILE) --upgrade requirements-pip.in -o requirements-pip.txt

swagger-ui: ## Put another Swagger UI into server/docs/swagger_ui (VERSION=5.35.0)
	@rm -rf build/swagger-ui && mkdir -p build/swagger-ui
	@cd build/swagger-ui && $(NPM) pack --silent 'swagger-ui-dist@$(or $(VERSION),latest)' >/dev/null && tar -xzf *.tgz
	@for name in swagger-ui-bundle.js swagger-ui.css; do \
		gzip -9nc build/swagger-ui/package/$$name >server/docs/swagger_ui/$$name.gz || exit 1; \
	done
	@cd build/swagger-ui/package && cp favicon-32x32.png LICENSE NOTICE swagger-ui-bundle.js.LICENSE.txt ../../../server/docs/swagger_ui/

clean: ## Remove what was built or installed; ./data stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis htmlcov build
	rm -f .coverage .coverage.*
	find . -name node_modules -prune -exec rm -rf {} +
	find $(PACKAGES) deploy tests bench -name __pycache__ -prune -exec rm -rf {} +

.PHONY: node-clients
node-clients: tests/node/node_modules/.package-lock.json demo/node_modules/.package-lock.json

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
			>/dev/null 2>&1 || continue; \
		echo "Creating $(VENV) with $$("$$python" --version)"; \
		exec "$$python" -m venv $(VENV); \
	done; \
	echo 'Parley needs Python 3.11 or later with its venv module.' \
		'On Debian or Ubuntu: apt-get install python3-venv. Or name one: make PYTHON=/path/to/python3' >&2; \
	exit 1

# The pip that an interpreter brings is as old as the interpreter, and resolves as it did then: it only
# installs the one that the lock was tried with.
$(PINNED_PIP): requirements-pip.txt | $(BIN)/python
	@$(PIP) install --require-hashes --no-deps -r requirements-pip.txt
	@touch $@

$(RUNTIME): requirements.txt | $(PINNED_PIP)
	@echo 'Installing what the server needs'
	@$(PIP) install --require-hashes -r requirements.txt
	@touch $@

$(DEV): requirements-dev.txt | $(PINNED_PIP)
	@echo 'Installing what the tests need'
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@ $(RUNTIME)

%/node_modules/.package-lock.json: %/package-lock.json
	@command -v $(NPM) >/dev/null || { echo 'This needs Node 18 or later with npm: https://nodejs.org' >&2; exit 1; }
	@echo 'Installing the Node packages of $*'
	@cd $* && $(NPM) ci --silent
	@touch $@
