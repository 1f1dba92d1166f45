# Everything a newcomer or a build server needs. `make` alone prints the targets.
# PYTHON picks the interpreter of .venv (3.11 or later); ARGS is handed to the command that a target runs.

VENV := .venv
OTHER := .venv-other
COMPILED := build/compiled
BIN := $(VENV)/bin
ARGS ?=
# The share of lines and branches that the fast tests must run, in percent.
COVERAGE_FLOOR ?= 90
# Every step of the proxy's store failing in turn takes over an hour: `make fuzz` tries a share, the fast tests a sample.
EVERY_STEP := tests/proxy/test_faults.py::test_every_step_fails
SLOW_TESTS := tests --ignore=tests/packaging --deselect $(EVERY_STEP)
DIST := dist

.DEFAULT_GOAL := help
.PHONY: help demo test lint types test-other test-compiled test-slow test-packages fuzz cache-conformance soak reference bench deb install clean mutation
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  ARGS="..." is passed on, for instance: make demo ARGS="--seconds 20 --records 20000"'

# --- the virtual environment -------------------------------------------------------------------------------------
# The stamps remember what is installed, so that a second run asks the network for nothing.

install: $(VENV)/.has-cli ## edged and what its commands need, into .venv

$(VENV)/.has-python:
	@python=$(PYTHON); \
	if [ -z "$$python" ]; then \
		for name in python3 python3.14 python3.13 python3.12 python3.11; do \
			if $$name -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				python=$$name; break; \
			fi; \
		done; \
	fi; \
	if [ -z "$$python" ]; then \
		echo "make: no Python 3.11 or later with venv was found; install one (Debian: apt install python3-venv)," \
			"or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	$$python -m venv $(VENV)
	@touch $@

$(VENV)/.has-cli: pyproject.toml edged/version.py | $(VENV)/.has-python
	@echo "installing edged into $(VENV) (once; needs the network)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli]'
	@touch $@

$(VENV)/.has-dev: pyproject.toml edged/version.py | $(VENV)/.has-python
	@echo "installing edged and its development tools into $(VENV) (once; needs the network)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,cli]'
	@touch $@ $(VENV)/.has-cli

# --- use -----------------------------------------------------------------------------------------------------------

demo: $(VENV)/.has-cli ## an origin and a device on this machine, live, with a made-up catalogue
	@$(BIN)/edged demo $(ARGS)

# --- checks --------------------------------------------------------------------------------------------------------

test: lint types ## ruff, mypy, the fast tests, and the coverage floor
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest --numprocesses=auto $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=$(COVERAGE_FLOOR)

lint: $(VENV)/.has-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.has-dev
	$(BIN)/mypy

# Firmware builders are on other releases of Python than we: make test-other PYTHON=/path/to/python3.13
$(OTHER)/.has-dev: pyproject.toml edged/version.py
	@test -n "$(PYTHON)" || { echo "make: name the other Python: make test-other PYTHON=/path/to/python3.13" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(OTHER)
	@$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,cli]'
	@touch $@

test-other: $(OTHER)/.has-dev ## the fast tests by another Python, named by PYTHON
	$(OTHER)/bin/python -m pytest --numprocesses=auto $(ARGS)

# In a copy, so that what was compiled of yesterday's sources never runs for today's.
test-compiled: $(VENV)/.has-dev ## the coding's tests over what mypyc makes of it (needs a C compiler)
	@rm -rf $(COMPILED) && mkdir -p $(COMPILED)
	@cp -R edged tests docs packaging config benchmarks pyproject.toml README.md CHANGELOG.md $(COMPILED)
	$(BIN)/python packaging/compiling.py $(COMPILED)
	cd $(COMPILED) && EDGED_COMPILED=1 $(CURDIR)/$(BIN)/python -m pytest --numprocesses=auto tests/feed $(ARGS)

test-slow: $(VENV)/.has-dev ## fault injection, crashes, large data and peers
	$(BIN)/python -m pytest -m slow --numprocesses=auto $(SLOW_TESTS) $(ARGS)

test-packages: $(VENV)/.has-dev ## the .deb in a minimal Debian and the systemd units (root, mmdebstrap)
	$(BIN)/python -m pytest -m slow tests/packaging $(ARGS)

# Where all of it would take hours, a share is taken, another one each day: EDGED_FUZZ_SEED=N brings one back.
fuzz: export EDGED_FUZZ_SEED ?= $(shell echo $$(($$(date +%s) / 86400)))
fuzz: $(VENV)/.has-dev ## half an hour: property tests with many more examples, damaged HTTP, kills, mutations, faults of I/O
	@echo "EDGED_FUZZ_SEED=$(EDGED_FUZZ_SEED)"
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=deep --numprocesses=auto $(ARGS)
	EDGED_FUZZ_SECONDS=300 EDGED_KILLS=300 EDGED_MUTATIONS=3000 $(BIN)/python -m pytest -m slow --numprocesses=auto \
		tests/http/test_fuzz.py tests/sync/test_http_fuzz.py tests/replica/test_faults.py tests/replica/test_damage.py $(EVERY_STEP) $(ARGS)

mutation: $(VENV)/.has-dev ## 300 small changes to the core's code, each of which a test should notice: hours, at ease (ARGS="--resume")
	nice -n 19 $(BIN)/python -m tests.mutation.run $(ARGS)

soak: $(VENV)/.has-dev ## 10,000 virtual minutes of random faults, ten minutes of real ones (ARGS="--seed 2 --rounds 1")
	$(BIN)/python -m tests.soak.run $(ARGS)

cache-conformance: $(VENV)/.has-dev ## the proxy against the public suite http-cache-tests (npm)
	$(BIN)/python -m tests.proxy.conformance.run $(ARGS)

reference: $(VENV)/.has-dev ## docs/cli.md, config/edged.toml and the completions, from the commands themselves
	$(BIN)/python packaging/reference.py

# --- measurements and packages -------------------------------------------------------------------------------------

bench: $(VENV)/.has-dev ## every script in benchmarks/, one after the other
	@set -e; for script in benchmarks/*.py; do \
		case $$script in */__init__.py) continue ;; esac; \
		echo "== $$script"; $(BIN)/python "$$script" $(ARGS); \
	done

deb: $(VENV)/.has-cli ## a Debian package in dist/, for Debian 12
	packaging/build-deb.sh $(DIST)

clean: ## remove what the targets above made
	rm -rf $(VENV) $(OTHER) $(DIST) build htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
