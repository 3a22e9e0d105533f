# Every target installs what it needs; nothing has to be there but Python, make and a package index.
# Knobs: PYTHON, VENV, HOST/PORT via GLASSGATE_HOST, GLASSGATE_PORT, GLASSGATE_MODEL_PORT, GLASSGATE_THREADS, GLASSGATE_HOME.

PYTHON ?= python3
VENV   ?= .venv
BENCH  ?= .venv-bench
PIP     = -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help serve pull test test-services check format docs lock lessons \
        load bench-engine bench-gateway bench-ledger bench-retrieval bench-cache bench-rag \
        bench-training bench-emulated

help:  ## what can be made here
	@grep -E '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 18

# --- environments -------------------------------------------------------------

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Glassgate needs Python 3.11 or newer: apt-get install python3 python3-venv python3-pip, or make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "This Python has no venv: apt-get install python3-venv python3-pip"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: requirements/base.txt pyproject.toml | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) --require-hashes -r requirements/base.txt
	$(VENV)/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.serve
	$(VENV)/bin/python $(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.ops: requirements/ops.txt $(VENV)/.dev
	$(VENV)/bin/python $(PIP) --require-hashes -r requirements/ops.txt
	@touch $@

$(BENCH)/.ready: requirements/bench.txt
	@$(PYTHON) -m venv $(BENCH)
	@echo "installing the peers to compare with (llama.cpp compiles for about ten minutes)"
	$(BENCH)/bin/python $(PIP) -r requirements/bench.txt
	@touch $@

lock:  ## make the hashed locks anew (needs uv on the PATH); bench.txt is pinned by hand
	uv pip compile --universal --generate-hashes --no-header --no-emit-index-url --no-annotate \
	  --quiet --upgrade --extra dev pyproject.toml requirements/build.in -o requirements/dev.txt
	uv pip compile --universal --generate-hashes --no-header --no-emit-index-url --no-annotate \
	  --quiet --constraint requirements/dev.txt pyproject.toml requirements/build.in -o requirements/base.txt
	uv pip compile --universal --generate-hashes --no-header --no-emit-index-url --no-annotate --quiet \
	  --constraint requirements/dev.txt --extra redis --extra postgres pyproject.toml requirements/build.in \
	  -o requirements/production.txt
	uv pip compile --universal --generate-hashes --no-header --no-emit-index-url --no-annotate --quiet \
	  --constraint requirements/dev.txt --extra ray pyproject.toml requirements/ops.in -o requirements/ops.txt

# --- run ----------------------------------------------------------------------

serve: $(VENV)/.serve  ## gateway and model server on 127.0.0.1:8080 (pulls the models it lacks)
	@exec $(VENV)/bin/glassgate serve

pull: $(VENV)/.serve  ## the models, about 190 MB
	@$(VENV)/bin/glassgate pull smollm2 minilm

# --- prove --------------------------------------------------------------------

check: $(VENV)/.dev  ## format, lint, types, architecture
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/pytest tests/test_architecture.py

test: $(VENV)/.dev  ## the test suite: wheels only, no root
	$(VENV)/bin/pytest -m "not services"

test-services: $(VENV)/.dev $(VENV)/.ops  ## what needs Debian packages, root or minutes
	@.ci/services
	$(VENV)/bin/pytest -m services

format: $(VENV)/.dev  ## put the code in form
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

docs: $(VENV)/.dev  ## write docs/reference.md and README's map from the code
	$(VENV)/bin/python docs/make_reference.py
	$(VENV)/bin/python docs/make_map.py

lessons: $(VENV)/.serve pull  ## the course, lesson by lesson (CHAPTER=00_model, ANSWERS=1)
	@$(VENV)/bin/python -m lessons $(CHAPTER) $(if $(ANSWERS),--answers)

load: $(VENV)/.dev  ## a load test with report (SCENARIO=smoke, TARGET=URL of a server that runs)
	@$(VENV)/bin/python -m loadtests run $(or $(SCENARIO),smoke) $(if $(TARGET),--target $(TARGET)) $(ARGS)

# --- measure: each prints one JSON object as its last line ----------------------

bench-engine: $(VENV)/.dev $(BENCH)/.ready pull  ## the engine against llama.cpp and transformers
	@$(VENV)/bin/python tests/bench/engine.py

bench-gateway: $(VENV)/.dev  ## the gateway against a bare proxy (needs wrk: apt-get install wrk)
	@.ci/services
	@$(VENV)/bin/python -m loadtests.overhead $(ARGS)

bench-ledger: $(VENV)/.dev  ## journal, ledger and reports over 10^6 rows
	@$(VENV)/bin/python tests/bench/ledger.py

bench-retrieval: $(VENV)/.dev pull  ## nDCG and latency of search
	@OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m tests.bench.retrieval

bench-cache: $(VENV)/.dev pull  ## the answer cache: hits, false hits, time
	@OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m tests.bench.cache

bench-rag: $(VENV)/.dev pull  ## answers with and without retrieval, on the golden set
	@OPENBLAS_NUM_THREADS=1 $(VENV)/bin/python -m tests.bench.rag

bench-training: $(VENV)/.dev $(BENCH)/.ready pull  ## fine-tuning against PyTorch, the tiny network
	@$(VENV)/bin/python tests/bench/training.py

bench-emulated: $(VENV)/.dev  ## how many streams an emulated server carries on one core
	@$(VENV)/bin/python tests/bench/emulated.py
