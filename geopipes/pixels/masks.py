"""Pixels that are declared not valid: by values, by classes of clouds, by anything a user says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import xarray as xr

from geopipes.edits import Array, Edit, blanked, dropping, edited, into
from geopipes.errors import StepError
from geopipes.pixels.neighbours import checked_radius, dilated
from geopipes.pixels.qualities import Test, matching, recognised, tests_of
from geopipes.pixels.variables import known


def mask_values(dataset: xr.Dataset, band: str, values: Sequence[float]) -> xr.Dataset:
    """Declare pixels not valid where a band holds certain values, such as the clouds of a scene classification.

    Parameters
    ----------
    dataset : with ``valid`` and the band, both (time, y, x)
    band : the variable looked at; it stays
    values : that make a pixel not valid, as 3, 8, 9 and 10 in Sentinel-2's SCL

    Returns
    -------
    the Dataset with a smaller ``valid``; floats that vary with it become NaN there, integers keep their values

    Raises
    ------
    UnknownBand
        if the band is not there
    StepError
        if the Dataset has no ``valid``
    """
    return edited(dataset, masking(dataset, band, values))


def masking(dataset: xr.Dataset, band: str, values: Sequence[float]) -> list[Edit]:
    """Tell what `mask_values` does to a Dataset; its pixels are not looked at."""
    known(dataset, band)
    return _narrowing(dataset, band, partial(_without_values, values=list(values)), "mask_values")


def mask_clouds(
    dataset: xr.Dataset,
    band: str,
    *,
    classes: Sequence[str] | None = None,
    product: str | None = None,
    dilate: int = 0,
    keep: bool = False,
) -> xr.Dataset:
    """Declare pixels not valid that a product's quality band calls clouds, shadows or what else is named.

    Pixels whose quality was not measured (no data, fill) are not valid either.

    Parameters
    ----------
    dataset : with ``valid`` and the band, whole numbers, both (time, y, x)
    band : the quality band: Sentinel-2's SCL, Landsat's QA_PIXEL (Collection 2) or BQA (Collection 1), the Fmask of HLS
    classes : by name; None for the usual ones

        =========  ===============================================  ================================================
        product    usual                                            others
        =========  ===============================================  ================================================
        scl        cloud_shadow, cloud_medium, cloud_high, cirrus   saturated_or_defective, dark_area, vegetation,
                                                                    not_vegetated, water, unclassified, snow
        qa_pixel   dilated_cloud, cirrus, cloud, cloud_shadow       snow, clear, water; cloud_confidence_low, _medium,
                                                                    _high; cloud_shadow_confidence_low, ...;
                                                                    snow_confidence_low, ...; cirrus_confidence_...
        fmask      cirrus, cloud, adjacent_to_cloud, cloud_shadow   snow, water; aerosol_low, _moderate, _high
        bqa        cloud, cloud_shadow_confidence_high,             terrain_occlusion; saturation_low, ...; other
                   cirrus_confidence_high                           confidences, as qa_pixel
        =========  ===============================================  ================================================

    product : ``"scl"``, ``"qa_pixel"``, ``"fmask"`` or ``"bqa"``; None where the band's name, or that of its asset,
        tells it
    dilate : pixels by which what is masked grows, as a disk. Before ``chip`` the pixels around are read along; after
        it chips must carry so much margin, ``chip(256, margin=3)``. What was not measured does not grow
    keep : whether the band stays; else it is dropped

    Returns
    -------
    the Dataset with a smaller ``valid``; floats that vary with it become NaN there, integers keep their values

    Raises
    ------
    UnknownBand
        if the band is not there
    StepError
        if a class or the product is not known, the Dataset has no ``valid``, or the band holds no whole numbers
    MarginTooSmall
        after ``chip``, if chips carry less margin than ``dilate``

    Notes
    -----
    The tables and their sources stand in `geopipes.pixels.qualities`.
    """
    radius = checked_radius("mask_clouds", dilate)
    if radius == 0:
        return edited(dataset, clouding(dataset, band, classes=classes, product=product, keep=keep))
    tests, fill = _tests(dataset, band, classes, product)
    quality = dataset.variables[band]
    unmeasured = _looked_up(quality, (fill,))
    # The value for fill may have all bits set: it is no cloud that grows.
    bad = dilated(_looked_up(quality, tests) & ~unmeasured, radius) | unmeasured
    masked = edited(dataset, _narrowing(dataset, bad, _unless, "mask_clouds"))
    return masked if keep else masked.drop_vars(band)


def clouding(
    dataset: xr.Dataset,
    band: str,
    *,
    classes: Sequence[str] | None = None,
    product: str | None = None,
    dilate: int = 0,
    keep: bool = False,
) -> list[Edit]:
    """Tell what `mask_clouds` does to a Dataset where it looks at no neighbours; its pixels are not looked at."""
    tests, fill = _tests(dataset, band, classes, product)
    edits = _narrowing(dataset, band, partial(_without_classes, tests=(*tests, fill)), "mask_clouds")
    return edits if keep else [*edits, dropping(band)]


def mask(dataset: xr.Dataset, where: str | Callable[[xr.Dataset], xr.DataArray], *, dilate: int = 0) -> xr.Dataset:
    """Declare pixels not valid where a variable, or a function of the Dataset, is True.

    Parameters
    ----------
    dataset : with ``valid``
    where : a boolean variable's name, which stays, or a function such as ``lambda chip: chip["NDVI"] < 0``: it gives a
        boolean DataArray on the dims of ``valid``, or some of them, and looks at each pixel alone
    dilate : pixels by which what is masked grows, as a disk: as in `mask_clouds`

    Returns
    -------
    the Dataset with a smaller ``valid``; floats that vary with it become NaN there, integers keep their values

    Raises
    ------
    UnknownBand
        if the variable is not there
    StepError
        if it is not boolean or has other dims, or the Dataset has no ``valid``
    MarginTooSmall
        after ``chip``, if chips carry less margin than ``dilate``
    """
    radius = checked_radius("mask", dilate)
    if isinstance(where, str):
        marked = dataset[known(dataset, where)[0]]
    else:
        known(dataset, [])
        marked = where(dataset)
    if not isinstance(marked, xr.DataArray) or marked.dtype != bool:
        found = marked.dtype if isinstance(marked, xr.DataArray) else type(marked).__name__
        raise StepError(
            f"mask: {where if isinstance(where, str) else 'the function'!r} gives {found}; a boolean DataArray is "
            'needed, as lambda chip: chip["clouds"] > 40'
        )
    return edited(dataset, _narrowing(dataset, dilated(marked.variable, radius), _unless, "mask"))


def _tests(
    dataset: xr.Dataset, band: str, classes: Sequence[str] | None, product: str | None
) -> tuple[tuple[Test, ...], Test]:
    """Give the tests of the classes, and of what was not measured."""
    variable = dataset.variables[known(dataset, band)[0]]
    quality = recognised(band, variable.attrs, product)
    if variable.dtype.kind not in "iu":
        raise StepError(
            f"mask_clouds({band!r}): it holds {variable.dtype}, and classes are whole numbers; let it keep its own "
            f"dtype, stack(dtype={{{band!r}: 'uint8', ...}}), and let no step change it before"
        )
    return tests_of(quality, classes), quality.fill


def _narrowing(dataset: xr.Dataset, by: str | xr.Variable, function: Callable[..., Array], call: str) -> list[Edit]:
    """Tell of a smaller ``valid``, a function of it and of another variable, and of the floats that vary with it."""
    if "valid" not in dataset:
        raise StepError(f"{call} needs the boolean 'valid' that stack() gives; there is none in this Dataset")
    valid = dataset.variables["valid"]
    other = dataset.variables[by] if isinstance(by, str) else by
    dims = {*valid.dims, *other.dims}
    if call != "mask_values" and not set(other.dims) <= set(valid.dims):
        raise StepError(f"{call}: what masks has the dims {other.dims}, and 'valid' {valid.dims}; reduce it to these")
    edits = [Edit("valid", ("valid", by), function, np.dtype(bool), dict(valid.attrs))]
    for name in map(str, dataset.data_vars):
        variable = dataset.variables[name]
        if variable.dtype.kind == "f" and dims <= set(variable.dims):
            edits.append(Edit(name, (name, "valid"), _masked, variable.dtype, dict(variable.attrs)))
    return edits


def _looked_up(quality: xr.Variable, tests: tuple[Test, ...]) -> xr.Variable:
    """Say where a quality band is of any class."""
    found: xr.Variable = xr.apply_ufunc(
        partial(matching, tests=tests), quality, dask="parallelized", output_dtypes=[bool], keep_attrs=False
    )
    return found


def _without_values(valid: Array, band: Array, *, values: list[float], out: Array | None) -> Array:
    return np.logical_and(valid, np.isin(band, values, invert=True), out=out)


def _without_classes(valid: Array, band: Array, *, tests: tuple[Test, ...], out: Array | None) -> Array:
    return np.logical_and(valid, np.logical_not(matching(band, tests)), out=out)


def _unless(valid: Array, bad: Array, *, out: Array | None) -> Array:
    return np.logical_and(valid, np.logical_not(bad), out=out)


def _masked(values: Array, valid: Array, *, out: Array | None) -> Array:
    return blanked(into(values, values.dtype, out), valid)
