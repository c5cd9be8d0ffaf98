# Needs Python 3.11 to 3.13 with venv, and Java 17 or 21. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-full oracle lint bench peers-env package clean java

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ORACLE := .venv-oracle
PEERS := .venv-peers
DEMO_RAW := data/demo/raw

# Where none is named, the first that runs, is supported and can make a virtual environment (a name may be a mere shim).
PYTHON ?= python3.13 python3.12 python3.11 python3

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: java $(STAMP) ## Make the virtual environment and install the pinned versions (once)

demo: setup ## Run everything on a year of a grocer's real transactions, from raw files to published tables
	$(BIN)/python examples/completejourney.py $(DEMO_RAW)
	@# 99 says that everything is up to date already.
	code=0; $(BIN)/recbatch run --config conf/demo.yaml || code=$$?; [ $$code -eq 99 ] && code=0; exit $$code

test: setup ## Run the tests, without those that take minutes
	$(BIN)/python -m pytest -m "not slow"

test-full: setup ## Run all tests
	$(BIN)/python -m pytest

oracle: $(ORACLE)/.installed ## Compare the metrics with those of RecTools and ranx, in an environment of its own
	PYTHONPATH=. $(ORACLE)/bin/python tests/oracle/compare.py

lint: $(STAMP) ## Check style, format, types and the rules on imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## Run every benchmark; each prints a ratio measured in one run
	for file in $(sort $(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python "$$file" || exit; done

peers-env: $(PEERS)/.installed ## Make the virtual environment of the peers in benchmarks/sequences (once)

package: $(STAMP) ## Build dist/recbatch-*.whl and dist/recbatch.zip for spark-submit --py-files
	rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .
	@# A wheel is a zip with the package at its root, but --py-files takes it by the name .zip only.
	cp dist/recbatch-*.whl dist/recbatch.zip

clean: ## Remove what builds, checks and tests made; virtual environments and data/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf spark-warehouse metastore_db derby.log
	find $(wildcard recbatch tests examples benchmarks jobs) -name __pycache__ -type d -prune -exec rm -rf {} +

# A clear refusal before minutes of downloads; `recbatch doctor` looks closer.
java:
	@home="$${JAVA_HOME:-}"; java="$${home:+$$home/bin/}java"; \
	found=$$("$$java" -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p' || true); \
	case "$$found" in \
	17|21) ;; \
	"") echo "Java is missing ($$java does not run). Install Java 17 and set JAVA_HOME or PATH to it." >&2; exit 1 ;; \
	*) echo "$$java is Java $$found; Spark needs 17 or 21. Set JAVA_HOME to one of them." >&2; exit 1 ;; \
	esac

define make_venv
@[ -x $(1)/bin/python ] || { \
for name in $(PYTHON); do \
if "$$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; \
then echo "$$name -m venv $(1)"; exec "$$name" -m venv $(1); fi; done; \
echo "None of '$(PYTHON)' is a Python 3.11 to 3.13 with venv and ensurepip. Install one, or name it: make PYTHON=..." >&2; \
exit 1; }
endef

$(STAMP): pyproject.toml constraints.txt
	$(call make_venv,$(VENV))
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,demo]'
	@touch $@

# The other libraries want versions of their own, and none of them is one of ours.
$(ORACLE)/.installed: tests/oracle/requirements.txt
	$(call make_venv,$(ORACLE))
	$(ORACLE)/bin/python -m pip install -r $<

# Apart from ours: what a peer pins must not decide what we run with.
$(PEERS)/.installed: benchmarks/sequences/requirements-peers.txt
	$(call make_venv,$(PEERS))
	$(PEERS)/bin/python -m pip install -r $<
	@touch $@
