# The usual commands. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
IMAGES ?=
VARIANT ?=
LANES ?=

.DEFAULT_GOAL := help
.PHONY: help demo images test test-fast test-cluster lint format render locks bench train-env clean

help: ## List these commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/user.done ## See a GPT learn Shakespeare on two nodes: in containers if Docker answers, else as processes
	@$(BIN)/python scripts/demo.py

images: $(VENV)/user.done ## Build all images, CPU and CUDA; IMAGES="pytorch" and VARIANT=cpu|cuda narrow it
	@$(BIN)/stackctl build $(IMAGES) $(if $(VARIANT),--variant $(VARIANT))

test: $(VENV)/dev.done ## Run all tests that can run here, in lanes; LANES="checks runs" names some
	@if [ -n "$$STACK_WHEELHOUSE" ]; then $(MAKE) --no-print-directory train-env; fi
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m tests.lanes $(LANES)

test-fast: $(VENV)/dev.done ## Run the tests that take seconds
	@$(BIN)/python -m pytest tests/unit

test-cluster: $(VENV)/dev.done ## Run the tests on Kubernetes: one of their own, built if need be, or STACK_TEST_KUBECONFIG's
	@$(BIN)/python -m tests.cluster.harness build
	@STACK_REQUIRE=$${STACK_REQUIRE:-cluster} $(BIN)/python -m pytest tests/cluster

lint: $(VENV)/dev.done ## Run the formatters, linters, type checker and the checks of generated files
	@BIN=$(BIN) scripts/lint

format: $(VENV)/dev.done ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

render: $(VENV)/user.done ## Write the generated files
	@$(BIN)/stackctl render && $(BIN)/python scripts/reference.py

locks: $(VENV)/dev.done ## Make the tool's own locks again
	@BIN=$(BIN) scripts/locks

bench: $(VENV)/dev.done ## Measure start-up, launcher, rebuilds, sizes, containers, data, training and the suite
	@$(BIN)/python -m bench

train-env: $(VENV)/dev.done ## Install torch and the trainers' packages, for runs without a container
	@$(BIN)/python scripts/train_env.py

clean: ## Remove what these commands made in this folder
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/python.done:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11; name another with PYTHON=…" >&2; exit 3; }
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/user.done: $(VENV)/python.done locks/user.txt pyproject.toml
	@echo "installing stackctl from locks/user.txt"
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet --require-hashes -r locks/user.txt
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.done: $(VENV)/user.done locks/dev.txt
	@echo "installing the tools of locks/dev.txt"
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet --require-hashes -r locks/dev.txt
	@touch $@
