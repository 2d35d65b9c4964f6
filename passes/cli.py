"""The `ptqc` command: read the arguments, run one command, say every error in one line.

Exit status: 0 done; 1 a defect of ptqc; 2 wrong use; 4 model, 5 data, 6 recipe or options, 7 step,
8 verification, 9 runtime, 10 output, 3 any other reason; 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import NoReturn

from . import command
from .command.screen import Screen

STOPPED = 130
DISK_FULL = 28  # errno.ENOSPC, as on every system that has it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ptqc` with these arguments (default: those of the process); returns the exit status."""
    parser = build_parser()
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:  # --help, --version, or a wrong use that argparse has explained
        return int(stop.code or 0)
    screen = Screen(args.json)
    try:
        with _plain_warnings(screen), _stopped_by_sigterm():
            found = args.module.run(args, screen)
            screen.json(found)
        return 0
    except KeyboardInterrupt:
        screen.say(f"ptqc: stopped; {args.module.stopped(args)}")
        return STOPPED
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if args.traceback:
            traceback.print_exception(error)
        line, status = explained(error)
        screen.say(f"ptqc: error: {line}")
        return status


def explained(error: Exception) -> tuple[str, int]:
    """One line for an error, and the exit status."""
    from ir.errors import OutputError, PtqcError

    if isinstance(error, PtqcError):
        return str(error), error.exit_code
    told = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError):
        return (
            f"not enough memory: {told}; use a smaller --batch, or fewer --samples",
            PtqcError.exit_code,
        )
    if isinstance(error, OSError) and error.errno == DISK_FULL:
        return f"the disk is full: {told}; free some space", OutputError.exit_code
    return (
        f"defect of ptqc, {type(error).__name__}: {told[:300]}; "
        "run again with --traceback and report what it prints",
        1,
    )


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command of `passes.command`."""
    parser = _Parser(
        prog="ptqc",
        description="Make a trained model smaller and faster by quantizing it after training.",
        epilog=_paragraphs((__doc__ or "").split("\n\n")[1], _overview()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name in command.NAMES:
        module = importlib.import_module(f"passes.command.{name}")
        summary, _, rest = (module.__doc__ or "").strip().partition("\n\n")
        own = commands.add_parser(
            name,
            help=summary.rstrip("."),
            formatter_class=_Formatter,
            description=_paragraphs(summary, rest),
            epilog=_paragraphs("example:", module.EXAMPLE),
        )
        module.arguments(own)
        own.add_argument(
            "--json",
            metavar="FILE",
            help="also write the results as JSON; - is stdout, where then nothing else goes",
        )
        own.add_argument("--traceback", action="store_true", help="show where an error came from")
        own.set_defaults(module=module)
    return parser


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Paragraphs as written, and defaults of options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, []) or action.nargs == 0:
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """argparse, with our form of an error line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"ptqc: error: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None) -> NoReturn:
        from .command.screen import version

        print(f"ptqc {version()}")
        parser.exit()


def _overview() -> str:
    return "examples:\n" + "\n".join(
        _module(name).EXAMPLE.split("\n\n")[0] for name in command.NAMES
    )


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"passes.command.{name}")


def _paragraphs(*parts: str) -> str:
    return "\n\n".join(textwrap.dedent(part).strip("\n") for part in parts if part.strip())


@contextlib.contextmanager
def _plain_warnings(screen: Screen) -> Iterator[None]:
    """Warnings of ours become lines on stderr, each once; other packages' warnings do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings(
            "always", category=UserWarning, module=r"(ir|calib|passes|backends)\b"
        )
        warnings.showwarning = lambda message, *_, **__: screen.warn(str(message))
        yield


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """A polite kill unwinds like Ctrl-C, so that temporary files go."""

    def stop(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
