"""``check --tensorboard``: its figures, read back by TensorBoard itself."""

import importlib.util
import json

import pytest

from scenefeed.pipelines import events
from scenefeed.transforms.errors import ConfigError
from tests.conftest import errors, scenefeed


@pytest.mark.slow
def test_a_checks_figures_come_back(small_dataset, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    board, targets = tmp_path / "new" / "board", ("--convert_mb_per_s", 0, "--memory_gib", 64)
    reports = []
    for number in range(2):
        file = tmp_path / f"{number}.json"
        scenefeed("check", small_dataset / "out", "--batch_size", 8, "--load_seconds", 60,
                  "--tensorboard", board, "--json", file, "--seconds", 0.1, *targets)  # fmt: skip
        reports.append(json.loads(file.read_text()))
    found = EventAccumulator(str(board))
    found.Reload()
    expected = [events.of_check(r) for r in reports]
    assert set(found.Tags()["tensors"]) == set(expected[0])
    for tag in expected[0]:
        steps = found.Tensors(tag)
        assert [s.step for s in steps] == [0, 1]
        values = [float(tensor_util.make_ndarray(s.tensor_proto)) for s in steps]
        assert values == pytest.approx([e[tag] for e in expected], rel=1e-6)
    measured = {r["name"]: r for r in reports[0]["results"]}["Feed: 5 x 8 shuffled"]
    assert expected[0]["Feed: 5 x 8 shuffled/s"] == measured["value"] > 0
    assert expected[0]["Feed: 5 x 8 shuffled/patches a second"] == measured["patches_per_s"]


def test_what_cannot_be_written_is_said_before_anything_is_measured(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    done = scenefeed("check", tmp_path, "--tensorboard", tmp_path / "file" / "board", code=None)
    (line,) = errors(done)
    assert "file/board" in line
    assert done.returncode in (1, 2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'scenefeed\[tensorflow\]'"):
        events.prepare(str(tmp_path))
