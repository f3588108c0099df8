"""`forward` of every method traces as one graph, so it compiles.

In a process of its own, where no shape checks break the trace.
"""

import subprocess
import sys

SCRIPT = """
import torch
from dataclasses import replace
from perpixel.models.segmenter import Segmenter
from perpixel.nn.backbones import Backbone
from perpixel.recipes import all_recipes, get_recipe

tiny = Backbone("test_resnet", weights=None, norm="train", frozen_stages=0)
names = [name for name in all_recipes() if name.endswith("_mobilenetv2")]
assert len(names) >= 2, names
for name in names:
    config = get_recipe(name).model
    classes = 3
    if isinstance(config, Segmenter):
        classes, config = 0, replace(config, backbone=replace(tiny, stages=config.backbone.stages))
    elif hasattr(config, "detector"):  # panoptic
        detector = replace(config.detector, backbone=replace(tiny, stages=config.detector.backbone.stages))
        config = replace(config, detector=detector)
    else:
        config = replace(config, backbone=replace(tiny, stages=config.backbone.stages))
    model = config.build(classes=classes, stuff=2).eval()
    torch.compiler.reset()  # every model counts as a recompilation of the same forward, of which there may be eight
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        outputs, *_ = torch.compile(model, backend="eager", fullgraph=True)(images)
        expected, *_ = model(images)
    if isinstance(config, Segmenter):
        torch.testing.assert_close(outputs, expected)
    else:
        torch.testing.assert_close(outputs.logits, expected.logits)
        torch.testing.assert_close(outputs.boxes, expected.boxes)
    print(name)
"""


def test_forward_is_one_static_graph():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "fcos_mobilenetv2" in done.stdout and "retinanet_mobilenetv2" in done.stdout
