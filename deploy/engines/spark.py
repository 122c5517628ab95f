"""Spark standalone: a master, workers, Beam's job server (the driver) and a worker pool."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from . import workers
from .fetching import built_jar, sdist_jars, tool
from .processes import HOST, Cluster

# The Spark that deploy/spark/job-server was built for: change both or none.
SPARK, SCALA = "3.5.0", "2.12"
CORES = 1  # of each worker
POM = Path(__file__).parents[1] / "spark" / "job-server" / "pom.xml"

# As Spark's own launcher gives them: what it reaches into since Java 17 closed its modules.
_OPENS = """java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.util
    java.util.concurrent java.util.concurrent.atomic sun.nio.ch sun.nio.cs sun.security.action
    sun.util.calendar""".split()
_UNUSED = tuple(
    """arpack breeze cats-kernel datanucleus derby hive kubernetes mesos rocksdbjni scala-compiler
    spark-hive spark-kubernetes spark-mesos spark-mllib spire""".split()
)
_DEPLOY = "org.apache.spark.deploy"


def up(cluster: Cluster, count: int) -> list[str]:
    """Starts the cluster; the flags that run a pipeline on it."""
    java = tool("java", "a Java 17 runtime")
    home = cluster.cache / f"spark-{SPARK}"
    home.mkdir(exist_ok=True)
    jars = sdist_jars(home / "jars", f"pyspark=={SPARK}", _needed)
    jar = built_jar(cluster.cache / f"spark-job-server-{SPARK}.jar", POM)
    rpc, web, job = (cluster.port(name) for name in ("spark", "web", "job-server"))
    master = f"spark://{HOST}:{rpc}"
    # Workers build their executors' class path from the first two.
    env = {"SPARK_HOME": str(home), "SPARK_SCALA_VERSION": SCALA, "SPARK_LOCAL_IP": HOST,
           "SPARK_LOCAL_DIRS": str(cluster.tmp)}  # fmt: skip
    command = [java, "-Xmx512m", *_opens(), "-cp"]
    cluster.start(
        "master",
        [*command, f"{jars}/*", f"{_DEPLOY}.master.Master", "--host", HOST, "--port", rpc,
         "--webui-port", web],
        env,
    )  # fmt: skip
    cluster.wait_for("master", web)
    for n in range(count):
        cluster.start(
            f"worker-{n}",
            [*command, f"{jars}/*", f"{_DEPLOY}.worker.Worker", "--host", HOST,
             "--cores", CORES, "--memory", "768m", "--work-dir", cluster.tmp / f"worker-{n}",
             "--webui-port", cluster.port(f"worker-{n}"), master],
            env,
        )  # fmt: skip
    cluster.start("job-server", [*command, f"{jar}:{jars}/*", *_job_server(cluster, master)], env)
    pool = workers.up(cluster)
    for n in range(count):
        cluster.wait_until(f"worker-{n}", lambda: state(web)["aliveworkers"] == count)
    cluster.wait_for("job-server", job)
    cluster.remember(web=f"http://{HOST}:{web}", master=master)
    return [
        "--runner=PortableRunner", f"--job_endpoint={HOST}:{job}", *pool,
        "--environment_cache_millis=60000",
    ]  # fmt: skip


def _needed(path: Path) -> bool:
    """Spark's jars, but for the largest of those that Beam has no use for.

    Executors fetch all that the driver has on its class path, for every job.
    """
    return path.suffix == ".jar" and not path.name.startswith(_UNUSED)


def state(web: int) -> dict[str, Any]:
    """What the master says of its workers and applications."""
    with urllib.request.urlopen(f"http://{HOST}:{web}/json/", timeout=5) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def _job_server(cluster: Cluster, master: str) -> list[str]:
    """The job server's class, options and flags. It is the driver of every job."""
    options = {
        # --spark-master-url is but a default, of local[4] without it: this wins over every flag.
        "spark.master": master,
        "spark.driver.host": HOST,
        "spark.ui.port": str(cluster.port("spark-ui")),
        "spark.executor.memory": "512m",
        "spark.executor.extraJavaOptions": " ".join(_opens()),
    }
    return [
        *(f"-D{key}={value}" for key, value in options.items()),
        "org.apache.beam.runners.spark.SparkJobServerDriver", f"--job-host={HOST}",
        f"--job-port={cluster.port('job-server')}", f"--artifact-port={cluster.port('artifacts')}",
        "--expansion-port=-1", f"--artifacts-dir={cluster.tmp}/artifacts",
        f"--spark-master-url={master}",
    ]  # fmt: skip


def _opens() -> list[str]:
    return [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENS]
