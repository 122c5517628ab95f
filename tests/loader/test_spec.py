"""dataset.json and back."""

import json

from scenefeed.loader.spec import DatasetSpec, Shard, Split


def spec_of(*shards):
    return DatasetSpec("d", {}, {"train": Split.of(shards)}, {}, "", "scenefeed 0")


def test_record_bytes_stands_where_there_is_one():
    text = spec_of(Shard("a", 2, 64, "", 32), Shard("b", 2, 65, "")).to_json()
    one, other = json.loads(text)["splits"]["train"]["shards"]
    assert one["record_bytes"] == 32
    assert list(other) == ["path", "num_examples", "num_bytes", "sha256"]
    found = DatasetSpec.from_json(text).splits["train"].shards
    assert [s.record_bytes for s in found] == [32, 0]


def test_record_bytes_is_not_in_the_fingerprint():
    one, other = spec_of(Shard("a", 2, 64, "f", 32)), spec_of(Shard("a", 2, 64, "f"))
    assert one.fingerprint == other.fingerprint
