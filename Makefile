PYTHON ?= python3
BIN := .venv/bin
UV := UV_PYTHON=$(BIN)/python $(BIN)/uv --quiet pip
# Two at once: the second waits. (macOS has no flock.)
LOCKED := $(if $(shell command -v flock),flock Makefile)
# It makes the database, or lets the paths in it follow a project that was moved.
OPEN_DATABASE := MLFLOW_TRACKING_URI= $(BIN)/imageclf runs >/dev/null
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_LOGGING_LEVEL := WARNING
export DO_NOT_TRACK := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
# A container may run as a number that the system's list of users does not have; DVC needs both.
export HOME ?= $(or $(shell getent passwd "$$(id -u)" | cut -d: -f6),$(CURDIR)/.imageclf/home)
export USER ?= $(shell id -un 2>/dev/null)

.DEFAULT_GOAL := help

## help: list these commands
.PHONY: help
help:
	@sed -n 's/^## \([^:]*\): /\1\t/p' $(MAKEFILE_LIST) | column -t -s "$$(printf '\t')"

## setup: make the environment in .venv (Python 3.11 or newer; about 6 GB) and MLflow's database
.PHONY: setup
setup:
	@$(LOCKED) $(MAKE) --silent --no-print-directory .venv/installed mlflow.db

# A set-up that was killed leaves no mark and perhaps half a package: the next one begins anew.
.venv/installed: requirements.lock pyproject.toml
	@case "$$PWD" in *%*) echo "error: MLflow makes no database if its path has a % in it: move the project" >&2; \
	exit 2;; esac
	@echo "setting up .venv (about 6 GB, once)"
	@test -e $@ || $(PYTHON) -m venv --clear .venv
	@test -e $(BIN)/uv || sed -n '/^uv==/,/[^\]$$/p' requirements.lock | \
	$(BIN)/pip install --quiet --require-hashes --requirement /dev/stdin >.venv/pip.log 2>&1 || \
	{ echo "error: pip cannot install uv, .venv/pip.log says why" >&2; exit 1; }
	@mv -f $@ $@.before 2>/dev/null; $(UV) sync --compile-bytecode --require-hashes requirements.lock || \
	{ mv -f $@.before $@ 2>/dev/null; exit 1; }
	@$(UV) install --no-deps --no-build-isolation --editable .
	@touch $@

## lock: write requirements.lock anew after a change of pyproject.toml (UPGRADE=1: the newest versions)
.PHONY: lock
lock: setup
	@$(UV) compile --universal --python-version 3.11 --extra server --group dev --generate-hashes \
	--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) --output-file requirements.lock pyproject.toml

# Its migrations take several seconds, which the first training need not wait for.
mlflow.db: | .venv/installed
	@echo "making the database of MLflow"
	@$(OPEN_DATABASE)

## run: the whole pipeline, then a summary of what came out (V=1: with all that DVC prints)
.PHONY: run
run: setup
	@$(BIN)/imageclf run $(if $(V),--verbose)

## test: every test but the slow ones
.PHONY: test
test: setup
	@$(BIN)/pytest --quiet -m "not slow" --numprocesses 2 --hypothesis-seed 0

## test-all: every test, those against real servers and data sets too
.PHONY: test-all
test-all: test
	@$(BIN)/pytest --quiet -m slow --numprocesses 2 --dist worksteal --hypothesis-seed 0

## lint: format and style
.PHONY: lint
lint: setup types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/actionlint

## types: mypy, strict
.PHONY: types
types: setup
	@$(BIN)/mypy

## ui: compare the runs in the browser, at the address that it prints (PORT=5001)
.PHONY: ui
ui: setup
	@$(BIN)/imageclf ui --port $(PORT)

BACKEND ?= sqlite
PORT ?= 5000

## server: a tracking server with a password, on this machine's loopback (BACKEND=postgres, PORT=5000)
.PHONY: server
server: setup
	@$(BIN)/imageclf server --backend $(BACKEND) --port $(PORT)

## push: give other machines what was computed here
.PHONY: push
push: setup
	@$(BIN)/imageclf push

## pull: get what other machines computed, and let MLflow show it
.PHONY: pull
pull: setup
	@$(BIN)/imageclf pull

## runner: train what the branch says, with files from the remote and back to it
.PHONY: runner
runner: setup
	@$(BIN)/imageclf runner

## sbom: write sbom.json, a CycloneDX list of every installed package with its licence
.PHONY: sbom
sbom: setup
	@$(BIN)/uv --quiet tool run --from cyclonedx-bom==7.5.0 cyclonedx-py environment $(BIN)/python \
	--pyproject pyproject.toml --output-reproducible --of JSON -o sbom.json

## bench: measure against peers, side by side
.PHONY: bench
bench: setup
	@$(BIN)/python benchmarks/run.py

## clean: remove what the pipeline made (not the DVC cache, not the MLflow runs)
.PHONY: clean
clean:
	@rm -rf data/raw data/prepared data/features reports/evaluation
	@rm -rf models/pretrained models/classifier models/exported
	@rm -f reports/data.json reports/data.html reports/history.csv reports/metrics.json reports/suspects.*
	@rm -rf .checkpoints .downloads data/.blocks
