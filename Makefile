# Two commands matter: `make report` and `make test`. Both set up .venv first, if it is not there.
# Needed: Python 3.11 or newer and a package index. PROFILE=smoke|demo|paper|full chooses the size.

VENV   := .venv
PYTHON := $(VENV)/bin/python
READY  := $(VENV)/.ready
PIPS   := --require-hashes -r utils/constraints.txt
NBVAL  := --nbval-lax --nbval-current-env --nbval-cell-timeout=300

unexport MPLBACKEND # the kernels choose their own: the inline one

.DEFAULT_GOAL := help
.PHONY: help report test lab app bench gpu notebooks lock audit test-oldest clean

help: ## print this list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 14

report: $(READY) ## run the whole course and write figures/<profile>/report.html (goes on where it stopped)
	@$(PYTHON) -m utils.report run $(if $(PROFILE),--profile $(PROFILE))

test: $(READY) ## ruff, unit tests, every notebook with the smoke profile
	@lint=0; \
	$(PYTHON) -m ruff check --quiet utils || lint=1; \
	$(PYTHON) -m ruff format --check utils || lint=1; \
	tests=0; \
	env -u XTL_DATA XTL_PROFILE=smoke OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist loadfile utils/tests || tests=1; \
	env -u XTL_DATA XTL_PROFILE=smoke $(PYTHON) -m pytest $(NBVAL) notebooks || tests=$$(( tests + 1 )); \
	if [ $$lint -ne 0 ]; then echo "ruff: FAILED, see the top of this output (python -m ruff format utils mends the layout)"; fi; \
	exit $$(( tests + lint ))

lab: $(READY) ## open the notebooks in JupyterLab
	@$(if $(PROFILE),XTL_PROFILE=$(PROFILE)) $(PYTHON) -m jupyterlab notebooks --ServerApp.tornado_settings='{"websocket_max_message_size": 268435456}' # uploads above 10 MB

app: $(READY) ## serve the explorer without code, on this machine only
	@$(if $(PROFILE),XTL_PROFILE=$(PROFILE)) $(PYTHON) -m utils.explorer

bench: $(READY) ## measure the speed beside the usual way; writes figures/bench.json (DEVICE=cuda: on a GPU)
	@$(PYTHON) -m utils.bench $(if $(DEVICE),--device $(DEVICE))

gpu: $(READY) ## measure the paper recipe and the explanations on a GPU; writes figures/gpu.json
	@$(PYTHON) -m utils.bench gpu

notebooks: $(READY) ## execute the notebooks in place, ready to commit (PROFILE, else demo)
	@$(PYTHON) -m utils.report notebooks --profile $(or $(PROFILE),demo)

lock: $(READY) ## pin newer versions in utils/constraints.txt, with hashes, for all systems
	@$(PYTHON) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-emit-index-url --custom-compile-command "make lock" \
	  utils/requirements.txt utils/tests/requirements.txt -o utils/constraints.txt

audit: $(READY) ## known vulnerabilities of the pinned packages (asks the internet)
	@if $(PYTHON) -c "import numpy, urllib.request as u; u.urlopen(f'https://pypi.org/pypi/numpy/{numpy.__version__}/json', timeout=10)" 2>/dev/null; then \
	  $(PYTHON) -m pip_audit --disable-pip --require-hashes -r utils/constraints.txt; \
	else echo "audit: the advisory data cannot be reached from here, so nothing was checked"; fi

test-oldest: $(READY) ## unit tests with the oldest allowed versions, in .venv-oldest
	@$(PYTHON) -m uv venv --quiet --allow-existing --python $(PYTHON) .venv-oldest
	@$(PYTHON) -m uv pip install --quiet --python .venv-oldest --resolution lowest-direct \
	  -r utils/requirements.txt -r utils/tests/requirements.txt
	@env -u XTL_DATA XTL_PROFILE=smoke OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n auto --dist loadfile utils/tests --ignore utils/tests/test_notebooks.py

clean: ## remove caches, executed copies and smoke output; keep .venv, data and trained models
	@rm -rf runs/smoke runs/*/executed figures/smoke .pytest_cache .ruff_cache
	@find utils notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# The tested versions, checked against their hashes, in a fresh .venv: with uv where it can be had, else with pip.
$(READY): utils/constraints.txt
	@base=; for p in $${BASE:-python3 python3.12 python3.11 python3.13}; do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then base=$$p; break; fi; done; \
	if [ -z "$$base" ]; then \
	  echo "This course needs Python 3.11 or newer: install it, or name it as in 'make BASE=/path/to/python3.12 $(or $(MAKECMDGOALS),report)'."; exit 1; fi; \
	uv=; if uv --version >/dev/null 2>&1; then uv=uv; fi; \
	if [ ! -x $(PYTHON) ]; then \
	  echo "setting up $(VENV) (once; a few minutes on a fast line)"; \
	  if [ -n "$$uv" ]; then uv venv --quiet --python "$$($$base -c 'import sys; print(sys.executable)')" $(VENV); \
	  else $$base -m venv $(VENV) || { echo "$$base cannot make a virtual environment: install its venv package (Debian: python3-venv)."; exit 1; }; fi; \
	fi; \
	if [ -z "$$uv" ] && $(PYTHON) -m pip install --quiet --disable-pip-version-check uv 2>/dev/null; then uv="$(PYTHON) -m uv"; fi; \
	if [ -n "$$uv" ]; then $$uv pip install --quiet --python $(PYTHON) $(PIPS); \
	else $(PYTHON) -m pip install --quiet --disable-pip-version-check $(PIPS); fi
	@touch $@
