# SPDX-License-Identifier: GPL-2.0-or-later
# Every step that needs more than a line lives in .ci/; `make help` lists the targets.

PYTHON_ANY ?= $(shell command -v python3 || echo /usr/bin/python3)
WORKER      = .venv/bin/python
QGIS_TESTS  = .venv-qgis/bin/python
# Runs a command with QGIS off screen, in a private profile, with the paths of this checkout.
RUN         = $(PYTHON_ANY) .ci/qgis_env.py run
# Runs a script with the Python that QGIS uses. (A version manager's python3 would put itself on the path.)
RUN_QGIS    = $(RUN) sh -c 'exec "$$QGIS_PYTHON" "$$@"' python
UV          = .venv/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
              --no-emit-index-url --no-header
PROFILE    ?= default

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo demo-chicago reproduction test test-core test-qgis test-headless test-packaging check \
        format lock build package deploy screenshots clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

setup: setup-qgis setup-worker setup-dev setup-qgis-tests ## Install QGIS if absent and make both Python environments

# One set-up step: qgis, worker, dev, qgis-tests or screen. Each ends at once when it has nothing to do.
setup-%:
	@bash .ci/setup.sh $*

demo: setup-qgis setup-worker build ## Forecast the shipped sample of Toronto, with a picture in build/demo
	$(RUN_QGIS) benchmarks/demo.py --data toronto

demo-chicago: setup-qgis setup-worker build ## The same with the Chicago data in GRIDCAST_DATA
	$(RUN_QGIS) benchmarks/demo.py --data chicago

bench-%: setup-qgis setup-worker build ## Run benchmarks/NAME.py
	$(RUN) $(WORKER) benchmarks/$*.py

bench-accuracy-quick: setup-worker ## Accuracy of the Gridcast network in a few minutes: Chicago, one seed
	$(WORKER) benchmarks/accuracy.py --quick

reproduction: setup-worker ## Run the seed systems on the data in GRIDCAST_DATA (an hour) and write docs/method/reproduction.md
	$(WORKER) benchmarks/reproduction/s1.py
	$(WORKER) benchmarks/reproduction/s2.py
	$(WORKER) benchmarks/reproduction/s3_s4.py
	$(WORKER) benchmarks/reproduction/report.py

test: test-core test-qgis test-headless test-packaging ## Run all tests

test-core: setup-worker setup-dev ## Test the science, without QGIS
	$(WORKER) -m pytest tests/core $(PYTEST_ARGS)

test-qgis: setup-qgis setup-worker setup-qgis-tests ## Test the plugin inside QGIS
	@rm -rf .qgis-settings # the profile that pytest-qgis makes
	$(RUN) $(QGIS_TESTS) -m pytest tests/qgis $(PYTEST_ARGS)

test-headless: setup-qgis setup-worker setup-qgis-tests package ## Test the packaged plugin through qgis_process
	$(RUN) $(QGIS_TESTS) -m pytest -p no:pytest_qgis tests/headless $(PYTEST_ARGS)

test-packaging: setup-worker setup-dev ## Test the zip and the tools that make it
	$(WORKER) -m pytest tests/packaging $(PYTEST_ARGS)

check: setup-worker setup-dev ## Format, lint, types, security, import guards, plugin rules
	@$(WORKER) .ci/check.py

format: setup-worker setup-dev ## Format the sources and apply safe fixes
	$(WORKER) -m ruff check --fix-only --quiet .
	$(WORKER) -m ruff format .

lock: setup-worker setup-dev ## Refresh the locked requirements; LOCK_ARGS=--upgrade takes newer versions
	cd resources/worker && ../../$(UV) $(LOCK_ARGS) worker.in -o worker.lock
	cd .ci && ../$(UV) $(LOCK_ARGS) -c ../resources/worker/worker.lock dev.in -o dev.lock
	cd .ci && ../$(UV) $(LOCK_ARGS) qgis-tests.in -o qgis-tests.lock
	cd .ci && ../$(UV) $(LOCK_ARGS) qgis-tests-322.in -o qgis-tests-322.lock

build: ## Assemble the plugin folder build/plugin/gridcast_qgis
	@$(PYTHON_ANY) .ci/build.py folder

package: build ## Make the reproducible plugin zip and check it against the plugin repository's rules
	@$(PYTHON_ANY) .ci/build.py zip

deploy: build ## Install the plugin in your QGIS profile; PROFILE=name picks another than default
	@$(PYTHON_ANY) .ci/deploy.py --profile "$(PROFILE)"

screenshots: setup-qgis setup-worker setup-screen build ## Make the screenshots of docs/ in a real window
	$(RUN) --screen sh -c 'exec "$$QGIS_PYTHON" "$$@"' python docs/screenshots.py

clean: ## Remove what was built; the environments stay
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .hypothesis .qgis-settings
