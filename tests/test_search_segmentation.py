"""Searches for decoders and dynamic cells: spaces, cached outputs of the static network, the proxy training and its reward."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from perpixel.cli.main import main
from perpixel.config import override
from perpixel.data.settings import DataConfig, TestSize
from perpixel.engine.checkpoint import save_checkpoint
from perpixel.engine.recipe import Recipe
from perpixel.errors import InputError
from perpixel.models.segmenter import Segmenter
from perpixel.models.video_segmenter import VideoSegmenter
from perpixel.nn.backbones import Backbone
from perpixel.nn.decoder import ARCH2
from perpixel.search.proxy import ProxyTraining
from perpixel.search.runner import load_run
from perpixel.search.spaces import decoder, dynamic_cell
from perpixel.search.spaces.decoder import DecoderProxy, DecoderReward, DecoderSearch, DecoderSpace
from perpixel.search.spaces.dynamic_cell import CellProxy, CellReward, CellSpace, DynamicCellSearch
from perpixel.search.static_outputs import meta_split, open_training_data, prepared, static_outputs
from perpixel.structures import VOID, Batch, Stuff, Targets
from test_search import inline  # noqa: F401  (a fixture)

TINY = Segmenter(
    backbone=Backbone("test_resnet", stages=(4, 8, 16, 32), norm="train", frozen_stages=0, weights=None), width=8
)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """CamVid's form: two sequences of four frames of 50 x 70, a bright square that moves on dark ground; some void."""
    split = tmp_path_factory.mktemp("camvid") / "train"
    split.mkdir()
    split.with_name("trainannot").mkdir()
    for sequence in range(2):
        for frame in range(4):
            numbers = np.full((50, 70), 3, np.uint8)
            numbers[10:35, 5 + 8 * frame : 35 + 8 * frame] = 8 - sequence
            numbers[:4] = 11
            pixels = np.repeat((numbers * 20)[..., None], 3, axis=2)
            Image.fromarray(pixels).save(split / f"s{sequence}_{frame:03d}.png")
            Image.fromarray(numbers).save(split.with_name("trainannot") / f"s{sequence}_{frame:03d}.png")
    return split


@pytest.fixture(scope="module")
def static(video, tmp_path_factory) -> Path:
    """A checkpoint of a per-frame network of a few channels."""
    torch.manual_seed(0)
    data = open_training_data(DataConfig(train=str(video), stuff="all"))
    path = tmp_path_factory.mktemp("static") / "static.safetensors"
    model = TINY.build(0, len(data.stuff))
    save_checkpoint(path, model, Recipe("tiny", TINY), (), stuff=Stuff(data.stuff.names, data.stuff.category_ids))
    return path


def data_of(video: Path, frames: int) -> DataConfig:
    return DataConfig(train=str(video), test=TestSize(50, 1000), stuff="all", frames=frames)


def test_the_published_decoders_are_in_the_space():
    """arch2's 20 answers: the merges 1 3, 4 3, 2 2; operation 5; then 0 0 4 1, 3 2 0 1, 5 6 5 0 (facts of the publication)."""
    tokens = (1, 3, 4, 3, 2, 2, 5, 0, 0, 4, 1, 3, 2, 0, 1, 5, 6, 5, 0)
    assert DecoderSpace(3, 3).tokens(ARCH2) == tokens
    assert DecoderSpace(3, 3).build(tokens) == ARCH2


def test_questions_of_a_cell():
    """Five a step; the inputs to choose from grow by one each step, from five."""
    asked = CellSpace(3).questions((0,) * 15)
    assert [decision.count for decision in asked] == [5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 7, 6, 6, 6]


def test_meta_split():
    train, val = meta_split(20, 0.1, 0)
    assert len(val) == 2 and sorted([*train.tolist(), *val.tolist()]) == list(range(20))
    assert all(len(part) == 1 for part in meta_split(2, 0.9, 0))
    with pytest.raises(InputError, match="two are needed"):
        meta_split(1, 0.1, 0)


def test_static_outputs_are_those_of_the_network(video):
    """Windows of three: the cached maps of each frame are the encoder's of that frame alone, padding and all."""
    data = data_of(video, 3)
    dataset = open_training_data(data)
    torch.manual_seed(0)
    model = TINY.build(0, len(dataset.stuff))
    outputs = static_outputs(model, dataset, data, limit=None, meta_val=0.25, seed=0, device=torch.device("cpu"))
    assert len(outputs.frames) == 3 and len(outputs.train) == 6 and len(outputs.val) == 2
    padded = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
    padded[0, :, :50, :70] = torch.from_numpy(dataset.image(2)).permute(2, 0, 1)
    with torch.no_grad():
        maps = model.encode(model.pixels.normalize(padded, ((50, 70),)))
    for place, index in ((2, 2), (1, 3)):  # image 2 is the last frame of its own window, the middle one of image 3's
        for cached, one in zip(outputs.frames[place].maps, maps, strict=True):
            torch.testing.assert_close(cached[index], one[0])
    truth = outputs.frames[2].truth[2]
    assert truth.shape == (64, 96) and bool((truth[:4] == VOID).all()) and bool((truth[50:] == VOID).all())
    assert truth[20, 30] == 8 and truth[45, 5] == 3


def test_truth_at_another_size():
    """Half the size: each pixel takes the class at its middle, (i + 0.5) * 2 = 2 i + 1."""
    stuff = np.arange(1, 17, dtype=np.uint8).reshape(4, 4)
    frame = dynamic_cell_frame(stuff)
    _, size, truth = prepared(frame, DataConfig(test=TestSize(2, 2)), (3, 2))
    assert size == (2, 2) and truth.tolist() == [[5, 7], [13, 15], [VOID, VOID]]


def dynamic_cell_frame(stuff):
    from perpixel.data.dataset import PastFrame

    return PastFrame(np.zeros((4, 4, 3), np.uint8), stuff)


def test_a_cell_sees_what_it_would_in_the_model(video, static):
    """On cached outputs the loss is that of the video model on the same windows, batch norms included."""
    found = dynamic_cell.prepare(str(static), data_of(video, 3), None, 0.25, 0)
    genotype = CellSpace(2).build((1, 2, 4, 0, 0, 5, 4, 4, 0, 5))
    torch.manual_seed(3)
    proxy = CellProxy(genotype, found)
    model = VideoSegmenter(backbone=TINY.backbone, width=8, cell=genotype, static="fixed").build(0, 11)
    missing = model.load_state_dict(load_static(static), strict=False)
    assert all(name.startswith("cell.") for name in missing.missing_keys) and not missing.unexpected_keys
    model.cell.load_state_dict(proxy.network.state_dict())
    chosen = torch.tensor([2, 5])
    dataset = open_training_data(data_of(video, 3))

    def batch(back: int) -> Batch:
        frames = [[*dataset.before(int(i), 2), None][2 - back] for i in chosen]
        images, maps = [], []
        for i, past in zip(chosen.tolist(), frames, strict=True):
            images.append(dataset.image(i) if past is None else past.image)
            maps.append(dataset.stuff_map(i) if past is None else past.stuff)
        pixels = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
        stuff = torch.full((2, 64, 96), VOID, dtype=torch.uint8)
        for row, (image, truth) in enumerate(zip(images, maps, strict=True)):
            pixels[row, :, :50, :70] = torch.from_numpy(image).permute(2, 0, 1)
            stuff[row, :50, :70] = torch.from_numpy(truth)
        targets = tuple(Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), stuff=one) for one in stuff)
        return Batch(pixels, ((50, 70),) * 2, targets=targets)

    last = batch(0)
    window = Batch(last.images, last.sizes, targets=last.targets, before=(batch(2), batch(1)))
    model.train()
    proxy.network.train()
    torch.testing.assert_close(proxy.loss(proxy.network, chosen), model.loss(window)["pixels"], rtol=1e-4, atol=1e-4)


def load_static(path: Path):
    from perpixel.engine.files import load_tensors

    return load_tensors(path)[0]


def test_a_decoder_learns_on_cached_maps(video):
    """After a few epochs the squares are told from the ground better than at random; every weight has a gradient."""
    training = ProxyTraining(epochs=12, batch_size=4, learning_rate=0.02, average=0.5)
    reward = DecoderReward(TINY, data_of(video, 1), training, None, 0.25, 0)
    torch.manual_seed(0)
    assert reward(ARCH2) > 0.4
    outputs = decoder.prepare(TINY, data_of(video, 1), None, 0.25, 0)
    proxy = DecoderProxy(ARCH2, outputs, 8, 0.15)
    proxy.loss(proxy.network, outputs.train).backward()
    assert [name for name, weight in proxy.network.named_parameters() if weight.grad is None] == []


def test_a_hopeless_cell_is_given_up(video, static):
    """Halfway it has not reached the limit: what it has is its reward, and it asked once."""
    from perpixel.search.trial import Hope, Task, evaluate

    reward = CellReward(str(static), data_of(video, 3), ProxyTraining(2, 4, 8e-3), None, 0.25, 0)
    genotype = CellSpace(1).build((1, 2, 4, 0, 0))
    stopped = evaluate(reward, Task(0, genotype, 1, Hope((5.0,), 0.01, 0.5)))
    assert stopped.stopped and stopped.interim == (stopped.reward,)
    whole = evaluate(reward, Task(0, genotype, 1))
    assert not whole.stopped and whole.interim == stopped.interim
    product = whole.values["mIoU"] * whole.values["fwIoU"] * whole.values["mAcc"]
    assert whole.reward == pytest.approx(product ** (1 / 3)) and whole.reward > 0


def test_the_commands(inline, video, static, tmp_path):  # noqa: F811
    """Both searches from the command line on tiny data, and their pages."""
    few = ["trials=2", "ahead=1", "training.epochs=2", "training.batch_size=4", "policy.hidden=8"]
    given = [f"data.train={video}", "data.test.short_side=50", "meta_val=0.25"]
    cell = ["dynamic_cell", *few, *given, f"static={static}", "steps=2", "data.frames=2"]
    tiny = ["model.backbone.name=test_resnet", "model.backbone.weights=null", "model.width=8", "steps=1", "merges=2"]
    for name, arguments in (("cell", cell), ("decoder", ["decoder", *few, *given, *tiny])):
        assert main(["search", *arguments, "--out", str(tmp_path / name)]) == 0
        outcomes = [outcome for _, _, outcome in load_run(tmp_path / name)[1].finished]
        assert len(outcomes) == 2 and [outcome.error for outcome in outcomes] == [None, None]
        assert all(set(outcome.values) == {"mIoU", "fwIoU", "mAcc"} for outcome in outcomes)
        assert "concat, dec" in (tmp_path / name / "search.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("search", "settings", "message"),
    [
        (DynamicCellSearch(), [], "static is not set"),
        (DynamicCellSearch(), ["static=a.safetensors", "data.frames=1"], "data.frames=2"),
        (DynamicCellSearch(), ["static=a.safetensors"], "data.train is not set"),
        (DynamicCellSearch(), ["static=a.safetensors", "data.train=scenes:4"], "no frames of videos"),
        (DecoderSearch(), [], "data.train is not set"),
    ],
)
def test_what_is_missing_is_said_at_once(search, settings, message):
    with pytest.raises(InputError, match=message):
        override(search, settings).reward()


def test_a_static_network_of_other_classes(static):
    data = DataConfig(train="scenes:4", test=TestSize(50, 1000), stuff="all")
    with pytest.raises(InputError, match="other classes"):
        dynamic_cell.prepare(str(static), data, None, 0.25, 0)
