"""Datasets to tensors, and samples to batches.

A sample is a plain dict of tensors and of what is needed to find its place again::

    image        (time, band, y, x)    the variables asked for, in their order
    image_valid  (time, y, x), bool    False where a pixel of the image is no measurement
    label        (y, x)                a joined variable: as its source holds it
    target       dict                  boxes in pixels, labels and ids of objects, where there are boxes
    chip         int                   its place in the unshuffled plan
    bounds       (left, bottom, right, top) in the units of the CRS
    crs          "EPSG:32633", or WKT where no authority names the CRS
    transform    (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f
    probability  a column of the plan, where columns= asks for it
    time         (time,), int64        nanoseconds since 1970, UTC; NaT is the smallest
    doy          (time,), int64        the day of the year, 1 for 1 January, 0 for none, where doy=True asks for it
    time_mask    (time,), bool         False for padding and dates on which nothing is valid, where length= is given
"""

from geopipes.tensors.batches import collate
from geopipes.tensors.samples import tensor

__all__ = ["collate", "tensor"]
