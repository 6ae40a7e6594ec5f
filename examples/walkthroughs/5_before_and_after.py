# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 5. Before, after, elevation, and a mask
#
# A flood as radar saw it before and after, the ground's elevation and slope, and outlines of the water: one chip holds
# the three inputs at 20 m on one grid, and the target. Outlines are burnt in once they are reprojected.

# %%
from pathlib import Path

from matplotlib.figure import Figure

import geopipes as gp
from geopipes.testing import synthetic_flood

out = Path("out")
flood = synthetic_flood(out / "flood", size=512)
event = "2024-05-20"
water = flood.events[flood.events["event"] == event]

# %% [markdown]
# `match_dates` takes of each input the last pass before the event and the first one after it.

# %%
radar = gp.items(flood.radar).stack(["vv", "vh"], resolution=20).to_decibel(["vv", "vh"])
ground = radar.join(gp.rasters(flood.elevation), name="height", resampling="bilinear").slope("height")
plan = (
    gp.inputs(before=radar, after=ground.rasterize(water, name="water", background=0, nodata=255))
    .chip(64, margin=1, coverage="any")
    .assign(event=event)
    .match_dates({"before": "14D", "after": "3D"}, to="event", side={"before": "before", "after": "after"})
)
print(plan)

# %%
samples = plan.read().tensor(
    before=["vv", "vh"], after=["vv", "vh"], ground="after/slope", target="after/water", fill=-30, time_axis=False
)
batch = next(iter(samples.batch(4)))
for name in ("before", "after", "ground", "target"):
    print(name, tuple(batch[name].shape))

# %%
figure = Figure(figsize=(7, 5.6), layout="constrained")
for row, axes in enumerate(figure.subplots(3, 4)):
    panels = [batch["before"][row, 0], batch["after"][row, 0], batch["ground"][row], batch["target"][row]]
    for axis, name, panel in zip(axes, ("before", "after", "slope", "water"), panels, strict=True):
        axis.imshow(panel, cmap="gray" if name in ("before", "after") else "viridis")
        axis.set(xticks=[], yticks=[], title=name if row == 0 else "")
figure.savefig(out / "before_and_after.png", dpi=80)
figure
