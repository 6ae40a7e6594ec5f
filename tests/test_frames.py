"""Frames and lattices: what is chosen of columns is what numpy would choose of arrays, in less memory."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geopipes import chips, orders
from geopipes.chips import frames, rows
from geopipes.chips.frames import Frame, Numbers
from geopipes.chips.lattices import Lattice, Part
from geopipes.chips.windows import Windows
from geopipes.datacubes.cube import Cubes
from geopipes.datacubes.stackcube import StackCube
from geopipes.errors import ChipError
from geopipes.fingerprints import fingerprint
from geopipes.read.sources import Source, Stack, Variable

UINT16 = np.dtype("uint16")


def cubes(side: int, dates: int = 1, *, turned: float = 0) -> Cubes:
    """Make a cube whose raster, of the same side, may be turned on the grid [degrees]; no files."""
    grid = GeoBox((side, side), Affine(10, 0, 5e5, 0, -10, 5e6), "EPSG:32632")
    raster = GeoBox((side, side), grid.affine @ Affine.rotation(turned), grid.crs)
    times = tuple(np.datetime64("2024-05-01", "ns") + np.timedelta64(day, "D") for day in range(dates))
    rasters = tuple((Source(f"{t}.tif", (1,), raster, UINT16, None, str(t), None, "red", t),) for t in times)
    return Cubes([StackCube(Stack(grid, times, (Variable("red", UINT16, None, "nearest", None, rasters),)))])


def same(frame: Frame, columns: dict[str, npt.NDArray[Any]]) -> None:
    """Compare a frame with plain arrays, whole and in parts."""
    assert [*frame.names] == [*columns]
    for name, expected in columns.items():
        assert len(frame) == len(expected)
        np.testing.assert_array_equal(frame.column(name), expected)
        np.testing.assert_array_equal(frame.column(name, slice(1, None, 2)), expected[1::2])
        if len(expected):
            at = np.array([len(expected) - 1, 0], np.uint16)
            np.testing.assert_array_equal(frame.column(name, at), expected[at])
            np.testing.assert_array_equal(frame.column(name, -1), expected[-1])


STEPS = st.lists(st.sampled_from(["take", "few", "column", "constant", "pickle"]), max_size=7)


@given(STEPS, st.integers(1, 300), st.integers(0, 99))
def test_a_frame_is_what_its_arrays_would_be(steps: list[str], n: int, seed: int) -> None:
    """Choices of choices, with columns of all kinds added between them, one in the place of another at times."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "number": np.arange(n), "one": np.full(n, "a"), "many": rng.random((n, 3)), "x": rng.integers(0, 9, n),
    }  # fmt: skip
    frame = Frame.of(n, {**columns, "number": Numbers(n), "one": "a"})
    for number, step in enumerate(steps):
        if step in ("take", "few"):
            at: Any = rng.integers(-len(frame), len(frame), len(frame) if step == "take" else 3) if len(frame) else []
            frame = frame.take(at)
            columns = {name: values[np.asarray(at, int)] for name, values in columns.items()}
        elif step == "pickle":
            frame = pickle.loads(pickle.dumps(frame))
        else:
            name = f"new{number % 3}"
            columns[name] = rng.random(len(frame)) if step == "column" else np.full(len(frame), number)
            frame = frame.with_columns({name: columns[name] if step == "column" else number})
        same(frame, columns)


@given(st.integers(1, 40), st.integers(0, 99), st.integers(1, 7))
def test_chunks_change_nothing(n: int, seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    values, chosen = rng.random(n), rng.integers(0, n, 3 * n)
    groups = rng.integers(0, 5, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "AT_ONCE", size)
        patch.setattr(rows, "SORTED_AT_ONCE", size)
        patch.setattr(rows.chunks, "__defaults__", (size,))
        frame = Frame.of(n, {"x": values, "n": Numbers(n)}).take(chosen)
        np.testing.assert_array_equal(frame.column("x"), values[chosen])
        np.testing.assert_array_equal(frame.column("n", slice(None, None, -2)), chosen[::-2])
        np.testing.assert_array_equal(rows.where(values > 0.5), np.flatnonzero(values > 0.5))
        line, held = rows.grouped(lambda at: groups[at], n, 6)
        np.testing.assert_array_equal(line, np.argsort(groups, kind="stable"))
        np.testing.assert_array_equal(held, np.bincount(groups, minlength=6))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=4))
def test_a_lattice_is_what_a_mesh_would_be(shapes: list[tuple[int, int, int, bool]]) -> None:
    rng = np.random.default_rng(len(shapes))
    parts, expected = [], [np.empty((4, 0), np.int64)]
    for cube, (dates, height, width, whole) in enumerate(shapes):
        axes = [np.arange(count) * step for count, step in ((dates, 2), (height, 7), (width, 9))]
        inside = None if whole else rng.random(height * width) < 0.6
        parts.append(Part(cube, axes[0], axes[1], axes[2], inside))
        mesh = np.stack(np.meshgrid([cube], *axes, indexing="ij")).reshape(4, dates, height * width)
        expected.append((mesh if inside is None else mesh[:, :, inside]).reshape(4, -1))
    lattice = Lattice.of(parts)
    columns = dict(zip(("cube", "time", "row", "col"), np.concatenate(expected, axis=1), strict=True))
    assert lattice.length == len(columns["row"])
    same(Frame.of(lattice.length, lattice.columns()), columns)


@pytest.mark.parametrize(
    ("positions", "error", "text"),
    [
        ([True, False], ChipError, "positions are bool.*numpy.flatnonzero"),
        ([0.5], ChipError, "positions are float64"),
        ([0, 5], IndexError, "positions 0 to 5 of a plan of 5 chips"),
        ([-6], IndexError, "positions -6 to -6 of a plan of 5 chips"),
    ],
)
def test_what_are_no_positions(positions: list[Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Frame.of(5, {"x": np.arange(5)}).take(positions)


def test_rows_may_be_counted_from_the_end_in_small_integers() -> None:
    frame = Frame.of(300, {"n": Numbers(300), "x": np.arange(300)})
    for name in ("n", "x"):
        np.testing.assert_array_equal(frame.take(np.array([-1, 5], np.int8)).column(name), [299, 5])
        np.testing.assert_array_equal(frame.column(name, np.array([-1, 5], np.int8)), [299, 5])
        with pytest.raises(ChipError, match="positions are bool"):
            frame.column(name, np.ones(300, bool))


def test_what_are_no_columns() -> None:
    windows = chips.chip(cubes(64), 16)
    with pytest.raises(ChipError, match=r"column 'x' has 3 rows; needed are 16"):
        windows.with_columns({"x": [1, 2, 3]})
    with pytest.raises(ChipError, match=r"columns \['row'\] would change what the plan is; write placed"):
        windows.with_columns({"row": np.arange(16)})
    with pytest.raises(ChipError, match="places of windows are float64"):
        windows.placed(row=np.full(16, 0.5))
    with pytest.raises(KeyError):
        windows.columns["row"]


@given(st.integers(-(2**31), 2**31), st.integers(1, 200), st.integers(1, 30_000))
def test_places_do_not_overflow(row: int, cubes_: int, dates: int) -> None:
    """What is kept in few bytes is handed out in eight: products of any two places, and rows beyond any edge."""
    n = 7
    top, col = row + np.arange(n), 2**31 - 1 - np.arange(n)
    cube, time = np.arange(n) % cubes_, (np.arange(n) * 4999) % dates
    windows = Windows.of((), (256, 256), row=top, col=col, cube=cube, time=time)
    for plan in (windows, windows[::-1][::-1], pickle.loads(pickle.dumps(windows.take(np.arange(n))))):
        for name, expected in (("id", np.arange(n)), ("cube", cube), ("time", time), ("row", top), ("col", col)):
            found = plan.values(name)
            assert found.dtype == plan.values(name, np.array([0])).dtype == np.int64
            np.testing.assert_array_equal(found, expected)
            assert plan.values(name, 3) == expected[3]
            assert isinstance(plan.values(name, 3), int)
        np.testing.assert_array_equal(plan.col * 2**20 + plan.row, col * 2**20 + top)
        assert (plan.cube * dates + plan.time == cube * dates + time).all()


def test_ten_million_windows_and_what_is_chosen_of_them_take_few_bytes() -> None:
    """Bytes of all arrays that plans keep, not of the process."""
    windows = chips.chip(cubes(20_480, 100, turned=5), 64, time=1)
    n = len(windows)
    assert 6_000_000 < n < 10_240_000
    assert windows.frame.nbytes < 1e5  # runs of places
    half = windows.take(np.arange(0, n, 2))
    assert half.frame.nbytes < 2.1 * n
    named = half.with_columns({"split": "train"})
    assert named.frame.nbytes < half.frame.nbytes + 100
    ordered = named.take(np.arange(len(half))[::-1])
    assert ordered.frame.nbytes < 2.1 * n  # the order in place of the choice, not above it
    assert ordered.frame.base is windows.frame
    few = ordered.take(np.arange(1000)).with_columns({"x": np.arange(1000.0)})
    assert len(pickle.dumps(few.frame)) < 50_000
    assert few.columns["split"][0] == "train"


def test_a_shard_travels_without_the_plan() -> None:
    """Of a plan with columns of its own, and of one whose ids are in disorder."""
    rng = np.random.default_rng(0)
    plan = chips.chip(cubes(4096), 16).with_columns({"share": rng.random(65_536)})
    shard = plan.take(rng.permutation(65_536)[:1000])
    again = pickle.loads(pickle.dumps(shard))
    assert len(pickle.dumps(shard.frame)) < 1000 * 30
    np.testing.assert_array_equal(again.ids, shard.ids)
    np.testing.assert_array_equal(again.columns["share"], shard.columns["share"])
    assert fingerprint(again) == fingerprint(shard)
    assert again.window(5)[1] == shard.window(5)[1]


@pytest.mark.parametrize("turned", [0, 5, 40])
@pytest.mark.parametrize("edge", ["drop", "pad", "shift"])
def test_blocks_say_what_windows_say(turned: float, edge: chips.Edge) -> None:
    """What covers and owns windows is told for blocks; here each window is asked alone."""
    every = chips.chip(cubes(1000, turned=turned), (16, 30), overlap=3, edge=edge, coverage="any")
    kept = np.flatnonzero(chips.cutting.fits(every, "full", "chip(16)"))
    windows = chips.chip(cubes(1000, turned=turned), (16, 30), overlap=3, edge=edge)
    assert len(every) - windows.left_out == len(windows)
    for name in ("cube", "time", "row", "col"):
        np.testing.assert_array_equal(windows.values(name), every.values(name, kept))
    np.testing.assert_array_equal(windows.ids, np.arange(len(kept)))


def test_pieces_of_a_large_plan_make_the_same_order_and_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = chips.chip(cubes(3000, 2, turned=3), 32, time=1)

    def found() -> list[npt.NDArray[Any]]:
        parts = orders.split(plan, (0.7, 0.3), block=3000, buffer=500, seed=0)
        kept = chips.query(plan, "row * 2 > col and start > '2024-05-01'")
        return [
            orders.shuffle(plan, 0, lanes=5).ids, orders.shuffle(parts[0], 1).ids, *(part.ids for part in parts),
            orders.shuffle(orders.shuffle(plan, 1), 0, lanes=5).ids, kept.ids,
        ]  # fmt: skip

    whole = found()
    for module in (rows, orders.shuffling, orders.splitting):
        monkeypatch.setattr(module, "SORTED_AT_ONCE", 301)
    monkeypatch.setattr(chips.tables, "AT_ONCE", 77)
    monkeypatch.setattr(rows.chunks, "__defaults__", (101,))
    for one, other in zip(whole, found(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(whole[0], whole[4])
