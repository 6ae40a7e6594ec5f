"""The reader through the chain: runs give the cube's own pixels, decode each tile about once, and leave nothing."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

import geopipes as gp
from geopipes.chips import outlooks
from geopipes.errors import ReadError
from geopipes.read.files import close_files, opening
from geopipes.read.files.fitting import Unfit
from geopipes.read.tiles import Tiles, Uses, shared
from geopipes.read.tiles.cache import BUDGET

Array = np.ndarray[Any, Any]

DATES = ("20240501", "20240611")
SIDE, TILE = 300, 64
TILES = 25  # of 64 px in a band of 300 x 300 px
SCENE = GeoBox((SIDE, SIDE), Affine(10, 0, 690_000, 0, -10, 5_000_000), "EPSG:32633")
LABEL = GeoBox((120, 120), Affine(30, 0, 689_800, 0, -30, 5_000_300), "EPSG:32633")
LABEL_TILES = 4
GRIDS = {"copied": SCENE, "warped": GeoBox((SIDE, SIDE), Affine(10, 0, 690_005, 0, -10, 5_000_005), "EPSG:32633")}
BANDS = ("red", "nir", "scl")
SMALL = 12 * TILE * TILE * len(BANDS) * 2
"""Bytes of twelve tiles of all bands."""
CHIP, CHIPS = 50, 36  # px a side, and how many there are of a date

SHIFTS = {"copied": 0, "warped": 1}
"""Columns by which the nearest pixel lies to the right: pixels half off are ties, which go right and up."""

ON_BOTH = pytest.mark.parametrize("place", GRIDS)
BY_BOTH = pytest.mark.parametrize("compress", ["deflate", "lzw"], ids=["cog", "gdal"])


def pixels(seed: int) -> Array:
    """Fields with noise, (band, y, x), the last band of classes; a hole of zeros."""
    y, x = np.mgrid[:SIDE, :SIDE]
    noise = np.random.default_rng(seed).normal(0, 60, (2, SIDE, SIDE))
    fields = 3000 + 1000 * np.sin(x / 37) + 900 * np.cos(y / 23) + noise
    bands: Array = np.concatenate([fields, fields[:1] // 500]).astype(np.uint16)
    bands[:, 90 : 140 + 20 * seed, 30:80] = 0
    return bands


def write(path: Path, bands: Array, geobox: GeoBox, **profile: Any) -> None:
    count, height, width = bands.shape
    place = {"crs": str(geobox.crs), "transform": geobox.affine, "height": height, "width": width}
    layout = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "nodata": 0} | profile
    with rasterio.open(path, "w", driver="GTiff", count=count, dtype=bands.dtype, **place, **layout) as file:
        file.write(bands)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give folders with a file of three bands for each date, and a label, by how they are compressed."""
    folders = {}
    for compress in ("deflate", "lzw"):
        folder = folders[compress] = tmp_path_factory.mktemp(compress)
        for seed, date in enumerate(DATES):
            write(folder / f"{date}_scene.tif", pixels(seed), SCENE, compress=compress)
        classes = np.random.default_rng(7).integers(1, 9, (1, 120, 120)).astype(np.uint8)
        write(folder / "label.tif", classes, LABEL, compress=compress)
    return folders


def stacked(folder: Path, place: str = "copied", resampling: str = "bilinear") -> gp.Pipe[xr.Dataset]:
    items = gp.rasters(str(folder / "*_scene.tif"), pattern=r"(?P<date>\d{8})_scene", bands=BANDS)
    return items.stack(BANDS, geobox=GRIDS[place], resampling={"scl": "nearest", "*": resampling})


def cube(folder: Path, place: str = "copied", resampling: str = "bilinear") -> gp.Pipe[xr.Dataset]:
    return stacked(folder, place, resampling).join(gp.rasters(folder / "label.tif"), name="crop")


def whole(pipe: gp.Pipe[xr.Dataset]) -> xr.Dataset:
    return next(iter(pipe)).copy().load()


def pasted(expected: xr.Dataset, chips: Iterable[xr.Dataset]) -> xr.Dataset:
    """Put chips in their places."""
    made = {name: np.zeros_like(variable.values) for name, variable in expected.data_vars.items()}
    y, x, times = expected.y.values, expected.x.values, [*expected.time.values]
    for chip in chips:
        top, left = round((y[0] - float(chip.y[0])) / 10), round((float(chip.x[0]) - x[0]) / 10)
        first, last = times.index(chip.time.values[0]), times.index(chip.time.values[-1])
        rows = slice(max(top, 0), min(top + chip.sizes["y"], SIDE))
        cols = slice(max(left, 0), min(left + chip.sizes["x"], SIDE))
        for name, variable in chip.data_vars.items():
            dates = (slice(first, last + 1),) if "time" in variable.dims else ()
            inside = variable.values[..., rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
            made[name][(*dates, rows, cols)] = inside
    return expected.copy(data=made)


def assert_same(found: xr.Dataset, expected: xr.Dataset) -> None:
    for name, variable in expected.data_vars.items():
        np.testing.assert_array_equal(found[name].values, variable.values)
        assert found[name].dtype == variable.dtype


def decoded(run: Iterable[Any]) -> int:
    """Run to the end from an empty cache, and count the parts of tiles that are decoded."""
    shared().clear()
    before = shared().counts.decoded
    for _ in run:
        pass
    return shared().counts.decoded - before


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_files()
    shared(BUDGET).clear()
    assert shared().counts.held == 0
    assert not shared()._ranking.runs


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give, for each run that ends, the uses of tiles that were expected and did not come."""
    counts: list[int] = []
    really = Tiles.expecting

    @contextmanager
    def watched(tiles: Tiles) -> Iterator[Uses]:
        with really(tiles) as uses:
            yield uses
            counts.append(len(uses))

    monkeypatch.setattr(Tiles, "expecting", watched)
    return counts


# ---------------------------------------------------------------------------------------- one cube

CUTS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"size": 64, "time": 1}, {"seed": 0, "lanes": 4, "strip": 64}, {"threads": 1}),
    ({"size": (50, 120), "overlap": 10}, {"seed": 1, "exact": True}, {"threads": 4, "cache": 0}),
    ({"size": 97, "margin": 9}, {"seed": 2, "lanes": 3}, {"threads": 3, "cache": SMALL}),
    ({"size": 299}, {"seed": 3}, {"threads": 2}),
]


@pytest.mark.parametrize(
    ("place", "compress", "resampling"),
    [
        ("copied", "deflate", "nearest"),
        ("copied", "lzw", "nearest"),
        ("warped", "deflate", "bilinear"),
        ("warped", "lzw", "average"),
    ],
)
def test_chips_of_any_cut_make_one_cube(scenes: dict[str, Path], place: str, compress: str, resampling: str) -> None:
    pipe = cube(scenes[compress], place, resampling)
    expected = whole(pipe)
    assert expected.valid.values.mean() > 0.8
    assert len(np.unique(expected.crop)) == 8
    for chip, shuffle, read in CUTS:
        chips = pipe.chip(**chip, edge="pad", coverage="any").shuffle(**shuffle).read(**read)
        assert_same(pasted(expected, chips), expected)


@ON_BOTH
def test_kinds_of_files_make_one_cube(scenes: dict[str, Path], place: str) -> None:
    assert_same(whole(cube(scenes["lzw"], place)), whole(cube(scenes["deflate"], place)))


@ON_BOTH
def test_a_cube_can_be_used_by_hand(scenes: dict[str, Path], place: str) -> None:
    lazy = next(iter(cube(scenes["deflate"], place)))
    expected = lazy.copy().load()
    picks: list[dict[str, Any]] = [
        {"y": slice(10, 200, 7), "x": slice(250, 20, -3)},
        {"time": 1, "y": 55},
        {"x": [3, 299, 3, 120], "time": slice(0, 1)},
        {"y": slice(5, 5)},
    ]
    for pick in picks:
        assert_same(lazy.isel(pick).load(), expected.isel(pick))

    async def together() -> list[xr.Dataset]:
        return await asyncio.gather(*(lazy.isel(pick).load_async() for pick in picks))

    for pick, found in zip(picks, asyncio.run(together()), strict=True):
        assert_same(found, expected.isel(pick))


@BY_BOTH
@ON_BOTH
def test_a_file_written_anew_shows_its_new_pixels(tmp_path: Path, place: str, compress: str) -> None:
    for step, date in enumerate(DATES):
        write(tmp_path / f"{date}_scene.tif", pixels(step), SCENE, compress=compress)
    pipe = stacked(tmp_path, place, "nearest")
    lazy, chips = next(iter(pipe)), pipe.chip(100, edge="pad", coverage="any").read(threads=2)
    for seed in (5, 6):
        bands = np.maximum(pixels(seed), seed)
        write(tmp_path / f"{DATES[1]}_scene.tif", bands, SCENE, compress=compress)
        os.utime(tmp_path / f"{DATES[1]}_scene.tif", (seed, seed))  # clocks of files tick but every few ms
        found, shift = lazy.copy().load(), SHIFTS[place]
        for band, name in zip(bands, BANDS, strict=True):
            np.testing.assert_array_equal(found[name].values[1, :, : SIDE - shift], band[:, shift:])
        assert_same(pasted(found, chips), found)


# ---------------------------------------------------------------------------------------- decodes


@ON_BOTH
@pytest.mark.parametrize(
    "cut", [{"size": 50}, {"size": 100, "margin": 30, "edge": "pad"}, {"size": 75, "time": 1}], ids=str
)
def test_each_tile_is_decoded_once_for_all_its_bands(
    scenes: dict[str, Path], place: str, cut: dict[str, Any], left: list[int]
) -> None:
    chips = cube(scenes["deflate"], place).chip(**cut, coverage="any")
    for run in (
        chips.read(threads=1),
        chips.shuffle(seed=0).read(threads=4),
        chips.read(threads=2).tensor(image=["red", "nir"], fill=0),
    ):
        assert decoded(run) == len(DATES) * TILES + LABEL_TILES
    assert left == [0, 0, 0]


def test_the_order_for_speed_decodes_less_than_a_plain_one(scenes: dict[str, Path], left: list[int]) -> None:
    chips = stacked(scenes["deflate"]).chip(30, time=1)
    near = decoded(chips.shuffle(0, lanes=2, strip=TILE).read(threads=1, cache=SMALL))
    plain = decoded(chips.shuffle(0, exact=True).read(threads=1, cache=SMALL))
    assert len(DATES) * TILES <= near < 2 * len(DATES) * TILES
    assert plain > 2 * near
    assert left == [0, 0]


def test_next_uses_evict_better_than_age(scenes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    chips = stacked(scenes["deflate"]).chip(30, time=1).shuffle(0, exact=True).read(threads=1, cache=SMALL)
    foreseen = decoded(chips)
    monkeypatch.setattr(Uses, "add", lambda uses, keys: None)
    assert foreseen < 0.9 * decoded(chips)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_cache_is_told_of_some_chips_ahead_and_not_of_all(
    scenes: dict[str, Path], monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    told: list[int] = []
    really = Uses.add

    def add(uses: Uses, keys: list[Any]) -> None:
        told.append(len(keys))
        really(uses, keys)

    monkeypatch.setattr(outlooks, "OUTLOOK_USES", 16)
    monkeypatch.setattr(Uses, "add", add)
    plan = stacked(scenes["deflate"]).chip(8)
    for _ in range(5):  # whoever comes second waits for the first, that opens files
        close_files()
        told.clear()
        run: Any = iter(plan.read(threads=threads))
        with closing(run):
            next(run)
        assert 0 < len(told) < len(plan) // 10


def test_a_cache_stays_within_its_budget(scenes: dict[str, Path]) -> None:
    for _ in stacked(scenes["deflate"]).chip(30, time=1).shuffle(0, exact=True).read(threads=2, cache=SMALL):
        assert shared().counts.held <= SMALL


# ---------------------------------------------------------------------------------------- what goes wrong


def damage(path: Path, row: int, col: int) -> None:
    """Overwrite the bytes of a tile."""
    with rasterio.open(path) as file:
        offset, size = (
            int(file.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")
        )
    content = bytearray(path.read_bytes())
    content[offset + 8 : offset + size] = bytes(size - 8)
    path.write_bytes(content)


def broken(folder: Path, tile: int, row: int, col: int, shift: int = 0) -> list[int]:
    """Write scenes, the second with a tile that cannot be read; give the ids of chips that need it."""
    for seed, date in enumerate(DATES):
        write(folder / f"{date}_scene.tif", pixels(seed), SCENE, compress="deflate", blockxsize=tile, blockysize=tile)
    damage(folder / f"{DATES[1]}_scene.tif", row, col)
    first = np.arange(0, SIDE, CHIP)
    down, across = (
        (lines < tile * (place + 1)) & (lines + CHIP > tile * place)
        for lines, place in ((first, row), (first + shift, col))
    )
    return [CHIPS + int(i) for i in np.flatnonzero(down[:, None] & across)]


def failing(plan: Any, ids: Iterable[int]) -> list[int]:
    """Give the chips that cannot be read."""

    def fails(i: int) -> bool:
        try:
            plan[i].load()
        except ReadError:
            return True
        return False

    return [i for i in ids if fails(i)]


@ON_BOTH
@pytest.mark.parametrize(("kind", "tile", "row", "col"), [("cog", 64, 1, 2), ("gdal", 256, 1, 1)])
def test_a_broken_tile_fails_the_chips_that_need_it(
    tmp_path: Path, place: str, kind: str, tile: int, row: int, col: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "gdal":
        monkeypatch.setattr(opening, "fit", refuse)
    needing = broken(tmp_path, tile, row, col, SHIFTS[place])
    plan = stacked(tmp_path, place, "nearest").chip(CHIP, coverage="any", time=1)
    assert len(plan) == 2 * CHIPS
    path = tmp_path / f"{DATES[1]}_scene.tif"
    top = (needing[0] - CHIPS) // (SIDE // CHIP) * CHIP
    for run in (plan.read(threads=3), plan.read(threads=2, cache=0).tensor(image=["red"], fill=0)):
        delivered: list[int] = []
        with pytest.raises(ReadError) as error:
            delivered.extend(int(chip["chip"]) for chip in run)
        assert delivered == [*range(needing[0])]
        text = str(error.value)
        assert f"item '{path.stem}', asset 'data' ({path}): tile ({row}, {col}) at level 0 could not be read: " in text
        assert f"(needed for rows {top}..{top + CHIP}, columns " in text
        assert any(f"while reading element {needing[0]}" in note for note in error.value.__notes__)
    assert failing(plan, range(CHIPS, 2 * CHIPS)) == needing


def refuse(*_: Any) -> None:
    raise Unfit("the test says so")


def test_a_missing_file_fails_its_own_chips_alone(tmp_path: Path) -> None:
    broken(tmp_path, 64, 0, 0)
    plan = stacked(tmp_path).chip(CHIP, time=1)
    assert len(plan) == 2 * CHIPS  # its items are found here
    (tmp_path / f"{DATES[1]}_scene.tif").unlink()
    delivered: list[int] = []
    with pytest.raises(ReadError, match=rf"item '{DATES[1]}_scene', asset 'data' .*No such file"):
        delivered.extend(int(chip["chip"]) for chip in plan.read(threads=2))
    assert delivered == [*range(CHIPS)]
    assert failing(plan, range(CHIPS, 2 * CHIPS)) == [*range(CHIPS, 2 * CHIPS)]


# ---------------------------------------------------------------------------------------- what is left behind


def reading() -> list[str]:
    """Name the threads that read."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("geopipes")]


def open_in(folder: Path) -> list[str]:
    """Name the files of a folder that this process has open."""
    links = Path("/proc/self/fd").iterdir()
    names = [os.readlink(link) for link in links if link.is_symlink()]
    return [name for name in names if name.startswith(str(folder))]


@BY_BOTH
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's list of open files")
def test_a_run_leaves_neither_threads_nor_files_nor_expectations(scenes: dict[str, Path], compress: str) -> None:
    pipe = cube(scenes[compress]).chip(50, time=1).read(threads=4)
    assert len(list(pipe)) == len(pipe)
    for position in (0, 20):
        run = iter(pipe)
        for _ in range(position + 1):
            next(run)
        assert len(shared()._ranking.runs) == 1
        run.close()  # type: ignore[attr-defined]
        assert not shared()._ranking.runs
        assert not reading()
    close_files()
    assert not open_in(scenes[compress])


def test_a_run_that_fails_leaves_nothing_either(tmp_path: Path) -> None:
    broken(tmp_path, 64, 2, 2)
    for run in (stacked(tmp_path).chip(50).read(threads=3), stacked(tmp_path).chip(50).map(refuse).read()):
        with pytest.raises((ReadError, Unfit)):
            list(run)
        assert not shared()._ranking.runs
        assert not reading()


def test_two_runs_side_by_side_share_tiles(scenes: dict[str, Path], left: list[int]) -> None:
    chips = stacked(scenes["deflate"]).chip(50)
    one, other = (chips.shuffle(seed, exact=True).read(threads=2) for seed in (0, 1))
    assert decoded(zip(one, other, strict=True)) == len(DATES) * TILES
    assert left == [0, 0]
