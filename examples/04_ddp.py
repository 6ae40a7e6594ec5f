"""Train on several ranks, and go on with another number of them: `torchrun --nproc-per-node=2 examples/04_ddp.py`.

`batch(8)` is the batch of all ranks together, and each takes its part: the steps are the same for any number of ranks
that divides 8. Run it again, with as many as you like: it goes on at the step where it stood, in its epoch.
"""

from __future__ import annotations

import argparse
import os
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from learning import UNKNOWN
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from unet import UNet

import geopipes as gp
from geopipes.loaders import Loader
from geopipes.testing import Synthetic, synthetic_scenes

BANDS = ["blue", "green", "red", "nir"]


def loader(scenes: Synthetic) -> Loader:
    cubes = gp.items(scenes.items).stack(BANDS, crs="utm", resolution=10, groupby="solar_day")
    cubes = cubes.join(gp.rasters(scenes.label), name="crop", nodata=UNKNOWN)
    chips = cubes.chip(64).shuffle(seed=0).read().scale(BANDS, factor=1e-4)
    # Rank and number of ranks are those of torch.distributed.
    return chips.tensor(image=BANDS, label="crop", fill=0, time_axis=False).batch(8, drop_last=True).loader()


def scenes_of_all(folder: Path, size: int) -> Synthetic:
    """Write the same scenes on each rank, one after the other: nobody reads what is being written."""
    for rank in range(dist.get_world_size()):
        if rank == dist.get_rank():
            scenes = synthetic_scenes(folder, dates=["2024-07-12"], size=size)
        dist.barrier()
    return scenes


def main(size: int, steps: int, out: Path) -> None:
    if "RANK" not in os.environ:  # started by python alone: one rank
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    dist.init_process_group("gloo")
    rank, kept = dist.get_rank(), out / "ddp.pt"
    scenes = scenes_of_all(out / "scenes", size)
    torch.manual_seed(0)
    model = UNet(bands=len(BANDS), classes=len(scenes.classes), width=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batches = loader(scenes)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "batches": batches}
    if kept.exists():
        for name, state in torch.load(kept).items():
            parts[name].load_state_dict(state)
    parallel = DistributedDataParallel(model)
    for step, batch in enumerate(islice(batches, steps)):
        optimizer.zero_grad()
        loss = cross_entropy(parallel(batch["image"]), batch["label"].long(), ignore_index=UNKNOWN)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        said = f"step {step}, rank {rank} of {dist.get_world_size()}: loss {loss:.3f}, chips {batch['chip'].tolist()}"
        print(said + "\n", end="")  # in one piece, beside what other ranks print
    dist.barrier()  # nobody opens the file before all have
    if rank == 0:
        torch.save({name: part.state_dict() for name, part in parts.items()}, kept)
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels of 10 m on each side of a scene")
    parser.add_argument("--steps", type=int, default=10, help="of training, 8 chips each, of all ranks together")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the scenes and the state")
    main(**vars(parser.parse_args()))
