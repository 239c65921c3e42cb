# Needs Python 3.11 or newer, git and make. Everything else comes from PyPI into the environments named below.

# The first of these that is new enough; `make PYTHON=...` overrules it.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# Nothing here needs a model from the Hub, so nothing may ask for one.
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Many images forbid it. Then each of the many processes that the tests start would compile torch and transformers anew.
export PYTHONDONTWRITEBYTECODE :=

# What goes into each environment. Both stacks of transformers are first class, and both run the whole test suite.
# The constraints are part of every install: see constraints.txt for why.
DEMO := -e .
STACK_4 := -e '.[test,onnx]' 'transformers>=4.57,<4.58' 'optimum-onnx[onnxruntime]==0.1.0'
STACK_5 := -e '.[dev,onnx-export,reranker]' 'transformers>=5,<6'
# The package that this one succeeds, with the last transformers that imports it. It knows nothing of ours.
PEER := 'llm-blender==0.0.2' 'transformers>=4.57,<4.58' sentencepiece protobuf

# A process a core; each file stays with one of them, so that what its tests share is made once.
PYTEST := pytest -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-4 test-5 stacks lint format bench-peer clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: .venv/.installed ## install, then let the bundled language model answer, rank and fuse, beside large models
	.venv/bin/blender-hf demo

test: lint test-5 test-4 ## install, check the style, and run the tests on both stacks

# Without the checkpoints that both stacks read, their tests fail.
test-4 test-5: export BLENDER_HF_STACKS := required

test-4: .venv-4/.installed stacks ## run the tests under transformers 4.57, with Optimum; but for those marked "once"
	.venv-4/bin/$(PYTEST) -m 'not once'

test-5: .venv-5/.installed stacks ## run all tests under the newest transformers 5
	.venv-5/bin/$(PYTEST)

stacks: build/stacks/4/.made build/stacks/5/.made ## make small checkpoints with both stacks, which each has to read alike

build/stacks/%/.made: .venv-%/.installed tests/stacks/make.py tests/stacks/families.py tests/stacks/tokenizer_kinds.py
	.venv-$*/bin/python -W ignore -m tests.stacks.make build/stacks/$*
	@touch $@

lint: .venv-5/.installed ## check style, formatting and types
	.venv-5/bin/ruff check .
	.venv-5/bin/ruff format --check .
	rm -rf build/typed && mkdir -p build/typed/blender_hf
	ln -s $(CURDIR)/modeling $(CURDIR)/export $(CURDIR)/blender_hf/* build/typed/blender_hf
	.venv-5/bin/mypy

format: .venv-5/.installed ## correct style and formatting
	.venv-5/bin/ruff check --fix .
	.venv-5/bin/ruff format .

bench-peer: .venv-peer/.installed ## install the official llm-blender for benchmarks/peer/compare.py

clean: ## remove the environments and everything that was built or cached
	rm -rf .venv .venv-4 .venv-5 .venv-peer build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: REQUIREMENTS = $(DEMO)
.venv-4/.installed: REQUIREMENTS = $(STACK_4)
.venv-5/.installed: REQUIREMENTS = $(STACK_5)
.venv-peer/.installed: REQUIREMENTS = $(PEER)

# The stamp is written last, so an interrupted install is taken up again. Python compiles what it imports, once; to
# compile all 20,000 files of an environment takes two minutes.
%/.installed: pyproject.toml constraints.txt Makefile
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $*
	$*/bin/pip install --quiet --no-compile -c constraints.txt $(REQUIREMENTS)
	@touch $@
