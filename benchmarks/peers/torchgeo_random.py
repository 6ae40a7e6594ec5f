"""TorchGeo 0.8: raster datasets of images and labels, intersected; its random sampler and two DataLoader workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyproj
import torch
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples  # type: ignore[import-not-found]  # it has its own place
from torchgeo.samplers import RandomGeoSampler  # type: ignore[import-not-found]

from benchmarks.jobs import CHIP, Job
from benchmarks.peers import Batch
from benchmarks.world import PIXEL


class Images(RasterDataset):  # type: ignore[misc]  # TorchGeo is not installed where types are checked
    """The scenes, a file for each band."""

    filename_glob = "LC08_*_B1.tif"
    filename_regex = r"LC08_\d{6}_(?P<date>\d{8})_(?P<band>B\d)\.tif"
    date_format = "%Y%m%d"
    is_image = True
    separate_files = True

    def __init__(self, *args: Any, bands: Sequence[str], **options: Any) -> None:
        self.all_bands = tuple(bands)
        super().__init__(*args, bands=bands, **options)


class Labels(RasterDataset):  # type: ignore[misc]  # TorchGeo is not installed where types are checked
    """The crop label."""

    filename_glob = "crop_*.tif"
    filename_regex = r"crop_(?P<date>\d{8})\.tif"
    date_format = "%Y%m%d"
    is_image = False


def batches(job: Job, positions: Sequence[int], threads: int) -> Iterator[Batch]:
    """Read as many chips as there are positions; which ones, its sampler draws."""
    if job.label is None:
        raise ValueError(f"torchgeo: the job {job.name!r} stacks dates, which TorchGeo 0.8 merges")
    shares = [len(part) for part in torch.arange(len(positions)).tensor_split(len(job.grids))]
    for grid, length in zip(job.grids, shares, strict=True):
        own = [item for item in job.items if len(job.grids) == 1 or item.properties["proj:code"] == str(grid.crs)]
        onto = {"crs": pyproj.CRS(str(grid.crs)), "res": PIXEL}
        files = [item.assets[band].href for item in own for band in job.bands[:1]]
        images = Images(files, bands=job.bands, **onto)
        both = images & Labels([job.label.assets["crop"].href], **onto)
        sampler = RandomGeoSampler(both, size=CHIP, length=length)
        # Its handles do not outlive a fork where they go over a network: then the workers start anew.
        start = "spawn" if any("://" in file for file in files) else None
        loader = DataLoader(
            both, job.batch, sampler=sampler, num_workers=threads, collate_fn=stack_samples,
            multiprocessing_context=start,
        )  # fmt: skip
        for batch in loader:
            yield {"image": batch["image"][:, None], "label": batch["mask"]}
