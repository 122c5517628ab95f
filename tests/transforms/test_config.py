"""The configuration: defaults, and one clear line for each mistake."""

import pytest

from scenefeed.transforms.config import Config, ConfigError, load_yaml, parse


def test_defaults_are_the_designs():
    config = parse({}, "x")
    assert (config.tile.size, config.tile.step, config.tile.edge) == (64, 64, "drop")
    assert config.splits == ["train"]
    assert config.clean.min_valid == 0
    assert config.records.shard_mb == 128


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tile": {"sise": 3}}, r"tile\.sise: unknown key; did you mean 'size'"),
        ({"titel": {}}, r"titel: unknown key; did you mean 'tile'"),
        ({"zzz": 1}, "known are name, description, license, scenes, grid, labels"),
        ({"tile": {"size": "abc"}}, r"tile\.size: .*'abc'"),
        ({"tile": {"size": 0}}, r"tile\.size"),
        ({"tile": {"edge": "crop"}}, r"tile\.edge: .*'drop', 'pad' or 'shift'"),
        ({"clean": {"clip": [5, -30]}}, "lower limit must be below"),
        ({"clean": {"min_valid": 1.5}}, r"clean\.min_valid"),
        ({"split": {"by": "block"}}, "by: block needs block"),
        ({"split": {"by": "patch", "block": 3}}, "block is for by: block"),
        ({"split": {"fractions": {"train": 0.5, "val": 0.3}}}, "add up to 0.8"),
        ({"split": {"fractions": {"a b": 1}}}, "plain name"),
        ({"labels": {"w": "{id}.tif"}}, r"labels\.w: Input should be a mapping"),
        ({"scalars": ["a/b"]}, "cannot be a scalar's name"),
        ({"labels": {"w": {"path": "{id}.tif", "pth": 1}}}, "did you mean 'path'"),
        ({"labels": {"image": {"path": "{id}.tif"}}}, "'image' cannot be a label's name"),
        ({"labels": {"w": {"kind": "vectr", "path": "{id}"}}}, r"labels\.w\.kind.*'vector'"),
        ({"scenes": {"id": "(.+"}}, "not a regular expression"),
        ({"scenes": {"id": "x+"}}, "has no group"),
        ({"scenes": {"bands": ["VV", "VV"]}}, "named twice"),
        ({"statistics": {"normalize": "zscored"}}, "'zscore'"),
        ({"split": {"by": "column", "column": "c", "values": {"../evil": ["x"]}}}, "plain word"),
        ({"split": {"by": "date", "dates": {"a/b": [None, None]}}}, "plain word"),
        ({"split": {"by": "date", "dates": {"a": ["2019-01-01", "2018-01-01"]}}}, "is after"),
        ({"split": {"by": "block", "block": float("inf")}}, r"split\.block"),
        ({"grid": {"crs": "EPSG:bad"}}, "no CRS that PROJ knows"),
        ({"labels": {"y": {"path": "{id}", "values": {0: 10**30}}}}, r"labels\.y\.values"),
        (
            {
                "labels": {"y": {"kind": "points", "path": "p", "value": "v", "center": True}},
                "tile": {"edge": "shift"},
            },
            "exclude each other",
        ),
    ],
)
def test_each_mistake_is_one_line(values, words):
    with pytest.raises(ConfigError, match=words) as e:
        parse(values, "floods.yaml")
    assert str(e.value).startswith("floods.yaml: ")
    assert "\n" not in str(e.value)


def test_yaml_that_cannot_be_read(tmp_path):
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "bad.yaml").write_text("a: [\n")
    for name, words in (
        ("no.yaml", "No such file"),
        ("list.yaml", "no keys"),
        ("bad.yaml", "YAML"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_yaml(tmp_path / name)


def test_yaml_executes_nothing(tmp_path):
    (tmp_path / "x.yaml").write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ConfigError, match="not YAML"):
        load_yaml(tmp_path / "x.yaml")


def test_digest_ignores_which_files_there_are():
    one, two = (parse({"scenes": {"paths": [p]}}, "x") for p in ("a", "b"))
    assert one.stage_digest == two.stage_digest
    assert one.stage_digest != Config(tile={"size": 3}).stage_digest
    assert one.stage_digest != Config(sample={"labelled": True}).stage_digest
    assert one.stage_digest == Config(sample={"fraction": 0.5}).stage_digest
    assert one.record_digest() != Config(sample={"fraction": 0.5}).record_digest()


def test_scalars_may_be_called_as_stac_calls_them():
    names = ("view:incidence_angle", "eo:cloud_cover")
    assert parse({"scalars": names}, "x").scalars == names
