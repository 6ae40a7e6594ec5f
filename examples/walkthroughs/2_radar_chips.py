# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 2. Radar scenes to batches of overlapping chips
#
# Two passes of a Sentinel-1-like radar over one place: backscatter to decibels, chips of 128 px that overlap by 32, and
# batches of them. A chip at the edge is shifted inwards, so that every pixel is in one.

# %%
from pathlib import Path

from matplotlib.figure import Figure

import geopipes as gp
from geopipes.testing import synthetic_flood

out = Path("out")
passes = synthetic_flood(out / "flood", size=1024, radar=["2024-05-10", "2024-06-03"]).radar

# %%
cubes = gp.items(passes).stack(["vv", "vh"], resolution=20).to_decibel(["vv", "vh"])
plan = cubes.chip(128, overlap=32, edge="shift", coverage="any")
print(plan, f"\n{len(plan)} chips")

# %% [markdown]
# The second pass saw the western two thirds alone: `image_valid` says where. Reading begins here.

# %%
batches = plan.read().tensor(image=["vv", "vh"], fill=-30).batch(9)
for batch in batches:
    seen = batch["image_valid"].float().mean((0, 2, 3)).tolist()
    print(tuple(batch["image"].shape), "measured on each date:", [round(share, 2) for share in seen])

# %%
batch = next(iter(batches))
figure = Figure(figsize=(7, 3.6), layout="constrained")
for column, axes in enumerate(figure.subplots(2, 5).T):
    for date, axis in enumerate(axes):
        axis.imshow(batch["image"][column, date, 0], cmap="gray", vmin=-25, vmax=0)
        day = batch["time"][column, date].numpy().astype("M8[ns]").astype("M8[D]")
        axis.set(xticks=[], yticks=[], title=f"chip {batch['chip'][column]}\n{day}" if date == 0 else f"{day}")
figure.savefig(out / "radar_chips.png", dpi=80)
figure
