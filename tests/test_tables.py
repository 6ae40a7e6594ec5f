"""The plan as a table: its rows are the chips, conditions and joins go by id, pictures show every chip."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

import geopipes as gp
from geopipes import chips, datacubes
from geopipes.chips import plotting, tables
from geopipes.chips.groups import Groups
from geopipes.errors import ChipError
from geopipes.testing import Synthetic


@pytest.fixture(scope="module")
def windows(land: Synthetic) -> chips.Windows:
    """Give chips of one date each, over two zones."""
    stack = gp.items(land.items).stack(["red"], resolution=10, crs="utm", groupby="solar_day")
    value: chips.Windows = stack.chip(16, overlap=4, time=1, coverage="any", edge="pad")._value.get()
    return value


def test_rows_are_the_chips(windows: chips.Windows, land: Synthetic) -> None:
    rows = tables.table(windows, items=True, coverage=True)
    assert len(rows) == len(windows)
    assert rows.crs == "EPSG:4326"
    np.testing.assert_array_equal(rows["id"], windows.ids)
    np.testing.assert_array_equal(rows.index, windows.ids)
    for position in (0, len(windows) // 2, len(windows) - 1):
        cube, window = windows.window(position)
        row = rows.iloc[position]
        assert row.grid_crs == str(cube.crs)
        assert window.time is not None
        assert (row.row, row.col, row.time) == (window.rows.start, window.cols.start, window.time.start)
        stamp = cube.dataset["time"].values[window.time.start]
        assert row.start == row.end == pd.Timestamp(stamp)
    days = {item.id: pd.Timestamp(item.properties["datetime"]).tz_localize(None).normalize() for item in land.items}
    assert all(days[item] == row.start.normalize() for row in rows.itertuples() for item in row.items)


def test_footprints_lie_where_the_chips_do(windows: chips.Windows) -> None:
    some = windows.take(np.arange(0, len(windows), 40))
    rows = tables.table(some)
    for position, outline in enumerate(rows.geometry):
        chip = some[position]
        half = abs(float(chip.x[1] - chip.x[0])) / 2
        box = shapely.box(*(chip.x.values.min() - half, chip.y.values.min() - half),
                          *(chip.x.values.max() + half, chip.y.values.max() + half))  # fmt: skip
        cube, _ = some.window(position)
        grid = shapely.box(*cube.geobox.boundingbox.bbox)
        there = gpd.GeoSeries([outline], crs=4326).to_crs(cube.crs.proj).iloc[0]
        assert shapely.symmetric_difference(there, shapely.intersection(box, grid)).area < 0.01  # m2


def test_items_and_coverage_say_what_the_pixels_say(windows: chips.Windows) -> None:
    rows = tables.table(windows, items=True, coverage=True)
    assert (rows.coverage <= 1).all()
    assert (rows.coverage < 1).any()  # padded windows reach beyond the grid
    for position in (*np.flatnonzero(rows.coverage < 1)[:3], *np.flatnonzero(rows.coverage == 1)[:3]):
        cube, window = windows.window(int(position))
        height, width = (min(part.stop, length) - part.start for part, length in
                         zip((window.rows, window.cols), cube.geobox.shape, strict=True))  # fmt: skip
        assert rows.coverage.iloc[position] == pytest.approx(height * width / 16**2, abs=1e-3)
    both = tables.table(windows, items=True)["items"].map(len)
    assert set(both) <= {0, 1, 2}


def test_query_takes_expressions_arrays_series_and_tables(windows: chips.Windows) -> None:
    first = tables.query(windows, "start < '2024-06' and grid_crs == 'EPSG:32614' and row > 20")
    rows = tables.table(windows)
    mask = (rows.start < "2024-06") & (rows.grid_crs == "EPSG:32614") & (rows.row > 20)
    assert 0 < len(first) < len(windows)
    np.testing.assert_array_equal(first.ids, windows.ids[mask])
    np.testing.assert_array_equal(tables.query(windows, mask.to_numpy()).ids, first.ids)
    more = pd.concat([mask.sample(frac=1, random_state=0), pd.Series([True], index=[-1])])
    np.testing.assert_array_equal(tables.query(windows, more).ids, first.ids)
    listed = pd.DataFrame({"id": first.ids[::-1], "label": first.ids[::-1] * 2})
    joined = tables.query(windows, listed)
    np.testing.assert_array_equal(joined.ids, first.ids)
    np.testing.assert_array_equal(joined.columns["label"], first.ids * 2)
    whole = tables.query(windows, "coverage > 0.999 and `cube` == 0")
    assert set(whole.cube) == {0}


@pytest.mark.parametrize("order", [1, -1])
def test_joins_go_by_id_whatever_the_order(windows: chips.Windows, order: int) -> None:
    shuffled = windows.take(np.random.default_rng(0).permutation(len(windows)))
    frame = pd.DataFrame({"twice": windows.ids[::order] * 2}, index=windows.ids[::order])
    np.testing.assert_array_equal(tables.assign(shuffled, frame).columns["twice"], shuffled.ids * 2)
    back = tables.assign(shuffled, tables.table(shuffled).assign(region="north"))
    assert set(back.columns) == {"region"}  # the plan's own columns are left aside
    kept = tables.query(tables.assign(shuffled, score=np.arange(len(windows)), run=7), "score < 10 and run == 7")
    np.testing.assert_array_equal(kept.ids, shuffled.ids[:10])


def test_a_group_has_the_footprint_of_its_members(windows: chips.Windows) -> None:
    one, other = windows[:10], windows[len(windows) - 10 :]
    rows = tables.table(Groups.together({"near": one, "far": other}), items=True, coverage=True)
    assert (rows.geom_type == "MultiPolygon").all()
    assert (rows.start < rows.end).all()
    parts = [tables.outlines(part) for part in (one, other)]
    np.testing.assert_allclose(shapely.area(rows.geometry.array), shapely.area(parts[0]) + shapely.area(parts[1]))


def test_chips_across_the_180th_meridian_are_small() -> None:
    values = xr.Dataset(
        {"v": (("y", "x"), np.zeros((32, 32)))},
        {"y": 1e6 - 10 * np.arange(32), "x": 834_000 - 10 * np.arange(32)[::-1]},
    )
    plan = chips.chip(datacubes.from_xarray(values, crs="EPSG:32660"), 32)
    assert tables.table(plan).total_bounds[2] - tables.table(plan).total_bounds[0] < 0.01
    wide = tables.outlines(plan.take([0]))
    assert shapely.area(wide)[0] < 1e-4


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("height > 1", "'height' is not defined; there are the columns"),
        ("row", "needed is bool, one for each of"),
        ("row ==", "cannot be worked out"),
        ("row < 0", "holds for none of the"),
        (np.ones(3, bool), r"shape \(3,\)"),
        (pd.Series([True], index=[0]), "831 of 832 chips are not in its index"),
        (pd.DataFrame({"id": [1, 1]}), "more than once"),
    ],
)
def test_conditions_that_cannot_be(windows: chips.Windows, condition: Any, text: str) -> None:
    with pytest.raises(ChipError, match=text):
        tables.query(windows, condition)


def test_columns_that_cannot_be(windows: chips.Windows) -> None:
    with pytest.raises(ChipError, match="write query"):
        tables.assign(windows, pd.DataFrame({"id": [0], "a": [1]}))
    with pytest.raises(ChipError, match="use another name"):
        tables.assign(windows, row=1)
    with pytest.raises(ChipError, match="needed is"):
        tables.assign(windows, a=[1, 2])
    with pytest.raises(ChipError, match="there is no column 'a'"):
        tables.column(windows, "a")


def test_plots_show_every_chip(windows: chips.Windows, tmp_path: Path) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.collections import PolyCollection

    parts = (windows[:30], windows[30:80])
    ax = plotting.plot(*parts)
    drawn = [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert [len(c.get_paths()) for c in drawn] == [30, 50]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["scenes", "0 (30)", "1 (50)"]
    west, south, east, north = tables.table(windows[:80]).total_bounds
    assert ax.get_xlim()[0] <= west < east <= ax.get_xlim()[1]
    assert ax.get_ylim()[0] <= south < north <= ax.get_ylim()[1]
    scale = plotting.plot(tables.assign(windows, valid=np.linspace(0, 1, len(windows))), by="valid", scenes=False)
    assert len(scale.collections[0].get_array()) == len(windows)  # type: ignore[arg-type]
    assert plotting.plot(windows, ax=scale) is scale
    metres = plotting.plot(windows, crs="EPSG:5070")
    assert (metres.get_xlabel(), metres.get_aspect()) == ("x [m], EPSG:5070", 1.0)
    left, bottom, right, top = tables.table(windows, crs="EPSG:5070").total_bounds
    assert metres.get_xlim()[0] <= left < right <= metres.get_xlim()[1]
    assert metres.get_ylim()[0] <= bottom < top <= metres.get_ylim()[1]
    plt.gcf().savefig(tmp_path / "plan.png")
    plt.close("all")
    with pytest.raises(ChipError, match="no chips to draw"):
        plotting.plot(windows[:0])


def test_the_map_shows_every_chip(windows: chips.Windows) -> None:
    shown = plotting.explore(windows[:30], windows[30:80])
    page = shown.get_root().render()
    west, south, east, north = tables.table(windows[:80]).total_bounds
    (low, left), (high, right) = shown.get_bounds()
    np.testing.assert_allclose((left, low, right, high), (west, south, east, north))
    assert page.count('"type": "Polygon"') == 80
    scale = plotting.explore(tables.assign(windows[:9], valid=np.linspace(0, 1, 9)), by="valid")
    assert "color_map" in scale.get_root().render()


def test_the_map_needs_folium_or_lonboard(windows: chips.Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotting, "find_spec", lambda name: None)
    with pytest.raises(ChipError, match=r"pip install 'geopipes\[plot\]', or pip install lonboard"):
        plotting.explore(windows)
    with pytest.raises(ChipError, match=r"pip install 'geopipes\[plot\]'"):
        plotting.plot(windows)
    shown: list[gpd.GeoDataFrame] = []
    stand_in = ModuleType("lonboard")
    stand_in.viz = shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lonboard", stand_in)
    monkeypatch.setattr(plotting, "find_spec", lambda name: name == "lonboard" or None)
    plotting.explore(windows[:3], windows[3:9])
    assert shown[0]["split"].tolist() == [0] * 3 + [1] * 6
