"""The controller learns by proximal policy optimisation (Schulman et al. 2017; thesis 004, 6.4.1)."""

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perpixel.config import from_dict
from perpixel.engine.optimize import load_optimizer_tensors, optimizer_tensors
from perpixel.search.controller import Controller
from perpixel.search.policy import Policy, PolicyConfig, Proposal
from perpixel.search.space import Decision, Space, answer


@dataclass(frozen=True)
class PPO(PolicyConfig):
    """The controller and how it learns. The numbers are those of the search that thesis 004, chapter 6, follows.

    Attributes:
        hidden, layers: of the LSTM.
        first_steps: steps of the LSTM before the first decision.
        learning_rate: of Adam.
        clip: the ratio of new to old probability counts within 1 - clip..1 + clip.
        buffer: the last so many trials are learned from after each one.
        batches: parts the buffer is cut into, an update each.
        epochs: times the buffer is gone through.
        baseline_decay: of the moving average of rewards; the advantage is what a reward is above it.
        entropy: weight of a bonus for undecided answers.
        gradient_clip: largest norm of the gradient.
    """

    hidden: int = 100
    layers: int = 2
    first_steps: int = 4
    learning_rate: float = 1e-4
    clip: float = 0.1
    buffer: int = 100
    batches: int = 100
    epochs: int = 1
    baseline_decay: float = 0.95
    entropy: float = 0.0
    gradient_clip: float = 2.0

    def build(self, space: Space[Any], seed: int) -> "PPOPolicy":
        """The policy for a space."""
        return PPOPolicy(self, space, seed)


@dataclass(frozen=True)
class Rollout:
    """A proposal and its reward, to learn from."""

    proposal: Proposal
    reward: float


class PPOPolicy(Policy):
    """Proposes by the controller, and moves it towards what was rewarded above the average."""

    def __init__(self, config: PPO, space: Space[Any], seed: int) -> None:
        self.config, self._space = config, space
        self._generator = torch.Generator().manual_seed(seed)
        options = {kind: len(names) for kind, names in space.kinds.items()}
        self.controller = Controller(options, config.hidden, config.layers, config.first_steps, self._generator)
        self._optimizer = torch.optim.Adam(self.controller.named_parameters(), lr=config.learning_rate)
        self._buffer: deque[Rollout] = deque(maxlen=config.buffer)
        self.baseline: float | None = None

    @torch.no_grad()
    def propose(self) -> Proposal:
        """The next genotype to try, as answers drawn from the controller's distributions."""

        def choose(decision: Decision) -> int:
            nonlocal said, state
            said, state = self.controller.step(said, state)
            chances = self.controller.answers(said[0], [decision])
            token = torch.multinomial(chances.probs, 1, generator=self._generator)[0]
            logs.append(float(chances.log_prob(token)))
            return int(token)

        logs: list[float] = []
        said, state = self.controller.start, None
        for _ in range(self.config.first_steps):
            said, state = self.controller.step(said, state)
        tokens, _ = answer(self._space, choose)
        return Proposal(tokens, tuple(logs))

    def learn(self, proposal: Proposal, reward: float) -> None:
        """Updates the moving average and goes through the buffer once an epoch."""
        decay = self.config.baseline_decay
        self.baseline = reward if self.baseline is None else decay * self.baseline + (1 - decay) * reward
        self._buffer.append(Rollout(proposal, reward))
        for _ in range(self.config.epochs):
            order = torch.randperm(len(self._buffer), generator=self._generator)
            for chosen in order.tensor_split(min(self.config.batches, len(order))):
                self._update([self._buffer[place] for place in chosen.tolist()], self.baseline)

    def _update(self, rollouts: list[Rollout], baseline: float) -> None:
        log_probabilities, entropy = self._judge([rollout.proposal for rollout in rollouts])
        before = torch.tensor([log for rollout in rollouts for log in rollout.proposal.log_probabilities])
        # One reward for the whole sequence: all its decisions have the same advantage.
        advantage = torch.tensor([r.reward - baseline for r in rollouts for _ in r.proposal.tokens])
        loss = ppo_loss(log_probabilities, before, advantage, self.config.clip) - self.config.entropy * entropy.mean()
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.controller.parameters(), self.config.gradient_clip)
        self._optimizer.step()

    def _judge(self, proposals: list[Proposal]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """How likely each answer is now, and how undecided; all decisions of all proposals, one after the other."""
        decisions = [self._space.questions(proposal.tokens) for proposal in proposals]
        outputs = self.controller(max(len(asked) for asked in decisions))
        flat = [(step, decision) for asked in decisions for step, decision in enumerate(asked)]
        tokens = torch.tensor([token for proposal in proposals for token in proposal.tokens])
        places, logs, entropies = [], [], []
        for kind in dict.fromkeys(decision.kind for _, decision in flat):
            mine = torch.tensor([place for place, (_, decision) in enumerate(flat) if decision.kind == kind])
            steps = torch.tensor([flat[place][0] for place in mine])
            chances = self.controller.answers(outputs[steps], [flat[place][1] for place in mine])
            places.append(mine)
            logs.append(chances.log_prob(tokens[mine]))
            entropies.append(chances.entropy())
        back = torch.cat(places).argsort()
        return torch.cat(logs)[back], torch.cat(entropies)[back]

    def save(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights, optimiser, random state, buffer and average."""
        tensors = {f"controller/{name}": tensor for name, tensor in self.controller.state_dict().items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in optimizer_tensors(self._optimizer).items()}
        tensors["generator"] = self._generator.get_state()
        return tensors, {"baseline": self.baseline, "buffer": [asdict(rollout) for rollout in self._buffer]}

    def load(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Goes back to what `save` gave."""
        parts: dict[str, dict[str, Tensor]] = {"controller": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            if rest:
                parts[part][rest] = tensor
        self.controller.load_state_dict(parts["controller"])
        load_optimizer_tensors(self._optimizer, parts["optimizer"])
        self._generator.set_state(tensors["generator"])
        self.baseline = document["baseline"]
        self._buffer.clear()
        for rollout in document["buffer"]:
            self._buffer.append(from_dict(Rollout, rollout))


def ppo_loss(
    now: Float[Tensor, " n"], before: Float[Tensor, " n"], advantage: Float[Tensor, " n"], clip: float
) -> Float[Tensor, ""]:
    """The clipped surrogate (Schulman et al. 2017, eq. 7), negated: the mean over n answers.

    Args:
        now, before: log probability of each answer, now and when it was given.
        advantage: of each answer.
        clip: the ratio gains nothing outside 1 - clip..1 + clip.
    """
    ratio = (now - before).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
