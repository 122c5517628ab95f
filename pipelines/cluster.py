"""What is different where workers are other machines: paths, the job server, its failures."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import urllib.request
from collections.abc import Iterable
from typing import Any

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)  # fmt: skip

from ..transforms.errors import ConfigError, JobError
from ..transforms.storage import is_remote

# What failures of clusters look like, and what they are. The first that fits.
_FAILURES = {
    r"No module named 'scenefeed": "a worker has no scenefeed: install the version that this "
    "command is of where workers run (for a worker pool, in its environment)",
    r"finishConnect": "no workers answer at --environment_config {workers}: start a worker pool "
    "there, as the runner's machines see that address",
    r"ConnectException|Job server is not|UNAVAILABLE": "the job server at {server} cannot reach its "
    "cluster, or has ended: look at its log, start the cluster, and run the same command again",
    r"InvalidClassException: org\.apache\.beam": "the job server at {server} has another Beam than the "
    "cluster that it submits to: put the jar of this very job server into Flink's lib/ "
    "(docs/flink.md)",
    r"Insufficient number of network buffers": "Flink has too few network buffers: set "
    "taskmanager.network.sort-shuffle.min-buffers: 64 (docs/flink.md)",
    r"SparkContext was shut down|masters are unresponsive": "Spark's master is not there, or has "
    "ended: start it, start the job server at {server} again, and run the same command again",
    r"Only one SparkContext": "the job server at {server} runs another job, perhaps one that was "
    "broken off: wait for it, or start the job server again",
    r"didn't get control connection": "workers were started and did not come up: the Python of the "
    "worker pool has no apache-beam",
    r"NoResourceAvailableException|Could not acquire the minimum required resources": "the cluster "
    "has fewer slots than the job asks for: use a smaller --parallelism, or add workers",
}


def check_paths(
    options: PipelineOptions, shared_disk: bool, named: Iterable[tuple[str, str]]
) -> None:
    """That a cluster's workers, which have disks of their own, can see what the job names.

    Args:
      options: Beam's, of a runner that is not local.
      shared_disk: the user says that they see this machine's paths.
      named: what each path is, and the path; "" for none.

    Raises:
      ConfigError: a path is on this machine, and the workers are not.
    """
    if shared_disk or options.view_as(PortableOptions).environment_type == "LOOPBACK":
        return
    runner = options.view_as(StandardOptions).runner
    for what, path in named:
        if path and not is_remote(path):
            raise ConfigError(
                f"{what} {path}: is on this machine, where the workers of {runner} cannot see it: "
                "put it on s3://, gs:// or hdfs://, or say --shared_disk where every worker mounts "
                "that path"
            )


def check_job_server(options: PipelineOptions, seconds: float = 5) -> None:
    """That something listens at ``--job_endpoint``: Beam would wait for five minutes.

    Raises:
      JobError: nothing does.
    """
    endpoint = options.view_as(PortableOptions).job_endpoint
    if not endpoint or ":" not in endpoint:  # "embed", or one that Beam starts itself
        return
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), seconds).close()
    except (OSError, ValueError) as e:
        raise JobError(
            f"no job server answers at --job_endpoint {endpoint} ({e}): start it, or mend the address"
        ) from None


def explain(text: str, options: PipelineOptions) -> str:
    """What a cluster's failure is, in one line; "" where it is not known.

    Args:
      text: everything that the runner said.
      options: Beam's.
    """
    portable = options.view_as(PortableOptions)
    for pattern, words in _FAILURES.items():
        if re.search(pattern, text):
            return words.format(
                workers=portable.environment_config or "", server=portable.job_endpoint or "?"
            )
    return ""


def where_to_look(options: PipelineOptions) -> str:
    """What may be wrong with a job of which nothing is seen; "" where no cluster of Beam's
    portable runners has it."""
    portable = options.view_as(PortableOptions)
    if not (portable.job_endpoint or portable.environment_type):
        return ""
    words = "it waits for its turn, or its workers do not come up: look at the cluster's log"
    if portable.environment_type != "EXTERNAL":
        return words
    return f"{words} and at that of the worker pool ({portable.environment_config})"


def cancel(result: Any, options: PipelineOptions) -> None:
    """Ends a job that would go on without us.

    Beam's job server for Flink (2.62) stops waiting for the job and no more: Flink itself is asked
    first, by its REST address.
    """
    master = options.view_as(FlinkRunnerOptions).flink_master or "["
    if not master.startswith("["):  # [auto], [local]
        with contextlib.suppress(OSError, ValueError):
            _cancel_on_flink(master, getattr(result, "_job_id", "").rpartition("_")[0])
    with contextlib.suppress(Exception):
        result.cancel()


def _cancel_on_flink(master: str, name: str) -> None:
    url = master if "://" in master else f"http://{master}"
    with urllib.request.urlopen(f"{url}/jobs/overview", timeout=10) as reply:
        ids = [job["jid"] for job in json.load(reply)["jobs"] if job["name"] == name]
    for job in ids:
        request = urllib.request.Request(f"{url}/jobs/{job}?mode=cancel", method="PATCH")
        urllib.request.urlopen(request, timeout=10).close()
