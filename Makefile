# Every target sets up .venv by itself on first use; after that the set-up costs nothing.
#   make PYTHON=python3.12 check     another interpreter for the set-up
#   make WORKERS=0 test              tests in one process, not two
#   make PYTEST_OPTIONS='-k wire' test
# BRAINUNET_REAL_CASES, when set, names a folder of real cases and reaches the tests through the environment.

PYTHON ?= python3
WORKERS ?= 2
PYTEST_OPTIONS ?=
DEMO_OPTIONS ?= --phantom --sites 3 --partition centre --rounds 5 --set phantom.cases=30 --set train.steps=12 --baseline local --overwrite

BIN := .venv/bin
READY := .venv/.ready
# Bytecode is kept, whatever the shell says: else each of the many processes that tests start compiles the project anew.
unexport PYTHONDONTWRITEBYTECODE
# Each worker takes tests in a row, so that what a file's tests share is made once, and at the end takes over from the other.
PYTEST := $(BIN)/pytest $(if $(WORKERS),-n $(WORKERS) --dist worksteal) $(PYTEST_OPTIONS)

.DEFAULT_GOAL := help
.PHONY: help demo federation check test test-faults lint clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## a small federation on made-up cases, results in out/demo
	$(BIN)/brainunet-simulate $(DEMO_OPTIONS) --out out/demo

federation: $(READY) ## a coordinator and two hospitals as real processes on this machine, with TLS and keys, in out/federation
	deploy/federation-on-loopback.sh out/federation

check: lint ## format, lint, types, import contracts, fast tests (about two minutes)
	$(PYTEST) --hypothesis-profile=quick -m "not slow and not faults"

test: lint ## everything but the long fault runs: what check runs, and the slow tests
	$(PYTEST) -m "not faults"

test-faults: $(READY) ## long runs of a real federation with cut links, killed processes, full disks (at most half an hour)
	$(BIN)/pytest $(PYTEST_OPTIONS) -m faults

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove caches, builds, out/demo and out/federation (.venv stays; rm -rf .venv to start afresh)
	rm -rf out/demo out/federation build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so that a set-up that failed is tried again.
$(READY): pyproject.toml constraints.txt
	@bash deploy/set-up-venv.sh "$(PYTHON)"
	@touch $@
