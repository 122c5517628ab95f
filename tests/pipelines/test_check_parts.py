"""The parts of check: verdicts, noise, targets, the page cache, utilization."""

import os
import statistics
import subprocess
import sys

import pytest

from scenefeed.pipelines.check import cold, noise, utilization
from scenefeed.pipelines.check.targets import targets_from
from scenefeed.pipelines.check.verdict import result
from scenefeed.transforms.errors import ConfigError


def seconds(*samples, target=2.0, **more):
    return result("five", samples, "s", target, "at most", "took {value:.1f} s", **more)


def test_a_verdict_is_the_medians():
    found = seconds(1.0, 9.0, 1.5)
    assert (found["value"], found["spread"], found["met"]) == (1.5, [1.0, 9.0], True)
    assert found["words"] == "1 of 3 miss it"
    assert found["advice"] == ""
    missed = seconds(3.0, 1.0, 2.5, 4.0)
    assert missed["value"] == statistics.median([3.0, 1.0, 2.5, 4.0]) == 2.75
    assert (missed["met"], missed["words"]) == (False, "1 of 4 reach it")
    assert missed["advice"] == "took 2.8 s"
    least = result("rate", [27.0, 27.9, 28.0], "MB/s", 27.8, "at least", "")
    assert (least["met"], least["words"]) == (True, "1 of 3 miss it")


def test_no_verdict_from_one_sample_nor_without_a_target():
    assert (seconds(9.0)["met"], seconds(9.0)["words"]) == (None, "no verdict from 1 repetition")
    assert seconds(9.0, 9.0)["words"] == "no verdict from 2 repetitions"
    assert seconds(9.0, exact=True)["met"] is False
    assert seconds(9.0, 9.0, 9.0, target=None)["met"] is None
    nothing = seconds(words="no such file")
    assert (nothing["value"], nothing["spread"], nothing["met"]) == (None, None, None)
    assert nothing["words"] == "no such file, not measured"


SPIN = "import time\nwhile time.process_time() < 0.6: pass"


@pytest.mark.parametrize(("ours", "busy"), [(True, 0.2), (False, 0.8)])
def test_what_we_wait_for_is_no_noise(monkeypatch, ours, busy):
    """A second of a processor: 0.6 s of work, which is ours or not, 0.2 s idle, 0.2 s stolen."""
    tick = os.sysconf("SC_CLK_TCK")
    ticks = iter([[0] * 8, [int(x * tick) for x in (0.4, 0, 0.2, 0.1, 0.1, 0, 0, 0.2)]])
    monkeypatch.setattr(noise, "_ticks", lambda: next(ticks))
    with noise.watching() as seen:
        if ours:
            subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert seen.busy == pytest.approx(busy, abs=0.1)
    assert seen.steal == pytest.approx(0.2)
    assert "20% by other virtual machines" in seen.warning


def test_this_machine_tells_its_ticks():
    user, nice, system, idle, iowait, irq, softirq, steal = noise._ticks()
    assert idle > 0
    assert min(user, nice, system, iowait, irq, softirq, steal) >= 0


def test_a_system_that_does_not_tell_makes_no_noise(tmp_path, monkeypatch):
    monkeypatch.setattr(noise, "_STAT", tmp_path / "none")
    with noise.watching() as seen:
        pass
    assert (seen.busy, seen.warning) == (None, None)
    assert noise.Noise(0.05, 0).warning is None


def test_the_published_targets_are_the_defaults():
    found = targets_from()
    assert found.convert_mb_per_s == pytest.approx(100e9 / 3600 / 1e6)
    assert (found.loading.batches, found.loading.batch_size, found.loading.seconds) == (5, 1024, 2)
    assert (found.memory_gib, found.utilization, found.loading.first_batch_seconds) == (
        2,
        None,
        None,
    )


def test_targets_of_a_file_and_flags_that_win(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(
        "conversion: {gb: 50, seconds: 1000}\nloading: {seconds: 1, batch_size: 64}\n"
        "memory: {growth_mib_per_minute: 1}\nutilization: 0.9\n"
    )
    found = targets_from(str(path))
    assert found.convert_mb_per_s == 50
    assert (found.loading.batch_size, found.loading.batches, found.utilization) == (64, 5, 0.9)
    assert (found.memory.gib, found.memory.growth_mib_per_minute) == (2, 1)
    found = targets_from(str(path), 7.0, 3.0, 4.0, 8)
    assert found.convert_mb_per_s == pytest.approx(7)
    assert (found.loading.seconds, found.loading.batch_size, found.memory_gib) == (3, 8, 4)
    assert found.utilization == 0.9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loading: {seconds: fast}", "loading.seconds: Input should be a valid number, .*'fast'"),
        ("loading: {seconds: -1}", "loading.seconds: .*greater than or equal to 0, not -1"),
        ("loading: {seconds: .nan}", "loading.seconds: .*, not nan"),
        ("memory: {gib: .inf}", "memory.gib: .*finite number"),
        ("memory: {gib: true}", "memory.gib: must be a number, not True"),
        ("conversion: {seconds: 0}", "conversion.seconds: .*greater than 0, not 0"),
        ("loading: {batches: 2.5}", "loading.batches: .*valid integer.*2.5"),
        ("loading: {batch_size: 0}", "loading.batch_size: .*greater than or equal to 1, not 0"),
        ("utilization: 90", "utilization: .*less than or equal to 1, not 90"),
        ("loading: {secnds: 1}", "loading.secnds: unknown key; did you mean 'seconds'"),
        ("lodaing: {seconds: 1}", "lodaing: unknown key; did you mean 'loading'"),
        ("loading: 2", "loading: Input should be a mapping, not 2"),
        ("- 1", r"holds no keys: start with `loading: \{seconds: 2\}`"),
        ("a: [", "not YAML"),
    ],
)
def test_targets_that_are_none_are_one_line(tmp_path, text, words):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words) as e:
        targets_from(str(tmp_path / "t.yaml"))
    assert str(e.value).startswith(f"{tmp_path / 't.yaml'}: ")
    assert "\n" not in str(e.value)


def test_files_leave_the_page_cache_and_come_back(tmp_path):
    files = [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "empty")]
    for path, size in zip(files, (1 << 20, 4097, 0), strict=True):
        with open(path, "wb") as file:
            file.write(os.urandom(size))  # not on the disk yet
    assert cold.resident(files) == 1
    cold.empty(files)
    if cold.resident(files) == 1:
        pytest.skip("the tests' folder is in memory (tmpfs)")
    assert cold.resident(files) == 0
    cold.fill(files[:1])
    assert cold.resident(files) == pytest.approx(256 / 258)


class Clock:
    """Time that passes by sleeping alone."""

    now = 0.0

    def sleep(self, seconds):
        self.now += seconds

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(("batch_s", "share"), [(0.03, 0.4), (0.0, 1.0)])
def test_utilization_is_the_share_of_time_not_spent_waiting(monkeypatch, batch_s, share):
    """Steps of 20 ms, each of which waits for its batch; the first one does not count."""
    clock = Clock()
    monkeypatch.setattr(utilization, "time", clock)

    def feed():
        clock.sleep(5)
        while True:
            yield
            clock.sleep(batch_s)

    assert utilization.simulated(feed(), 0.02, 10) == pytest.approx(share)
