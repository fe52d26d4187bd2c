# The words here are the ones docs promise: install, demo, test, check, bench, docs, clean (and lock).
# Only python3 with pip, make and git are needed; everything lands in $(VENV) inside the checkout.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
PYTHON ?=
PORT ?=
ARGS ?=
NAME ?=

# The tests keep both cores of a small machine busy.
WORKERS ?= 2
PACKAGES := bot handlers schedules storage

RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
BIN := $(VENV)/bin

# A moved checkout leaves programs in $(VENV) that point to the old place, and a system that changed
# its Python leaves none that start: then $(VENV) is laid anew.
LAID_FOR := $(shell cat "$(VENV)/.checkout" 2>/dev/null)
ifneq ($(LAID_FOR),)
ifneq ($(LAID_FOR) $(shell $(BIN)/python -c 'print("starts")' 2>/dev/null),$(CURDIR) starts)
$(VENV)/pyvenv.cfg: relay
$(RUNTIME) $(DEV): $(VENV)/pyvenv.cfg
endif
endif

.PHONY: help install demo test check bench docs lock clean relay

help:
	@echo "make install   install what the bot needs into $(VENV)"
	@echo "make demo      start the demo and print its address (PORT=8000 ARGS=--no-browser); Ctrl-C ends it"
	@echo "make test      run every test that needs no credentials (ARGS='-k letter')"
	@echo "make check     lint, types, layers"
	@echo "make bench     run the benchmarks and long trials (NAME=inbound|delivery|soak|...)"
	@echo "make docs      write the generated parts of docs/ (ARGS=--pictures: the screenshots too)"
	@echo "make lock      renew the exact versions in requirements*.txt (needs uv)"
	@echo "make clean     remove what the other words made"

install: $(RUNTIME)

# exec: Ctrl-C reaches the demo itself and no process is left behind.
demo: $(RUNTIME)
	@exec $(BIN)/hongyan demo $(if $(PORT),--port $(PORT)) $(ARGS)

test: $(DEV)
	@exec $(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports --no-logo

bench: $(DEV)
	@exec $(BIN)/python -m benchmarks $(NAME) $(ARGS)

docs: $(DEV)
	@exec $(BIN)/python -m docs.generate $(ARGS)

# Neither a download address nor an index goes into the lock: each place uses its own.
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS)
lock:
	@command -v uv >/dev/null || { echo "make lock 需要 uv：python3 -m pip install uv" >&2; exit 1; }
	$(COMPILE) --extra build pyproject.toml -o requirements.txt
	$(COMPILE) --extra build --extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt

clean:
	rm -rf $(VENV) .venv-* *.egg-info build dist .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

relay:
	@rm -rf "$(VENV)"

$(RUNTIME): requirements.txt pyproject.toml | $(VENV)/pyvenv.cfg
	@$(call lay,requirements.txt)
	@touch $@

$(DEV): requirements-dev.txt pyproject.toml | $(VENV)/pyvenv.cfg
	@$(call lay,requirements-dev.txt)
	@touch $@ $(RUNTIME)

# Not every python3 is new enough, and a name may be a shim with nothing behind it: each is asked.
$(VENV)/pyvenv.cfg:
	@set -e; \
	new_enough='import sys; sys.exit(sys.version_info < (3, 11))'; \
	chosen=; \
	for name in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14); do \
		if "$$name" -c "$$new_enough" 2>/dev/null; then chosen=$$name; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
		echo "没有找到 Python 3.11 或更新的版本（python3 --version 可查）。请安装后再试；Debian、Ubuntu：apt-get install python3 python3-pip" >&2; exit 1; \
	fi; \
	if ! [ -w . ]; then echo "文件夹 $(CURDIR) 不可写，请换到自己的文件夹再试。" >&2; exit 1; fi; \
	echo "第一次运行：正在 $(VENV) 中准备所需的软件，约需一分钟……"; \
	if ! "$$chosen" -m venv "$(VENV)" >/dev/null 2>&1; then \
		rm -rf "$(VENV)"; \
		"$$chosen" -m venv --without-pip "$(VENV)" || { rm -rf "$(VENV)"; exit 1; }; \
	fi; \
	printf '%s\n' "$(CURDIR)" > "$(VENV)/.checkout"

# Debian's python3 comes without ensurepip and forbids pip outside a venv; pip --python serves both.
# The packages are compiled when first used, which halves the wait before the first demo.
define lay
set -e; \
if $(BIN)/python -m pip --version >/dev/null 2>&1; then pip="$(BIN)/python -m pip"; \
elif python3 -m pip --version >/dev/null 2>&1; then pip="python3 -m pip --python $(BIN)/python"; \
else echo "没有找到 pip。请安装后再试；Debian、Ubuntu：apt-get install python3-pip" >&2; exit 1; fi; \
export PIP_DISABLE_PIP_VERSION_CHECK=1; \
$$pip install --quiet --quiet --no-compile --no-deps --require-hashes -r $(1); \
$$pip install --quiet --quiet --no-compile --no-deps --no-build-isolation -e .
endef
