# `make` lists the targets. Everything is set up on the way: a virtual environment in .venv, from requirements.lock.

VENV ?= .venv
IMAGE ?= offchainvm-worker
# Several processes, each with whole files of tests, which wait more than they compute; JOBS=0 for one.
JOBS ?= 3
PYTEST_ARGS ?=
PYTEST := pytest -n $(JOBS) --no-loadscope-reorder
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed
CODE := offchainvm celeryconfig.py docs tests benchmarks
LINTED := $(wildcard $(CODE))

.DEFAULT_GOAL := help
.PHONY: help venv install demo dev test test-unit test-integration test-acceptance check lint format types imports bench \
	builder-image image base-image docs lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## A virtual environment of the newest Python here (3.13 to 3.10; PYTHON=/path names one), with the locked packages
	@$(MAKE) --no-print-directory $(STAMP)

install: venv

$(STAMP): requirements.lock pyproject.toml
	@deploy/setup/make-venv $(VENV)
	@touch $@

demo: $(STAMP) ## One request, from the contract through sandbox and engine back to the contract
	@$(RUN)/offchainvm demo

dev: $(STAMP) ## The whole stack on this machine, kept running, with Flower
	@$(RUN)/offchainvm dev

test: $(STAMP) ## All tests: unit, integration, acceptance
	@$(RUN)/python -m $(PYTEST) tests $(PYTEST_ARGS)

test-unit: $(STAMP) ## Tests that need no service
	@$(RUN)/python -m $(PYTEST) tests/unit $(PYTEST_ARGS)

test-integration: $(STAMP) ## Tests of one room with its real services
	@$(RUN)/python -m $(PYTEST) tests/integration $(PYTEST_ARGS)

test-acceptance: $(STAMP) ## Tests of the whole way, with real processes that are killed
	@$(RUN)/python -m $(PYTEST) tests/acceptance $(PYTEST_ARGS)

check: lint types imports ## Everything that reads the code without running it

lint: $(STAMP) ## Style (ruff)
	@$(RUN)/ruff check $(LINTED)
	@$(RUN)/ruff format --check $(LINTED)

format: $(STAMP) ## Put the style right
	@$(RUN)/ruff check --fix $(LINTED)
	@$(RUN)/ruff format $(LINTED)

types: $(STAMP) ## Types (mypy, strict)
	@$(RUN)/mypy

imports: $(STAMP) ## Which room may know which (import-linter)
	@$(RUN)/lint-imports --no-logo

bench: $(STAMP) ## Jobs per second, latency, CPU per job: a table and a JSON file
	@$(RUN)/python -m benchmarks

builder-image: $(STAMP) ## The image that builds run in: from DOCKER_IMAGE, else by Debian bootstrap
	@$(RUN)/python -m offchainvm.compiler.image

base-image: $(STAMP) ## A base for the images below where no registry can be reached: Debian with Python, git and Valkey
	@$(RUN)/python deploy/images/base_image.py

image: $(STAMP) ## The worker's image, its packages fetched here because a build may have no network
	@VENV=$(abspath $(VENV)) deploy/images/worker-image $(IMAGE)

docs: $(STAMP) ## The pages that are written by programs
	@$(RUN)/python docs/settings_page.py
	@$(RUN)/python docs/metrics_page.py

# With Python 3.11: uv asks near-api-py's ed25519 for its metadata by building it, and it does not build from 3.12 on.
LOCK = UV_CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/.lock-tools/bin/uv pip compile --quiet --universal --python-version 3.10 \
	--python "$$(VERSIONS='3.11 3.10' deploy/setup/find-python)" --generate-hashes --no-annotate --no-emit-index-url pyproject.toml

lock: $(VENV)/.lock-tools ## requirements.lock anew, and the image's share of it, from pyproject.toml (needs a Python 3.11 or 3.10)
	@$(LOCK) --extra dev --output-file requirements.lock
	@$(LOCK) --extra dashboard --extra web --constraint requirements.lock --output-file deploy/images/requirements.lock
	@! grep -n '://' requirements.lock deploy/images/requirements.lock

$(VENV)/.lock-tools: | $(STAMP)
	@$(RUN)/python -m venv $@
	@$@/bin/python -m pip install --quiet --disable-pip-version-check uv

clean: ## Remove what these targets made here (not the images)
	@rm -rf $(VENV) .venvs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist build benchmarks/results
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
