# `make help` lists the targets. PYTHON picks the interpreter for the environment (3.10 to 3.12).
# The first one that runs: a name on the PATH may be a version manager's, for a version that is not switched on.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3; do \
    "$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
    && echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CPP_FILES := $(shell find deploy/native bssl_tf/devices -name '*.cc' -o -name '*.h' -o -name '*.c')
JAVA_FILES := $(shell find deploy/android tests/deploy/android -name '*.java')
JAVA_STYLE := --style=file:deploy/android/.clang-format
CORE := .venv-core
# Of training, which asks little of a version that networks and losses do not, one method with a teacher and one without.
# Where a network's maps lie, and what is in the files of PyTorch and of TensorFlow Lite, depends on no version.
CUT := tests/engine/test_loop.py::test_a_run_that_was_cut_ends_bit_for_bit_like_one_that_was_not
CORE_TESTS := $(filter-out %/test_feature_maps.py, $(wildcard tests/models/test_*.py)) tests/losses tests/converters/lce \
    tests/converters/test_files_not_fetched.py tests/test_packaging.py '$(CUT)[guided]' '$(CUT)[moco]'
# Files of tests run beside each other, one more than there are processors: many wait for a disk or for a process.
PARALLEL ?= -n $(shell processors=$$(getconf _NPROCESSORS_ONLN); echo $$((processors < 4 ? processors + 1 : 4))) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup runtime bench bench-training wheels android demo demo-seeds photos test test-core test-slow test-faults tables tutorial test-native audit arm64-rig docs lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) runtime ## make .venv with the project, its tests' tools, the extras `zoo` and `pretrained`, and the device runtime

# An old pip needs minutes to resolve the extra `zoo`, a new one seconds: upgrade it first. Packages in two folders need
# setuptools' import hook, about which it warns at length that folders of the same names may hide them: those are they.
$(STAMP): pyproject.toml deploy/pyproject.toml deploy/setup.py
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed: install one, or name it with make PYTHON=..." >&2; exit 1; }
	@echo "installing into $(VENV): one to two minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS='ignore:Editable installation' \
	    $(BIN)/python -m pip install --quiet --editable ./deploy --editable '.[zoo,pretrained,dev]'
	@touch $@

# Compiles what has changed since; nothing when nothing has. There is a runtime for Linux only.
runtime: $(STAMP) ## compile the device runtime for this machine
ifeq ($(shell uname -s),Linux)
	@$(BIN)/python deploy/native/build.py --out deploy/bssl_tf_deploy/lib/libbssl_tf_runtime.so
endif

# The library as released, by zig. Another process on the machine makes the times worthless; the report says so.
bench: $(STAMP) ## time our runtime beside LCE and XNNPACK, into results/runtime-bench.md (17 minutes, quiet machine)
	$(BIN)/python deploy/native/build.py --compiler zig --out deploy/bssl_tf_deploy/lib/libbssl_tf_runtime.so
	PYTHONPATH=deploy $(BIN)/python -m benchmarks
	PYTHONPATH=deploy $(BIN)/python -m benchmarks.kernels

# PyTorch in an environment of its own, as nothing else here needs it. What is recorded already is not measured again.
bench-training: $(STAMP) .venv-torch/.installed ## speed of training next to plain PyTorch, into results/training-speed.jsonl (an hour, quiet machine)
	PYTHONPATH=deploy $(BIN)/python -m benchmarks.training
	$(MAKE) --no-print-directory tables

.venv-torch/.installed:
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet 'torch==2.13.0' numpy
	@touch $@

# On any machine, with zig, so that they run on every Linux since glibc 2.17.
wheels: $(STAMP) ## wheels of the device side for x86-64 and 64-bit ARM, into dist/
	@for target in x86_64 arm64; do \
	    BSSL_TF_TARGET=$$target BSSL_TF_COMPILER=zig $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist ./deploy \
	        || exit; \
	done
	@ls -l dist

# For both kinds of processors that Android has in 64 bits; without its SDK and NDK.
android: $(STAMP) ## the library for Android apps, an .aar, and its Javadoc, into dist/ (needs a JDK)
	@$(BIN)/python deploy/android/build.py --out dist

# A demo that was stopped goes on where it was; `make clean` lets it begin anew.
demo: setup ## set up, then the whole way on the embedded images, in minutes
	@echo "1 of 8: a float teacher, without labels (3 minutes on two cores)"
	$(BIN)/bssl-tf teacher --preset demo --out runs/demo-teacher --resume
	@echo "2 of 8: the binary student, from the teacher (4 minutes)"
	$(BIN)/bssl-tf pretrain --preset demo --teacher runs/demo-teacher --out runs/demo --resume
	@echo "3 of 8: its accuracy, beside controls (1 minute)"
	$(BIN)/bssl-tf evaluate runs/demo
	@echo "4 to 8 of 8: convert it, run it, time it, report"
	$(BIN)/bssl-tf export runs/demo --target arm64 --out runs/demo/bundle --overwrite
	$(BIN)/bssl-tf run runs/demo/bundle runs/demo/bundle/examples/*.png
	$(BIN)/bssl-tf bench runs/demo/bundle
	$(BIN)/bssl-tf report runs/demo runs/demo-teacher --out runs/demo/report.html
	$(BIN)/bssl-tf summary runs/demo

# Three seeds, each with a teacher of its own; a seed that is already in the records is left out.
demo-seeds: setup ## the demo's accuracy for three seeds, into results/demo.jsonl (20 minutes)
	@for seed in 0 1 2; do \
	    run=runs/demo-seed$$seed; \
	    grep -qs "\"run\": \"$$run\"" results/demo.jsonl && continue; \
	    $(BIN)/bssl-tf teacher --preset demo --seed $$seed --out $$run-teacher --resume && \
	    $(BIN)/bssl-tf pretrain --preset demo --seed $$seed --teacher $$run-teacher --out $$run --resume && \
	    $(BIN)/bssl-tf evaluate $$run --record results/demo.jsonl || exit; \
	done

photos: setup ## accuracy on real photos with few labels, into results/photos.jsonl: make photos PHOTOS=folder (hours; continues where it was)
	PYTHONPATH=. $(BIN)/python -m docs.photos "$(PHOTOS)"
	$(MAKE) --no-print-directory tables

test: setup ## set up, check style and types, run the tests
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -m 'not slow' $(PARALLEL)

# What depends on the versions of TensorFlow, Keras and LCE. Without CI in its environment, as tests that need larq-zoo
# skip here.
test-core: $(CORE)/.installed runtime ## the quick tests of training and conversion without the extra `zoo`, so with the newest TensorFlow
	CI= $(CORE)/bin/python -m pytest -q -m 'not slow' $(PARALLEL) $(CORE_TESTS)

$(CORE)/.installed: pyproject.toml deploy/pyproject.toml deploy/setup.py
	$(PYTHON) -m venv $(CORE)
	$(CORE)/bin/python -m pip install --quiet --upgrade pip
	$(CORE)/bin/python -m pip install --quiet --editable ./deploy --editable '.[dev]'
	@touch $@

tables: setup ## write the tables of README and docs anew from the records in results/
	PYTHONPATH=. $(BIN)/python -m docs.tables

tutorial: setup ## run the tutorial's commands and record what they print, in results/tutorial.jsonl (10 minutes)
	PYTHONPATH=. $(BIN)/python -m docs.tutorial
	$(MAKE) --no-print-directory tables

test-slow: setup ## run the minutes-long tests too
	$(BIN)/python -m pytest

test-faults: setup ## 200 kills of training, large files and 10,000 mutated files of each kind, into results/faults.jsonl (hours; continues where it was)
	$(BIN)/python -m tests.faults --record results/faults.jsonl

test-native: setup ## sanitizers, threads and ten minutes of fuzzing of the runtime
	$(MAKE) --no-print-directory -C deploy/native/tests check threads fuzz SECONDS_EACH=300

# Reports, and fails for nothing that it finds: whether an advisory concerns us is for a person to say. In an environment of
# its own, as its packages are no part of ours.
audit: $(STAMP) $(VENV)-audit/.installed ## compare the installed packages with published advisories (needs a network)
	-$(VENV)-audit/bin/pip-audit --skip-editable --progress-spinner off \
	    --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

$(VENV)-audit/.installed:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet 'pip-audit>=2.7,<3'
	@touch $@

arm64-rig: setup ## the emulated 64-bit ARM system that tests use (needs qemu-user and debootstrap)
	$(BIN)/python tests/arm64/make_rig.py

docs: setup ## build the documentation into build/docs, to be opened at index.html
	$(BIN)/python -m mkdocs build --strict --config-file docs/mkdocs.yml

lint: setup ## ruff, clang-format, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(BIN)/clang-format $(JAVA_STYLE) --dry-run --Werror $(JAVA_FILES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup ## let ruff and clang-format lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)
	$(BIN)/clang-format $(JAVA_STYLE) -i $(JAVA_FILES)

clean: ## remove caches and the demo's runs; keep .venv and your own runs
	rm -rf runs/demo runs/demo-teacher runs/demo-seed* build dist .pytest_cache .mypy_cache .ruff_cache \
	    .hypothesis *.egg-info deploy/*.egg-info
