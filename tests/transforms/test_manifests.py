"""Manifests: tables and documents that list scenes."""

import datetime
import json

import pytest

from scenefeed.transforms.config import ConfigError
from scenefeed.transforms.manifests import epoch_seconds, is_manifest, parse_time, read_manifest
from scenefeed.transforms.sections import Columns
from scenefeed.transforms.values import as_text, typed


def read(path, content, wanted=None, /, **columns):
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_manifest(path, Columns(**columns), wanted)


def claims(path, content):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(content)
    return is_manifest(path, content[:512])


# Which files are manifests


def test_content_decides_what_a_manifest_is(tmp_path):
    feature = {"type": "Feature", "geometry": {"coordinates": [0.5] * 300}, "properties": {}}
    late = {"features": [feature], "type": "FeatureCollection"}
    assert claims(tmp_path / "a.json", late)  # what it is stands past the first bytes
    assert claims(tmp_path / "a.geojson", late)
    assert claims(tmp_path / "a.JSON", [{"path": "a.tif"}])
    assert claims(tmp_path / "a.json", feature)
    assert claims(tmp_path / "a.json", {"type": "ItemCollection", "features": []})
    assert claims(tmp_path / "a.csv", b"\xef\xbb\xbfpath\na.tif\n")
    assert claims(tmp_path / "a.ndjson", b'\n{"path": "a.tif"}\n')
    assert not claims(tmp_path / "a.json", {"type": "Catalog", "links": []})
    assert not claims(tmp_path / "a.json", {"name": "settings"})
    assert not claims(tmp_path / "a.json", [1, 2])
    assert not claims(tmp_path / "a.json", b"II*\0")
    assert not claims(tmp_path / "a.jsonl", b"path,id")
    assert not claims(tmp_path / "a.csv", b"II*\0\x08\0\0\0")
    assert not claims(tmp_path / "a.txt", b"path\na.tif\n")
    assert not claims(tmp_path / "a.csv", b"")


# Tables


def test_a_table_with_the_usual_columns(tmp_path):
    rows = read(
        tmp_path / "m.csv",
        b"\xef\xbb\xbfscene_id,path,date,orbit,cloud,site,clear,code,note,\n"
        b'007,a.tif,20180701,12,0.50,"Aix, north",TRUE,007,nan,9\n'
        b"\n"
        b"1e5,sub/../b.tif,2018-07-02,-3,1e-3,NA,false,1e5x,,8\n",
    )
    first, second = rows
    assert (first.id, first.path, first.line) == ("007", str(tmp_path / "a.tif"), 2)
    assert first.properties == {
        "time": "2018-07-01T00:00:00Z", "orbit": 12, "cloud": 0.5, "site": "Aix, north",
        "clear": True, "code": "007", "note": None,
    }  # fmt: skip
    assert (second.id, second.path, second.line) == ("1e5", str(tmp_path / "b.tif"), 4)
    assert second.properties["cloud"] == 1e-3
    assert second.properties["site"] is None
    assert second.properties["clear"] is False
    assert not first.problem
    assert first.bands == {}


@pytest.mark.parametrize(
    ("name", "delimiter"), [("m.csv", ","), ("m.csv", ";"), ("m.csv", "\t"), ("m.tsv", "\t")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_and_line_ends(tmp_path, name, delimiter, end):
    lines = [["ID", "Filename", "a"], ["x", '"two\nlines.tif"', "1"], ["y", "b.tif", "2"]]
    rows = read(tmp_path / name, end.join(delimiter.join(line) for line in lines))
    assert [(r.id, r.line, r.properties) for r in rows] == [("x", 2, {"a": 1}), ("y", 4, {"a": 2})]
    assert rows[0].path == str(tmp_path / "two\nlines.tif")


def test_named_columns_and_bands(tmp_path):
    text = "name,VV,cross,when,id\ns1,a.tif,b.tif,2016/02/04 11:55:00,5\n"
    (row,) = read(tmp_path / "m.csv", text, ("VV", "VH"), id="name", time="when",
                  bands={"VV": "VV", "VH": "cross"})  # fmt: skip
    assert row.id == "s1"
    assert row.path is None
    assert row.bands == {"VV": str(tmp_path / "a.tif"), "VH": str(tmp_path / "b.tif")}
    assert row.properties == {"time": "2016-02-04T11:55:00Z", "id": 5}


def test_columns_called_as_the_bands_hold_their_files(tmp_path):
    rows = read(tmp_path / "m.csv", "id,VV,VH\n1,a.tif,b.tif\n2,c.tif,\n", ("VV", "VH"))
    assert list(rows[0].bands) == ["VV", "VH"]
    assert rows[1].problem == "names no file for band VH"
    # Beside paths, numbers of that name are the scene's properties.
    (row,) = read(tmp_path / "m.csv", "path,VV,VH\na.tif,-14.6,-20.1\n", ("VV", "VH"))
    assert row.path == str(tmp_path / "a.tif")
    assert row.properties == {"VV": -14.6, "VH": -20.1}
    (row,) = read(tmp_path / "m.csv", "path,VV\na.tif,b.tif\n", ("VV",), path="path")
    assert row.path == str(tmp_path / "a.tif")


def test_a_row_that_cannot_be_used_is_said_so(tmp_path):
    rows = read(
        tmp_path / "m.csv",
        "path,when\na.tif,2018-01-01\n,2018-01-01\nb.tif,spring\nc.tif,2018-01-01,5\n"
        "ftp://bucket/d.tif,2018-01-01\ne.tif\n",
        time="when",
    )
    assert [r.problem for r in rows] == [
        "", "names no file in column path",
        "its when 'spring' is no date: write it as 2018-07-01",
        "has 3 fields, and the header 2",
        "cannot be reached (known are s3://, gs:// and hdfs://): download ftp://bucket/d.tif", "",
    ]  # fmt: skip
    assert rows[4].path == "ftp://bucket/d.tif"
    assert rows[5].properties == {"when": None}
    assert [r.line for r in rows] == [2, 3, 4, 5, 6, 7]


def test_paths_of_every_form(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    text = "path\n/abs/a.tif\n~/b.tif\nfile:///c%20d.tif\nfile://localhost/e.tif\n./f.tif\n"
    assert [r.path for r in read(tmp_path / "m.csv", text)] == [
        "/abs/a.tif", "/home/me/b.tif", "/c d.tif", "/e.tif", str(tmp_path / "f.tif"),
    ]  # fmt: skip


def test_the_time_is_the_first_column_that_tells_one(tmp_path):
    (row,) = read(tmp_path / "m.csv", "path,time,date\na.tif,05:26:23,2018-07-01\n")
    assert row.properties == {"time": "2018-07-01T00:00:00Z"}
    (row,) = read(tmp_path / "m.csv", "path,date\na.tif,unknown\n")
    assert row.properties == {"date": "unknown"}


@pytest.mark.parametrize(
    ("name", "content", "columns", "said"),
    [
        ("m.csv", "pth,site\na.tif,1\n", {"path": "path"}, "no column 'path': did you mean 'pth'?"),
        ("m.csv", "path,site\na.tif,1\n", {"id": "name_"}, "no column 'name_': it has path, site"),
        ("m.csv", "site\n1\n", {}, r"no column holds the scenes' files \(it has site\)"),
        ("m.csv", "path,id\n,1\n,2\n", {}, r"m.csv:2: names no file.*nor does any other row"),
        ("m.csv", "path\n", {}, "lists no scene"),
        ("m.csv", "", {}, "lists no scene"),
        ("m.csv", "path,a,a\nx,1,2\n", {}, "two columns are called 'a'"),
        ("m.csv", "path\nä.tif\n".encode("latin-1"), {}, "not UTF-8"),
        ("m.jsonl", '{"path": "a.tif"}\n{"path": \n', {}, r"m.jsonl:2: not JSON"),
        ("m.jsonl", '{"path": "a.tif"}\n3\n', {}, r"m.jsonl:2: not a JSON object"),
        ("m.json", "[1]", {}, "not a manifest"),
        ("m.json", "[", {}, "not JSON"),
        ("m.geojson", {"type": "FeatureCollection", "features": []}, {}, "lists no scene"),
    ],
)
def test_a_manifest_that_cannot_be_read(tmp_path, name, content, columns, said):
    with pytest.raises(ConfigError, match=said) as caught:
        read(tmp_path / name, content, **columns)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_missing_manifest(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_manifest(tmp_path / "m.csv", Columns(), None)


# JSON, GeoJSON


def test_json_lines_and_lists(tmp_path):
    entries = [
        {"id": 7, "file": "a.tif", "meta": {"orbit": 3, "deep": {"x": True}}, "bbox": [1, 2]},
        {"id": "08", "file": "b.tif", "acquired": "2018-182", "cloud": float("nan"), "n": "1"},
    ]
    listed = read(tmp_path / "m.json", entries)
    assert listed[0].id == "7"
    assert listed[0].properties == {"meta.orbit": 3, "meta.deep.x": True}
    assert listed[1].properties == {"time": "2018-07-01T00:00:00Z", "cloud": None, "n": "1"}
    lines = read(tmp_path / "m.jsonl", "\n" + "\n\x1e".join(map(json.dumps, entries)))
    assert [(r.id, r.path, r.properties) for r in lines] == [
        (r.id, r.path, r.properties) for r in listed
    ]
    assert [r.line for r in listed] == [1, 2]
    assert [r.line for r in lines] == [2, 3]


def test_geojson_features(tmp_path):
    features = [
        {"type": "Feature", "id": 3, "properties": {"image": "a.tif", "n": 1}, "geometry": None},
        {"type": "Feature", "properties": {"image": "b.tif", "id": "x"}, "geometry": None},
        {"type": "Feature", "properties": None, "geometry": None},
    ]
    rows = read(tmp_path / "m.geojson", {"type": "FeatureCollection", "features": features})
    assert [r.id for r in rows] == ["3", "x", None]
    assert rows[0].properties == {"n": 1}
    assert rows[2].problem == "names no file in column image"


def test_real_tables(data):
    path = data / "flood/Sen1Floods11_Metadata.geojson"
    assert is_manifest(path, path.read_bytes()[:512])
    with pytest.raises(ConfigError, match="no column holds the scenes' files"):
        read_manifest(path, Columns(), None)
    rows = read_manifest(path, Columns(path="location", time="s1_date"), None)
    assert rows[0].id == "1"
    assert rows[0].properties["time"] == "2018-02-15T00:00:00Z"
    assert rows[0].properties["VH_thresh"] == -20.44
    path = data / "soil/rzsm_scan_s1/sites_textures.csv"
    rows = read_manifest(path, Columns(path="site_name"), None)
    assert rows[0].properties["elev"] == 80
    assert rows[1].properties["lon"] == -161.16


# STAC


def item(name="S2A", properties=None, **assets):
    properties = {"datetime": "2020-05-01T10:20:30.5Z", "eo:cloud_cover": 3.5} | (properties or {})
    return {"stac_version": "1.0.0", "type": "Feature", "id": name, "properties": properties,
            "geometry": None, "assets": assets}  # fmt: skip


def asset(href, *roles, type="image/tiff; application=geotiff", **more):
    return {"href": href, "type": type, "roles": list(roles), **more}


def test_an_item_with_one_asset(tmp_path):
    scene = item(data=asset("./a.tif", "data"), thumbnail=asset("t.png", "thumbnail"))
    (row,) = read(tmp_path / "item.json", scene, ("VV", "VH"))
    assert (row.id, row.path, row.bands) == ("S2A", str(tmp_path / "a.tif"), {})
    assert row.properties == {"time": "2020-05-01T10:20:30.500000Z", "eo:cloud_cover": 3.5}


def test_assets_are_found_by_key_or_by_band_name(tmp_path):
    scene = item(
        B04=asset("4.tif", **{"eo:bands": [{"name": "b4", "common_name": "red"}]}),
        B08=asset("8.tif", bands=[{"name": "B08", "eo:common_name": "nir"}]),
        all=asset("all.tif", bands=[{"name": "red"}, {"name": "nir"}]),
        visual=asset("rgb.tif", "visual"),
    )
    collection = {"type": "FeatureCollection", "features": [scene, item("x", B04=asset("5.tif"))]}
    rows = read(tmp_path / "items.json", collection, ("nir", "B04"))
    assert rows[0].bands == {"nir": str(tmp_path / "8.tif"), "B04": str(tmp_path / "4.tif")}
    assert rows[1].problem == "has no asset for band nir (it has B04)"
    assert list(read(tmp_path / "items.json", collection)[0].bands) == ["B04", "B08", "all"]
    (row,) = read(tmp_path / "items.jsonl", scene, path="visual")
    assert row.path == str(tmp_path / "rgb.tif")
    (row,) = read(tmp_path / "items.jsonl", scene, bands={"r": "B04"})
    assert row.bands == {"r": str(tmp_path / "4.tif")}
    with pytest.raises(ConfigError, match="no asset 'B4': did you mean 'B04'"):
        read(tmp_path / "items.json", collection, bands={"r": "B4"})
    with pytest.raises(ConfigError, match=r"no asset for band VV \(it has B04, B08, all, visual\)"):
        read(tmp_path / "items.json", scene, ("VV",))


def test_an_item_of_a_range_of_time(tmp_path):
    times = {"datetime": None, "start_datetime": "2020-01-01T00:00:00Z",
             "end_datetime": "2020-02-01T00:00:00Z"}  # fmt: skip
    (row,) = read(tmp_path / "i.json", item(properties=times, a=asset("https://x.org/a.tif")))
    assert row.properties["time"] == "2020-01-01T00:00:00Z"
    assert row.path == "https://x.org/a.tif"
    assert "download https://x.org/a.tif" in row.problem


# Values and times


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-12", -12), ("+3", 3), ("0.5", 0.5), (".5", 0.5), ("5.", 5.0), ("1e5", 1e5),
     ("-1.5E-3", -1.5e-3), ("007", "007"), ("00.5", "00.5"), ("1_000", "1_000"), ("1,5", "1,5"),
     ("12345678901234567890", "12345678901234567890"), ("inf", "inf"), ("1e999", "1e999"),
     ("N/A", None), ("null", None), (" True ", True), ("no", "no"), ("1٣", "1٣")],
)  # fmt: skip
def test_what_text_means(text, value):
    found = typed(text)
    assert found == value
    assert type(found) is type(value)


def test_values_as_text():
    assert {as_text(v) for v in (1, 1.0, "1", "1.0", " 1 ")} == {"1"}
    assert {as_text(v) for v in (True, "True", "true")} == {"true"}
    assert [as_text(v) for v in ("01", 0.5, "NA", "x")] == ["01", "0.5", "NA", "x"]


@pytest.mark.parametrize(
    ("text", "iso"),
    [("2018-07-01T05:26:23Z", "2018-07-01T05:26:23Z"), ("2018-07-01", "2018-07-01T00:00:00Z"),
     ("20180701", "2018-07-01T00:00:00Z"), (20180701, "2018-07-01T00:00:00Z"),
     (20180701.0, "2018-07-01T00:00:00Z"), ("20180701T052623", "2018-07-01T05:26:23Z"),
     ("20180701052623", "2018-07-01T05:26:23Z"), ("20210401T052623Z", "2021-04-01T05:26:23Z"),
     ("2016/02/04 11:55:00", "2016-02-04T11:55:00Z"), ("2016/2/4", "2016-02-04T00:00:00Z"),
     ("2018-182", "2018-07-01T00:00:00Z"), ("2016-366", "2016-12-31T00:00:00Z"),
     ("2018-07-01 05:26", "2018-07-01T05:26:00Z"), ("2018-07-01T05", "2018-07-01T05:00:00Z"),
     ("2018-07-01T01:00:00+02:00", "2018-06-30T23:00:00Z"),
     ("2018-07-01T23:00:00-0330", "2018-07-02T02:30:00Z"),
     ("2018-07-01 05:26:23 UTC", "2018-07-01T05:26:23Z"),
     ("2018-07-01T05:26:23.024Z", "2018-07-01T05:26:23.024000Z"),
     ("2018-07", None), ("201807", None), ("2018", None), (2018, None), ("2018-13-01", None),
     ("2019-366", None), ("2018-000", None), ("2018-02-30", None), ("01/02/2018", None),
     ("", None), ("spring", None), (True, None), (1530422783, None), (float("nan"), None),
     ("2018-07-01T25:00:00Z", None), ("0000-01-01", None), ("2018-07/01", None)],
)  # fmt: skip
def test_times(text, iso):
    assert parse_time(text) == iso
    if iso:
        assert parse_time(iso) == iso
        at = datetime.datetime.strptime(iso[:19], "%Y-%m-%dT%H:%M:%S")
        seconds = (at - datetime.datetime(1970, 1, 1)).total_seconds()
        assert int(epoch_seconds(iso)) == seconds
