"""How predictions of chips become a map: what is checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from geopipes.errors import MapError
from geopipes.loaders import Op
from geopipes.maps.blending import BLENDS, Blend
from geopipes.maps.layers import Activation, Rule
from geopipes.maps.mosaics import Mosaic, Options
from geopipes.steps import call, given

V = TypeVar("V")

ACTIVATIONS = ("softmax", "sigmoid")


def stitch(
    source: Any,
    ops: Sequence[Op],
    *,
    of: str | Sequence[str] = "prediction",
    blend: Blend = "hann",
    activation: Activation | Mapping[str, Activation] | None = None,
    classes: bool | str | Sequence[str] = False,
    probability: bool = False,
    nodata: float | Mapping[str, float] | None = None,
) -> Mosaic:
    """Put the predictions of chips together to a map, as they come; nothing runs yet.

    Rows of the map are given as soon as no chip that follows can change them, so that memory holds one row of chips:
    it grows with the width of the map and its bands, and not with its height. The map is the rectangle that the chips
    cover, cut to the grid of their cube; a map for each grid and date.

    Parameters
    ----------
    source, ops : of the run that predicts, its chips in the order of the plan
    of : the predictions, one or several
    blend : what a pixel is where chips overlap: their mean, weighted by ``"hann"``, ``"gaussian"`` (a deviation of an
        eighth of the chip) or ``"linear"`` windows, or all alike, ``"mean"``; or that of the chip in which it lies
        deepest, ``"crop"``. A pixel of one chip alone is a copy
    activation : turns the numbers of a chip into probabilities before they are blended: ``"softmax"`` over bands,
        ``"sigmoid"`` of each; of all predictions, or by name. None where the model gives what is to be blended
    classes : whether the map holds the number of the band whose blended value is largest, uint8 or uint16; of one band
        1 where it is 0.5 or more; whole numbers as they are. True for all predictions, or the names of some
    probability : whether maps of classes come with another one, ``prediction_probability``
    nodata : what stands where no chip has a valid pixel; by default NaN in floats, the largest number of a dtype
        without sign and of classes, the smallest of one with. Of all predictions, or by name

    Returns
    -------
    a `Mosaic`: iterate over its strips, `load` or `write` it. `Pipe.stitch` gives a `geopipes.pipe.maps.Map` of it,
    which has these as methods

    Raises
    ------
    MapError
        for what is no map: elements of no plan, chips in another order, answers that do not fit, when it runs
    """
    options: dict[str, Any] = {
        "of": of, "blend": blend, "activation": activation, "classes": classes, "probability": probability,
        "nodata": nodata,
    }  # fmt: skip
    text = call("stitch", **given(stitch, options))
    names = (of,) if isinstance(of, str) else tuple(of)
    if blend not in BLENDS:
        raise MapError(f"{text}: blend={blend!r}; use one of {', '.join(map(repr, BLENDS))}")
    chosen = (classes,) if isinstance(classes, str) else () if isinstance(classes, bool) else tuple(classes)
    named = {
        *chosen,
        *(activation if isinstance(activation, Mapping) else ()),
        *(nodata if isinstance(nodata, Mapping) else ()),
    }
    if not names or named - {*names}:
        raise MapError(f"{text}: {sorted(named - {*names})} are none of the predictions {', '.join(names)} in of=...")
    rules = {}
    for name in names:
        numbered = classes is True or name in chosen
        rule = Rule(_of(activation, name), numbered, probability and numbered, _of(nodata, name))
        if rule.activation not in (None, *ACTIVATIONS):
            raise MapError(f"{text}: activation={rule.activation!r}; use 'softmax', 'sigmoid' or None")
        rules[name] = rule
    if probability and not any(rule.classes for rule in rules.values()):
        raise MapError(f"{text}: probability=True is that of the class; write classes=True with it")
    return Mosaic(source, ops, Options(names, blend, rules), text)


def _of(given: V | Mapping[str, V] | None, name: str) -> V | None:
    """Give what was given for one prediction."""
    return given.get(name) if isinstance(given, Mapping) else given
