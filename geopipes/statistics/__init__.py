"""Statistics of pixels, in one pass over chips: moments, percentiles, classes; merged, saved and drawn."""

from geopipes.progress import progressing
from geopipes.statistics.passes import Run, chain_of, sampled, statistics
from geopipes.statistics.pictures import histograms
from geopipes.statistics.results import Statistics, merge
from geopipes.statistics.summaries import Summary

__all__ = ["Run", "Statistics", "Summary", "chain_of", "histograms", "merge", "progressing", "sampled", "statistics"]
