"""Objects in a photo by a file of `perpixel export`, without PyTorch and without perpixel.

python onnx_without_torch.py model.onnx photo.jpg found.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageOps

model, source, target = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
facts = session.get_modelmeta().custom_metadata_map
class_names, short_side, max_side = (json.loads(facts[name]) for name in ("class_names", "short_side", "max_side"))

# The photo, upright, at the size the model was trained for: RGB, 0..255, channels first, in a batch of one.
photo = ImageOps.exif_transpose(Image.open(source)).convert("RGB")
scale = min(short_side / min(photo.size), max_side / max(photo.size))
resized = photo.resize([round(side * scale) for side in photo.size], Image.Resampling.BILINEAR)
images = np.asarray(resized, np.float32).transpose(2, 0, 1)[None]

# One row an object, best first, none below the score. Boxes are in pixels of the resized photo.
outputs = [output.name for output in session.get_outputs()]
values = session.run(outputs, {"images": images, "score": np.array([0.5], np.float32)})
found = dict(zip(outputs, values, strict=True))
boxes = found["boxes"] * np.tile(np.divide(photo.size, resized.size), 2)

pen = ImageDraw.Draw(photo)
for row, (box, score, label) in enumerate(zip(boxes, found["scores"], found["classes"], strict=True)):
    color = f"hsl({row * 67 % 360}, 90%, 50%)"
    if "masks" in found:  # probabilities at every pixel of the resized photo
        mask = np.asarray(Image.fromarray(found["masks"][row]).resize(photo.size, Image.Resampling.BILINEAR)) > 0.5
        photo.paste(color, mask=Image.fromarray(mask * np.uint8(128)))
    pen.rectangle(box.tolist(), outline=color, width=2)
    pen.text(box[:2].tolist(), f"{class_names[label]} {score:.2f}", fill="white")
    print(f"{class_names[label]} {score:.3f} {' '.join(f'{value:.2f}' for value in box)}")
photo.save(target)
