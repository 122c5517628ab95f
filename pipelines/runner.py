"""Beam options and runners: which flags are Beam's, and what DirectRunner means here."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
)  # fmt: skip

from ..transforms.errors import DISK_ERRORS, MAKE_ROOM, ConfigError, JobError
from . import cluster
from .arguments import foreign_flags, unknown_flag
from .quiet import is_quiet

_LOCAL = (None, "DirectRunner", "apache_beam.runners.direct.direct_runner.DirectRunner")


class _Options(PipelineOptions):  # type: ignore[misc]
    """Options whose views are made once. Beam asks for some at each transform, and to make one is
    to parse all flags: 0.2 s of a start. Views share their values, so that one of each is enough."""

    def view_as(self, cls: type[Any]) -> Any:
        views = self.__dict__.setdefault("_views", {})  # Beam's __setattr__ takes options alone
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]

    def __getstate__(self) -> dict[str, Any]:
        """Without views: a copy's are its own."""
        return {k: v for k, v in super().__getstate__().items() if k != "_views"}


def pipeline_options(flags: Sequence[str], output: str = "") -> PipelineOptions:
    """Beam's options from the flags that are not ours.

    DirectRunner gets threads, one a core: of its two ways to use all cores they were the faster, and
    where that can be they only wait for processes of ours (transforms/processes.py).

    Args:
      flags: what the command line holds beside our own flags.
      output: where the dataset goes: of hdfs://, Beam wants to know the server apart.
    """
    options = _Options([*_hdfs_flags(output), *flags])
    direct = options.view_as(DirectOptions)
    if _is_local(options):
        named = " ".join(flags)
        if "--direct_running_mode" not in named:
            direct.direct_running_mode = "multi_threading"
        if "--direct_num_workers" not in named:
            direct.direct_num_workers = 0  # Beam's word for "as many as cores"
    portable = options.view_as(PortableOptions)
    if portable.environment_type == "LOOPBACK":
        portable.environment_config = None  # another environment's, such as of a launcher's flags
    # Some runners send the whole of __main__ to workers, which is none of theirs.
    options.view_as(SetupOptions).save_main_session = False
    return options


def writes_template(options: PipelineOptions) -> str:
    """Where Dataflow's job is written instead of being run; "" where it is run."""
    return options.view_as(GoogleCloudOptions).template_location or ""


def _hdfs_flags(output: str) -> list[str]:
    url = urlsplit(output)
    if url.scheme != "hdfs":
        return []
    user = os.environ.get("HADOOP_USER_NAME") or getpass.getuser()
    server = (f"--hdfs_host={url.hostname}", f"--hdfs_port={url.port or 9870}")
    return [*server, f"--hdfs_user={user}", "--hdfs_full_urls"]


def run(build: Any, options: PipelineOptions) -> None:
    """Builds a pipeline with ``build(pipeline)`` and runs it to its end.

    Raises:
      JobError: it failed; the message is one line.
    """
    pipeline = beam.Pipeline(runner=_runner(options), options=options)
    build(pipeline)
    if _is_local(options):
        # Reads and writes release Python's lock for microseconds. With the default of 5 ms, a
        # worker that comes back for it waits long for the other's turn to end: benchmarks/ put
        # converting 1 GiB at 6.2 s instead of 7.5 (medians of three, two cores).
        sys.setswitchinterval(0.0005)
    # Beam's workers print each failure to standard error, whatever the log level.
    own = io.StringIO() if is_quiet() else sys.stderr
    result = None
    try:
        with contextlib.redirect_stderr(own), _safe_path(_is_local(options)):
            result = pipeline.run()
            try:
                state = result.wait_until_finish()
            except KeyboardInterrupt:
                cluster.cancel(result, options)
                raise
            except Exception:
                if not _is_local(options):  # what we lost sight of must not write on
                    cluster.cancel(result, options)
                raise
    except Exception as e:
        said = f"{e}\n{own_words(e)}"
        ours = _is_local(options) or "JobError: " in said
        known = "" if ours else cluster.explain(said, options, result)
        raise JobError(known or _innermost(e)) from e
    if state not in (None, "DONE"):
        raise JobError(f"the job ended in state {state}: see the runner's own log")


@contextlib.contextmanager
def _safe_path(is_local: bool) -> Iterator[None]:
    """Python that is started meanwhile takes no modules of the working folder, which may hold a
    ``queue.py`` of somebody's: Beam starts its workers by ``python -m``, which would. For other
    machines' workers it packs the user's ``setup.py`` meanwhile, which may want them."""
    if not is_local:
        yield
        return
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def check_cluster(
    options: PipelineOptions, shared_disk: bool, named: Iterable[tuple[str, str]]
) -> None:
    """That a runner other than this machine's own is there, and that its workers can see what the
    job names (``cluster.check_paths``).

    Raises:
      ConfigError: they cannot.
      JobError: no job server answers.
    """
    if not _is_local(options):
        cluster.check_paths(options, shared_disk, named)
        cluster.check_job_server(options)


def worker_count(options: PipelineOptions) -> int:
    """Workers on this machine, 0 where the runner decides."""
    if not _is_local(options):
        return 0
    return options.view_as(DirectOptions).direct_num_workers or os.cpu_count() or 1


def process_count(options: PipelineOptions) -> int:
    """How many of the workers are processes of their own."""
    mode = options.view_as(DirectOptions).direct_running_mode
    return worker_count(options) if mode == "multi_processing" else 0


def _runner(options: PipelineOptions) -> Any:
    """DirectRunner without a network.

    Beam's own DirectRunner first tries to download the Prism binary. The in-process FnApiRunner
    is what it falls back to, and what it was before.
    """
    if not _is_local(options):
        return options.view_as(StandardOptions).runner
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    # A timer of this runner hands buffers on once a second, whether or not a worker is writing to
    # them (TimeBasedBufferingClosableOutputStream, 2.77): elements were lost or torn in two, and
    # read as others. Without it, buffers go when they are full and when a bundle ends.
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))


def _is_local(options: PipelineOptions) -> bool:
    return options.view_as(StandardOptions).runner in _LOCAL


def join_beam_flags(argv: Sequence[str], own_flags: Sequence[str]) -> list[str]:
    """``--runner FlinkRunner`` as ``--runner=FlinkRunner``, so that the value of a Beam flag is
    not taken for a scene.

    Raises:
      ConfigError: a flag that neither Beam nor we know.
    """
    takes_value = _beam_flags()
    out: list[str] = []
    for token in argv:
        if out and out[-1] not in own_flags and takes_value.get(out[-1]) and token[:2] != "--":
            out[-1] = f"{out[-1]}={token}"
            continue
        flag = next(iter(foreign_flags([token], own_flags)), None)
        if flag and flag not in takes_value:
            raise ConfigError(unknown_flag(flag, [*own_flags, *takes_value]))
        out.append(token)
    return out


def _beam_flags() -> dict[str, bool]:
    """Beam's flags, and whether each takes a value."""
    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for cls in PipelineOptions.__subclasses__():
        cls._add_argparse_args(parser)
    return {s: a.nargs != 0 for a in parser._actions for s in a.option_strings}


def own_words(error: BaseException) -> str:
    """What a failed call to a job server says of itself; "" for other errors."""
    import grpc

    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return f"{error.code().name}: {error.details()}"
    return ""


def _innermost(error: BaseException) -> str:
    """The job's own words, dug out of what the runner wrapped around them."""
    text = own_words(error) or str(error)
    found = re.findall(r"(?:^|: )(?:[\w.]+\.)?JobError: (.+)$", text, re.M)
    if isinstance(error, JobError) or not found:
        # Python's traces stand above what they are about, Java's under it.
        lines = [x for x in text.splitlines() if x.strip()] or [type(error).__name__]
        python = (x for x in reversed(lines) if re.match(r"[\w.]+(Error|Exception)\b", x))
        line = next(python, lines[0] if "failed in state FAILED" in lines[0] else lines[-1])
    else:
        line = found[0]
    code = re.search(r"OSError: \[Errno (\d+)\]", line)
    if code and int(code.group(1)) in DISK_ERRORS:
        return f"{os.strerror(int(code.group(1)))}: {MAKE_ROOM}"
    line = re.sub(r"^Pipeline \S+ failed in state FAILED: ", "", line.strip())
    return re.sub(r" \[while running .*$", "", line).strip()
