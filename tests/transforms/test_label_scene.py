"""Labels with one value a scene."""

import numpy as np
import pytest
from pydantic import ValidationError

from scenefeed.loader.spec import Feature
from scenefeed.transforms.errors import SceneError
from scenefeed.transforms.georeference import Georeference
from scenefeed.transforms.labels.scene import FilenameLabel, FolderLabel, SceneLabel
from scenefeed.transforms.scenes import Asset, SceneFiles
from scenefeed.transforms.tiling import Grid

WHERE = Georeference(8, 8, "", (1, 0, 0, 0, 1, 0))
WINDOW = next(iter(Grid(8, 8, 4, 4, "drop").windows(1, (8, 8), 10**6)))


def scene(path="/data/forest/Bengal_185.png", scene_id="a", table="", **properties) -> SceneFiles:
    return SceneFiles(scene_id, (Asset(path),), labels={"y": str(table)}, properties=properties)


def feature(names=(), ignore=()) -> Feature:
    return Feature((), "int64", "class", "scalar", names=names, ignore=ignore)


VALUE = Feature((), "float32", "value", "scalar")


def burnt(label, files, columns=None):
    """The feature, the value of all four patches, and whether they are labelled."""
    planned = label.plan("y", files, WHERE, 4)
    burner = label.open("y", files, WHERE, 4, columns or planned)
    out = {"y": np.full(4, 99, planned["y"].dtype)}
    labelled = burner.patches(WINDOW, out)
    assert labelled is None or labelled.shape == (4,)
    assert len(np.unique(out["y"])) == 1
    return planned["y"], out["y"][0], labelled is None or bool(labelled.all())


def test_properties():
    assert burnt(SceneLabel(column="k"), scene(k="oak")) == (feature(("oak",)), 0, True)
    assert burnt(SceneLabel(column="k"), scene(k=7)) == (feature(), 7, True)
    assert burnt(SceneLabel(column="k"), scene(k=0.5)) == (VALUE, 0.5, True)
    assert burnt(SceneLabel(column="k"), scene(k=True)) == (feature(("true",)), 0, True)
    assert burnt(SceneLabel(column="k", task="regression"), scene(k=7)) == (VALUE, 7.0, True)


def test_names_are_the_whole_datasets():
    label = SceneLabel(column="k")
    columns = {"y": feature(("ash", "oak"))}
    assert burnt(label, scene(k="oak"), columns)[1] == 1
    with pytest.raises(SceneError, match="no class 'elm'"):
        label.open("y", scene(k="elm"), WHERE, 4, columns)


def test_declared_classes():
    label = SceneLabel(column="k", classes=("oak", "ash", 7))
    assert burnt(label, scene(k="ash")) == (feature(("oak", "ash", "7")), 1, True)
    assert burnt(label, scene(k=7.0))[1] == 2
    assert burnt(SceneLabel(column="k", classes={"oak": 4}), scene(k="oak"))[1] == 4
    with pytest.raises(SceneError, match="no class 'aash': did you mean 'ash'"):
        burnt(label, scene(k="aash"))


def test_values_of_a_table(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("id,kind,level,share,odd\na,oak,3,0.5,1\nb,ash,4,2,\nb,ash,4,2,\n")
    for column, a, b in (
        ("kind", (feature(("oak",)), 0, True), (feature(("ash",)), 0, True)),
        ("level", (feature(), 3, True), (feature(), 4, True)),
        ("share", (VALUE, 0.5, True), (VALUE, 2.0, True)),
    ):
        label = SceneLabel(column=column, path="t.csv")
        assert burnt(label, scene(table=table)) == a
        assert burnt(label, scene(scene_id="b", table=table)) == b
    with pytest.raises(SceneError, match="no value for the label y"):
        burnt(SceneLabel(column="odd", path="t.csv"), scene(scene_id="b", table=table))
    with pytest.raises(SceneError, match="no column 'kinds': did you mean 'kind'"):
        burnt(SceneLabel(column="kinds", path="t.csv"), scene(table=table))
    with pytest.raises(SceneError, match="no row with id c: add it, or say missing: ignore"):
        burnt(SceneLabel(column="kind", path="t.csv"), scene(scene_id="c", table=table))
    label = SceneLabel(column="kind", path="t.csv", missing="ignore")
    assert burnt(label, scene(scene_id="c", table=table)) == (feature(ignore=(-1,)), -1, False)
    label = SceneLabel(column="share", path="t.csv", missing="ignore")
    planned, value, labelled = burnt(label, scene(scene_id="c", table=table))
    assert (planned, labelled) == (VALUE, False)
    assert np.isnan(value)
    table.write_text("scene;kind\na;oak\na;ash\n")
    with pytest.raises(SceneError, match="both 'oak' and 'ash' of scene a"):
        burnt(SceneLabel(column="kind", path="t.csv", id="scene"), scene(table=table))


def test_values_that_are_missing():
    with pytest.raises(SceneError, match=r"no property 'kind'.*there are: kin"):
        burnt(SceneLabel(column="kind"), scene(kin="x"))
    label = SceneLabel(column="k", missing="ignore", task="class")
    assert burnt(label, scene()) == (feature(ignore=(-1,)), -1, False)
    assert label.open("y", scene(), WHERE, 4, {"y": feature()}).tally == {"y_missing": 1}
    with pytest.raises(SceneError, match="'oak' for the label y, which is no number"):
        burnt(SceneLabel(column="k", task="regression"), scene(k="oak"))


def test_file_names(data):
    label = FilenameLabel(regex=r"^(.+)_\d+$")
    found = {
        p.stem: burnt(label, scene(str(p)))[0].names[0]
        for p in sorted((data / "pets/images").iterdir())
    }
    assert found["British_Shorthair_102"] == "British_Shorthair"
    assert found["Bengal_185"] == "Bengal"
    number = FilenameLabel(regex=r"_(\d+)", task="regression")
    assert burnt(number, scene()) == (VALUE, 185.0, True)
    assert burnt(FilenameLabel(regex=r"_(\d+)"), scene()) == (feature(("185",)), 0, True)
    label = FilenameLabel(regex="^([a-z]+)_")
    with pytest.raises(SceneError, match="does not match the stem 'Bengal_185'"):
        burnt(label, scene())
    label = FilenameLabel(regex="^([a-z]+)_", missing="ignore")
    assert burnt(label, scene()) == (feature(ignore=(-1,)), -1, False)


def test_folders():
    assert burnt(FolderLabel(), scene()) == (feature(("forest",)), 0, True)
    assert burnt(FolderLabel(level=2), scene()) == (feature(("data",)), 0, True)
    assert burnt(FolderLabel(classes=("sea", "forest")), scene())[1] == 1
    with pytest.raises(SceneError, match="no value for the label y"):
        burnt(FolderLabel(level=9), scene())


@pytest.mark.parametrize(
    ("kind", "section"),
    [
        (SceneLabel, {"column": "k", "missing": "ignore"}),
        (SceneLabel, {"column": "k", "classes": ["a"], "task": "regression"}),
        (SceneLabel, {"column": "k", "classes": []}),
        (FilenameLabel, {"regex": "abc"}),
        (FilenameLabel, {"regex": "(abc"}),
        (FolderLabel, {"level": 0}),
    ],
)
def test_sections_that_cannot_be(kind, section):
    with pytest.raises(ValidationError):
        kind(**section)
