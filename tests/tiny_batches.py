"""Two images and random objects, small enough for any detector in a test."""

import torch

from perpixel.structures import VOID, Batch, Targets


def filled(boxes, size):
    """Every pixel whose centre lies in the box, and the mean of their indices."""
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    inside = [(x > x1) & (x < x2) & (y > y1) & (y < y2) for x1, y1, x2, y2 in boxes]
    masks = torch.stack(inside) if inside else torch.zeros(0, *size, dtype=torch.bool)
    centers = [mask.nonzero().float().mean(dim=0).flip(0) for mask in masks]
    return masks, torch.stack(centers) if centers else torch.zeros(0, 2)


def batch_of(objects):
    """Two images of 96 x 96 with the given number of filled boxes each, of three classes, with 17
    keypoints each, before two halves of stuff."""
    generator = torch.Generator().manual_seed(sum(objects))
    joints = torch.Generator().manual_seed(sum(objects))
    targets, sizes = [], ((96, 96), (90, 80))
    for count, (height, width) in zip(objects, sizes, strict=True):
        low = torch.rand(count, 2, generator=generator) * 40
        size = 10 + torch.rand(count, 2, generator=generator) * 40
        boxes = torch.cat([low, low + size], dim=1)
        masks, centers = filled(boxes, (96, 96))
        stuff = torch.full((96, 96), VOID, dtype=torch.uint8)
        stuff[:40, :width], stuff[40:height, :width] = 1, 2
        stuff[masks.any(dim=0)] = 0
        labels = torch.randint(3, (count,), generator=generator)
        places = low[:, None] + size[:, None] * torch.rand(count, 17, 2, generator=joints)
        seen = torch.randint(3, (count, 17, 1), generator=joints).float()
        keypoints = torch.cat([places, seen], dim=2)
        targets.append(Targets(boxes, labels, masks, centers, keypoints, stuff=stuff))
    images = torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8, generator=generator)
    return Batch(images, sizes, ((96, 96),) * 2, tuple(targets))


def triangles(objects):
    """Two 64 x 96 images with the given number of objects each, every one the upper left triangle of its box."""
    generator = torch.Generator().manual_seed(sum(objects))
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    targets = []
    for count in objects:
        low = torch.rand(count, 2, generator=generator) * torch.tensor([50.0, 25.0])
        boxes = torch.cat([low, low + 16 + torch.rand(count, 2, generator=generator) * 20], dim=1)
        masks = torch.zeros(count, 64, 96, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.tolist(), strict=True):
            mask[(x > x1) & (y > y1) & ((x - x1) / (x2 - x1) + (y - y1) / (y2 - y1) < 1)] = True
        targets.append(Targets(boxes, torch.randint(3, (count,), generator=generator), masks=masks))
    images = torch.randint(256, (2, 3, 64, 96), dtype=torch.uint8, generator=generator)
    return Batch(images, ((64, 96), (60, 90)), ((64, 96),) * 2, tuple(targets))
