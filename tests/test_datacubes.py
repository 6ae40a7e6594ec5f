"""Cubes: what stack, join, inputs and arrays from elsewhere promise, on synthetic scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.warp import reproject

import geopipes as gp
from geopipes.datacubes.places import like
from geopipes.errors import EmptySearch, GridError, GridMismatch, NotGeoreferenced, SourceError
from geopipes.testing import Synthetic


def west(land: Synthetic) -> gp.Pipe[Any]:
    return gp.items(land.items).filter(lambda item: "14T" in item.id)


def only(pipe: gp.Pipe[Any]) -> Any:
    (cube,) = pipe
    return cube


def test_layout_and_values_are_the_files(land: Synthetic) -> None:
    cube = only(west(land).stack(["red", "scl"], resolution=10))
    assert cube["red"].dims == cube["valid"].dims == ("time", "y", "x")
    assert [str(v.dtype) for v in cube.data_vars.values()] == ["uint16", "uint8", "bool"]
    items = sorted((item for item in land.items if "14T" in item.id), key=lambda item: str(item.datetime))
    for i, item in enumerate(items):
        with rasterio.open(item.assets["red"].href) as file:
            np.testing.assert_array_equal(cube["red"].isel(time=i).values, file.read(1))
        assert cube["time"].values[i] == np.datetime64(item.datetime.replace(tzinfo=None), "ns")  # type: ignore[union-attr]
    np.testing.assert_array_equal(cube["valid"].values, (cube["red"].values != 0) & (cube["scl"].values != 0))


@pytest.mark.parametrize("engine", ["odc", "stackstac"])
def test_engines_give_one_layout(land: Synthetic, engine: Any) -> None:
    ours = only(west(land).stack(["red", "nir"], groupby="solar_day"))
    theirs = only(west(land).stack(["red", "nir"], groupby="solar_day", engine=engine))
    assert theirs["red"].chunks
    xr.testing.assert_identical(ours.load(), theirs.compute())
    joined = only(west(land).stack(["red"], engine=engine).join(gp.rasters(land.label), name="crop"))
    assert joined["crop"].dims == ("y", "x")


def test_grid_options(land: Synthetic) -> None:
    left, _, _, top = only(west(land).stack(["red"])).odc.geobox.boundingbox
    cube = only(west(land).stack(["red"], resolution=20, bounds=(left + 100, top - 500, left + 500, top - 200)))
    assert dict(cube.sizes) == {"time": 2, "y": 15, "x": 20}
    assert float(cube["x"][0]) == left + 110
    like = only(west(land).stack(["nir"], like=cube))
    xr.testing.assert_equal(like["x"], cube["x"])
    with pytest.raises(GridError, match="none of the 2 items touches the grid"):
        len(west(land).stack(["red"], bounds=(0, 0, 100, 100)))
    with pytest.raises(EmptySearch, match="there are no items; widen"):
        len(west(land).take(0).stack(["red"]))


def test_time_steps(land: Synthetic) -> None:
    items = gp.items(land.items)

    def dates(groupby: Any) -> int:
        return int(only(items.stack(["red"], crs="EPSG:32614", resolution=60, groupby=groupby)).sizes["time"])

    assert [dates("time"), dates("solar_day"), dates("id"), dates("platform")] == [4, 2, 4, 2]
    assert dates(lambda item: item.datetime.month) == 2
    with pytest.raises(SourceError, match=r"has no such property; use 'time', 'solar_day', 'id', one of \["):
        dates("orbit")


def test_dtype_nodata_and_resampling_by_band(land: Synthetic) -> None:
    cube = only(
        west(land).stack(["red", "scl"], dtype={"red": "float32"}, nodata={"scl": 9}, resampling={"*": "nearest"})
    )
    assert [str(cube[name].dtype) for name in ("red", "scl")] == ["float32", "uint8"]
    np.testing.assert_array_equal(np.isnan(cube["red"].values), ~cube["valid"].values)
    assert not cube["valid"].values[cube["scl"].values == 9].any()
    with pytest.raises(SourceError, match="resampling='lanczos' for 'red': use one of nearest"):
        len(west(land).stack(["red"], resampling="lanczos"))
    with pytest.raises(SourceError, match="use 'window', 'odc' or 'stackstac'"):
        len(west(land).stack(["red"], engine="gdal"))  # type: ignore[arg-type]


def test_mosaics_take_the_first_valid_pixel_whatever_the_order_of_items(land: Synthetic) -> None:
    items = gp.items(land.items)
    options: dict[str, Any] = {"crs": "EPSG:32614", "resolution": 10, "groupby": "solar_day"}
    one = only(items.stack(["red"], **options)).load()
    other = only(gp.items(list(land.items)[::-1]).stack(["red"], **options)).load()
    xr.testing.assert_identical(one, other)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")  # of rasterio.warp.reproject, the peer here
def test_a_label_keeps_its_dtype_and_nodata_and_adds_no_time(land: Synthetic) -> None:
    images = west(land).stack(["red"], resolution=10)
    dated = gp.rasters(land.label, datetime=lambda _: "2021-07-01")
    cube = only(images.join(dated, name="crop"))
    assert cube["crop"].dims == ("y", "x")
    assert cube["crop"].dtype == np.uint8
    assert cube["crop"].attrs["nodata"] == 255
    xr.testing.assert_equal(cube["time"], only(images)["time"])
    xr.testing.assert_equal(cube["valid"], only(images)["valid"])
    with rasterio.open(land.label) as file:  # our nearest against GDAL's, away from its approximation
        expected = np.zeros(cube["crop"].shape, np.uint8)
        geobox = cube.odc.geobox
        reproject(
            file.read(1), expected, src_transform=file.transform, src_crs=file.crs, dst_transform=geobox.affine,
            dst_crs=str(geobox.crs), resampling=Resampling.nearest, dst_nodata=255, tolerance=0.01,
        )  # fmt: skip
    assert (cube["crop"].values == expected).mean() > 0.995


def test_a_label_that_states_no_nodata_makes_nothing_up(land: Synthetic, tmp_path: Path) -> None:
    with rasterio.open(land.label) as file:
        profile = file.profile | {"nodata": None, "driver": "GTiff", "height": 30, "width": 30}
        with rasterio.open(tmp_path / "small.tif", "w", **profile) as small:
            small.write(file.read(window=((0, 30), (0, 30))))
    images = west(land).stack(["red"], resolution=10)
    plan = images.join(gp.rasters(tmp_path / "small.tif"), name="crop").chip(64, coverage="any")
    with pytest.raises(SourceError, match=r"'crop' states no nodata and does not cover .* join\(\.\.\., nodata=255\)"):
        list(plan.read())
    told = images.join(gp.rasters(tmp_path / "small.tif"), name="crop", nodata=255).chip(64, coverage="any")
    assert any((chip["crop"].values == 255).any() for chip in told.read())


def test_a_raster_elsewhere_is_not_joined(land: Synthetic, tmp_path: Path) -> None:
    with rasterio.open(str(land.label)) as file:
        profile = file.profile | {"transform": Affine.translation(1e6, 0) @ file.transform}
        with rasterio.open(tmp_path / "far.tif", "w", **profile) as far:
            far.write(file.read())
    images = west(land).stack(["red"], resolution=10)
    with pytest.raises(GridError, match=r"join: none of the 1 items touches the grid, .* first, 'far', lies within"):
        len(images.join(gp.rasters(tmp_path / "far.tif"), name="crop"))
    both = gp.items(land.items).stack(["red"], resolution=10, crs="utm")
    left = only(images).odc.geobox
    with rasterio.open(str(land.label)) as file, rasterio.open(
        tmp_path / "corner.tif", "w", **file.profile | {"transform": left.affine, "crs": str(left.crs)}
    ) as corner:  # fmt: skip
        corner.write(file.read())
    assert len(both.join(gp.rasters(tmp_path / "corner.tif"), name="crop", nodata=255)) == 2  # one of them is enough


@pytest.mark.parametrize("name", ["x", "time", "band", "valid", "chip", "spatial_ref"])
def test_names_that_chips_keep_are_no_variables(land: Synthetic, name: str) -> None:
    message = f"cannot be named '{name}'.*name= of join"
    with pytest.raises(SourceError, match=message):
        len(west(land).stack({name: "red"}, resolution=10))
    images = west(land).stack(["red"], resolution=10)
    with pytest.raises(SourceError, match=message):
        len(images.join(gp.rasters(land.label), name=name))


def test_joins_that_cannot_be(land: Synthetic) -> None:
    images = west(land).stack(["red"], resolution=10)
    with pytest.raises(SourceError, match=r"has a variable \['red'\] already"):
        len(images.join(gp.rasters(land.label), name="red"))
    with pytest.raises(SourceError, match="there are 2 bands"):
        len(images.join(west(land).take(1), name="two", bands=["green", "blue"]))
    with pytest.raises(SourceError, match="has a time of its own"):
        len(images.join(west(land).stack(["nir"], resolution=10)))
    with pytest.raises(GridMismatch):
        len(images.join(gp.cubes(only(images).isel(time=0, x=slice(1, None)).drop_vars("time").load())))


def test_joined_cubes_on_the_same_grid(land: Synthetic) -> None:
    images = west(land).stack(["red"], resolution=10)
    still = only(images).isel(time=0).drop_vars("time").load().rename(red="height")
    cube = only(images.join(gp.cubes(still)))
    np.testing.assert_array_equal(cube["height"].values, still["height"].values)


# Arrays from elsewhere.


def field(n: int = 40, *, north_up: bool = True) -> xr.Dataset:
    y, x = np.arange(n) * 0.01 + 41.2, np.arange(n) * 0.01 - 96.3
    values = np.random.default_rng(0).normal(size=(2, n, n)).astype("float32")
    values[:, :3] = np.nan
    time = np.array(["2024-01-01", "2024-02-01"], "datetime64[ns]")
    dataset = xr.Dataset({"t2m": (("time", "lat", "lon"), values)}, {"time": time, "lat": y, "lon": x})
    return dataset.isel(lat=slice(None, None, -1)) if north_up else dataset


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_files_of_arrays_are_cubes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"field{suffix}"
    if suffix == ".nc":
        field(north_up=False).to_netcdf(path)
    else:
        field(north_up=False).to_zarr(path, zarr_format=2)
    cube = only(gp.cubes(path))
    assert cube["t2m"].dims == ("time", "y", "x")
    assert float(cube["y"][0]) > float(cube["y"][-1])
    np.testing.assert_array_equal(cube["t2m"].values, field()["t2m"].values)
    np.testing.assert_array_equal(cube["valid"].values, ~np.isnan(field()["t2m"].values))
    chips = list(gp.cubes(path).chip(16, edge="pad").read())
    assert len(chips) == 9
    assert not chips[-1]["valid"].values[:, 8:].any()


def test_arrays_that_are_no_grid() -> None:
    with pytest.raises(NotGeoreferenced, match=r"states no CRS; say it, gp.cubes\(..., crs='EPSG:32633'\)"):
        len(gp.cubes(field().rename(lat="y", lon="x")))
    with pytest.raises(GridError, match="y is not regular"):
        len(gp.cubes(field().isel(lat=[0, 1, 5])))
    with pytest.raises(GridError, match="have no y and x"):
        len(gp.cubes(field().rename(lat="row")))


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_reprojected_arrays_do_not_depend_on_the_cut(resampling: str) -> None:
    grid = GeoBox.from_bbox((730_000, 4_570_000, 745_000, 4_585_000), "EPSG:32614", resolution=500)
    pipe = gp.cubes(field()).reproject(grid, resampling=resampling)
    whole = only(pipe).load()
    np.testing.assert_array_equal(np.isnan(whole["t2m"].values), ~whole["valid"].values)
    assert whole["valid"].values.any()
    for chip in pipe.chip(11, edge="pad", coverage="any").read(threads=2):
        part = whole.reindex(y=chip["y"], x=chip["x"])
        np.testing.assert_array_equal(chip["t2m"].values, part["t2m"].values)


# rasterio.warp.reproject, which odc-geo calls, warns of the arrays it wraps.
@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_dask_arrays_stay_on_dask() -> None:
    pipe = gp.cubes(field().chunk({"lat": 16, "lon": 16}))
    assert only(pipe)["valid"].chunks
    grid = GeoBox.from_bbox((730_000, 4_570_000, 745_000, 4_585_000), "EPSG:32614", resolution=500)
    warped = only(pipe.reproject(grid))
    assert warped["t2m"].chunks
    exact = only(gp.cubes(field()).reproject(grid)).load()
    same = warped["t2m"].values == exact["t2m"].values
    assert (same | np.isnan(exact["t2m"].values)).mean() > 0.99


def test_a_chip_is_the_dataset_that_xarray_makes_of_its_parts(land: Synthetic) -> None:
    chips = gp.items(land.items).stack(["red", "scl"], resolution=20, crs="EPSG:32614").chip(32, time=1, coverage="any")
    chip = next(iter(chips.read()))
    again = xr.Dataset(chip.data_vars, chip.coords)
    xr.testing.assert_identical(chip, again)
    assert chip.sizes == again.sizes
    assert {*chip.coords} == {*again.coords}
    assert all(index.equals(again.xindexes[name]) for name, index in chip.xindexes.items())
    assert {*chip.xindexes} == {*again.xindexes} == {"time", "y", "x"}


def test_attributes_of_a_chip_are_its_own(land: Synthetic) -> None:
    stack = gp.items(land.items).stack(["red"], resolution=20, crs="EPSG:32614")
    chips = stack.chip(32, time=1, coverage="any").take(2).read()
    for chip in chips:
        for name in chip.variables:
            assert "mine" not in chip[name].attrs
            chip[name].attrs["mine"] = True
    whole = only(stack)
    assert all("mine" not in whole[name].attrs for name in whole.variables)
    assert all("mine" not in chip[name].attrs for chip in chips for name in chip.variables)


@pytest.mark.parametrize("edge", ["pad", "shift"])
def test_coordinates_of_a_chip_are_those_of_the_cube(land: Synthetic, edge: Any) -> None:
    stack = gp.items(land.items).stack(["red"], resolution=20, crs="EPSG:32614")
    whole = only(stack)
    step = float(whole["y"][0] - whole["y"][1])
    for chip in stack.chip(80, margin=4, time=1, edge=edge, coverage="any").read():
        for axis in ("y", "x"):
            at, all_of_them = chip[axis].values, whole[axis].values
            within = (at >= all_of_them.min()) & (at <= all_of_them.max())
            assert within.any()
            assert np.isin(at[within], all_of_them).all()  # bit for bit
            np.testing.assert_allclose(np.abs(np.diff(chip[axis].values)), step)
        assert chip["time"].values in whole["time"].values


def test_arrays_with_dates_and_bands_are_read(tmp_path: Path) -> None:
    values = np.arange(2 * 3 * 8 * 10, dtype="float32").reshape(2, 3, 8, 10)
    days = np.array(["2024-05-01", "2024-06-01"], "datetime64[ns]")
    array = xr.DataArray(values, {"time": days, "y": 7.5 - np.arange(8), "x": np.arange(10) + 0.5},
                         ("time", "band", "y", "x"), "embedding")  # fmt: skip
    (chip,) = gp.cubes(array, crs="EPSG:32633").chip((8, 10)).read()
    assert chip["embedding"].dims == ("time", "band", "y", "x")
    np.testing.assert_array_equal(chip["embedding"], values)


def test_a_variable_like_another_is_what_xarray_copies() -> None:
    chip = xr.Dataset(
        {"red": (("y", "x"), np.ones((2, 3), "uint16"), {"nodata": 0})}, {"x": [1.0, 2.0, 3.0], "chip": ((), 4)}
    )
    chip["red"].encoding["dtype"] = "uint16"
    for variable in chip.variables.values():
        made, other = like(variable), like(variable, variable.data * 2)
        xr.testing.assert_identical(made, variable.copy(deep=False))
        xr.testing.assert_identical(other, variable.copy(deep=False, data=variable.data * 2))
        assert type(made) is type(variable)
        assert made.encoding == variable.encoding
        made.attrs["mine"] = made.encoding["mine"] = 1
        assert "mine" not in {*variable.attrs, *variable.encoding, *other.attrs}
        slots = {slot for kind in type(variable).__mro__ for slot in getattr(kind, "__slots__", ())}
        assert all(hasattr(other, slot) for slot in slots)  # another version of xarray may have more of them
