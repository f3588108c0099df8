"""Damaged pictures, videos, checkpoints and weights of other libraries."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from mutations import damage, damage_bytes, damage_text
from PIL import Image
from safetensors.torch import save_file

from perpixel.data.image import SUFFIXES, NamedBytes, image_size, pixel_count, read_image
from perpixel.engine.checkpoint import build_model, load_checkpoint, save_checkpoint
from perpixel.engine.recipe import recipe_to_json
from perpixel.engine.runs import RunFolder
from perpixel.engine.sources import list_sources, opencv
from perpixel.engine.state import RunState, load_state, save_state
from perpixel.engine.trainee import Trainee
from perpixel.nn.tensor_files import read_tensors
from tiny_training import CLASSES, tiny_recipe

Target = Callable[[Random, Path], str | None]
SIZE = (17, 24)


def pictures() -> dict[str, bytes]:
    """A small picture in every form that files come in, and some that hide behind a photo's ending."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels)
    alpha = Image.fromarray(np.dstack([pixels, pixels[..., :1]]))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    forms = [
        *(
            ("PNG", photo, {}),
            ("PNG", alpha, {}),
            ("PNG", photo.convert("P"), {}),
            ("PNG", deep, {}),
            ("PNG", photo, {"exif": turned}),
        ),
        *(
            ("JPEG", photo, {}),
            ("JPEG", photo, {"exif": turned, "progressive": True}),
            ("JPEG", photo.convert("CMYK"), {}),
        ),
        *(
            ("GIF", photo.convert("P"), {}),
            ("GIF", photo.convert("P"), {"save_all": True, "append_images": [photo.convert("P")]}),
        ),
        *(
            ("BMP", photo, {}),
            ("WEBP", photo, {}),
            ("WEBP", alpha, {"lossless": True}),
            ("PPM", photo, {}),
            ("PPM", photo.convert("L"), {}),
        ),
        *(
            ("TIFF", photo, {}),
            ("TIFF", photo, {"compression": "tiff_lzw"}),
            ("TIFF", deep, {}),
            ("TIFF", photo.convert("F"), {}),
        ),
        *(("TIFF", photo.convert("1"), {"compression": "group4"}), ("TIFF", alpha, {"compression": "tiff_deflate"})),
        *(
            ("ICO", photo, {}),
            ("PCX", photo, {}),
            ("TGA", photo, {}),
            ("SGI", photo, {}),
            ("JPEG2000", photo, {}),
            ("DDS", photo, {}),
        ),
        *(
            ("EPS", photo, {}),
            ("PDF", photo, {}),
            ("IM", photo, {}),
            ("MSP", photo.convert("1"), {}),
            ("XBM", photo.convert("1"), {}),
        ),
    ]
    made = {}
    for number, (form, picture, options) in enumerate(forms):
        out = io.BytesIO()
        picture.save(out, form, **options)
        made[f"{form}{number}"] = out.getvalue()
    return made


def image(base: Path) -> Target:
    known = list(pictures().values())

    def case(random: Random, folder: Path) -> str | None:
        content = damage_bytes(random.choice(known), random)
        if random.random() < 0.2:
            source: Path | NamedBytes = NamedBytes(content, "sent")
            pixel_count(source)
        else:
            source = folder / f"photo{random.choice(SUFFIXES)}"
            source.write_bytes(content)
            if random.random() < 0.3:
                height, width = image_size(source)
                if min(height, width) < 1:
                    return f"a size of {height, width}"
        pixels = read_image(source)
        good = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size > 0
        return None if good else f"pixels of {pixels.dtype} {pixels.shape}"

    return case


def video(base: Path) -> Target:
    cv2 = opencv()
    videos = []
    for suffix, code in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "mp4v")):
        path = base / f"video{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, (32, 24))
        for shade in range(0, 200, 40):
            writer.write(np.full((24, 32, 3), shade, np.uint8))
        writer.release()
        videos.append((suffix, path.read_bytes()))

    def case(random: Random, folder: Path) -> str | None:
        suffix, content = random.choice(videos)
        file = folder / f"video{suffix}"
        file.write_bytes(damage_bytes(content, random))
        (one,) = list_sources(file)
        length = one.length()  # pyright: ignore[reportAttributeAccessIssue]
        rate = one.rate()  # pyright: ignore[reportAttributeAccessIssue]
        if (length is not None and length < 0) or not 0 < rate < 1e9:
            return f"{length} frames at {rate} a second"
        for number, frame in enumerate(one.frames()):
            if frame.image.dtype != np.uint8 or frame.image.shape[2] != 3 or number > 10_000:
                return f"frame {number} is {frame.image.shape}"
        return None

    return case


def _trained(path: Path) -> Path:
    recipe = tiny_recipe()
    save_checkpoint(
        path, recipe.model.build(3), recipe, CLASSES, category_ids=(3, 5, 9), step=7, metrics={"bbox/AP": 0.25}
    )
    return path


def _with_header(content: bytes, random: Random) -> bytes:
    """A safetensors file whose header, or the documents in its metadata, are changed as documents."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    kind = random.randrange(3)
    if kind == 0:
        text = json.dumps(damage(header, random))
    else:
        name = random.choice([n for n in header["__metadata__"]])
        inner = json.loads(header["__metadata__"][name])
        header["__metadata__"][name] = json.dumps(damage(inner, random, 1 if kind == 1 else None))
        text = json.dumps(header)
    if random.random() < 0.1:
        text = damage_text(text, random)
    new = text.encode("utf-8", "surrogatepass")
    new += b" " * (-len(new) % 8)
    stated = random.choice((0, 2**31, 2**63, len(new) + 8)) if random.random() < 0.03 else len(new)
    return struct.pack("<Q", stated) + new + content[8 + length :]


def _finite(model: torch.nn.Module) -> str | None:
    bad = [name for name, tensor in model.state_dict().items() if not bool(tensor.isfinite().all())]
    return f"weights that are not finite were taken: {bad[0]}" if bad else None


def checkpoint(base: Path) -> Target:
    content = _trained(base / "model.safetensors").read_bytes()
    whole = load_checkpoint(base / "model.safetensors")

    def case(random: Random, folder: Path) -> str | None:
        file = folder / "model.safetensors"
        match random.randrange(4):
            case 0:
                file.write_bytes(damage_bytes(content, random))
            case 1:
                model = whole.recipe.model.build(3)
                weights = [p for p in model.parameters()]
                with torch.no_grad():
                    random.choice(weights).view(-1)[0] = random.choice((float("nan"), float("inf"), -float("inf")))
                save_checkpoint(file, model, whole.recipe, CLASSES)
                build_model(load_checkpoint(file))
                return "NaN weights were taken"
            case _:
                file.write_bytes(_with_header(content, random))
        loaded = load_checkpoint(file)
        model = build_model(loaded)
        names = loaded.class_names
        if not all(isinstance(name, str) for name in names) or not all(type(i) is int for i in loaded.category_ids):
            return f"classes {names} with numbers {loaded.category_ids}"
        if len(loaded.category_ids) != len(names):
            return f"{len(names)} classes with {len(loaded.category_ids)} numbers"
        if type(loaded.step) is not int or not isinstance(loaded.version, str):
            return f"step {loaded.step!r}, version {loaded.version!r}"
        if not all(isinstance(name, str) and isinstance(v, int | float) for name, v in loaded.metrics.items()):
            return f"metrics {loaded.metrics}"
        return _finite(model)

    return case


def state(base: Path) -> Target:
    """What a resumed run reads: its state and its recipe."""

    def trainee() -> Trainee:
        model = tiny_recipe().model.build(3)
        named = list(model.named_parameters())
        group = {"params": [p for _, p in named], "param_names": [n for n, _ in named]}
        return Trainee(model, torch.optim.SGD([group], lr=0.1, momentum=0.9))

    one = trainee()
    sum(p.sum() for p in one.model.parameters()).backward()
    one.optimizer.step()
    save_state(base / "a.safetensors", RunState(3, sums={"class": 1.0}, count=1, metrics={"bbox/AP": 0.5}), one)
    content, recipe = (base / "a.safetensors").read_bytes(), recipe_to_json(tiny_recipe())

    def case(random: Random, folder: Path) -> str | None:
        if random.random() < 0.3:
            changed = json.dumps(damage(json.loads(recipe), random)).encode("utf-8", "surrogatepass")
            (folder / "recipe.json").write_bytes(damage_bytes(changed, random) if random.random() < 0.4 else changed)
            RunFolder(folder).load_recipe()
            return None
        (folder / "a.safetensors").write_bytes(
            damage_bytes(content, random) if random.random() < 0.4 else _with_header(content, random)
        )
        new = trainee()
        found = load_state(folder / "a.safetensors", new)
        if type(found.step) is not int or found.step < 0 or type(found.log_rows) is not int or found.log_rows < 0:
            return f"step {found.step!r} and {found.log_rows!r} rows of the log"
        found.add({"class": 1.0})
        found.means()
        return None

    return case


def weights(base: Path) -> Target:
    """Files of other libraries: PyTorch's two forms, NumPy's, safetensors'."""
    tensors = {"a.weight": torch.arange(12.0).reshape(3, 4), "module.b": torch.zeros(2, dtype=torch.int64)}
    files: list[tuple[str, bytes]] = []
    for suffix in (".pth", ".pt", ".npz", ".safetensors", ".bin"):
        out = io.BytesIO()
        if suffix == ".npz":
            np.savez_compressed(out, **{name: tensor.numpy() for name, tensor in tensors.items()})
        elif suffix == ".safetensors":
            save_file(tensors, base / "w.safetensors")
            out.write((base / "w.safetensors").read_bytes())
        else:
            torch.save({"model": tensors, "epoch": 3}, out, _use_new_zipfile_serialization=suffix != ".bin")
        files.append((suffix, out.getvalue()))

    def case(random: Random, folder: Path) -> str | None:
        suffix, content = random.choice(files)
        file = folder / f"weights{suffix if random.random() < 0.9 else random.choice(files)[0]}"
        file.write_bytes(damage_bytes(content, random))
        found = read_tensors(file)
        return None if found and all(isinstance(name, str) for name in found) else "no tensors by name"

    return case


FILES: dict[str, Callable[[Path], Target]] = {
    "image": image,
    "video": video,
    "checkpoint": checkpoint,
    "state": state,
    "weights": weights,
}
