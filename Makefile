# One word for everything one does here; `make` alone lists the words.
# Every target makes the virtual environment it needs (Python >= 3.11 and venv are enough) and installs with pip.

VENV ?= .venv
BIN = $(VENV)/bin
REQUESTS ?= 20000
# One more than a machine of two cores has: many tests wait for other processes, or for time to pass.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test spec soak lint format types layers mutants bench docs clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1@\2/p' Makefile | awk -F@ '{ printf "  %-14s %s\n", $$1, $$2 }'

# A stamp per set of extras: made again when pyproject.toml changed.
$(VENV)/.with-%: pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh $(VENV) $*
	@touch $@

demo: $(VENV)/.with-proxy  ## the AssemblyScript filter on a real request: prints the added header
	@$(BIN)/python examples/add-header/demo.py

test: $(VENV)/.with-proxy,fast,dev  ## all tests that this machine has the programs for
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

spec: $(VENV)/.with-proxy,fast,dev  ## the official suite and our own scripts, as they are and through both round trips
	@$(BIN)/python spec-tests/report.py $(ARGS)

soak: $(VENV)/.with-proxy,fast,dev  ## REQUESTS=20000 requests on 200 connections: nothing lost, no memory leaked
	@$(BIN)/python tests/soak/soak.py --requests $(REQUESTS)

lint: $(VENV)/.with-proxy,fast,dev  ## style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(VENV)/.with-proxy,fast,dev  ## put the style right
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(VENV)/.with-proxy,fast,dev  ## mypy: strict for the packages, looser for tests and scripts
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file tests/mypy.ini -p tests
	@$(BIN)/mypy --config-file tests/mypy.ini --scripts-are-modules scripts/*.py spec-tests/*.py examples/*/*.py .ci/*.py

layers: $(VENV)/.with-proxy,fast,dev  ## imports go one way: pywasmvm <- abi <- pywasmproxy
	@$(BIN)/lint-imports

mutants: $(VENV)/.with-proxy,fast,dev  ## seeded faults in the validator and the numerics: all must be noticed
	@$(BIN)/python scripts/mutants.py

bench: $(VENV)/.with-proxy,fast,dev,oracle  ## speed beside pwasm, pywasm and wasmtime: kernels, filters, boundary, starts
	@$(BIN)/python -m benchmarks.run $(ARGS)

docs: $(VENV)/.with-proxy,fast,dev  ## check links and generated pages
	@$(BIN)/python scripts/check_links.py
	@$(BIN)/python scripts/instruction_reference.py --check
	@$(BIN)/python scripts/abi_reference.py --check
	@$(BIN)/python benchmarks/report.py --check

clean:  ## remove what can be made again, the environment included
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* dist build
	rm -rf tests/replay/.cache examples/.cache examples/*/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +
