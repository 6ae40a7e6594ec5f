"""Which variable is which band of the awesome-spectral-indices, and what their indices are computed from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np
import xarray as xr

from geopipes.errors import StepError, UnknownBand
from geopipes.spelling import nearest

COMMON: Mapping[str, tuple[str, ...]] = {
    "A": ("coastal",),
    "B": ("blue",),
    "G": ("green",),
    "G1": ("green05",),
    "Y": ("yellow",),
    "R": ("red",),
    "RE1": ("rededge071", "rededge1"),
    "RE2": ("rededge075", "rededge2"),
    "RE3": ("rededge078", "rededge3"),
    "N": ("nir", "nir08"),
    "N2": ("nir08",),
    "WV": ("nir09",),
    "S1": ("swir16",),
    "S2": ("swir22",),
    "T": ("lwir",),
    "T1": ("lwir11",),
    "T2": ("lwir12",),
    **{name.upper(): (name,) for name in ("vv", "vh", "hh", "hv")},
}
"""The common names of STAC's extension eo that mean a band, those of Sentinel-2's red edges on Earth Search, and
polarisations: the first one that is there."""

TWO_NIR = "sentinel2"
"""Begins platforms with a wide near infrared, N, beside the narrow one called nir08, N2; Landsat's nir08 is N."""

OLI_NIR = {"N": {"landsat8": "B5", "landsat9": "B5"}}
"""What spyndex's table of platforms leaves out: the near infrared of OLI, which its indices for OLI call N."""


@lru_cache(maxsize=1)
def catalogue() -> Any:
    """Give spyndex, imported when an index is first asked for."""
    import spyndex

    return spyndex


def formula(name: str) -> str:
    """Give an index's formula, in Python.

    Raises
    ------
    StepError
        for an index that spyndex does not know; names the near ones
    """
    indices = catalogue().indices
    if name not in indices:
        raise StepError(
            f"spectral_index: there is no index {name!r}{nearest(name, indices) or ';'} {len(indices)} are known: "
            "https://github.com/awesome-spectral-indices/awesome-spectral-indices"
        )
    return str(indices[name].formula)


@lru_cache(maxsize=1024)
def compiled(text: str) -> CodeType:
    """Compile a formula of spyndex."""
    return compile(text, "<spectral index>", "eval")


def words(text: str) -> list[str]:
    """Give the bands, constants and kernels that a formula is made of, in the order in which they come."""
    return list(dict.fromkeys(re.findall(r"[A-Za-z]\w*", text)))


def is_kernel(word: str) -> bool:
    """Say whether a word of a formula is a kernel of two bands: kNR is k(N, R)."""
    return re.fullmatch("k[A-Z][A-Z]", word) is not None


def parts(name: str, text: str, constants: Mapping[str, float]) -> tuple[list[str], dict[str, float | None]]:
    """Give the bands that a formula needs, and its constants; ``sigma`` is None where it is told by the pixels.

    Raises
    ------
    StepError
        for a constant that has no default and is not given
    """
    known = catalogue().constants
    bands: list[str] = []
    numbers: dict[str, float | None] = {}
    for word in words(text):
        if is_kernel(word):
            bands += word[1:]
            numbers["sigma"] = constants.get("sigma")
        else:
            bands.append(word)
    numbers |= {word: constants.get(word, known[word].default) for word in bands if word in known}
    if missing := [word for word, number in numbers.items() if number is None and word != "sigma"]:
        raise StepError(f"spectral_index({name!r}): say its {missing}, for which there is no default: {missing[0]}=...")
    return [word for word in dict.fromkeys(bands) if word not in known], numbers


def evaluated(text: str, values: Mapping[str, Any], numbers: Mapping[str, float | None]) -> Any:
    """Evaluate a formula of spyndex.

    Parameters
    ----------
    text : the formula
    values : by band: arrays or numbers
    numbers : constants, as `parts` gives them
    """
    there = {**values, **numbers}
    for word in words(text):
        if is_kernel(word):
            there[word] = _kernel(there[word[1]], there[word[2]], numbers["sigma"], same=word[1] == word[2])
    # The formulas are those of the installed spyndex, which evaluates them likewise.
    return eval(compiled(text), {"__builtins__": {}}, there)


def _kernel(a: Any, b: Any, sigma: float | None, *, same: bool) -> Any:
    """Give the RBF kernel of two bands."""
    if same:
        return 1.0
    return catalogue().computeKernel(kernel="RBF", a=a, b=b, sigma=0.5 * (a + b) if sigma is None else sigma)


def check_words(names: object, used: Set[str], bands: Mapping[str, str], constants: Mapping[str, float]) -> None:
    """Refuse bands and constants that no formula has.

    Parameters
    ----------
    names : of the indices, as given
    used : the words of their formulas
    bands, constants : as `spectral_index` takes them

    Raises
    ------
    StepError
        says what the formulas have
    """
    numbers = {word for word in used if word in catalogue().constants}
    kernels = {word for word in used if is_kernel(word)}
    letters = {letter for word in kernels for letter in word[1:]} | (used - kernels - numbers)
    numbers |= {"sigma"} if kernels else set()
    for band in bands:
        if band not in letters and band not in catalogue().bands:
            meant = [letter for letter, common in COMMON.items() if band.lower() in (letter.lower(), *common)]
            raise StepError(
                f"spectral_index({names!r}, bands={dict(bands)}): {band!r} is no band of the catalogue; "
                f"the formulas have {_named(sorted(letters))}{_meant(meant, letters)}"
            )
    for constant, number in constants.items():
        if constant not in numbers:
            raise StepError(
                f"spectral_index({names!r}, {constant}={number}): no formula has that constant; they have "
                f"{sorted(numbers) or 'none'}{_meant([one for one in numbers if one.lower() == constant.lower()])}"
            )


def _meant(names: Sequence[str], better: Set[str] = frozenset()) -> str:
    """Propose a name, if there is one."""
    first = sorted(names, key=lambda name: name not in better)[:1]
    return f"; did you mean {first[0]!r}?" if first else ""


def _named(bands: Iterable[str]) -> str:
    """Name bands of the catalogue, and say what they are."""
    known = catalogue().bands
    return ", ".join(f"{band} ({known[band].long_name})" if band in known else band for band in bands)


def is_ratio(text: str, bands: list[str], numbers: Mapping[str, float | None]) -> bool:
    """Say whether a formula gives the same of stored numbers and of reflectance: whether a factor cancels out."""
    values = {band: 0.1 + 0.07 * i for i, band in enumerate(bands)}
    with np.errstate(all="ignore"):
        once = evaluated(text, {band: np.float64(value) for band, value in values.items()}, numbers)
        again = evaluated(text, {band: np.float64(value * 1e4) for band, value in values.items()}, numbers)
    return bool(np.isclose(once, again, rtol=1e-9))


def find(dataset: xr.Dataset, band: str, given: Mapping[str, str], platform: str | None) -> str | None:
    """Find the variable that is a band: as said, by common name, by the platform's own name for it, or by its letter.

    Parameters
    ----------
    dataset : whose variables may have the attributes ``common_name``, ``band`` and ``platform``
    band : as spyndex calls it
    given : variables for bands, as the user says
    platform : of all variables; None for what their attributes say
    """
    if band in given:
        return given[band]
    variables = {str(name): variable for name, variable in dataset.data_vars.items() if name != "valid"}
    for common in COMMON.get(band, ()):
        found = [name for name, v in variables.items() if common in _called(name, v)]
        if common == "nir08" and band == "N":  # where a wide one is not there, and on Sentinel-2 not even then
            found = [
                name
                for name in found
                if not any(key.startswith(TWO_NIR) for key in _platforms(variables[name], platform))
            ]
        if found:
            return min(found, key=lambda name: name.lower() != common)
    for name, variable in variables.items():
        own = {_plain(word) for word in (name, str(variable.attrs.get("band", "")))}
        if own & _own_names(band, _platforms(variable, platform)):
            return name
    return band if band in variables else None


def _called(name: str, variable: xr.DataArray) -> set[str]:
    """Give the common names of a variable: that of its attributes, and its own name."""
    return {name.lower(), str(variable.attrs.get("common_name", name)).lower()}


def _platforms(variable: xr.DataArray, platform: str | None) -> set[str]:
    """Give the platforms of a variable as spyndex writes them, ``sentinel2a``."""
    return spelled(str(platform or variable.attrs.get("platform", "")))


def spelled(platforms: str) -> set[str]:
    """Write platforms, with commas between them, as spyndex does; of Sentinel-2 it knows A and B."""
    keys = {re.sub(r"[^a-z0-9]", "", word) for word in platforms.lower().split(",")} - {""}
    return {"sentinel2a" if key in ("sentinel2", "sentinel2c") else key for key in keys}


def check_platform(platform: str | None) -> None:
    """Refuse a platform whose bands are not known.

    Raises
    ------
    StepError
        names the near ones
    """
    there = {key for band in catalogue().bands.values() for key, own in vars(band).items() if hasattr(own, "band")}
    if platform is not None and not spelled(platform) <= there:
        raise StepError(
            f"spectral_index(platform={platform!r}): its bands are not known{nearest(platform, there)} Known are "
            f"{', '.join(sorted(there))}; say which variable is which band, bands={{'N': ..., 'R': ...}}"
        )


def _own_names(band: str, platforms: set[str]) -> set[str]:
    """Give what platforms call a band, as ``_plain`` writes it; nothing where they differ."""
    known = catalogue().bands
    stated = {key: own.band for key, own in vars(known[band]).items() if hasattr(own, "band")} if band in known else {}
    names = {(stated | OLI_NIR.get(band, {})).get(key) for key in platforms}
    return {_plain(name) for name in names if name} if len(names) == 1 else set()


def _plain(name: str) -> str:
    """Write a platform's band without the product and the zero before it: B4 for B04 and SR_B4."""
    return re.sub(r"^(SR_|ST_)?(B|BAND_?)0*(?=\d)", "B", name.upper())


def lacking(dataset: xr.Dataset, index: str, missing: list[str]) -> UnknownBand:
    """Make the error for an index whose bands are not all there."""
    there = [str(name) for name in dataset.data_vars if name != "valid"]
    return UnknownBand(
        f"spectral_index({index!r}) needs {_named(missing)}; the variables are {there}. Stack it too, or say which "
        f"variable it is, bands={{{missing[0]!r}: ...}}, or whose bands these are, platform='sentinel-2a'"
    )
