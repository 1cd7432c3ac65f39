# `make demo` and `make test` install everything they need into .venv, with the versions of
# constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
TINYUNET := $(BIN)/tinyunet
DEMO := demo

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

# Print a line every five seconds until the command behind it ends: $(call AT_WORK,installing).
AT_WORK = (s=0; while sleep 5 > /dev/null 2>&1; do s=$$((s + 5)); echo "$(1): $$s s"; done) & \
    trap "kill $$!" EXIT;

.venv/.installed: pyproject.toml constraints.txt
	@$(call AT_WORK,installing) \
	    echo "installing the packages of constraints.txt into .venv" && \
	    $(PYTHON) -m venv .venv && \
	    $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[train,cpu,dev,docs]'
	touch $@

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The Python bindings of two TensorRT releases, without the libraries: tests check our calls against
# their names.
BINDINGS := .cache/tensorrt-bindings
$(BINDINGS)/.installed: .venv/.installed
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(BINDINGS)/10.16 \
	    tensorrt_cu13_bindings==10.16.1.11
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(BINDINGS)/11.4 \
	    tensorrt_cu13_bindings==11.4.0.106
	touch $@

# Triton and its client, for the tests of the server; without dependencies, which conflict with ours.
TRITON := .cache/triton
$(TRITON)/.installed: .venv/.installed
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(TRITON) --constraint constraints.txt \
	    nvidia-pytriton tritonclient python-rapidjson
	touch $@

# Tests start hundreds of processes, each of which would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

# One process for each processor; the tests of a file stay together, for they share what they made.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test: lint $(BINDINGS)/.installed $(TRITON)/.installed
	$(PYTEST)

# The same tests under branch coverage, with a floor. Tracing takes a third more processor time,
# too much for every `make test`.
.PHONY: coverage
coverage: .venv/.installed $(BINDINGS)/.installed $(TRITON)/.installed
	$(PYTEST) --cov --cov-report=term:skip-covered

# From nothing to found defects, in five minutes on two cores: make images of one class, train on them
# from random weights, export, compare with the untrained network and between three backends, draw.
# Its data and engine stay in demo/.
demo: .venv/.installed
	rm -rf $(DEMO)
	$(TINYUNET) doctor
	$(TINYUNET) data synthesize $(DEMO)/data --classes 1 --train 80 --test 40 --defective 0.5 \
	    --size 256
	@$(call AT_WORK,scoring the untrained network) \
	    $(BIN)/python -m training.untrained demo --data $(DEMO)/data -o $(DEMO)/untrained.safetensors
	$(BIN)/python -m training demo --data $(DEMO)/data -o $(DEMO)/run
	$(BIN)/python -m training.curve_picture $(DEMO)/run -o $(DEMO)/curve.svg
	@$(call AT_WORK,exporting) \
	    $(BIN)/python -m export $(DEMO)/run/checkpoint.safetensors -o $(DEMO)/engines/demo.onnx
	$(EVALUATE)/untrained.json --backend torch -m $(DEMO)/untrained.safetensors
	$(EVALUATE)/torch.json --backend torch -m $(DEMO)/run/checkpoint.safetensors
	$(EVALUATE)/onnxruntime.json --backend onnxruntime -m $(DEMO)/engines/demo.onnx
	$(EVALUATE)/openvino.json --backend openvino -m $(DEMO)/engines/demo.onnx \
	    --overlays $(DEMO)/truth
	$(BIN)/tinyunet-infer $(DEMO)/data/Class1/Test -m $(DEMO)/engines/demo.onnx \
	    -o $(DEMO)/inspected --overlays
	@echo "look at $(DEMO)/curve.svg, $(DEMO)/truth and $(DEMO)/inspected/overlays"
	$(BIN)/python -m benchmarks.before_after $(EVALUATIONS:%=$(DEMO)/evaluation/%.json)
EVALUATE := $(TINYUNET) evaluate $(DEMO)/data -o $(DEMO)/evaluation
EVALUATIONS := untrained torch onnxruntime openvino

# Build the documentation into site/, strictly and without the network. To read it while writing:
# .venv/bin/python -m mkdocs serve
.PHONY: docs
docs: .venv/.installed
	$(BIN)/python -m benchmarks.page_tables
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

# Measure speed on this machine, which should do nothing else for about 45 minutes. It exports the
# engines if they are missing, then times every artifact on every backend (8 minutes), the peers (11),
# files to masks (16) and the line (8), and writes the report. On a machine with more processors:
# taskset -c 0,1 make benchmark. An interrupted run is kept in runs/benchmark, and the same command
# resumes it; remove the folder to measure again. RESULTS=FOLDER keeps the results of another machine.
SPEED := runs/benchmark
RESULTS ?= benchmarks/results
CHECKPOINT := tinyunet_deploy/models/tinyunet.safetensors
ENGINES := engines/tinyunet.onnx engines/tinyunet.fp16.onnx engines/tinyunet.int8.onnx
INT8 := engines/tinyunet.int8.onnx
SLIM := engines/slim.onnx engines/slim.int8.onnx
SPED := $(CHECKPOINT)@pytorch-eager $(CHECKPOINT) $(ENGINES) engines/tinyunet.int8-cpu.onnx $(SLIM) engines/slim.int8-cpu.onnx
VERIFY := $(TINYUNET) verify --strict --search $(dir $(CHECKPOINT)) $(ENGINES) $(SLIM)
DAGM ?= dagm2007
CALIBRATION := $(SPEED)/data $(wildcard data/more $(DAGM))
MEASURED := $(addprefix $(SPEED)/,benchmark.json operators.json matrix.json pipeline.json \
    line-sim.json model-speeds.json)
TIMED := $(wildcard tinyunet_deploy/*.py tinyunet_deploy/*/*.py) $(addprefix benchmarks/,\
    matrix_definition.py matrix_result.py matrix_run.py matrix.toml operators.py peers.py \
    peer_programs.py synthetic_images.py files_to_masks.py free_backend.py model_speeds.py)

.PHONY: benchmark
.NOTPARALLEL:  # measurements would disturb each other
benchmark: $(MEASURED) $(SPEED)/slim/benchmark.json
	mkdir -p $(RESULTS)
	cp $(MEASURED) $(RESULTS)
	cp -r $(SPEED)/slim $(RESULTS)
	$(BIN)/python -m benchmarks report $(RESULTS)/slim -o $(RESULTS)/slim/report.md
	$(BIN)/python -m benchmarks report $(RESULTS) -o $(RESULTS)/report.md
	rm -rf $(SPEED)/inspected
	$(TINYUNET) infer $(SPEED)/data/Class4/Test $(SPEED)/data/Class7/Test -m $(INT8) \
	    -o $(SPEED)/inspected --overlays
	$(BIN)/python -m benchmarks report $(RESULTS) --parts $(SPEED)/inspected \
	    -o $(RESULTS)/report.html

$(MEASURED) $(SPEED)/slim/benchmark.json: $(SPEED)/verified.txt $(TIMED)

$(SPEED)/data: | .venv/.installed
	rm -rf $@.part
	$(TINYUNET) data synthesize $@.part --train 40 --test 4 --defective 0.5
	mv $@.part $@

# Export again if an engine is missing or comes from another checkpoint.
$(SPEED)/verified.txt: $(CHECKPOINT) | $(SPEED)/data
	$(VERIFY) > $@ 2>&1 || { $(BIN)/python -m export $(CHECKPOINT) -o $(firstword $(ENGINES)) \
	    --precision fp32,fp16,int8 --iou-budget 0.005 $(CALIBRATION:%=--data %) && \
	    $(BIN)/python -m export slim -o $(firstword $(SLIM)) \
	    --precision fp32,int8 --iou-budget 0.005 $(CALIBRATION:%=--data %); }
	$(VERIFY) > $@

$(SPEED)/benchmark.json:
	$(TINYUNET) benchmark $(ENGINES:%=--model %) --model $(CHECKPOINT) --reference $(CHECKPOINT) \
	    --batch-size 1,4 --output $@

$(SPEED)/slim/benchmark.json:
	mkdir -p $(dir $@)
	$(TINYUNET) benchmark $(SLIM:%=--model %) --reference $(dir $(CHECKPOINT))slim.safetensors --output $@

$(SPEED)/operators.json:
	$(BIN)/python -m benchmarks.operators $(INT8) $(firstword $(ENGINES)) -o $@

$(SPEED)/matrix.json:
	$(BIN)/python -m benchmarks matrix --output $(SPEED)/matrix
	cp $(SPEED)/matrix/run.json $@

$(SPEED)/pipeline.json:
	$(BIN)/python -m benchmarks.files_to_masks --model $(firstword $(ENGINES)) --model $(INT8) \
	    --model engines/slim.int8.onnx --images 1000 --output $@

$(SPEED)/model-speeds.json:
	$(BIN)/python -m benchmarks.model_speeds $(SPED) --output $@

# 160 seconds are enough to show one miss in a thousand; the speed that they promise is then tried
# for two minutes. One process for each processor, so that a virtual processor that pauses for a
# moment delays one image, not two. A speed that does not hold (exit code 6) is a result.
$(SPEED)/line-sim.json:
	$(TINYUNET) line-sim $(SPEED)/data --model $(INT8) --parts-per-minute 1200 --deadline-ms 150 \
	    --processes 2 --jitter 0.02 --seconds 160 --verify-live 120 --output $@ || test $$? = 6

# Compare fp32, fp16 and int8 with the checkpoint on both CPU backends, on real images of Class1 and on
# 200 synthetic ones, and keep the figures, the plateaus and their picture: 20 minutes on two cores.
# DAGM=FOLDER and SYNTHETIC=FOLDER name other places of the images.
.PHONY: parity
PARITY := runs/parity
SYNTHETIC ?= $(PARITY)/synthetic0
RUN_PARITY := $(TINYUNET) parity $(ENGINES:%=-m %) --reference $(CHECKPOINT) --backend openvino \
    --backend onnxruntime

$(PARITY)/synthetic0: | .venv/.installed
	mkdir -p $(PARITY)
	rm -rf $@.part
	$(TINYUNET) data synthesize $@.part --train 1 --test 20 --defective 0.5
	mv $@.part $@

parity: $(SPEED)/verified.txt | $(SYNTHETIC)
	$(RUN_PARITY) $(DAGM) --classes 1 -o $(PARITY)/class1 || test $$? = 6
	$(RUN_PARITY) $(SYNTHETIC) -o $(PARITY)/synthetic || test $$? = 6
	cp $(PARITY)/class1/parity.json benchmarks/results/parity-class1.json
	cp $(PARITY)/synthetic/parity.json benchmarks/results/parity-synthetic.json
	$(BIN)/python -m benchmarks.plateau $(PARITY)/class1/parity.json $(PARITY)/synthetic/parity.json
	$(BIN)/python -m benchmarks.picture plateau.svg
	$(BIN)/python -m benchmarks.page_tables

# Measure everything on this machine's GPU, in at most nine minutes: tests, plans, every backend with
# CUDA graphs and without, files to masks, training, peaks and parity, into benchmarks/results/GPU.
# The same command goes on with what is not finished. Nothing is installed: .venv, or the Python in
# PATH, needs the extras train, gpu and dev.
.PHONY: gpu
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu_suite

clean:
	rm -rf .venv $(DEMO)

# The long tests, about an hour. The mutations print a line for each family and write their counts to
# benchmarks/results/robustness.json.
.PHONY: nightly audit lock
nightly: .venv/.installed
	$(BIN)/python -m tests.hostile.mutate --output benchmarks/results/robustness.json
	$(BIN)/python -m pytest -m nightly

# The wheel with [cpu] in a new environment for each Python that is found: every verb of a station.
.PHONY: wheel-smoke
wheel-smoke: .venv/.installed
	$(BIN)/python -m pytest -m nightly tests/test_wheel_install.py

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

# The audit's tools have an environment of their own, so that they are not part of what is audited.
AUDIT := .cache/audit
$(AUDIT)/.installed:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/pip install --quiet cyclonedx-bom==7.5.0 pip-tools==7.6.2
	touch $@

# Check that the code executes nothing out of a data file and that the locked requirements resolve;
# list what is installed.
audit: .venv/.installed $(AUDIT)/.installed
	$(BIN)/python -m pytest tests/test_audit.py
	$(BIN)/pip install --quiet --dry-run --no-deps --ignore-installed --require-hashes \
	    -r requirements-cpu.lock
	mkdir -p dist
	$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
	    --output-reproducible --output-format JSON --output-file dist/sbom.cdx.json
	@echo "dist/sbom.cdx.json: the installed packages, as CycloneDX"

# Lock the requirements again after a change of constraints.txt, with the hashes for all platforms.
lock: $(AUDIT)/.installed
	$(AUDIT)/bin/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-emit-trusted-host --no-emit-options --no-header --strip-extras --extra cpu \
	    --constraint constraints.txt --output-file $(AUDIT)/lock pyproject.toml
	(sed -n '1,2p' requirements-cpu.lock; cat $(AUDIT)/lock) > $(AUDIT)/lock.new
	mv $(AUDIT)/lock.new requirements-cpu.lock
