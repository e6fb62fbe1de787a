# The whole course from two commands. Each target brings up .venv by itself.
#
#     make book       run every chapter and build the site
#     make test       run every test, every notebook and every check
#     make lab        open JupyterLab on the labs
#     make app        open the app: type text, browse features, steer
#     make bench      measure what is promised about speed and memory
#     make pictures   take the README's pictures and example outputs from the built site
#     make pages      the site in _build/pages, for any host of plain files
#     make cold       build the site from nothing, whatever was built before
#     make newest     try the course with the newest versions of what it uses, in an environment of its own
#     make workflows  check what GitHub Actions is told to do
#
# Without make: README.md gives the same steps for pip and venv.

VENV := .venv
PY   := $(VENV)/bin/python

# The environment is as good as what it was made from, and where it stands: change the pins or move the folder, and
# the next command installs again.
KEY   := $(shell { cat requirements.txt constraints.txt pyproject.toml; pwd; } | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(KEY)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A kernel called "python3" in the user's home must not run our notebooks: the one in .venv does.
export JUPYTER_PREFER_ENV_PATH := 1

.PHONY: help book test lab app bench pictures pages cold newest workflows clean
help:
	@sed -n 's/^#     make/make/p' Makefile

book: $(STAMP)
	@$(PY) book/build.py

test: $(STAMP)
	@$(PY) tests/run.py

lab: $(STAMP)
	@$(PY) -m jupyterlab labs --config=labs/jupyter_lab.json

app: $(STAMP)
	@$(PY) -m solutions.command app

bench: $(STAMP)
	@$(PY) -m tests.benchmarks

pictures: $(STAMP)
	@$(PY) tests/readme.py
	@$(PY) tests/pictures.py

pages: $(STAMP)
	@$(PY) book/build.py --pages

cold: $(STAMP)
	@$(PY) book/build.py --cold

newest: $(STAMP)
	@$(PY) tests/newest.py

workflows: $(STAMP)
	@$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(VENV)/bin/zizmor --offline --persona pedantic --no-progress .github/workflows

clean:
	rm -rf _build

$(STAMP): requirements.txt constraints.txt pyproject.toml
	@$(VENV)/bin/python -c "" 2>/dev/null || { \
	    for python in $$PYTHON python3.11 python3.12 python3.13 python3 python; do \
	        $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	    done; \
	    test -n "$$python" || { echo "No Python 3.11 or newer found. Install one, or name it: make PYTHON=/path/to/python book" >&2; exit 1; }; \
	    echo "Making .venv with $$($$python --version)"; \
	    $$python -m venv --clear $(VENV) || { echo "This Python lacks venv. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	}
	@echo "Installing what requirements.txt lists (the first time: a few minutes, about 2 GB)"
	@$(PY) -m pip install --quiet -r requirements.txt -c constraints.txt
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@
