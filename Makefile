# The two commands that matter: `make repro` and `make test`. Both install what they need first.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
# Put the environment's programs first, so that DVC's stages find its python.
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help install repro test slow lint format docs ui clean

help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed ## Install everything into .venv, at the versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

# The runs of one invocation become one group in MLflow.
repro: export NETINV_PIPELINE_RUN ?= repro $(shell date +%Y-%m-%dT%H:%M:%S)
repro: install ## Run the pipeline; make repro DATASETS=mnist,svhn names other data sets than params.yaml
ifdef DATASETS
	dvc exp run --set-param 'datasets=[$(DATASETS)]'
else
	dvc repro
endif

test: install lint ## Check style and types, then run the default tests
	python -m pytest

slow: install ## Run the long tests as well
	python -m pytest -m 'slow or not slow'

lint: install ## Check style and types only
	ruff check .
	ruff format --check .
	mypy

format: install ## Bring the code into the house style
	ruff check --fix .
	ruff format .

docs: install ## Build the documentation into build/docs
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,docs]'
	sphinx-build -W -q docs build/docs

ui: install ## Look at the runs, on http://127.0.0.1:5000
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

clean: ## Remove the environment and what the pipeline made, DVC's cache apart
	rm -rf $(VENV) data models generators evaluation metrics plots onnx report runs .stage
