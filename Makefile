# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test browser check dev bench clean
help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.installed ## train a whole front on this machine, and look at it
	$(BIN)/moalign demo

test: $(VENV)/.test browser ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --doctest-modules --jaxtyping-packages=moalign,beartype.beartype \
		tests moalign objectives frontiers dashboards

# The explorer's tests look at it through a Chromium: that of the machine, else Playwright's, else they are skipped.
browser: $(VENV)/.test
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
	limit=$$(command -v timeout > /dev/null && echo timeout -k 5 300); \
	$$limit $(BIN)/playwright install chromium > /dev/null 2>&1 \
		|| echo 'no Chromium could be had: the tests that look at pages are skipped'

check: $(VENV)/.dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/types  # the types are checked as installed, where all folders stand inside the package
	$(BIN)/pip install --quiet --no-deps --target build/types .
	$(BIN)/pyright build/types/moalign

dev: $(VENV)/.dev ## everything a contributor needs, with the commit hooks
	$(BIN)/pre-commit install

bench: $(VENV)/.bench ## the benchmarks; each prints ratios of one run
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

clean: ## what the targets above made, but for runs/
	rm -rf $(VENV) build *.egg-info

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'moalign needs Python 3.11 or newer: make PYTHON=...'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.%: $(VENV)/.installed
	$(BIN)/pip install --quiet -c constraints.txt -e '.[$*]'
	@touch $@
