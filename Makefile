# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` are complete on a machine that has Python: they make .venv and install.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

DEMO_DATA := data/ds-phantom
DEMO_OUT := demo-output
DEMO_WORK := demo-work
DOCS_OUT := docs/_build

# loadfile: tests that share an expensive fixture stay in one worker; tests/conftest.py orders the files
IN_PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
PYTEST_ARGS ?= --maxprocesses 4

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-robustness test-browser test-cluster test-dicom test-container check-container audit lock validate docs lint format bench clean distclean

help:
	@echo 'make demo    run ctpprep on the example in $(DEMO_DATA), say where the results are'
	@echo 'make test    run the tests'
	@echo 'make test-quick  run a subset of them within a minute'
	@echo 'make test-offline  run whole series, phantoms and templates without a network interface (Linux)'
	@echo 'make docs    build the documentation and check it; runs the demo for its pictures if need be'
	@echo 'make validate  check the example and what make demo wrote with the BIDS validator'
	@echo 'make test-resume   kill runs of the command at random moments and take them up again'
	@echo 'make test-robustness  give the command bad inputs and fuzzed headers and sidecars'
	@echo 'make test-browser  look at the pages with a headless Chromium (as root on Debian, installs it)'
	@echo 'make test-cluster  run jobs of a SLURM on this machine (as root on Debian, installs it)'
	@echo 'make test-dicom  send to DICOM servers (as root on Debian, installs them), series of all vendors to volumes'
	@echo 'make test-container  build the image, run it, compare with a run outside (as root on Debian)'
	@echo 'make lint    check code style, types, the English of docstrings, messages and names, and .github'
	@echo 'make format  rewrite the code in the style that lint checks'
	@echo 'make bench   measure accuracy and a cohort on phantoms with known truth, and speed'
	@echo 'make audit   known vulnerabilities of the locked versions, where a registry answers'
	@echo 'make lock    write the lock files again (UPGRADE=--upgrade for newer versions)'
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
$(VENV)/.installed-docs: EXTRAS := [docs,tests]
$(VENV)/.installed-lint: EXTRAS := [lint]
$(VENV)/.installed-audit: EXTRAS := [audit]
$(VENV)/.installed-lock: EXTRAS := [lock]

# What the image is built from, outside: the same versions, checked by the same hashes.
LOCKED := $(VENV)-locked
$(LOCKED)/.installed: requirements.lock requirements-build.lock setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m venv --clear $(LOCKED)
	$(LOCKED)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock
	$(LOCKED)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--use-pep517 --require-hashes -r requirements.lock
	$(LOCKED)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

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
	$(BIN)/python -m pytest -q $(IN_PARALLEL) $(PYTEST_ARGS)

# Files that need neither a simulated head nor a run: 50 s of processor time.
QUICK := tests/io tests/inputs tests/scripts tests/cli/test_machine.py tests/test_cluster_script.py \
	tests/test_docs.py tests/test_layout.py tests/test_readme.py tests/test_settings.py \
	$(patsubst %,tests/perfusion/test_%.py,bayesian deconvolution grid maps normalization quality \
	segmentation volumes) ctpprep/settings.py ctpprep/io ctpprep/cli

test-quick: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -q $(IN_PARALLEL) $(PYTEST_ARGS) $(QUICK)

validate: $(VENV)/.installed-tests
	$(BIN)/python scripts/bids_schema.py $(DEMO_DATA)
	$(BIN)/python scripts/bids_schema.py $(DEMO_OUT)

# Pictures are those of the demo, which is run afresh when the code or the example is newer than its page:
# the work folder knows versions, not edits.
$(DEMO_OUT)/sub-01.html: $(shell find ctpprep $(DEMO_DATA) -type f -not -name '*.pyc')
	rm -rf $(DEMO_WORK)
	$(MAKE) --no-print-directory demo

docs: $(VENV)/.installed-docs $(DEMO_OUT)/sub-01.html
	rm -rf $(DOCS_OUT) docs/api
	$(BIN)/python docs/example_cohort.py $(DEMO_OUT) $(DOCS_OUT)/cohort
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet \
		--doctree-dir $(DOCS_OUT)/doctrees docs $(DOCS_OUT)/html
	$(BIN)/python -m pytest -q -m docs tests/docs
	@printf '\nDocumentation (open in a browser)\n    $(DOCS_OUT)/html/index.html\n'

# Whole runs, templates, phantoms and the command line: all that could want a file from outside.
OFFLINE_TESTS := tests/test_end_to_end.py tests/test_offline.py tests/test_isles24.py tests/cli \
	tests/phantom tests/interfaces/test_template.py tests/group/test_locations.py
# Where namespaces are forbidden, the reason is stated and nothing is run.
test-offline: $(VENV)/.installed-tests
	@if unshare --map-current-user --net true; then \
		unshare --map-current-user --net $(BIN)/python -m pytest -q $(IN_PARALLEL) $(PYTEST_ARGS) \
			$(OFFLINE_TESTS); \
	else \
		echo 'not run: a network namespace cannot be made here (unshare --net)'; \
	fi

test-resume: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -q -m resume

test-robustness: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -q $(IN_PARALLEL) -m robustness

test-browser: $(VENV)/.installed-tests
	@if why=$$(tests/tools/install_chromium.sh); then \
		$(BIN)/python -m pytest -q -m browser tests/browser; \
	else \
		echo "SKIPPED: $$why"; \
	fi

test-cluster: $(VENV)/.installed-tests
	@if why=$$(tests/tools/install_slurm.sh); then \
		$(BIN)/python -m pytest -q -m cluster; \
	else \
		echo "SKIPPED: $$why"; \
	fi

# without the servers, the tests of sending are skipped
test-dicom: $(VENV)/.installed-tests
	@why=$$(tests/tools/install_dicom_servers.sh) || echo "SKIPPED: $$why"
	$(BIN)/python -m pytest -q -m dicom tests/dicom

test-container: $(VENV)/.installed-tests
	@if why=$$(tests/tools/install_container_tools.sh); then \
		$(MAKE) --no-print-directory check-container; \
	else \
		[ -n "$$why" ] && echo "SKIPPED: $$why"; \
	fi

check-container: $(VENV)/.installed-tests $(LOCKED)/.installed
	version=$$($(LOCKED)/bin/ctpprep --version) && \
		PYTHON=$(BIN)/python tests/tools/build_image.sh ctpprep:test "$${version#ctpprep }"
	CTPPREP_LOCKED=$(LOCKED) $(BIN)/python -m pytest -q -m container tests/container
	@echo && cat .container/measured.txt

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python scripts/check_prose.py
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

format: $(VENV)/.installed-lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

audit: $(VENV)/.installed-audit
	$(BIN)/python scripts/audit.py requirements.lock requirements-build.lock requirements-sbom.lock

# Versions that still do are kept; for newer ones: make lock UPGRADE=--upgrade
COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links $(UPGRADE)
lock: $(VENV)/.installed-lock
	$(COMPILE) --output-file requirements.lock setup.cfg
	$(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(COMPILE) --output-file requirements-build.lock -
	echo 'cyclonedx-bom>=7' | $(COMPILE) --output-file requirements-sbom.lock -

bench: $(VENV)/.installed-run
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/cohort.py
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache $(DEMO_OUT) $(DEMO_WORK) \
		$(DOCS_OUT) docs/api
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(LOCKED) .container
