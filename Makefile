# Thin names over short commands. `make help` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run up down test test-node check format golden bench soak images programs clean

UV_VERSION := 0.13.9
UV := .tools/venv/bin/uv
PYTHON := .venv/bin/python
# The machine's own Python is used; none is downloaded.
export UV_PYTHON_DOWNLOADS := never
# The certificates that the machine trusts, as pip and Go use them too.
export UV_SYSTEM_CERTS := 1
export UV_NO_PROGRESS := 1
export PYTHONDONTWRITEBYTECODE :=
# What a person's shell holds of another environment does not count here.
unexport VIRTUAL_ENV UV_PROJECT_ENVIRONMENT PYTHONPATH PYTHONHOME

# The environment's programs hold its folder's path, and its Python is the machine's: after a move, or when that Python is gone, it is
# made anew. The mark is read when make starts, which costs a millisecond.
MARK := .venv/.installed
ifneq ($(shell .venv/bin/python -c 'print("works")' 2>/dev/null; cat $(MARK) 2>/dev/null),works $(CURDIR))
STALE := stale
endif

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

$(UV): Makefile
	@echo "Installing uv $(UV_VERSION) into .tools (once)" >&2
	@python3 -m venv --clear .tools/venv
	@.tools/venv/bin/python -m pip --quiet --disable-pip-version-check install uv==$(UV_VERSION)
	@touch $(UV)

# One environment with everything, exactly as uv.lock says.
.PHONY: stale
stale:
	@rm -rf .venv

$(MARK): $(UV) pyproject.toml uv.lock $(STALE)
	@$(UV) sync --quiet --locked --all-extras
	@printf '%s\n' "$(CURDIR)" >$@

run: $(MARK) ## see a manifest become a token and a decision (ONCE=1: end afterwards; YES=1: answer yes)
	@$(PYTHON) -m keyturn_dev.run run

up: $(MARK) ## the same in the background
	@$(PYTHON) -m keyturn_dev.run up

down: $(MARK) ## end what `make up` or an interrupted `make run` left running
	@$(PYTHON) -m keyturn_dev.run down

# Modules of tests are spread over so many processes, each with servers of its own. N=0: one after the other in a single one.
N := 2
SPREAD = -n $(N) --dist loadfile --no-loadscope-reorder

test: $(MARK) ## all tests but the node's, with coverage (T=unit, T=gateways …: only those below tests/)
	@$(PYTHON) -m pytest $(SPREAD) $(if $(T),tests/$(T),tests --ignore=tests/node --cov)

test-node: $(MARK) ## the charts on a real node with real pods (root)
	@$(PYTHON) -m pytest tests/node

check: $(MARK) ## what must hold before a commit: format, lint, types, layers, lock file
	@$(UV) lock --check --quiet
	@$(PYTHON) -m ruff format --check --quiet .
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m mypy
	@$(PYTHON) -c 'import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())'

format: $(MARK) ## let ruff format and mend what it can
	@$(PYTHON) -m ruff format --quiet .
	@$(PYTHON) -m ruff check --quiet --fix .

golden: $(MARK) ## write the golden files anew; look at the difference before you commit it
	@UPDATE_GOLDEN=1 $(PYTHON) -m pytest --no-cov -q tests/unit

bench: $(MARK) ## measure tokens, tokeninfo and the gateway check on loopback
	@$(PYTHON) -m keyturn_dev.bench

soak: $(MARK) ## what takes hours: many clients, many changes, rest, a silent network (PARTS="scale idle": only those)
	@$(PYTHON) -m keyturn_dev.soak $(if $(WRITE),--write) $(PARTS)

images: $(MARK) ## build both container images, and say in dist/ what they hold (CycloneDX)
	@$(PYTHON) -m keyturn_dev.images $(if $(BASE),--base $(BASE))

programs: $(MARK) ## build or fetch every program that the tests run beside ours (minutes, once)
	@$(PYTHON) -m keyturn_dev.programs

clean: ## remove what was made here (the cluster's programs stay in the user's cache)
	@rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
