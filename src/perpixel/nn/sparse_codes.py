"""Sparse coding of masks: many shapes to choose from, of which each mask uses few (MEInst, section 3.2, "alternatives").

The dictionary is learned as Mairal et al. 2009 ("Online Dictionary Learning for Sparse Coding") do it. It is written here because
masks are encoded in every training step, on the device that trains, by a few matrix products.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from perpixel.errors import InputError
from perpixel.nn.mask_codes import CodeConfig, MaskCode, cosine_components


@dataclass(frozen=True)
class SparseCoding(CodeConfig):
    """Settings of a sparse code.

    Attributes:
        penalty: of the sum of the numbers' magnitudes, lambda of the lasso; masks are 0 and 1.
        iterations: of the lasso.
        steps: updates of the dictionary in its fit, each on 256 masks.
    """

    penalty: float = 0.1
    iterations: int = 50
    steps: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.penalty >= 0 or self.iterations < 1 or self.steps < 1:
            raise InputError(
                "model.instance.code: penalty is from 0 on, iterations and steps of SparseCoding are from 1 on"
            )

    def build(self, classes: int) -> "SparseCode":
        """The code, with the lowest frequencies of the cosine transform for atoms until it is fitted; one for all classes."""
        return SparseCode(self)


class SparseCode(MaskCode):
    """u = D v + mean, with v = argmin 1/2 |u - mean - D v|^2 + lambda |v|_1.

    Attributes:
        atoms: (d, p) D, rows of length 1.
        mean: (p,) of masks over the data.
        deviations: (d,) of v over the data: the numbers are divided by them, so that all weigh the same in the loss.
    """

    atoms: Tensor
    mean: Tensor
    deviations: Tensor

    def __init__(self, config: SparseCoding):
        super().__init__(config, rows=1)
        self.config: SparseCoding = config
        self.register_buffer("atoms", cosine_components(config.dim, config.size))
        self.register_buffer("mean", torch.zeros(config.size**2))
        self.register_buffer("deviations", torch.ones(config.dim))

    def encode(self, masks: Bool[Tensor, "n s s"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The lasso's solution for each mask, over the deviations."""
        centered = masks.flatten(1).to(self.mean.dtype) - self.mean
        return lasso(centered, self.atoms, self.config.penalty, self.config.iterations) / self.deviations

    def reconstruct(self, codes: Float[Tensor, "n d"]) -> Float[Tensor, "n s s"]:
        """One matrix product."""
        return ((codes * self.deviations) @ self.atoms + self.mean).unflatten(1, (self.size, self.size))

    def logits(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n s s"]:
        """The reconstruction's height above one half."""
        return self.reconstruct(codes) - 0.5

    def decode(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n s s"]:
        """The reconstruction, cut off at 0 and 1."""
        return self.reconstruct(codes).clamp(0, 1)

    def fit(self, masks: Bool[Tensor, "n s s"], advance: Callable[[], None]) -> None:
        """Learns the dictionary; the same masks give the same one.

        Args:
            masks: a sample of the data's.
            advance: called after each step.
        """
        config, device = self.config, self.mean.device
        random = torch.Generator().manual_seed(0)
        self.mean.copy_(masks.flatten(1).float().mean(dim=0))
        chosen = masks[torch.randint(len(masks), (config.dim,), generator=random)].flatten(1).float().to(device)
        # Masks themselves to begin with, each with a little of a wave of its own: no two atoms are the same.
        atoms = _unit(chosen - self.mean + 0.1 * cosine_components(config.dim, config.size).to(device))
        used = torch.zeros(config.dim, config.dim, device=device)
        wanted = torch.zeros_like(atoms)
        for step in range(config.steps):
            some = masks[torch.randint(len(masks), (256,), generator=random)].flatten(1).float().to(device) - self.mean
            codes = lasso(some, atoms, config.penalty, config.iterations)
            # What the first, poor dictionaries gave is forgotten.
            keep = 1 - 1 / (1 + 0.5 * step)
            used, wanted = keep * used + codes.T @ codes, keep * wanted + codes.T @ some
            atoms = _improved(atoms, used, wanted)
            advance()
        self.atoms.copy_(atoms)
        labels = torch.zeros(1, dtype=torch.long, device=device)
        self.deviations.fill_(1)
        numbers = torch.cat([self.encode(part.to(device), labels.expand(len(part))) for part in masks.split(4096)])
        deviations = numbers.std(dim=0, correction=0)
        self.deviations.copy_(torch.where(deviations > 1e-6, deviations, 1.0))
        self.counts.fill_(len(masks))


def lasso(
    values: Float[Tensor, "n p"], atoms: Float[Tensor, "d p"], penalty: float, iterations: int
) -> Float[Tensor, "n d"]:
    """argmin 1/2 |values - v atoms|^2 + penalty |v|_1 of each row, by FISTA (Beck & Teboulle 2009)."""
    products, target = atoms @ atoms.T, values @ atoms.T
    step = 1 / torch.linalg.eigvalsh(products.double())[-1].clamp(min=1e-6).to(values.dtype)
    found = ahead = torch.zeros_like(target)
    momentum = 1.0
    for _ in range(iterations):
        moved = ahead - step * (ahead @ products - target)
        following = moved.sign() * (moved.abs() - step * penalty).clamp(min=0)
        faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = following + (momentum - 1) / faster * (following - found)
        found, momentum = following, faster
    return found


def _improved(
    atoms: Float[Tensor, "d p"], used: Float[Tensor, "d d"], wanted: Float[Tensor, "d p"]
) -> Float[Tensor, "d p"]:
    """Each atom in turn to where the codes seen so far want it (algorithm 2); an atom that none used stays."""
    atoms = atoms.clone()
    for row in range(len(atoms)):
        if used[row, row] > 1e-6:
            atoms[row] = _unit((wanted[row] - used[row] @ atoms) / used[row, row] + atoms[row])
    return atoms


def _unit(rows: Float[Tensor, "*n p"]) -> Float[Tensor, "*n p"]:
    return rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-6)
