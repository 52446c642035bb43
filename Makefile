# `make app` and `make test` need Python 3.11 or newer and nothing else: the set-up makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 7860

.PHONY: app test setup lint browser lock

app: setup
	$(BIN)/python app.py --host $(HOST) --port $(PORT)

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Dreamspace needs Python 3.11 or newer, this is " + sys.version.split()[0] + ". Set PYTHON=path/to/a/newer/python.")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock.txt
	touch $@

test: setup
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The exact versions that make, CI and the Dockerfile install, from the ranges in requirements*.txt.
lock:
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --requirement requirements.txt --requirement requirements-dev.txt
	$(VENV)-lock/bin/python -m pip freeze --exclude pip --exclude setuptools \
		| sed -E 's/^((nvidia-|cuda-|triton).*)$$/\1 ; sys_platform == "linux"/' > requirements.lock.txt
	rm -rf $(VENV)-lock
