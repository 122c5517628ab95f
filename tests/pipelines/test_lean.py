"""Beam without what is not used of it."""

import subprocess
import sys

CODE = """
import sys
from scenefeed.pipelines.lean import import_beam
import_beam()
assert "apache_beam" in sys.modules
unused = {"pandas", "google.cloud.bigquery", "google.cloud.pubsub", "pymongo"}
print(sorted(unused & set(sys.modules)))
from apache_beam.io.filesystems import FileSystems
print([FileSystems.get_filesystem(f"{s}://b/k").scheme() for s in ("gs", "s3")])
import google.cloud.bigquery, pandas, pymongo
print(pandas.DataFrame({"a": [1]}).shape, import_beam())
"""


def test_beam_is_imported_without_what_nobody_asks_for_which_is_there_afterwards():
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == ["[]", "['gs', 's3']", "(1, 1) None"]
    assert "bson" not in done.stderr
