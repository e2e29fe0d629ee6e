"""Cambricon-Q as a functional model behind the transport's interface: same registers, programs and memory, no time."""

from nibblecore.hdl.cambriconq.program.isa import INSTRUCTION_BYTES, decode
from nibblecore.hdl.cambriconq.registers import ID, REGISTERS, config_words
from nibblecore.hdl.config import CambriconqConfig
from nibblecore.sim.golden.cambriconq.machine import Machine, MachineError
from nibblecore.sim.golden.cambriconq.vector.sfu_function import function
from nibblecore.sim.host.functional import ModelTransport

__all__ = ["FunctionalTransport"]


class FunctionalTransport(ModelTransport):
    """Runs every program on the golden model the moment it is started.

    Memory, flags, ERROR and INDEX are those of the RTL, but that of several wrong operands of a product the RTL may meet another one
    first. Counters stay 0: there is no time here. Instructions run one after the other, so STARTED is INDEX (`run_on`).

    Parameters
    ----------
    config : CambriconqConfig
        Of any size, also one that the hardware does not take.
    memory_size : int
        Bytes, a multiple of 4.

    Members
    -------
    machine : Machine
        NBout, which no instruction has to write before another reads it, is 0 after a reset.
    """

    machine: Machine

    def __init__(self, config: CambriconqConfig, memory_size: int = 1 << 24) -> None:
        self.config = config
        super().__init__(REGISTERS, ID, config_words(config), memory_size)

    def reset(self) -> None:
        super().reset()
        self.machine = Machine(self.config, self.memory, function)

    def run_on(self, entry: int, started: int) -> None:
        """After a program at `entry` that was stopped: run those behind INDEX and below `started`, as far as they do not fail.

        The RTL, whose lanes work side by side, has started that many.
        """
        self.machine.run_on(entry, decode, INSTRUCTION_BYTES, self._registers["INDEX"] + 1, started)

    def _command(self, name: str, value: int) -> None:
        if name == "START":
            self._run(value)
        elif REGISTERS["CONTROL"].unpack(value)["clear_flags"]:
            self.machine.nan_seen = self.machine.infinity_seen = False
            self._flags()

    def _run(self, entry: int) -> None:
        self.machine.memory = self.memory[: (self._registers["MEMORY_LAST"] + 1) & ~3]
        code = 0
        try:
            index = self.machine.run(entry, decode, INSTRUCTION_BYTES) - 1
        except MachineError as error:
            self.detail = str(error)
            code, index = int(error.code), error.index
        self._registers.update(ERROR=code, INDEX=index, STARTED=index)
        self._flags()
        self._set("IRQ_STATUS", done=1)

    def _flags(self) -> None:
        self._set("STATUS", nan=int(self.machine.nan_seen), infinity=int(self.machine.infinity_seen))
