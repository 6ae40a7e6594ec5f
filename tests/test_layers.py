"""Layers: what one raster fills is noted of no single pixel, and comes out as if it were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from affine import Affine
from forgetting import forget
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from test_reader import source_of, write

from geopipes.read import planes
from geopipes.read.draws import current
from geopipes.read.failures import Policy, asking
from geopipes.read.failures.asking import Asking
from geopipes.read.layers import Layer
from geopipes.read.reader import Block, Reader
from geopipes.read.sources import Source, Stack, Variable
from geopipes.read.tiles import shared

Array = np.ndarray[Any, Any]
UINT8, UINT16, FLOAT32 = map(np.dtype, ("uint8", "uint16", "float32"))

X, Y, CRS = 690_000, 5_000_000, "EPSG:32633"
GRID = GeoBox((70, 90), Affine(10, 0, X, 0, -10, Y), CRS)
SCALE = (1e-4, -0.1)
WIDER = {UINT8: np.dtype("int32"), UINT16: FLOAT32, FLOAT32: np.dtype("float64")}

KINDS = {"red": UINT16, "reflectance": FLOAT32, "nir": UINT16, "height": FLOAT32, "classes": UINT8, "coarse": UINT16}
"""The variables: two copied as they are, one scaled between them, one with NaN, one masked, one of 20 m."""


@dataclass(frozen=True)
class Raster:
    """What one item gives: where it begins on the grid, how large it is, and how much of it is not valid."""

    corner: tuple[int, int]
    shape: tuple[int, int]
    holes: tuple[float, ...]
    torn: bool
    seed: int

    def pixels(self) -> dict[str, tuple[Array, Array]]:
        """Give (y, x) and what of it is valid, by variable, as the files hold it."""
        rng = np.random.default_rng(self.seed)
        made = {}
        for (name, dtype), holes in zip(KINDS.items(), self.holes, strict=True):
            stored = UINT16 if name == "reflectance" else dtype
            shape = (self.shape[0] // 2, self.shape[1] // 2) if name == "coarse" else self.shape
            valid = rng.random(shape) >= holes
            nothing = np.nan if name == "height" else 0
            values = rng.integers(1, 200, shape).astype(stored)
            made[name] = (values if name == "classes" else np.where(valid, values, nothing).astype(stored), valid)
        return made

    def written(self, folder: Path) -> dict[str, Source]:
        """Write the files."""
        folder.mkdir(exist_ok=True)
        (height, width), (row, col) = self.shape, self.corner
        grid, coarse = (
            GeoBox(
                (height // fold, width // fold), Affine(10 * fold, 0, X + 10 * col, 0, -10 * fold, Y - 10 * row), CRS
            )
            for fold in (1, 2)
        )
        made = self.pixels()
        tiles: dict[str, Any] = {"blockxsize": 32, "blockysize": 32, "compress": "deflate"}

        def path(name: str, *bands: str, grid: GeoBox = grid, **options: Any) -> Path:
            pixels = np.stack([made[band][0] for band in bands])
            return write(folder / f"{self.seed} {name}.tif", pixels, grid, **tiles, **options)

        bands = path("bands", "red", "reflectance", "nir")
        mask = np.where(made["classes"][1], 255, 0).astype(np.uint8)
        sources = {
            "red": source_of(bands, 1),
            "reflectance": source_of(bands, 2, scale=SCALE),
            "nir": source_of(bands, 3),
            "height": source_of(path("height", "height", nodata=np.nan), 1),
            "classes": source_of(path("classes", "classes", nodata=None, mask=mask), 1),
            "coarse": source_of(path("coarse", "coarse", grid=coarse), 1),
        }
        if self.torn:
            torn = Path(sources["height"].href)
            torn.write_bytes(torn.read_bytes()[:-400])
        return {name: replace(source, item=str(self.seed)) for name, source in sources.items()}

    def shown(self, name: str, rows: slice, cols: slice) -> tuple[Array, Array]:
        """Give what a window of the grid shows: (y, x), and what of it is valid."""
        values, valid = self.pixels()[name]
        if name == "coarse":
            values, valid = (each.repeat(2, axis=0).repeat(2, axis=1) for each in (values, valid))
        if name == "reflectance":
            values = (values.astype(np.float64) * SCALE[0] + SCALE[1]).astype(np.float32)
        y, x = np.arange(rows.start, rows.stop)[:, None], np.arange(cols.start, cols.stop)
        inside = (y >= 0) & (y < GRID.shape.y) & (x >= 0) & (x < GRID.shape.x)
        y, x = y - self.corner[0], x - self.corner[1]
        inside &= (y >= 0) & (y < values.shape[0]) & (x >= 0) & (x < values.shape[1])
        at = (np.clip(y, 0, values.shape[0] - 1), np.clip(x, 0, values.shape[1] - 1))
        return values[at], valid[at] & inside


@st.composite
def rasters(draw: st.DrawFn) -> Raster:
    """Most cover the grid, and most of their bands are valid everywhere, or all but somewhere."""
    whole = draw(st.booleans())
    even = [st.integers(*ends).map(lambda half: 2 * half) for ends in ((-20, 20), (-20, 20), (16, 60), (16, 60))]
    place = (-8, -6, 90, 110) if whole else draw(st.tuples(*even))
    holes = draw(st.tuples(*[st.sampled_from([0, 0, 1e-3, 1e-3, 0.2])] * len(KINDS)))
    torn = draw(st.integers(0, 5)) == 0
    return Raster(place[:2], place[2:], holes, torn, draw(st.integers(0, 2**32)))


def stack_of(steps: list[list[Raster]], folder: Path) -> Stack:
    """Make a stack of the rasters of each time step."""
    written = [[raster.written(folder / str(date)) for raster in step] for date, step in enumerate(steps)]
    times = tuple(np.datetime64("2024-05-01", "ns") + np.timedelta64(day, "D") for day in range(len(steps)))
    variables = (
        Variable(
            name, dtype, 0 if dtype == UINT16 else None, "nearest", None,
            tuple(tuple(each[name] for each in step) for step in written),
        )
        for name, dtype in KINDS.items()
    )  # fmt: skip
    return Stack(GRID, times, tuple(variables))


def anything(reader: Reader, shape: tuple[int, int, int], wider: bool) -> Block:
    """Make a block that holds anything."""
    rng = np.random.default_rng(0)
    pixels, ok = {}, {}
    for dtype, bands in reader.bands.items():
        whole = (shape[0], bands, *shape[1:])
        pixels[dtype] = rng.integers(0, 200, whole).astype(WIDER[dtype] if wider else dtype)
        ok[dtype] = rng.random(whole) < 0.5
    return Block(pixels, ok, rng.random(shape) < 0.5)


@contextmanager
def noting_all() -> Iterator[None]:
    """Let each drawing look at what is valid already, as if there were a first one nowhere."""

    def begin(layer: Layer, channels: Array, _: tuple[int, int]) -> bool:
        layer.told(channels)
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Layer, "begin", begin)
        yield


def read(reader: Reader, rows: slice, cols: slice, names: tuple[str, ...] | None, *, wider: bool) -> Block:
    """Read all time steps of a window, masking what cannot be read, and count the tiles."""
    steps = range(len(reader.stack.times or ()))
    block = anything(reader, (len(steps), rows.stop - rows.start, cols.stop - cols.start), wider)
    token = asking.set(Asking(Policy(on_error="mask")))
    try:
        with shared().expecting() as uses:
            run = current.set(uses)
            uses.add(reader.keys(rows, cols, steps, names=names))
            try:
                found = reader.read(rows, cols, steps, names=names, into=block)
            finally:
                current.reset(run)
            torn = bool(asking.get().masked)
            assert torn or len(uses) == 0  # what fails is not always asked for as often as was thought
    finally:
        asking.reset(token)
    return found


@settings(max_examples=40)
@given(
    steps=st.lists(st.lists(rasters(), max_size=3, unique_by=lambda each: each.seed), min_size=1, max_size=2),
    corner=st.tuples(st.integers(-6, 60), st.integers(-6, 80)),
    shape=st.tuples(st.just(1) | st.integers(30, 70), st.just(1) | st.integers(30, 90)),
    names=st.none() | st.sets(st.sampled_from([*KINDS]), min_size=1).map(tuple),
    wider=st.booleans(),
    side=st.sampled_from([2048, 2048, 32]),
)
def test_what_is_noted_of_no_pixel_comes_out_as_if_it_were(
    steps: list[list[Raster]],
    corner: tuple[int, int],
    shape: tuple[int, int],
    names: tuple[str, ...] | None,
    wider: bool,
    side: int,
) -> None:
    rows, cols = (slice(first, first + size) for first, size in zip(corner, shape, strict=True))
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(planes, "BLOCK", side)
        stack = stack_of(steps, Path(folder))
        found = read(Reader(stack), rows, cols, names, wider=wider)
        with noting_all():
            noted = read(Reader(stack), rows, cols, names, wider=wider)
        forget()
    wanted = [variable for variable in stack.variables if names is None or variable.name in names]
    channels = Reader(stack).channels
    np.testing.assert_array_equal(found.valid, noted.valid)
    assert found.complete == noted.complete == bool(found.valid.all())
    for variable in wanted:
        dtype, part = variable.dtype, (slice(None), channels[variable.name])
        np.testing.assert_array_equal(found.shown(dtype)[part], noted.shown(dtype)[part])
        assert found.pixels[dtype][part].tobytes() == noted.pixels[dtype][part].tobytes()
    if not any(raster.torn for step in steps for raster in step):
        assert_first_valid_wins(found, steps, wanted, channels, (rows, cols))


def assert_first_valid_wins(
    found: Block, steps: list[list[Raster]], wanted: list[Variable], channels: dict[str, slice], window: Any
) -> None:
    """Compare with what numpy makes of the rasters."""
    for i, step in enumerate(steps):
        all_valid = np.ones(found.valid.shape[1:], bool)
        for variable in wanted:
            pixels = np.full(all_valid.shape, np.nan if variable.dtype.kind == "f" else 0, variable.dtype)
            ok = np.zeros(all_valid.shape, bool)
            for raster in step:
                values, valid = raster.shown(variable.name, *window)
                np.copyto(pixels, values, where=valid & ~ok)
                ok |= valid
            channel = channels[variable.name].start
            np.testing.assert_array_equal(found.shown(variable.dtype)[i, channel], ok)
            np.testing.assert_array_equal(found.pixels[variable.dtype][i, channel], pixels)
            all_valid &= ok
        np.testing.assert_array_equal(found.valid[i], all_valid)


def test_of_a_window_that_is_valid_everywhere_no_pixel_is_noted(tmp_path: Path) -> None:
    whole = [Raster((-8, -6), (90, 110), (0,) * len(KINDS), torn=False, seed=seed) for seed in (1, 2)]
    reader = Reader(stack_of([whole, whole[:1]], tmp_path))
    names = ("red", "nir", "height", "classes", "reflectance")
    untouched = anything(reader, (2, 40, 50), wider=False)
    found = read(reader, slice(3, 43), slice(30, 80), names, wider=False)
    assert found.complete
    assert found.valid.all()
    for dtype, ok in found.ok.items():
        np.testing.assert_array_equal(ok, untouched.ok[dtype])
        wanted = [reader.channels[name].start for name in names if KINDS[name] == dtype]
        assert found.shown(dtype)[:, wanted].all()
    assert_first_valid_wins(
        found,
        [whole, whole[:1]],
        [variable for variable in reader.stack.variables if variable.name in names],
        reader.channels,
        (slice(3, 43), slice(30, 80)),
    )
