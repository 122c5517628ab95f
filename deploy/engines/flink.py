"""Flink standalone: a job manager, task managers, Beam's job server and worker pool."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

from . import workers
from .fetching import built_jar, run, sdist_jars, tool
from .processes import HOST, Cluster, LaunchError

FLINK = "1.19.1"
SLOTS = 2  # of each task manager
JOB_SERVER = "org.apache.beam:beam-runners-flink-1.19-job-server"
POM = Path(__file__).parents[1] / "flink" / "job-server" / "pom.xml"

# As in the config.yaml that Flink ships: what it reaches into since Java 17 closed its modules.
_OPENS = """java.lang java.net java.io java.nio java.text java.time java.util sun.nio.ch
    java.lang.reflect java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks
    sun.net.util sun.security.util""".split()

_LOG4J = """rootLogger.level = INFO
rootLogger.appenderRef.out.ref = Out
appender.out.name = Out
appender.out.type = CONSOLE
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss,SSS} %-5p %-40c{1} %m%n
"""


def up(cluster: Cluster, task_managers: int) -> list[str]:
    """Starts the cluster; the flags that run a pipeline on it."""
    java = tool("java", "a Java 17 runtime")
    # Flink's own jars, of PyFlink's libraries.
    lib = sdist_jars(cluster.cache / f"flink-{FLINK}", f"apache-flink-libraries=={FLINK}", _needed)
    jar = _job_server(cluster.cache)
    rest, job = cluster.port("flink-rest"), cluster.port("job-server")
    command = [java, *_java(cluster), "-cp", f"{lib}/*:{jar}"]
    conf = _configure(cluster)
    cluster.start(
        "job-manager",
        [*command, "-Xmx512m", f"{_RUN}.entrypoint.StandaloneSessionClusterEntrypoint",
         "--configDir", conf],
    )  # fmt: skip
    for n in range(task_managers):
        cluster.start(
            f"task-manager-{n}",
            [*command, "-Xmx512m", f"{_RUN}.taskexecutor.TaskManagerRunner", "--configDir", conf,
             "-D", f"taskmanager.resource-id=task-manager-{n}"],
        )  # fmt: skip
    cluster.start(
        "job-server",
        [java, "-Xmx512m", *_opens(), "-jar", jar, f"--job-host={HOST}", f"--job-port={job}",
         f"--artifact-port={cluster.port('artifacts')}", "--expansion-port=-1",
         f"--artifacts-dir={cluster.tmp}/artifacts", f"--flink-master={HOST}:{rest}"],
    )  # fmt: skip
    pool = workers.up(cluster)
    cluster.wait_for("job-manager", rest)
    for n in range(task_managers):
        cluster.wait_until(f"task-manager-{n}", lambda: _joined(rest) == task_managers)
    cluster.wait_for("job-server", job)
    cluster.remember(rest=f"http://{HOST}:{rest}")
    return [
        "--runner=PortableRunner", f"--job_endpoint={HOST}:{job}", f"--flink_master={HOST}:{rest}",
        *pool,
        f"--parallelism={task_managers * SLOTS}", "--environment_cache_millis=60000",
    ]  # fmt: skip


_RUN = "org.apache.flink.runtime"


def _needed(path: Path) -> bool:
    return path.parent.name == "lib" and path.name.startswith(("flink-dist", "log4j"))


def _opens() -> list[str]:
    return [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENS]


def _java(cluster: Cluster) -> list[str]:
    log4j = cluster.folder / "log4j.properties"
    log4j.write_text(_LOG4J)
    return [*_opens(), f"-Dlog4j.configurationFile={log4j}", f"-Djava.io.tmpdir={cluster.tmp}"]


def _configure(cluster: Cluster) -> Path:
    """Flink's config.yaml for this folder; everything on loopback."""
    conf = cluster.folder / "flink"
    conf.mkdir(exist_ok=True)
    values = {
        "jobmanager.rpc.address": HOST,
        "jobmanager.rpc.port": cluster.port("flink-rpc"),
        "jobmanager.bind-host": HOST,
        "rest.address": HOST,
        "rest.bind-address": HOST,
        "rest.port": cluster.port("flink-rest"),
        "taskmanager.host": HOST,
        "taskmanager.bind-host": HOST,
        "taskmanager.numberOfTaskSlots": SLOTS,
        # Flink's shell scripts work these out; a bare JVM wants each of them.
        "taskmanager.cpu.cores": SLOTS,
        "taskmanager.memory.task.heap.size": "256m",
        "taskmanager.memory.managed.size": "256m",
        "taskmanager.memory.network.min": "256m",
        "taskmanager.memory.network.max": "256m",
        # A pipeline of ours has some twenty shuffles; Flink would set aside 16 MiB for each.
        "taskmanager.network.sort-shuffle.min-buffers": 64,
        "taskmanager.memory.framework.heap.size": "128m",
        "taskmanager.memory.framework.off-heap.size": "128m",
        "taskmanager.memory.task.off-heap.size": "0",
        "taskmanager.memory.jvm-metaspace.size": "256m",
        "taskmanager.memory.jvm-overhead.min": "128m",
        "taskmanager.memory.jvm-overhead.max": "128m",
        "io.tmp.dirs": cluster.tmp,
        # Beam keeps Python workers from one stage to the next (--environment_cache_millis) only
        # where its classes are Flink's own, not the job's.
        "classloader.resolve-order": "parent-first",
        # A killed task manager costs the job two to four restarts: one for it, others for the
        # intermediate results that it held.
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 10,
        "restart-strategy.fixed-delay.delay": "1 s",
        "heartbeat.interval": 2000,
        "heartbeat.timeout": 10000,
        "taskmanager.load-balance.mode": "SLOTS",
    }
    text = "".join(f"{key}: {json.dumps(str(value))}\n" for key, value in values.items())
    (conf / "config.yaml").write_text(text)
    return conf


def _joined(rest: int) -> int:
    """Task managers that the job manager knows; 0 while it starts."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{rest}/overview", timeout=5) as reply:
            return int(json.load(reply).get("taskmanagers", 0))
    except urllib.error.HTTPError:
        return 0


def _job_server(cache: Path) -> Path:
    """Beam's job server in one jar: the published one, or, where there is none, built of its parts."""
    version = workers.beam_version()
    jar, built = cache / f"flink-job-server-{version}.jar", cache / "flink-job-server.jar"
    if jar.exists() or built.exists():
        return jar if jar.exists() else built
    maven, part = tool("mvn", f"Maven, or put {JOB_SERVER} at {jar}"), cache / "job-server.part"
    try:
        run(
            [maven, "-q", "-B", "dependency:copy", f"-DoutputDirectory={part}",
             f"-Dartifact={JOB_SERVER}:{version}"]
        )  # fmt: skip
        return next(part.glob("*.jar")).rename(jar)
    except LaunchError as e:
        print(f"{e}; building it from its parts", file=sys.stderr)
    return built_jar(built, POM)
