"""Maps in files: as GDAL and xarray read them, with all that was asked for, or not at all."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from affine import Affine
from map_making import CLASSES, Smooth, identity, raster, samples
from rasterio.enums import ColorInterp

import geopipes as gp
from geopipes.errors import MapError
from geopipes.maps import stores
from geopipes.testing import Synthetic

NAMES = {0: "background", 1: "field", 2: "wood & water"}
MAKING = Path(__file__).with_name("map_making.py")
COLORS = {0: (0, 0, 0, 0), 1: "#d62728", 2: (0, 128, 0)}


class Failing(Smooth):
    """Fails once it has been asked often enough."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = [after]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise RuntimeError("out of memory")
        return super().forward(image)

    def __repr__(self) -> str:  # it stands for the same model however long it lasts
        return "Failing()"


def bytes_of(path: Path) -> dict[str, bytes]:
    """Give the bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


def test_floats_as_a_cog(tmp_path: Path) -> None:
    source = raster((1100, 1300), holes=0.01)
    written = samples(source, 256, edge="pad").predict(identity).stitch().write(tmp_path / "map.tif")
    assert os.listdir(tmp_path) == ["map.tif"]
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.count, file.dtypes[0], file.crs.to_epsg()) == (1, "float32", 32633)
        assert file.descriptions == ("prediction",)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.compression.value, file.profile["blockxsize"]) == ("DEFLATE", 512)
        assert np.isnan(file.nodata)
        np.testing.assert_array_equal(file.read(1), source["b0"])
        assert file.overviews(1) == [2, 4]
        half = file.read(1, out_shape=(550, 650))
        np.testing.assert_allclose(half, source["b0"].coarsen(y=2, x=2).mean(), rtol=1e-4, atol=1e-4)
    again = written.stack(["prediction"]).chip(100, edge="pad").read()
    np.testing.assert_array_equal(next(iter(again))["prediction"][0], source["b0"][:100, :100])


def test_classes_with_names_and_colors(tmp_path: Path) -> None:
    chips = samples(raster((600, 700)), 128, overlap=32, edge="pad").predict(Smooth())
    map = chips.stitch(activation="softmax", classes=True)
    map.write(tmp_path / "map.tif", classes=NAMES, colors=COLORS, compress="zstd")  # type: ignore[arg-type]
    with rasterio.open(tmp_path / "map.tif") as file:
        values = file.read(1)
        np.testing.assert_array_equal(values, map.load()["prediction"])
        assert (file.nodata, file.dtypes[0], file.compression.value) == (255, "uint8", "ZSTD")
        colors = file.colormap(1)
        assert [colors[1], colors[2]] == [(214, 39, 40, 255), (0, 128, 0, 255)]
        assert json.loads(file.tags(1)["CLASSES"]) == {str(value): name for value, name in NAMES.items()}
        assert set(np.unique(file.read(1, out_shape=(300, 350)))) <= {*range(CLASSES), 255}
    assert os.listdir(tmp_path) == ["map.tif"]  # and no file beside it
    map.write(tmp_path / "plain.tif", compress=None, overviews=False)
    with rasterio.open(tmp_path / "plain.tif") as file:
        assert file.overviews(1) == []
        assert file.compression is None
        np.testing.assert_array_equal(file.read(1), values)


def test_names_and_colors_are_of_classes_and_not_of_their_probability(tmp_path: Path) -> None:
    chips = samples(raster((60, 50)), 32, edge="pad").predict(Smooth())
    map = chips.stitch(activation="softmax", classes=True, probability=True)
    map.write(tmp_path / "{name}.tif", classes=NAMES, colors=COLORS)  # type: ignore[arg-type]
    with rasterio.open(tmp_path / "prediction.tif") as file:
        assert "CLASSES" in file.tags(1)
        assert file.colorinterp == (ColorInterp.palette,)
    with rasterio.open(tmp_path / "prediction_probability.tif") as file:
        assert "CLASSES" not in file.tags(1)
        assert (file.dtypes, file.colorinterp) == (("float32",), (ColorInterp.gray,))


def test_several_bands(tmp_path: Path) -> None:
    source = raster((60, 50), bands=3, dtype="int16")
    written = samples(source, 16, edge="pad").predict(identity).stitch().write(tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.descriptions == ("prediction_0", "prediction_1", "prediction_2")
        valid = source["valid"].values
        for band in range(3):
            np.testing.assert_array_equal(file.read(band + 1)[valid], source[f"b{band}"].values[valid])
            assert (file.read(band + 1)[~valid] == -32768).all()
    assert [*written.stack()._value.get()[0].data_vars][:3] == ["prediction_0", "prediction_1", "prediction_2"]


@pytest.mark.parametrize("bands", [1, 2])
def test_zarr_in_shards(tmp_path: Path, bands: int) -> None:
    import zarr

    source = raster((700, 600), bands=bands, dates=2)
    map = samples(source, 128, edge="pad", time=1).predict(identity).stitch()
    written = map.write(tmp_path / "map.zarr")
    assert os.listdir(tmp_path) == ["map.zarr"]
    array = zarr.open_group(tmp_path / "map.zarr", mode="r")["prediction"]
    assert isinstance(array, zarr.Array)
    assert (array.metadata.zarr_format, array.shards[-2:], array.chunks[-2:]) == (3, (768, 768), (256, 256))  # type: ignore[index]
    whole = map.load()
    with xr.open_zarr(tmp_path / "map.zarr", decode_coords="all") as found:
        xr.testing.assert_equal(found["prediction"].load(), whole["prediction"])
        assert found.rio.crs.to_epsg() == 32633
    chip = written.chip(64)[0]
    np.testing.assert_array_equal(chip["prediction"], whole["prediction"][..., :64, :64])
    np.testing.assert_array_equal(chip["valid"], source["valid"][:, :64, :64])


def test_classes_in_zarr(tmp_path: Path) -> None:
    map = samples(raster((60, 60)), 16).predict(Smooth()).stitch(activation="softmax", classes=True, probability=True)
    written = map.write(tmp_path / "map.zarr", classes=NAMES)
    dataset = written._value.get()[0].load()
    xr.testing.assert_equal(dataset["prediction"], map.load()["prediction"])
    assert dataset["prediction"].attrs["flag_meanings"] == "background field wood_&_water"
    np.testing.assert_array_equal(dataset["prediction_probability"], map.load()["prediction_probability"])


def test_a_file_for_each_zone_date_and_answer(land: Synthetic, tmp_path: Path) -> None:
    plan = gp.items(land.items).stack(["red"], crs="utm", resolution=10, groupby="solar_day")
    chips = plan.chip(64, coverage="any", edge="shift", time=1).read().tensor(image=["red"], fill=0, time_axis=False,
                                                                             dtype=torch.float32)  # fmt: skip
    map = chips.predict(Smooth()).stitch(activation="softmax", classes=True, probability=True, blend="crop")
    wanted = "map_{crs}_{time}_{name}.tif"
    for path, needed in (("map.tif", wanted), ("map_{crs}.tif", wanted)):
        with pytest.raises(
            MapError, match="has 2 grids, 2 dates, 2 variables, and each is a file of its own"
        ) as caught:
            map.write(tmp_path / path)
        assert needed in str(caught.value)
    written = map.write(tmp_path / wanted)
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 8
    assert {name.split("_")[1] for name in names} == {"EPSG32614", "EPSG32615"}
    items = list(written)
    assert {item.datetime.date().isoformat() for item in items if item.datetime} == {"2024-05-03", "2024-06-07"}
    assert len(items) == 8
    map.write(tmp_path / "map_{crs}.zarr")
    assert {"map_EPSG32614.zarr", "map_EPSG32615.zarr"} < {*os.listdir(tmp_path)}


def test_a_map_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    chips = samples(raster((64, 64)), 16)
    chips.predict(Failing(99)).stitch().write(tmp_path / "map.tif")
    before = (tmp_path / "map.tif").stat().st_mtime_ns
    chips.predict(Failing(0)).stitch().write(tmp_path / "map.tif")  # asked about nothing
    assert (tmp_path / "map.tif").stat().st_mtime_ns == before
    other = chips.predict(Smooth(seed=1)).stitch()
    with pytest.raises(MapError, match=r"is there, and holds something else than this map.*overwrite=True"):
        other.write(tmp_path / "map.tif")
    other.write(tmp_path / "map.tif", overwrite=True)
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(), other.load()["prediction"])
    chips.predict(identity).stitch().write(tmp_path / "map.zarr")
    other.write(tmp_path / "map.zarr", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "map.zarr"]


@pytest.mark.parametrize("name", ["map.tif", "map.zarr"])
@pytest.mark.parametrize("batched", [False, True])
def test_a_run_goes_on_where_another_was_ended(tmp_path: Path, name: str, batched: bool) -> None:
    source = raster((200, 100))

    def stitched(model: Any) -> Any:
        chips = samples(source, 16, overlap=5, edge="pad")
        return (chips.batch(7) if batched else chips).predict(model, batch=None if batched else 1).stitch()

    stitched(Failing(10**6)).write(tmp_path / "whole" / ".." / f"whole_{name}")
    calls = 162 // 7 if batched else 162
    with pytest.raises(RuntimeError, match="out of memory"):
        stitched(Failing(calls - 6)).write(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == sorted([f"whole_{name}", f"{name}.partial"])
    left = Failing(6 + 2 * 18)
    stitched(left).write(tmp_path / name)  # six calls, a row of chips that reaches in, and the batches it came in
    assert sorted(os.listdir(tmp_path)) == sorted([f"whole_{name}", name])
    assert bytes_of(tmp_path / name) == bytes_of(tmp_path / f"whole_{name}")


def test_what_was_begun_with_another_chain_is_refused(tmp_path: Path) -> None:
    chips = samples(raster((200, 100)), 16, overlap=5, edge="pad")
    with pytest.raises(RuntimeError):
        chips.predict(Failing(80), batch=1).stitch().write(tmp_path / "map.tif")
    with pytest.raises(MapError) as caught:
        chips.predict(Smooth(), batch=1).stitch(blend="crop").write(tmp_path / "map.tif")
    message = str(caught.value)
    assert "map.tif.partial holds rows of another map" in message
    assert 'stitch blend "hann" -> "crop"' in message
    assert "remove the folder to begin anew" in message


def test_nothing_is_left_behind_of_a_run_that_made_nothing(tmp_path: Path) -> None:
    chips = samples(raster((64, 64)), 16)
    with pytest.raises(RuntimeError):
        chips.predict(Failing(0)).stitch().write(tmp_path / "map.tif")
    assert os.listdir(tmp_path) == []
    for name in ("map.tif", "map.zarr"):
        (tmp_path / f"{name}.partial").mkdir()  # of one that was ended before it could note anything
        (tmp_path / f"{name}.partial" / "0-prediction.raw").write_bytes(b"x" * 10**6)
        chips.predict(Smooth()).stitch(nodata=float("nan")).write(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "map.zarr"]


def test_a_model_that_cannot_be_told_from_another_begins_anew(tmp_path: Path) -> None:
    lock = threading.Lock()
    left = [50]

    def model(image: torch.Tensor) -> torch.Tensor:
        with lock:
            left[0] -= 1
            if left[0] == 0:
                raise RuntimeError("ended")
            return image

    chips = samples(raster((200, 100)), 16).predict(model, batch=1)
    with pytest.raises(RuntimeError, match="ended"):
        chips.stitch().write(tmp_path / "map.tif")
    assert os.listdir(tmp_path) == []
    chips.stitch().write(tmp_path / "map.tif")
    assert os.listdir(tmp_path) == ["map.tif"]


def test_two_runs_at_once_are_one_too_many(tmp_path: Path) -> None:
    map = samples(raster((64, 64)), 16).predict(identity).stitch()
    (tmp_path / "map.tif.partial").mkdir()
    with (
        stores.locked(tmp_path / "map.tif.partial" / "lock"),
        pytest.raises(MapError, match=r"another run is writing this map, and holds .*lock; wait for it"),
    ):
        map.write(tmp_path / "map.tif")
    assert os.listdir(tmp_path) == ["map.tif.partial"]
    map.write(tmp_path / "map.tif")


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """Give a small file system of its own: where this process may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting needs rights: {mounted.stderr.decode().strip()}")
    yield folder
    gc.collect()  # an error's traceback may hold a file
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_without_room_is_found_beforehand(tmpfs: Path) -> None:
    map = samples(raster((1000, 1000)), 100).predict(identity).stitch()
    with pytest.raises(MapError, match=r"has 2 MB free, and 4 MB are needed for the pixels of the map.*make room"):
        map.write(tmpfs / "map.tif")
    assert os.listdir(tmpfs) == []


@pytest.mark.parametrize("name", ["map.tif", "map.zarr"])
def test_a_disk_that_fills_up_loses_nothing(tmpfs: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for the rows of noise, and not for the file that is made of them."""
    map = samples(raster((500, 500)), 100).predict(identity).stitch()
    ballast = tmpfs / "ballast"
    ballast.write_bytes(b"x" * 950_000 if name == "map.tif" else b"x" * 970_000)
    monkeypatch.setattr(stores, "ROOM", 0)
    with pytest.raises(MapError, match=f"{name} could not be|No space left"):
        map.write(tmpfs / name)
    assert sorted(os.listdir(tmpfs)) == ["ballast", f"{name}.partial"]
    ballast.unlink()
    map.write(tmpfs / name)
    assert os.listdir(tmpfs) == [name]


FILLED = """
import resource, signal, sys
from map_making import identity, raster, samples
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
samples(raster((500, 500)), 100).predict(identity).stitch().write(sys.argv[1])
"""


def test_a_file_that_may_not_grow_is_an_error_that_says_so(tmp_path: Path) -> None:
    """A limit on the size of files, which needs no rights."""
    path = os.pathsep.join([str(MAKING.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", FILLED, tmp_path / "map.tif"], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert "MapError: write:" in done.stderr
    assert "could not be written: File too large" in done.stderr
    assert os.listdir(tmp_path) == ["map.tif.partial"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere/map.tif", "there is no folder .*nowhere; make it"),
        ("/proc/map.tif", "could not be written"),
        ("map.png", "the suffix says what is written: .tif or .zarr"),
        ("map_{zone}.tif", r"\['zone'\] in braces; there are crs, time, name"),
    ],
)
def test_targets_that_cannot_be_written(tmp_path: Path, path: str, message: str) -> None:
    map = samples(raster((32, 32)), 16).predict(identity).stitch()
    with pytest.raises(MapError, match=message):
        map.write(tmp_path / path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress": "zip"}, "compress='zip'.: use one of 'deflate'"),
        ({"colors": {1: "#ff0000"}}, "colors are of uint8 or"),
    ],
)
def test_what_a_file_cannot_hold_is_said_at_once(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    asked: list[int] = []

    def model(image: torch.Tensor) -> torch.Tensor:
        asked.append(len(image))
        return image

    map = samples(raster((640, 640)), 16).predict(model, batch=16).stitch()
    with pytest.raises(MapError, match=message):
        map.write(tmp_path / "map.tif", **options)
    assert sum(asked) < 1600 / 4
    assert os.listdir(tmp_path) == []


def test_grids_of_one_crs_have_numbers(tmp_path: Path) -> None:
    sources = [raster((32, 32), seed=0), raster((32, 32), seed=1, origin=(310_000.0, 5_000_000.0))]
    samples(sources, 16).predict(identity).stitch().write(tmp_path / "map_{crs}.tif")
    assert sorted(os.listdir(tmp_path)) == ["map_EPSG32633-1.tif", "map_EPSG32633-2.tif"]
    for number, source in enumerate(sources, 1):
        with rasterio.open(tmp_path / f"map_EPSG32633-{number}.tif") as file:
            np.testing.assert_array_equal(file.read(1), source["b0"])


def test_what_is_no_color_is_refused(tmp_path: Path) -> None:
    map = samples(raster((32, 32)), 16).predict(identity).stitch()
    for color in ("red", (1, 2), (0, 0, 256), "#12345g"):
        with pytest.raises(MapError, match="is no colour; write '#rrggbb'"):
            map.write(tmp_path / "map.tif", colors={1: color})


def test_a_bar_counts_chips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples(raster((64, 64)), 16).predict(identity).stitch().write(tmp_path / "map.tif", progress=True)
    assert "map.tif [##############################] 100% 16/16" in capsys.readouterr().err


@contextmanager
def begun(folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """Begin a run in another process, and wait until it is under way; afterwards until it has ended."""
    with subprocess.Popen([sys.executable, MAKING, folder, name], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() in ("begun\n", "done\n")  # what is left may need no model
        yield run


def test_killed_at_ten_moments_and_resumed_it_is_the_same(tmp_path: Path) -> None:
    source = raster((300, 200), holes=0.02)
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "crs": "EPSG:32633", "nodata": np.nan}
    transform = Affine(10.0, 0.0, 300_000.0, 0.0, -10.0, 5_000_000.0)
    path = tmp_path / "raster.tif"
    with rasterio.open(path, "w", width=200, height=300, transform=transform, tiled=True, **profile) as file:
        file.write(source["b0"].values, 1)
    with begun(tmp_path, "whole.tif") as run:
        started = time.monotonic()
        assert run.wait() == 0
        lasting = time.monotonic() - started
    moments, kept = random.Random(0), set()
    for _ in range(10):
        if (tmp_path / "map.tif").exists():  # the run was whole before it was to be ended
            assert bytes_of(tmp_path / "map.tif") == bytes_of(tmp_path / "whole.tif")
            (tmp_path / "map.tif").unlink()
        with begun(tmp_path, "map.tif") as run:
            time.sleep(moments.uniform(0, lasting))
            run.send_signal(signal.SIGKILL)
        done = tmp_path / "map.tif.partial" / "done.json"
        kept.add(done.exists() and json.loads(done.read_text())["row"])
    with begun(tmp_path, "map.tif") as run:
        assert run.wait() == 0
    assert len(kept) > 2  # ended at different moments
    assert sorted(os.listdir(tmp_path)) == ["map.tif", "raster.tif", "whole.tif"]
    assert bytes_of(tmp_path / "map.tif") == bytes_of(tmp_path / "whole.tif")
