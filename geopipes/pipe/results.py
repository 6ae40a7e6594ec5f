"""The verbs that judge and publish: scores of predictions; polygons, a sample and the STAC item of a map."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from geopipes.pipe.chain import Chain
from geopipes.pipe.lazy import LazyModule

if TYPE_CHECKING:
    import geopandas
    import pystac

    from geopipes import maps, steps
    from geopipes import scores as scores_of
    from geopipes.maps import Model
    from geopipes.maps.documents import Instant
    from geopipes.maps.polygons import Classes
    from geopipes.maps.strips import Raster
    from geopipes.scores import Scores
else:
    maps, scores_of, steps = (LazyModule(f"geopipes.{name}") for name in ("maps", "scores", "steps"))

T = TypeVar("T")


class ResultChain(Chain[T]):
    """A chain of predictions, or of the items of a map: the part of `Pipe` that judges and publishes."""

    def scores(
        self,
        prediction: str = "prediction",
        label: str = "label",
        *,
        classes: Mapping[int, str] | Collection[int] | None = None,
        by: str | None = None,
        ignore: Collection[float] = (),
        progress: bool = False,
    ) -> Scores:
        """Compare predictions with labels as they come by: see `geopipes.scores.scores`."""
        self._need("stream", steps.call("scores"))
        return scores_of.scores(self, prediction, label, classes=classes, by=by, ignore=ignore, progress=progress)

    def polygonize(
        self: ResultChain[pystac.Item],
        path: str | os.PathLike[str] | None = None,
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        probability: Raster | int | None = None,
        band: int = 1,
        connectivity: Literal[4, 8] = 4,
        smallest: float = 0.0,
        holes: float = 0.0,
        simplify: float | None = None,
        strip: int | None = None,
    ) -> geopandas.GeoDataFrame:
        """Make polygons of the objects of a map: see `geopipes.maps.polygonize`."""
        self._need("items", steps.call("polygonize"))
        return maps.polygonize(
            self, path, threshold=threshold, classes=classes, probability=probability, band=band,
            connectivity=connectivity, smallest=smallest, holes=holes, simplify=simplify, strip=strip,
        )  # fmt: skip

    def stratified_sample(
        self: ResultChain[pystac.Item],
        n: int | Mapping[int, int],
        *,
        seed: int,
        classes: Mapping[int, str] | Collection[int] | None = None,
        least: int = 50,
        band: int = 1,
        strip: int | None = None,
    ) -> geopandas.GeoDataFrame:
        """Draw places of a map, to look up a reference at: see `geopipes.scores.stratified_sample`."""
        self._need("items", steps.call("stratified_sample"))
        return scores_of.stratified_sample(self, n, seed=seed, classes=classes, least=least, band=band, strip=strip)

    def stac_item(
        self: ResultChain[pystac.Item],
        path: str | os.PathLike[str] | None = None,
        *,
        datetime: Instant | tuple[Instant, Instant] | None = None,
        classes: Mapping[int, str] | None = None,
        band: int = 1,
        model: Model | None = None,
        lineage: str | None = None,
        derived_from: Iterable[pystac.Item | str] = (),
    ) -> pystac.Item:
        """Describe a map as a STAC item: see `geopipes.maps.stac_item`."""
        options: dict[str, Any] = {
            "datetime": datetime, "classes": classes, "band": band, "model": model, "lineage": lineage,
            "derived_from": derived_from,
        }  # fmt: skip
        self._need("items", steps.call("stac_item"))
        return maps.stac_item(self, path, **options)
