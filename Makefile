PYTHON ?= python3
BIN := .venv/bin
TOOLS := ./.venv/lint
# Into .venv, also where the environment tells pip of another place.
PIP := PIP_USER=0 PIP_TARGET= PIP_PREFIX= $(BIN)/python -m pip --require-virtualenv \
	install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run debug test lint clean .venv .venv/lint

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##/\1:/p' $(MAKEFILE_LIST) | while IFS=: read -r name text; do printf '%-8s%s\n' "$$name" "$$text"; done

run: .venv  ## start the service, with demo data unless SEED says otherwise
	@$(SETTINGS); exec $(BIN)/python -m inventory

# A PORT that is no number is left to inventory.py, whose error says more than Flask's. What is
# in .env has been read, so Flask need not ask for python-dotenv.
debug: .venv  ## the same with Flask's reloader and debugger, for changing the code
	@$(SETTINGS); \
	case "$${PORT:=5000}" in *[!0-9]*) port=0 ;; *) port="$$PORT" ;; esac; \
	export FLASK_SKIP_DOTENV=1; \
	exec $(BIN)/python -m flask --app inventory run --debug --host 127.0.0.1 --port "$$port"

test: .venv  ## run the tests
	@$(BIN)/python -m pytest --quiet

lint: .venv/lint  ## check style and types
	@PYTHONPATH=$(TOOLS) $(BIN)/python -m ruff check .
	@PYTHONPATH=$(TOOLS) $(BIN)/python -m ruff format --check --quiet .
	@PYTHONPATH=$(TOOLS) $(BIN)/python -m mypy --strict inventory.py store.py

clean:  ## remove what the other targets have made
	rm -rf .venv __pycache__ .mypy_cache .pytest_cache .ruff_cache

# The shell reads .env, for its quoting, and ends at a line that fails. Then what was given to
# make, or stood in the environment, is put back over it: `export -p` has written it as commands.
# With `command` before each, bash goes on after one that is read-only, such as SHELLOPTS.
define SETTINGS
if [ -f .env ]; then \
	given=$$(export -p); \
	trap 'echo "A line of .env cannot be carried out." >&2; exit 1' EXIT; \
	set -ae; \
	. ./.env; \
	set +ae; \
	trap - EXIT; \
	alias export='command export'; \
	eval "$$given" 2>/dev/null; \
fi; \
export SEED="$${SEED-demo}"
endef

# The targets above look each time whether all that they need is there. If not, the folder is
# made anew: one that was broken off, or that a new Python left behind, can lack anything.
.venv:
	@$(call UNLESS_COMPLETE,$(PYTHON),$(PACKAGES),requirements.txt); \
	$(PYTHON) -c '$(CREATE)'; \
	$(PIP) --requirement requirements.txt; \
	$(call NOTE,$(PACKAGES),requirements.txt)

# The tools lie apart, so that adding them cannot harm what a running service uses.
.venv/lint: .venv
	@$(call UNLESS_COMPLETE,$(BIN)/python,$(TOOLS),Makefile); \
	rm -rf $(TOOLS); \
	$(PIP) --target $(TOOLS) ruff==0.17.6 mypy==2.4.1; \
	$(call NOTE,$(TOOLS),Makefile)

# Where the Python of .venv looks for packages; another version of it looks elsewhere.
PACKAGES = $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# One process does both, as PYTHON is that of .venv itself if that is activated. By rm, as
# .venv can be a link, and the folder behind it somebody else's.
CREATE = import os, venv; os.system("rm -rf .venv"); venv.create(".venv", symlinks=True, with_pip=True)

# A set-up ends with a note, in FOLDER, of what was installed and of the FILE that asked for it.
NOTE = ls "$1" | grep -Ev 'dist-info|__pycache__' >"$1/installed"; cp $2 "$1/installed-for"

# $(call UNLESS_COMPLETE,PYTHON,FOLDER,FILE) ends the recipe if all that was noted is there, and
# FILE is the same. That takes 15 ms, where importing Flask takes 200. Otherwise it waits for its
# turn, as two set-ups would spoil each other's. The lock is on this file, and the system takes
# it from a process that ends, however it ends: nobody waits for a set-up that was broken off.
define UNLESS_COMPLETE
set -e; \
$(call EXIT_IF_COMPLETE,$2,$3); \
$1 -c '$(CHECK_VERSION)'; \
[ -w . ] || { echo "This folder cannot be written to, so $@ cannot be set up." >&2; exit 1; }; \
exec 9<>Makefile; \
$(call FLOCK,$1,LOCK_EX | LOCK_NB) 2>/dev/null || { \
	echo "Waiting for another make that sets up .venv." >&2; \
	$(call FLOCK,$1,LOCK_EX); \
}; \
$(call EXIT_IF_COMPLETE,$2,$3); \
echo "Setting up $@." >&2
endef
EXIT_IF_COMPLETE = (cd "$1" && cmp -s - installed-for && xargs ls -d <installed) <$2 >/dev/null 2>&1 && exit
CHECK_VERSION = import sys; sys.version_info < (3, 11) and \
	sys.exit("Python 3.11 or newer is needed, and $1 is older: make $(MAKECMDGOALS) PYTHON=python3.12")
FLOCK = $1 -c 'from fcntl import *; flock(0, $2)' <&9
