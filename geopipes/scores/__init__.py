"""How good a map is: against labels everywhere, and by a sample of places that are looked at."""

from geopipes.scores.areas import AreaEstimates, area_estimates, estimates
from geopipes.scores.confusions import Confusion
from geopipes.scores.passes import across_seeds, scores
from geopipes.scores.regressions import Regression
from geopipes.scores.results import Scores
from geopipes.scores.samples import sample_size, stratified_sample

__all__ = [
    "AreaEstimates",
    "Confusion",
    "Regression",
    "Scores",
    "across_seeds",
    "area_estimates",
    "estimates",
    "sample_size",
    "scores",
    "stratified_sample",
]
