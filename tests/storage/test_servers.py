"""What Beam, GDAL and fsspec do with real servers: what our own code builds on."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from tests.conftest import write_raster
from tests.storage.servers import Server

pytestmark = pytest.mark.cluster
SIZE, WINDOW = 8192, Window(4000, 4000, 300, 300)


@pytest.fixture(params=["s3", "gcs", "hdfs"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Each server in turn, with the environment and Beam's options that reach it."""
    if request.param == "hdfs":
        pytest.importorskip("hdfs", reason="apache-beam's extra hadoop is not installed")
    found: Server = request.getfixturevalue(request.param)
    for name, value in found.env.items():
        monkeypatch.setenv(name, value)
    with files(found):
        yield found


@contextlib.contextmanager
def files(server: Server) -> Iterator[None]:
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    before = FileSystems._pipeline_options
    FileSystems.set_options(PipelineOptions(server.options))
    logging.disable(logging.ERROR)  # Beam logs tracebacks of what it then raises
    server.log.requests.clear()
    yield
    logging.disable(logging.NOTSET)
    FileSystems.set_options(before)


def kind(server: Server) -> str:
    return server.root.partition(":")[0]


def create(url: str, data: bytes) -> None:
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.create(url) as file:
        file.write(data)


def test_what_beam_writes_is_there(server):
    from apache_beam.io.filesystems import FileSystems

    data = os.urandom(11 << 20)
    create(f"{server.root}/written/a", data)
    assert server.get("written/a") == data
    assert FileSystems.exists(f"{server.root}/written/a")
    matched = FileSystems.match([f"{server.root}/written/*"])[0].metadata_list
    assert [(m.path, m.size_in_bytes) for m in matched] == [(f"{server.root}/written/a", len(data))]
    FileSystems.copy([f"{server.root}/written/a"], [f"{server.root}/written/b"])
    assert server.get("written/b") == data
    FileSystems.delete([f"{server.root}/written/{name}" for name in "ab"])
    assert not [name for name in server.list() if name.startswith("written/")]


def test_beam_reads_ahead_16_mib(server, tmp_path):
    """A read of ten bytes costs a buffer: 16 MiB, on HDFS 20; so ranges are not for Beam."""
    from apache_beam.io.filesystems import FileSystems

    data = os.urandom(1 << 20) * 40
    (tmp_path / "big").write_bytes(data)
    server.put("ahead/big", tmp_path / "big")
    server.log.requests.clear()
    with FileSystems.open(f"{server.root}/ahead/big") as file:
        file.seek(1000)
        assert file.read(10) == data[1000:1010]
    if kind(server) == "hdfs":
        assert "offset=1000&length=20971520" in server.log.requests[-1].path
    else:
        assert 16 << 20 <= server.log.sent < 20 << 20


def test_renamed_is_there_and_renaming_again_fails(server):
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    create(f"{server.root}/renamed/from", b"pixels")
    paths = [f"{server.root}/renamed/from"], [f"{server.root}/renamed/to"]
    FileSystems.rename(*paths)
    assert server.get("renamed/to") == b"pixels"
    assert "renamed/from" not in server.list()
    with pytest.raises(BeamIOError, match="Rename operation failed"):
        FileSystems.rename(*paths)
    assert server.get("renamed/to") == b"pixels"


def test_empty_file(server):
    if kind(server) == "s3":  # an upload of no parts
        with pytest.raises(Exception, match="MalformedXML"):
            create(f"{server.root}/empty/a", b"")
    else:
        create(f"{server.root}/empty/a", b"")
        assert server.get("empty/a") == b""


def test_half_a_file_after_an_exception(server):
    """Beam's writers on S3 and HDFS publish what they have when a block fails: hence names that
    nobody reads, and renames."""
    from apache_beam.io.filesystems import FileSystems

    def fail() -> None:
        with FileSystems.create(f"{server.root}/half/a") as file:
            file.write(b"half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert ("half/a" in server.list()) == (kind(server) != "gs")


def test_refused(server):
    from apache_beam.io.filesystems import FileSystems

    words = {"s3": "403", "gs": "403", "hdfs": "Permission denied: user=user"}[kind(server)]
    with pytest.raises(Exception, match=words):
        create(f"{server.denied}/x", b"1")
    with pytest.raises(Exception, match=words):
        FileSystems.open(f"{server.denied}/x")


def test_missing(server):
    from apache_beam.io.filesystems import FileSystems

    words = {"s3": "Not found: s3", "gs": "404 GET", "hdfs": "does not exist"}[kind(server)]
    nowhere = server.root.replace("bucket", "nobucket")
    for root in (server.root, nowhere):
        assert not FileSystems.exists(f"{root}/nix")
        with pytest.raises(Exception, match=words):
            FileSystems.open(f"{root}/nix")


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A tiled GeoTIFF of 134 MB, and the pixels of WINDOW."""
    pixels = np.random.default_rng(0).integers(0, 65535, (1, SIZE, SIZE), np.uint16)
    path = tmp_path_factory.mktemp("large") / "large.tif"
    write_raster(path, pixels, tiled=True, blockxsize=512, blockysize=512)
    return path, pixels[0, 4000:4300, 4000:4300].copy()


def vsi(server: Server, name: str, root: str | None = None) -> str:
    bucket = (root or server.root).partition("://")[2]
    prefix = {
        "s3": "/vsis3/",
        "gs": "/vsigs/",
        "hdfs": f"/vsiwebhdfs/http://127.0.0.1:{server.log.port}/webhdfs/v1/",
    }[kind(server)]
    return f"{prefix}{bucket}/{name}"


def test_gdal_reads_a_window_by_ranges(server, large):
    path, pixels = large
    server.put("scenes/large.tif", path)
    server.log.requests.clear()
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        rasterio.open(vsi(server, "scenes/large.tif")) as scene,
    ):
        np.testing.assert_array_equal(scene.read(1, window=WINDOW), pixels)
    # Four tiles of 512 KiB and a header; HDFS's bytes come past the recorder, from the datanode.
    assert len(server.log.requests) <= 6
    assert server.log.sent < 3 << 20


def test_gdal_says_what_is_wrong(server):
    """Never with the name: that is for us to say."""
    words = {"s3": "specified key|specified bucket", "gs": "404", "hdfs": "404"}[kind(server)]
    denied = {"s3": "Access Denied", "gs": "403", "hdfs": "403"}[kind(server)]
    nowhere = server.root.replace("bucket", "nobucket")
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        for root, match in ((server.root, words), (nowhere, words), (server.denied, denied)):
            with pytest.raises(rasterio.errors.RasterioIOError, match=match):
                rasterio.open(vsi(server, "nix.tif", root))


def test_gdal_asks_a_busy_server_again(s3, large, monkeypatch):
    path, pixels = large
    s3.put("busy/large.tif", path)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    left = [3]

    def busy(request) -> tuple[int, bytes] | None:
        left[0] -= request.range is not None
        return (503, b"") if request.range and left[0] >= 0 else None

    monkeypatch.setattr(s3.log, "refuse", busy)
    options = {"GDAL_HTTP_MAX_RETRY": 4, "GDAL_HTTP_RETRY_DELAY": 0.1}
    url = "/vsis3/bucket/busy/large.tif"
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", **options):
        with rasterio.open(url) as scene:
            np.testing.assert_array_equal(scene.read(1, window=WINDOW), pixels)
        assert left[0] < 0
        with rasterio.open(url) as scene:
            left[0] = 1000  # for good: an error, never pixels that it made up
            with pytest.raises(rasterio.errors.RasterioIOError, match="Read failed"):
                scene.read(1, window=Window(0, 0, 300, 300))


@pytest.mark.parametrize(("name", "driver"), [("s3", "s3fs"), ("gcs", "gcsfs"), ("hdfs", "fsspec")])
def test_the_loader_reads_records(name, driver, request, monkeypatch, tmp_path):
    """By s3fs, gcsfs, and fsspec's own WebHDFS (hdfs:// would need Hadoop's native library)."""
    from scenefeed.loader.storage import RemoteShards, open_file

    pytest.importorskip(driver, reason=f"{driver} is not installed")
    server = request.getfixturevalue(name)
    for key, value in server.env.items():
        monkeypatch.setenv(key, value)
    data = np.random.default_rng(1).integers(0, 256, 20 << 20, np.uint8)
    (tmp_path / "shard").write_bytes(data.tobytes())
    server.put("shards/a", tmp_path / "shard")
    root = server.root if name != "hdfs" else f"webhdfs://user@127.0.0.1:{server.log.port}/bucket"
    server.log.requests.clear()
    shards = RemoteShards([f"{root}/shards/a"], [len(data)])
    starts = np.array([7, 12 << 20, len(data) - 10])
    out = np.ones((3, 100), np.uint8)
    shards.fill(np.zeros(3, np.int64), starts, out)
    wanted = [np.pad(data[a : a + 100], (0, max(0, a + 100 - len(data)))) for a in starts]
    np.testing.assert_array_equal(out, np.stack(wanted))
    assert server.log.sent < 10_000
    with open_file(f"{root}/shards/a", "none") as file:
        assert file.read() == data.tobytes()
