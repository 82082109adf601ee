# Two commands are all it takes on a fresh Debian or Ubuntu with python3 (3.11 or later), pip and make:
#   make run     the engine, here and now         make test     everything that proves it
PYTHON ?= python3
# One more than there are cores: many tests wait for something most of the time. Who has nothing left takes from the end of
# the longest row; tests that take minutes stand at the beginning (tests/conftest.py).
PYTEST_ARGS ?= -n $(shell echo $$(($$(nproc) + 1))) --dist worksteal
TEST_RESULTS := .test-results.xml

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
SOURCES := engine tests benchmarks

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run demo test slowest fuzz attack soak check format bench bench-all bench-report schemas lock sbom licences

help:
	@echo 'make run      set up, initialise what is missing, start the daemon'
	@echo 'make demo     the daemon fed by a simulated hospital, with progress'
	@echo 'make test     set up with all the tests need, run all tests'
	@echo 'make attack   the tests that the threat model names, and the fuzzer'
	@echo 'make slowest  what the last make test spent its time on (docs/tests.md)'
	@echo 'make check    format, lint, types, import layers, advisories'
	@echo 'make bench    the benchmark of this machine (make bench-all: everything, with the report)'
	@echo 'make fuzz     look for inputs that break something, for SECONDS=60'
	@echo 'make soak     an hour of kills, faults, simulation and fuzz; the report is docs/soak.md'
	@echo 'make setup    only the set-up; the command is then $(BIN)/handoff'
	@echo 'make format, make lock     rewrite formatting, lock files'
	@echo 'make sbom, make licences   what of others is in here: sbom.cdx.json, docs/licences.md'
	@echo 'make schemas  rewrite docs/schemas and docs/reference/configuration.md'

setup: $(VENV)/.runtime

run: setup
	@$(BIN)/handoff init . --missing
	@exec $(BIN)/handoff run

demo: setup
	@$(BIN)/handoff demo

BENCH := $(BIN)/python benchmarks/with_peers.py $(BIN)/python -m benchmarks run
BENCH_NAME ?= $(shell nproc)-cores

bench: $(VENV)/.dev
	@$(BENCH) $(BENCH_ARGS)

bench-all: $(VENV)/.dev
	@mkdir -p docs/benchmarks
	@$(BENCH) --parts all --stores sqlite,postgresql --tls --seconds 10 --messages 30000 \
	  --output docs/benchmarks/$(BENCH_NAME).json $(BENCH_ARGS)
	@$(MAKE) --no-print-directory bench-report

bench-report: setup
	@$(BIN)/python -m benchmarks report docs/benchmarks/*.json

# Bytecode is kept: each process would compile all tests anew, with their assertions rewritten.
test: $(VENV)/.dev
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(PYTEST_ARGS) --junit-xml=$(TEST_RESULTS) -o junit_family=xunit1

# What the last `make test` spent its time on, against the budgets in docs/tests.md, whose tables it writes.
slowest:
	@$(BIN)/python -m tests.slowest $(TEST_RESULTS)

# Guided by coverage; what it finds is in .fuzz/findings (tests/fuzz/run.py says more). FUZZ: some targets only.
SECONDS ?= 60
FUZZ ?=

fuzz: $(VENV)/.fuzz
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(FUZZ)

# Our own attempts: every test that docs/threat-model.md names, then the fuzzer. All but the fuzzer run in `make test`, too.
ATTEMPTS = $(shell grep -o 'test_[a-z_]*\.py' docs/threat-model.md | sort -u | while read name; do find tests -name "$$name"; done)
attack: $(VENV)/.fuzz
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(ATTEMPTS)
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(FUZZ)

# The tests that kill, starve and simulate, again and again with new seeds; writes docs/soak.md.
soak: SECONDS = 3600
soak: $(VENV)/.fuzz
	$(BIN)/python -m tests.soak.run --seconds $(SECONDS) $(SOAK_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.supply audit

# Of what the lock file names: a bill of materials (CycloneDX), and the page of licences.
sbom: $(VENV)/.dev
	@$(BIN)/python -m tests.supply sbom >sbom.cdx.json
	@echo 'sbom.cdx.json'

licences: $(VENV)/.dev
	@$(BIN)/python -m tests.supply licences

format: $(VENV)/.dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

schemas: setup
	@$(BIN)/handoff schema --write docs/schemas --reference docs/reference/configuration.md

# --- set-up: each step leaves a stamp inside .venv, and is done again when what it rests on changes ---

# Debian and Ubuntu keep venv's pip in a package of its own; where it is missing, virtualenv (which brings its own pip)
# is unpacked into a folder here, which no "externally managed" marker forbids.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Handoff needs Python 3.11 or later: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 \
	  || $(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 \
	  || { $(PYTHON) -m pip install --quiet --upgrade --target .bootstrap --require-hashes -r requirements-bootstrap.lock \
	       && PYTHONPATH=.bootstrap $(PYTHON) -m virtualenv --quiet --clear $(VENV); }
	@touch $@

$(VENV)/.runtime: $(VENV)/.created requirements.lock pyproject.toml
	@echo 'Setting up $(VENV) from requirements.lock (the first time takes a minute)'
	@$(PIP) install --quiet --require-hashes -r requirements.lock
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q engine
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@echo 'Setting up what the tests and checks need from requirements-dev.lock'
	@$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

# The fuzzer is a large binary for Linux on x86-64 and Python 3.11 to 3.13: only who fuzzes needs it.
$(VENV)/.fuzz: $(VENV)/.dev requirements-fuzz.lock
	@$(PIP) install --quiet --require-hashes -r requirements-fuzz.lock
	@touch $@

# --- lock files: all versions and hashes, for every Python from 3.11 up and every platform ---

LOCK = .bootstrap/uv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
       --custom-compile-command 'make lock' --no-emit-index-url --no-emit-find-links

lock:
	@test -x .bootstrap/uv/bin/uv || $(PYTHON) -m pip install --quiet --upgrade --target .bootstrap/uv \
	  --require-hashes -r requirements-lock.lock
	$(LOCK) pyproject.toml --group build --output-file requirements.lock
	$(LOCK) pyproject.toml --group build --group dev --constraint requirements.lock --output-file requirements-dev.lock
	$(LOCK) --group fuzz --output-file requirements-fuzz.lock
	$(LOCK) --group bootstrap --output-file requirements-bootstrap.lock
	$(LOCK) --group lock --output-file requirements-lock.lock
