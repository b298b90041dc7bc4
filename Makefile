PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --require-virtualenv install --quiet --disable-pip-version-check

# What is given to make, or stands in the environment, wins over the file .env.
SETTINGS = given=$$(export -p); if [ -f .env ]; then set -a; . ./.env; set +a; fi; eval "$$given"; export SEED="$${SEED-demo}"

# Only one target at a time sets up. The lock is a link to the number of the process that
# holds it: a process that no longer runs has been broken off, and its lock is void.
LOCK = until ln -s $$$$ .venv.lock 2>/dev/null; do \
	holder=$$(readlink .venv.lock) && ! kill -0 "$$holder" 2>/dev/null && rm -f .venv.lock; sleep 1; done; \
	trap 'rm -f .venv.lock' EXIT; trap 'exit 1' HUP INT TERM

.DEFAULT_GOAL := help
.PHONY: help run debug test lint clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##/\1:/p' $(MAKEFILE_LIST) | while IFS=: read -r name text; do printf '%-8s%s\n' "$$name" "$$text"; done

run: .venv/ready  ## start the service, with demo data unless SEED says otherwise
	@$(SETTINGS); exec $(BIN)/python inventory.py

debug: .venv/ready  ## the same with Flask's reloader and debugger, for changing the code
	@$(SETTINGS); exec $(BIN)/python -m flask --app inventory run --debug --host 127.0.0.1 --port "$${PORT:-5000}"

test: .venv/ready  ## run the tests
	@$(BIN)/python -m pytest --quiet

lint: .venv/lint  ## check style and types
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check --quiet .
	@$(BIN)/python -m mypy --strict inventory.py store.py

clean:  ## remove what the other targets have made
	rm -rf .venv .venv.lock __pycache__ .mypy_cache .pytest_cache .ruff_cache

# Each of these files is written last, so that a set-up that failed is tried again.
# What is left of one is removed by rm, and not by venv --clear: if .venv is a link, that
# would empty the folder behind it.
.venv/ready: requirements.txt
	@$(LOCK); \
	if ! cmp -s requirements.txt $@; then \
		$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")' && \
		rm -rf .venv && $(PYTHON) -m venv .venv && \
		$(PIP) --requirement requirements.txt && \
		cp requirements.txt $@ || exit 1; \
	fi; \
	touch $@

.venv/lint: .venv/ready
	@$(LOCK); \
	$(PIP) ruff==0.17.6 mypy==2.4.1 && touch $@
