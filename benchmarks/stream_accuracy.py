"""How mIoU falls along a video: by the number of frames since the static network last ran.

    uv run python benchmarks/stream_accuracy.py runs/cell/last.safetensors camvid/val --frames 8

The data are one clip whose every frame is labelled. A stream begins at each frame and is followed for `--frames` frames, so that
every position in a stream is judged on the same frames of the clip: all but the first few.
"""

import argparse
from typing import Any

from perpixel.data.loader import test_batches
from perpixel.data.open import open_dataset
from perpixel.data.settings import DataConfig
from perpixel.engine.bar import counting_bar
from perpixel.engine.evaluate import counted_pixels
from perpixel.engine.load import load
from perpixel.engine.semantic_metrics import PixelCounts, semantic_metrics
from perpixel.engine.video import VideoPredictor
from perpixel.errors import InputError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="of a model with a dynamic cell")
    parser.add_argument("clip", help="such as camvid/val")
    parser.add_argument("--frames", type=int, default=8, help="of a stream (default: 8)")
    asked = parser.parse_args()
    predictor, dataset = load(asked.checkpoint), open_dataset(asked.clip)
    if not isinstance(predictor, VideoPredictor):
        raise InputError(f"{asked.checkpoint} follows no videos: take a checkpoint of a recipe dynamic_cell_*")
    data = DataConfig(test=predictor.test_size, workers=0, stuff="all")
    memories: dict[int, Any] = {}  # by the frame that the stream began at
    counts: list[list[PixelCounts]] = [[] for _ in range(asked.frames)]
    with counting_bar("frames", len(dataset)) as bar:
        for batch in test_batches(dataset, data, batch_size=1):
            (index,) = batch.ids
            memories[index] = None
            memories.pop(index - asked.frames, None)
            for start in memories:
                (found,), memories[start] = predictor.model.follow(batch.to(predictor.device), memories[start])
                if index >= asked.frames - 1 and found.segments is not None:
                    counts[index - start].append(counted_pixels(dataset, index, found.segments.to("cpu")))
            bar.advance()
    print("| frames since the static one | mIoU | gAcc | tIoU | mIoU when the static one runs again after it |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for position, own in enumerate(counts):
        one = semantic_metrics(own, dataset.stuff.names)
        so_far = semantic_metrics([count for some in counts[: position + 1] for count in some], dataset.stuff.names)
        cells = [one.mean_iou, one.accuracy, one.trimap_iou, so_far.mean_iou]
        print(f"| {position} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |")
    print(f"{len(counts[0])} frames of {asked.clip}")


if __name__ == "__main__":
    main()
