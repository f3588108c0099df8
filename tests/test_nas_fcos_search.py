"""The search of NAS-FCOS: its two spaces, the reward on cached maps, one step after the other."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.data.settings import Augment, DataConfig
from perpixel.errors import InputError
from perpixel.models.detector import DetectorConfig
from perpixel.models.fcos import FCOS
from perpixel.nn.backbones import Backbone
from perpixel.nn.cells import NAS_FCOS_PYRAMID, SearchedFPN
from perpixel.nn.head_cells import NAS_FCOS_HEAD
from perpixel.search.detector_proxy import Budget, DetectorProxy, DetectorProxyTraining, cached_maps
from perpixel.search.ppo import PPO
from perpixel.search.runner import run_search
from perpixel.search.space import answer
from perpixel.search.spaces.nas_fcos import HeadSpace, NasFCOSSearch, PyramidSpace, with_genotype

TINY = NasFCOSSearch(
    trials=2,
    ahead=1,
    policy=PPO(hidden=8, buffer=2, batches=1),
    model=DetectorConfig(
        backbone=Backbone("test_resnet", stages=(4, 8, 16, 32), weights=None, norm="train", frozen_stages=0),
        neck=SearchedFPN(channels=64),
        head=FCOS(class_convs=1, box_convs=1, initial_distance=1.0),
    ),
    data=DataConfig(train="shapes:6:0", augment=Augment((64,), 10_000, crop_size=64)),
    training=DetectorProxyTraining(steps=2, batch_size=4),
)


@pytest.mark.parametrize(("space", "published"), [(PyramidSpace(), NAS_FCOS_PYRAMID), (HeadSpace(), NAS_FCOS_HEAD)])
def test_answers_and_genotypes_are_each_others_inverse(space, published):
    assert space.build(space.tokens(published)) == published
    assert all(
        decision.count <= len(space.kinds[decision.kind]) for decision in space.questions(space.tokens(published))
    )

    @settings(max_examples=30, deadline=None)
    @given(st.randoms(use_true_random=False))
    def any_of_them(random):
        tokens, genotype = answer(space, lambda decision: random.randrange(decision.count))
        assert space.tokens(genotype) == tokens
        assert space.from_json(json.loads(json.dumps(space.to_json(genotype)))) == genotype
        graph = space.graph(genotype)
        assert all(a in graph.nodes and b in graph.nodes for a, b in graph.edges)

    any_of_them()


def test_the_pyramid_has_35_answers_and_the_head_7():
    """Two places, two operations and a join for each of seven blocks; six operations and where sharing begins."""
    assert len(PyramidSpace().tokens(NAS_FCOS_PYRAMID)) == 35
    assert HeadSpace().tokens(NAS_FCOS_HEAD) == (0, 5, 1, 5, 0, 4, 4)
    assert [d.count for d in PyramidSpace().questions(PyramidSpace().tokens(NAS_FCOS_PYRAMID))][::5] == [
        4,
        5,
        6,
        7,
        8,
        9,
        10,
    ]


def cached():
    reward = TINY.reward()
    return cached_maps(reward.model.backbone, reward.model.pixels, reward.data, None, reward.meta_val, reward.seed)


def test_the_loss_is_the_mean_over_the_images_that_were_held_back():
    """Two of six, one after the other, by hand; `worst` less it is the reward."""
    torch.manual_seed(0)
    maps = cached()
    assert (len(maps.train), len(maps.val)) == (4, 2)
    proxy = DetectorProxy(TINY.model, maps)
    proxy.model.eval()
    losses = []
    with torch.no_grad():
        for row in maps.val:
            _, batch = maps.chosen(row[None])
            features = tuple(one[row[None]] for one in maps.maps)
            outputs = proxy.model.box_head(proxy.model.neck(features))
            matches = proxy.model.box_head.assign(outputs.locations, batch.truth())
            losses.append(sum(proxy.model.box_head.loss(outputs, matches, batch.truth()).values()).item())
    assert proxy.loss() == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert TINY.reward()(NAS_FCOS_PYRAMID) > 0


def test_training_lowers_the_loss_and_leaves_the_backbone():
    torch.manual_seed(0)
    proxy = DetectorProxy(TINY.model, cached())
    before = [p.clone() for p in proxy.model.backbone.parameters()]
    proxy.model.eval()
    at_first = proxy.loss()
    proxy.train(DetectorProxyTraining(steps=30, batch_size=4, learning_rate=3e-3))
    assert proxy.loss() < at_first
    assert all(torch.equal(a, b) for a, b in zip(before, proxy.model.backbone.parameters(), strict=True))
    assert 0 <= proxy.average_precision() <= 1


def test_a_budget_takes_off_what_is_too_much():
    """Twice the budget costs its weight, half of it nothing."""
    proxy = DetectorProxy(TINY.model, cached())
    cost = proxy.multiply_adds() / 1e9
    assert cost > 0 and proxy.milliseconds(1) > 0
    assert Budget(most=cost / 2, weight=3.0).penalty(proxy) == pytest.approx(3)
    assert Budget(most=cost * 2, weight=3.0).penalty(proxy) == 0


def test_a_search_and_then_one_of_heads_on_its_best_pyramid(tmp_path):
    """Two trials in a process of their own; the head's search takes the first of `best.json`, at twice the width."""
    run_search(TINY, tmp_path / "pyramid")
    best = json.loads((tmp_path / "pyramid" / "best.json").read_text())
    assert best[0]["reward"] > 0 and "class loss" in best[0]["values"]
    heads = replace(TINY, searched="head", pyramid=tmp_path / "pyramid" / "best.json")
    reward = heads.reward()
    assert PyramidSpace().to_json(reward.model.neck.genotype) == best[0]["genotype"]
    assert reward.model.neck.channels == 128
    assert with_genotype(reward.model, NAS_FCOS_HEAD).head.genotype == NAS_FCOS_HEAD
    assert isinstance(heads.space(), HeadSpace)
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(InputError, match="holds no genotypes"):
        replace(heads, pyramid=tmp_path / "empty.json").reward()
    with pytest.raises(InputError, match=r"data\.train is not set"):
        replace(TINY, data=DataConfig()).reward()
