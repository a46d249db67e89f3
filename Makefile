# Two commands: `make run` and `make test`. Everything else is a part of them.
SHELL := /bin/sh
PYTHON ?= python3
UV_VERSION := 0.13.9
ZIG_VERSION := 0.17.1
BIN := .venv/bin
STATIC := src/steadcast/http/static/index.html
WEB_SOURCES := $(shell find clients/js/src dashboard/src dashboard/index.html dashboard/vite.config.ts dashboard/svelte.config.js \
	clients/js/package.json dashboard/package.json package-lock.json -type f 2>/dev/null)

.PHONY: run test setup web check check-python check-web fix test-python test-js pictures sim soak bench bench-smoke clean

run: .venv/.ready $(STATIC)
	@exec $(BIN)/steadcast serve

# What is checked and tested without waiting for anything goes side by side: one type checker uses one processor.
test: setup
	@$(MAKE) --no-print-directory -j 2 check test-js
	@$(MAKE) --no-print-directory test-python

setup: .venv/.ready-dev $(STATIC)

# The server alone needs no development tools; `make test` adds them (a C compiler too, where there is none).
.venv/.ready: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=…)"; exit 1; }
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	$(BIN)/uv sync --frozen --inexact --quiet --no-dev
	@touch $@

.venv/.ready-dev: .venv/.ready
	$(BIN)/uv sync --frozen --inexact --quiet
	@command -v cc >/dev/null || $(BIN)/uv pip install --quiet --python $(BIN)/python ziglang==$(ZIG_VERSION)
	@touch $@

# Where there is no Node, the one from PyPI is put beside Python.
node_modules/.ready: package.json package-lock.json | .venv/.ready
	@sh scripts/node npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(STATIC): node_modules/.ready $(WEB_SOURCES)
	@sh scripts/node npm run build --silent --workspaces --if-present
	@touch $@

web: $(STATIC)

check: check-python check-web

check-python: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check-web: setup
	@sh scripts/node npm run check --silent --workspaces --if-present
	@$(BIN)/python scripts/audit.py

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two at a time, a file each: most tests wait for processes rather than for a processor. In their own order,
# which ends with short ones: the longest files would else come last, one after the other.
test-python: setup
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25

test-js: setup
	@sh scripts/node npm run test --silent --workspaces --if-present

# The pictures in docs/, made by the browser tests.
pictures: setup
	STEADCAST_PICTURES=docs/pictures $(BIN)/pytest -q $(wildcard tests/e2e/test_page*.py)

# Seeded histories under faults (docs/guarantees.md): `make sim SEEDS=1000000 FIRST=2000 MINUTES=600`.
SEEDS ?= 2000
FIRST ?= 0
sim: setup
	@$(BIN)/python -m tests.sim --seeds $(SEEDS) --first $(FIRST) $(if $(MINUTES),--minutes $(MINUTES))

# Real processes under real faults: `make soak HISTORIES=300 JOBS=3`.
HISTORIES ?= 300
JOBS ?= 3
FUZZ ?= 600
soak: setup
	@$(BIN)/python -m tests.faults --histories $(HISTORIES) --jobs $(JOBS) --first $(FIRST) $(if $(MINUTES),--minutes $(MINUTES))
	STEADCAST_SOAK=1 $(BIN)/pytest -q -s tests/cluster/test_cluster.py tests/e2e/test_soak.py
	STEADCAST_SOAK=1 $(BIN)/pytest -q -s tests/e2e/test_page_long.py
	STEADCAST_SOAK=1 $(BIN)/pytest -q tests/sim/test_mutants.py
	STEADCAST_FUZZ=$(FUZZ) $(BIN)/pytest -q tests/hostile/test_fuzz.py

# Beside the peers, all in one go (about a quarter of an hour): BENCH_ONLY=fanout,paced measures a part of it.
bench: setup benchmarks/peers/node/node_modules/.ready
	$(BIN)/python -m benchmarks

bench-smoke: setup
	$(BIN)/pytest -q tests/benchmarks

benchmarks/peers/node/node_modules/.ready: benchmarks/peers/node/package.json benchmarks/peers/node/package-lock.json
	@sh scripts/node npm ci --prefix benchmarks/peers/node --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

clean:
	rm -rf .venv node_modules clients/js/node_modules dashboard/node_modules benchmarks/build benchmarks/peers/node/node_modules clients/js/dist src/steadcast/http/static
