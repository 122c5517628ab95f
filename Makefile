# make demo, make test, make lint, make bench. The first run makes .venv; later ones do not install.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help demo test test-slow test-clusters test-tfio test-frameworks test-tfdv test-browser lint bench lock install clean

help:
	@echo "make demo      synthesize two scenes, convert, verify, check (under 4 minutes the first time)"
	@echo "make test      the tests"
	@echo "make test-slow those that take tens of seconds each"
	@echo "make test-clusters  those that start Flink, Spark, Prism and stores on this machine"
	@echo "make test-tfio those that must also pass beside tensorflow-io (an environment of its own)"
	@echo "make test-frameworks  the feeds for PyTorch, JAX and Grain (an environment of its own, 7 GB)"
	@echo "make test-tfdv what TensorFlow Data Validation says of records (an environment of its own, 2.5 GB)"
	@echo "make test-browser  the report in Chromium, which is installed by apt where it is missing"
	@echo "make lint      ruff and mypy"
	@echo "make bench     every step beside its reference"
	@echo "make lock      resolve the dependencies again"

install: $(STAMP)

# A folder, a lock file, more options.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "Python 3.11 is needed, not $$($(PYTHON) --version): make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "installing into $(1) (once, about a minute)"
	@$(PYTHON) -m venv --clear $(1)
	@$(1)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.*
	@$(1)/bin/uv pip install --quiet --python $(1)/bin/python --compile-bytecode --require-hashes $(3) -r $(2)
endef

define install
	$(call environment,$(1),$(2))
	@$(1)/bin/uv pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .
	@$(1)/bin/python -m compileall -q loader pipelines transforms
	@touch $(1)/.installed
endef

# Bytecode is compiled at once: where PYTHONDONTWRITEBYTECODE is set, importing TensorFlow and
# Beam would otherwise cost 20 s at each start instead of 9, and our own modules half a second.
$(STAMP): requirements.lock setup.py
	$(call install,$(VENV),requirements.lock)

# tensorflow-io needs an older set of everything: see the extra tfio.
.venv-tfio/.installed: requirements-tfio.lock setup.py
	$(call install,.venv-tfio,requirements-tfio.lock)

demo: $(STAMP)
	@rm -rf $(DEMO)
	@echo "== synth: two SAR-like scenes with water masks"
	@$(BIN)/scenefeed synth $(DEMO)/synth --scenes 2 --size 4096
	@echo "== convert"
	@$(BIN)/scenefeed convert --config $(DEMO)/synth/dataset.yaml --output $(DEMO)/out
	@echo "== verify"
	@$(BIN)/scenefeed verify $(DEMO)/out
	@echo "== check"
	@$(BIN)/scenefeed check $(DEMO)/out --json $(DEMO)/check.json
	@echo "== scenes in $(DEMO)/synth, dataset in $(DEMO)/out, figures in $(DEMO)/check.json and $(DEMO)/out/metrics.json"

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=25 --durations-min=5

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow --timeout 600  # a busy host has taken three quarters of two cores

# Those that need Java, Maven or Go; each skips, with the reason, where its own is missing.
# By files: each engine is downloaded, built and started by one process.
test-clusters: $(STAMP)
	$(BIN)/python -m pytest -m cluster -n 2 --dist loadfile

# PyTorch's wheels bring several gigabytes of CUDA with them: not for those who only want the demo.
.venv-frameworks/.installed: requirements-frameworks.lock setup.py
	$(call install,.venv-frameworks,requirements-frameworks.lock)

test-frameworks: .venv-frameworks/.installed
	.venv-frameworks/bin/python -m pytest tests/frameworks

# It cannot be beside our TensorFlow: the tests of .venv ask it in a process. No dependencies: the lock
# has all of them, two of which are not those that it asks for (tests/tfdv/overrides.in).
.venv-tfdv/.installed: requirements-tfdv.lock
	$(call environment,.venv-tfdv,requirements-tfdv.lock,--no-deps --only-binary :all:)
	@touch $@

test-tfdv: $(STAMP) .venv-tfdv/.installed
	$(BIN)/python -m pytest -m tfdv tests/tfdv

# The tests skip, with the reason, where there is no Chromium and none can be installed.
test-browser: $(STAMP)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "no Chromium, and no apt or no rights to install it"
	$(BIN)/python -m pytest -m browser

# What both sets of versions must do, in the older one.
test-tfio: .venv-tfio/.installed
	.venv-tfio/bin/python -m pytest tests/tfio tests/loader tests/transforms

# mypy wants the namespace as folders: a view of the tree in which they stand under scenefeed/.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/view/scenefeed && cd $(VENV)/view/scenefeed && ln -sfn ../../../pipelines ../../../transforms ../../../loader .
	MYPYPATH=$(VENV)/view $(BIN)/mypy --explicit-package-bases --namespace-packages -p scenefeed

# make bench BENCH="--size 8192 --only convert --json bench.json"
bench: $(STAMP)
	$(BIN)/python benchmarks/run.py $(BENCH)

lock:
	uv pip compile --quiet --python-version 3.11 --generate-hashes --extra convert --extra remote --extra tensorflow --extra report --extra tfds --extra dev pyproject.toml -o requirements.lock
	uv pip compile --quiet --python-version 3.11 --generate-hashes --extra convert --extra remote --extra tfio --extra report --extra dev pyproject.toml -o requirements-tfio.lock
	uv pip compile --quiet --python-version 3.11 --generate-hashes --extra convert --extra remote --extra tensorflow --extra frameworks --extra dev pyproject.toml -o requirements-frameworks.lock
	uv pip compile --quiet --python-version 3.11 --generate-hashes --only-binary :all: --overrides tests/tfdv/overrides.in tests/tfdv/requirements.in -o requirements-tfdv.lock

clean:
	rm -rf $(VENV) .venv-tfio .venv-frameworks .venv-tfdv $(DEMO) build dist *.egg-info
