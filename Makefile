# The study and its tests. Needs Python 3.11 and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SITE := .venv-site
SITE_INSTALLED := $(SITE)/.installed

.DEFAULT_GOAL := help
.PHONY: help install repro audit audit-repeat claims claims-large committees hidden hidden-repeat hidden-tuning repeat claims-tuning scale scale-tuning survey tuning images images-tuning images-weak images-weak-tuning images-all benchmark genes genes-tuning decay models test lint format bench pages site clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(INSTALLED)  ## Make .venv with the pinned requirements

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Python 3.11 is needed, found " + sys.version.split()[0] + "; name one: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.lock
	@# What pip would do on one core. Modules for a later Python do not compile, which pip is silent of, too.
	@$(BIN)/python -m compileall -q -q -j 0 $(VENV)/lib || true
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Items side by side on all cores; DVC then has nothing left to do, and says so.
WHOLE = PATH="$(CURDIR)/$(BIN):$$PATH" sh -ec 'python -m rarenodes grid --all; dvc repro'

repro: $(INSTALLED)  ## Rebuild every result of the default study
	@$(WHOLE)

audit: $(INSTALLED)  ## Rebuild the audit of the released code: three hours of a core; needs the benchmark data
	@cd studies/audit && $(WHOLE)

audit-repeat: $(INSTALLED)  ## The audit once more with other seeds, without its batches of four: an hour and a half of a core
	@cd studies/audit_repeat && $(WHOLE)

claims: $(INSTALLED)  ## Uncertainties, schedules and oversampling at equal budgets: three quarters of an hour
	@cd studies/claims && $(WHOLE)

claims-large: $(INSTALLED)  ## The same uncertainties with ensembles of ten: hours
	@cd studies/claims_large && $(WHOLE)

committees: $(INSTALLED)  ## Committees against more networks of one kind: a quarter of an hour
	@cd studies/committees && $(WHOLE)

repeat: $(INSTALLED)  ## The default study once more with another seed: a quarter of an hour
	@cd studies/repeat && $(WHOLE)

hidden-tuning: $(INSTALLED)  ## Search the budgets of neighbours in hidden layers: half an hour
	@cd studies/hidden_tuning && $(WHOLE)

hidden: $(INSTALLED)  ## Neighbours in hidden layers against the networks themselves: a quarter of an hour
	@cd studies/hidden && $(WHOLE)

hidden-repeat: $(INSTALLED)  ## The same with other splits, and ten networks: a quarter of an hour
	@cd studies/hidden_repeat && $(WHOLE)

claims-tuning: $(INSTALLED)  ## Search the budgets of that study on validation data: half an hour
	@cd studies/claims_tuning && $(WHOLE)

scale: $(INSTALLED)  ## Train on all of ICD-10-CM: an hour and a half
	@cd studies/scale && $(WHOLE)

scale-tuning: $(INSTALLED)  ## Search the budgets of that study on validation data: an hour and a half
	@cd studies/scale_tuning && $(WHOLE)

survey: $(INSTALLED)  ## Train every variant of the catalogue with one budget: an hour
	@cd studies/survey && $(WHOLE)

tuning: $(INSTALLED)  ## Search every variant's budget on validation data: hours
	@cd studies/tuning && $(WHOLE)

images: $(INSTALLED)  ## Images, little data: a slice in five minutes
	@cd studies/images_slice && $(WHOLE)

images-tuning: $(INSTALLED)  ## Search the budgets of that slice on validation data: a quarter of an hour
	@cd studies/images_tuning && $(WHOLE)

images-weak: $(INSTALLED)  ## Images with weak encoders: a quarter of an hour
	@cd studies/images_weak && $(WHOLE)

images-weak-tuning: $(INSTALLED)  ## Search the budgets of that study on validation data: three quarters of an hour
	@cd studies/images_weak_tuning && $(WHOLE)

images-all: $(INSTALLED)  ## All encoders, shares of the data and variants: a day
	@cd studies/images && $(WHOLE)

benchmark: $(INSTALLED)  ## The paper's claims on its own kind of data: hours; says how many first
	@cd studies/benchmark && PATH="$(CURDIR)/$(BIN):$$PATH" sh -ec 'dvc repro prepare; python -m rarenodes check'
	@cd studies/benchmark && $(WHOLE)

genes: $(INSTALLED)  ## The paper's claims on gene sets at equal budgets: an hour of a core for each set
	@cd studies/genes && $(WHOLE)

genes-tuning: $(INSTALLED)  ## Search the budgets of the gene sets on validation data: twenty minutes of a core for each set
	@cd studies/genes_tuning && $(WHOLE)

decay: $(INSTALLED)  ## The benchmark's largest set and one more, with and without weight decay: two hours
	@cd studies/decay && $(WHOLE)

models: $(INSTALLED)  ## Keep the recommended models of the default study's sources: minutes
	@cd studies/models && $(WHOLE)

test: $(INSTALLED)  ## Run all tests
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)  ## Check format and style
	$(BIN)/ruff format --check . && $(BIN)/ruff check .

format: $(INSTALLED)  ## Format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## Measure speed and memory: a quarter of an hour
	$(BIN)/python -m benches

pages: $(INSTALLED)  ## Render the executed notebooks as HTML into scratch/pages
	$(BIN)/python -m jupyter nbconvert --to html --output-dir scratch/pages $$(find reports -name '*.ipynb')

$(SITE_INSTALLED): $(INSTALLED) site/requirements.lock
	$(BIN)/python -m venv $(SITE)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$($(SITE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/study.pth
	$(SITE)/bin/python -m pip install --quiet --constraint requirements.lock --requirement site/requirements.lock
	@touch $@

site: $(SITE_INSTALLED)  ## Build the web pages into scratch/site/html: two minutes
	rm -rf scratch/site
	PYTHONPATH=site $(SITE)/bin/python -m sitepages scratch/site/sources
	$(SITE)/bin/python -m sphinx -q -W --keep-going -j 2 -b html -c site -d scratch/site/doctrees scratch/site/sources scratch/site/html
	@echo "Open scratch/site/html/index.html"

clean:  ## Remove scratch files; results and the environment stay
	rm -rf scratch .pytest_cache .ruff_cache .hypothesis
