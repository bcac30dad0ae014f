# Everything sets itself up in .venv; `make quickstart` is the place to start.
# The lock is for 3.11: take that where it runs.
PYTHON ?= $(or $(shell python3.11 -c 'import sys; print(sys.executable)' \
  2>/dev/null),python3)
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN_DIR := runs/quickstart

.PHONY: quickstart test soak lint format clean
.DELETE_ON_ERROR:

quickstart: $(READY)
	$(BIN)/python -m gr_jax.train --gin_file=gin/runs/quickstart.gin \
	  --gin.RUN_DIR=$(RUN_DIR)
	$(BIN)/python -m gr_jax.evaluate --run_dir=$(RUN_DIR) \
	  --controls=random_ids,dense_only
	@echo
	@echo "The table and its numbers are in $(RUN_DIR)/results.json. Search it:"
	@echo "  $(BIN)/python -m gr_jax.search --index=$(RUN_DIR)/index 'parse a date'"
	@echo "Run on a corpus of your own, a folder with corpus.jsonl,"
	@echo "queries.jsonl and qrels/{train,dev,test}.tsv (the layout of BEIR):"
	@echo "  $(BIN)/python -m gr_jax.train --gin_file=gin/runs/quickstart.gin \\"
	@echo "    --gin.DATA_DIR=YOUR_FOLDER --gin.RUN_DIR=runs/mine"

test: $(READY)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist load -m mesh \
	  $$(grep -rl --include='test_*.py' 'mark[.]mesh' tests)

# Kills, scale and repetition: minutes to hours.
soak: $(READY)
	$(BIN)/python -m pytest -q -m soak

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The runs stay: they are results, not build products.
clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis

$(READY): setup.py $(wildcard requirements/*.txt) requirements/install.sh
	PYTHON='$(PYTHON)' requirements/install.sh $(VENV)
	touch $@
