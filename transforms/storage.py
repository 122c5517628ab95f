"""Paths that may be URLs: s3://bucket/key, gs://bucket/key, hdfs://namenode:9870/path.

Whole files and listings go through fsspec, whose drivers take credentials from the environment's
own chains; pixels of rasters go through GDAL (``gdal_name``), by ranges; shards through Beam's
sink. Local paths stay ``pathlib.Path``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from ..loader.storage import file_system, is_remote, join
from .errors import ConfigError, describe
from .remotepath import RemotePath

SCHEMES = ("s3", "gs", "hdfs")


def path_of(text: str | Path, base: Path | None = None) -> Path:
    """A local path, relative to ``base``, or a URL's, which has pathlib's methods.

    Raises:
      ConfigError: a URL of a kind that is not known, or whose driver is not installed.
    """
    if not is_remote(text):
        path = Path(text).expanduser()
        return base / path if base else path
    scheme = str(text).split("://", 1)[0]
    if scheme not in SCHEMES:
        raise ConfigError(f"{text}: cannot be reached: known are s3://, gs:// and hdfs://")
    _, inner = _system(str(text))
    if not inner.strip("/"):
        raise ConfigError(f"{text}: names no bucket: give {scheme}://BUCKET/PATH")
    return cast(Path, RemotePath(str(text)))  # pathlib's methods, not its class


def absolute(path: Path) -> str:
    """As text that means the same on every machine that sees it."""
    return str(path) if is_remote(path) else os.path.abspath(path)


def _system(url: str) -> tuple[Any, str]:
    from ..loader.spec import DatasetError

    try:
        return file_system(url)
    except DatasetError as e:
        raise ConfigError(str(e)) from None


def glob_remote(pattern: str) -> list[str]:
    """The files that a URL with ``*`` matches, sorted; ``**`` crosses folders."""
    system, inner = _system(pattern)
    found = system.glob(inner, detail=True)
    return sorted(_url(pattern, n) for n, i in found.items() if i["type"] == "file")


def files_in(folder: Path) -> list[Path]:
    """The files directly in a remote folder, sorted."""
    system, inner = _system(str(folder))
    found = system.ls(inner, detail=True, refresh=True)
    return [path_of(_url(str(folder), i["name"])) for i in found if i["type"] == "file"]


def _url(like: str, name: str) -> str:
    """The URL of what a file system calls ``name``: bucket and key, or a path on HDFS."""
    scheme, rest = like.split("://", 1)
    return f"{scheme}://{rest.split('/', 1)[0] if scheme == 'hdfs' else ''}{name}"


def stamps(paths: Iterable[str]) -> dict[str, str]:
    """What tells a file's content from an older one's, without reading it: size and time of
    change, and an object's tag. Files that are not there are left out.

    Remote folders are listed once each, whatever the number of files asked for in them.
    """
    found: dict[str, str] = {}
    listings: dict[str, dict[str, str]] = {}
    for path in paths:
        if is_remote(path):
            folder = path.rsplit("/", 1)[0]
            if folder not in listings:
                listings[folder] = _listing(folder)
            stamp = listings[folder].get(path.rsplit("/", 1)[1])
        else:
            stamp = _local_stamp(path)
        if stamp is not None:
            found[path] = stamp
    return found


def _local_stamp(path: str) -> str | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return f"{found.st_size} {found.st_mtime_ns}"


def _listing(folder: str) -> dict[str, str]:
    system, inner = _system(folder)
    try:
        entries = system.ls(inner, detail=True, refresh=True)
    except FileNotFoundError:
        return {}
    return {
        e["name"].rsplit("/", 1)[-1]: " ".join(str(e.get(k, "")) for k in ("size", *_TAGS))
        for e in entries
    }


# An object's version by S3 and GCS; HDFS tells the time of change.
_TAGS = ("ETag", "etag", "modificationTime")


def sizes(paths: Iterable[str]) -> dict[str, int]:
    """Bytes of files; those that are not there are left out."""
    return {path: int(stamp.split()[0]) for path, stamp in stamps(paths).items()}


def names_in(folder: Path) -> list[str]:
    """The names of files and folders directly in a folder, sorted; none where it is not there."""
    if is_remote(folder):
        return sorted(_listing(str(folder)))
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def check_bucket(flag: str, folder: Path) -> None:
    """That a remote folder can be written to, by writing to it and reading that back.

    Raises:
      ConfigError: it cannot.
    """
    probe = join(str(folder), f".scenefeed-{uuid.uuid4().hex}")
    try:
        system, inner = _system(probe)
        system.pipe_file(inner, b"scenefeed")
        found = system.cat_file(inner)
        system.rm_file(inner)
    except Exception as e:  # each driver has its own for no credentials
        reason = describe(e).rstrip(".")
        raise ConfigError(
            f"{flag} {folder}: cannot be written: {reason}: make the bucket, or give the "
            "credentials that your environment uses the permission to write"
        ) from None
    if found != b"scenefeed":
        raise ConfigError(f"{flag} {folder}: does not give back what is written to it")


def index_of(url: str) -> str:
    """Where a remote stage file's index is."""
    return url.removesuffix(".h5") + ".npz"


def size_of(path: str) -> int:
    """Bytes of a file.

    Raises:
      FileNotFoundError: there is none.
    """
    if not is_remote(path):
        return os.path.getsize(path)
    system, inner = _system(path)
    return int(system.info(inner)["size"])


def read_range(path: str, start: int, end: int) -> bytes:
    """Bytes of a remote file; none where it cannot be read."""
    system, inner = _system(path)
    try:
        found: bytes = system.cat_file(inner, start=start, end=end)
    except Exception:  # each driver has its own, such as for an empty file
        return b""
    return found


def write_text(path: Path, text: str) -> None:
    """As ``write_bytes``, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes so that a reader sees the old file or the new one, never half of it."""
    if is_remote(path):
        system, inner = _system(str(path))
        system.pipe_file(inner, data)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def create_remote(url: str) -> Any:
    """A remote file to be written from its beginning; it is there when it is closed."""
    system, inner = _system(url)
    return system.open(inner, "wb")


def remove(path: str | Path) -> None:
    """Removes a file or a folder with all that is in it, or nothing where there is none."""
    if is_remote(path):
        system, inner = _system(str(path))
        system.invalidate_cache()
        if system.exists(inner):
            system.rm(inner, recursive=True)
    elif os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        Path(path).unlink(missing_ok=True)


def put_folder(local: Path, path: Path) -> None:
    """Puts a local folder with all that is in it in the place of another, which may be remote."""
    if is_remote(path):
        remove(path)
        system, inner = _system(str(path))
        system.put(str(local), inner, recursive=True)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        shutil.move(local, temporary)
        remove(path)
        os.replace(temporary, path)
    finally:
        remove(temporary)


def get_folder(path: Path, local: Path) -> None:
    """Copies a folder that may be remote to a local one, which must not be there."""
    if is_remote(path):
        system, inner = _system(str(path))
        system.get(inner, str(local), recursive=True)
    else:
        shutil.copytree(path, local)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A local file with a file's content, for the block: itself, or a copy.

    For small files that are read whole, such as vector labels. The copy goes with the block, not
    with the process: a worker of a cluster is killed sooner or later, and leaves what it holds.

    Raises:
      FileNotFoundError: there is none.
    """
    if not is_remote(path):
        yield path
        return
    system, inner = _system(path)
    with tempfile.TemporaryDirectory(prefix="scenefeed-") as folder:
        local = os.path.join(folder, path.rsplit("/", 1)[1])
        system.get_file(inner, local)
        yield local


def gdal_name(path: str) -> str:
    """A path as GDAL reads it: by ranges where it is remote."""
    if not is_remote(path):
        return path
    scheme, rest = path.split("://", 1)
    if scheme == "hdfs":
        host, _, inner = rest.partition("/")
        return f"/vsiwebhdfs/http://{host}/webhdfs/v1/{inner}"
    return f"/vsi{scheme}/{rest}"


__all__ = [
    "absolute", "files_in", "gdal_name", "get_folder", "glob_remote", "is_remote", "join",
    "local_copy", "path_of", "put_folder", "remove", "size_of", "stamps", "write_bytes",
    "write_text",
]  # fmt: skip
