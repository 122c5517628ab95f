"""What is different where workers are other machines: paths, the job server, its failures."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)  # fmt: skip

from ..transforms.errors import ConfigError, JobError
from ..transforms.storage import is_remote

# What a job server says that has no cluster. Of a task, the same words are about something else.
_NO_CLUSTER = r"ConnectException|Job server is not|UNAVAILABLE"

# What failures of clusters look like, and what they are. The first that fits.
_FAILURES = {
    r"No module named 'scenefeed": "a worker has no scenefeed: install the version that this "
    "command is of where workers run (for a worker pool, in its environment)",
    r"finishConnect": "no workers answer at --environment_config {workers}: start a worker pool "
    "there, as the runner's machines see that address",
    _NO_CLUSTER: "the job server at {server} cannot reach its "
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


def explain(text: str, options: PipelineOptions, result: Any = None) -> str:
    """What a cluster's failure is, in one line; "" where it is not known.

    A job server tells of the task that failed last. One that was broken off because others had
    failed hides what they failed of, so Flink is asked what else went wrong.

    Args:
      text: everything that the runner said.
      options: Beam's.
      result: Beam's, of a job that was started.
    """
    known = _known(text, options, _FAILURES)
    if known or "Traceback" in text:  # a worker's own words: they hide nothing
        return known
    of_tasks = {k: v for k, v in _FAILURES.items() if k != _NO_CLUSTER}
    for failure in _failures_on_flink(result, options):
        if ours := re.search(r"\bJobError: (.+?)(?: \[while running .*)?$", failure, re.M):
            return ours[1]
        if known := _known(failure, options, of_tasks):
            return known
    portable = options.view_as(PortableOptions)
    if "InterruptedException" in text and portable.environment_type == "EXTERNAL":
        return (
            "the job was broken off while it waited for workers at --environment_config "
            f"{portable.environment_config}: look at the worker pool there, and at the cluster's log"
        )
    return ""


def _known(text: str, options: PipelineOptions, failures: dict[str, str]) -> str:
    portable = options.view_as(PortableOptions)
    for pattern, words in failures.items():
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
    first, by its REST address. It keeps the history of failures of jobs that have ended.
    """
    with contextlib.suppress(*_NO_ANSWER):
        for job in _on_flink(result, options, seconds=10):
            request = urllib.request.Request(f"{job}?mode=cancel", method="PATCH")
            urllib.request.urlopen(request, timeout=10).close()
    with contextlib.suppress(Exception):
        result.cancel()


# That of Flink's REST, or of what stands at its address: none, or other JSON than Flink's.
_NO_ANSWER = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError)


def _failures_on_flink(result: Any, options: PipelineOptions) -> list[str]:
    """Java's traces of a job's failed tasks, the newest first; [] where Flink is not asked."""
    with contextlib.suppress(*_NO_ANSWER):
        for job in _on_flink(result, options, seconds=5)[:1]:
            traces = _texts(_get(f"{job}/exceptions", seconds=5))
            # A lost task manager refuses connections as an absent worker pool does.
            return [trace for trace in traces if "RemoteTransportException" not in trace]
    return []


def _on_flink(result: Any, options: PipelineOptions, seconds: float) -> list[str]:
    """Where Flink's REST has the jobs of this name, the newest first; [] where the address is not
    known."""
    master = options.view_as(FlinkRunnerOptions).flink_master or "["
    name = getattr(result, "_job_id", "").rpartition("_")[0]
    if master.startswith("[") or not name:  # [auto], [local]
        return []
    url = master if "://" in master else f"http://{master}"
    jobs = [job for job in _get(f"{url}/jobs/overview", seconds)["jobs"] if job["name"] == name]
    jobs.sort(key=lambda job: job["start-time"], reverse=True)
    return [f"{url}/jobs/{job['jid']}" for job in jobs]


def _get(url: str, seconds: float) -> Any:
    with urllib.request.urlopen(url, timeout=seconds) as reply:
        return json.load(reply)


def _texts(tree: Any) -> Iterator[str]:
    """All texts of some JSON in its order: of Flink's failures, each version has other keys."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (dict, list)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(part)
