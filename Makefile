# Everything runs in .venv, which every target makes when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OPTIONAL := .venv-optional

.PHONY: help install demo study wheel resolve test test-thorough test-optional test-fast test-all check docs pictures format clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("bigchem needs Python 3.11 or newer: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/bigchem doctor --runs .
	touch $@

install: $(STAMP)  ## Make .venv with all that is needed

demo: $(STAMP)  ## The whole path on the embedded corpus: twelve runs and a report, 3 to 8 minutes
	$(BIN)/bigchem demo --out demo

study: $(STAMP)  ## The numbers and figures of docs/study.md, from the committed results
	$(BIN)/python tests/test_study.py

wheel: $(STAMP)  ## The wheel and the source archive, in dist/
	$(BIN)/python -m hatchling build

# What a package index has is asked for; nothing is installed.
PYTHONS := 3.11 3.12 3.13
EXTRAS := bertscore cuda docs fcd mlflow names selfies serve wandb
resolve: $(STAMP)  ## Whether every extra can be had for each Python, in the newest and the oldest versions that we allow
	$(BIN)/pip install -q uv
	for python in $(PYTHONS); do for resolution in highest lowest-direct; do \
		echo "Python $$python, $$resolution"; \
		$(BIN)/uv pip compile -q pyproject.toml $(addprefix --extra ,$(EXTRAS)) --python-version $$python --resolution $$resolution \
			-o $(VENV)/resolved-$$python-$$resolution.txt || exit 1; \
	done; done

# A file stays with one worker, so that its tests share their fixtures; a third worker fills the others' waits.
test: $(STAMP)  ## One test of each kind: all but the thorough and the slow ones
	$(BIN)/python -m pytest -m 'not slow and not thorough' -n 3 --dist loadfile --no-loadscope-reorder

test-thorough: $(STAMP)  ## The thorough tests: further cases of what `make test` proves
	$(BIN)/python -m pytest -m 'thorough and not slow' -n 3 --dist loadfile --no-loadscope-reorder

# gradio needs Pillow below 13, where constraints.txt has 13: an environment of its own, over .venv.
$(OPTIONAL)/.installed: $(STAMP)
	$(BIN)/python -m venv --without-pip --clear $(OPTIONAL)
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> $$($(OPTIONAL)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/over.pth
	$(OPTIONAL)/bin/python -m pip install -q gradio==6.31.0 pillow==12.3.0 wandb==0.31.0 mlflow-skinny==3.17.2
	touch $@

test-optional: $(OPTIONAL)/.installed  ## Tests with gradio, wandb and mlflow: the page of `bigchem serve`, the trackers
	$(OPTIONAL)/bin/python -m pytest -m slow tests/evaluate/serve
	$(OPTIONAL)/bin/python -m pytest tests/train/logging/test_services.py

test-fast: $(STAMP)  ## The tests that start no processes, for the inner loop: about a minute
	$(BIN)/python -m pytest -m 'not slow and not thorough and not heavy' -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(STAMP)  ## All tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(STAMP)  ## Lint, format, types
	$(BIN)/hadolint slurm/environments/Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Reads the source without importing it: an environment of its own needs neither torch nor the rest.
DOCS := .venv-docs
$(DOCS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > $(DOCS)/docs.txt
	$(DOCS)/bin/pip install -q -r $(DOCS)/docs.txt
	touch $@

docs: $(DOCS)/.installed  ## The documentation as a site, in site/
	$(DOCS)/bin/mkdocs build --strict -q

pictures: $(OPTIONAL)/.installed  ## The pictures in the documentation, of the last `make demo`; needs chromium
	$(BIN)/python docs/site/pictures.py demo/report/report.html docs/demo-report.png 1820
	$(BIN)/bigchem show demo/runs/demo/1m-together-s0 --out demo/run.html
	$(BIN)/python docs/site/pictures.py demo/run.html docs/run-page.png 1400
	$(OPTIONAL)/bin/python docs/site/pictures.py demo/runs/demo/1m-together-s0 docs/serve.png 840

format: $(STAMP)  ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the environments, the demo and the site
	rm -rf $(VENV) $(DOCS) $(OPTIONAL) demo site
