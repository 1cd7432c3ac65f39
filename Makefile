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

# Speed on this machine, in about 45 minutes in which it should do nothing else: export if need be,
# every artifact and backend (6), the peers (11), files to masks (16), the line (8), the report.
# On more processors: taskset -c 0,1 make benchmark. What an interrupted run has measured is in
# runs/benchmark, where the same command goes on; remove it to measure again.
SPEED := runs/benchmark
CHECKPOINT := tinyunet_deploy/models/tinyunet.safetensors
ENGINES := engines/tinyunet.onnx engines/tinyunet.fp16.onnx engines/tinyunet.int8.onnx
INT8 := engines/tinyunet.int8.onnx
VERIFY := $(TINYUNET) verify --strict --search $(dir $(CHECKPOINT)) $(ENGINES)
CALIBRATION := $(or $(wildcard data/more dagm2007),$(SPEED)/data)
MEASURED := $(addprefix $(SPEED)/,benchmark.json operators.json matrix.json pipeline.json \
    line-sim.json)
TIMED := $(wildcard tinyunet_deploy/*.py tinyunet_deploy/*/*.py) $(addprefix benchmarks/,\
    matrix_definition.py matrix_result.py matrix_run.py matrix.toml operators.py peers.py \
    synthetic_images.py files_to_masks.py)

.PHONY: benchmark
.NOTPARALLEL:  # measurements would disturb each other
benchmark: $(MEASURED)
	cp $(MEASURED) benchmarks/results
	$(BIN)/python -m benchmarks report benchmarks/results -o benchmarks/results/report.md
	$(BIN)/python -m benchmarks report benchmarks/results -o benchmarks/results/report.html

$(MEASURED): $(SPEED)/verified.txt $(TIMED)

$(SPEED)/data: | .venv/.installed
	rm -rf $@.part
	$(TINYUNET) data synthesize $@.part --train 20 --test 4 --defective 0.5
	mv $@.part $@

# Exported again if one is missing or comes from another checkpoint.
$(SPEED)/verified.txt: $(CHECKPOINT) | $(SPEED)/data
	$(VERIFY) > $@ 2>&1 || $(BIN)/python -m export $(CHECKPOINT) -o $(firstword $(ENGINES)) \
	    --precision fp32,fp16,int8 --iou-budget 0.005 $(CALIBRATION:%=--data %)
	$(VERIFY) > $@

$(SPEED)/benchmark.json:
	$(TINYUNET) benchmark $(ENGINES:%=--model %) --model $(CHECKPOINT) --reference $(CHECKPOINT) \
	    --batch-size 1,4 --output $@

$(SPEED)/operators.json:
	$(BIN)/python -m benchmarks.operators $(INT8) $(firstword $(ENGINES)) -o $@

$(SPEED)/matrix.json:
	$(BIN)/python -m benchmarks matrix --output $(SPEED)/matrix
	cp $(SPEED)/matrix/run.json $@

$(SPEED)/pipeline.json:
	$(BIN)/python -m benchmarks.files_to_masks --model $(firstword $(ENGINES)) --model $(INT8) \
	    --images 1000 --output $@

# 160 seconds show one miss in a thousand; the speed they promise is then tried for two minutes. A
# process for each processor: one that stops for a moment, as a virtual one may, stops one image.
$(SPEED)/line-sim.json:
	$(TINYUNET) line-sim $(SPEED)/data --model $(INT8) --parts-per-minute 1200 --deadline-ms 150 \
	    --processes 2 --jitter 0.02 --seconds 160 --verify-live 120 --output $@

clean:
	rm -rf .venv $(DEMO)

# The long ones, about an hour; counts in benchmarks/results/robustness.json. The mutations print a
# line per family.
.PHONY: nightly audit lock
nightly: .venv/.installed
	$(BIN)/python -m tests.hostile.mutate --output benchmarks/results/robustness.json
	$(BIN)/python -m pytest -m nightly

# Small changes to the core modules that no test notices; ROOM=decoding for one module. Verdicts are
# kept in .cache/mutants: an interrupted run is resumed. The tool has an environment of its own.
.PHONY: mutants
MUTANTS := .cache/mutants/venv
$(MUTANTS)/.installed:
	$(PYTHON) -m venv $(MUTANTS)
	$(MUTANTS)/bin/pip install --quiet cosmic-ray==8.7.0
	touch $@

mutants: .venv/.installed $(MUTANTS)/.installed
	$(MUTANTS)/bin/python -m tests.mutants $(ROOM)

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
