"""deploy/flink and deploy/spark against the schemas of Kubernetes and of Flink's operator, and
against the command that they run."""

from __future__ import annotations

import copy

import pytest

from scenefeed.pipelines import cli
from tests.deploy.docs import doc_commands, run
from tests.deploy.tools import DEPLOY, documents, flink_deployment_schema, problems, tool

MANIFESTS = sorted(p.relative_to(DEPLOY).as_posix() for p in DEPLOY.glob("*/*.yaml"))
CLUSTER = documents(DEPLOY / "flink/cluster.yaml")[0]


def of_kind(folder: str, kind: str) -> dict:
    """The first document of a kind under deploy/FOLDER."""
    paths = sorted((DEPLOY / folder).glob("*.yaml"))
    return next(d for p in paths for d in documents(p) if d["kind"] == kind)


@pytest.mark.cluster
@pytest.mark.parametrize("path", [p for p in MANIFESTS if p != "flink/cluster.yaml"])
def test_kubernetes_knows_every_key(path):
    tool("kubernetes-validate==1.37.0", "kubernetes-validate", "--strict", DEPLOY / path)


@pytest.mark.cluster
def test_the_operator_knows_every_key():
    schema = flink_deployment_schema()
    assert problems(CLUSTER["spec"], schema) == []
    wrong = copy.deepcopy(CLUSTER["spec"])
    wrong["taskManager"]["podTemplate"]["spec"]["containers"][1]["imagee"] = "x"
    wrong["flinkVersion"] = "v1_7"
    assert [p.split(":")[0] for p in problems(wrong, schema)] == [
        ".flinkVersion", ".taskManager.podTemplate.spec.containers[1].imagee",
    ]  # fmt: skip


@pytest.mark.cluster
def test_kubernetes_knows_the_policy_beside_the_cluster(tmp_path):
    import yaml

    (tmp_path / "policy.yaml").write_text(
        yaml.safe_dump(documents(DEPLOY / "flink/cluster.yaml")[1])
    )
    tool("kubernetes-validate==1.37.0", "kubernetes-validate", "--strict", tmp_path / "policy.yaml")


@pytest.mark.parametrize("folder", ["flink", "spark"])
def test_the_job_is_a_command_that_scenefeed_understands(folder):
    (container,) = of_kind(folder, "Job")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["scenefeed", "convert"]
    args, rest = cli._parse(["convert", *container["args"]])
    assert args.scenes == ["s3://scenes/2024/*.tif"]
    assert args.stage_dir.startswith("s3://")
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in rest)
    assert flags["environment_config"] == "localhost:50000"
    service = of_kind(folder, "Service") if folder == "flink" else documents(
        DEPLOY / "spark/job-server.yaml")[1]  # fmt: skip
    ports = {p["name"]: p["port"] for p in service["spec"]["ports"]}
    name = service["metadata"]["name"]
    assert flags["job_endpoint"] == f"{name}:{ports['job']}"
    assert flags["artifact_endpoint"] == f"{name}:{ports['artifacts']}"


@pytest.mark.parametrize("folder", ["flink", "spark"])
def test_the_job_server_listens_where_its_service_points(folder):
    deployment, service = documents(DEPLOY / folder / "job-server.yaml")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    args = dict(a.removeprefix("--").split("=", 1) for a in container["args"])
    ports = {p["name"]: str(p["containerPort"]) for p in container["ports"]}
    assert ports == {"job": args["job-port"], "artifacts": args["artifact-port"]}
    assert {p["name"]: str(p["port"]) for p in service["spec"]["ports"]} == ports
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]


def test_the_job_server_finds_the_cluster():
    (flink,) = of_kind("flink", "Deployment")["spec"]["template"]["spec"]["containers"]
    assert f"--flink-master={CLUSTER['metadata']['name']}-rest:8081" in flink["args"]
    master = documents(DEPLOY / "spark/cluster.yaml")[1]["metadata"]["name"]
    (spark,) = documents(DEPLOY / "spark/job-server.yaml")[0]["spec"]["template"]["spec"][
        "containers"
    ]
    assert f"--spark-master-url=spark://{master}:7077" in spark["args"]
    options = {e["name"]: e.get("value") for e in spark["env"]}["JAVA_TOOL_OPTIONS"].split()
    assert f"-Dspark.master=spark://{master}:7077" in options, "or it runs in local[4], silently"


def test_flink_takes_the_ports_that_its_policy_opens():
    policy = of_kind("flink", "NetworkPolicy")["spec"]
    opened = {str(port["port"]) for rule in policy["ingress"] for port in rule["ports"]}
    conf = CLUSTER["spec"]["flinkConfiguration"]
    fixed = {conf["taskmanager.data.port"], conf["metrics.internal.query-service.port"]}
    assert opened == fixed | {"6122"}, "the last is Flink's own for RPC on Kubernetes"
    assert policy["podSelector"]["matchLabels"]["app"] == CLUSTER["metadata"]["name"]


def test_flink_has_beams_classes_as_its_own():
    assert CLUSTER["spec"]["flinkConfiguration"]["classloader.resolve-order"] == "parent-first"
    (server,) = of_kind("flink", "Deployment")["spec"]["template"]["spec"]["containers"]
    for part in ("jobManager", "taskManager"):
        pod = CLUSTER["spec"][part]["podTemplate"]["spec"]
        (copies,) = pod["initContainers"]
        assert copies["image"] == server["image"]
        mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
        assert mounts["beam"].startswith("/opt/flink/lib/")
        assert "beam" in {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize("folder", ["flink", "spark"])
def test_workers_stand_beside_the_engine_and_have_room(folder):
    if folder == "flink":
        spec = CLUSTER["spec"]["taskManager"]["podTemplate"]["spec"]
    else:
        spec = documents(DEPLOY / "spark/cluster.yaml")[2]["spec"]["template"]["spec"]
    workers = next(c for c in spec["containers"] if c["name"] == "workers")
    assert workers["args"] == ["--worker_pool"]
    assert "command" not in workers, "the image's entry point is Beam's boot"
    assert "workingDir" not in workers, "boot writes into the folder where it starts"
    scratch = {v["name"]: v["emptyDir"] for v in spec["volumes"]}
    (mount,) = workers["volumeMounts"]
    assert {"name": "TMPDIR", "value": mount["mountPath"]} in workers["env"]
    assert scratch[mount["name"]]["sizeLimit"]


@pytest.mark.parametrize("folder", ["flink", "spark"])
def test_nobody_outside_the_pod_reaches_the_worker_pool(folder):
    policy = of_kind(folder, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    for rule in policy["ingress"]:
        assert rule["from"]
        assert rule["ports"], "a rule without ports opens all"
        for port in rule["ports"]:
            assert not port["port"] <= 50000 <= port.get("endPort", port["port"])


@pytest.mark.cluster
def test_the_commands_of_the_page():
    for commands in doc_commands("kubernetes"):
        assert "passed" in run(commands)
