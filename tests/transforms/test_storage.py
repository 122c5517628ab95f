"""Paths that may be URLs."""

import tempfile
from pathlib import Path

import pytest

from scenefeed.transforms.errors import ConfigError
from scenefeed.transforms.labels.table import read_table
from scenefeed.transforms.labels.vectorfile import read_vector
from scenefeed.transforms.rasters import _endpoints
from scenefeed.transforms.remotepath import RemotePath
from scenefeed.transforms.scenes import Asset, SceneFiles
from scenefeed.transforms.storage import (
    absolute,
    gdal_name,
    join,
    local_copy,
    names_in,
    path_of,
    remove,
    sizes,
    stamps,
    write_text,
)  # fmt: skip


@pytest.mark.parametrize("root", ["s3://bucket", "gs://bucket", "hdfs://host:9870"])
def test_a_url_has_the_parts_of_a_path(root):
    path = path_of(f"{root}/a/b.c/scene.tif")
    assert isinstance(path, RemotePath)
    like = Path("/a/b.c/scene.tif")
    assert (path.name, path.stem, path.suffix) == (like.name, like.stem, like.suffix)
    assert str(path) == absolute(path) == f"{root}/a/b.c/scene.tif"
    assert str(path.parent / "x.tif") == f"{root}/a/b.c/x.tif"
    assert str(path.with_suffix(".hdr")) == f"{root}/a/b.c/scene.hdr"
    assert path == path_of(f"{root}/a/b.c/scene.tif") != path.parent
    assert sorted([path, path.parent / "a"])[0].name == "a"
    assert str(path_of(f"{root}/a/")) == f"{root}/a"


def test_a_whole_bucket_is_a_folder():
    assert str(path_of("s3://bucket/")) == str(path_of("s3://bucket")) == "s3://bucket"
    assert join(str(path_of("s3://bucket")), "records") == "s3://bucket/records"


@pytest.mark.parametrize("text", ["http://host/a.tif", "ftp://host/a", "az://c/a"])
def test_other_urls_are_refused(text):
    with pytest.raises(ConfigError, match="known are s3://, gs:// and hdfs://"):
        path_of(text)
    with pytest.raises(ConfigError, match="names no bucket"):
        path_of("s3://")


def test_gdals_names():
    assert gdal_name("/a/b.tif") == "/a/b.tif"
    assert gdal_name("s3://b/c d.tif") == "/vsis3/b/c d.tif"
    assert gdal_name("gs://b/c.tif") == "/vsigs/b/c.tif"
    assert gdal_name("hdfs://h:9870/c.tif") == "/vsiwebhdfs/http://h:9870/webhdfs/v1/c.tif"


def test_gdal_finds_the_servers_that_other_clients_are_told_of():
    assert _endpoints({}) == {}
    s3 = _endpoints({"AWS_ENDPOINT_URL": "http://127.0.0.1:99/"})
    assert s3 == {"AWS_S3_ENDPOINT": "127.0.0.1:99", "AWS_HTTPS": "NO",
                  "AWS_VIRTUAL_HOSTING": "FALSE"}  # fmt: skip
    assert _endpoints({"AWS_ENDPOINT_URL": "https://h"})["AWS_HTTPS"] == "YES"
    assert _endpoints({"STORAGE_EMULATOR_HOST": "h:1"})["CPL_GS_ENDPOINT"] == "http://h:1/"


def test_local_files(tmp_path):
    file = tmp_path / "a.txt"
    write_text(file, "one")
    first = stamps([str(file), str(tmp_path / "none")])
    assert first.keys() == {str(file)}
    assert sizes([str(file), str(tmp_path / "none")]) == {str(file): 3}
    write_text(file, "other")
    assert stamps([str(file)]) != first
    (tmp_path / "d").mkdir()
    assert names_in(tmp_path) == ["a.txt", "d"]  # no temporary is left
    for path in (file, tmp_path / "d", tmp_path / "none"):
        remove(path)
    assert names_in(tmp_path) == []
    assert names_in(tmp_path / "none") == []


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """A remote file system; copies of what it holds go below tmp_path."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return pytest.importorskip("fsspec").filesystem("memory")


def test_a_copy_of_a_remote_file_goes_with_the_block(memory, tmp_path):
    memory.pipe_file("/copies/a.csv", b"id\n1\n")
    with local_copy("memory://copies/a.csv") as local:
        assert Path(local).parent.parent == tmp_path
        assert (Path(local).name, Path(local).read_bytes()) == ("a.csv", b"id\n1\n")
    with pytest.raises(FileNotFoundError), local_copy("memory://copies/none.csv"):
        pass
    assert names_in(tmp_path) == []
    write_text(tmp_path / "here.csv", "id\n")
    with local_copy(str(tmp_path / "here.csv")) as local:
        assert local == str(tmp_path / "here.csv")
    assert names_in(tmp_path) == ["here.csv"]


def test_labels_leave_no_copies(memory, tmp_path):
    memory.pipe_file("/copies/t.csv", b"id,tons\na,7\n")
    point = b'{"type": "Feature", "properties": {"kind": "oak"}, "geometry": '
    point += b'{"type": "Point", "coordinates": [7, 50]}}'
    memory.pipe_file(
        "/copies/p.geojson", b'{"type": "FeatureCollection", "features": [%s]}' % point
    )
    assert read_table("memory://copies/t.csv").rows == [["a", "7"]]
    found = read_vector("memory://copies/p.geojson", ("kind",))
    assert (found.geometries[0].x, found.fields["kind"].tolist()) == (7, ["oak"])
    assert names_in(tmp_path) == []


def test_what_lies_beside_a_scene_is_known_by_its_stamps():
    asset = Asset("s3://b/s.tif")
    plain = SceneFiles("s", (asset,), stamps={"s3://b/s.tif": "1"})
    masked = SceneFiles("s", (asset,), stamps={"s3://b/s.tif": "1", "s3://b/s.tif.msk": "2"})
    assert (plain.remote, plain.has_sidecars, masked.has_sidecars) == (True, False, True)
    assert plain.fingerprint("") != masked.fingerprint("")
    assert "s3://b/s.tif.aux.xml" in plain.watched()
    assert not SceneFiles("s", (Asset("/b/s.tif"),)).remote
