import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from pools import UserError
from pools.data.recording import load_recording, save_recording
from pools.mdp.env import UNANSWERED, RoutingEnv
from pools.mdp.vector_env import RoutingVectorEnv

WEIGHT = 0.1


def tokens(made):
    return made.tokens_in + made.tokens_out


def embed(contexts):
    """Length and number of the responses, and two sums over the text: enough to tell contexts apart."""
    rows = []
    for context in contexts:
        text = "|".join((context.query, *context.responses))
        rows.append(
            [len(text), len(context.responses), sum(map(ord, text)), sum(n * ord(c) for n, c in enumerate(text))]
        )
    return np.array(rows, np.float32).reshape(len(rows), 4)


@pytest.mark.parametrize("allow_stop", [False, True])
def test_gymnasium_s_own_check(synthetic_tree, allow_stop):
    env = RoutingEnv(synthetic_tree(), embed, WEIGHT, allow_stop)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Embeddings have no bounds; that, and the missing registration, is all that it may remark on.
        warnings.filterwarnings("ignore", message=".*Box observation space (min|max)imum value is.*")
        warnings.filterwarnings("ignore", message=".*not having a spec.*|.*spec.*", category=UserWarning)
        check_env(env, skip_render_check=True)
    assert env.action_space == gymnasium.spaces.Discrete(3 if allow_stop else 2)


def test_an_episode(synthetic_tree):
    tree = synthetic_tree(models=2, max_hops=2)
    env = RoutingEnv(tree, embed, WEIGHT)
    observation, info = env.reset(options={"item": 2})
    assert info == {"item": 2, "node": 0}
    assert (observation["hop"], observation["cost"].tolist()) == (0, [0.0])
    assert observation["embedding"].tolist() == embed([tree.context(2, 0)])[0].tolist()

    first, second = tree.node((1,)), tree.node((1, 0))
    cost = 0.02 * tokens(tree.generation(2, first))
    observation, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated) == (pytest.approx(-WEIGHT * cost), False, False)
    assert info == {"item": 2, "node": first}
    assert observation["hop"] == 1
    assert observation["cost"][0] == pytest.approx(cost)

    last = 0.01 * tokens(tree.generation(2, second))
    observation, reward, terminated, truncated, info = env.step(0)
    assert (terminated, truncated, observation["hop"]) == (True, False, 2)
    assert reward == pytest.approx(tree.score[2, second] - WEIGHT * last)
    assert info["quality"] == tree.score[2, second]
    assert info["cost"] == pytest.approx(cost + last)
    with pytest.raises(ValueError, match="ended"):
        env.step(0)


def test_stop(synthetic_tree):
    tree = synthetic_tree(models=2, max_hops=3)
    env = RoutingEnv(tree, embed, WEIGHT, allow_stop=True)
    env.reset(options={"item": 1})
    env.step(0)
    observation, reward, terminated, _, info = env.step(2)
    assert (terminated, observation["hop"], info["node"]) == (True, 1, 1)
    assert reward == info["quality"] == tree.score[1, 1]
    env.reset(options={"item": 1})
    _, reward, terminated, _, info = env.step(2)
    assert (terminated, reward, info["quality"], info["cost"]) == (True, UNANSWERED, 0.0, 0.0)


@pytest.mark.parametrize(("allow_stop", "action"), [(False, 2), (False, -1), (True, 3)])
def test_what_is_no_action_is_refused(synthetic_tree, allow_stop, action):
    env = RoutingEnv(synthetic_tree(), embed, WEIGHT, allow_stop)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action"):
        env.step(action)
    many = RoutingVectorEnv(synthetic_tree(), embed, 2, WEIGHT, allow_stop)
    many.reset(seed=0)
    with pytest.raises(ValueError, match="actions"):
        many.step(np.array([0, action]))


def test_items_are_drawn_by_the_seed(synthetic_tree):
    env = RoutingEnv(synthetic_tree(items=50), embed)
    drawn = [env.reset(seed=3)[1]["item"]] + [env.reset()[1]["item"] for _ in range(5)]
    assert drawn == [env.reset(seed=3)[1]["item"]] + [env.reset()[1]["item"] for _ in range(5)]
    assert len(set(drawn)) > 2


@pytest.mark.parametrize("allow_stop", [False, True])
def test_the_vector_env_gives_the_single_env_s_episodes(synthetic_tree, allow_stop):
    tree = synthetic_tree(items=9, models=2, max_hops=3, seed=4)
    single = RoutingEnv(tree, embed, WEIGHT, allow_stop)
    many = RoutingVectorEnv(tree, embed, 32, WEIGHT, allow_stop)
    random = np.random.default_rng(0)
    items = random.integers(9, size=32)
    observations, infos = many.reset(seed=0, options={"items": items})
    assert infos["item"].tolist() == items.tolist()
    taken = [[] for _ in range(32)]  # (action, reward) since the episode's beginning
    ended_episodes = 0
    for _ in range(12):
        actions = random.integers(3 if allow_stop else 2, size=32)
        before = observations
        observations, rewards, ended, truncated, infos = many.step(actions)
        assert many.observation_space.contains(observations)
        assert not truncated.any()
        assert ("final_obs" in infos) == bool(ended.any())
        for b in range(32):
            taken[b].append((int(actions[b]), rewards[b]))
            seen, _ = single.reset(options={"item": int(items[b])})
            for action, reward in taken[b]:
                last = seen
                seen, expected, terminated, _, info = single.step(action)
                assert reward == pytest.approx(expected, abs=1e-12)
            _equal(last, before, b)
            assert terminated == ended[b]
            assert (infos["item"][b], infos["node"][b]) == (info["item"], info["node"])
            if not terminated:
                _equal(seen, observations, b)
                continue
            ended_episodes += 1
            _equal(seen, infos["final_obs"], b)
            assert infos["_final_obs"][b] and infos["_episode"][b]
            episode = {name: values[b] for name, values in infos["episode"].items()}
            assert episode["r"] == pytest.approx(sum(reward for _, reward in taken[b]), abs=1e-12)
            assert episode["l"] == seen["hop"]
            assert (episode["quality"], episode["cost"]) == (info["quality"], pytest.approx(info["cost"]))
            items[b], taken[b] = many.item[b], []
    assert ended_episodes > 64


def _equal(one, many, b):
    assert one["hop"] == many["hop"][b]
    assert one["cost"][0] == pytest.approx(many["cost"][b, 0], rel=1e-6)
    assert one["embedding"].tolist() == many["embedding"][b].tolist()


def test_an_ended_episode_begins_anew_in_the_same_step(synthetic_tree):
    tree = synthetic_tree(items=40, models=2, max_hops=1)
    env = RoutingVectorEnv(tree, embed, 64, WEIGHT)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=1)
    first = env.item.copy()
    observations, _, ended, _, infos = env.step(np.ones(64, np.int64))
    assert ended.all()
    assert np.all(observations["hop"] == 0)
    assert np.all(observations["cost"] == 0)
    assert np.all(env.node == 0)
    assert not np.array_equal(env.item, first)
    assert infos["item"].tolist() == first.tolist()
    assert observations["embedding"].tolist() == embed([tree.context(i, 0) for i in env.item]).tolist()
    # Only the ended ones do.
    env = RoutingVectorEnv(synthetic_tree(items=40, max_hops=2), embed, 4, WEIGHT, allow_stop=True)
    env.reset(options={"items": [5, 6, 7, 8]})
    env.step(np.zeros(4, np.int64))
    _, _, ended, _, infos = env.step(np.array([2, 0, 2, 1]))
    assert ended.tolist() == [True] * 4
    assert infos["episode"]["l"].tolist() == [1, 2, 1, 2]


def test_the_same_seed_draws_the_same_items(synthetic_tree):
    runs = []
    for _ in range(2):
        env = RoutingVectorEnv(synthetic_tree(items=40), embed, 16)
        env.reset(seed=9)
        drawn = [env.item.tolist()]
        for _ in range(4):
            env.step(np.zeros(16, np.int64))
            drawn.append(env.item.tolist())
        runs.append(drawn)
    assert runs[0] == runs[1]


def test_every_context_is_embedded_once(synthetic_tree):
    seen = []

    def counting(contexts):
        seen.extend(contexts)
        return embed(contexts)

    tree = synthetic_tree(items=5, models=2, max_hops=2, complete=False)
    env = RoutingVectorEnv(tree, counting, 16)
    seen.clear()  # the constructor asks for the dimension
    env.reset(seed=0)
    for step in range(8):
        env.step(np.arange(16) // (step + 1) % 2)
    assert len(seen) == len(set(seen)) == len(tree.contexts)


def test_live_equals_recorded(synthetic_tree, made_up_generator, tmp_path, made_up_pool):
    """The same rewards from models that are asked on the way, a tree that is complete, and one read from files."""
    generator = made_up_generator()
    live = synthetic_tree(items=6, models=2, max_hops=2, complete=False, generator=generator)
    complete = synthetic_tree(items=6, models=2, max_hops=2)
    save_recording(complete, made_up_pool, {"suite": "made-up"}, tmp_path / "recording")
    recorded = load_recording(tmp_path / "recording").tree
    runs = []
    for tree in (live, complete, recorded):
        env = RoutingVectorEnv(tree, embed, 8, WEIGHT, allow_stop=True)
        random = np.random.default_rng(1)
        observations, _ = env.reset(seed=2)
        run = [observations["embedding"].tolist()]
        for _ in range(5):
            observations, rewards, ended, _, infos = env.step(random.integers(3, size=8))
            run += [observations["embedding"].tolist(), rewards.tolist(), ended.tolist(), infos["node"].tolist()]
        runs.append(run)
    assert runs[0] == runs[1] == runs[2]
    assert generator.calls
    assert not live.complete


def test_a_recording_that_lacks_the_response_says_so(synthetic_tree):
    tree = synthetic_tree(items=2, complete=False)
    tree._generator = None
    env = RoutingEnv(tree, embed)
    env.reset(seed=0)
    with pytest.raises(UserError, match="--live"):
        env.step(0)


def test_restore_goes_on_where_it_stood(synthetic_tree):
    def steps(env, random):
        return [env.step(random.integers(2, size=8))[1].tolist() for _ in range(6)]

    env = RoutingVectorEnv(synthetic_tree(items=20), embed, 8, WEIGHT)
    env.reset(seed=0)
    env.step(np.zeros(8, np.int64))
    state = {name: values.tolist() for name, values in env.state().items()}
    random_state = env.random_state()
    expected = steps(env, np.random.default_rng(0))
    other = RoutingVectorEnv(synthetic_tree(items=20), embed, 8, WEIGHT)
    other.reset(seed=77)
    other.restore(state, random_state)
    assert steps(other, np.random.default_rng(0)) == expected


def test_with_several_cost_weights_each_episode_draws_one_sees_it_and_is_charged_at_it(synthetic_tree):
    tree = synthetic_tree(items=6, models=2, max_hops=2)
    weights = (0.0, 0.01, 1.0)
    env = RoutingVectorEnv(tree, embed, 300, weights, allow_stop=False)
    seen, _ = env.reset(seed=3)
    assert env.observation_space.contains(seen)
    charged = seen["cost_weight"][:, 0].astype(float)
    assert sorted(set(np.round(charged, 6))) == [0.0, 0.01, 1.0]
    assert (np.bincount(env.weight) > 60).all()
    env.step(np.zeros(300, np.int64))
    _, _, ended, _, info = env.step(np.ones(300, np.int64))
    assert ended.all()
    episode = info["episode"]
    np.testing.assert_allclose(episode["r"], episode["quality"] - charged * episode["cost"], atol=1e-6)
    assert (env.cost_weights[env.weight] != charged).any(), "a new episode draws anew"
