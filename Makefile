# make check          what is asked of a change (PYTHON=python3.9 for another Python); with COVERAGE=yes
#                     some of its tests are those of `make coverage`, which then run once
# make fix            the only target that edits files: format, and what the linter can repair
# make test ARGS=...  the tests, with arguments for pytest: make test ARGS='-k shim -x'
# make coverage       what no test takes of redactor, journal, allowlist and gateway_client
# make properties     the property tests with 1000 examples each, which takes minutes
# make bench          measure, and write the table of docs/benchmarks.md
# make soak-gateway   faults for two gateways on PostgreSQL, for half an hour (ARGS='--minutes 5')
# make check-claude   the checks with the real Claude Code, which npm installs into .data/
# make check-browser  the page in a real browser: Debian's chromium
# make reference      docs/reference.md, from the program itself
# make docs           the site of docs/, in site/; its environment is made from the package index
# make screenshots    the pictures of the page in docs/screenshots/
# Each part runs alone: format-check lint types shell test. Works with GNU make 3.81 and newer.

PYTHON ?= python3
ARGS ?=
COVERAGE ?=
# The rooms of what is measured, and the whole runs that take what those leave of the journal. Measured, a
# test takes twice the time: those that take no line for themselves run with the others.
COVERAGE_TESTS := $(filter-out %_evidence.py %_model.py %_properties.py %_regex.py %_resets.py %_signing.py \
	%_silence.py %_syntax.py %_work.py,$(wildcard tests/redaction/test_*.py tests/journal/test_*.py \
	tests/test_gateway_client*.py)) tests/test_allowlist.py
COVERAGE_RUNS := tests/tools/test_sync.py::test_says_what_it_did \
	tests/runner/test_executor.py::test_every_documented_command_and_the_users_own_are_executed \
	tests/runner/test_upload.py::test_a_proxy_that_takes_less \
	tests/runner/test_upload.py::test_smaller_parts_survive_a_kill
NOT_TWICE := $(addprefix --ignore=,$(COVERAGE_TESTS)) $(addprefix --deselect=,$(COVERAGE_RUNS))
# Most tests wait for processes and the network more than they compute: measured, four of these processes
# keep two cores busy for 77 % of the time. JOBS= runs one test after another.
JOBS ?= 6

MAKEFLAGS += --no-print-directory
# Without bytecode each runner that a test starts compiles all its modules again: half of its start.
unexport PYTHONDONTWRITEBYTECODE
INTERPRETER := $(shell sh .ci/pythons "$(PYTHON)")
ifneq ($(INTERPRETER),)
VERSION := $(shell "$(INTERPRETER)" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Another interpreter, or a changed list of packages, makes another stamp, and so another environment.
SUM := $(shell { cat wrapper/requirements.txt requirements-*.txt; "$(INTERPRETER)" -VV; echo "$(INTERPRETER)"; } | cksum | cut -d' ' -f1)
endif
ENV := .venv-$(VERSION)
STAMP := $(ENV)/stamp-$(SUM)
RUN := $(ENV)/bin/python -m
PYTEST := $(RUN) pytest --durations=30 --durations-min=1
WORKERS := $(if $(JOBS),-n $(JOBS) --dist worksteal)

SH_SCRIPTS := $(wildcard wrapper/*-runner) .ci/pythons
BASH_SCRIPTS := .ci/run .ci/release
SPELLED := $(wildcard *.md *.py) docs .github .ci runner tools kinds journal gateway

# The releases of the tools that are pinned do not run on 3.9.
on_newer = $(if $(filter 3.9,$(VERSION)),@echo "$@: not on Python 3.9 (it runs on the newest)",$(RUN) $(1))

comma := ,

.PHONY: check docs environment format-check lint types shell test check-claude check-browser reference screenshots coverage fix fuzz properties bench bench-redact soak soak-gateway

# In this order: what fails soon first. Types take one core for long; the tests wait now and then.
check: $(STAMP)
	@$(MAKE) -j 2 format-check lint shell types test

environment: $(STAMP)

format-check: $(STAMP)
	$(call on_newer,ruff format --check --quiet --diff .)

lint: $(STAMP)
	$(call on_newer,ruff check --quiet .)
	$(call on_newer,codespell_lib --skip '*.png$(comma)*.pyc' $(SPELLED))

types: $(STAMP)
	$(call on_newer,mypy .)

shell: $(STAMP)
	$(ENV)/bin/shellcheck $(SH_SCRIPTS) $(BASH_SCRIPTS)
	@for script in $(SH_SCRIPTS); do sh -n "$$script" || exit 1; done
	@for script in $(BASH_SCRIPTS); do bash -n "$$script" || exit 1; done

test: $(STAMP)
	$(PYTEST) $(WORKERS) $(if $(COVERAGE),$(NOT_TWICE)) $(ARGS)
	@$(if $(COVERAGE),$(MAKE) coverage)

check-claude: $(STAMP)
	$(PYTEST) tests/claude $(ARGS)

# Four browsers: each waits for nearly half of the time, so that three left a sixth of two cores.
check-browser: $(STAMP)
	$(PYTEST) tests/browser $(if $(JOBS),-n 4 --dist worksteal) $(ARGS)

reference: $(STAMP)
	$(RUN) tests.reference

# In an environment of its own, because no check of a change needs it.
docs: .venv-docs/stamp
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet

.venv-docs/stamp: requirements-docs.txt
	@"$(INTERPRETER)" -m venv --clear .venv-docs
	@.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $@

screenshots: $(STAMP)
	$(RUN) tests.browser.screenshots

fix: $(STAMP)
	$(RUN) ruff check --fix --quiet .
	$(RUN) ruff format --quiet .

properties: $(STAMP)
	$(PYTEST) $(WORKERS) --timeout=1800 --hypothesis-profile=thorough -m hypothesis $(ARGS)

fuzz: $(STAMP)
	$(ENV)/bin/python benchmarks/fuzz_redact.py $(ARGS)

bench: $(STAMP)
	$(ENV)/bin/python benchmarks/write_table.py $(ARGS)

bench-redact: $(STAMP)
	$(ENV)/bin/python benchmarks/bench_redact.py $(ARGS)

# Only of what nothing must get past: pyproject.toml says which modules, and why no others. These tests
# compute more than they wait.
coverage: $(STAMP)
	@rm -f .coverage .coverage.*
	@$(PYTEST) $(if $(JOBS),-n 2 --dist worksteal) --cov --cov-report= $(COVERAGE_TESTS) $(COVERAGE_RUNS) $(ARGS)
	@$(RUN) coverage report --fail-under=99

soak: $(STAMP)
	$(ENV)/bin/python benchmarks/soak.py $(ARGS)

soak-gateway: $(STAMP)
	$(ENV)/bin/python benchmarks/soak_gateway.py $(ARGS)

# pip speaks only if it fails. Compiling all that it installs, not only what is used, would take as long again.
$(STAMP):
	@test -n "$(INTERPRETER)"
	@echo "making $(ENV) with $(INTERPRETER)"
	@rm -rf $(ENV)
	@"$(INTERPRETER)" -m venv $(ENV)
	@$(ENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements-dev.txt >$(ENV)/pip.log 2>&1 || { cat $(ENV)/pip.log >&2; exit 1; }
	@touch $@
