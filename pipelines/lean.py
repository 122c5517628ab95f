"""Libraries without what has no use here of what they import wherever it is installed.

Of each start, Beam's BigQuery, Pub/Sub, MongoDB and pandas' types take 0.9 core-seconds, half of its
whole import. Of TensorFlow's and tf.Transform's, 7 core-seconds, 3 go to what stands below, and to
looking for garbage meanwhile.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator

BEAMS = ("google.cloud.bigquery", "google.cloud.pubsub", "pandas", "pymongo")
TENSORFLOWS = (*BEAMS, "keras", "matplotlib", "scipy", "PIL", "IPython", "rich")


@contextlib.contextmanager
def hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Has imports fail as if these were not installed: an optional package that is not there is no
    error. Afterwards they can be imported as ever."""
    # The one module that says what it did not find.
    logging.getLogger("apache_beam.io.mongodbio").setLevel(logging.ERROR)
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


def import_beam() -> None:
    """Imports Beam, if that is not done, without what a conversion on this machine does not use."""
    if "apache_beam" not in sys.modules:
        with hidden(BEAMS):
            importlib.import_module("apache_beam")
