"""The search engine: spaces, controller, learning, early stop, state, pages; workers stand in tests/test_search_workers.py."""

import json
import math
from concurrent.futures import Future
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.cli.main import main
from perpixel.config import to_dict
from perpixel.errors import InputError
from perpixel.search import runner
from perpixel.search.controller import Controller
from perpixel.search.curves import averages, best_so_far, best_trials, shares
from perpixel.search.early_stop import EarlyStop
from perpixel.search.graph import Graph, Node, columns, draw
from perpixel.search.policy import PolicyConfig, Proposal, RandomSearch
from perpixel.search.ppo import PPO, PPOPolicy, ppo_loss
from perpixel.search.report import sections, sparkline
from perpixel.search.runner import load_run, run_search, show_run
from perpixel.search.settings import Search
from perpixel.search.space import Decision, Space, answer
from perpixel.search.spaces import all_searches
from perpixel.search.spaces.toy import LEARNER, ToyGenotype, ToyReward, ToySearch, ToySpace, ToyStep
from perpixel.search.state import SearchState, Trial
from perpixel.search.trial import Hope, Outcome, Task, evaluate, report, worth_going_on
from perpixel.search.workers import Worker, told

FAST = PPO(hidden=16, learning_rate=0.02, buffer=8, batches=2)


@pytest.mark.parametrize("name", sorted(all_searches()))
@settings(deadline=None, max_examples=30)
@given(random=st.randoms(use_true_random=False))
def test_tokens_and_genotypes(name, random):
    """Any answers make a genotype, whose tokens are those answers, and which survives JSON; every question has options."""
    space = all_searches()[name]().space()
    tokens, genotype = answer(space, lambda decision: random.randrange(decision.count))
    assert space.build(tokens) == genotype
    assert tuple(space.tokens(genotype)) == tokens
    assert space.from_json(json.loads(json.dumps(space.to_json(genotype)))) == genotype
    assert all(1 <= decision.count <= len(space.kinds[decision.kind]) for decision in space.questions(tokens))
    ElementTree.fromstring(draw(space.graph(genotype), name))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [((0, 1), "answer 3 .* is missing"), ((0, 1, 2, 0), "answer 3 .* is 2"), ((0, 1, 0, 0, 0), "5 answers.* 4 ques")],
)
def test_wrong_answers(tokens, message):
    with pytest.raises(InputError, match=message):
        ToySpace(2).build(tokens)


class Branching(Space[ToyGenotype]):
    """What is asked depends on what was said: "more" asks on, up to three times."""

    genotype = ToyGenotype

    @property
    def kinds(self):
        return {"more": ("stop", "go on"), "operation": ("add", "double")}

    def decisions(self):
        steps = []
        while len(steps) < 3 and (yield Decision("more", 2)):
            steps.append(ToyStep(0, ("add", "double")[(yield Decision("operation", 2))]))
        return ToyGenotype(tuple(steps))

    def tokens(self, genotype):
        said = [t for step in genotype.steps for t in (1, ("add", "double").index(step.operation))]
        return (*said, *([0] if len(genotype.steps) < 3 else []))

    def graph(self, genotype):
        return Graph({}, [])


def small_controller(first_steps: int = 2) -> Controller:
    return Controller({"a": 3, "b": 5}, 8, 2, first_steps, torch.Generator().manual_seed(1))


def test_controller_steps_as_it_runs():
    """Unrolled at once or step by step, the outputs are the same, and each is the next input."""
    controller = small_controller()
    said, state, outputs = controller.start, None, []
    for _ in range(2 + 4):
        said, state = controller.lstm(said, state)
        outputs.append(said[0, 0])
    torch.testing.assert_close(controller(4), torch.stack(outputs[2:]))
    assert all(parameter.abs().max() <= 0.1 for parameter in controller.parameters())


def test_closed_options_are_never_chosen():
    """A decision with two options of a kind with five reads the first two scores: softmax over them alone."""
    controller = small_controller()
    outputs = controller(2)
    chances = controller.answers(outputs, [Decision("b", 2), Decision("b", 5)]).probs
    scores = controller.scores["b"](outputs)
    torch.testing.assert_close(chances[0], torch.cat([scores[0, :2].softmax(0), torch.zeros(3)]))
    torch.testing.assert_close(chances[1], scores[1].softmax(0))


@pytest.mark.parametrize("space", [ToySpace(3), Branching()], ids=["toy", "branching"])
def test_judged_as_proposed(space):
    """With unchanged weights, every answer is judged as likely as when it was given, whatever was asked; so the ratio is 1."""
    policy = FAST.build(space, seed=3)
    proposals = [policy.propose() for _ in range(6)]
    logs, entropies = policy._judge(proposals)
    before = [log for proposal in proposals for log in proposal.log_probabilities]
    torch.testing.assert_close(logs, torch.tensor(before))
    assert logs.shape == entropies.shape and bool((entropies > 0).any())


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain"),
    [
        (1.0, 2.0, 2.0),
        (1.05, 2.0, 2.1),  # within the clip
        (1.5, 2.0, 2.2),  # clipped at 1.1: no more is gained
        (0.5, 2.0, 1.0),  # a bad move in a good direction is paid for in full
        (1.5, -2.0, -3.0),  # likewise
        (0.5, -2.0, -1.8),  # clipped at 0.9
    ],
)
def test_clipped_surrogate(ratio, advantage, gain):
    """min(ratio A, clip(ratio, 0.9, 1.1) A), negated."""
    now, before = torch.tensor([math.log(ratio) - 1]), torch.tensor([-1.0])
    assert float(ppo_loss(now, before, torch.tensor([advantage]), 0.1)) == pytest.approx(-gain, rel=1e-5)


def test_baseline_is_a_moving_average():
    """It begins at the first reward: 0.2; 0.95 * 0.2 + 0.05 * 1 = 0.24; 0.95 * 0.24 + 0.05 * 0 = 0.228."""
    policy = FAST.build(ToySpace(2), seed=0)
    seen = []
    for reward in (0.2, 1.0, 0.0):
        policy.learn(policy.propose(), reward)
        seen.append(policy.baseline)
    assert seen == pytest.approx([0.2, 0.24, 0.228])


def test_learning_makes_rewarded_answers_likelier():
    policy = FAST.build(ToySpace(2), seed=0)
    policy.learn(policy.propose(), 0.5)
    good = policy.propose()
    before = policy._judge([good])[0].sum()
    policy.learn(good, 1.0)
    assert policy._judge([good])[0].sum() > before


def searched(config: PolicyConfig, trials: int, seed: int) -> list[float]:
    """Rewards of a search on the toy, in this process."""
    space, reward = ToySpace(4), ToyReward()
    policy, rewards = config.build(space, seed), []
    for _ in range(trials):
        proposal = policy.propose()
        rewards.append(reward(space.build(proposal.tokens)))
        policy.learn(proposal, rewards[-1])
    return rewards


def test_the_toy_converges_and_random_search_does_not():
    """The best of 6,144 genotypes (4^4 operations, 4! sources) is proposed nearly always in the end."""
    learned, blind = (searched(config, 180, seed=1) for config in (LEARNER, RandomSearch()))
    assert max(learned) == 1.0 and sum(learned[-40:]) / 40 > 0.95
    assert sum(blind[-40:]) / 40 < 0.5 and max(blind) < 1.0


def test_random_search_is_uniform():
    """Each of 4 operations at a fixed place: 250 +- 5 standard deviations (14) of 1000."""
    policy = RandomSearch().build(ToySpace(1), seed=0)
    proposals = [policy.propose() for _ in range(1000)]
    counts = [sum(p.tokens[1] == token for p in proposals) for token in range(4)]
    assert all(180 < count < 320 for count in counts)
    assert proposals[0].log_probabilities == pytest.approx((0.0, math.log(0.25)))


def test_hope():
    """Limits by hand: 0.4 * (1 - 0.5 * 0.9) = 0.22; a question nobody asked yet has the start, 0.01."""
    hope = Hope((0.4,), 0.01, 0.9)
    assert hope.limit(0, 0.5) == pytest.approx(0.22)
    assert hope.limit(0, 0.0) == 0.4
    assert hope.limit(1, 0.0) == 0.01


def test_early_stop():
    """Averages: 0.99 * 0.01 + 0.01 * 0.5 = 0.0149, then 0.99 * 0.0149 + 0.01 * 0.2 = 0.016751. Tolerance: 0.9 at first,
    0.9 * 0.9 = 0.81 after 100 trials, 0.81 * 0.8 * 0.7 * 0.6 = 0.27216 after 400."""
    rule = EarlyStop()
    once = rule.update((), Outcome(0.6, interim=(0.5,)))
    twice = rule.update(once, Outcome(0.2, interim=(0.2, 0.3)))
    assert once == pytest.approx((0.0149,)) and twice == pytest.approx((0.016751, 0.0129))
    assert rule.update(twice, Outcome(0.0, error="lost")) == twice
    tolerances = [rule.hope((), trials).tolerance for trials in (0, 99, 100, 400, 1000)]
    assert tolerances == pytest.approx([0.9, 0.9, 0.81, 0.27216, 0.27216])
    with pytest.raises(ValueError, match="factors"):
        EarlyStop(milestones=(10,))


def half_hearted(genotype: ToyGenotype) -> float:
    report(half=0.3, noise=float(torch.rand(())))
    return 1.0 if worth_going_on(0.3) else 0.3


@pytest.mark.parametrize(
    ("hope", "reward"), [(None, 1.0), (Hope((0.2,), 0.01, 0.9), 1.0), (Hope((40.0,), 0.01, 0.9), 0.3)]
)
def test_a_trial_may_be_given_up(hope, reward):
    """Above the average it goes on; far below it stops, and what it had reached is its reward."""
    genotype = ToySpace(1).build((0, 0))
    outcome = evaluate(half_hearted, Task(0, genotype, 5, hope))
    assert outcome.reward == reward and outcome.stopped == (reward < 1) and outcome.interim == (0.3,)
    assert outcome.values["half"] == 0.3
    assert evaluate(half_hearted, Task(9, genotype, 5, hope)).values == outcome.values  # the seed decides
    assert half_hearted(genotype) == 1.0  # outside a search


def test_errors_are_kept_without_colours():
    error = RuntimeError("\x1b[31mred\x1b[0m")
    error.__cause__ = ValueError("line 1\nline 2")
    assert told(error) == "RuntimeError: red\nline 1\nline 2"


def test_a_reward_must_be_a_number():
    with pytest.raises(ValueError, match="nan"):
        evaluate(lambda genotype: math.nan, Task(0, None, 0))


class Inline(Worker):
    """Tries in this process, at once."""

    up = True

    def submit(self, reward, task):
        future: Future[Outcome] = Future()
        future.set_result(replace(evaluate(reward, task), seconds=0.0))
        return future

    def kill(self) -> None:
        pass

    def died(self, error: BaseException) -> bool:
        return False


@pytest.fixture
def inline(monkeypatch) -> None:
    monkeypatch.setattr(runner, "worker_of", lambda search: lambda place: Inline())


def searching(**changes) -> ToySearch:
    return ToySearch(**({"trials": 12, "ahead": 3, "policy": FAST, "steps": 3} | changes))


def proposals(state: SearchState) -> list[Proposal]:
    return [trial.proposal for trial in state.trials]


def same(first: SearchState, second: SearchState) -> bool:
    mine, theirs = first.policy.save(), second.policy.save()
    tensors = all(torch.equal(mine[0][name], theirs[0][name]) for name in mine[0].keys() | theirs[0].keys())
    return tensors and mine[1] == theirs[1] and first.trials == second.trials and first.running == second.running


@pytest.mark.parametrize("policy", [FAST, RandomSearch()], ids=["ppo", "random"])
def test_resumed_is_as_if_never_stopped(policy, inline, tmp_path):
    """5 trials, then on to 12, equals 12 in one go: proposals, weights, averages, buffer, random numbers."""
    whole = run_search(searching(policy=policy), tmp_path / "whole", show=False)
    run_search(searching(policy=policy, trials=5), tmp_path / "parts", show=False)
    parts = run_search(searching(policy=policy), tmp_path / "parts", resume=True, show=False)
    assert whole.learned == parts.learned == 12 and len(whole.trials) == 15
    assert same(whole, parts)
    assert same(whole, load_run(tmp_path / "whole")[1])


def test_the_order_of_ends_does_not_matter(tmp_path):
    """Trials that end in any order are learned from in theirs: the same proposals as one after the other."""
    search, space = searching(trials=9), ToySpace(3)

    def go(order: list[int]) -> SearchState:
        state = SearchState(search.policy.build(space, 0))
        runner.propose(search, state)
        while waiting := runner.to_try(search, state, set()):
            number = next((n for n in order if n in waiting), waiting[0])
            state.trials[number].outcome = replace(
                evaluate(search.reward(), runner.task_of(search, space, state, number)), seconds=0.0
            )
            runner.learn(search, state)
        return state

    assert same(go([]), go([2, 1, 4, 3, 0, 8, 7, 6, 5]))


def test_state_keeps_the_trials_that_wait_for_others(tmp_path):
    """Trial 1 ended, trial 0 did not: what is saved knows both, and nothing is learned yet."""
    search, space = searching(), ToySpace(3)
    state = SearchState(search.policy.build(space, 0))
    runner.propose(search, state)
    state.trials[1].outcome = Outcome(0.5, {"half": 0.25}, (0.1,), True, 2.0, "died")
    runner.learn(search, state)
    state.save(tmp_path / "state.safetensors")
    again = SearchState(search.policy.build(space, 7))
    again.load(tmp_path / "state.safetensors")
    assert same(state, again) and again.learned == 0 and runner.to_try(search, again, {2}) == [0]


@pytest.mark.parametrize(
    ("error", "trials", "message"),
    [
        (RuntimeError("no data"), 8, "first 8 trials failed, the last with RuntimeError: no data"),
        (InputError("a.xml: no width"), 1, r"^a.xml: no width \(so said trial 1; "),
    ],
)
def test_a_search_whose_trials_all_fail_is_stopped(monkeypatch, tmp_path, error, trials, message):
    """At once where the user's input is at fault."""

    class Failing(Inline):
        def submit(self, reward, task):
            future: Future[Outcome] = Future()
            future.set_exception(error)
            return future

    monkeypatch.setattr(runner, "worker_of", lambda search: lambda place: Failing())
    with pytest.raises(InputError, match=message):
        run_search(searching(), tmp_path / "lost", show=False)
    assert len(load_run(tmp_path / "lost")[1].finished) == trials


def test_folders(inline, tmp_path):
    out = tmp_path / "run"
    run_search(searching(trials=2), out, show=False)
    with pytest.raises(InputError, match="not empty"):
        run_search(searching(), out, show=False)
    with pytest.raises(InputError, match="searched with steps=3, not 4"):
        run_search(searching(steps=4), out, resume=True, show=False)
    with pytest.raises(InputError, match="holds no search"):
        run_search(searching(), tmp_path / "none", resume=True, show=False)
    with pytest.raises(ValueError, match="raise ahead"):
        searching(workers=9)


def test_curves():
    """Means of two: 1, (1 + 3) / 2, (3 + 2) / 2; the trials count from 1."""
    values = [(0, 1.0), (1, 3.0), (4, 2.0)]
    assert averages(values, 2) == [(1.0, 1.0), (2.0, 2.0), (5.0, 2.5)]
    assert best_so_far(values) == [(1.0, 1.0), (2.0, 3.0), (5.0, 3.0)]


def state_of(*rows: tuple[tuple[int, ...], Outcome | None]) -> SearchState:
    policy = RandomSearch().build(ToySpace(1), 0)
    trials = [Trial(Proposal(tokens, (0.0,) * len(tokens)), None, outcome) for tokens, outcome in rows]
    return SearchState(policy, trials, seconds=60.0)


def test_shares():
    """One step: operations 1, 1, 3. Over the last two: all 1; all 1; half and half."""
    state = state_of(((0, 1), None), ((0, 1), None), ((0, 3), None))
    curves = shares(ToySpace(1), state, 2)["operation"]
    assert [y for _, y in curves["double"]] == [1.0, 1.0, 0.5]
    assert [y for _, y in curves["nothing"]] == [0.0, 0.0, 0.5]


def test_best_trials():
    """By reward, of equal genotypes the better one, no failures."""
    rows = [
        ((0, 1), Outcome(0.5)),
        ((0, 1), Outcome(0.7)),
        ((0, 2), Outcome(0.6)),
        ((0, 3), Outcome(0.0, error="lost")),
    ]
    assert best_trials(state_of(*rows), 5) == [1, 2]


def test_the_longest_path_sets_the_column():
    """a -> b -> c and a -> c: c stands right of b, though a leads to it at once."""
    nodes = {name: Node(name, "operation") for name in "abc"}
    assert columns(Graph(nodes, [("a", "b"), ("a", "c"), ("b", "c")])) == {"a": 0, "b": 1, "c": 2}
    with pytest.raises(ValueError, match="backwards"):
        Graph(nodes, [("b", "a")])


def test_a_page_has_what_was_searched():
    """Two charts of rewards and values, two of the space's decisions, the best genotype as one well-formed drawing."""
    ElementTree.fromstring(draw(Graph({"a": Node("<a> & b", "input")}, []), "<title>"))
    state = state_of(((0, 1), Outcome(0.5, {"value": 1.0})), ((0, 2), Outcome(0.0, error="first line\nrest")))
    text = "".join(sections(ToySpace(1), state, baseline=state))
    assert text.count("<svg") == 5 and "trial 2: first line" in text and "reward 0.5000 (value 1.0000)" in text


def test_a_row_of_bars():
    """From the lowest value to the highest, no wider than asked for."""
    assert sparkline([0.0, 0.5, 1.0], 10) == "▁▅█" and sparkline([], 10) == "" and len(sparkline([1.0] * 99, 10)) == 10


def test_the_command(inline, tmp_path, capsys):
    """`search toy`, on with it, `search show` beside random search; the files say the same."""
    out, blind = tmp_path / "run", tmp_path / "blind"
    small = ["trials=4", "steps=2", "policy.hidden=8"]
    assert main(["search", "toy", *small, "--out", str(out)]) == 0
    assert main(["search", "toy", *small, "trials=6", "--out", str(out), "--resume"]) == 0
    assert main(["search", "toy", "trials=5", "steps=2", "policy.kind=RandomSearch", "--out", str(blind)]) == 0
    assert "6/6 trials" in capsys.readouterr().err
    assert main(["search", "show", str(out), "--baseline", str(blind)]) == 0
    text = (out / "search.html").read_text("utf-8")
    assert "baseline, best so far" in text and "6 of 6 trials" in text
    best = json.loads((out / "best.json").read_text("utf-8"))
    state = load_run(out)[1]
    assert best[0]["reward"] == max(outcome.reward for _, _, outcome in state.finished)
    assert json.loads((out / "search.json").read_text("utf-8"))["kind"] == "ToySearch"
    assert main(["search", "toy", "steps=7", "--settings"]) == 0
    assert "steps: 7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toi"], "did you mean toy"),
        (["toy", "trails=3"], "did you mean trials"),
        (["toy", "workers=5"], "raise ahead"),
        (["show", "nowhere"], "nowhere holds no search"),
        (["show"], "takes the folder"),
        (["toy", "--baseline", "run"], "belongs to"),
    ],
)
def test_bad_input(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["search", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_folder_of_a_search_that_is_not_imported(inline, tmp_path, capsys):
    """The command names the call that shows it, and with the module imported that call does: here with the kind put back."""
    run_search(searching(trials=2), tmp_path / "own", show=False)
    file = tmp_path / "own" / "search.json"
    file.write_text(file.read_text("utf-8").replace("ToySearch", "StackSearch"), "utf-8")
    assert main(["search", "show", str(tmp_path / "own")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "searched by 'StackSearch', which is none of perpixel's own" in told
    call = told[told.index("perpixel.search.runner.show_run") :].strip()
    assert call == f'perpixel.search.runner.show_run("{tmp_path / "own"}")'
    file.write_text(file.read_text("utf-8").replace("StackSearch", "ToySearch"), "utf-8")
    page = tmp_path / "own" / "search.html"
    page.unlink()
    assert show_run(str(page.parent)) == page and page.is_file()


def test_searches_are_settings():
    """Every named search says all of itself in plain values."""
    for cls in all_searches().values():
        assert issubclass(cls, Search) and json.dumps(to_dict(cls()))


def test_policy_class():
    assert isinstance(FAST.build(ToySpace(1), 0), PPOPolicy)
