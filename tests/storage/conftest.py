"""Fixtures: a bucket on each server, kept for the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.storage import servers


def _server(start):
    @pytest.fixture(scope="session", name=start.__name__)
    def fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
        try:
            with start(tmp_path_factory.mktemp(start.__name__) / "server") as server:
                yield server
        except servers.Missing as e:
            pytest.skip(str(e))

    return fixture


s3, gcs, hdfs = map(_server, (servers.s3, servers.gcs, servers.hdfs))
