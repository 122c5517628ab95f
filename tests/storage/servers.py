"""Real servers on loopback: S3 (versitygw), GCS (fake-gcs-server), HDFS (Hadoop's mini cluster).

Each is downloaded and built once, into ~/.cache/scenefeed or $SCENEFEED_CACHE. What tests put into
a bucket and look for in it goes past the clients that are tested: plain HTTP, or the server's own
folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.storage.recorder import Recorder, Request, recorder

CACHE = Path(os.environ.get("SCENEFEED_CACHE", "~/.cache/scenefeed")).expanduser()
VERSITYGW = ("github.com/versity/versitygw/cmd/versitygw", "v1.8.0")
FAKE_GCS = ("github.com/fsouza/fake-gcs-server", "v1.56.1")
HADOOP = "3.4.1"  # also in hdfs/pom.xml


class Missing(Exception):
    """A tool that a server needs is not on this machine."""


@dataclass
class Server:
    """A bucket (or folder) on a server that runs.

    Attributes:
      root: such as ``s3://bucket``.
      denied: a root of the same kind on which the credentials in ``env`` get 403.
      env: what the clients need in their environment.
      log: every request since the start.
    """

    root: str
    denied: str
    env: dict[str, str]
    log: Recorder
    put: Callable[[str, Path], None]
    get: Callable[[str], bytes]
    list: Callable[[], list[str]]


@contextlib.contextmanager
def s3(folder: Path) -> Iterator[Server]:
    """versitygw over a folder: objects are its files. A bucket of another user gives 403."""
    binary = _built(*VERSITYGW)
    iam, store = folder / "iam", folder / "store"
    iam.mkdir(parents=True)
    store.mkdir()
    with recorder() as log:
        log.upstream = _free_port()
        endpoint = f"http://127.0.0.1:{log.port}"
        command = [
            binary, "--port", f"127.0.0.1:{log.upstream}", "--access", "owner",
            "--secret", "owner-secret", "--iam-dir", iam, "--iam-cache-disable", "--quiet",
            "--health", "/health", "--disable-strict-bucket-names", "posix", store,
        ]  # fmt: skip
        with _running(command, folder / "s3.log", f"{endpoint}/health"):
            admin = [
                binary, "admin", "-a", "owner", "-s", "owner-secret", "-er", endpoint,
            ]  # fmt: skip
            user = ["create-user", "-a", "user", "-s", "user-secret", "-r", "userplus"]
            subprocess.run([*admin, *user], check=True, capture_output=True, timeout=30)
            for owner, bucket in (("user", "bucket"), ("owner", "denied")):
                _s3_client(endpoint, owner).create_bucket(Bucket=bucket)
            client = _s3_client(endpoint, "user")
            bucket = store / "bucket"
            log.requests.clear()
            yield Server(
                root="s3://bucket",
                denied="s3://denied",
                env={
                    "AWS_ACCESS_KEY_ID": "user",
                    "AWS_SECRET_ACCESS_KEY": "user-secret",
                    "AWS_DEFAULT_REGION": "us-east-1",
                    "AWS_ENDPOINT_URL": endpoint,  # boto3, s3fs
                    "AWS_EC2_METADATA_DISABLED": "true",
                },
                log=log,
                put=lambda name, path: client.upload_file(str(path), "bucket", name),
                get=lambda name: (bucket / name).read_bytes(),
                list=lambda: sorted(
                    str(p.relative_to(bucket))
                    for p in bucket.rglob("*")
                    if p.is_file() and ".sgwtmp" not in p.parts
                ),
            )


def _s3_client(endpoint: str, user: str):
    import boto3

    return boto3.session.Session(
        aws_access_key_id=user, aws_secret_access_key=f"{user}-secret", region_name="us-east-1"
    ).client("s3", endpoint_url=endpoint)


@contextlib.contextmanager
def gcs(folder: Path) -> Iterator[Server]:
    """fake-gcs-server over a folder. It knows no permissions: the 403 of the bucket ``denied`` is
    ours, worded as Google's."""
    binary = _built(*FAKE_GCS)
    with recorder() as log:
        log.upstream = _free_port()
        log.refuse, log.rewrite = _denied, _numbered
        endpoint = f"http://127.0.0.1:{log.port}"
        command = [
            binary, "-scheme", "http", "-host", "127.0.0.1", "-port", log.upstream,
            "-filesystem-root", folder / "store", "-external-url", endpoint,
            "-public-host", f"127.0.0.1:{log.port}", "-log-level", "warn",
        ]  # fmt: skip
        with _running(command, folder / "gcs.log", f"{endpoint}/_internal/healthcheck"):
            objects = f"{endpoint}/storage/v1/b/bucket/o"

            def put(name: str, path: Path) -> None:
                query = urllib.parse.urlencode({"uploadType": "media", "name": name})
                _http(f"{endpoint}/upload/storage/v1/b/bucket/o?{query}", path.read_bytes())

            bucket = json.dumps({"name": "bucket"}).encode()
            _http(f"{endpoint}/storage/v1/b?project=test", bucket, kind="application/json")
            log.requests.clear()
            yield Server(
                root="gs://bucket",
                denied="gs://denied",
                env={
                    "STORAGE_EMULATOR_HOST": endpoint,  # google-cloud-storage, gcsfs
                    "NO_GCE_CHECK": "true",  # google-auth: no metadata server
                },
                log=log,
                put=put,
                get=lambda name: _http(f"{objects}/{urllib.parse.quote(name, '')}?alt=media"),
                list=lambda: sorted(
                    item["name"] for item in json.loads(_http(objects)).get("items", ())
                ),
            )


def _denied(request: Request) -> tuple[int, bytes] | None:
    if not any(x in request.path for x in ("/b/denied", "/denied/")):
        return None
    words = "Caller does not have storage.objects access to the Google Cloud Storage object."
    error = {"code": 403, "message": words, "errors": [{"message": words, "reason": "forbidden"}]}
    return 403, json.dumps({"error": error}).encode()


def _numbered(request: Request, body: bytes) -> bytes:
    """Google's own client sends batches whose parts have no Content-ID, as Google allows and
    fake-gcs-server skips without a word."""
    if not request.path.startswith("/batch/"):
        return body
    kind = b"Content-Type: application/http\n"
    return body.replace(kind, kind + b"Content-ID: <part>\n")


@contextlib.contextmanager
def hdfs(folder: Path) -> Iterator[Server]:
    """One namenode, one datanode, WebHDFS. The namenode's requests are recorded; bytes come from
    the datanode, past the recorder. ``/denied`` is another user's folder."""
    jars, details = _hadoop(), folder / "details.xml"
    folder.mkdir(parents=True, exist_ok=True)
    with recorder() as log:
        log.upstream = _free_port()
        namenode = f"http://127.0.0.1:{log.port}"
        command = [
            "java", "-Xmx256m", f"-Dtest.build.data={folder / 'data'}", "-cp", f"{jars}/*",
            "org.apache.hadoop.test.MiniDFSClusterManager", "-datanodes", "1", "-format",
            "-httpport", log.upstream, "-nnport", "0", "-writeConfig", details,
        ]  # fmt: skip
        url = f"{namenode}/webhdfs/v1"
        env = {"HADOOP_USER_NAME": "owner"}
        ready = f"{url}/?op=LISTSTATUS"
        with _running(command, folder / "hdfs.log", ready, env=env, until=details.exists):

            def put(name: str, path: Path) -> None:
                query = "op=CREATE&overwrite=true&noredirect=true&user.name=user"
                where = json.loads(_http(f"{url}/bucket/{name}?{query}", b"", "PUT"))["Location"]
                _http(where, path.read_bytes(), "PUT")

            def names(path: str = "/bucket") -> Iterator[str]:
                found = json.loads(_http(f"{url}{path}?op=LISTSTATUS&user.name=user"))
                for status in found["FileStatuses"]["FileStatus"]:
                    inner = f"{path}/{status['pathSuffix']}"
                    if status["type"] == "DIRECTORY":
                        yield from names(inner)
                    else:
                        yield inner.removeprefix("/bucket/")

            for name, mode in (("bucket", "777"), ("denied", "700")):
                query = f"op=MKDIRS&permission={mode}&user.name=owner"
                _http(f"{url}/{name}?{query}", b"", "PUT")
            _http(f"{url}/bucket?op=SETPERMISSION&permission=777&user.name=owner", b"", "PUT")
            log.requests.clear()
            yield Server(
                root=f"hdfs://127.0.0.1:{log.port}/bucket",
                denied=f"hdfs://127.0.0.1:{log.port}/denied",
                env={"HADOOP_USER_NAME": "user"},
                log=log,
                put=put,
                get=lambda name: _http(f"{url}/bucket/{name}?op=OPEN&user.name=user"),
                list=lambda: sorted(names()),
            )


def _built(package: str, version: str) -> Path:
    """A Go program in the cache; the module proxy's checksums are verified by the Go tool."""
    name = package.rpartition("/")[2]
    binary = CACHE / f"{name}-{version}" / name
    if not binary.exists():
        go = _tool("go", f"to build {package}@{version}")
        env = os.environ | {"GOBIN": str(binary.parent), "CGO_ENABLED": "0"}
        _run([go, "install", f"{package}@{version}"], env=env)
    return binary


def _hadoop() -> Path:
    """The folder of the mini cluster's jars, in the cache: 104 MiB."""
    _tool("java", "to run HDFS")
    folder = CACHE / f"hadoop-{HADOOP}"
    if not folder.exists():
        mvn = _tool("mvn", "to fetch HDFS")
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        pom = Path(__file__).with_name("hdfs") / "pom.xml"
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={partial}"]
        _run([mvn, "-q", "-B", "-f", str(pom), *copy])
        partial.rename(folder)
    return folder


def _tool(name: str, purpose: str) -> str:
    if found := shutil.which(name):
        return found
    raise Missing(f"{name} is needed {purpose}: it is not on PATH")


def _run(command: list[str], **options) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout)[-2000:]}")


@contextlib.contextmanager
def _running(command, log: Path, url: str, env=None, until=lambda: True) -> Iterator[None]:
    """Runs a server until the block ends; enters it when ``url`` answers."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(x) for x in command], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            env=os.environ | (env or {}), cwd=log.parent,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (until() and _answers(url)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        _http(url)
    except OSError:
        return False
    return True


def _http(url: str, body: bytes | None = None, method: str | None = None, kind="") -> bytes:
    headers = {"Content-Type": kind or "application/octet-stream"}
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


if __name__ == "__main__":  # python -m tests.storage.servers FOLDER: each once, by hand
    for start in (s3, gcs, hdfs):
        began = time.monotonic()
        with start(Path(sys.argv[1]) / start.__name__) as server:
            print(start.__name__, f"{time.monotonic() - began:.1f} s", server.root)
            server.put("a/b.txt", Path(__file__))
            assert server.get("a/b.txt") == Path(__file__).read_bytes()
            print(server.list())
