"""What Dataflow's launcher runs: a template's parameters, which are all flags with a value, as
the command line of ``scenefeed convert``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from scenefeed.pipelines.cli import main
from scenefeed.pipelines.commands import build_parser


def command_line(flags: Sequence[str]) -> list[str]:
    """``--scenes=A,B --to_db=true`` as ``convert A B --to_db``; other flags as they are.

    A parameter that was left empty is left out, and so is a switch that is not ``true``.
    """
    out, scenes = ["convert"], []
    for flag in flags:
        name, _, value = flag.partition("=")
        if name == "--scenes":
            scenes += value.split(",")
        elif name in switches():
            out += [name] if value.lower() in ("", "true") else []
        elif value or "=" not in flag:
            out.append(flag)
    return [*out, *scenes]


def switches() -> set[str]:
    """The flags of ``scenefeed convert`` that take no value."""
    (commands,) = (a for a in build_parser("")._actions if a.dest == "command")
    actions = commands.choices["convert"]._actions
    return {s for a in actions if a.nargs == 0 for s in a.option_strings}


if __name__ == "__main__":
    sys.exit(main(command_line(sys.argv[1:])))
