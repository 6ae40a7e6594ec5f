"""Cubes to windows: which pixels make a chip, as integer arrays, before any is read."""

from geopipes.chips.choosing import away, sample, stratify
from geopipes.chips.cutting import Coverage, Edge, chip, slices
from geopipes.chips.drawing import draw, inside
from geopipes.chips.grouping import pairs, sequences
from geopipes.chips.groups import Groups, Sequences
from geopipes.chips.loading import Reading, load, look
from geopipes.chips.matched import Matched
from geopipes.chips.matching import match_dates
from geopipes.chips.measuring import measure
from geopipes.chips.mixing import by_scene, mix
from geopipes.chips.places import ground, plane
from geopipes.chips.plotting import explore, plot
from geopipes.chips.pointing import around, at
from geopipes.chips.scene_labels import scene_labels
from geopipes.chips.seeking import seek, settle
from geopipes.chips.tables import assign, column, query, table
from geopipes.chips.triples import triplets
from geopipes.chips.windows import Windows, boxes

__all__ = [
    "Coverage", "Edge", "Groups", "Matched", "Reading", "Sequences", "Windows", "around", "assign", "at", "away",
    "boxes", "by_scene", "chip", "column", "draw", "explore", "ground", "inside", "load", "look", "match_dates",
    "measure", "mix", "pairs", "plane", "plot", "query", "sample", "scene_labels", "seek", "sequences", "settle",
    "slices", "stratify", "table", "triplets",
]  # fmt: skip
