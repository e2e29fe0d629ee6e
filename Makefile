# Everything this project does, in one word each. `make help` lists it.
# Needs python3 (3.11 or newer), g++, make and perl; all else goes into .venv, without root.

MACHINE ?= ltoaq
CONFIG  ?= tiny
BITS    ?= $(if $(filter cambriconq,$(MACHINE)),8,4)
OPT     ?=
NET     ?=
STEPS   ?=
SEED    ?=
WAVES   ?= 0
CHECK   ?= 1
LIBERTY ?=
COUNT   ?=
LONG    ?= 0
FILE    ?=
MEMORY  ?=
OUTPUT  ?=

PYTHON  ?= python3
PY      := .venv/bin/python
STAMP   := .venv/.stamp

REGRESS_ltoaq      := -m nibblecore.sim.regress.ltoaq
REGRESS_cambriconq := -m nibblecore.sim.regress.cambriconq

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup verilog train listing test regress area compare formal lint format utilization asm disasm run docs clean

ifeq ($(filter ltoaq cambriconq,$(MACHINE)),)
$(error MACHINE=$(MACHINE) is not known; there are ltoaq and cambriconq)
endif

# `make train SEED=3` becomes `--seed 3`; an empty variable leaves the program its default. WAVES=0 is "no".
option = $(if $($(1)),--$(2) $($(1)))
flag = $(if $(filter-out 0,$($(1))),--$(2))

help: ## list the targets
	@printf 'usage: make <target> [VARIABLE=value ...]\n\n'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-14s %s\n' "$$name" "$$text"; done
	@printf '\nvariables\n'
	@printf '  %-10s %s\n' \
	  CONFIG 'machine size: tiny, fpga or paper; <size>_fused and paper_eight of ltoaq, <size>_bus of cambriconq (now $(CONFIG))' \
	  MACHINE 'accelerator: ltoaq or cambriconq (now $(MACHINE)); for make test, only that one' \
	  BITS 'bits of a number in training: 4 or 8, on cambriconq also 12 or 16 (now $(BITS))' \
	  OPT 'optimizer of cambriconq: sgd, adagrad, rmsprop or adam (empty: sgd)' \
	  NET 'network of cambriconq: mlp, cnn or pool (empty: mlp)' \
	  STEPS 'training steps (empty: 200, on cambriconq as many as the network needs)' \
	  SEED 'seed of data, weights, stimuli and stalls' \
	  WAVES '1: write a waveform below build/' \
	  CHECK '0: do not compare every result of training with the golden model' \
	  COUNT 'random commands or programs of make regress' \
	  LONG '1: make test runs every bench at every size' \
	  FILE 'program for make asm, make disasm and make run' \
	  MEMORY 'file of what memory holds before make run, from address 0 on' \
	  OUTPUT 'file for what memory holds after make run' \
	  PYTHON 'the python3 to make .venv with (now $(PYTHON))' \
	  LIBERTY 'cell library for make area and make compare, a .lib or .lib.gz file'

setup: $(STAMP) ## make the virtual environment .venv (the other targets do it themselves)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "nibblecore needs Python 3.11 or newer, and there is no $(PYTHON); name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "nibblecore needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
	  || { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@for tool in g++ perl; do command -v $$tool > /dev/null || { echo "$$tool is missing: Verilator needs g++, make and perl" >&2; exit 1; }; done
	@echo "setting up .venv (about two minutes, once) ..."
	@rm -f $(STAMP)
	@test -x $(PY) && $(PY) -c 'import pip' 2> /dev/null || $(PYTHON) -m venv --clear .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(STAMP)

verilog: $(STAMP) ## write build/verilog/<MACHINE>_<CONFIG>.v and .json, and lint them
	@$(PY) -m nibblecore.sim.verilog --machine $(MACHINE) --config $(CONFIG)

train: $(STAMP) ## train a network on the simulated accelerator
	@$(PY) -m nibblecore.sim.train --machine $(MACHINE) --config $(CONFIG) --bits $(BITS) $(call option,OPT,opt) $(call option,NET,net) $(call option,STEPS,steps) $(call option,SEED,seed) $(call flag,WAVES,waves) $(if $(filter 0,$(CHECK)),--no-check)

listing: $(STAMP) ## print the program of a Cambricon-Q training step with a cycle estimate
	@$(PY) -m nibblecore.sim.train --machine cambriconq --listing --config $(CONFIG) $(if $(filter file,$(origin BITS)),,--bits $(BITS)) $(call option,OPT,opt) $(call option,NET,net)

test: lint ## lint and tests, on two processes (LONG=1: every bench at every size)
	@LONG=$(LONG) ONLY=$(if $(filter file,$(origin MACHINE)),,$(MACHINE)) $(PY) -m pytest -n 2 --dist worksteal --durations 10

regress: $(STAMP) ## random commands or programs on the Verilog against the golden model
	@$(PY) $(REGRESS_$(MACHINE)) --config $(CONFIG) $(call option,COUNT,count) $(call option,SEED,seed) $(call flag,WAVES,waves)

area: $(STAMP) ## synthesize the parts and the array, print cells and area (LIBERTY=file for µm²)
	@$(PY) -m nibblecore.sim.measure.area --machine $(MACHINE) --config $(CONFIG) $(call option,LIBERTY,liberty)

compare: $(STAMP) ## wide against fused scheme: utilization, area, path, area × cycles (LIBERTY=file for µm²)
	@$(PY) -m nibblecore.sim.measure.compare $(call option,LIBERTY,liberty)

formal: $(STAMP) ## run every formal proof, the slow ones too
	@$(PY) -m nibblecore.formal.runner

lint: $(STAMP) build/typed/nibblecore ## ruff, its formatter and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet . || { echo "these files are not formatted; run: make format" >&2; $(PY) -m ruff format --check . >&2; exit 1; }
	@$(PY) -m mypy

# mypy reads no editable installs: for it a folder with the packages where `import nibblecore.hdl` looks for them.
build/typed/nibblecore:
	@mkdir -p $@
	@ln -s ../../../hdl ../../../sim ../../../formal $@

format: $(STAMP) ## format the sources with ruff
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

utilization: $(STAMP) ## share of peak of the fused array, for FIFOs of 2 and 4, beside model and bound
	@$(PY) -m nibblecore.sim.measure.utilization

asm: $(STAMP) ## assemble a Cambricon-Q program (FILE=program.s) to program.bin
	@test -n "$(FILE)" || { echo "name the program: make asm FILE=program.s" >&2; exit 2; }
	@$(PY) -m nibblecore.sim.compiler.asm $(FILE)

disasm: $(STAMP) ## print the source of a Cambricon-Q program (FILE=program.bin)
	@test -n "$(FILE)" || { echo "name the program: make disasm FILE=program.bin" >&2; exit 2; }
	@$(PY) -m nibblecore.sim.compiler.asm --disassemble $(FILE)

run: $(STAMP) ## run a Cambricon-Q program (FILE=program.s or .bin) on the Verilog, beside the functional model
	@test -n "$(FILE)" || { echo "name the program: make run FILE=program.s" >&2; exit 2; }
	@$(PY) -m nibblecore.sim.run $(FILE) --config $(CONFIG) $(call option,MEMORY,memory) $(call option,OUTPUT,output) $(call option,SEED,seed) $(call flag,WAVES,waves)

docs: $(STAMP) ## bring the parts of the manual that come from code up to date
	@$(PY) -m nibblecore.sim.docs

clean: ## remove build/ and caches (.venv stays)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
