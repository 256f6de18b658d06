# Gatepost: from a bare checkout `make run` runs it and `make test` tests it. Both set up all they need.
# Time budgets are for 2 cores, warm caches: see each target.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/gatepost
export PYTHONPATH := $(CURDIR)/tools
# Compiled modules are kept, whatever the environment says: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 4

.PHONY: help run test check lint format types contracts fast test-servers test-kill test-node outages fuzz compiled bench crds docs generated lock audit venv clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

# -- environments. The locks hold hashes; uv comes by pip, nothing else is needed than Python with venv.
$(VENV)/bin/uv: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Gatepost needs Python 3.11 or newer with venv (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.run: $(VENV)/bin/uv requirements/run.txt pyproject.toml
	@[ -e $(VENV)/.dev ] || VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/run.txt
	@$(PYTHON) tools/link_sources.py $(VENV)
	@touch $@

$(VENV)/.dev: $(VENV)/bin/uv requirements/dev.txt pyproject.toml
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.txt
	@$(PYTHON) tools/link_sources.py $(VENV)
	@touch $(VENV)/.run $@

venv: $(VENV)/.dev  ## the development environment in .venv

run: $(VENV)/.run  ## the gateway in the foreground on its embedded log: MX 2525, submission 2587, admin 8025
	@$(BIN)/gatepost quickstart --state var
	@exec $(BIN)/gatepost run --config examples/quickstart --state var

# -- tests. `make test` is everything: cold under 60 min, warm under 15 min.
test: $(VENV)/.dev  ## everything: fast tests, real servers, kill tests, Kubernetes; cold < 60 min, warm about 14 min
	@bash tools/test_everything.sh

check: $(VENV)/.dev lint types contracts generated fast  ## format, lint, types, import contracts, fast tests; < 90 s

lint: $(VENV)/.dev  ## ruff
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .

format: $(VENV)/.dev  ## put the code into form
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --fix --quiet .

types: $(VENV)/.dev  ## mypy --strict
	@$(BIN)/mypy

contracts: $(VENV)/.dev  ## who may import whom
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache

crds: $(VENV)/.dev  ## write crds/ from the types
	@$(BIN)/python -m crdgen && cp crds/*.yaml charts/gatepost/files/crds/

docs: $(VENV)/.dev  ## write the reference pages from the types
	@$(BIN)/python -m docgen

generated: $(VENV)/.dev  ## what is written from the types is up to date
	@$(BIN)/python -m crdgen --check && $(BIN)/python -m docgen --check

fast: $(VENV)/.dev  ## tests without servers; about 75 s
	@$(PYTEST) -q -n $(WORKERS) -m "not servers and not kill and not node and not proofs"

compiled: $(VENV)/.dev  ## the hot path as machine code, as in the images: prints the folder for PYTHONPATH; 1 min
	@$(BIN)/python -m compiling

test-servers: $(VENV)/.dev  ## tests on real Kafka, slapd, DNS, Dovecot, Jaeger; about 5 min
	@$(BIN)/python -m testbed.provision apt:servers kafka jaeger
	@$(PYTEST) -q -n 3 --dist loadfile -m "servers and not kill and not node"

test-kill: $(VENV)/.dev  ## kill -9 of every kind of process under load; < 5 min
	@$(BIN)/python -m testbed.provision apt:servers kafka
	@$(PYTEST) -q -m kill

fuzz: $(VENV)/.dev  ## feed every parser with what strangers could send: FUZZ="--seconds 60 TARGET..."; about 15 min
	@nice $(BIN)/python -m fuzzing $(FUZZ)

outages: $(VENV)/.dev  ## each dependency refused, hung, slow and back; writes docs/outages.md; < 5 min
	@$(BIN)/python -m testbed.provision apt:servers kafka
	@GATEPOST_WRITE_OUTAGES=1 $(PYTEST) -q tests/outages

test-node: $(VENV)/.dev  ## the Kubernetes API and a real node, as root; about 9 min
	@$(BIN)/python -m testbed.provision apt:node kafka kubernetes kubernetes-clients coredns image
	@$(PYTEST) -q -m node

# Measured with the Python that the images run, Debian's, as Postfix and Exim are Debian's. One that was built without
# profile-guided optimisation (pyenv's default) costs a fifth more.
BENCH_PYTHON ?= $(or $(wildcard /usr/bin/python3),$(PYTHON))
BENCH_VENV := .venv-bench
bench:  ## benchmarks beside Postfix, Exim, Haraka; writes benchmarks/RESULTS.md; about 15 min
	@$(MAKE) --no-print-directory VENV=$(BENCH_VENV) PYTHON=$(BENCH_PYTHON) venv
	@$(BENCH_VENV)/bin/python -m testbed.provision apt:servers apt:bench kafka
	@$(BENCH_VENV)/bin/python benchmarks/run.py $(BENCH)

lock: $(VENV)/bin/uv  ## resolve the dependencies again
	@bash tools/lock.sh

audit: $(VENV)/bin/uv  ## known vulnerabilities of the locked dependencies; needs the network
	@for file in requirements/*.txt; do $(BIN)/uv tool run pip-audit --disable-pip --require-hashes -r $$file || exit 1; done

clean:  ## remove what was made in this folder (not the caches in $(CACHE))
	rm -rf $(VENV) $(BENCH_VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
