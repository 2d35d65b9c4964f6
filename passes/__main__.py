"""`python -m passes FOLDER` repeats the failure in a crash folder; anything else is the `ptqc`
command."""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Exit status as of the command."""
    if len(arguments) == 1 and (Path(arguments[0]) / "run.json").is_file():
        from ir.errors import PtqcError

        from .crash import repeat

        try:
            repeat(Path(arguments[0]))
        except PtqcError as error:
            print(f"ptqc: error: {error}", file=sys.stderr)
            return error.exit_code
        print("the failure did not come back")
        return 0
    from .cli import main as command

    return command(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
