"""The command line's own parts: the parser, kinds of values, flags that commands share."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse with our exit code, and one line that names the nearest thing known."""

    def error(self, message: str) -> NoReturn:
        match = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if match:
            known = re.findall(r"[\w-]+", match.group(2))
            near = difflib.get_close_matches(match.group(1), known, 1)
            message = f"{match.group(1)!r} is not one of {', '.join(known)}"
            message += f": did you mean {near[0]}?" if near else ""
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def add_command(commands: Any, name: str, summary: str, **more: Any) -> Parser:
    parser: Parser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".",
        allow_abbrev=False, **more,
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=writable, help="write the figures there")
    return parser


def writable(path: str) -> str:
    folder = Path(path).absolute().parent
    if not folder.is_dir() or Path(path).is_dir():
        raise argparse.ArgumentTypeError(
            f"{path} cannot be written: give a file in a folder that is there"
        )
    return path


def positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def from_zero(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return int(text)


def add_shared_disk(p: argparse.ArgumentParser) -> None:
    p.add_argument("--shared_disk", action="store_true",
                   help="workers of a cluster see this machine's paths (NFS, or one machine)")  # fmt: skip


def add_records(p: argparse.ArgumentParser) -> None:
    records = p.add_argument_group("splits and records")
    records.add_argument("--split_by",
                         choices=("patch", "scene", "block", "date", "column", "polygons"),
                         help="what decides a patch's split (default: all is train); the last "
                         "three need keys in --config")  # fmt: skip
    records.add_argument(
        "--block", type=float, metavar="PX", help="side of a block for --split_by block"
    )
    records.add_argument("--buffer", type=float, metavar="PX",
                         help="least distance between splits, for --split_by block")  # fmt: skip
    records.add_argument("--num_shards", type=int, metavar="N", help="exactly N shards a split")
    records.add_argument(
        "--shard_mb", type=float, metavar="MB", help="about this large (default 128)"
    )
    records.add_argument("--seed", type=int, help="of splits and shuffle (default 0)")
    records.add_argument("--compression", choices=("none", "gzip"), help="of shards (default none)")


def add_statistics(p: argparse.ArgumentParser) -> None:
    p.add_argument("--normalize", metavar="KIND",
                   help="compute statistics of the training split, by which feeds normalize: none, "
                   "zscore, minmax, quantile, or MODULE:FUNCTION, a tf.Transform preprocessing_fn "
                   "of your own")  # fmt: skip


def add_verbose(p: argparse.ArgumentParser) -> None:
    p.add_argument("--verbose", action="store_true", help="let Beam and GDAL log, show tracebacks")


def command_flags(parser: argparse.ArgumentParser, command: str) -> list[str]:
    """The flags of one command, none for a command that does not exist."""
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    found = commands.choices.get(command)
    return list(found._option_string_actions) if found else []


def foreign_flags(argv: Sequence[str], own: Sequence[str]) -> list[str]:
    """The flags that are not a command's own: Beam's, or mistakes."""
    flags = [t.split("=", 1)[0] for t in argv if re.match(r"--?[a-zA-Z]", t)]
    return [flag for flag in flags if flag not in own]


def unknown_flag(flag: str, known: Sequence[str]) -> str:
    """One line that names the nearest flag."""
    near = difflib.get_close_matches(flag, known, 1) or difflib.get_close_matches(
        f"-{flag}", known, 1
    )
    return f"unknown flag {flag}: " + (f"did you mean {near[0]}?" if near else "see --help")


def join_numbers(argv: Sequence[str]) -> list[str]:
    """``--clip -30 5`` and ``--clip -30,5`` as ``--clip=-30,5``: argparse takes a leading minus
    for a flag."""
    number = r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|[-+]?inf"
    out, i = [], 0
    while i < len(argv):
        limit = {"--clip": 2, "--fill": 64, "--nodata": 1}.get(argv[i], 0)
        values: list[str] = []
        while (
            len(values) < limit
            and i + 1 < len(argv)
            and re.fullmatch(rf"(({number}),?)+", argv[i + 1])
        ):
            i += 1
            values.append(argv[i].strip(","))
            if "," in argv[i]:
                break
        out.append(f"{argv[i - len(values)]}={','.join(values)}" if values else argv[i])
        i += 1
    return out


def write_json(path: str | None, figures: dict[str, Any]) -> None:
    if path:
        Path(path).write_text(json.dumps(figures, indent=2) + "\n")
