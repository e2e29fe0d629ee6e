"""The command ``nibblecore`` and the targets of make that hand on to it: what a user can type, and what it answers."""

import inspect
import os
import re
import resource
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from nibblecore.sim import cli
from nibblecore.sim.machines import MACHINES
from nibblecore.sim.measure.area import DEVICES, RECIPES
from nibblecore.sim.verbs import VERBS

ROOT = Path(__file__).resolve().parent.parent


def places(verb):
    """Machine and ``"module:function"`` of everything that a verb can run."""
    return [(machine, verb.run if isinstance(verb.run, str) else verb.run[machine]) for machine in verb.machines or ("",)]


@pytest.fixture
def ran(monkeypatch):
    """What the command would have run, in the place of running it: machine or verb, and keyword arguments."""
    calls: list[tuple[str, SimpleNamespace]] = []

    def instead_of(label):
        def call(**values):
            calls.append((label, SimpleNamespace(**values)))
            return 0

        return call

    for verb in VERBS.values():
        for machine, place in places(verb):
            module, _, name = place.partition(":")
            label = machine if isinstance(verb.run, dict) else verb.name
            monkeypatch.setattr(import_module(f"nibblecore.{module}"), name, instead_of(label))
    return calls


def answer(capsys, *words):
    """Status, and the one line that says why."""
    capsys.readouterr()
    status = cli.main(words)
    out, err = capsys.readouterr()
    assert not out and err.endswith("\n") and err.count("\n") == 1, err
    return status, err[:-1]


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_options_are_those_of_the_function(verb):
    for machine, place in places(verb):
        module, _, name = place.partition(":")
        taken = inspect.signature(getattr(import_module(f"nibblecore.{module}"), name)).parameters
        assert set(taken) == {option.name for option in verb.options if option.on(machine)}
        assert all(parameter.default is parameter.empty for parameter in taken.values()), "defaults stand in the table of verbs"


def test_choices_are_those_there_are():
    options = {(verb.name, option.name): option for verb in VERBS.values() for option in verb.options}
    assert tuple(RECIPES) == tuple(options["area", "recipe"].offered("ltoaq"))
    assert tuple(DEVICES) == tuple(options["area", "device"].offered("cambriconq"))
    for verb in VERBS.values():
        for machine in verb.machines:
            for option in verb.options:
                if option.on(machine) and option.choices:
                    default = option.default_on(machine)
                    taken = default if option.many else [default]
                    taken = [] if default is None and option.unset else taken
                    assert set(taken) <= set(option.offered(machine)), f"{verb.name} {option.name}"
    assert options["train", "config"].offered("ltoaq") == list(MACHINES["ltoaq"])


def test_help_lists_verbs_with_their_machines(capsys):
    for words in ([], ["--help"], ["-h"]):
        assert cli.main(words) == 0
        text = capsys.readouterr().out
        for verb in VERBS.values():
            assert re.search(rf"^  {verb.name} +{', '.join(verb.machines) or '–'}  +\S", text, re.M)
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_help_of_a_verb_lists_its_options(verb, capsys):
    assert cli.main([verb.name, "--help"]) == cli.main([verb.name, "SEED=none", "-h"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: nibblecore {verb.name}") and max(map(len, text.splitlines())) <= 120
    for option in verb.known.values():
        shown = option.metavar or option.name.upper() if option.positional else option.switch[2:]
        assert re.search(rf"^  \S*.*\b{shown}\b.*  \S", text, re.M), option.name
    for machine in MACHINES:
        assert (machine in text) == bool(verb.machines)


def test_help_tells_the_machines_apart(capsys):
    cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "4 or 8 on ltoaq (default: 4); 4, 8, 12 or 16 on cambriconq (default: 8)" in text
    assert "network: mlp, cnn, pool or resnet on cambriconq (default: mlp); ltoaq has none" in text
    assert "(default: 200 on ltoaq, as many as the network needs on cambriconq)" in text
    assert "accelerator: ltoaq or cambriconq (default: ltoaq)" in text
    cli.main(["product", "--help"])
    assert "accelerator: cambriconq (default: cambriconq); ltoaq has no product" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("trian", "trian: nibblecore has no such verb; it has verilog, train, .*docs"),
        ("NET=cnn", "NET=cnn: nibblecore has no such verb; .*"),
        ("train NET=cnn", "NET=cnn: ltoaq has no such network; cambriconq has mlp, cnn, pool, resnet"),
        ("train --net cnn", "--net cnn: ltoaq has no such network; cambriconq has mlp, cnn, pool, resnet"),
        ("train --net=cnn", "--net cnn: ltoaq has no such network; cambriconq has mlp, cnn, pool, resnet"),
        ("train --machine cambriconq NET=rnn", "NET=rnn: cambriconq has no such network; it has mlp, cnn, pool, resnet"),
        ("train OPT=adam", "OPT=adam: ltoaq has no such optimizer; cambriconq has sgd, momentum, .*, adamw"),
        ("train MACHINE=cambriconq OPT=lion", "OPT=lion: cambriconq has no such optimizer; it has sgd, momentum, .*, adamw"),
        ("train BITS=12", "BITS=12: ltoaq has no such width; it has 4, 8; cambriconq has 4, 8, 12, 16"),
        ("train BITS=x MACHINE=cambriconq", "BITS=x: cambriconq has no such width; it has 4, 8, 12, 16; ltoaq has 4, 8"),
        (
            "verilog --config tiny_bus",
            "--config tiny_bus: ltoaq has no such configuration; it has tiny, .*; cambriconq has .*tiny_bus.*",
        ),
        ("area MACHINE=cambriconq CONFIG=tiny_fused", "CONFIG=tiny_fused: cambriconq has no .*; ltoaq has .*tiny_fused.*"),
        ("area DEVICE=ice40", "DEVICE=ice40: ltoaq has no such device; it has ecp5"),
        ("area DEVICE=ecp5 LIBERTY=a.lib", "LIBERTY=a.lib: is of a chip's gates, which an FPGA does not have: .*"),
        ("area --device ecp5 --recipe fast", "--recipe fast: is of a chip's gates, .*"),
        ("area --device ecp5 --node 45", "--node 45: is of a chip's gates, .*"),
        ("area BLOCK=boards.block_memory", "BLOCK=boards.block_memory: ltoaq_tiny has no boards.block_memory; it has .*ltoaq.top"),
        ("product CONFIG=huge", "CONFIG=huge: cambriconq has no such configuration; it has [^;]*"),
        ("train MACHINE=tpu", "MACHINE=tpu: there is no such machine; there are ltoaq and cambriconq"),
        ("listing MACHINE=ltoaq", "MACHINE=ltoaq: ltoaq has no listing; cambriconq has"),
        ("compare --machine cambriconq", "--machine cambriconq: cambriconq has no compare; ltoaq has"),
        ("docs MACHINE=ltoaq", "MACHINE=ltoaq: docs takes no MACHINE"),
        ("listing STEPS=3", "STEPS=3: listing takes no STEPS; train, accuracy and traffic do"),
        ("verilog --liberty x", "--liberty: verilog takes no --liberty; area, compare and figures do"),
        ("verilog PREFIX=9a", "PREFIX=9a: no name of a module can begin so; take letters, digits and _, no digit first"),
        ("verilog --prefix a-b", "--prefix a-b: no name of a module can begin so; .*"),
        ("verilog ID_BITS=33", "ID_BITS=33: must be at most 32"),
        ("train STEP=3", "STEP=3: train takes no STEP"),
        ("train --step 3", "--step: train takes no --step"),
        ("train fast", "fast: train takes no such word; .*"),
        ("train --steps", "--steps: expected one argument"),
        ("train STEPS=0", "STEPS=0: must be at least 1"),
        ("train STEPS=many", "STEPS=many: is no whole number"),
        ("train --seed -1", "--seed -1: must not be negative"),
        ("train SEED=18446744073709551616", "SEED=18446744073709551616: must be at most 18446744073709551615"),
        ("train CHECK=no", "CHECK=no: must be 0 or 1"),
        ("bandwidth BOARD=x", "BOARD=x: there is no such board; there are ulx3s, .*"),
        ("accuracy STEPS=2", "STEPS=2: must be at least 3: the cycles are those of the third step"),
        ("train --require nan", "--require nan: must be in 0..1"),
        ("train WAVES=1 --transport functional", "WAVES=1: the functional model has no signals"),
        ("train WAVES=1 TRANSPORT=serial PORT=x", "WAVES=1: a board shows no signals"),
        ("train TRANSPORT=serial", "TRANSPORT=serial: name the board's port: PORT=/dev/ttyUSB0, say"),
        ("train PORT=/dev/ttyUSB0", "PORT=/dev/ttyUSB0: is of TRANSPORT=serial"),
        ("selftest", "selftest: name the board's port: --port /dev/ttyUSB0, or PORT=/dev/ttyUSB0"),
        ("train --waves TRANSPORT=functional MACHINE=cambriconq", "--waves: the functional model has no signals"),
        ("run", "run: name the program: program.s, or FILE=program.s"),
        ("disasm FILE=", "disasm: name the program: program.bin, or FILE=program.bin"),
        ("product --config tiny", "--size 512 .the default.: an operand of 512 rows needs 32768 lines; the buffer has 2048"),
        ("product CONFIG=tiny", "SIZE=512 .the default.: an operand .*"),
        ("compare ROWS=3", "ROWS=3: there is no wide array of 3 × 32 PEs of 4 lanes: .*"),
        ("utilization DEPTHS=2 COLS=3", "COLS=3: must be a multiple of 2"),
    ],
)
def test_refusals(words, line, capsys):
    status, said = answer(capsys, *words.split())
    assert status == 2 and re.fullmatch(line, said), said


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_no_value_makes_it_stumble(verb, capsys, ran):
    """Of every option that is not a file or any text at all, as a word and as a switch."""
    for option in verb.known.values():
        if option.kind not in (Path, str):
            for nonsense in ("~", "-1", "1e999", "1.5"):
                words = [f"{option.variable}={nonsense}"]
                status, said = answer(capsys, verb.name, "FILE?=x", "PORT?=x", *words)
                assert (status, ran) == (2, []) and said.startswith(words[0]), said
            if not option.flag and not option.positional:
                status, said = answer(capsys, verb.name, "FILE?=x", "PORT?=x", option.switch, "~")
                assert (status, ran) == (2, []) and said.startswith(f"{option.switch} ~: "), said


def test_files_that_cannot_be_used(tmp_path, capsys):
    (tmp_path / "a.s").write_text("HALT\n")
    folder, program, beyond = str(tmp_path), str(tmp_path / "a.s"), str(tmp_path / "a.s" / "b")
    for words in (
        ("asm", folder),
        ("asm", "."),
        ("asm", program, "-o", folder),
        ("disasm", beyond),
        ("run", folder),
        ("run", program, f"MEMORY={folder}"),
        ("verilog", f"OUTPUT={beyond}"),
    ):
        status, said = answer(capsys, *words)
        assert status == 1 and re.fullmatch(r"\S+: (Is a|Not a) directory", said), words
    for words in (("area", f"LIBERTY={folder}"), ("compare", f"LIBERTY={beyond}")):
        status, said = answer(capsys, *words)
        assert status == 2 and re.fullmatch(r"LIBERTY=\S+: no Liberty file: (Is a|Not a) directory", said)


def test_what_cannot_be_written_whole_leaves_what_was_there(tmp_path, capsys):
    source, binary = tmp_path / "a.s", tmp_path / "a.bin"
    source.write_text("HALT\n" * 9)
    assert answer(capsys, "asm", str(source), "-o", "/dev/full") == (1, "/dev/full: No space left on device")
    binary.write_bytes(b"before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        assert answer(capsys, "asm", str(source)) == (1, f"{binary}: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert binary.read_bytes() == b"before" and sorted(tmp_path.iterdir()) == [binary, source]


def test_no_source_is_written_over(tmp_path, capsys):
    source = tmp_path / "a.bin"
    source.write_text("HALT\n")
    reason = "is source and binary in one; name another binary with OUTPUT= or --output"
    assert answer(capsys, "asm", str(source)) == (2, f"{source}: {reason}")
    assert answer(capsys, "asm", str(source), "-o", str(source)) == (2, f"-o {source}: {reason}")
    assert source.read_text() == "HALT\n"


def test_both_spellings_give_the_same(ran):
    words = ["MACHINE=cambriconq", "NET=cnn", "BITS=12", "STEPS=3", "WAVES=1", "CHECK=0", "REQUIRE=0.5"]
    switches = [
        "--machine",
        "cambriconq",
        "--net",
        "cnn",
        "--bits",
        "12",
        "--steps",
        "3",
        "--waves",
        "--no-check",
        "--require",
        "0.5",
    ]
    assert cli.main(["train", *words]) == cli.main(["train", *switches]) == cli.main(["train", *words[:3], *switches[6:]]) == 0
    assert ran[0] == ran[1] == ran[2]
    machine, values = ran[0]
    assert (machine, values.net, values.bits, values.steps, values.waves, values.check) == ("cambriconq", "cnn", 12, 3, True, False)
    assert values.config == MACHINES["cambriconq"]["tiny"] and values.require == 0.5


def test_defaults(ran):
    for words in ("regress", "regress MACHINE=cambriconq", "train", "train --machine=cambriconq", "compare --modelled", "compare"):
        assert cli.main(words.split()) == 0
    commands, programs, ltoaq, cambriconq, alone, compared = (values for _, values in ran)
    assert (commands.count, programs.count) == (1300, 1000) and commands.config == MACHINES["ltoaq"]["tiny"]
    assert (ltoaq.bits, cambriconq.bits, cambriconq.opt, ltoaq.steps, ltoaq.check, ltoaq.waves) == (4, 8, "sgd", None, True, False)
    assert cambriconq.net is None and not any(hasattr(ltoaq, name) for name in ("net", "model", "data", "batch", "lr"))
    assert (alone.modelled, compared.modelled) == ([], [3])


def test_several_values(ran):
    for words in (["BLOCK=a b"], ["--block", "a", "b"], ["--block", "a", "--block=b"]):
        assert cli.main(["area", *words]) == 0
    assert all(values.block == ["a", "b"] for _, values in ran) and len(ran) == 3
    assert cli.main(["formal", "arith", "bus", "--list"]) == cli.main(["formal"]) == 0
    assert [(values.names, values.list) for _, values in ran[3:]] == [(["arith", "bus"], True), ([], False)]


def test_words_that_count_for_nothing(ran):
    """Empty ones, and those with ``?=`` that the verb has no use for."""
    assert cli.main(["train", "STEPS=", "NET=", "--bits", "", "FILE?=x", "COUNT?=3", "SEED?=7"]) == 0
    assert cli.main(["endtoend", "RATIOS= "]) == 0
    assert ran.pop()[1].ratios == VERBS["endtoend"].known["ratios"].default
    assert cli.main(["listing", "MACHINE?=ltoaq", "SEED?=7"]) == cli.main(["docs", "MACHINE?=ltoaq"]) == 0
    (machine, values), (listing, _), (docs, _) = ran
    assert (machine, values.steps, values.bits, values.seed) == ("ltoaq", None, 4, 7)
    assert (listing, docs) == ("listing", "docs")


def test_what_has_no_use_for_may_still_be_wrong(capsys):
    assert answer(capsys, "train", "MACHINE?=tpu")[0] == answer(capsys, "train", "NET?=cnn")[0] == 2


COMMAND = "import sys; from nibblecore.sim import cli; sys.exit(cli.main(sys.argv[1:]))"


def test_help_imports_little():
    heavy = "{'numpy', 'amaranth', 'pyosys', 'tqdm', 'sklearn', 'matplotlib'} & set(sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; from nibblecore.sim import cli; cli.main([]); sys.exit({heavy} or 0)"]
    )
    assert run.returncode == 0


def test_without_the_extras(tmp_path):
    """The bare package shows every help, assembles, and says of the rest what to install."""
    (tmp_path / "a.s").write_text("HALT\n")
    (tmp_path / "bare.py").write_text(
        """
import importlib.abc, sys
from pathlib import Path

BASE = {"amaranth", "pyosys", "numpy", "nibblecore", "jschon", "jinja2", "markupsafe", "importlib_resources", "rfc3986"}

class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in BASE | set(sys.stdlib_module_names) and not top.startswith(("_", "pip")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Bare())
from nibblecore.sim import cli
from nibblecore.sim.verbs import VERBS

for verb in VERBS.values():
    assert cli.main([verb.name, "--help"]) == 0
    if verb.extra:
        needed = {"run": [f"FILE={sys.argv[1]}"], "selftest": ["PORT=x"]}
        status = cli.main([verb.name, *needed.get(verb.name, []), f"OUTPUT?={sys.argv[2]}"])
        print(verb.name, status)
assert cli.main(["asm", sys.argv[1]]) == cli.main(["disasm", sys.argv[1][:-1] + "bin"]) == cli.main(["docs", "--check"]) == 0
"""
    )
    command = [sys.executable, str(tmp_path / "bare.py"), str(tmp_path / "a.s"), str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    needing = [verb for verb in VERBS.values() if verb.extra]
    assert [line for line in run.stdout.splitlines() if line in {f"{verb.name} 2" for verb in needing}] == [
        f"{verb.name} 2" for verb in needing
    ]
    lines = [line for line in run.stderr.splitlines() if "is missing" in line]
    assert len(lines) == len(needing), run.stderr
    for verb, line in zip(needing, lines, strict=True):
        assert re.fullmatch(rf"\w+ is missing; install what {verb.name} needs with: pip install 'nibblecore\[{verb.extra}\]'", line)


def test_interrupted(capsys, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("nibblecore.sim.docs"), "main", interrupted)
    assert answer(capsys, "docs") == (130, "interrupted")


def test_a_reader_that_leaves():
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen([sys.executable, "-c", COMMAND, "--help"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert process.communicate()[1] == "" and process.returncode == 1


VARIABLES = re.findall(r"^VARIABLES := (.*)$", (ROOT / "Makefile").read_text(), re.M)[0].split()


def make(*words, dry=True, environment=()):
    """The set-up of .venv counts as done: these tests run in it. Nothing is inherited from a make that runs them."""
    command = ["make", "--no-print-directory", *(["-n"] if dry else []), "-o", ".venv/.stamp", f"PY={sys.executable}", *words]
    inherited = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", *VARIABLES, "LONG", "ONLY")
    forget = [word for name in inherited for word in ("-u", name)]
    return subprocess.run(["env", *forget, *environment, *command], cwd=ROOT, capture_output=True, text=True)


def handed_on(*words, environment=()):
    """Verb and words of each command that make would run."""
    run = make(*words, environment=environment)
    assert run.returncode == 0, run.stderr
    commands = [shlex.split(line) for line in run.stdout.splitlines() if "nibblecore.sim.cli" in line]
    return [command[command.index("nibblecore.sim.cli") + 1 :] for command in commands]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_target(verb):
    assert handed_on(verb) == [[verb]]


def test_make_hands_on_what_was_typed():
    assert handed_on("train", "SEED=3") == [["train", "SEED=3"]]
    typed = ["MACHINE=cambriconq", "NET=lstm", "WAVES=1", "CHECK=0", "STEPS="]
    (words,) = handed_on("train", *typed)
    assert words[0] == "train" and sorted(words[1:]) == sorted(typed)
    assert handed_on("run", "FILE=it's a $file.s") == [["run", "FILE=it's a $file.s"]]
    assert handed_on("area", "LIBERTY=a.lib", "PYTHON=python3", "LONG=1") == [["area", "LIBERTY=a.lib"]]


def test_make_hands_on_the_environment_where_it_is_of_use():
    environment = ["LIBERTY=a.lib", "SEED=7"]
    assert handed_on("train", "SEED=3", environment=environment) == [["train", "SEED=3", "LIBERTY?=a.lib"]]
    assert handed_on("verilog", "area", "LIBERTY=a.lib") == [["verilog", "LIBERTY?=a.lib"], ["area", "LIBERTY?=a.lib"]]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("train", "NET=lstm"), "NET=lstm: ltoaq has no such network; cambriconq has mlp, cnn, pool, resnet"),
        (("listing", "MACHINE=ltoaq"), "MACHINE=ltoaq: ltoaq has no listing; cambriconq has"),
        (("verilog", "MACHINE=tpu"), "MACHINE=tpu: there is no such machine; there are ltoaq and cambriconq"),
        (("run",), "run: name the program: program.s, or FILE=program.s"),
    ],
)
def test_make_shows_refusals(words, line):
    run = make(*words, dry=False)
    assert run.returncode == 2 and run.stdout == ""
    said, *rest = run.stderr.splitlines()
    assert said == line and len(rest) == 1 and rest[0].startswith("make:")


def test_make_tests_of_one_machine():
    for words, only in (((), ""), (("MACHINE=ltoaq",), "ltoaq")):
        run = make("test", *words)
        assert f"ONLY='{only}' " in run.stdout and "LONG='' " in run.stdout
    run = subprocess.run(
        ["env", "ONLY=tpu", sys.executable, "-m", "pytest", "--co", __file__], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 4 and run.stderr == "ERROR: MACHINE=tpu: there is no such machine; there are ltoaq and cambriconq\n\n"


def test_make_help_knows_what_the_verbs_know():
    text = make("help", dry=False).stdout
    variables = set(VARIABLES)
    listed = set(re.findall(r"^  ([A-Z_]+) ", text, re.M))
    assert listed == variables | {"LONG", "PYTHON", "NIBBLECORE_CACHE"}
    known = {option.variable: option for verb in VERBS.values() for option in verb.known.values()}
    assert variables <= set(known)
    for name in ("OPT", "NET"):
        (line,) = re.findall(rf"^  {name} .*", text, re.M)
        assert all(str(value) in line for value in known[name].offered("cambriconq")), line
