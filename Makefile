# Two commands matter: `make report` and `make test`. Both set up .venv first, if it is not there.
# Needed: Python 3.11 or newer and a package index. PROFILE=smoke|demo|paper|full chooses the size.
# Without make (Windows): python -m utils.course report | test | lab | app | ...

# the first Python that is new enough; BASE=/path/to/python chooses by hand
BASE   ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
COURSE := $(or $(BASE),python3) -m utils.course
PYTHON := .venv/bin/python
SIZE   := $(if $(PROFILE),--profile $(PROFILE))

.DEFAULT_GOAL := help
.PHONY: help setup report quick test lab app bench gpu notebooks address lock audit audit-model test-oldest clean

help: ## print this list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## make .venv with the tested versions, or mend it
	@$(COURSE) setup

report: ## run the whole course and write figures/<profile>/report.html (goes on where it stopped)
	@$(COURSE) report $(SIZE)

quick: ## a report page with the first maps in a few minutes
	@$(COURSE) quick

test: ## ruff, mypy, unit tests, every notebook with the smoke profile
	@$(COURSE) test

lab: ## open the notebooks in JupyterLab
	@$(COURSE) lab $(SIZE)

app: ## serve the explorer without code, on this machine only
	@$(COURSE) app $(SIZE)

bench: ## measure the speed beside the usual way; writes figures/bench.json (DEVICE=cuda: on a GPU)
	@$(COURSE) bench $(if $(DEVICE),--device $(DEVICE))

gpu: ## measure the paper recipe and the explanations on a GPU; writes figures/gpu.json
	@$(COURSE) gpu

notebooks: ## execute the notebooks in place, ready to commit (PROFILE, else demo)
	@$(COURSE) notebooks $(SIZE)

address: ## write the public address into badges, set-up cells and README (REPO=name/project; none: remove it)
	@$(COURSE) address $(REPO)

lock: ## resolve utils/constraints.txt again, with hashes, for all systems (UPGRADE=1: newer versions)
	@$(COURSE) setup
	@$(PYTHON) -m uv pip compile --quiet $(if $(UPGRADE),--upgrade) --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" \
	  utils/requirements.txt utils/tests/requirements.txt -o utils/constraints.txt

audit-model: ## which explanation to believe for your own model (MODEL=resnet50 IMAGES=folder:PATH)
	@$(COURSE) setup
	@$(PYTHON) -m utils.audit --model "$(MODEL)" --images "$(IMAGES)"

audit: ## known vulnerabilities of the pinned packages (asks the internet)
	@$(COURSE) setup
	@if $(PYTHON) -c "import numpy, urllib.request as u; u.urlopen(f'https://pypi.org/pypi/numpy/{numpy.__version__}/json', timeout=10)" 2>/dev/null; then \
	  $(PYTHON) -m pip_audit --disable-pip --require-hashes -r utils/constraints.txt; \
	else echo "audit: the advisory data cannot be reached from here, so nothing was checked"; fi

test-oldest: ## unit tests with the oldest allowed versions, in .venv-oldest
	@$(COURSE) setup
	@$(PYTHON) -m uv venv --quiet --allow-existing --python $(PYTHON) .venv-oldest
	@$(PYTHON) -m uv pip install --quiet --python .venv-oldest --resolution lowest-direct \
	  -r utils/requirements.txt -r utils/tests/requirements.txt
	@env -u XTL_DATA XTL_PROFILE=smoke OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n auto --dist loadfile utils/tests --ignore utils/tests/report/test_notebooks.py

clean: ## remove caches, executed copies and smoke output; keep .venv, data and trained models
	@rm -rf runs/smoke runs/*/executed runs/locks figures/smoke build .pytest_cache .ruff_cache .mypy_cache
	@find utils notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
