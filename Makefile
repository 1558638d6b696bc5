# Two commands are all it takes on a fresh machine: `make demo` and `make test`. `make` alone lists all of them.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
TOOLS := .venv/tools
LOAD := import torchvision, analysis.report, mlflow.store.tracking.sqlalchemy_store, \
	ray.dashboard.agent, ray.dashboard.dashboard, sklearn.datasets, tune_jobs.cli, tune_jobs.driver, \
	tune_jobs.trial
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable

.PHONY: help demo test test-long test-all test-fast test-cluster lint docs bench clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY)  ## the main job on real data: train 16 networks, score them, write a report
	$(BIN)/geosweep run demo

# Tests keep the order of tests/conftest.py, which starts with those that take long.
PARALLEL := --dist loadgroup --no-loadscope-reorder --numprocesses

test: $(TOOLS)  ## what a change has to pass before you send it: every test that is not long
	$(BIN)/python -m pytest $(PARALLEL) 2 -m "not long and not cluster"

test-long: $(TOOLS)  ## the other tests, or those of MODULES="..."; they wait more than they compute
	$(BIN)/python -m pytest $(PARALLEL) 3 -m "long and not cluster" --durations=10 $(MODULES)

test-all: test test-long  ## all tests except test-cluster

test-fast: $(TOOLS)  ## tests for the edit loop: without Ray and without what takes over a second
	$(BIN)/python -m pytest $(PARALLEL) 2 -m "not ray and not slow and not long and not cluster"

# Both mostly wait for machines, so they run beside each other.
test-cluster: $(TOOLS)  ## a Ray cluster of three machines made of namespaces, and a Slurm; needs root
	$(BIN)/python -m pytest tests/test_three_hosts.py tests/test_slurm_cluster.py -m cluster -rs \
		--durations=0 --numprocesses 2 --dist loadfile

lint: $(TOOLS)  ## format, lint, types, and the documentation's links and docstrings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(MAKE) docs

# The build is strict: a broken link, a docstring that does not match its function, or a public name
# without one (ruff's D1) fails it. It needs no internet.
docs: $(TOOLS)  ## build the documentation; then open site/index.html
	$(BIN)/ruff check --select D100,D101,D102,D103,D104,D106 .
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(TOOLS)  ## takes half an hour; appends to benchmarks/RESULTS.md
	$(INSTALL) '.[bench]'
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.sweep
	$(BIN)/python -m benchmarks.transport
	$(BIN)/python -m benchmarks.curve

# uv takes torch and torchvision from one place, so that they match; a pair that does not
# fails at `import torchvision` only, so that is tried before the environment counts as ready.
# What a sweep loads is loaded once, which writes its bytecode, while the assignment's kernels
# compile: both spare Ray's processes from doing it. Bytecode of all packages would take longer.
# On a machine without a GPU, UV_TORCH_BACKEND=cpu saves the download of CUDA.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(INSTALL) .
	export PYTHONDONTWRITEBYTECODE=; $(BIN)/python -m scoring.assignment & kernels=$$!; \
		$(BIN)/python -c '$(LOAD)' || { kill $$kernels; exit 1; }; wait $$kernels
	touch $(READY)

$(TOOLS): $(READY)  ## what tests and documentation need, too
	$(INSTALL) '.[docs,test]'
	touch $(TOOLS)

clean:  ## delete .venv
	rm -rf .venv
