"""The picture of docs/methods/dr1mask.md: all components of the factored attention (figure 5.5 of thesis 004).

    uv run perpixel train dr1mask_shapes --out runs/dr1mask_shapes
    uv run python benchmarks/dr1mask_figure.py runs/dr1mask_shapes/best.safetensors docs/images/dr1mask.png

Row k, column d: the outer product of rows d of U_k and V_k, which is the attention of basis k for an instance whose numbers
are 1 at d and 0 elsewhere. Orange where it asks for the basis, blue where against it, each by its own largest value.
"""

import argparse
from pathlib import Path

import torch
from blendmask_figure import CAPTION, CELL, GAP, picture_of, signed
from PIL import Image, ImageDraw

from perpixel.engine.checkpoint import build_model, load_checkpoint
from perpixel.engine.lettering import label_font
from perpixel.models.detector import Detector
from perpixel.models.dr1mask import DR1MaskHead
from perpixel.nn.attention import FactoredAttention


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("picture", type=Path)
    asked = parser.parse_args()
    model = build_model(load_checkpoint(asked.checkpoint))
    assert isinstance(model, Detector) and isinstance(model.instance_head, DR1MaskHead)
    attention = model.instance_head.attention
    if not isinstance(attention, FactoredAttention):
        parser.error("the picture is of models with model.instance.attention.kind=Factored")
    sheet = draw(attention)
    sheet.quantize(256, dither=Image.Dither.NONE).save(asked.picture, optimize=True)
    print(f"{asked.picture}: {asked.picture.stat().st_size // 1000} kB")


@torch.no_grad()
def draw(attention: FactoredAttention) -> Image.Image:
    """A row a basis, a column a component."""
    components = torch.einsum("kri,krj->krij", attention.u, attention.v)
    bases, rank = components.shape[:2]
    side, left = CELL // 2, 80
    sheet = Image.new("RGB", (left + rank * (side + GAP), CAPTION + bases * (side + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), label_font(14, ["basis component"])
    for d in range(rank):
        pen.text((left + d * (side + GAP), 3), f"component {d + 1}", fill="black", font=font)
    for k in range(bases):
        top = CAPTION + k * (side + GAP)
        pen.text((8, top + side // 2 - 8), f"basis {k + 1}", fill="black", font=font)
        for d in range(rank):
            values = components[k, d] / components[k, d].abs().max().clamp(min=1e-12)
            sheet.paste(picture_of(signed(values.numpy()), side, side), (left + d * (side + GAP), top))
    return sheet


if __name__ == "__main__":
    main()
