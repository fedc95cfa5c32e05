# The two commands that matter: `make repro` and `make test`. Both install what they need first.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
# Put the environment's programs first, so that DVC's stages find its python.
export PATH := $(abspath $(BIN)):$(PATH)
# Where this is set, each stage would compile all of torch anew: seconds of every start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install repository wheel repro paper test compiled portable slow chaos torture mutants lint format docs summary compare ui clean

help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed ## Install everything into .venv, at the versions of constraints.txt

# Programs of an environment name its place. Where the repository was moved or copied with it, it is made anew: they
# would not start, or would run the code of the other place.
MOVED := $(filter-out $(realpath $(VENV)),$(shell cat $(VENV)/.installed 2>/dev/null))

.PHONY: moved
$(VENV)/.installed: pyproject.toml constraints.txt $(if $(MOVED),moved)
	$(PYTHON) -m venv $(if $(MOVED),--clear) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	cd $(VENV) && pwd -P >.installed

repository:
	@git rev-parse --quiet --verify HEAD >/dev/null 2>&1 || { echo "make: DVC works in a git repository with a first commit: \
	clone this one, or run git init && git add -A && git commit -m start" >&2; exit 2; }

# The runs of one invocation become one group in MLflow.
repro: export NETINV_PIPELINE_RUN ?= repro $(shell date +%Y-%m-%dT%H:%M:%S)
repro: repository install ## Run the pipeline; DATASETS=mnist,svhn writes other data sets into params.yaml
	python -m pipeline.check --datasets '$(DATASETS)'
ifdef DATASETS
	dvc exp run --set-param 'datasets=[$(DATASETS)]'
else
	dvc repro
endif
	@! [ -t 1 ] || echo "Next: make summary, and open report/index.html in a browser" >&2

# Each data set as an experiment of its own, side by side; the last one finds their stages in DVC's run cache. Audits
# are for the last: the settings may name only such as are among the data sets of an experiment.
PAPER ?= mnist,fashion_mnist,svhn,cifar10
JOBS ?= $(shell $(BIN)/python -c "import psutil as p; \
	print(max(1, min(p.cpu_count() // 2, p.virtual_memory().available // 2**32)))")
NOW := $(shell date +%Y%m%d-%H%M%S)
comma := ,

paper: repository install ## The paper's data sets in both variants, JOBS at once (two cores and 4 GiB for each)
	python -m pipeline.check --datasets '$(PAPER)'
	for name in $(subst $(comma), ,$(PAPER)); do \
		dvc exp run --queue --name $$name-$(NOW) --set-param "datasets=[$$name]" \
			--set-param 'audit.datasets=[]' || exit; done
	dvc exp run --run-all --jobs $(JOBS)
	dvc exp run --name paper-$(NOW) --set-param 'datasets=[$(PAPER)]'

# The tests of a file stay together, and the longest file begins (tests/conftest.py). One process more than cores, since
# several tests wait for a server or a cluster.
WORKERS = -n $(shell $(PYTHON) -c "import os; count = getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count())); \
	print(min(len(count(0)) + 1, 5))") --dist loadfile --no-loadscope-reorder

test: install ## Check style and types, then run the default tests
	@$(MAKE) --no-print-directory -j2 lint compiled
	python -m pytest $(WORKERS)

# A fresh installation has no bytecode yet: it is made once, while the types are checked, and not by each of the tests'
# processes at the same time. What cannot be imported is told by the tests.
compiled: install
	@python -m pytest --collect-only --quiet >/dev/null 2>&1 || true

slow: install ## Run the long tests as well
	python -m pytest $(WORKERS) -m 'slow or not slow'

portable: install ## Run the default tests as other processors would compute, in three rounds of other draws (an hour or more)
	python tests/portable.py $(WORKERS)

# The next wheel would have what lies in build/lib of the last.
wheel: ## Build dist/network_inversion-*.whl, which pip installs anywhere
	rm -rf build/lib build/bdist.* dist/network_inversion-*.whl
	$(PYTHON) -m venv build/pip  # Debian's python3 has no pip of its own
	build/pip/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .

chaos: install ## Kill workers, nodes and all else that a stage starts, let clock and server fail, and say what came of it (an hour)
	python benchmarks/chaos.py
	python benchmarks/faults.py

torture: repro ## Damage settings and inputs, fill the disk and kill stages at random for MINUTES, and say what came of it
	python benchmarks/fuzz.py --project . --settings 5000 --files 1000
	python benchmarks/torture.py --minutes $(or $(MINUTES),60)

mutants: install ## Put small faults into PACKAGES, one by one, and count those that the tests notice (hours)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,mutants]'
	python benchmarks/mutants.py $(PACKAGES)

lint: install ## Check style and types only
	ruff check .
	ruff format --check .
	MYPY_NUM_WORKERS=auto mypy

format: install ## Bring the code into the house style
	ruff check --fix .
	ruff format .

docs: install ## Build the documentation into build/docs
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,docs]'
	sphinx-build -W -q docs build/docs

summary: install ## Print the headline numbers of the data sets and variants of params.yaml
	folders=$$(python -m pipeline.check --evaluated) && netinv summary $${folders:-evaluation}

compare: install ## Print experiments beside each other; make compare EXPERIMENTS="gamma-up epsilon-up" names some
	python -m pipeline.compare $(EXPERIMENTS)

ui: export MLFLOW_DISABLE_TELEMETRY ?= true
ui: install ## Look at the runs, on http://127.0.0.1:5000
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

clean: ## Remove the environment and what the pipeline made; DVC's cache and MLflow's runs stay
	rm -rf $(VENV) data models generators evaluation interpretation metrics plots onnx audit cards report runs tune .stage
