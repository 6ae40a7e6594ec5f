"""The same chain against Microsoft's Planetary Computer, whose files must be signed. It needs the internet.

Hrefs are signed when a file is opened, never before: signatures expire. The label is a search, too.
"""

from __future__ import annotations

from typing import Any

import planetary_computer

import geopipes as gp

URL = "https://planetarycomputer.microsoft.com/api/stac/v1"
BBOX = (8.4, 49.9, 9.0, 50.3)  # west, south, east, north: around Frankfurt
BANDS = {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08"}  # our names, and the assets' keys


def chain() -> gp.Pipe[Any]:
    """Build the chain; nothing is searched or read until it is iterated."""
    cover = gp.search(
        URL, collections=["esa-worldcover"], bbox=BBOX, datetime="2021", modifier=planetary_computer.sign_inplace
    )
    return (
        gp.search(
            URL,
            collections=["sentinel-2-l2a"],
            bbox=BBOX,
            datetime="2024-06/2024-07",
            query={"eo:cloud_cover": {"lt": 20}},
            modifier=planetary_computer.sign_inplace,
        )
        # The items state no nodata, and no offset but by their processing baseline.
        .stack({**BANDS, "scl": "SCL"}, resolution=10, groupby="solar_day", nodata=0, rescale=True)
        .join(cover, bands={"cover": "map"})
        .chip(256)
        .shuffle(seed=0)
        .take(8)
        .read(threads=16)
        .mask_clouds("scl")
        .spectral_index("NDVI")
        .tensor(image=[*BANDS, "NDVI"], label="cover", fill=0)
        .batch(4)
    )


def main() -> None:
    batches = chain()
    for batch in batches:
        print({name: tuple(value.shape) for name, value in batch.items() if hasattr(value, "shape")})
    print(batches)


if __name__ == "__main__":
    main()
