"""The README's chain: Sentinel-2 from Earth Search, with ESA WorldCover as the label. It needs the internet.

The files lie on AWS S3 and are read over https, without an account. The label's file is the tile of 3 x 3 degrees that
holds the region.
"""

from __future__ import annotations

from typing import Any

import geopipes as gp

URL = "https://earth-search.aws.element84.com/v1"
BBOX = (8.4, 49.9, 9.0, 50.3)  # west, south, east, north: around Frankfurt
COVER = (
    "https://esa-worldcover.s3.eu-central-1.amazonaws.com/v200/2021/map/ESA_WorldCover_10m_2021_v200_N48E006_Map.tif"
)
BANDS = ["red", "green", "blue", "nir"]


def chain() -> gp.Pipe[Any]:
    """Build the chain; nothing is searched or read until it is iterated."""
    return (
        gp.search(
            URL,
            collections=["sentinel-2-l2a"],
            bbox=BBOX,
            datetime="2024-06/2024-07",
            query={"eo:cloud_cover": {"lt": 20}},
        )
        .stack([*BANDS, "scl"], resolution=10, groupby="solar_day", rescale="flag")  # of its items the flag is right
        .join(gp.rasters(COVER), name="cover")
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
