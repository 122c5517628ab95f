"""What a worker tells of its memory, also where the system tells less."""

import resource

import pytest

from scenefeed.transforms import usage
from scenefeed.transforms.usage import Usage


@pytest.mark.parametrize("said", [None, "Name:\tx\nVmSize:\t  9 kB\nVmRSS:\t  5 kB\n"])
def test_memory_where_the_system_tells_less(said, tmp_path, monkeypatch):
    """macOS has no /proc, and gVisor's knows no peak."""
    whole = Usage.now()
    assert 1 << 20 < whole.rss <= whole.peak
    if said:
        (tmp_path / "status").write_text(said)
    monkeypatch.setattr(usage, "_PROC", str(tmp_path / "{1}"))
    found = Usage.now()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert found.rss == found.peak
    assert 0.9 * whole.peak < found.peak <= most
