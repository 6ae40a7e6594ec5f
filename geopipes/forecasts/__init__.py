"""What a pipe will need, told before a pixel is read."""

from geopipes.forecasts.explaining import explain
from geopipes.forecasts.values import Forecast, Memory, Needs, Probe

__all__ = ["Forecast", "Memory", "Needs", "Probe", "explain"]
