# `make demo` and `make test` set up all they need, in .venv, from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
TINYUNET := $(BIN)/tinyunet
DEMO := demo

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,cpu,dev]'
	touch $@

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The real Python bindings of two TensorRT releases: their names are checked, without the libraries.
BINDINGS := .cache/tensorrt-bindings
$(BINDINGS)/.installed: .venv/.installed
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(BINDINGS)/10.16 \
	    tensorrt_cu13_bindings==10.16.1.11
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(BINDINGS)/11.4 \
	    tensorrt_cu13_bindings==11.4.0.106
	touch $@

# Triton itself and its client, for their tests: neither resolves beside the rest, so no dependencies.
TRITON := .cache/triton
$(TRITON)/.installed: .venv/.installed
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(TRITON) --constraint constraints.txt \
	    nvidia-pytriton tritonclient python-rapidjson
	touch $@

test: lint $(BINDINGS)/.installed $(TRITON)/.installed
	$(BIN)/python -m pytest

# The main job, end to end, on data it makes: fine-tune, export, evaluate everywhere, infer.
demo: .venv/.installed
	rm -rf $(DEMO)
	$(TINYUNET) doctor
	$(TINYUNET) data synthesize $(DEMO)/data --train 20 --test 6 --defective 0.5
	$(BIN)/python -m training demo --data $(DEMO)/data --output $(DEMO)/run \
	    --init tinyunet_deploy/models/tinyunet.safetensors
	$(BIN)/python -m export $(DEMO)/run/checkpoint.safetensors --output $(DEMO)/engines/demo.onnx
	$(TINYUNET) evaluate $(DEMO)/data --backend torch \
	    --model $(DEMO)/run/checkpoint.safetensors --output $(DEMO)/evaluation/torch.json
	$(TINYUNET) evaluate $(DEMO)/data --backend onnxruntime \
	    --model $(DEMO)/engines/demo.onnx --output $(DEMO)/evaluation/onnxruntime.json
	$(TINYUNET) evaluate $(DEMO)/data --backend openvino \
	    --model $(DEMO)/engines/demo.onnx --output $(DEMO)/evaluation/openvino.json
	$(BIN)/python -m benchmarks.agreement $(DEMO)/evaluation/*.json
	$(BIN)/tinyunet-infer $(DEMO)/data/Class*/Test --model $(DEMO)/engines/demo.onnx \
	    --output $(DEMO)/inspected --overlays
	@echo "look at $(DEMO)/inspected/overlays: the defects are outlined in red"

clean:
	rm -rf .venv $(DEMO)

# The long ones, about an hour; counts in benchmarks/results/robustness.json. The mutations print a
# line per family.
.PHONY: nightly audit lock
nightly: .venv/.installed
	$(BIN)/python -m tests.hostile.mutate --output benchmarks/results/robustness.json
	$(BIN)/python -m pytest -m nightly

# Tools of their own environment: what is audited does not hold the auditor.
AUDIT := .cache/audit
$(AUDIT)/.installed:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet cyclonedx-bom==7.5.0 pip-tools==7.6.2
	touch $@

# Code that runs nothing of a file, locked requirements that resolve, and what is installed.
audit: .venv/.installed $(AUDIT)/.installed
	$(BIN)/python -m pytest tests/test_audit.py
	$(BIN)/pip install --quiet --dry-run --no-deps --ignore-installed --require-hashes \
	    -r requirements-cpu.lock
	mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
	    --output-reproducible --output-format JSON --output-file dist/sbom.cdx.json
	@echo "dist/sbom.cdx.json: what is installed, as CycloneDX"

# After a change of constraints.txt; hashes of every platform's files.
lock: $(AUDIT)/.installed
	$(AUDIT)/bin/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host --no-emit-options --no-header --strip-extras --extra cpu \
	    --constraint constraints.txt --output-file $(AUDIT)/lock pyproject.toml
	(sed -n '1,2p' requirements-cpu.lock; cat $(AUDIT)/lock) > $(AUDIT)/lock.new
	mv $(AUDIT)/lock.new requirements-cpu.lock
