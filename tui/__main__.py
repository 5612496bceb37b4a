"""Entry point of `vocable`: a command, or the terminal program when no command is given."""

from __future__ import annotations

import io
import sys

from tui.cli.app import run_command_line


def main() -> int:
    """Run the program with the arguments of the process and return its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path or prompt that the terminal's encoding lacks is shown escaped, as stderr does, and ends nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    return run_command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
