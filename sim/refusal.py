"""What a command refuses."""

__all__ = ["Refusal"]


class Refusal(ValueError):
    """A value that a command cannot take. The command line says so in one line and ends with status 2.

    Parameters
    ----------
    option : str
        Name of the option at fault, as the command's function takes it; the line begins as the user typed it.
    reason : str
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(reason)
        self.option, self.reason = option, reason
