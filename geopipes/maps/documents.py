"""STAC items of maps, and of the models that made them."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac
import rasterio
from pystac.utils import datetime_to_str, str_to_datetime

from geopipes.catalogs import rasters
from geopipes.errors import SourceError
from geopipes.maps.placing import put
from geopipes.maps.strips import Raster, single

PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
CLASSIFICATION = "https://stac-extensions.github.io/classification/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"

Instant = dt.datetime | str

GEOJSON = "application/geo+json"
"""The media type of a STAC item."""


@dataclass(frozen=True)
class Model:
    """A model, as far as a reader of its maps wants to know it: the terms are those of STAC's MLM extension.

    Attributes
    ----------
    name : of the model itself
    architecture : its kind, ``"U-Net"``
    tasks : what it is for, of the extension's list: ``("semantic-segmentation",)``, ``("regression",)``, ...
    bands : names of the bands it takes, in their order
    input_shape, output_shape : of its tensors, -1 for any size: ``(-1, 4, 256, 256)``
    input_axes, output_axes : names of their axes; "bands" is the one of ``bands``
    framework, framework_version : ``"PyTorch"``, ``"2.9.0"``
    dtype : of input and output
    item : where a STAC item describes the model (`model_item` writes one); None if none does
    """

    name: str
    architecture: str
    tasks: Sequence[str]
    bands: Sequence[str]
    input_shape: Sequence[int]
    output_shape: Sequence[int]
    input_axes: Sequence[str] = ("batch", "bands", "height", "width")
    output_axes: Sequence[str] = ("batch", "class", "height", "width")
    framework: str = "PyTorch"
    framework_version: str | None = None
    dtype: str = "float32"
    item: str | None = None


def stac_item(
    raster: Raster,
    path: str | os.PathLike[str] | None = None,
    *,
    datetime: Instant | tuple[Instant, Instant] | None = None,
    classes: Mapping[int, str] | None = None,
    band: int = 1,
    model: Model | None = None,
    lineage: str | None = None,
    derived_from: Iterable[pystac.Item | str] = (),
) -> pystac.Item:
    """Describe a map that was written as a STAC item.

    Parameters
    ----------
    raster : a path, a URL, an item, or what ``gp.rasters`` gives
    path : where to write the item as JSON too; it appears whole or not at all, and names the map by a relative path
    datetime : what the map shows: an instant, or (first, last), UTC where it has no zone; None for what the
        raster's own item says, else the span of ``derived_from``
    classes : values and names of the classes of one band; the colours are those of the file's colour table
    band : which one, from 1
    model : that made the map. Where it has an item of its own, the map's item is derived from it, as the MLM extension
        asks: fields of that extension describe models, and are no properties of a map
    lineage : what was done, in words or as the chain was typed
    derived_from : items of the imagery, or where they are; those that do not say where they are count for the time
        alone

    Returns
    -------
    Item of STAC 1.1: the footprint, and the fields of the extensions projection, raster, processing (level L4,
    software, lineage), and classification where classes are named

    Raises
    ------
    SourceError
        for what is no single raster file, where no time is known, and a path that cannot be written

    Notes
    -----
    The item is not validated here: ``item.validate()`` fetches the schemas of the extensions from the internet. Items
    of this shape were held against STAC 1.1, processing 1.2, MLM 1.5.2 and classification's unreleased 2.0.
    """
    found = single(raster, "stac_item(raster)")
    if not isinstance(found, str):
        raise SourceError("stac_item: an array in memory has no place to be found at; write it to a file first")
    item = next(iter(rasters(found)))
    item.id = Path(item.id).name
    sources = list(derived_from)
    own = [raster] if isinstance(raster, pystac.Item) else [] if isinstance(raster, str | os.PathLike) else [*raster]
    dated = [each for each in own if _times(each)] or [each for each in sources if isinstance(each, pystac.Item)]
    _date(item, datetime, dated)
    asset = next(iter(item.assets.values()))
    with rasterio.open(found) as file:
        if file.driver == "GTiff" and file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG":
            asset.media_type = pystac.MediaType.COG
        if classes is not None:
            if not 1 <= band <= file.count:
                raise SourceError(f"stac_item(band={band}): {found} has {file.count} bands, counted from 1")
            named = _classes(classes, file.colormap(band) if file.colorinterp[band - 1].name == "palette" else {})
            holder = asset.extra_fields if file.count == 1 else asset.extra_fields["raster:bands"][band - 1]
            holder["classification:classes"] = named
            item.stac_extensions.append(CLASSIFICATION)
    _process(item, model, lineage)
    for source in sources:
        href = source if isinstance(source, str) else source.get_self_href()
        if href is not None:
            title = None if isinstance(source, str) else source.id
            item.add_link(pystac.Link("derived_from", href, media_type=GEOJSON, title=title))
    return item if path is None else _written(item, path)


def model_item(
    model: Model,
    weights: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    artifact_type: str = "torch.save",
    classes: Mapping[int, str] | None = None,
    created: Instant | None = None,
) -> pystac.Item:
    """Describe a model as a STAC item by the MLM extension, for `stac_item` to refer to.

    Parameters
    ----------
    model : its properties
    weights : the file that holds it
    path : where to write the item as JSON too, whole or not at all
    artifact_type : how that file was written: ``torch.save``, ``torch.jit.save``, ``safetensors.torch.save_file``, ...
    classes : values and names of what it gives
    created : when the model was made; None for now

    Returns
    -------
    Item of STAC 1.1 without a place on Earth, which a model has none of

    Raises
    ------
    SourceError
        for bands or tasks that are missing, and axes that do not fit the shapes
    """
    shapes = ((model.input_shape, model.input_axes), (model.output_shape, model.output_axes))
    if not model.tasks or any(len(shape) != len(axes) for shape, axes in shapes):
        raise SourceError(f"model_item: {model}: needed are tasks, and an axis for each number of a shape")
    if bool(model.bands) != ("bands" in model.input_axes):
        raise SourceError(f"model_item: bands={list(model.bands)} and input_axes={list(model.input_axes)}: name both")
    when = dt.datetime.now(dt.UTC) if created is None else _utc(created)
    structures = [{"shape": list(shape), "dim_order": list(axes), "data_type": model.dtype} for shape, axes in shapes]
    tasks = list(model.tasks)
    output: dict[str, Any] = {"name": "prediction", "tasks": tasks, "result": structures[1], "bands": []}
    if classes is not None:
        output["classification:classes"] = _classes(classes, {})
    properties = {
        "mlm:name": model.name, "mlm:architecture": model.architecture, "mlm:tasks": tasks,
        "mlm:framework": model.framework,
        "mlm:input": [{"name": "image", "bands": list(model.bands), "input": structures[0]}], "mlm:output": [output],
    }  # fmt: skip
    if model.framework_version is not None:
        properties["mlm:framework_version"] = model.framework_version
    item = pystac.Item(_slug(model.name), None, None, when, properties, stac_extensions=[MLM])
    fields: dict[str, Any] = {"mlm:artifact_type": artifact_type}
    if model.bands:  # which mlm:input refers to; STAC 1.1's own bands may not stand among an item's properties
        fields["raster:bands"] = [{"name": name} for name in model.bands]
        item.stac_extensions.append(RASTER)
    href = os.path.abspath(weights)
    asset = pystac.Asset(href, roles=["mlm:model", "mlm:weights"], title=model.name, extra_fields=fields)
    item.add_asset("model", asset)
    return item if path is None else _written(item, path)


def _date(item: pystac.Item, given: Instant | tuple[Instant, Instant] | None, sources: Sequence[pystac.Item]) -> None:
    """Say what time a map shows."""
    if given is None:
        times = [time for source in sources for time in _times(source)]
        if not times:
            raise SourceError(
                "stac_item: when what the map shows was is not known; write datetime='2024-06-01', or "
                "datetime=('2024-04-01', '2024-10-01'), or derived_from=items"
            )
        first, last = min(times), max(times)
    else:
        first, last = map(_utc, given if isinstance(given, tuple) else (given, given))
    item.properties.pop("start_datetime", None)
    item.properties.pop("end_datetime", None)
    item.datetime = first if first == last else None
    if first != last:
        item.properties |= {"start_datetime": datetime_to_str(first), "end_datetime": datetime_to_str(last)}


def _times(item: pystac.Item) -> list[dt.datetime]:
    stated = (item.datetime, item.common_metadata.start_datetime, item.common_metadata.end_datetime)
    return [_utc(time) for time in stated if time is not None]


def _utc(given: Instant) -> dt.datetime:
    try:
        time = str_to_datetime(given) if isinstance(given, str) else given
    except ValueError as error:
        raise SourceError(f"datetime={given!r}: {error}; write it as '2024-06-01' or '2024-06-01T10:00:00Z'") from error
    return time.replace(tzinfo=dt.UTC) if time.tzinfo is None else time.astimezone(dt.UTC)


def _classes(classes: Mapping[int, str], colours: Mapping[int, Sequence[int]]) -> list[dict[str, Any]]:
    """Give classes as the classification extension states them, by short names that it allows."""
    return [
        {
            "value": int(value),
            "name": _slug(name),
            "title": str(name),
            **({"color_hint": "".join(f"{part:02X}" for part in colours[value][:3])} if value in colours else {}),
        }
        for value, name in classes.items()
    ]


def _slug(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z_-]+", "-", str(name)).strip("-") or "unnamed"


def _process(item: pystac.Item, model: Model | None, lineage: str | None) -> None:
    """State how a map was made."""
    from geopipes import __version__

    software = {"geopipes": __version__}
    if model is not None and model.framework_version is not None:
        software[model.framework] = model.framework_version
    item.properties |= {
        "processing:level": "L4",  # the extension's word for what a model gives
        "processing:software": software,
        "processing:datetime": datetime_to_str(dt.datetime.now(dt.UTC).replace(microsecond=0)),
    }
    words = [lineage] if lineage else []
    if model is not None:
        words.append(
            f"model: {model.name} ({model.architecture}; {', '.join(model.tasks)}) of {', '.join(model.bands)}"
        )
    if words:
        item.properties["processing:lineage"] = "\n".join(words)
    if model is not None and model.item is not None:
        item.properties["processing:expression"] = {"format": "stac-mlm", "expression": model.item}
        fields = {"mlm:name": model.name, "processing:level": "L4"}
        item.add_link(pystac.Link("derived_from", model.item, media_type=GEOJSON, extra_fields=fields))
    item.stac_extensions.append(PROCESSING)


def _written(item: pystac.Item, path: str | os.PathLike[str]) -> pystac.Item:
    """Write an item whose assets lie beside it; the file appears whole or not at all."""
    item.set_self_href(os.path.abspath(path))
    item.make_asset_hrefs_relative()
    text = json.dumps(item.to_dict(include_self_link=False), indent=1, allow_nan=False)
    put(path, lambda draft: draft.write_text(text, encoding="utf-8"))
    return item
