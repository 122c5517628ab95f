"""The ``scenefeed`` command. Imports stay inside the commands, so that --help is quick."""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from .arguments import command_flags, foreign_flags, join_numbers, unknown_flag
from .commands import BEAM, COMMANDS, build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; gives the exit code."""
    started, is_program = time.time(), argv is None
    argv = join_numbers(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in argv
    if is_program:  # to import Beam makes a million objects: a sixth of that time was looking for
        gc.set_threshold(10_000)  # garbage among them
    try:
        args, rest = _parse(argv)
        return int(COMMANDS[args.command].run(args, rest, started))
    except KeyboardInterrupt:
        print("scenefeed: interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as e:
        return _fail(e, verbose)
    finally:
        if is_program:  # it ends now, and would look through them once more: 0.7 s
            gc.freeze()


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command line, and those of its flags that are Beam's.

    Raises:
      ConfigError: a flag that neither Beam nor we know.
      SystemExit: any other mistake; 2, after one line.
    """
    parser = build_parser(metadata.version("scenefeed"))
    command = argv[0] if argv else ""
    beams = command in BEAM
    own = command_flags(parser, command)
    foreign = foreign_flags(argv, own) if own else []
    # Beam knows flags of convert's names (--dry_run): they are not meant for shard.
    wrong = [f for f in foreign if not beams or f in command_flags(parser, "convert")]
    if wrong:
        parser.error(unknown_flag(wrong[0], own))
    if foreign:
        from . import runner

        argv = runner.join_beam_flags(argv, own)
    args, rest = parser.parse_known_args(argv)
    # What is left is Beam's; a word among it is a scene that stands behind flags.
    words = [token for token in rest if not token.startswith("-")]
    if words and command != "convert":
        parser.error(f"unexpected argument {words[0]}")
    if words:
        args.scenes += words
    return args, [token for token in rest if token not in words]


def _fail(error: Exception, verbose: bool) -> int:
    """One line on standard error, and the exit code."""
    from ..loader.spec import DatasetError

    usage: tuple[type[Exception], ...] = ()
    known: tuple[type[Exception], ...] = (DatasetError,)
    try:
        from ..transforms.errors import ConfigError, JobError

        usage, known = (ConfigError,), (DatasetError, ConfigError, JobError)
    except ModuleNotFoundError:
        pass  # the base install reads, and has no configuration
    if verbose:
        traceback.print_exception(error)
    if isinstance(error, ModuleNotFoundError):
        message = f"{error.name} is not installed: pip install 'scenefeed[convert]'"
    elif isinstance(error, known):
        message = str(error)
    elif isinstance(error, OSError) and error.strerror:
        message = f"{error.filename or 'the system'}: {error.strerror}"
    else:
        at = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(at.filename).name}:{at.lineno}); "
        message += "this is a bug: run again with --verbose and report it"
    print(f"scenefeed: {' '.join(message.split())}", file=sys.stderr)
    return 2 if isinstance(error, usage) else 1


if __name__ == "__main__":
    sys.exit(main())
