# `make repro` and `make test` each work as the first command after `git clone`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup repro test test-experiments test-ssh test-remote lint hooks doctor bench fuzz kills pull

setup: $(VENV)/.ready .dvc/config.local  ## .venv with the pinned packages

$(VENV)/.ready: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than 3.11; set PYTHON=python3.11 or newer" >&2; exit 1; }
	@command -v git >/dev/null || { echo "make: git is not installed" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: $(PYTHON) lacks venv (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt -c constraints.txt
	@touch $@

# At a commit (`dvc exp push`, `dvc push --all-commits`) DVC takes the url of .dvc/config for /.dvc/sample, and this one not.
.dvc/config.local:
	@printf '[%s]\n    url = sample\n' "'remote \"sample\"'" > $@

pull: setup  ## sample photographs and start weights from the embedded remote
	$(BIN)/dvc pull -q stages/photos/celebrity.dvc stages/photos/id.dvc stages/weights.dvc

repro: pull  ## the whole pipeline: photos to faces, numbers and stages/report/report.html
	$(BIN)/dvc repro

test: setup  ## every test that needs no GPU, on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-experiments: setup  ## queued, temporary, killed, continued and shared experiments
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m experiments $$(grep -l mark.experiments tests/test_*.py)

test-ssh: setup  ## sharing through a real SSH server on loopback
	$(BIN)/python -m pytest -m remote -k ssh -rs $$(grep -l mark.remote tests/test_*.py)

test-remote: setup  ## sharing through real SSH, S3 and WebDAV servers on loopback
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-dev.txt -c constraints.txt
	$(BIN)/python -m pytest -m remote -rs

hooks: setup  ## checks before each commit, data with each checkout and push
	git config core.hooksPath .githooks

doctor: setup  ## what this machine can run
	$(BIN)/python src/doctor.py

lint: setup
	$(BIN)/ruff check .

fuzz: setup  ## ten minutes of damaged and hostile checkpoints; findings lie in .scratch/fuzz
	$(BIN)/python tests/fuzz/fuzz_checkpoints.py --seconds 600

kills: setup  ## training killed at fifty random moments; it must end with the same bytes
	$(BIN)/python tests/fuzz/kill_training.py

bench: setup  ## benchmarks, by hand (bench/storage.py is for itself); results belong into bench/RESULTS.md
	PYTHONPATH=src $(BIN)/python bench/speed.py
	PYTHONPATH=src $(BIN)/python bench/inference.py
