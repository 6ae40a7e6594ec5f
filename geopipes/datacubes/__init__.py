"""Items to lazy Datasets on a common grid: stack, join, inputs; arrays from elsewhere."""

from geopipes.datacubes.cube import Cube, Cubes, Window
from geopipes.datacubes.each import stack_each
from geopipes.datacubes.elsewhere import from_xarray, reproject
from geopipes.datacubes.stacks import inputs, join, stack, union

__all__ = ["Cube", "Cubes", "Window", "from_xarray", "inputs", "join", "reproject", "stack", "stack_each", "union"]
