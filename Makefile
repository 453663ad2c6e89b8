# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` are complete on a machine that has Python: they make .venv and install.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

DEMO_DATA := data/ds-phantom
DEMO_OUT := demo-output
DEMO_WORK := demo-work

# loadfile: tests that share an expensive fixture stay in one worker
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-cluster validate lint format bench clean distclean

help:
	@echo 'make demo    run ctpprep on the example in $(DEMO_DATA), say where the results are'
	@echo 'make test    run the tests'
	@echo 'make validate  check the example and what make demo wrote with the BIDS validator'
	@echo 'make test-offline  the same without a network interface (Linux)'
	@echo 'make test-resume   kill runs of the command at random moments and take them up again'
	@echo 'make test-cluster  run jobs of a SLURM on this machine (as root on Debian, installs it)'
	@echo 'make lint    check code style and types'
	@echo 'make format  rewrite the code in the style that lint checks'
	@echo 'make bench   measure accuracy and a cohort on phantoms with known truth, and speed'
	@echo 'make clean   remove what the others wrote, but not $(VENV) (make distclean does)'
	@echo
	@echo 'All of them install into $(VENV); make PYTHON=python3.12 ... picks the Python.'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'ctpprep needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo '$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv' >&2; exit 1; }

# One stamp for each set of extras; installed again only when the metadata change.
$(VENV)/.installed-%: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.$(EXTRAS)'
	@touch $@

$(VENV)/.installed-tests: EXTRAS := [tests]
$(VENV)/.installed-lint: EXTRAS := [lint]

demo: $(VENV)/.installed-run
	$(BIN)/ctpprep $(DEMO_DATA) $(DEMO_OUT) participant --work-dir $(DEMO_WORK)
	@show() { \
		found=$$(find $(DEMO_OUT) -name "$$2" | sort); \
		[ -n "$$found" ] || { echo "the demo wrote no $$2 into $(DEMO_OUT)" >&2; exit 1; }; \
		printf '\n%s\n' "$$1"; printf '%s\n' "$$found" | sed 's/^/    /'; \
	}; \
	show 'Reports (open in a browser)' 'sub-*.html'; \
	for map in cbf cbv mtt tmax ttp; do \
		show "$$map maps" "sub-*_$$map.nii.gz"; \
	done; \
	show 'CBF relative to normal tissue and to the other hemisphere' 'sub-*_rcbf.nii.gz'; \
	show 'Volume tables (mL)' '*_seg-perfusion_morph.tsv'

test: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile $(PYTEST_ARGS)

validate: $(VENV)/.installed-tests
	$(BIN)/python -m ctpprep.bids_schema $(DEMO_DATA)
	$(BIN)/python -m ctpprep.bids_schema $(DEMO_OUT)

# Where namespaces are forbidden, the reason is said and nothing is run.
test-offline: $(VENV)/.installed-tests
	@if unshare --map-current-user --net true; then \
		unshare --map-current-user --net $(BIN)/python -m pytest -q $(PYTEST_ARGS); \
	else \
		echo 'not run: a network namespace cannot be made here (unshare --net)'; \
	fi

test-resume: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -q -m resume

test-cluster: $(VENV)/.installed-tests
	@if why=$$(tests/tools/install_slurm.sh); then \
		$(BIN)/python -m pytest -q -m cluster; \
	else \
		echo "SKIPPED: $$why"; \
	fi

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed-run
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/cohort.py
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache $(DEMO_OUT) $(DEMO_WORK)
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
