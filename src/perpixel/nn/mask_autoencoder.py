"""A non-linear code of masks: two small networks, one from cells to numbers and one back (MEInst, 3.2, "alternatives")."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from perpixel.errors import InputError
from perpixel.nn.mask_codes import CodeConfig, MaskCode


@dataclass(frozen=True)
class AutoEncoder(CodeConfig):
    """Settings of an auto-encoder.

    Attributes:
        hidden: width of the layer on either side of the numbers.
        steps: updates of its fit, each on 256 masks.
        learning_rate: of Adam, falling to 0.
    """

    hidden: int = 256
    steps: int = 3000
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 1 or self.steps < 1 or not self.learning_rate > 0:
            raise InputError("model.instance.code: hidden, steps and learning_rate of an AutoEncoder are above 0")

    def build(self, classes: int) -> "AutoEncoderCode":
        """The code, with random networks until it is fitted; one for all classes."""
        return AutoEncoderCode(self)


class AutoEncoderCode(MaskCode):
    """Two layers there, two back. Its weights are constants of the model: they learn in `fit` and nowhere else.

    Attributes:
        means, deviations: (d,) of the numbers over the data; the code's are standardised, so that all weigh the same in the loss.
    """

    means: Tensor
    deviations: Tensor

    def __init__(self, config: AutoEncoder):
        super().__init__(config, rows=1)
        self.config: AutoEncoder = config
        pixels, hidden, dim = config.size**2, config.hidden, config.dim
        self.encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.decoder = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, pixels))
        self.register_buffer("means", torch.zeros(dim))
        self.register_buffer("deviations", torch.ones(dim))
        self.requires_grad_(False)

    def encode(self, masks: Bool[Tensor, "n s s"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The standardised numbers of each mask, whatever its class."""
        return (self.encoder(_signs(masks, self.means.dtype)) - self.means) / self.deviations

    def logits(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n s s"]:
        """What the second network makes of the numbers."""
        return self.decoder(codes * self.deviations + self.means).unflatten(1, (self.size, self.size))

    def decode(self, codes: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n s s"]:
        """The same as probabilities."""
        return self.logits(codes, labels).sigmoid()

    def fit(self, masks: Bool[Tensor, "n s s"], advance: Callable[[], None]) -> None:
        """Learns to give masks back by cross entropy; the same masks give the same code.

        Args:
            masks: a sample of the data's.
            advance: called after each step.
        """
        device = self.means.device
        random = torch.Generator().manual_seed(0)
        for layer in (*self.encoder[::2], *self.decoder[::2]):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=random) * (2 / layer.in_features) ** 0.5)
            layer.bias.zero_()
        self.requires_grad_(True)
        optimizer = torch.optim.Adam(self.parameters(), self.config.learning_rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-2, self.config.steps)
        for _ in range(self.config.steps):
            some = masks[torch.randint(len(masks), (256,), generator=random)].to(device)
            with torch.enable_grad():
                logits = self.decoder(self.encoder(_signs(some, self.means.dtype)))
                loss = F.binary_cross_entropy_with_logits(logits, some.flatten(1).to(logits.dtype))
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            schedule.step()
            advance()
        self.requires_grad_(False)
        for parameter in self.parameters():
            parameter.grad = None
        numbers = torch.cat([self.encoder(_signs(part.to(device), self.means.dtype)) for part in masks.split(4096)])
        self.means.copy_(numbers.mean(dim=0))
        deviations = numbers.std(dim=0, correction=0)
        self.deviations.copy_(torch.where(deviations > 1e-6, deviations, 1.0))
        self.counts.fill_(len(masks))


def _signs(masks: Bool[Tensor, "n s s"], kind: torch.dtype) -> Float[Tensor, "n p"]:
    """1 inside, -1 outside."""
    return 2 * masks.flatten(1).to(kind) - 1
