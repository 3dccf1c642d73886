# make demo     a small environment of its own, then the page that judges and teaches this camera, on localhost
# make course   install, then run every notebook in the quick profile
# make test     install, then all tests
# make test-fast  what takes no browser, no notebook and no long training: between two edits
# make full     the figures and the released model (see README for the minutes)
# make study    the many trainings behind the ablation (resumable)
# make lab      JupyterLab in this environment
# make clean    remove runs and generated data, keep the environment

VENV   ?= .venv
PROFILE ?= quick
JOBS    ?= 2
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# The light install and what its page is started with: make demo SERVE="--https adhoc --teach camera.json"
DEMO   ?= .venv-demo
SERVE  ?= --teach camera.json
# The first Python from 3.11 on that can make a virtual environment.
PYTHON := $(shell for p in python3.11 python3; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)

.PHONY: course demo test test-fast full study lab check system clean distclean
.DELETE_ON_ERROR:

course: $(STAMP)
	$(BIN)/liveness run --profile $(PROFILE) --out runs/$(PROFILE)

demo: $(DEMO)/.installed
	$(DEMO)/bin/liveness serve $(SERVE)

# Files are dealt to JOBS processes (about 6 GB each), in the order of tests/conftest.py.
test: system $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Before the installation, whose check loads these libraries.
system:
	-scripts/install-system.sh

test-fast: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow and not browser"

full: $(STAMP)
	$(BIN)/liveness run --profile full --out runs/full

study: $(STAMP)
	$(BIN)/liveness train --study --profile study --out runs/full

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks

check: $(STAMP)
	$(BIN)/liveness check

$(STAMP): requirements.txt requirements-nodeps.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 with venv is needed (Debian: apt-get install python3.11-venv)."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar off -r requirements.txt
	$(BIN)/python -m pip install --no-deps -r requirements-nodeps.txt
	$(BIN)/python -m pip install --no-deps --editable .
	$(BIN)/liveness check
	touch $@

$(DEMO)/.installed: requirements.txt requirements-nodeps.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 with venv is needed (Debian: apt-get install python3.11-venv)."; exit 1; }
	test -x $(DEMO)/bin/python || $(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install --quiet --upgrade pip
	$(DEMO)/bin/python -m pip install --progress-bar off -c requirements.txt --editable ".[runtime]"
	$(DEMO)/bin/python -m pip install --no-deps -r requirements-nodeps.txt
	$(DEMO)/bin/liveness check --runtime
	touch $@

clean:
	rm -rf runs data/generated .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './$(DEMO)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(DEMO) *.egg-info
