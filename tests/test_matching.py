"""Inputs matched in time: the nearest date within the time allowed, of those that cover the chip; missing ones stay."""

from __future__ import annotations

import pickle
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import geopipes as gp
from geopipes import fingerprints
from geopipes.errors import ChipError, StepError
from geopipes.testing import Flood, synthetic_flood


@pytest.fixture(scope="module")
def flood(tmp_path_factory: pytest.TempPathFactory) -> Flood:
    return synthetic_flood(tmp_path_factory.mktemp("flood"), size=192)


def inputs(flood: Flood) -> gp.Pipe[Any]:
    s1 = gp.items(flood.radar).stack(["vv"], resolution=20)
    s2 = gp.items(flood.optical).stack(["red", "scl"], resolution=10).join(gp.rasters(flood.elevation), name="height")
    dem = gp.rasters(flood.elevation).stack(
        {"height": "data"}, resolution=30, crs="EPSG:32614", groupby=lambda item: "all", resampling="bilinear"
    )
    return gp.inputs(s2=s2, s1=s1, dem=dem)


def plan(flood: Flood, **columns: Any) -> gp.Plan[Any]:
    return inputs(flood).chip(48, coverage="any").assign(**columns)


def dates(stack: Any) -> Any:
    return next(iter(stack))["time"].values.astype("M8[D]").astype(str).tolist()


def expected(there: list[str], wanted: str, days: int, side: str) -> str | None:
    """Say which day is right, one by one."""
    ahead = {day: (np.datetime64(day) - np.datetime64(wanted)).astype(int) for day in there}
    fits = {
        day: abs(n) for day, n in ahead.items()
        if abs(n) <= days and {"nearest": True, "before": n < 0, "after": n >= 0}[side]
    }  # fmt: skip
    return min(fits, key=lambda day: (fits[day], day)) if fits else None


RADAR = ["2024-05-10", "2024-05-21", "2024-06-03", "2024-06-12", "2024-06-30"]
OPTICAL = ["2024-05-03", "2024-05-18", "2024-07-12"]


@settings(max_examples=8)
@given(
    st.lists(st.dates(pd.Timestamp("2024-04-20").date(), pd.Timestamp("2024-07-20").date()), min_size=16, max_size=16),
    st.integers(0, 40), st.sampled_from(["nearest", "before", "after"]),
)  # fmt: skip
def test_the_date_is_the_nearest_that_covers_the_chip(flood: Flood, events: list[Any], days: int, side: Any) -> None:
    cut = plan(flood, event=np.array(events, "M8[ns]"))
    matched = cut.match_dates({"s1": f"{days}D", "s2": "5D"}, to="event", side=side, optional=["s1", "s2"])
    table = matched.table()
    assert len(table) == len(cut) == 16
    narrow = (table["col"] + 48) * 10 > 128 * 10  # reaches beyond what every second pass sees
    for row, east in zip(table.itertuples(), narrow, strict=True):
        seen = RADAR[::2] if east else RADAR
        for name, there, longest in (("s1", seen, days), ("s2", OPTICAL, 5)):
            found = getattr(row, f"{name}_time")
            right = expected(there, str(row.event)[:10], longest, side)
            assert (None if pd.isna(found) else str(found)[:10]) == right


def test_chips_hold_the_dates_and_missing_inputs_stay(flood: Flood) -> None:
    cut = plan(flood, event=np.datetime64("2024-05-20"))
    matched = cut.match_dates({"s1": "3D", "s2": "1D"}, to="event", optional="s2")
    assert len(matched) < len(cut)  # the pass of 21 May sees a part alone
    whole = next(iter(gp.items(flood.radar).stack(["vv"], resolution=20))).load()
    for chip in matched.read(threads=2):
        assert dates([chip["s1"]]) == ["2024-05-21"]
        there = whole.isel(time=[1]).sel(y=chip["s1"]["y"].values, x=chip["s1"]["x"].values)
        np.testing.assert_array_equal(chip["s1"]["vv"].values, there["vv"].values)
        assert np.isnat(chip["s2"]["time"].values).all()
        assert not chip["s2"]["valid"].values.any()
        assert (chip["s2"]["red"].values == 0).all()
        assert (chip["s2"]["height"].values > 200).all()  # joined: it has no time
        assert chip["dem"]["valid"].values.all()
        assert chip["s2"].sizes["y"] == 2 * chip["s1"].sizes["y"] == 3 * chip["dem"].sizes["y"]
    looked = matched[0]
    read = next(iter(matched.read()))
    for name in read:
        xr.testing.assert_identical(looked[name].load(), read[name])


def test_a_batch_holds_a_mask_for_each_input(flood: Flood) -> None:
    cut = plan(flood, event=np.datetime64("2024-05-20"))
    matched = cut.match_dates({"s1": "30D", "s2": "1D"}, to="event", optional=["s2"]).shuffle(seed=0)
    batches = matched.read().tensor(s1=["vv"], s2=["red"], dem="dem/height", fill=0, columns="event").batch(4)
    batch = next(iter(batches))
    assert batch["s1"].shape == (4, 1, 1, 24, 24)
    assert batch["s2"].shape == (4, 1, 1, 48, 48)
    assert batch["dem"].shape == (4, 1, 16, 16)
    assert batch["dem_valid"].all()
    assert batch["s1_valid"].any()
    assert not batch["s2_valid"].any()
    assert (batch["s2_time"].numpy() == np.datetime64("NaT").astype(int)).all()
    assert batch["event"][0].startswith("2024-05-20")


def test_a_chip_for_each_date_of_an_input(flood: Flood) -> None:
    cut = plan(flood)
    matched = cut.match_dates({"s2": "5D"}, to="s1", optional="s2")
    table = matched.table()
    sees = {day: (table["s1_time"].astype(str).str[:10] == day).sum() for day in RADAR}
    assert sees[RADAR[0]] == sees[RADAR[2]] == len(cut)
    assert 0 < sees[RADAR[1]] == sees[RADAR[3]] < len(cut)
    apart = (table["s2_time"] - table["s1_time"]).abs().dropna()
    assert len(apart)
    assert (apart <= pd.Timedelta("5D")).all()
    touched = cut.match_dates({"s2": "5D"}, to="s1", optional="s2", coverage="any").table()
    assert len(touched) > len(table)


def test_before_and_after_an_event(flood: Flood) -> None:
    radar = gp.items(flood.radar).stack(["vv"], resolution=20)
    cut = gp.inputs(before=radar, after=radar).chip(24, coverage="any").assign(event=np.datetime64("2024-06-03"))
    sides: dict[str, Any] = {"before": "before", "after": "after"}
    matched = cut.match_dates({"before": "30D", "after": "30D"}, to="event", side=sides)
    table = matched.table()
    assert (table["before_time"] < table["event"]).all()
    assert (table["after_time"] >= table["event"]).all()
    assert {str(day)[:10] for day in table["after_time"]} == {"2024-06-03"}


def test_choosing_ordering_and_sharing_keep_each_chip_its_dates(flood: Flood) -> None:
    matched = plan(flood).match_dates({"s2": "9D"}, to="s1", optional="s2")
    by_id = {int(row.id): str(row.s1_time) for row in matched.table().itertuples()}
    for other in (matched.shuffle(seed=1), matched[3:9], matched.query("s2_time == s2_time"), matched.epoch(2)):
        other = pickle.loads(pickle.dumps(other))
        for chip in other.take(5).read():
            assert str(pd.Timestamp(chip["s1"]["time"].values[0])) == by_id[int(chip["s1"]["chip"])]


def held(matched: gp.Plan[Any]) -> list[list[np.datetime64]]:
    """Give the dates that chips hold of any input, once they are read."""
    found = []
    for chip in matched.read(threads=2):
        stamps = [part["time"].values for part in chip.values() if "time" in part.dims]
        found.append([stamp for stamp in np.concatenate(stamps) if not np.isnat(stamp)])
    return found


@settings(max_examples=12)
@given(
    st.integers(0, 40), st.sampled_from(["nearest", "before", "after"]), st.sampled_from(["event", "s1", "s2"]),
    st.sampled_from([("s1",), ("s2",), ("s1", "s2")]),
    st.dates(pd.Timestamp("2024-05-04").date(), pd.Timestamp("2024-07-11").date()),
)  # fmt: skip
def test_a_plan_stands_in_time_where_its_chips_do(
    flood: Flood, days: int, side: Any, to: str, named: tuple[str, ...], cut: Any
) -> None:
    within = dict.fromkeys(named, f"{days}D")
    matched = plan(flood, event=np.datetime64("2024-06-03")).match_dates(within, to=to, side=side, optional=named)
    stamps, table = held(matched), matched.table()
    first, last = ([end(own) if own else np.datetime64("NaT") for own in stamps] for end in (min, max))
    np.testing.assert_array_equal(table["start"].to_numpy(), np.array(first, "M8[ns]"))
    np.testing.assert_array_equal(table["end"].to_numpy(), np.array(last, "M8[ns]"))
    at = np.datetime64(cut)
    early = [bool(own) and max(own) < at for own in stamps]
    late = [bool(own) and min(own) >= at for own in stamps]
    if not all(stamps) or not any(early) or not any(late):
        with pytest.raises(ChipError, match="have no dates; leave them out" if not all(stamps) else "gives splits of"):
            len(matched.split_by_time(str(cut))[0])
        return
    parts = matched.split_by_time(str(cut))
    for part, mine in zip(parts, (early, late), strict=True):
        np.testing.assert_array_equal(part.table()["id"], table["id"][mine])
    assert not gp.audit(*parts, apart="time", insist=True)["leak"].any()


@pytest.mark.parametrize("optional", [(), ("s1",)])
def test_an_audit_counts_the_days_and_scenes_that_are_held(flood: Flood, optional: tuple[str, ...]) -> None:
    matched = plan(flood).match_dates({"s1": "8D"}, to="s2", optional=optional)
    half = np.random.default_rng(0).random(len(matched)) < 0.5
    parts = [matched.query(half), matched.query(~half)]
    days = [{str(stamp)[:10] for own in held(part) for stamp in own} for part in parts]
    scenes = [{item for items in part.table(items=True)["items"] for item in items} for part in parts]
    (row,) = gp.audit(*parts, apart="time").to_dict("records")
    assert row["dates"] == len(days[0] & days[1]) > 0
    assert row["scenes"] == len(scenes[0] & scenes[1]) > 0
    assert row["leak"]
    apart = [matched.query("s2_time < '2024-05-15'"), matched.query("s2_time >= '2024-05-15'")]
    assert gp.audit(*apart, apart="time")[["scenes", "dates", "leak"]].to_numpy().tolist() == [[1, 0, False]]  # the DEM


def test_the_items_of_a_chip_are_those_at_its_dates(flood: Flood) -> None:
    matched = plan(flood).match_dates({"s1": "8D"}, to="s2", optional="s1")
    every = {item.id: item.datetime for item in (*flood.radar, *flood.optical)}
    for row, own in zip(matched.table(items=True).itertuples(), held(matched), strict=True):
        found = [every[item] for item in row.items if item in every]
        assert found == sorted(found)
        assert {day.strftime("%F") for day in found} == {str(stamp)[:10] for stamp in own}


def test_pairs_of_matched_chips_go_by_their_first_dates(flood: Flood) -> None:
    matched = plan(flood).match_dates({"s1": "8D"}, to="s2", optional="s1")
    pairs = matched.pairs(gap=(20, 60), seed=0)
    starts = matched.table().set_index("id")["start"]
    anchor, other = (starts[pairs.table()[f"{name}_id"]].to_numpy() for name in ("anchor", "other"))
    assert len(pairs) > 0
    between = np.abs(anchor - other) / np.timedelta64(1, "D")
    assert ((between >= 20) & (between <= 60)).all()
    chip = next(iter(pairs.read()))
    assert chip["anchor_s2"]["time"].values[0] != chip["other_s2"]["time"].values[0]
    assert chip["anchor_s2"].sizes["time"] == chip["other_s1"].sizes["time"] == 1
    nothing = plan(flood, event=np.datetime64("2024-05-20")).match_dates(
        {"s1": "0D", "s2": "0D"}, to="event", optional=["s1", "s2"]
    )
    with pytest.raises(ChipError, match="16 of 16 windows have no date"):
        len(nothing.pairs(gap=(1, 9), seed=0))


def test_other_dates_are_another_fingerprint(flood: Flood) -> None:
    cut = plan(flood, event=np.datetime64("2024-05-20"))
    one = cut.match_dates({"s1": "60D"}, to="event", side="before")._value.get()
    other = cut.match_dates({"s1": "60D"}, to="event", side="after")._value.get()
    assert fingerprints.fingerprint(one) != fingerprints.fingerprint(other)
    assert fingerprints.fingerprint(one) == fingerprints.fingerprint(pickle.loads(pickle.dumps(one)))


def test_events_are_columns_of_points(flood: Flood) -> None:
    middle = flood.events.geometry.representative_point()
    points = gpd.GeoDataFrame({"event": flood.events["event"].dt.tz_localize("UTC")}, geometry=middle)
    matched = inputs(flood).around(points, 48, coverage="any").match_dates({"s1": "60D"}, to="event")
    table = matched.table()
    assert len(table) == len(points)
    assert (table["event"].to_numpy() == flood.events["event"].to_numpy()).all()
    assert shapely.covers(table.geometry.to_numpy(), points.to_crs(4326).geometry.to_numpy()).all()


def bad(flood: Flood, within: Any = None, **options: Any) -> Any:
    cut = plan(flood, event=np.datetime64("2024-05-20"), word="x", gap=pd.NaT)
    return len(cut.match_dates({"s1": "3D"} if within is None else within, **{"to": "event", **options}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"within": {"s3": "3D"}},
            r"'s3' is no input, and no column of the plan; inputs with dates are \['s2', 's1'\]",
        ),
        ({"within": {"dem": "3D"}}, "'dem' is an input without dates"),
        ({"within": {"s1": "soon"}}, "within 'soon' of 's1': give a length of time, '3D'"),
        ({"within": {"s1": "-1D"}}, "give a length of time"),
        ({"within": {"s1": "1D"}, "to": "flooded"}, "'flooded' is no input, and no column"),
        ({"side": "around"}, "side='around': use one of nearest, before, after"),
        ({"side": {"s2": "after"}}, "side= names 's2', which within= does not"),
        ({"optional": ["s2"]}, "optional= names 's2', which within= does not"),
        ({"to": "word"}, "the column holds .*, dates are needed"),
        ({"to": "gap"}, "chips have no date"),
        ({"coverage": "half"}, "use 'full' or 'any'"),
        ({"within": {"s2": "1D"}}, r"none of \d+ chips has all inputs; missing are s2 of \d+: allow more time"),
    ],
)
def test_errors_say_what_to_write(flood: Flood, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ChipError, match=message):
        bad(flood, **options)


def whole(chip: Any) -> Any:
    return chip


def test_what_cannot_be_matched(flood: Flood) -> None:
    with pytest.raises(ChipError, match=r"put several side by side, gp.inputs"):
        len(gp.items(flood.radar).stack(["vv"]).chip(24).match_dates({"s1": "3D"}, to="s1"))
    with pytest.raises(ChipError, match="needed are chips of all dates"):
        len(inputs(flood).chip(48, time=1).match_dates({"s1": "3D"}, to="s2"))
    with pytest.raises(StepError, match="saw all dates and would see one; write it after match_dates"):
        len(plan(flood).map(whole).match_dates({"s1": "3D"}, to="s2"))
    with pytest.raises(AttributeError, match="works on a plan"):
        inputs(flood).match_dates({"s1": "3D"}, to="s2")  # type: ignore[attr-defined]
