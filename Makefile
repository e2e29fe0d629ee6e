# Everything this project does, in one word each. `make help` lists it.
# Needs python3 (3.11 or newer), g++, make and perl; all else goes into .venv, without root.

# Variables of the targets that hand them on; what they may be, and what holds without them, nibblecore knows (sim/verbs.py).
VARIABLES := MACHINE CONFIG BITS OPT NET STEPS SEED WAVES CHECK COUNT SIZE LIBERTY IMAGE BATCH JSON FILE MEMORY OUTPUT PREFIX ID_BITS ONLY DEVICE BLOCK MUTANT RESUME BOARD MEMORY_BYTES WIRES TRIES KEEP TRANSPORT PORT BAUD MODEL DATA LR

PYTHON  ?= python3
PY      := .venv/bin/python
STAMP   := .venv/.stamp
BOARDS  := .venv/.boards
TORCH   := .venv/.torch

quoted  = '$(subst ','\'',$1)'
# The variables that the user set, as words for nibblecore. With `?=` a target takes only what it has a use for: so with what stands in the
# environment, and with what was typed for several targets at once. PORT in the environment is some other program's.
typed   = $(filter command,$(firstword $(origin $1)))
given   = $(foreach v,$(VARIABLES),$(if $(filter-out undefined $(if $(filter PORT,$v),environment),$(origin $v)),$(call quoted,$v$(if $(and $(call typed,$v),$(filter 1,$(words $(MAKECMDGOALS)))),,?)=$(value $v))))
NIBBLECORE = $(PY) -m nibblecore.sim.cli $@ $(given)

writable = test -w . || { echo "$(CURDIR) cannot be written, which make $(or $(MAKECMDGOALS),help) has to: be its owner, or copy it" >&2; exit 1; }

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup verilog train accuracy virtual-board selftest traffic bandwidth boards bitstream board-project flash listing estimate test test-torch regress area compare utilization endtoend product asm disasm run formal mutants docs figures lint format clean

help: ## list the targets
	@printf 'usage: make <target> [VARIABLE=value ...]\n\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done
	@printf '\nvariables\n'
	@printf '  %-16s %s\n' \
	  MACHINE 'accelerator: ltoaq (the default) or cambriconq; for make test, only that one' \
	  CONFIG 'machine size: tiny, fpga or paper; <size>_fused and paper_eight of ltoaq, <size>_bus of cambriconq' \
	  BITS 'bits of a number in training: 4 (the default on ltoaq) or 8, on cambriconq 4, 8 (the default), 12 or 16' \
	  OPT 'optimizer of cambriconq: sgd (the default), momentum, adagrad, rmsprop, adam or adamw' \
	  NET 'network of cambriconq: mlp (the default), cnn, pool or resnet; make estimate also has plain18' \
	  MODEL 'own network of make train on cambriconq: file.py:function, or a file of ONNX (docs/pytorch.md)' \
	  DATA 'its samples, .npz with x and y' \
	  LR 'learning rate of the first step on cambriconq (default: that of network and optimizer)' \
	  STEPS 'training steps (default: 200, on cambriconq as many as the network needs)' \
	  IMAGE 'edge of the images of make estimate' \
	  BATCH 'images a step, on cambriconq' \
	  JSON '1: make estimate prints JSON' \
	  SEED 'seed of data, weights, stimuli and stalls' \
	  WAVES '1: write a waveform below build/' \
	  CHECK '0: do not compare every result of training with the golden model; 1: make docs changes nothing' \
	  COUNT 'random commands or programs of make regress, faults of a block of make mutants' \
	  DEVICE 'ecp5: make area counts cells of that FPGA, of what a board has' \
	  BLOCK 'block for make area and make mutants, as in ltoaq.output.quantizer (default: all of the machine)' \
	  MUTANT 'number of a fault of the BLOCK: make mutants runs that one again' \
	  SIZE 'edge of the matrices of make endtoend and make product' \
	  LIBERTY 'cell library for make area, make compare and make figures, a .lib or .lib.gz file' \
	  FILE 'program for make asm, make disasm and make run' \
	  MEMORY 'file of what memory holds before make run, from address 0 on' \
	  OUTPUT 'file or folder for what a target writes' \
	  ONLY 'for make figures a text that page or command must have, for make regress the one seed to run' \
	  PREFIX 'what make verilog puts before the name of every module' \
	  ID_BITS 'width of the AXI IDs of make verilog (default: 0, no ID ports)' \
	  RESUME 'checkpoint of make train to go on from; it brings all options along, but STEPS may be more' \
	  TRANSPORT 'what make train runs on: simulation (the default), functional, or serial, a board at PORT=' \
	  PORT 'serial port of a board' \
	  BAUD 'its rate (default: 3000000)' \
	  BOARD 'board: ulx3s (the default) or another that make boards lists' \
	  TRIES 'seeds that make bitstream tries until one meets the clock' \
	  KEEP '1: make flash writes the bitstream to the board'"'"'s flash' \
	  MEMORY_BYTES 'bytes of memory of make virtual-board (default: those of the board)' \
	  WIRES '1: the bytes of make virtual-board go over two wires, bit by bit' \
	  LONG '1: make test runs every bench at every size' \
	  NIBBLECORE_CACHE 'folder for what is compiled once (default: build/, or where that cannot be written ~/.cache/nibblecore)' \
	  PYTHON 'the python3 to make .venv with (now $(PYTHON))'
	@printf '\nMore options of a target, and which machine has it: .venv/bin/nibblecore <target> --help\n'

setup: $(STAMP) ## make the virtual environment .venv (the other targets do it themselves)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "nibblecore needs Python 3.11 or newer, and there is no $(PYTHON); name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "nibblecore needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
	  || { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@for tool in g++ perl; do command -v $$tool > /dev/null || { echo "$$tool is missing: Verilator needs g++, make and perl" >&2; exit 1; }; done
	@$(writable)
	@mkdir -p build; exec 9> build/.setup.lock; $(PYTHON) -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'; \
	test ! $(STAMP) -ot pyproject.toml && test -e $(STAMP) && exit 0; \
	echo "setting up .venv (about two minutes, once) ..."; rm -f $(STAMP); \
	{ test -x $(PY) && $(PY) -c 'import pip' 2> /dev/null || $(PYTHON) -m venv --clear .venv; } && \
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[test]' && touch $(STAMP)

$(BOARDS): $(STAMP)
	@$(writable)
	@echo "installing nextpnr and what it knows of boards (once) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[boards]' && touch $@

$(TORCH): $(STAMP)
	@$(writable)
	@echo "installing PyTorch and ONNX (a minute or more, once) ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[torch-test]' && touch $@

verilog: $(STAMP) ## write build/verilog/<MACHINE>_<CONFIG>.v, linted, with .json, .h, .rdl and .core
	@$(NIBBLECORE)

train: $(STAMP) ## train a network on the simulated accelerator
	@$(NIBBLECORE)

accuracy: $(STAMP) ## test accuracies by network, optimizer, width or seed, with cycles (MACHINE=cambriconq, the default, or ltoaq)
	@$(NIBBLECORE)

virtual-board: $(STAMP) ## run a board's design in simulation behind a pseudo-terminal, for TRANSPORT=serial (BOARD=)
	@$(NIBBLECORE)

boards: $(STAMP) ## list the boards, and what was last built for each
	@$(NIBBLECORE)

bitstream: $(BOARDS) ## make a board's bitstream, in minutes, with a report of use and timing (BOARD=, TRIES=)
	@$(NIBBLECORE)

board-project: $(BOARDS) ## write a board's project for its vendor's tools (BOARD=)
	@$(NIBBLECORE)

flash: $(BOARDS) ## load a board's bitstream into the board (BOARD=, KEEP=1: into its flash)
	@$(NIBBLECORE)

selftest: $(STAMP) ## whether a board at a serial port works (PORT=): link, registers, memory, random commands
	@$(NIBBLECORE)

traffic: $(STAMP) ## what a training step sends over the line between a host and a board
	@$(NIBBLECORE)

bandwidth: $(STAMP) ## what a board's SDRAM carries, by the order of the accesses (BOARD=)
	@$(NIBBLECORE)

estimate: $(STAMP) ## what a training step costs on Cambricon-Q, by phase and lane, without running it
	@$(NIBBLECORE)

listing: $(STAMP) ## print the program of a Cambricon-Q training step with a cycle estimate
	@$(NIBBLECORE)

test: lint ## lint and tests, on two processes (LONG=1: every bench at every size)
	@case '$(subst ','\'',$(CURDIR))' in *[[:space:]]*) echo "make test needs a path without spaces: cocotb's makefiles cannot take them, all other targets can" >&2; exit 1;; esac
	@LONG=$(call quoted,$(LONG)) ONLY=$(call quoted,$(MACHINE)) $(PY) -m pytest -n 2 --dist worksteal --durations 10

test-torch: $(TORCH) ## tests of what imports PyTorch's and ONNX's models, which make test leaves out (LONG=1: every network whole)
	@OMP_NUM_THREADS=1 LONG=$(call quoted,$(LONG)) $(PY) -m pytest -n 2 --durations 10 tests/frontends

regress: $(STAMP) ## random commands or programs on the Verilog against the golden model
	@$(NIBBLECORE)

area: $(STAMP) ## synthesize the parts and the array, print cells and area (LIBERTY=file for µm²)
	@$(NIBBLECORE)

compare: $(STAMP) ## LT-OAQ, wide against fused scheme: utilization, area, path, area × cycles (LIBERTY=file for µm²)
	@$(NIBBLECORE)

utilization: $(STAMP) ## share of peak of LT-OAQ's fused array, for FIFOs of 2 and 4, beside model and bound
	@$(NIBBLECORE)

endtoend: $(STAMP) ## a matrix product on LT-OAQ from its descriptor to the result: cycles, stalls, share of peak
	@$(NIBBLECORE)

product: $(STAMP) ## a large matrix product on Cambricon-Q: cycles, and how busy its array is
	@$(NIBBLECORE)

asm: $(STAMP) ## assemble a Cambricon-Q program (FILE=program.s) to program.bin
	@$(NIBBLECORE)

disasm: $(STAMP) ## print the source of a Cambricon-Q program (FILE=program.bin)
	@$(NIBBLECORE)

run: $(STAMP) ## run a Cambricon-Q program (FILE=program.s or .bin) on the Verilog, beside the functional model
	@$(NIBBLECORE)

formal: $(STAMP) ## run every formal proof, the slow ones too
	@$(NIBBLECORE)

mutants: $(STAMP) ## seed faults in the blocks; see whether bench, proof or the machine's tests find them
	@$(NIBBLECORE)

docs: $(STAMP) ## bring the parts of the manual that come from code up to date
	@$(NIBBLECORE)

figures: $(STAMP) ## measure again what the manual says was measured, and write it there (LIBERTY=file; ONLY=text; hours)
	@$(NIBBLECORE)

lint: $(STAMP) build/typed/nibblecore ## ruff, its formatter and mypy
	@$(writable)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet . || { echo "these files are not formatted; run: make format" >&2; $(PY) -m ruff format --check . >&2; exit 1; }
	@echo "mypy, which may take a minute ..." >&2
	@$(PY) -m mypy

# mypy reads no editable installs: for it a folder with the packages where `import nibblecore.hdl` looks for them.
build/typed/nibblecore:
	@$(writable)
	@mkdir -p $@
	@ln -s ../../../hdl ../../../sim ../../../formal $@

format: $(STAMP) ## format the sources with ruff
	@$(writable)
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

clean: ## remove build/ and caches (.venv stays)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
