# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # 3. Flood outlines to masks on radar chips
#
# A Sentinel-1-like pass during a flood, and the outlines of the water in a GeoPackage in longitude and latitude. The
# outlines are reprojected and burnt onto the radar's pixels, and a chip reads those that lie near it alone.

# %%
from pathlib import Path

from matplotlib.figure import Figure

import geopipes as gp
from geopipes.testing import synthetic_flood

out = Path("out")
flood = synthetic_flood(out / "flood", size=512, radar=["2024-05-21"])
water = flood.events[flood.events["event"] == "2024-05-20"].to_crs(4326)
water.to_file(out / "water.gpkg")

# %%
cubes = (
    gp.items(flood.radar)
    .stack(["vv", "vh"], resolution=20)
    .to_decibel(["vv", "vh"])
    .rasterize(out / "water.gpkg", name="water", background=0)
)
plan = cubes.chip(64, overlap=16).measure(out / "shares.parquet", share="water").query("share_1 > 0.05")
print(plan, f"\n{len(plan)} chips of water")

# %% [markdown]
# `measure` looked once at every chip, so that chips without water need not be read. Pairs of image and mask:

# %%
batches = plan.shuffle(seed=0).read().tensor(image=["vv", "vh"], mask="water", fill=-30, time_axis=False).batch(8)
batch = next(iter(batches))
print({name: tuple(batch[name].shape) for name in ("image", "mask")})

# %%
figure = Figure(figsize=(7, 3), layout="constrained")
for axis, image, mask in zip(figure.subplots(2, 4).ravel(), batch["image"], batch["mask"], strict=True):
    axis.imshow(image[0], cmap="gray", vmin=-25, vmax=0)
    axis.contour(mask, [0.5], colors="#35c9ff", linewidths=1)
    axis.set(xticks=[], yticks=[])
figure.savefig(out / "flood_masks.png", dpi=80)
figure
