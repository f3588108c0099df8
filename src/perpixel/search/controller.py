"""The recurrent network that answers a space's questions one after the other."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Categorical

from perpixel.search.space import Decision

State = tuple[Float[Tensor, "layers 1 hidden"], Float[Tensor, "layers 1 hidden"]] | None


class Controller(nn.Module):
    """A stacked LSTM and, for each kind of decision, a linear layer with a score for every option.

    The LSTM's next input is its own previous output, after a learned first one; answers are not fed back, as in the search
    that thesis 004, 6.3.3, builds on. A decision with fewer options than its kind has reads the first scores.

    Args:
        options: how many options each kind of decision has.
        hidden: units of each layer.
        layers: of the LSTM.
        first_steps: steps before the first decision.
        generator: of the initial weights, all uniform in -0.1..0.1.
    """

    def __init__(
        self, options: Mapping[str, int], hidden: int, layers: int, first_steps: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.lstm = nn.LSTM(hidden, hidden, layers)
        self.start = nn.Parameter(torch.empty(1, 1, hidden))
        self.scores = nn.ModuleDict({kind: nn.Linear(hidden, count) for kind, count in options.items()})
        self.first_steps = first_steps
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)

    def forward(self, steps: int) -> Float[Tensor, "steps hidden"]:
        """What the LSTM says at each decision."""
        said, state, outputs = self.start, None, []
        for step in range(self.first_steps + steps):
            said, state = self.step(said, state)
            if step >= self.first_steps:
                outputs.append(said[0])
        return torch.cat(outputs)

    def step(self, said: Float[Tensor, "1 1 hidden"], state: State) -> tuple[Float[Tensor, "1 1 hidden"], State]:
        """The next output, from the one before."""
        return self.lstm(said, state)

    def answers(self, outputs: Float[Tensor, "n hidden"], decisions: Sequence[Decision]) -> Categorical:
        """The distribution of n answers to decisions of one kind, from the LSTM's outputs there."""
        scores = self.scores[decisions[0].kind](outputs)
        counts = torch.tensor([decision.count for decision in decisions])
        closed = torch.arange(scores.shape[1]) >= counts[:, None]
        return Categorical(logits=scores.masked_fill(closed, -torch.inf), validate_args=False)
