.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
FAST_TESTS := tests/unit tests/protocol tests/tidy tests/simulation tests/conformance

# $(call need,PROGRAM,WAY OUT): one line instead of a shell error further down.
need = @command -v $(1) >/dev/null || { echo "make: $(1) is not installed: $(2)" >&2; exit 1; }

.PHONY: help setup demo test test-long test-fast lint type bench kills grid moves scale idle simulate clean java deploy-check deploy-render alerts

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## virtual environment in .venv with everything pinned by hash

$(STAMP): requirements/dev.txt pyproject.toml
	$(call need,$(PYTHON),install Python 3.11 or give another one with make PYTHON=/path/to/python)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

java:
	$(call need,java,install a JDK of version 11 or later; only the demo and the tests against real RocketMQ need it)
	$(call need,mvn,install Maven; it fetches RocketMQ for the demo and the tests against real RocketMQ)

demo: $(STAMP) java  ## two real RocketMQ clusters on this machine and a two-way task between them
	$(BIN)/python -m deploy.local.demo

test: lint type java  ## lint, types and all tests but the long ones
	$(BIN)/python -m pytest -m "not long" --durations=25

test-long: $(STAMP) java  ## what takes minutes on real parts: rights, disks, every history change
	$(BIN)/python -m pytest -m long

test-fast: $(STAMP)  ## what needs neither Java nor Postgres
	$(BIN)/python -m pytest $(FAST_TESTS) -m "not rocketmq and not postgres"

lint: $(STAMP)  ## ruff and the layering rules
	$(BIN)/ruff check .
	$(BIN)/lint-imports

type: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

bench: $(STAMP) java  ## CPU and rate of a drained backlog, latency at a steady rate
	$(BIN)/python -m tests.benchmarks.bench_worker
	$(BIN)/python -m tests.benchmarks.bench_copy
	$(BIN)/python -m tests.benchmarks.bench_latency
	$(BIN)/python -m tests.benchmarks.bench_rebuild

kills: $(STAMP) java  ## 50 rounds of kill -9 during traffic on real clusters
	REPLICATOR_KILL_ROUNDS=50 $(BIN)/python -m pytest -s tests/acceptance/test_kill.py

grid: $(STAMP) java  ## every supported version as a source of every one: a table of the pairs (GRID="4.9.7 5.3.3": only as destinations)
	$(BIN)/python -m tests.grid $(GRID)

moves: $(STAMP) java  ## failover and failback at full size: every lag, round trips, a million messages at the other side
	REPLICATOR_MOVE_MESSAGES=100000 REPLICATOR_MOVE_TRIPS=10 REPLICATOR_MOVE_GROUPS=200 REPLICATOR_MOVE_ROUNDS=400 REPLICATOR_MOVE_MEANWHILE=1000000 $(BIN)/python -m pytest -s -m long tests/acceptance/test_moves.py

scale: $(STAMP) java  ## three workers, 64 queues, 5,000 messages a second: join, stop and kill, 20 times each (SCALE="--rounds 2 --rate 500")
	$(BIN)/python -m tests.benchmarks.bench_scale $(SCALE)

groups: $(STAMP) java  ## progress of 10,000 groups x 8 queues between real brokers, a tenth of it changing (GROUPS="--groups 1000")
	$(BIN)/python -m tests.benchmarks.bench_groups $(GROUPS)

idle: $(STAMP) java  ## CPU and memory of one worker with 5,000 queues in which nothing happens (IDLE="--queues 500")
	$(BIN)/python -m tests.benchmarks.bench_idle $(IDLE)

simulate: $(STAMP)  ## 1,000 seeds of faults over simulated clusters
	REPLICATOR_SIMULATION_SEEDS=1000 $(BIN)/python -m pytest -q tests/simulation

DEPLOY := .cache/deploy/venv
$(DEPLOY)/.done: requirements/deploy.txt
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/deploy.txt
	@touch $@

deploy-check: $(STAMP) $(DEPLOY)/.done  ## alert rules, units, container file and chart (needs promtool, helm, kubeconform, systemd)
	$(BIN)/python -m deploy.checking

deploy-render: $(STAMP)  ## the dashboard and the plain manifests, from the code and the chart (needs helm)
	$(BIN)/python -m deploy.grafana.dashboard
	$(BIN)/python -m deploy.checking render

alerts: $(STAMP)  ## every alert rule, fired and resolved by its real cause (needs promtool)
	$(BIN)/python -m tests.alerts

clean:  ## removes the virtual environment and every cache of this folder
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
