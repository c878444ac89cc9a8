# `make demo` and `make test` install everything into .venv once; they need Python 3.11 or 3.12 and a package index.
# PYTHON=... chooses the interpreter, JOBS=... the number of test processes. Three keep two cores busy, because tests wait
# for browsers and for processes that they start.
#
# uv installs the packages because it is several times faster than pip; it uses pip's index if one is configured.
# If uv fails, pip installs the same lock file: the same versions with the same hashes.

SHELL := /bin/sh
JOBS ?= 3
# Consecutive tests go to one process, so that a fixture of a file is made once rather than in each process.
PYTEST := .venv/bin/pytest -n $(JOBS) --dist worksteal
DEMO_ADAPTERS ?= identity resize.2 jpeg.q10 jpeg.q50 jpeg.q90 webp.q50 avif.q50 toy.p8

# `python3.12` may be on the path without being usable (pyenv), so every candidate is tried. Creating an environment
# needs the module `ensurepip`, which Debian moves from python3 to python3-venv, or pip.
RUNS_HERE = import sys; from importlib.util import find_spec as has; \
	sys.exit(not (sys.version_info[:2] in ((3, 11), (3, 12)) and has("venv") and (has("ensurepip") or has("pip"))))
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	if $$p -c '$(RUNS_HERE)' 2>/dev/null; then echo $$p; break; fi; done)

# pip before 24.2 knows PIP_CERT but not SSL_CERT_FILE, which uv and OpenSSL read.
ifdef SSL_CERT_FILE
export PIP_CERT ?= $(SSL_CERT_FILE)
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# uv installs packages without bytecode. If Python may not write it either, every process compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-fast lint docs venv lock clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: venv  ## install, evaluate codecs and the toy adapter on the embedded images, print the table; results in out/
	.venv/bin/tokbench eval $(DEMO_ADAPTERS) --data samples --out out >/dev/null
	.venv/bin/tokbench leaderboard --out out

# One thread per test process, because several processes with several threads each slow each other down.
test: venv .venv/.browser  ## install, run the tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PYTEST)

test-fast: venv  ## run the tests that are not marked as slow, for daily work
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PYTEST) -m "not slow"

lint: venv  ## check style (ruff), layers (import-linter), types (mypy) and the size of the committed weights
	.venv/bin/ruff check
	.venv/bin/python -m tokbench.weights.committed
	.venv/bin/lint-imports
	.venv/bin/mypy --num-workers $(JOBS)

docs: venv  ## build the documentation site in site/docs
	.venv/bin/mkdocs build --strict

venv: .venv/.installed  ## install into .venv

# The report is tested in a browser if one is installed or Playwright can download one.
.venv/.browser: .venv/.installed
	@command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 || \
	timeout 300 .venv/bin/playwright install chromium >/dev/null 2>&1 || \
	echo "no browser is installed and none could be downloaded: browser tests of the report are skipped"
	@touch $@

# Editable, so that the checkout is what runs. The build backend comes from the lock file, so build isolation is off.
.venv/.installed: .venv/.locked pyproject.toml
	@PYTHONWARNINGS=ignore .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Each change of the lock files creates a new environment, because an interrupted installation cannot be distinguished
# from a complete one; --clear also removes the stamps.
.venv/.locked: requirements/bootstrap.txt requirements/lock-py311.txt requirements/lock-py312.txt
	@test -n '$(PYTHON)' || { \
	echo 'tokbench: found no usable Python 3.11 or 3.12 (tried python3.12, python3.11, python3).' >&2; \
	echo 'Install one with its venv module (Debian, Ubuntu: apt install python3 python3-venv),' >&2; \
	echo 'or select one: make PYTHON=/path/to/python3.12' >&2; exit 1; }
	@$(PYTHON) -c '$(RUNS_HERE)' || { \
	echo 'tokbench: $(PYTHON) is not a Python 3.11 or 3.12 with its venv module.' >&2; exit 1; }
	@echo "installing into .venv with $$($(PYTHON) -V): about 6 GB, most of it torch"
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then \
	$(PYTHON) -m venv --clear .venv && \
	.venv/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements/bootstrap.txt; \
	else \
	$(PYTHON) -m venv --clear --without-pip .venv && \
	$(PYTHON) -m pip --python .venv/bin/python install --quiet --require-hashes --no-deps -r requirements/bootstrap.txt; \
	fi
	@lock=requirements/lock-py$$(.venv/bin/python -c 'import sys; print("%d%d" % sys.version_info[:2])').txt; \
	index=$${UV_DEFAULT_INDEX:-$${UV_INDEX_URL:-$${PIP_INDEX_URL:-$$(.venv/bin/python -m pip config get global.index-url 2>/dev/null)}}}; \
	if test -n "$$index"; then export UV_DEFAULT_INDEX="$$index"; fi; \
	.venv/bin/uv pip install --python .venv/bin/python --require-hashes --no-deps -r $$lock || { \
	echo 'tokbench: uv could not install the lock file; trying pip' >&2; \
	.venv/bin/python -m pip install --require-hashes --no-deps -r $$lock; }
	@touch $@

# There is one lock file per Python version, because numpy and PyAV drop support for 3.11 before the other packages.
# --universal writes the markers of all platforms and --only-binary selects only versions with wheels, so the two files
# work on Linux (x86_64 and aarch64) and macOS (arm64). They contain versions and hashes but no URLs, so any index works.
# Pins that still satisfy pyproject.toml are kept; `make lock UPGRADE=--upgrade` updates all of them.
COMPILE = .venv/bin/uv pip compile --quiet --universal --fork-strategy fewest --only-binary :all: \
	--generate-hashes --no-annotate --no-header $(UPGRADE)
lock: .venv/.locked  ## rewrite the lock files in requirements/ (maintainers)
	$(COMPILE) --python-version 3.11 -o requirements/bootstrap.txt requirements/bootstrap.in
	$(COMPILE) --python-version 3.11 --extra all --no-emit-package opencv-python \
	-c requirements/bootstrap.txt -o requirements/lock-py311.txt pyproject.toml
	$(COMPILE) --python-version 3.12 --extra all --no-emit-package opencv-python \
	-c requirements/bootstrap.txt -o requirements/lock-py312.txt pyproject.toml

clean:  ## remove generated files, except .venv
	rm -rf out site/docs build dist tokbench.egg-info .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find tokbench adapters datasets tests -name __pycache__ -type d -prune -exec rm -rf {} +
