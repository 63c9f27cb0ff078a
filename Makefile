# The commands of the README. Each sets up what it needs: .venv from requirements.lock, nothing else.
.PHONY: setup demo up test test-crash lint bench-overhead bench-wire bench-outage bench-ingest bench-query fuzz
PYTHON ?= python3
BIN := .venv/bin

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@PYTHON=$(PYTHON) sh deploy/setup.sh

demo: setup
	@$(BIN)/python manage.py demo $(ARGS)

up: setup
	@$(BIN)/python manage.py up $(ARGS)

test: setup
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# kill -9 of the store a hundred times while writers send, roll and retry.
test-crash: setup
	@SPENDWATCH_TEST_KILLS=$${KILLS:-100} $(BIN)/python -m pytest tests/clickhouse/store/test_kill.py $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python manage.py makemigrations --check --dry-run

bench-outage: setup
	@$(BIN)/python -m benches.outage $(ARGS)

.PHONY: bench-memory
bench-memory: setup
	@$(BIN)/python -W ignore::DeprecationWarning -m benches.memory

bench-overhead: setup
	@$(BIN)/python -W ignore::DeprecationWarning -m benches.overhead $(ARGS)

bench-wire: setup
	@$(BIN)/python -m benches.wire

bench-ingest: setup
	@$(BIN)/python -W ignore::DeprecationWarning -m benches.ingest

bench-query: setup
	@$(BIN)/python -W ignore::DeprecationWarning -m benches.query $(ARGS)

fuzz: setup
	@$(BIN)/python -m tests.fuzz $(ARGS)
