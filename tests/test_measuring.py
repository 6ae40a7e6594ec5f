"""Measuring: columns equal what the chips hold, are read once, go on after a kill, and belong to one plan."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import xarray as xr

import geopipes as gp
from geopipes import chips, datacubes
from geopipes.chips import measuring, places, tables
from geopipes.chips.groups import Groups
from geopipes.errors import ChipError, StepError
from geopipes.testing import Synthetic


def cubes(pipe: Any) -> datacubes.Cubes:
    value: datacubes.Cubes = pipe._value.get()
    return value


@pytest.fixture(scope="module")
def plan(land: Synthetic) -> chips.Windows:
    """Give chips of one date each with labels, over two zones, in random order."""
    stack = gp.items(land.items).stack(["red", "scl"], resolution=20, crs="utm", groupby="solar_day")
    joined = cubes(stack.join(gp.rasters(land.label), name="crop", nodata=255).mask_values("scl", [3, 8, 9]))
    cut = chips.chip(joined, 16, margin=2, time=1, coverage="any", edge="pad")
    return cut.take(np.random.default_rng(0).permutation(len(cut)))


def mean_red(chip: xr.Dataset) -> float:
    return float(chip["red"].astype(float).where(chip["valid"]).mean())


def text(chip: xr.Dataset) -> Any:
    return "red"


def test_columns_equal_what_the_chips_hold(plan: chips.Windows, tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.parquet"
    measured = measuring.measure(plan, path, valid=True, share="crop", threads=2, red=mean_red)
    np.testing.assert_array_equal(measured.ids, plan.ids)
    for position in range(0, len(plan), 7):
        chip = plan[position].load().isel(y=slice(2, -2), x=slice(2, -2))
        row = {name: column[position] for name, column in measured.columns.items()}
        assert row["valid"] == float(chip["valid"].mean())
        np.testing.assert_equal(row["red"], mean_red(chip))
        for value in range(9):
            assert row.get(f"share_{value}", 0.0) == float((chip["crop"] == value).mean())
    kept = pd.read_parquet(path)
    assert kept["id"].tolist() == plan.ids.tolist()
    assert not path.with_name("m.parquet.part").exists()
    assert len(tables.query(measured, "valid > 0.5 and share_1 > 0")) > 0


def test_a_second_call_reads_the_file_alone(
    plan: chips.Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measuring.measure(plan, tmp_path / "m.parquet", valid=True, share="crop")
    monkeypatch.setattr(measuring, "Reading", None)
    again = measuring.measure(plan, tmp_path / "m.parquet", valid=True, share="crop")
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, again.columns[name])


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_pass_goes_on_after_a_kill(plan: chips.Windows, tmp_path: Path, cut_off: bool) -> None:
    path, part = tmp_path / "m.parquet", tmp_path / "m.parquet.part"

    def killed(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measuring.measure(plan, path, valid=True, share="crop", progress=killed)
    assert not path.exists()
    lines = part.read_text().splitlines(keepends=True)
    assert len(lines) == 21
    if cut_off:  # killed while a line was written
        part.write_text("".join(lines[:-1]) + lines[-1][:9])
    told: list[tuple[int, int]] = []
    gone_on = measuring.measure(plan, path, valid=True, share="crop", progress=lambda *done: told.append(done))
    assert told[0][0] == (20 if cut_off else 21)
    assert told[-1] == (len(plan), len(plan))
    whole = measuring.measure(plan, tmp_path / "other.parquet", valid=True, share="crop")
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(column, gone_on.columns[name])


KILLED = """
import os, signal, sys
import geopipes as gp

def killed(done, total):
    if done == 20:
        os.kill(os.getpid(), signal.SIGKILL)

scenes, path = sys.argv[1:]
plan = gp.items(scenes).stack(["scl"], resolution=20, crs="utm", groupby="solar_day").chip(16, time=1)
plan.measure(path, valid=True, share="scl", threads=2, progress=killed).table()
"""


def test_a_killed_process_leaves_what_it_measured(land: Synthetic, tmp_path: Path) -> None:
    scenes, path = tmp_path / "scenes.json", tmp_path / "m.parquet"
    land.items.save_object(str(scenes))
    done = subprocess.run([sys.executable, "-c", KILLED, str(scenes), str(path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not path.exists()
    plan = gp.items(scenes).stack(["scl"], resolution=20, crs="utm", groupby="solar_day").chip(16, time=1)
    told: list[tuple[int, int]] = []
    gone_on = plan.measure(path, valid=True, share="scl", progress=lambda *done: told.append(done)).table()
    assert [done for done, _ in told] == [*range(21, len(plan) + 1)]  # the first 20 are not read again
    whole = plan.measure(tmp_path / "other.parquet", valid=True, share="scl").table()
    pd.testing.assert_frame_equal(gone_on, whole)


def test_a_journal_without_its_first_line_begins_anew(plan: chips.Windows, tmp_path: Path) -> None:
    (tmp_path / "m.parquet.part").write_text('{"finger')
    assert "valid" in measuring.measure(plan, tmp_path / "m.parquet", valid=True).columns


def test_another_plan_or_another_question_is_refused(plan: chips.Windows, tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    measuring.measure(plan, path, valid=True)
    with pytest.raises(ChipError, match=r"of another plan(.|\n)*count"):
        measuring.measure(plan[:50], path, valid=True)
    with pytest.raises(ChipError, match=r"share null -> "):
        measuring.measure(plan, path, valid=True, share="crop")
    (tmp_path / "n.parquet").write_bytes(b"another file")
    (tmp_path / "p.parquet.part").write_text("a line of notes\n")
    with pytest.raises(ChipError, match="nothing that measure"):
        measuring.measure(plan, tmp_path / "p.parquet", valid=True)
    with pytest.raises(ChipError, match="nothing that measure"):
        measuring.measure(plan, tmp_path / "n.parquet", valid=True)
    (tmp_path / "o.parquet.part").write_text(
        json.dumps({"fingerprint": "0", "document": {"version": 0}}) + "\n[0, {}]\n"
    )
    with pytest.raises(ChipError, match="version 0 -> 1"):
        measuring.measure(plan, tmp_path / "o.parquet", valid=True)


def test_labels_alone_are_measured_on_their_own_cubes(plan: chips.Windows, land: Synthetic, tmp_path: Path) -> None:
    labels = gp.rasters(land.label)
    same = datacubes.Cubes(
        [cubes(labels.stack({"crop": "data"}, geobox=cube.geobox, nodata=255)).cubes[0] for cube in plan.cubes]
    )
    told: list[int] = []
    on = measuring.measure(
        plan, tmp_path / "on.parquet", share="crop", on=same, progress=lambda done, total: told.append(total)
    )
    own = measuring.measure(plan, tmp_path / "own.parquet", share="crop")
    assert {*on.columns} == {*own.columns}
    for name, column in own.columns.items():
        np.testing.assert_array_equal(on.columns[name], column)
    assert told[-1] == len(plan) / 2  # each place once: labels have no dates


def test_a_coarse_pass_stands_for_the_fine_one(land: Synthetic, tmp_path: Path) -> None:
    items = gp.items(land.items)
    fine = chips.chip(cubes(items.stack(["red"], resolution=10, crs="utm", groupby="solar_day")), 64, time=1)
    coarse = cubes(items.stack(["scl"], resolution=40, crs="utm", groupby="solar_day"))
    measured = measuring.measure(fine, tmp_path / "c.parquet", valid=True, share="scl", on=coarse)
    exact = measuring.measure(
        fine,
        tmp_path / "f.parquet",
        valid=True,
        share="scl",
        on=cubes(items.stack(["scl"], resolution=20, crs="utm", groupby="solar_day")),
    )
    # Four of 1,024 pixels in one overview pixel: clouds are tens of pixels wide.
    for name in ("valid", "share_4", "share_8"):
        if name in exact.columns and name in measured.columns:
            assert np.abs(measured.columns[name] - exact.columns[name]).max() < 0.15
    assert measured.size == fine.size
    with pytest.raises(ChipError, match="lie on none of the cubes"):
        measuring.measure(fine, tmp_path / "a.parquet", valid=True, on=datacubes.Cubes(coarse.cubes[:1]))
    first = cubes(gp.items([*land.items][:2]).stack(["scl"], resolution=40, crs="utm", groupby="solar_day"))
    with pytest.raises(ChipError, match="1 dates of the chips, the first 2024-06-07"):
        measuring.measure(fine, tmp_path / "b.parquet", valid=True, on=first)
    wide = cubes(items.stack(["scl"], resolution=1280, crs="utm", groupby="solar_day"))
    with pytest.raises(ChipError, match="1 px or more"):
        measuring.measure(fine, tmp_path / "d.parquet", valid=True, on=wide)


def test_distances_are_metres_to_the_nearest(plan: chips.Windows, tmp_path: Path) -> None:
    rows = tables.table(plan)
    west, south, east, north = rows.total_bounds
    roads = gpd.GeoDataFrame(geometry=[shapely.LineString([(west, south), (west, north)])], crs=4326)
    wells = gpd.GeoDataFrame(geometry=[shapely.Point(east, north)], crs=4326).to_crs(32615)
    measured = measuring.measure(plan, tmp_path / "d.parquet", distance={"road": roads, "well": wells})
    plane = places.plane(plan)
    outlines = places.ground(plan, plane)
    for name, there in (("road", roads), ("well", wells)):
        expected = shapely.distance(outlines, there.to_crs(plane).geometry.iloc[0])
        np.testing.assert_allclose(measured.columns[f"distance_{name}"], expected, rtol=1e-4, atol=0.1)
    assert measured.columns["distance_road"].min() == 0
    again = measuring.measure(plan, tmp_path / "e.parquet", distance=roads)
    np.testing.assert_array_equal(again.columns["distance"], measured.columns["distance_road"])
    with pytest.raises(ChipError, match="What differs"):
        measuring.measure(plan, tmp_path / "e.parquet", distance=wells)


def test_inputs_and_groups_have_a_column_each(land: Synthetic, tmp_path: Path) -> None:
    items = gp.items(land.items)
    s2 = items.stack(["red"], resolution=10, crs=32614)
    both = cubes(gp.inputs(s2=s2, clouds=items.stack(["scl"], resolution=20, crs=32614)))
    cut = chips.chip(both, 32, time=1, coverage="any")
    measured = measuring.measure(cut, tmp_path / "m.parquet", valid=True, share="scl")
    assert {"valid_s2", "valid_clouds", "share_4"} <= {*measured.columns}
    grouped = measuring.measure(Groups.together({"a": cut[:5], "b": cut[5:10]}), tmp_path / "g.parquet", valid=True)
    np.testing.assert_array_equal(grouped.columns["valid_a_s2"], measured.columns["valid_s2"][:5])
    with pytest.raises(ChipError, match="needed is one; there are"):
        measuring.measure(cut, tmp_path / "n.parquet", share="crop")


def test_the_bar_counts_chips(plan: chips.Windows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measuring.measure(plan[:6], tmp_path / "m.parquet", valid=True, progress=True)
    assert "] 100% 6/6 " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, ChipError, "nothing to measure"),
        ({"share": "red"}, ChipError, "classes are whole numbers"),
        ({"row": mean_red}, ChipError, "use other names"),
        ({"name": text}, StepError, "the function gave str; needed is one number"),
    ],
)
def test_what_cannot_be_measured(
    plan: chips.Windows, tmp_path: Path, options: Any, error: type[Exception], match: str
) -> None:
    small = xr.Dataset(
        {"red": (("y", "x"), np.random.default_rng(0).random((40, 40)))}, {"y": -np.arange(40.0), "x": np.arange(40.0)}
    )
    floats = chips.chip(datacubes.from_xarray(small, crs=32614), 40)
    with pytest.raises(error, match=match):
        measuring.measure(floats, tmp_path / "m.parquet", **options)
    with pytest.raises(ChipError, match=r"ends in \.parquet"):
        measuring.measure(floats, tmp_path / "m.csv", valid=True)


def test_a_call_that_measured_nothing_leaves_its_path_free(plan: chips.Windows, tmp_path: Path) -> None:
    with pytest.raises(ChipError, match="needed is one; there are"):
        measuring.measure(plan, tmp_path / "m.parquet", share="corp")
    assert "share_1" in measuring.measure(plan, tmp_path / "m.parquet", share="crop").columns


@pytest.mark.real
def test_class_counts_of_real_labels_equal_those_counted_directly(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "landsat8_elkton"
    labels = gp.rasters(folder / "L8-Labels-Elkton-VA.tiff")
    bands = gp.rasters(folder / "L8-B4-Elkton-VA.tiff").stack({"red": "data"})
    cut = chips.chip(cubes(bands.join(labels, name="label", nodata=255)), 13, edge="drop")
    measured = measuring.measure(cut, tmp_path / "m.parquet", share="label")
    train, test = splits(measured)
    with rasterio.open(folder / "L8-Labels-Elkton-VA.tiff") as file:
        stored = file.read(1)
    for part in (train, test):
        counted: dict[int, int] = {}
        for row, col in zip(part.row, part.col, strict=True):
            for value, n in zip(*np.unique(stored[row : row + 13, col : col + 13], return_counts=True), strict=True):
                counted[int(value)] = counted.get(int(value), 0) + int(n)
        counted.pop(255)
        told = {int(k[6:]): c.sum() * 13**2 for k, c in part.columns.items() if k.startswith("share_")}
        assert {k: round(n, 6) for k, n in told.items() if n > 0.5} == counted


def splits(windows: chips.Windows) -> tuple[chips.Windows, ...]:
    from geopipes.orders import splitting

    return splitting.split(windows, (0.5, 0.5), block=1000, seed=0)
