# make demo | test | test-all | lint | format | readers | peers | clean        PYTHON=python3.12 make … picks another Python (3.11 or newer)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGING := pyproject.toml requirements.txt constraints.txt jaxgen/__init__.py

.DELETE_ON_ERROR:
.PHONY: demo test test-all lint format readers clean constraints peers

# Makes the environment $(1).
define environment
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "jaxgen needs Python 3.11 or newer, and '$(PYTHON)' is not: make PYTHON=python3.12 …"; exit 1; }
@$(PYTHON) -m venv $(1) || { rm -rf $(1); \
  echo "'$(PYTHON) -m venv' failed; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
endef

# A twelfth of the experiment's steps, after which more noise than is right would leave noise.
SHORT := --train.steps 1700 --train.log-every 50 --train.sample-every 850 --train.save-every 850 \
  --train.eval-every 1700 --method.optimizer.decay-steps 1700 --method.sample.noise-scale 1

demo: $(VENV)/installed
	$(BIN)/python train.py configs/ddpm_faces.py --workdir runs/demo $(SHORT)
	$(BIN)/python sample.py runs/demo --num 64 --out runs/demo/samples.png
	@echo "64 new faces: runs/demo/samples.png; loss curves and samples on the way: runs/demo"

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -n auto --dist worksteal --durations=25

# The empty marker expression replaces the default one, which leaves out the slow tests.
test-all: $(VENV)/installed-dev
	$(BIN)/python -m pytest -q -m "" -n auto --dist worksteal

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Trains the networks that measure samples, and writes them where they ship.
READERS := classifier_faces classifier_faces_judge classifier_fashion classifier_emoji
readers: $(VENV)/installed
	for name in $(READERS); do $(BIN)/python train.py configs/$$name.py --workdir runs/readers/$$name || exit 1; done
	$(BIN)/python -m jaxgen.metrics.ship $(READERS:%=runs/readers/%)

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Pins anew the versions that the ranges of requirements.txt allow, for every Python and platform in one file.
constraints: $(VENV)/installed
	$(BIN)/pip install -q uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --no-header \
	  --no-annotate --no-emit-index-url --no-emit-find-links -q -o constraints.txt

$(BIN)/python:
	$(call environment,$(VENV))

# Stamps: each install runs once, and again when the packaging changes.
$(VENV)/installed: $(PACKAGING) | $(BIN)/python
	$(BIN)/pip install -q -e . -c constraints.txt
	@touch $@

$(VENV)/installed-dev: $(PACKAGING) | $(BIN)/python
	$(BIN)/pip install -q -e '.[dev]' -c constraints.txt
	@touch $@ $(VENV)/installed

# The programs that benchmarks compare with, in an environment of their own. TORCH_INDEX has PyTorch's builds for CPUs;
# with TORCH_INDEX= and where it is out of reach the package index's is taken, which brings CUDA along.
PEERS := benchmarks/.venv
TORCH_INDEX := https://download.pytorch.org/whl/cpu
peers: $(PEERS)/installed

$(PEERS)/bin/python:
	$(call environment,$(PEERS))

$(PEERS)/installed: benchmarks/requirements.txt | $(PEERS)/bin/python
	$(PEERS)/bin/pip install -q --no-deps --retries 1 $(TORCH_INDEX:%=--extra-index-url %) $$(grep '^torch==' $<)
	$(PEERS)/bin/pip install -q -r $<
	@touch $@
