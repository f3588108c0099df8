"""The picture of docs/methods/blendmask.md: bases, attentions and how they blend (figures 4.1 and 4.3 of thesis 004).

    uv run perpixel train blendmask_shapes --out runs/blendmask_shapes
    uv run python benchmarks/blendmask_figure.py runs/blendmask_shapes/best.safetensors docs/images/blendmask.png
    uv run python benchmarks/blendmask_figure.py best.safetensors bases.png --photo street.jpg

Without --photo it is a generated photo that the training on shapes has not seen. Above: the photo, each basis over it (orange
where it speaks for a mask, blue where against), the attentions over the boxes, a colour a basis. Below, a row an object: its part
of the photo, each basis cut out with the attention that weighs it in its corner, and their sum, the mask.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from perpixel.data.geometry import whole
from perpixel.data.loader import prepare_image
from perpixel.data.shapes import ShapesDataset
from perpixel.engine.checkpoint import Checkpoint, build_model, load_checkpoint
from perpixel.engine.lettering import label_font
from perpixel.models.blendmask import BlendMaskHead, Maps
from perpixel.models.detector import Detector
from perpixel.ops.blend import cut_bases, enlarge
from perpixel.ops.masks import spread_over_boxes
from perpixel.structures import Batch, Candidates, pad_images

WIDTH, CELL, GAP, CAPTION = 200, 200, 8, 22
FOR, AGAINST = np.array([1.0, 0.55, 0.1]), np.array([0.1, 0.35, 0.9])
COLORS = np.array(
    [[0.85, 0.1, 0.1], [0.15, 0.3, 0.9], [0.95, 0.8, 0.1], [0.1, 0.65, 0.25], [0.6, 0.2, 0.7], [0.1, 0.7, 0.8]]
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--image", type=int, default=0, help="number of the generated photo")
    parser.add_argument("--objects", type=int, default=2)
    asked = parser.parse_args()
    checkpoint = load_checkpoint(asked.checkpoint)
    model = build_model(checkpoint).eval()
    assert isinstance(model, Detector) and isinstance(model.instance_head, BlendMaskHead)
    if model.instance_head.top is None or model.instance_head.config.bases > len(COLORS):
        parser.error(f"the picture is of models with attentions and at most {len(COLORS)} bases")
    photo = read(checkpoint, asked.photo, asked.seed, asked.image)
    with torch.inference_mode():
        sheet = draw(model, model.instance_head, photo, asked.objects)
    sheet.quantize(256, dither=Image.Dither.NONE).save(asked.picture, optimize=True)
    print(f"{asked.picture}: {asked.picture.stat().st_size // 1000} kB")


def read(checkpoint: Checkpoint, path: Path | None, seed: int, number: int) -> np.ndarray:
    """The photo at the size the network sees."""
    if path is not None:
        with Image.open(path) as image:
            return (
                prepare_image(np.asarray(image.convert("RGB")), checkpoint.recipe.data.test)[0].permute(1, 2, 0).numpy()
            )
    dataset = ShapesDataset(100, seed=seed)
    record = dataset.record(number)
    return whole(record.size, (128, round(128 * record.size[1] / record.size[0]))).image(dataset.image(number))


def draw(model: Detector, head: BlendMaskHead, photo: np.ndarray, objects: int) -> Image.Image:
    """The sheet."""
    size = (photo.shape[0], photo.shape[1])
    batch = Batch(pad_images([torch.from_numpy(photo.copy()).permute(2, 0, 1)], 32), (size,), (size,))
    outputs, dense = model(model.normalized(batch))
    found = model.selection.choose(outputs, (size,))
    assert isinstance(dense, Maps) and found.scores is not None
    found = found.rows(found.scores > 0.3)
    whole_row = whole_image(head, photo, dense, found)
    rows = blending(head, photo, dense, found.rows(torch.arange(min(objects, len(found)))))
    height = round(WIDTH * size[0] / size[1])
    bases = head.config.bases
    names = [f"basis {k + 1}" for k in range(bases)]
    above, below = ["photo and boxes", *names, "attentions"], ["object", *names, "mask"]
    sheet = Image.new(
        "RGB",
        (len(above) * (WIDTH + GAP), 2 * CAPTION + height + GAP + len(rows) * (CELL + GAP)),
        "white",
    )
    pen, font = ImageDraw.Draw(sheet), label_font(14, above + below)
    for column, text in enumerate(above):
        pen.text((column * (WIDTH + GAP), 3), text, fill="black", font=font)
        sheet.paste(picture_of(whole_row[column], WIDTH, height), (column * (WIDTH + GAP), CAPTION))
    top = CAPTION + height + GAP
    for column, text in enumerate(below):
        pen.text((column * (CELL + GAP), top), text, fill="black", font=font)
    for i, row in enumerate(rows):
        for column, cells in enumerate(row):
            at = (column * (CELL + GAP), top + CAPTION + i * (CELL + GAP))
            sheet.paste(picture_of(cells, CELL, CELL), at)
    return sheet


def whole_image(head: BlendMaskHead, photo: np.ndarray, dense: Maps, found: Candidates) -> list[np.ndarray]:
    """Figure 4.3: the photo, the bases over it, the attentions of all objects in the colours of the bases."""
    size = (photo.shape[0], photo.shape[1])
    gray = photo.mean(axis=2, keepdims=True) / 255
    framed = Image.fromarray(photo)
    pen = ImageDraw.Draw(framed)
    for box in found.boxes.tolist():
        pen.rectangle(box, outline=(255, 140, 0), width=max(1, size[1] // 300))
    stride = head.bottom.stride
    large = torch.nn.functional.interpolate(dense.bases, scale_factor=stride, mode="bilinear", align_corners=False)
    values = large[0, :, : size[0], : size[1]].numpy()
    values = values / np.abs(values).max()
    bases = [0.45 * gray + 0.55 * signed(basis) for basis in values]
    weights = head.attentions(dense, found).softmax(dim=1)
    mixed = 0.7 + 0.3 * np.repeat(gray, 3, axis=2)
    # The best on top.
    for box, weight in reversed(list(zip(found.boxes, weights, strict=True))):
        of_basis = spread_over_boxes(weight, box[None].expand(len(weight), 4), size).numpy()
        inside = of_basis.sum(axis=0)[..., None] > 0.5
        mixed = np.where(inside, 0.3 * gray + 0.7 * np.tensordot(of_basis, COLORS[: len(of_basis)], ([0], [0])), mixed)
    return [np.asarray(framed) / 255, *bases, mixed]


def blending(head: BlendMaskHead, photo: np.ndarray, dense: Maps, found: Candidates) -> list[list[np.ndarray]]:
    """Figure 4.1, a row an object."""
    config = head.config
    picture = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() / 255
    parts = cut_bases(picture, found.boxes, torch.zeros_like(found.image), 1, CELL)
    regions = cut_bases(dense.bases, found.boxes, found.image, head.bottom.stride, config.region)
    weights = enlarge(head.attentions(dense, found), config.region, config.enlarging)
    weights = weights.sigmoid() if config.bases == 1 else weights.softmax(dim=1)
    masks = head.logits(dense, found).sigmoid()
    rows = []
    for part, region, weight, mask in zip(parts, regions, weights, masks, strict=True):
        scale = region.abs().max()
        cells = [
            with_inset(signed((basis / scale).numpy()), weight[k].numpy()[..., None] * COLORS[k])
            for k, basis in enumerate(region)
        ]
        rows.append([part.permute(1, 2, 0).numpy(), *cells, np.repeat(mask.numpy()[..., None], 3, axis=2)])
    return rows


def signed(values: np.ndarray) -> np.ndarray:
    """White at 0, orange at 1, blue at -1."""
    strength = np.abs(values)[..., None]
    return 1 - strength + strength * np.where(values[..., None] > 0, FOR, AGAINST)


def with_inset(large: np.ndarray, small: np.ndarray) -> np.ndarray:
    """The second in the lower right corner of the first, at two fifths of its size, with a white line around it."""
    side = large.shape[0]
    inset = np.asarray(picture_of(small, 2 * side // 5, 2 * side // 5)) / 255
    out = large.copy()
    start = side - inset.shape[0]
    out[start - 1 :, start - 1 :] = 1
    out[start:, start:] = inset
    return out


def picture_of(values: np.ndarray, width: int, height: int) -> Image.Image:
    return Image.fromarray((255 * np.clip(values, 0, 1)).astype(np.uint8)).resize((width, height))


if __name__ == "__main__":
    main()
