# `make help` lists the targets. Everything runs from .venv, which `make install` makes and the others ask for.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-cluster test-airflow test-image test-browser lint format zip bench-train bench-scaling \
    bench-topk bench-pipeline docs clean

PYTHON_BIN := .venv/bin/python
INSTALLED := .venv/.installed
BENCH := .venv/.installed-bench
AIRFLOW := .venv-airflow/.installed

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## Make .venv, see to Java, fetch Delta's jars (once; 1 to 2 minutes)

$(INSTALLED): pyproject.toml deploy/venv.sh deploy/java.sh deploy/delta_jars.py
	@deploy/java.sh
	@echo "installing into .venv" >&2
	@deploy/venv.sh .venv demo,test,lint
	@$(PYTHON_BIN) deploy/delta_jars.py
	@touch $@

demo: $(INSTALLED)  ## A grocery's year from raw purchases to ranked lists, compared with popularity (3 minutes)
	$(PYTHON_BIN) jobs/pipeline.py --config conf/completejourney.yaml --run-id demo --as-of 2017-12-01 --promote \
	    --set storage.root=data/demo

test: $(INSTALLED)  ## The fast tests, on real local Spark and Delta, in two processes
	@$(PYTHON_BIN) -m pytest -n 2 --dist loadfile

test-slow: $(INSTALLED)  ## Whole stories, real logs (which skip where they are absent), many generated inputs
	@$(PYTHON_BIN) -m pytest -m 'slow or generated' --hypothesis-profile thorough -n 2 --dist loadfile

test-cluster: $(INSTALLED)  ## The tests that start a standalone cluster on loopback
	@$(PYTHON_BIN) -m pytest -m cluster

$(AIRFLOW): deploy/airflow/requirements.txt | $(INSTALLED)
	@echo "installing Airflow into .venv-airflow" >&2
	@$(PYTHON_BIN) -m venv --clear .venv-airflow
	@.venv-airflow/bin/pip install -qq --disable-pip-version-check --requirement deploy/airflow/requirements.txt
	@touch $@

test-airflow: $(INSTALLED) $(AIRFLOW)  ## The tests that run the DAGs by Airflow, which they install into .venv-airflow
	@$(PYTHON_BIN) -m pytest -m airflow

test-image: $(INSTALLED)  ## The tests that build the image in a chroot (root, apt-get install debootstrap)
	@$(PYTHON_BIN) -m pytest -m image

test-browser: $(INSTALLED)  ## The tests that open the report in a headless Chromium (apt-get install chromium)
	@$(PYTHON_BIN) -m pytest -m browser

lint: $(INSTALLED)  ## Ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

format: $(INSTALLED)  ## Let ruff format and mend what it can
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

zip: $(INSTALLED)  ## dist/recsys_spark.zip, the package for spark-submit --py-files
	@$(PYTHON_BIN) deploy/archive.py dist/recsys_spark.zip

$(BENCH): $(INSTALLED)
	@.venv/bin/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

bench-train: $(BENCH)  ## Time an epoch beside implicit and Spark MLlib (4 minutes; writes data/bench-train.json)
	@env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(PYTHON_BIN) -m benchmarks.train --json data/bench-train.json

bench-topk: $(BENCH)  ## Time the scorer beside the bare matrix product, implicit and Spark MLlib (2 minutes)
	@env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(PYTHON_BIN) -m benchmarks.topk --json data/bench-topk.json

bench-scaling: $(BENCH)  ## Time and bytes of an epoch as interactions and users grow, to 50 million
	@env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(PYTHON_BIN) -m benchmarks.scaling \
	    --json data/bench-scaling.json --plot data/bench-scaling.svg

bench-pipeline: $(BENCH)  ## Time ingest and features of a dirty log of 20 million events beside reading, sorting, writing it
	@env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(PYTHON_BIN) -m benchmarks.pipeline \
	    --interactions 20000000 --json data/bench-pipeline.json

docs: $(INSTALLED)  ## Write docs/configuration.md from the models
	@$(PYTHON_BIN) -c 'from recsys_spark.config_page import reference; print(reference(), end="")' > docs/configuration.md

clean:  ## Delete the environments, the demo's tables and caches; other tables under data/ stay
	rm -rf .venv .venv-airflow data/demo dist build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
