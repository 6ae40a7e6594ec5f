"""odc-stac: ``odc.stac.load`` for each chip, on the chip's own GeoBox."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import odc.stac
import pystac
import shapely
from odc.geo.geobox import GeoBox

from benchmarks.jobs import CHIP, Job
from benchmarks.peers import Batch, Sample, collated, on_threads


def batches(job: Job, positions: Sequence[int], threads: int) -> Iterator[Batch]:
    """Read chips of a job: chips side by side, each by one thread; a chip of many dates by a pool of its own."""
    near = _Near(job.items)
    pool = threads if job.dates is None else None

    def read(position: int) -> Sample:
        cube, row, col = job.place(position)
        place = job.grids[cube][row : row + CHIP, col : col + CHIP]
        crs = str(place.crs) if len(job.grids) > 1 else None
        images = odc.stac.load(
            near(place, crs), job.bands, geobox=place, groupby="time", resampling=job.resampling, pool=pool
        )
        sample = {"image": np.stack([images[band].values for band in job.bands], axis=1)}
        if job.label is not None:
            label = odc.stac.load([job.label], ["crop"], geobox=place, resampling="nearest")
            sample["label"] = label["crop"].values[0]
        return sample

    if pool is None:
        yield from on_threads(read, positions, threads, batch=job.batch)
    else:
        for position in positions:
            yield collated([read(position)])


class _Near:
    """Items by place: fewer items for ``load`` to look at."""

    def __init__(self, items: Sequence[pystac.Item]) -> None:
        self._items = items
        self._tree = shapely.STRtree([shapely.box(*(item.bbox or ())) for item in items])

    def __call__(self, place: GeoBox, crs: str | None) -> list[pystac.Item]:
        """Give the items that touch a place; of one zone where the grids are by zone."""
        found = [self._items[i] for i in sorted(self._tree.query(place.geographic_extent.geom, "intersects"))]
        own = [item for item in found if crs is None or item.properties["proj:code"] == crs]
        return own or [item for item in self._items if crs is None or item.properties["proj:code"] == crs][:1]
