PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The environment wins over .env, and what is given to make is in the environment.
SETTINGS = given=$$(export -p); if [ -f .env ]; then set -a; . ./.env; set +a; fi; eval "$$given"; export SEED="$${SEED-demo}"

.DEFAULT_GOAL := help
.PHONY: help run serve test lint clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##/\1:/p' $(MAKEFILE_LIST) | while IFS=: read -r name text; do printf '%-8s%s\n' "$$name" "$$text"; done

run: .venv/ready  ## start the service, with demo data unless SEED says otherwise
	@$(SETTINGS); exec $(BIN)/python inventory.py

serve: .venv/serve  ## the same under granian, for load: one process, as its data is in memory
	@$(SETTINGS); exec $(BIN)/granian --interface wsgi --host "$${HOST:-127.0.0.1}" --port "$${PORT:-5000}" \
		--workers 1 --blocking-threads 32 inventory:app

test: .venv/ready  ## run the tests
	@$(BIN)/python -m pytest --quiet

lint: .venv/lint  ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict inventory.py store.py

clean:  ## remove what the other targets have made
	rm -rf .venv __pycache__ .mypy_cache .pytest_cache .ruff_cache

# Each stamp is made last, so that an installation that failed is tried again.
.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) --requirement requirements.txt
	@touch $@

.venv/serve: .venv/ready
	@$(PIP) granian==2.8.7
	@touch $@

.venv/lint: .venv/ready
	@$(PIP) ruff==0.17.6 mypy==2.4.1
	@touch $@
