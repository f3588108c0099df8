"""Backbones: what is frozen, where strides sit, deformable convolutions, and weights from files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from perpixel.config import from_dict, to_dict
from perpixel.engine.export import trace
from perpixel.errors import InputError
from perpixel.models.detector import DetectorConfig
from perpixel.nn import pretrained
from perpixel.nn.backbones import Backbone, without_pretrained
from perpixel.nn.deform import DeformConv2d
from perpixel.nn.fold import fold_norms
from perpixel.nn.fpn import FPN
from perpixel.nn.frozen import FrozenBatchNorm, freeze_until, with_frozen_norms
from perpixel.nn.renaming import DETECTRON2_RESNET, renamed
from perpixel.nn.vovnet import vovnet_rows

SMALL = Backbone("resnet26", weights=None)


@pytest.mark.parametrize(
    "name", ["resnet10t", "resnet26", "mobilenetv2_100", "efficientnet_b0", "convnext_atto", "dla34", "ese_vovnet39b"]
)
def test_maps_have_the_stated_channels_and_strides(name: str):
    backbone = Backbone(name, weights=None).build().eval()
    maps = backbone(torch.rand(1, 3, 64, 96))
    assert backbone.strides == (8, 16, 32)
    assert [x.shape for x in maps] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "swinv2_tiny_window8_256"])
def test_window_transformers_take_images_of_every_size(name: str):
    """Their maps come out channels first."""
    backbone = Backbone(name, weights=None, frozen_stages=0).build().eval()
    for height, width in ((64, 96), (224, 224)):
        shapes = [tuple(x.shape) for x in backbone(torch.rand(1, 3, height, width))]
        assert shapes == [(1, c, height // s, width // s) for c, s in zip((192, 384, 768), (8, 16, 32), strict=True)]


def test_the_last_windows_of_a_swin_shift():
    """At 224 pixels its last stage is one window, and timm's would shift none of its windows at any other size."""
    blocks = (
        Backbone("swin_tiny_patch4_window7_224", weights=None, frozen_stages=0)
        .build()
        .body.get_submodule("layers_3.blocks")
    )
    assert [block.shift_size for block in blocks.children()] == [(0, 0), (3, 3)]


def test_windows_are_exported_for_one_size():
    backbone = Backbone("swin_tiny_patch4_window7_224", weights=None, frozen_stages=0)
    model = DetectorConfig(backbone=backbone, neck=FPN(channels=32)).build(2)
    with pytest.raises(InputError, match="is exported for one size: give it by --size HEIGHT WIDTH"):
        trace(model, None)


def test_stages_may_be_any_strides_of_the_network():
    backbone = Backbone("resnet10t", stages=(4, 32), weights=None).build()
    assert backbone.strides == (4, 32)
    assert backbone.channels == (64, 512)


def test_names_are_those_of_torchvision():
    """So torchvision's and timm's weights load alike."""
    ours = set(Backbone(weights=None, norm="train", frozen_stages=0).build().body.state_dict())
    assert ours == set(torchvision.models.resnet50().state_dict()) - {"fc.weight", "fc.bias"}


def test_frozen_norm_is_the_norm_in_evaluation():
    norm = nn.BatchNorm2d(4, eps=1e-3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm(torch.rand(8, 4, 3, 3))
    frozen = FrozenBatchNorm(norm)
    x = torch.rand(2, 4, 5, 5)
    assert torch.allclose(frozen.train()(x), norm.eval()(x), atol=1e-6)
    assert not list(frozen.parameters())
    assert set(norm.state_dict()) - set(frozen.state_dict()) == {"num_batches_tracked"}


def test_everything_below_the_frozen_stages_is_fixed_and_the_rest_learns():
    """frozen_stages=2: conv1, bn1 and layer1, as detectron2's FREEZE_AT 2."""
    backbone = Backbone("resnet10t", weights=None, norm="train").build().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    torch.stack([x.square().mean() for x in backbone(torch.rand(2, 3, 64, 64))]).sum().backward()
    with_gradient = {name.split(".")[1] for name, p in backbone.named_parameters() if p.grad is not None}
    assert with_gradient == {"layer2", "layer3", "layer4"}
    assert {name.split(".")[1] for name, p in backbone.named_parameters() if p.grad is None} == {"conv1", "layer1"}
    moved = {
        name.split(".")[1] for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"layer2", "layer3", "layer4"}


@pytest.mark.parametrize(
    ("name", "frozen", "parts"),
    [
        ("resnet10t", 0, set()),
        ("resnet10t", 1, {"conv1"}),
        ("resnet10t", 3, {"conv1", "layer1", "layer2"}),
        ("mobilenetv2_100", 2, {"conv_stem", "blocks.0", "blocks.1"}),
        ("convnext_atto", 2, {"stem_0", "stem_1", "stages_0"}),
    ],
)
def test_frozen_parts(name: str, frozen: int, parts: set[str]):
    backbone = Backbone(name, weights=None, frozen_stages=frozen).build()
    fixed = [p.removeprefix("body.").split(".") for p, value in backbone.named_parameters() if not value.requires_grad]
    assert {".".join(f[:2]) if f[0] == "blocks" else f[0] for f in fixed} == parts


def test_frozen_norms_are_no_parameters_and_trained_ones_are():
    def norms(config: Backbone) -> set[type]:
        return {type(m) for m in config.build().modules() if "BatchNorm" in type(m).__name__}

    assert norms(SMALL) == {FrozenBatchNorm}
    assert norms(Backbone("resnet26", weights=None, norm="train", frozen_stages=0)) == {nn.BatchNorm2d}


def test_a_norm_alone_and_an_unknown_part():
    assert isinstance(with_frozen_norms(nn.BatchNorm2d(3)), FrozenBatchNorm)
    with pytest.raises(KeyError, match="x"):
        freeze_until(nn.Sequential(nn.ReLU()), "x")


def slow_vovnet(w: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """V-39 from its published numbers: 1, 1, 2, 2 blocks of five convolutions, squeeze and excitation after each block.

    Args:
        w: under detectron2's names.
        x: images.
    """

    def layer(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight, norm = (
            w[f"{name}/conv.weight"],
            [w[f"{name}/norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")],
        )
        mean, variance, scale, shift = (part.reshape(1, -1, 1, 1) for part in norm)
        x = nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).relu()

    for i, stride in ((1, 2), (2, 1), (3, 2)):
        x = layer(x, f"stem.stem_{i}", stride)
    maps = []
    for stage, blocks in ((2, 1), (3, 1), (4, 2), (5, 2)):
        if stage > 2:
            x = nn.functional.max_pool2d(x, 3, stride=2, ceil_mode=True)
        for block in range(1, blocks + 1):
            name = f"stage{stage}.OSA{stage}_{block}"
            parts = [x]
            for i in range(5):
                parts.append(layer(parts[-1], f"{name}.layers.{i}.OSA{stage}_{block}_{i}"))
            out = layer(torch.cat(parts, dim=1), f"{name}.concat.OSA{stage}_{block}_concat")
            gate = nn.functional.conv2d(
                out.mean(dim=(2, 3), keepdim=True), w[f"{name}.ese.fc.weight"], w[f"{name}.ese.fc.bias"]
            )
            out = out * ((gate + 3) / 6).clamp(0, 1)
            x = out + x if block > 1 else out
        maps.append(x)
    return maps


@torch.no_grad()
def test_a_vovnet_of_detectron2(tmp_path: Path):
    """A file under its names loads, and the network is the one that its numbers describe; also with folded norms."""
    config = Backbone("ese_vovnet39b", weights=None, squeeze_every_block=True, frozen_stages=0, stages=(4, 8, 16, 32))
    torch.manual_seed(0)
    state = config.build().body.state_dict()
    for name, tensor in state.items():
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5) if name.endswith(("running_var", "bn.weight")) else tensor.uniform_(-0.5, 0.5)
    numbered = {
        f"stage{s}.OSA{s}_{b}.{part}{i}/": 0
        for s in (2, 3, 4, 5)
        for b in (1, 2)[: 1 + s // 4]
        for part, i in [(f"layers.{n}.OSA{s}_{b}_", n) for n in range(5)] + [(f"concat.OSA{s}_{b}_", "concat")]
    }
    theirs, unknown = renamed(state, [(b, a) for a, b in vovnet_rows(numbered)])
    assert not unknown and "stage4.OSA4_1.ese.fc.bias" in theirs
    torch.save({"model": theirs}, tmp_path / "vovnet39.pth")
    backbone = replace(config, weights=str(tmp_path / "vovnet39.pth")).build().eval()
    x = torch.rand(1, 3, 64, 96)
    wanted = slow_vovnet(theirs, x)
    assert_equal_maps(backbone(x), wanted)
    # Stem, and five convolutions and a joining one in each of six blocks.
    assert fold_norms(backbone, x) == 3 + 6 * 6
    assert_equal_maps(backbone(x), wanted)


def test_stride_moves_to_the_first_convolution():
    body = Backbone("resnet26", stride_in_1x1=True, weights=None).build().body
    block = body.get_submodule("layer2.0")
    assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
    assert (block.conv1.kernel_size, block.conv2.kernel_size) == ((1, 1), (3, 3))


def test_deformable_stages_every_third_block():
    """ResNet-50 has 6 blocks at stride 16 and 3 at stride 32: blocks 0 and 3, and block 0."""
    config = Backbone(weights=None, deformable_stages=(16, 32), deformable_interval=3, frozen_stages=0)
    found = [name for name, m in config.build().body.named_modules() if isinstance(m, DeformConv2d)]
    assert found == ["layer3.0.conv2", "layer3.3.conv2", "layer4.0.conv2"]


@pytest.mark.parametrize(("modulated", "factor"), [(False, 1.0), (True, 0.5)])
def test_a_new_deformable_convolution_is_the_plain_one(modulated: bool, factor: float):
    """Offsets start at 0; a modulated sample weighs sigmoid(0) = 1/2."""
    conv = nn.Conv2d(8, 6, 3, stride=2, padding=1, groups=2, bias=False)
    deformable = DeformConv2d.like(conv, modulated)
    x = torch.rand(2, 8, 9, 7)
    assert torch.allclose(deformable(x), factor * conv(x), atol=1e-6)
    assert deformable.state_dict().keys() == {"weight", "offset.weight", "offset.bias"}


def test_offsets_are_y_then_x():
    """With every sample one pixel lower, the output is that of the image moved one pixel up (away from the border)."""
    deformable = DeformConv2d(2, 3, modulated=False)
    x = torch.rand(1, 2, 8, 8)
    plain = nn.functional.conv2d(x, deformable.weight, deformable.bias, padding=1)
    with torch.no_grad():
        assert deformable.offset.bias is not None
        deformable.offset.bias.copy_(torch.tensor([1.0, 0.0] * 9))
    assert torch.allclose(deformable(x)[..., 1:-2, 1:-1], plain[..., 2:-1, 1:-1], atol=1e-6)


def test_offsets_learn():
    deformable = DeformConv2d(4, 4)
    deformable(torch.rand(1, 4, 6, 6)).square().sum().backward()
    assert deformable.offset.weight.grad is not None
    assert deformable.offset.weight.grad.abs().sum() > 0


def test_weights_of_timm_torchvision_and_detectron2_files_load_alike(tmp_path: Path):
    network = Backbone("resnet26", weights=None, norm="train", frozen_stages=0).build().body
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    plain = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inverse = [(theirs, ours) for ours, theirs in DETECTRON2_RESNET]
    # Without its counters: detectron2's frozen norms have none.
    detectron2, unknown = renamed({k: v for k, v in plain.items() if "num_batches" not in k}, inverse)
    assert not unknown
    assert "res3.0.shortcut.norm.running_var" in detectron2
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in plain.items()} | {"module.fc.weight": torch.ones(3)}},
        tmp_path / "a.pth",
    )
    save_file(plain, tmp_path / "b.safetensors")
    torch.save({"model": {f"backbone.bottom_up.{k}": v for k, v in detectron2.items()}}, tmp_path / "c.pth")
    ours = {f"backbone.body.{k}": v for k, v in plain.items()} | {"box_head.logits.weight": torch.ones(3)}
    save_file(ours, tmp_path / "d.safetensors")
    for name in ("a.pth", "b.safetensors", "c.pth", "d.safetensors"):
        loaded = Backbone("resnet26", weights=str(tmp_path / name)).build().body.state_dict()
        assert all(torch.equal(loaded[k], plain[k]) for k in loaded)


def test_flattened_names_of_timm_load(tmp_path: Path):
    """timm's list of maps calls stages_0 what its classifier calls stages.0."""
    import timm

    whole = timm.create_model("convnext_atto", pretrained=False)
    save_file({k: v.contiguous() for k, v in whole.state_dict().items()}, tmp_path / "w.safetensors")
    loaded = Backbone("convnext_atto", weights=str(tmp_path / "w.safetensors")).build().body.state_dict()
    assert torch.equal(
        loaded["stages_2.blocks.0.conv_dw.weight"], whole.state_dict()["stages.2.blocks.0.conv_dw.weight"]
    )


def folded_mobilenet(arrays: dict[str, np.ndarray]) -> nn.Sequential:
    """torchvision's MobileNetV2 without batch norms."""
    network = torchvision.models.mobilenet_v2().features
    for name, module in list(network.named_modules()):
        if not isinstance(module, nn.Conv2d):
            continue
        parent, _, own = name.rpartition(".")
        place = network.get_submodule(parent)
        conv = nn.Conv2d(
            module.in_channels, module.out_channels, 3, module.stride, module.padding, groups=module.groups
        )  # fmt: skip
        conv.kernel_size = module.kernel_size
        conv.weight = nn.Parameter(torch.from_numpy(arrays[f"features.{name}.weight"]))
        conv.bias = nn.Parameter(torch.from_numpy(arrays[f"features.{name}.bias"]))
        setattr(place, own, conv)
        setattr(place, str(int(own) + 1), nn.Identity())
    return network.eval()


def mobilenet_maps(features: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The maps at strides 8, 16 and 32: after blocks 6, 13 and 17."""
    maps = []
    for number, layer in enumerate(features):
        x = layer(x)
        if number in (6, 13, 17):
            maps.append(x)
    return maps


def assert_equal_maps(ours: tuple[Tensor, ...], theirs: list[Tensor]):
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@torch.no_grad()
def test_mobilenet_with_and_without_folded_norms_equals_torchvision(tmp_path: Path):
    theirs = torchvision.models.mobilenet_v2().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
    x = torch.rand(1, 3, 64, 96) * 2 - 1
    wanted = mobilenet_maps(theirs.features, x)
    torch.save(theirs.state_dict(), tmp_path / "whole.pth")
    assert_equal_maps(Backbone("mobilenetv2_100", weights=str(tmp_path / "whole.pth")).build()(x), wanted)
    arrays = {}
    state = theirs.state_dict()
    for name, weight in state.items():
        if name.startswith("features.") and weight.ndim == 4:
            stem, _, own = name.removesuffix(".weight").rpartition(".")
            norm = f"{stem}.{int(own) + 1}"
            scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-5).sqrt()
            arrays[name] = (weight * scale[:, None, None, None]).numpy()
            arrays[f"{stem}.{own}.bias"] = (state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale).numpy()
    np.savez(tmp_path / "folded.npz", **arrays)
    assert_equal_maps(Backbone("mobilenetv2_100", weights=str(tmp_path / "folded.npz")).build()(x), wanted)
    with pytest.raises(InputError, match=r"folded\.npz has its batch norms folded .*norm=frozen"):
        Backbone("mobilenetv2_100", weights=str(tmp_path / "folded.npz"), norm="train").build()


@pytest.mark.parametrize("kind", ["google_qat", "tf2_ptq"])
@torch.no_grad()
def test_development_weights_equal_torchvision(shared_data: Path, kind: str):
    path = shared_data / "weights" / f"mobilenet_v2_{kind}_dequant_bnfolded.npz"
    with np.load(path) as arrays:
        theirs = folded_mobilenet(dict(arrays))
    x = torch.rand(1, 3, 128, 160) * 2 - 1
    assert_equal_maps(Backbone("mobilenetv2_100", weights=str(path)).build()(x), mobilenet_maps(theirs, x))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Backbone("resnet_50", weights=None), r"'resnet_50' is no model of timm; did you mean resnet50\?"),
        (
            Backbone("resnet10t", stages=(8, 64), weights=None),
            r"resnet10t has no map of stride 64, only 2, 4, 8, 16, 32",
        ),
        (Backbone("resnet10t", stride_in_1x1=True, weights=None), r"needs a ResNet with bottlenecks, not resnet10t"),
        (Backbone("mobilenetv2_100", deformable_stages=(16,), weights=None), r"no bottlenecks at stride 16"),
        (Backbone("convnext_atto", frozen_stages=1, weights=None), r"no map of stride 2 or less; use 0 or 2"),
        (Backbone("hrnet_w18_small", weights=None), r"no part stage1 to freeze; use frozen_stages=0"),
        (
            Backbone("resnet26", weights=None, squeeze_every_block=True),
            r"needs a VoVNet such as ese_vovnet39b, not resnet26",
        ),
        (
            Backbone("ese_vovnet39b", squeeze_every_block=True),
            r"timm's weights of ese_vovnet39b do not squeeze every block: give model\.backbone\.weights=FILE",
        ),
        (
            Backbone("gcvit_tiny", weights=None),
            r"'gcvit_tiny' does not take images of every size, 96x160 for one: choose",
        ),
        (Backbone("inception_v3", weights=None), r"'inception_v3' gives no maps of an image's sides over a stride"),
        (Backbone("resnext101_32x16d"), r"non-commercial use only .*name=resnext101_32x16d\.fb_wsl"),
        (Backbone("resnet10t", weights="absent.pth"), r"absent\.pth is not a file"),
    ],
)
def test_one_sentence(config: Backbone, message: str):
    with pytest.raises(InputError, match=message):
        config.build()


def test_offline_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pretrained, "hub_answers", lambda: False)
    monkeypatch.setattr(pretrained, "_is_cached", lambda hub_id: False)
    with pytest.raises(
        InputError, match=r"resnet50\.tv_in1k .* no network: give model\.backbone\.weights=FILE, or .*=null"
    ):
        Backbone("resnet50.tv_in1k").build()


def test_a_file_of_another_network(tmp_path: Path):
    state = Backbone("resnet10t", weights=None).build().body.state_dict()
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth has no weight \S+: it is no file of the backbone resnet26"):
        Backbone("resnet26", weights=str(tmp_path / "w.pth")).build()
    state["layer1.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"layer1\.0\.conv1\.weight of shape \(1, 2, 3, 3\)"):
        Backbone("resnet10t", weights=str(tmp_path / "w.pth")).build()


def test_config_travels_and_loses_its_download():
    config = DetectorConfig(backbone=Backbone(deformable_stages=(16, 32)))
    assert from_dict(DetectorConfig, to_dict(config)) == config
    assert without_pretrained(config).backbone == Backbone(deformable_stages=(16, 32), weights=None)
