"""Masks of vectors: rasterio's over the whole area, whatever the chips; what wins, what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from label_making import UTM, cubes, frame, grid, mask, put_together, told
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from geopipes.errors import CatalogError, GridError, SourceError, StepError, UnknownBand
from geopipes.labels import masks
from geopipes.labels.features import longest_edge, pixels
from geopipes.labels.packing import Packed

halves = st.integers(-10, 130).map(lambda k: k / 2)
places = st.one_of(halves, st.floats(-5, 60))
points = st.lists(st.tuples(places, places), min_size=3, max_size=7)
polygons = st.lists(points.map(shapely.Polygon), min_size=1, max_size=6).map(
    lambda some: [*some, shapely.box(0, 0, 1, 1)]
)


@settings(max_examples=20)
@given(
    shapes=polygons,
    resolution=st.sampled_from([10.0, 30.0, 0.7, 1 / 3]),
    size=st.sampled_from([16, 23, 40]),
    side=st.sampled_from([7, 16, 512]),
    overlap=st.sampled_from(["first", "last"]),
)
def test_masks_are_those_of_rasterio_whatever_the_chips(
    shapes: list[Any], resolution: float, size: int, side: int, overlap: Any
) -> None:
    here = told(grid(resolution=resolution))
    features = frame(shapes, here, kind=range(1, len(shapes) + 1))
    pairs = list(zip(features.geometry, features.kind, strict=True))
    expected = rasterize(pairs[::-1] if overlap == "first" else pairs, here.shape, transform=here.affine, dtype="uint8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "SIDE", side)
        burnt = cubes(here).rasterize(features, name="label", column="kind", background=0, nodata=99, overlap=overlap)
        np.testing.assert_array_equal(mask(burnt), expected)
        np.testing.assert_array_equal(put_together(burnt, size, edge="shift"), expected)
        cut: dict[str, Any] = {"edge": "shift", "margin": 3, "overlap": 2, "coverage": "any"}
        np.testing.assert_array_equal(put_together(burnt, 20, **cut), expected)


@settings(max_examples=20)
@given(shapes=polygons, size=st.sampled_from([16, 23]), side=st.sampled_from([7, 16, 512]))
def test_pixels_that_are_touched_do_not_depend_on_the_chips(shapes: list[Any], size: int, side: int) -> None:
    """They are rasterio's, but for pixels of which a feature touches the very corner."""
    features = frame(shapes)
    expected = rasterize(features.geometry, grid().shape, transform=grid().affine, all_touched=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "SIDE", side)
        burnt = cubes(grid()).rasterize(features, name="label", background=0, all_touched=True)
        whole = mask(burnt).values
        np.testing.assert_array_equal(put_together(burnt, size, edge="shift"), whole)
    rows, cols = np.nonzero(whole != expected)
    inner = shapely.box(cols + 0.02, rows + 0.02, cols + 0.98, rows + 0.98)
    assert not shapely.intersects(inner, shapely.union_all(shapely.make_valid(shapes))).any()


@pytest.mark.parametrize("kind", ["lines", "points", "holes", "parts"])
def test_whatever_the_geometry_masks_are_those_of_rasterio(kind: str) -> None:
    rng = np.random.default_rng(0)
    spots = rng.uniform(0, 50, (12, 2, 2))
    discs: Any = shapely.buffer(shapely.points(spots[:, 0]), 6)
    shapes: Any = {
        "lines": shapely.linestrings(spots),
        "points": shapely.points(spots[:, 0]),
        "holes": shapely.difference(discs, shapely.buffer(shapely.points(spots[:, 0]), 3)),
        "parts": [shapely.GeometryCollection([shapely.MultiPolygon([*discs[:2]]), discs[7]]), *discs[3:5]],
    }[kind]
    features = frame(shapes, kind=np.arange(1, len(shapes) + 1))
    expected = rasterize(zip(features.geometry, features.kind, strict=True), grid().shape, transform=grid().affine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "SIDE", 16)
        burnt = cubes(grid()).rasterize(features, name="label", column="kind", background=0, overlap="last")
        np.testing.assert_array_equal(mask(burnt), expected)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", "EPSG:3857"])
def test_polygons_are_burnt_after_reprojection_and_cover_their_area(crs: str) -> None:
    here = grid((900, 1100))
    rng = np.random.default_rng(1)
    spots = rng.uniform([100, 100], [1000, 800], (40, 2))
    squares = shapely.box(*(spots - 60).T, *(spots + 60).T)
    features = frame(shapely.get_parts(shapely.union_all(squares)), here).to_crs(crs)
    longest = longest_edge(features.crs.to_wkt(), here)
    assert longest is not None
    dense = features.segmentize(longest).to_crs(UTM)
    expected = rasterize(dense.geometry, here.shape, transform=here.affine, dtype="uint8")
    burnt = cubes(here).rasterize(features, name="label", background=0)
    found = put_together(burnt, 128, edge="shift")
    np.testing.assert_array_equal(found, expected)
    assert found.sum() * 100 == pytest.approx(dense.area.sum(), rel=0.01)


def test_long_edges_bend_with_the_projection() -> None:
    """A parallel 2 degrees long is no straight line in UTM: 24 px of 10 m off, at its middle."""
    here = GeoBox((600, 16_000), Affine(10, 0, 420_000, 0, -10, 5_003_000), UTM)
    field = gpd.GeoDataFrame(geometry=[shapely.box(14, 44, 16, 45.15)], crs=4326)
    middle = mask(cubes(here).rasterize(field, name="label", background=0)).values[:, 8000]
    straight = rasterize(field.to_crs(UTM).geometry, here.shape, transform=here.affine)[:, 8000]
    true = gpd.GeoSeries(shapely.points(np.full(600, 15.0), 45.15), crs=4326).to_crs(UTM).y.iloc[0]
    edge = int(np.argmax(middle))
    assert abs(edge - (5_003_000 - true) / 10) <= 1
    assert abs(int(np.argmax(straight)) - edge) > 10


def test_classes_are_those_of_the_whole_file_not_of_a_chip() -> None:
    boxes = [shapely.box(x, 0, x + 8, 40) for x in (0, 8, 16, 24)]
    features = frame(boxes, crop=["wheat", "barley", "wheat", "maize"])
    burnt = cubes(grid()).rasterize(features, name="label", column="crop", background=0, nodata=2)
    label = mask(burnt)
    assert label.attrs["class_values"] == [1, 3, 4]  # 2 is taken
    assert label.attrs["class_names"] == ["barley", "maize", "wheat"]
    assert label.attrs["class_counts"] == [1, 1, 2]
    assert label.attrs["nodata"] == 2
    assert label.dtype == np.uint8
    assert [*label.values[0, 4:48:8]] == [4, 1, 4, 3, 0, 0]
    given: dict[str, int | None] = {"wheat": 5, "*": 300}
    label = mask(cubes(grid()).rasterize(features, name="label", column="crop", background=0, classes=given))
    assert (label.dtype, [*label.values[0, 4:40:8]]) == (np.dtype(np.uint16), [5, 300, 5, 300, 0])
    assert label.attrs["class_names"] == ["wheat", "other"]
    given = {"wheat": 1, "*": None}
    label = mask(cubes(grid()).rasterize(features, name="label", column="crop", background=255, classes=given))
    assert [*label.values[0, 4:40:8]] == [1, 255, 1, 255, 255]
    label = mask(
        cubes(grid()).rasterize(
            features, name="label", column="crop", background=0, classes=["maize", "wheat", "barley"]
        )
    )
    assert [*label.values[0, 4:40:8]] == [2, 3, 2, 1, 0]


def test_sparse_labels_are_no_class_outside() -> None:
    burnt = cubes(grid()).rasterize(
        frame([shapely.box(0, 0, 28, 40)], kind=[7]), name="label", column="kind", background=255, nodata=255
    )
    assert mask(burnt).attrs["nodata"] == 255
    shares = [float((chip["label"] == 7).mean()) for chip in burnt.chip(40).read()]
    assert shares == [0.7]


def test_what_wins_is_said() -> None:
    small, large = shapely.box(4, 4, 8, 8), shapely.box(0, 0, 20, 20)
    features = frame([small, large], kind=[1, 2], weight=[0.5, 0.1])
    for options, winner in (
        ({"overlap": "first"}, 1),
        ({"overlap": "last"}, 2),
        ({"overlap": "smallest"}, 1),
        ({"overlap": "largest"}, 2),
        ({"priority": "weight"}, 1),
    ):
        label = mask(cubes(grid()).rasterize(features, name="label", column="kind", background=0, **options))  # type: ignore[arg-type]
        assert label.values[5, 5] == winner, options
        assert label.values[1, 1] == 2
    undecided = cubes(grid()).rasterize(features, name="label", column="kind", background=0)
    with pytest.raises(SourceError, match=r"features \[0, 1\] of different values cover the pixel in row 4, column 4"):
        mask(undecided)
    touched = cubes(grid()).rasterize(features, name="label", column="kind", background=0, all_touched=True)
    with pytest.raises(SourceError, match=r"features \[0, 1\] of different values"):
        mask(touched)
    alike = frame([small, large], kind=[2, 2])
    assert mask(cubes(grid()).rasterize(alike, name="label", column="kind", background=0)).values[5, 5] == 2
    equal = frame([small, large], kind=[1, 2], weight=[1, 1])
    with pytest.raises(SourceError, match="say which wins"):
        mask(cubes(grid()).rasterize(equal, name="label", column="kind", background=0, priority="weight"))


def test_a_bow_tie_has_two_wings() -> None:
    tie = shapely.Polygon([(2, 2), (20, 20), (20, 2), (2, 20)])
    assert not tie.is_valid
    found = mask(cubes(grid()).rasterize(frame([tie]), name="label", background=0))
    wings = frame([shapely.make_valid(tie)])
    np.testing.assert_array_equal(found, rasterize(wings.geometry, grid().shape, transform=grid().affine))
    assert found.sum() > 100


def test_instances_keep_their_numbers_in_every_chip() -> None:
    boxes = [shapely.box(x, y, x + 9, y + 9) for x in range(0, 50, 10) for y in range(0, 40, 10)]
    burnt = cubes(grid()).rasterize(frame(boxes), name="label", background=0, instances=True)
    whole = mask(burnt)
    assert whole.dtype == np.int32
    assert [*np.unique(whole)] == [*range(21)]
    np.testing.assert_array_equal(put_together(burnt, 23, edge="shift"), whole)


def test_numbers_of_fields_are_burnt_as_they_are() -> None:
    features = frame([shapely.box(0, 0, 28, 40), shapely.box(28, 0, 56, 40)], t_ha=[7.25, 9.5])
    label = mask(cubes(grid()).rasterize(features, name="label", column="t_ha", background=np.nan, dtype="float32"))
    assert (label.dtype, *label.values[0, [0, 55]]) == (np.float32, 7.25, 9.5)
    many = frame([shapely.box(0, 0, 28, 40)] * 1200, number=np.arange(1200) + 5)
    label = mask(cubes(grid()).rasterize(many, name="label", column="number", background=0, overlap="last"))
    assert (label.dtype, label.values[0, 0]) == (np.dtype(np.int32), 1204)
    assert "class_values" not in label.attrs


def test_outside_the_grid_is_no_label() -> None:
    features = frame([shapely.box(-50, -50, 90, 90)])
    chips = cubes(grid()).rasterize(features, name="label", background=0).chip(64, edge="pad", coverage="any").read()
    with pytest.raises(SourceError, match="states no nodata and does not cover"):
        list(chips)
    burnt = cubes(grid()).rasterize(features, name="label", background=0, nodata=255)
    (chip,) = burnt.chip(64, edge="pad", coverage="any").read()
    assert (chip["label"].values[:40, :56] == 1).all()
    assert (chip["label"] == 255).sum() == 64 * 64 - 40 * 56


square = shapely.box(0, 0, 20, 20)


@pytest.mark.parametrize(
    ("features", "options", "error", "words"),
    [
        (frame([square], crop=["a"]), {"column": "crops"}, UnknownBand, r"no column 'crops'; did you mean 'crop'\?"),
        (frame([square]), {"column": "crop"}, UnknownBand, r"no column 'crop'; there are \[\]"),
        (
            frame([square], crop=["a"]),
            {"column": "crop", "classes": {"b": 1}},
            SourceError,
            r"do not name 'a' \(1 feat",
        ),
        (frame([square], crop=[None]), {"column": "crop"}, SourceError, "1 features have no value"),
        (frame([square], crop=[0]), {"column": "crop"}, SourceError, "0 is a value of the column, and background"),
        (frame([square], crop=[300]), {"column": "crop", "dtype": "uint8"}, SourceError, "too many classes for it"),
        (frame([square], crop=[0.5]), {"column": "crop", "dtype": "uint8"}, SourceError, "holds fractions"),
        (frame([square], crop=[3]), {"priority": "crop", "overlap": "best"}, SourceError, "use one of error, first"),
        (frame([square], crop=["x"]), {"priority": "crop"}, SourceError, "needed is a number for each feature"),
        (frame([square, None]), {}, SourceError, r"1 of 2 features have no geometry, or an empty one \(ids \[1\]"),
        (frame([square, shapely.Polygon()]), {}, SourceError, r"or an empty one \(ids \[1\]"),
        (frame([square])[:0], {}, CatalogError, "has no features"),
        (frame([square]).set_crs(None, allow_override=True), {}, CatalogError, "has no CRS"),
        (frame([square]).set_crs(4326, allow_override=True), {}, SourceError, "EPSG:4326, degrees, but its bounds are"),
        (frame([square]).translate(1e6).to_frame(), {}, GridError, "no feature of .* touches the grid"),
        (frame([square], crop=[3]), {"instances": True, "column": "crop"}, SourceError, "burns ids"),
        (frame([square]), {"background": -1, "dtype": "uint8"}, SourceError, "background is -1"),
        (frame([square]), {"name": "image"}, SourceError, "has a variable"),
        (frame([square]), {"name": "valid"}, SourceError, "cannot be named 'valid'"),
        (frame([square]), {"dtype": "bool"}, SourceError, "needed is a dtype of whole numbers"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str | dict) else "",
)
def test_what_cannot_be_a_label_is_refused_when_planned(
    features: gpd.GeoDataFrame, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    burnt = cubes(grid()).rasterize(features, **{"name": "label", "background": 0, **options})
    with pytest.raises(error, match=words):
        len(burnt)


def test_vectors_are_not_joined_but_rasterized() -> None:
    with pytest.raises(StepError, match=r"write .rasterize\(frame"):
        cubes(grid()).join(frame([square]))
    text = str(cubes(grid()).rasterize("fields.gpkg", name="crop", background=0))
    assert ".rasterize('fields.gpkg', name='crop', background=0)" in text


def test_pickled_cubes_give_the_same() -> None:
    burnt = cubes(grid()).rasterize(frame([square], crop=["a"]), name="label", column="crop", background=0)
    plan = burnt.chip(40)
    before = next(iter(plan.read()))
    again = pickle.loads(pickle.dumps(plan))
    xr.testing.assert_identical(next(iter(again.read())), before)
    assert again[0]["label"].attrs["class_names"] == ["a"]


@given(
    boxes=st.lists(st.tuples(*[st.floats(-100, 100)] * 2, *[st.floats(0, 30)] * 2), min_size=1, max_size=300),
    window=st.tuples(*[st.floats(-120, 120)] * 2, *[st.floats(0, 100)] * 2),
)
def test_the_index_finds_what_touches_a_window(boxes: list[Any], window: Any) -> None:
    array = np.array(boxes)
    array[:, 2:] += array[:, :2]
    left, bottom, width, height = window
    near = (array[:, 0] <= left + width) & (array[:, 2] >= left)
    near &= (array[:, 1] <= bottom + height) & (array[:, 3] >= bottom)
    found = Packed.of(array).touching((left, bottom, left + width, bottom + height))
    np.testing.assert_array_equal(found, np.flatnonzero(near))


def test_a_large_polygon_is_put_on_the_pixels_once(monkeypatch: pytest.MonkeyPatch) -> None:
    coast = shapely.Point(28, 20).buffer(19, quad_segs=4_000)
    features = frame([coast, shapely.box(0, 0, 3, 3)]).to_crs(4326)
    monkeypatch.setattr(masks, "SIDE", 8)
    moved: list[int] = []

    def counted(shapes: Any, *args: Any) -> Any:
        moved.append(int(shapely.get_num_coordinates(shapes).sum()))
        return pixels(shapes, *args)

    monkeypatch.setattr(masks, "pixels", counted)
    found = mask(cubes(grid()).rasterize(features, name="label", background=0))
    assert len([points for points in moved if points > 10_000]) == 1
    expected = rasterize(features.to_crs(UTM).geometry, grid().shape, transform=grid().affine)
    assert (found.values != expected).sum() == 0
