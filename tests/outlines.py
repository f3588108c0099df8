"""A triangle and a disc: outlines that their boxes filled miss by half (IoU 0.5) and by a fifth (0.785)."""

from dataclasses import replace

import torch

from parity.whole_masks import whole_masks
from perpixel.structures import Batch, Targets

SIZE = (64, 96)
BOXES = ((8.0, 8.0, 48.0, 48.0), (50.0, 16.0, 90.0, 56.0))


def triangle_and_disc(images=1):
    """Both in one image, or in as many alike; class 0 red and class 1 blue."""
    y, x = _centers()
    return _painted(torch.stack([(x - 8 < y - 8) & (x > 8) & (y < 48), _disc(x, y)]), images)


def diamond_and_disc():
    """A diamond in place of the triangle: it touches its box on four sides, as projections need."""
    y, x = _centers()
    return _painted(torch.stack([(x - 28).abs() + (y - 28).abs() < 20, _disc(x, y)]), 1)


def taught(model, batch, steps, rate=3e-3, last=0.05):
    """What the model finds in the batch's first image after so many steps on it, the rate falling evenly to `last` of itself."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, last, total_iters=steps)
    for step in range(steps):
        optimizer.zero_grad()
        sum(model.loss(replace(batch, progress=step)).values()).backward()
        optimizer.step()
        schedule.step()
    return model.eval().predict(replace(batch, targets=None))[0]


def overlaps(found, batch):
    """IoU of the best mask of each class with the truth."""
    rows = torch.stack([torch.nonzero(found.labels == label)[0, 0] for label in (0, 1)])
    masks, truth = whole_masks(found.masks.rows(rows), found.boxes[rows], SIZE), batch.targets[0].masks
    return (masks & truth).sum(dim=(1, 2)) / (masks | truth).sum(dim=(1, 2))


def _centers():
    return torch.meshgrid(*(torch.arange(side) + 0.5 for side in SIZE), indexing="ij")


def _disc(x, y):
    return (x - 70).square() + (y - 36).square() < 20**2


def _painted(masks, images):
    image = torch.full((3, *SIZE), 60, dtype=torch.uint8)
    image[0, masks[0]], image[2, masks[1]] = 220, 220
    centers = torch.stack([mask.nonzero().float().mean(dim=0).flip(0) for mask in masks])
    targets = Targets(torch.tensor(BOXES), torch.tensor([0, 1]), masks, centers)
    return Batch(image[None].repeat(images, 1, 1, 1), (SIZE,) * images, (SIZE,) * images, (targets,) * images)
