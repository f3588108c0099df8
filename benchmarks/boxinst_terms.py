"""The picture of docs/methods/boxinst.md: both terms of BoxInst's loss on one object (thesis 002, figure 6.1).

    uv run python benchmarks/boxinst_terms.py docs/images/boxinst_terms.png

The photo is a generated one. The prediction is made up: the truth moved and blurred, as halfway through training. Colours, pairs,
losses and gradients are those of the library's own functions.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from perpixel.data.geometry import whole
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.lettering import label_font
from perpixel.models.boxinst import BoxInst, projection_loss
from perpixel.ops.affinity import color_similarity, ends, half_neighbourhood
from perpixel.ops.boxes import filled_boxes
from perpixel.structures import Batch, Candidates, pad_images

ENLARGED, SIDE, GAP, CAPTION = 4, 300, 14, 40
BOX, PREDICTION = (255, 140, 0), (30, 110, 220)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    draw(arguments.seed).quantize(256, dither=Image.Dither.NONE).save(arguments.picture, optimize=True)
    print(f"{arguments.picture}: {arguments.picture.stat().st_size // 1000} kB")


def draw(seed: int) -> Image.Image:
    """Six panels around the largest object of a generated photo."""
    dataset = ShapesDataset(1, seed=seed)
    record, image = dataset.record(0), dataset.image(0)
    row = int(np.argmax(np.prod(record.boxes[:, 2:] - record.boxes[:, :2], axis=1)))
    size = (record.size[0] * ENLARGED, record.size[1] * ENLARGED)
    placement = whole(record.size, size)
    pixels = torch.from_numpy(placement.image(image)).permute(2, 0, 1)
    box = torch.from_numpy(record.boxes[[row]]) * ENLARGED
    batch = Batch(pad_images([pixels], 32), (size,), (record.size,), progress=10**6)
    head = BoxInst(bottom_pixels=0).build(8, 8, (8, 16, 32), 1)
    height, width = batch.images.shape[2] // head.stride, batch.images.shape[3] // head.stride

    truth = np.zeros(tuple(batch.images.shape[2:]), dtype=bool)
    placement.patch(record.shapes[row]).paste(truth)
    small = torch.from_numpy(truth)[None, None, 2 :: head.stride, 2 :: head.stride].float()
    moved = F.avg_pool2d(small.roll((4, 6), (2, 3)), 9, stride=1, padding=4)
    logits = (8 * (moved[0] - 0.45)).requires_grad_()

    inside = filled_boxes(box, head.stride, height, width)
    probability = logits.sigmoid()
    projection = projection_loss(probability, inside).sum()
    (to_box,) = torch.autograd.grad(projection, logits, retain_graph=True)
    pairwise = head.pairwise(logits, inside, _candidate(box), batch)
    (to_colors,) = torch.autograd.grad(pairwise, logits)

    x1, y1, x2, y2 = (int(v) // head.stride for v in box[0])
    middle_x, middle_y, reach = (x1 + x2) // 2, (y1 + y2) // 2, int(0.75 * max(x2 - x1, y2 - y1))
    left, top = max(0, middle_x - reach), max(0, middle_y - reach)
    window = (slice(top, min(height, middle_y + reach)), slice(left, min(width, middle_x + reach)))
    outline = (x1 - left, y1 - top, x2 - left, y2 - top)

    small_photo = F.avg_pool2d(batch.images.float(), head.stride)[0].permute(1, 2, 0).byte().numpy()
    likeness = _trusted(head, batch, height, width)
    mask = probability[0].detach()
    panels = [
        (_framed(small_photo[window], outline), "the photo and the box: all that is known"),
        (
            _projected(mask[window], inside[0][window], outline),
            f"a prediction (blue), its projections and the box's: {projection:.2f}",
        ),
        (_pushes(-to_box[0][window], outline), "the projection term asks for more (green), less (red)"),
        (_framed(_grey(inside[0][window].float()), outline), "pairs with an end in the box count"),
        (_framed(_grey(likeness[window]), outline), "share of neighbours of like colour (likeness >= 0.3)"),
        (_pushes(-to_colors[0][window], outline), f"the pairwise term ({pairwise:.2f}) asks for more, less"),
    ]
    return _sheet(panels)


def _candidate(box: torch.Tensor) -> Candidates:
    none = torch.zeros(1, dtype=torch.long)
    return Candidates(none, none, none, none, box[:, :2], torch.ones(1), box, box, None, none, target=none)


def _trusted(head, batch: Batch, height: int, width: int) -> torch.Tensor:
    """Of each cell's eight neighbours, the share that the loss takes to have its label."""
    scene, config = head.scene(batch, height, width), head.config
    trusted, count = torch.zeros(height, width), torch.zeros(height, width)
    for offset in half_neighbourhood(config.size, config.dilation):
        alike = (color_similarity(*ends(scene.colors, offset), config.theta)[0] >= config.tau).float()
        for total, value in ((trusted, alike), (count, torch.ones_like(alike))):
            for view in ends(total, offset):
                view += value
    return trusted / count


def _grey(values: torch.Tensor) -> np.ndarray:
    return (255 * values).byte().numpy()[:, :, None].repeat(3, axis=2)


def _framed(cells: np.ndarray, outline: tuple[int, int, int, int], side: int = SIDE) -> Image.Image:
    scale = side / max(cells.shape[:2])
    size = (round(cells.shape[1] * scale), round(cells.shape[0] * scale))
    picture = Image.fromarray(np.ascontiguousarray(cells)).resize(size, Image.Resampling.NEAREST)
    ImageDraw.Draw(picture).rectangle([round(v * scale) for v in outline], outline=BOX, width=3)
    return picture


def _projected(mask: torch.Tensor, box: torch.Tensor, outline: tuple[int, int, int, int]) -> Image.Image:
    """The prediction, with its columns' maxima below and its rows' maxima at the right; the box's as lines of its colour."""
    cells = (255 - mask[:, :, None] * (255 - torch.tensor(PREDICTION))).byte().numpy()
    margin = 46
    picture = _framed(cells, outline, SIDE - margin)
    out = Image.new("RGB", (picture.width + margin, picture.height + margin), "white")
    out.paste(picture, (0, 0))
    pen = ImageDraw.Draw(out)
    for axis, length in ((0, mask.shape[1]), (1, mask.shape[0])):
        for values, color, wide in ((mask, PREDICTION, 2), (box.float(), BOX, 3)):
            along = (torch.arange(length) + 0.5) * (picture.width if axis == 0 else picture.height) / length
            high = 4 + (margin - 10) * values.amax(dim=axis)
            if axis == 0:
                points = [(float(x), picture.height + float(y)) for x, y in zip(along, high, strict=True)]
            else:
                points = [(picture.width + float(y), float(x)) for x, y in zip(along, high, strict=True)]
            pen.line(points, fill=color, width=wide)
    return out


def _pushes(push: torch.Tensor, outline: tuple[int, int, int, int]) -> Image.Image:
    """Green where the loss wants the logit larger, red where smaller."""
    strength = (push.abs() / push.abs().quantile(0.995).clamp(min=1e-9)).clamp(max=1).sqrt()
    cells = torch.full((*push.shape, 3), 255.0)
    cells[..., 0] -= torch.where(push > 0, 225 * strength, 0.0)
    cells[..., 1] -= torch.where(push > 0, 95 * strength, 225 * strength)
    cells[..., 2] -= 200 * strength
    return _framed(cells.clamp(0, 255).byte().numpy(), outline)


def _sheet(panels: list[tuple[Image.Image, str]]) -> Image.Image:
    rows = -(-len(panels) // 3)
    sheet = Image.new("RGB", (3 * SIDE + 4 * GAP, rows * (SIDE + CAPTION + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), label_font(13, [text for _, text in panels])
    for number, (picture, text) in enumerate(panels):
        x, y = GAP + (number % 3) * (SIDE + GAP), GAP + (number // 3) * (SIDE + CAPTION + GAP)
        sheet.paste(picture, (x, y))
        pen.text((x, y + SIDE + 4), _wrapped(text, font), fill="black", font=font)
    return sheet


def _wrapped(text: str, font) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= SIDE else [*lines, word]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
