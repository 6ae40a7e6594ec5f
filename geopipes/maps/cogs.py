"""A map's raw rows to a Cloud-optimized GeoTIFF, by GDAL's driver."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError, RasterioIOError

from geopipes import grids
from geopipes.errors import MapError
from geopipes.maps.layers import Outcome

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

CACHE = 64
"""Megabytes of blocks that GDAL keeps: it would take a twentieth of all memory, and needs none of it again."""

BLOCK = 512
"""Pixels a side of a tile."""

MARK = "GEOPIPES_MAP"
"""The item of a file's metadata that says what decides its pixels."""

GDAL = {
    "uint8": "Byte", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "uint64": "UInt64", "int64": "Int64", "float32": "Float32", "float64": "Float64",
}  # fmt: skip
"""GDAL's names of dtypes."""

CODECS = ("deflate", "zstd", "lzw")
"""Compression of GeoTIFFs that changes no pixel."""

Color = str | tuple[int, ...]


@dataclass(frozen=True)
class Look:
    """How a map is kept in a file; none of it changes a pixel.

    Attributes
    ----------
    compress : one of `CODECS`; None for none
    overviews : whether there are smaller copies: the most frequent class, the mean of floats
    classes : names of values
    colors : of values, ``"#rrggbb"`` or (red, green, blue) or with alpha, each 0 to 255
    """

    compress: str | None = "deflate"
    overviews: bool = True
    classes: Mapping[int, str] | None = None
    colors: Mapping[int, Color] | None = None

    def __post_init__(self) -> None:
        if self.compress is not None and self.compress not in CODECS:
            raise MapError(f"write(compress={self.compress!r}): use one of {', '.join(map(repr, CODECS))}, or None")
        for color in (self.colors or {}).values():
            rgba(color)


def write_cog(path: Path, raw: Path, outcome: Outcome, geobox: GeoBox, look: Look, mark: str) -> None:
    """Write a GeoTIFF beside its raw pixels.

    Parameters
    ----------
    path : in the folder of ``raw``; afterwards it is whole, or an error was raised
    raw : (y, bands, x), as `geopipes.maps.stores` keeps them
    outcome, geobox : what they are, and where
    look : how it is kept
    mark : what decides its pixels

    Raises
    ------
    MapError
        for what GDAL says
    """
    if outcome.probability:
        look = replace(look, classes=None, colors=None)  # these are of the classes beside it
    if look.colors and outcome.dtype not in ("uint8", "uint16"):
        raise MapError(f"write(colors=...): {outcome.name!r} is {outcome.dtype}, and colors are of uint8 or uint16; "
                       "write stitch(classes=True)")  # fmt: skip
    vrt = raw.with_suffix(".vrt")
    vrt.write_text(_vrt(raw, outcome, geobox, look, mark))
    options = {
        "COMPRESS": (look.compress or "none").upper(),
        "PREDICTOR": "NO" if outcome.classes or not look.compress else "YES",
        "OVERVIEWS": "AUTO" if look.overviews else "NONE",
        "RESAMPLING": "MODE" if outcome.classes else "AVERAGE" if np.dtype(outcome.dtype).kind == "f" else "NEAREST",
        "BLOCKSIZE": BLOCK,
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": os.cpu_count() or 1,
    }
    try:
        with rasterio.Env(
            GDAL_PAM_ENABLED=False, GDAL_CACHEMAX=CACHE,
            GDAL_VRT_RAWRASTERBAND_ALLOWED_SOURCE="SIBLING_OR_CHILD_OF_VRT_PATH",
        ):  # fmt: skip
            rasterio.shutil.copy(str(vrt), str(path), driver="COG", **options)
            check_whole(path, raw, outcome)
    except (RasterioError, RasterioIOError) as error:
        path.unlink(missing_ok=True)
        raise MapError(
            f"write: {path.name} could not be made in {path.parent}: {error}. What is done is kept there, and another "
            "run goes on from there"
        ) from error


def check_whole(path: Path, raw: Path, outcome: Outcome) -> None:
    """Raise where a file is not laid out as a COG, or lacks pixels: GDAL does not say all that goes wrong at its end.

    Raises
    ------
    RasterioIOError
        with what is missing
    """
    size = path.stat().st_size
    with rasterio.open(path) as file:
        layout = file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT")
        if layout != "COG" or file.count != outcome.bands:
            raise RasterioIOError(
                f"it has the layout {layout} and {file.count} bands; needed is a COG of {outcome.bands}"
            )
        levels = [file, *(rasterio.open(path, overview_level=k) for k in range(len(file.overviews(1))))]
        for level in levels:
            rows, cols = (math.ceil(length / BLOCK) for length in level.shape)
            for row in range(rows):
                for col in range(cols):
                    tags = level.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1)
                    length = level.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=1)
                    if tags and int(tags) + int(length or 0) > size:
                        raise RasterioIOError(
                            f"tile {row}, {col} ends behind the file's {size} bytes; is the disk full?"
                        )
        for level in levels[1:]:
            level.close()


def _vrt(raw: Path, outcome: Outcome, geobox: GeoBox, look: Look, mark: str) -> str:
    """Describe raw pixels to GDAL."""
    height, width = geobox.shape
    item = np.dtype(outcome.dtype).itemsize
    bands = []
    for number in range(outcome.bands):
        name = outcome.name if outcome.bands == 1 else f"{outcome.name}_{number}"
        bands.append(
            f'<VRTRasterBand dataType="{GDAL[outcome.dtype]}" band="{number + 1}" subClass="VRTRawRasterBand">'
            f"<Description>{escape(name)}</Description>{_classes(look)}"
            f"<NoDataValue>{outcome.nodata!r}</NoDataValue>{_colors(look)}"
            f'<SourceFilename relativeToVRT="1">{escape(raw.name)}</SourceFilename>'
            f"<ImageOffset>{number * width * item}</ImageOffset><PixelOffset>{item}</PixelOffset>"
            f"<LineOffset>{outcome.bands * width * item}</LineOffset><ByteOrder>{_byte_order()}</ByteOrder>"
            "</VRTRasterBand>"
        )
    a, b, c, d, e, f = (float(value) for value in geobox.affine[:6])
    transform = ", ".join(map(repr, (c, a, b, f, d, e)))
    crs = grids.crs_of(geobox)
    wkt = f"EPSG:{crs.epsg}" if crs.epsg else escape(crs.to_wkt())
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{wkt}</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>"
        f"<Metadata><MDI key={quoteattr(MARK)}>{escape(mark)}</MDI></Metadata>{''.join(bands)}</VRTDataset>"
    )


def _byte_order() -> str:
    return "LSB" if np.little_endian else "MSB"


def _classes(look: Look) -> str:
    """Give class names as an item of the band's metadata: what GDAL has for them goes to a second file."""
    if not look.classes:
        return ""
    names = json.dumps({str(value): name for value, name in look.classes.items()}, ensure_ascii=False)
    return f'<Metadata><MDI key="CLASSES">{escape(names)}</MDI></Metadata>'


def _colors(look: Look) -> str:
    """Give a colour table; values without a colour are black and transparent."""
    if not look.colors:
        return ""
    entries = []
    for value in range(max(look.colors) + 1):
        red, green, blue, alpha = rgba(look.colors[value]) if value in look.colors else (0, 0, 0, 0)
        entries.append(f'<Entry c1="{red}" c2="{green}" c3="{blue}" c4="{alpha}"/>')
    return f"<ColorInterp>Palette</ColorInterp><ColorTable>{''.join(entries)}</ColorTable>"


def rgba(color: Color) -> tuple[int, int, int, int]:
    """Read a colour.

    Raises
    ------
    MapError
        for what is none
    """
    given = tuple(bytes.fromhex(color[1:])) if isinstance(color, str) and _is_hex(color) else color
    parts = (*given, 255) if not isinstance(given, str) and len(given) == 3 else given
    if isinstance(parts, str) or len(parts) != 4 or not all(isinstance(p, int) and 0 <= p <= 255 for p in parts):
        raise MapError(f"write(colors=...): {color!r} is no colour; write '#rrggbb' or (red, green, blue), 0 to 255")
    return parts[0], parts[1], parts[2], parts[3]


def _is_hex(text: str) -> bool:
    return text.startswith("#") and len(text) in (7, 9) and all(c in "0123456789abcdefABCDEF" for c in text[1:])
