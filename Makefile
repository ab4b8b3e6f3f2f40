# Dynamic Toolset: everything a developer does. `make` alone lists it.
#
#   PYTHON=python3.12   the interpreter that the environment in .venv is made of, 3.11 or newer
#   KEEP=1              make demo leaves the demo running
#   ARGS="-k conflict"  goes to pytest; of make bench it chooses figures: start, change, load
#   MINUTES=10          how long make test-chaos goes on
#   SECONDS=60          how long make fuzz goes on

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
# All that is needed is pinned. Without --no-deps pip would resolve `coverage[toml]` anew, and stumble over each release.
PINNED := install --no-deps --require-hashes --requirement

# The stamps name the interpreter's version, so that another PYTHON makes another environment.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ENVIRONMENT := $(VENV)/.python-$(VERSION)
RUNTIME := $(VENV)/.runtime-$(VERSION)
DEVELOPMENT := $(VENV)/.development-$(VERSION)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-unit test-faults test-chaos fuzz lint generate bench screenshots programs system-packages

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUNTIME)  ## see the program at work, without a cluster; KEEP=1 leaves it running
	@$(BIN)/dynamic-toolset demo $(if $(KEEP),--keep)

# Two at a time, as they wait as much as they work; those of one file share what they start.
test: $(DEVELOPMENT)  ## run every test whose parts can be had here, and show the coverage
	@$(BIN)/pytest --cov=dynamic_toolset --ignore=tests/faults --numprocesses=2 --dist=loadfile $(ARGS)

test-unit: $(DEVELOPMENT)  ## run the unit tests only: seconds
	@$(BIN)/pytest tests/unit $(ARGS)

# They mostly wait: each worker has a cluster of its own. Handed out one by one, they keep the workers busy to the end.
test-faults: $(DEVELOPMENT)  ## break what is around the program, on real clusters; 15 minutes, 3 of them chaos
	@$(BIN)/pytest tests/faults --numprocesses=3 --dist=load --maxschedchunk=1 $(ARGS)

test-chaos: $(DEVELOPMENT)  ## three replicas under random kills, pauses and cuts, for MINUTES=10
	@CHAOS_MINUTES=$(or $(MINUTES),10) $(BIN)/pytest tests/faults -m chaos -s $(ARGS)

fuzz: $(DEVELOPMENT)  ## look for a Service that breaks detection or the documents, for SECONDS=30
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),30)

lint: $(DEVELOPMENT)  ## check style, format, types and the direction of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

generate: $(RUNTIME)  ## make anew what comes from the settings: CRD, JSON Schema, reference page
	@$(BIN)/python -m dynamic_toolset.definition .

bench: $(DEVELOPMENT)  ## measure on a real cluster with 10,000 Services; one JSON line per figure
	@$(BIN)/python -m benchmarks $(ARGS)

screenshots: $(DEVELOPMENT)  ## make the pictures of the page that stand in README.md and docs anew
	@$(BIN)/python -m tests.page.screenshots docs/images

programs: $(DEVELOPMENT)  ## build the real cluster's programs with Go (once, 8 minutes), and show what is missing
	@$(BIN)/python -m tests.cluster.programs

# The packages would also start their servers, on ports that the tests and the machine's owner may want: policy-rc.d
# forbids it for as long as they are installed (Debian, invoke-rc.d(8)).
system-packages:  ## install the backends and the browser that the tests use (Debian, Ubuntu; as root)
	@command -v apt-get >/dev/null || { echo "No apt-get here. Install by other means:" $$(cat tests/system-packages.txt); exit 1; }
	@if dpkg --status $$(cat tests/system-packages.txt) >/dev/null 2>&1; then exit 0; fi; \
	set -e; policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
	  printf '#!/bin/sh\nexit 101\n' > $$policy; chmod +x $$policy; trap "rm -f $$policy" EXIT; \
	fi; \
	apt-get update --quiet=2; \
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends $$(cat tests/system-packages.txt)

# --- The environment -------------------------------------------------------------------------------------------------

# One environment: what the program needs, and, once somebody tests, what its developers need on top.
$(ENVIRONMENT):
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ...")'
	@$(BIN)/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' 2>/dev/null \
	  || $(PYTHON) -m venv --clear $(VENV)
	@rm -f $(VENV)/.python-* $(VENV)/.runtime-* $(VENV)/.development-*
	@touch $@

$(RUNTIME): $(ENVIRONMENT) constraints/runtime.txt pyproject.toml
	@echo "Installing what the program needs into $(VENV) ..." >&2
	@$(PIP) $(PINNED) constraints/runtime.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEVELOPMENT): $(RUNTIME) constraints/development.txt
	@echo "Installing what its developers need into $(VENV) ..." >&2
	@$(PIP) $(PINNED) constraints/development.txt
	@touch $@
