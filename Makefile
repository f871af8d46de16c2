# Tonesmith: `make demo` and `make test` need Python 3.11 or newer, make and git; they install the rest into .venv.
.DEFAULT_GOAL := help
PORT ?= 7860
VENV := .venv
BIN := $(VENV)/bin
# Two processes, file by file. Not for the tests that train or answer: two at once wait for each other's threads.
TWO := -n 2 --dist loadfile
SOURCES := pyproject.toml $(wildcard requirements/*.txt) scripts/install.sh

.PHONY: help demo test fast check bench lock shots clean
help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

$(VENV)/.run: $(SOURCES)
	@scripts/install.sh run
$(VENV)/.dev: $(SOURCES)
	@scripts/install.sh dev

demo: $(VENV)/.run ## Install, start everything, and open the loop on real data
	@$(BIN)/tonesmith up --demo --home .demo --port $(PORT) --open

test: $(VENV)/.dev ## All tests, on a real engine, real training and a real browser
	@scripts/chromium.sh
	@$(BIN)/pytest $(TWO) -m "not alone"
	@$(BIN)/pytest -m alone

fast: $(VENV)/.dev ## The tests that need neither engine nor training nor browser
	@$(BIN)/pytest $(TWO) -m "not slow"

check: $(VENV)/.dev ## Style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest -q tests/test_house.py

bench: $(VENV)/.dev ## Measure, and print a table
	@scripts/chromium.sh
	@$(BIN)/python -m benchmarks

shots: $(VENV)/.dev ## Take the pictures of the page that the README and docs show
	@scripts/chromium.sh
	@$(BIN)/python scripts/pictures.py

lock: $(VENV)/.dev ## Resolve the dependencies anew into requirements/
	@scripts/lock.sh

clean: ## Remove what the targets above made, the demo project included
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache
