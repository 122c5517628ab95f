"""The command line: flags to one validated configuration."""

from __future__ import annotations

import argparse
import difflib
import glob
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..loader.storage import is_remote

# Each flag, and the YAML key that it wins over.
CONFIG_FLAGS: dict[str, tuple[str, ...]] = {
    "name": ("name",),
    "bands": ("scenes", "bands"),
    "tile_size": ("tile", "size"),
    "stride": ("tile", "stride"),
    "edge": ("tile", "edge"),
    "nodata": ("clean", "nodata"),
    "min_valid": ("clean", "min_valid"),
    "fill": ("clean", "fill"),
    "clip": ("clean", "clip"),
    "to_db": ("clean", "to_db"),
    "split_by": ("split", "by"),
    "block": ("split", "block"),
    "buffer": ("split", "buffer"),
    "num_shards": ("records", "num_shards"),
    "shard_mb": ("records", "shard_mb"),
    "seed": ("records", "seed"),
    "compression": ("records", "compression"),
}


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
    _add_convert(commands)
    _add_shard(commands)
    _add_verify(commands)
    _add_check(commands)
    _add_synth(commands)
    return parser


def _command(commands: Any, name: str, summary: str, **more: Any) -> Parser:
    parser: Parser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".",
        allow_abbrev=False, **more,
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=_writable, help="write the figures there")
    return parser


def _writable(path: str) -> str:
    folder = Path(path).absolute().parent
    if not folder.is_dir() or Path(path).is_dir():
        raise argparse.ArgumentTypeError(
            f"{path} cannot be written: give a file in a folder that is there"
        )
    return path


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def _from_zero(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return int(text)


def _add_convert(commands: Any) -> None:
    p = _command(
        commands, "convert", "convert scenes to a sharded dataset",
        epilog="Every other flag goes to Beam (--runner, --direct_num_workers, ...). "
        "All of the configuration: docs/configuration.md.",
    )  # fmt: skip
    p.add_argument(
        "scenes",
        nargs="*",
        metavar="SCENE",
        help="rasters, arrays, SAFE products, tables of images: paths, globs in quotes, folders; "
        "or manifests that list them (.csv, .jsonl, .geojson, STAC items)",
    )
    p.add_argument("--output", required=True, metavar="OUT", help="the dataset's folder")
    p.add_argument("--config", metavar="FILE", help="YAML; flags win over it")
    p.add_argument("--dry_run", action="store_true", help="print the plan, write nothing")
    p.add_argument("--max_failed", type=_from_zero, default=0, metavar="N",
                   help="scenes that may fail before the exit code is 1 (default 0)")  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace what OUT holds")
    p.add_argument("--stage_dir", metavar="DIR",
                   help="where stage files go: a folder or a URL that all workers see "
                   "(default OUT/stage)")  # fmt: skip
    _add_shared_disk(p)
    p.add_argument("--drop_stage", action="store_true", help="remove the stage files at the end")
    _add_verbose(p)
    scenes = p.add_argument_group("scenes and cleaning")
    scenes.add_argument("--name", help="the dataset's name")
    scenes.add_argument("--bands", metavar="VV,VH", help="band names, in file order")
    scenes.add_argument("--nodata", metavar="V", help="auto (the file's own), none, or a value")
    scenes.add_argument("--fill", metavar="V[,V]", help="what invalid pixels hold (default 0)")
    scenes.add_argument("--min_valid", type=float, metavar="SHARE",
                        help="drop patches with a smaller share of valid pixels (default 0)")  # fmt: skip
    scenes.add_argument("--to_db", action="store_true", default=None, help="10 log10 of power")
    scenes.add_argument("--clip", metavar="LO,HI", help="limits, after --to_db")
    tile = p.add_argument_group("tiles")
    tile.add_argument("--tile_size", type=int, metavar="PX", help="side of a patch (default 64)")
    tile.add_argument("--stride", type=int, metavar="PX", help="step between patches (tile_size)")
    tile.add_argument("--edge", choices=("drop", "pad", "shift"),
                      help="what to do where a patch passes the scene's edge (default drop)")  # fmt: skip
    _add_records(p)


def _add_shard(commands: Any) -> None:
    p = _command(
        commands, "shard", "write the records again from the stage files, without the scenes"
    )
    p.add_argument("output", metavar="OUT", help="a converted dataset")
    p.add_argument("--config", metavar="FILE", help="YAML with split and records sections")
    _add_shared_disk(p)
    _add_verbose(p)
    _add_records(p)


def _add_shared_disk(p: argparse.ArgumentParser) -> None:
    p.add_argument("--shared_disk", action="store_true",
                   help="workers of a cluster see this machine's paths (NFS, or one machine)")  # fmt: skip


def _add_records(p: argparse.ArgumentParser) -> None:
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


def _add_verbose(p: argparse.ArgumentParser) -> None:
    p.add_argument("--verbose", action="store_true", help="let Beam and GDAL log, show tracebacks")


def _add_verify(commands: Any) -> None:
    p = _command(commands, "verify", "read every shard: checksums, counts, keys, values")
    p.add_argument("output", metavar="OUT", help="a converted dataset")


def _add_check(commands: Any) -> None:
    p = _command(commands, "check", "the throughput check: measure, compare with the targets")
    p.add_argument("output", metavar="OUT", help="a converted dataset")
    p.add_argument("--split", help="which split to load (default: the largest)")
    p.add_argument("--batch_size", type=_positive, default=1024, metavar="N", help="(default 1024)")
    p.add_argument("--convert_mb_per_s", type=float, default=27.8, metavar="MB",
                   help="target: source MB converted a second (27.8 is 100 GB an hour)")  # fmt: skip
    p.add_argument("--load_seconds", type=float, default=2.0, metavar="S",
                   help="target: seconds for 5 shuffled batches (default 2)")  # fmt: skip
    p.add_argument("--memory_gib", type=float, default=2.0, metavar="GIB",
                   help="target: peak memory of conversion and of loading (default 2)")  # fmt: skip


def _add_synth(commands: Any) -> None:
    p = _command(commands, "synth", "make SAR-like scenes with water masks, to try things on")
    p.add_argument("output", metavar="OUT", help="gets scenes/, labels/ and dataset.yaml")
    p.add_argument("--scenes", type=int, default=2, metavar="N", help="how many (default 2)")
    p.add_argument("--size", type=int, default=8192, metavar="PX", help="side (default 8192)")
    p.add_argument("--seed", type=int, default=0, help="(default 0)")


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


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration keys that flags set, nested as in YAML."""
    values: dict[str, Any] = {}
    for flag, path in CONFIG_FLAGS.items():
        value = getattr(args, flag, None)
        if value is None:
            continue
        section = values
        for key in path[:-1]:
            section = section.setdefault(key, {})
        section[path[-1]] = _value(flag, value)
    if getattr(args, "scenes", None):
        values.setdefault("scenes", {})["paths"] = args.scenes
    return values


def _value(flag: str, value: Any) -> Any:
    if flag == "bands":
        return [b.strip() for b in value.split(",")]
    if flag in ("clip", "fill"):
        parts = [_number(x) for x in value.split(",")]
        return parts[0] if flag == "fill" and len(parts) == 1 else parts
    return _number(value) if flag == "nodata" else value


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text.strip()


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` wins, key by key."""
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        # Shares belong together: those of one side count, not a mixture.
        nested = isinstance(value, dict) and isinstance(held, dict) and key != "fractions"
        merged[key] = merge(held, value) if nested else value  # type: ignore[arg-type]
    return merged


def config_from(args: argparse.Namespace, below: dict[str, Any] | None = None) -> tuple[Any, Path]:
    """The configuration, and the folder its paths are relative to.

    Scenes on the command line are relative to where the command runs, those of a YAML file to
    the file.

    Raises:
      ConfigError: something in it is wrong.
    """
    from ..transforms.config import load_yaml, parse

    values, base, where = dict(below or {}), Path.cwd(), "command line"
    if args.config:
        base, where = Path(args.config).absolute().parent, args.config
        values = layer(values, _with_zones(load_yaml(args.config), base))
    given = overrides(args)
    if given.get("scenes", {}).get("paths"):
        given["scenes"]["paths"] = [_from_here(p) for p in args.scenes]
    return parse(layer(values, given), where), base


def _with_zones(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """The polygons of a split by their absolute path: `scenefeed shard` goes without the YAML."""
    split = values.get("split")
    if not isinstance(split, dict):
        return values
    path = split.get("path")
    if isinstance(path, str) and not is_remote(path):
        return {**values, "split": {**split, "path": str(base / split["path"])}}
    return values


def layer(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``merge``, without what ``above`` makes meaningless: what belongs to another split than the
    one asked for, a shard count where a size is asked for."""
    merged = merge(below, above)
    asked, held = (x.get("split") or {} for x in (above, below))
    if asked.get("by", held.get("by")) != held.get("by"):
        kept = {k: v for k, v in held.items() if k == "fractions"}
        merged["split"] = merge(kept, asked)
    asked = above.get("records") or {}
    if "shard_mb" in asked and "num_shards" not in asked:
        merged["records"] = {k: v for k, v in merged["records"].items() if k != "num_shards"}
    return merged


def _from_here(path: str) -> str:
    """A scene of the command line, which may be a pattern, as an absolute one."""
    if is_remote(path):
        return path
    expanded = os.path.expanduser(path)
    if os.path.isabs(expanded) or not glob.has_magic(path):
        return os.path.join(os.getcwd(), expanded)
    return os.path.join(glob.escape(os.getcwd()), expanded)
