"""Shards that are not files: fsspec's memory, and a server on loopback that answers ranges."""

import asyncio
import threading
from collections import Counter

import pytest

from scenefeed.loader import DatasetError, Feed
from tests.loader.test_feed import keys

fsspec = pytest.importorskip("fsspec")
web = pytest.importorskip("aiohttp.web")


@pytest.fixture(scope="module")
def out(small_dataset):
    return small_dataset / "out"


@pytest.fixture
def served(out):
    """A URL of the dataset, and how many requests for each path had a range."""
    ranges, ready, loop = Counter(), threading.Event(), asyncio.new_event_loop()
    port = []

    async def answer(request):
        path = out / request.match_info["path"]
        if not path.is_file():
            raise web.HTTPNotFound
        if "Range" in request.headers:
            ranges[path.suffix] += 1
        return web.FileResponse(path)

    async def serve():
        app = web.Application()
        app.router.add_get("/out/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.append(runner.addresses[0][1])
        ready.set()
        return runner

    def work():
        runner = loop.run_until_complete(serve())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(20)
    yield f"http://127.0.0.1:{port[0]}/out", ranges
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    assert not thread.is_alive()


def test_over_a_network_a_stream_and_an_index_give_the_local_records(out, served, tmp_path):
    url, ranges = served
    local = keys(Feed(out, batch_size=4))
    assert keys(Feed(url, batch_size=4, source="index")) == local
    assert ranges[".tfrecord"] >= len(local)  # records, not shards
    stream = Feed(url, batch_size=4, features=["scene_id", "row", "col", "image"])
    assert sorted(keys(stream)) == sorted(local)
    assert keys(Feed(url, batch_size=4, cache=tmp_path)) == local
    with pytest.raises(DatasetError, match="no complete dataset"):
        Feed(f"{url}/nothing")


def test_a_stream_over_a_network_is_the_local_one(out, served):
    url, _ = served
    asked = {"batch_size": 4, "source": "stream", "seed": 5}
    assert keys(Feed(url, **asked)) == keys(Feed(out, **asked))


def test_remote_shards_are_read_by_ranges(out):
    memory = fsspec.filesystem("memory")
    memory.put(str(out), "/bucket/out", recursive=True)
    try:
        url = "memory://bucket/out"
        feed = Feed(url, batch_size=4, source="index")
        assert keys(feed) == keys(Feed(out, batch_size=4))
        assert sorted(keys(Feed(url, batch_size=4))) == sorted(keys(feed))  # as a stream
        memory.rm("/bucket/out/records/train-00001-of-00003.idx")
        assert keys(Feed(url, source="index")) == keys(Feed(out))
        memory.rm("/bucket/out/records/train-00001-of-00003.tfrecord")
        for source in ("index", "stream"):
            with pytest.raises(DatasetError, match="train-00001-of-00003"):
                list(Feed(url, source=source))
        with pytest.raises(DatasetError, match="no complete dataset"):
            Feed("memory://bucket/nothing")
    finally:
        memory.store.clear()
    with pytest.raises(DatasetError, match="scenefeed"):
        Feed("nowhere://bucket/out")
