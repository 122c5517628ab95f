"""One module a command: ``add`` declares its flags, ``run`` does it and gives the exit code.

Imports stay inside ``run``, so that --help is quick.
"""

from __future__ import annotations

from types import ModuleType

from ..arguments import Parser
from . import check, compare, convert, locate, mosaic, report, shard, show, stats, synth, verify

COMMANDS: dict[str, ModuleType] = {
    "convert": convert, "shard": shard, "stats": stats, "verify": verify, "check": check,
    "compare": compare, "locate": locate, "mosaic": mosaic, "show": show, "report": report, "synth": synth,
}  # fmt: skip
# Those that take Beam's flags too.
BEAM = frozenset(k for k, command in COMMANDS.items() if getattr(command, "BEAM", False))


def build_parser(version: str) -> Parser:
    """The whole command line."""
    parser = Parser(
        prog="scenefeed",
        description="Earth-observation scenes in, a saturated training feed out.",
        epilog="Exit codes: 0 done; 1 the job failed, scenes failed, a target was missed or damage "
        "was found; 2 a usage or configuration error.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"scenefeed {version}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS.values():
        command.add(commands)
    return parser
