"""Workers that see no disk but a bucket: scenes, stage files and the dataset on S3."""

import json
import shlex

import pytest

from tests.clusters.conftest import TOOLS, LocalCluster, fingerprint, skip_without
from tests.conftest import scenefeed
from tests.storage.conftest import s3  # noqa: F401 - a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_from_bucket_to_bucket(s3, scenes, tmp_path, monkeypatch):  # noqa: F811
    skip_without(TOOLS["flink"], "flink")
    for kind in ("scenes", "labels"):
        for path in sorted((scenes.parent / kind).glob("*.tif")):
            s3.put(f"cluster/{kind}/{path.name}", path)
    config = tmp_path / "c.yaml"
    text = scenes.read_text()
    for kind in ("scenes", "labels"):
        text = text.replace(f'"{kind}/', f'"{s3.root}/cluster/{kind}/')
    config.write_text(text)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    cluster = LocalCluster("flink", tmp_path / "cluster")
    try:
        flags = shlex.split(cluster.run("up", "flink"))
        flags.remove("--shared_disk")
        scenefeed(
            "convert", "--config", config, "--output", f"{s3.root}/cluster/out", "--num_shards", 4,
            *flags, seconds=500,
        )  # fmt: skip
    finally:
        cluster.run("down")
    found = json.loads(s3.get("cluster/out/dataset.json"))["fingerprint"]
    assert found == fingerprint(scenes.parent / "direct")
    assert len([n for n in s3.list() if n.startswith("cluster/out/stage/")]) == 16
    logs = "".join(p.read_text(errors="replace") for p in cluster.folder.glob("logs/*"))
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in logs
