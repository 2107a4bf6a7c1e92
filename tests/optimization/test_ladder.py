"""The recovery ladder without a training: what it answers to which series of steps."""

import json
import math
from random import Random

import pytest

from ava.optimization.stability.beginning import HIGH, Beginning
from ava.optimization.stability.comeback import GROWTH, Comeback
from ava.optimization.stability.ladder import Ladder, Sight


def sound(ladder, steps, loss=1.0):
    return [ladder.see(Sight(step, loss)) for step in steps]


def bad(ladder, steps, loss=9.0, **more):
    """Bad steps, the last of which is persistent; the answer to that."""
    *first, last = steps
    assert not any(ladder.see(Sight(step, loss, is_bad=True, **more)) for step in first)
    return ladder.see(Sight(last, loss, is_bad=True, is_persistent=True, **more))


@pytest.fixture
def ladder():
    ladder = Ladder(total_steps=1000, early=0.1, budget=4)
    sound(ladder, range(1, 301), loss=1.0)
    return ladder


def test_nothing_is_done_about_sound_steps_and_single_bad_ones(ladder):
    assert sound(ladder, range(301, 400)) == [None] * 99
    assert ladder.see(Sight(400, 9.0, is_bad=True)) is None
    assert not ladder.is_calm
    sound(ladder, range(401, 404))
    assert ladder.is_calm
    assert ladder.comeback.multiplier == 1.0


def test_it_climbs(ladder):
    """Back to before the onset; soon again, further back and without moments; then it gives up."""
    answer = bad(ladder, range(301, 309))
    assert (answer.level, answer.action, answer.before) == (3, "rollback", 299)
    ladder.went_back(answer, to=295)
    assert ladder.comeback.factor == 0.5
    sound(ladder, [296, 297])
    answer = bad(ladder, range(298, 306))
    assert (answer.level, answer.action, answer.before) == (4, "rollback_reset", 294)
    ladder.went_back(answer, to=280)
    assert ladder.comeback.factor == 0.25
    for to in (270, 260):
        sound(ladder, [to + 11, to + 12])
        answer = bad(ladder, range(to + 13, to + 21))
        assert answer.level == 4
        ladder.went_back(answer, to=to)
    sound(ladder, [261, 262])
    answer = bad(ladder, range(263, 271))
    assert (answer.level, answer.cause, answer.action, answer.sign) == (6, "budget_spent", "stop", "persistent")


def test_trouble_long_after_is_new_trouble(ladder):
    ladder.went_back(bad(ladder, range(301, 309)), to=295)
    sound(ladder, range(296, 400))
    assert bad(ladder, range(400, 408)).level == 3


def test_a_young_training_begins_anew_where_going_back_was_not_enough():
    ladder = Ladder(total_steps=1000, early=0.2)
    sound(ladder, range(1, 50), loss=2.0)
    sound(ladder, range(50, 100), loss=1.0)
    ladder.went_back(bad(ladder, range(100, 108)), to=95)
    sound(ladder, [96, 97])
    answer = bad(ladder, range(98, 106))
    assert (answer.level, answer.action, answer.before) == (5, "restart", 0)
    ladder.went_back(answer, to=0)
    assert ladder.comeback.factor == 0.125


def test_who_has_forgotten_the_beginning_does_not_go_there():
    ladder = Ladder(total_steps=1000, early=0.2)
    sound(ladder, range(1, 50), loss=2.0)
    ladder.grow_up()
    assert not any(ladder.see(Sight(step, math.nan)) for step in range(50, 70))


def test_damaged_weights_are_restored_at_once_and_the_rate_stays(ladder):
    answer = ladder.see(Sight(301, math.nan, weights="nonfinite"))
    assert (answer.cause, answer.action, answer.before) == ("weights_nonfinite", "restore", 300)
    ladder.went_back(answer, to=295)
    assert ladder.comeback.multiplier == 1.0
    # What was restored is spoilt itself: an older one.
    assert ladder.see(Sight(296, math.nan, weights="nonfinite")).before == 294


def test_losses_that_sound_weights_find_outlying_are_the_data(ladder):
    """After going back nothing was changed yet: to go back again would undo nothing."""
    ladder.went_back(bad(ladder, range(301, 309), is_left_out=True), to=295)
    for step in range(296, 330):
        assert ladder.see(Sight(step, 9.0, is_bad=True, is_persistent=True, is_left_out=True)) is None
    for step in range(330, 370):
        answer = ladder.see(Sight(step, 9.0, is_bad=True, is_persistent=True, is_left_out=True))
    assert answer is not None  # but not for ever


def test_a_loss_as_good_as_ever_is_no_trouble(ladder):
    for step in range(301, 320):
        assert ladder.see(Sight(step, 1.05, is_bad=True, is_persistent=True)) is None


def test_its_state_is_plain_and_complete(ladder):
    ladder.went_back(bad(ladder, range(301, 309)), to=295)
    sound(ladder, [296, 297])
    ladder.see(Sight(298, 9.0, is_bad=True))
    state = json.loads(json.dumps(ladder.state_dict()))
    other = Ladder(total_steps=1000, early=0.1, budget=4)
    other.load_state_dict(state)
    sights = [Sight(step, 9.0, is_bad=True, is_persistent=step > 304) for step in range(299, 310)]
    assert [ladder.see(one) for one in sights] == [other.see(one) for one in sights]
    assert repr(ladder.state_dict()) == repr(other.state_dict())


def test_the_rate_warms_up_and_grows_back():
    comeback = Comeback(warmup_steps=4)
    comeback.fall(0.25)
    seen = []
    for _ in range(4 + 2 * GROWTH + 1):
        seen.append(comeback.multiplier)
        comeback.step(is_clean=True)
    assert seen[:4] == pytest.approx([0.0625, 0.125, 0.1875, 0.25])
    assert seen[-1] == 1.0
    assert 0.5 in seen


def test_where_trouble_comes_again_is_the_ceiling():
    comeback = Comeback(warmup_steps=0)
    comeback.fall(0.5)
    for _ in range(3 * GROWTH):
        comeback.step(is_clean=True)
    assert (comeback.factor, comeback.ceiling) == (1.0, 1.0)
    comeback.fall(0.5)
    for _ in range(3 * GROWTH):
        comeback.step(is_clean=True)
    assert (comeback.factor, comeback.ceiling) == (0.5, 0.5)


def test_unclean_steps_do_not_count():
    comeback = Comeback(warmup_steps=0)
    comeback.fall(0.5)
    for step in range(10 * GROWTH):
        comeback.step(is_clean=step % 5 != 0)
    assert comeback.factor == 0.5


@pytest.mark.parametrize("loss", [5.0, math.inf, math.nan])
def test_a_start_that_is_worse_than_untrained(loss):
    beginning = Beginning(50, lambda: None)
    assert beginning.see(1, 2.3) is None
    signs = [beginning.see(step, loss) for step in range(2, 2 + HIGH)]
    assert signs == [None] * (HIGH - 1) + ["high"]


@pytest.mark.parametrize(
    ("losses", "sign"),
    [
        ([2.3, 8.0, *[2.31] * 60], "stuck"),
        ([2.3, *[2.31] * 60], None),
        ([2.3, 8.0, *[2.31 - 0.004 * i for i in range(60)]], None),
        ([2.3, 8.0, *[1.9] * 60], None),
    ],
    ids=["stuck", "a rate too low", "falling", "below the constant answer"],
)
def test_stuck_takes_two_signs(losses, sign):
    beginning = Beginning(60, lambda: math.log(10))
    found = [beginning.see(step, loss) for step, loss in enumerate(losses, 1)]
    assert (sign in found) if sign else not any(found)


@pytest.mark.parametrize(
    ("loss", "size", "sign"),
    [(2.31, 3.0, "vain"), (2.31, 1.4, None), (1.9, 3.0, None)],
    ids=["in vain", "weights that hardly grew", "a loss that fell"],
)
def test_weights_that_grow_in_vain_take_two_signs(loss, size, sign):
    beginning = Beginning(60, lambda: math.log(10))
    losses = [5.4, 4.0, *[loss] * 58]
    sizes = [1.0, *[size] * 59]
    pairs = enumerate(zip(losses, sizes, strict=True), 1)
    found = [beginning.see(step, loss, size=size) for step, (loss, size) in pairs]
    assert (sign in found) if sign else not any(found)


@pytest.mark.parametrize("is_finite", [True, False], ids=["outlying", "not finite"])
def test_steps_left_out_at_once_after_going_back_excuse_the_rate(ladder, is_finite):
    answer = bad(ladder, range(301, 309))
    ladder.went_back(answer, 295)
    assert ladder.is_alert
    assert ladder.comeback.factor < 1
    left_out = {"is_left_out": True, "is_finite": is_finite}
    assert bad(ladder, range(296, 316), **left_out) is None
    assert (ladder.comeback.factor, ladder.comeback.multiplier) == (1.0, 1.0)
    sound(ladder, range(316, 319))
    assert not ladder.is_alert


@pytest.mark.parametrize(
    ("lengths", "norms", "sign"),
    [
        ([10.0] * 20 + [1.0] * 3, [1.0] * 23, "rate"),
        ([10.0] * 20 + [1.0] * 3, [1.0] * 20 + [0.1] * 3, None),
        ([10.0 * 0.9**i for i in range(40)], [1.0] * 40, None),
        ([10.0] * 20 + [1.0, 10.0] * 5, [1.0] * 30, None),
    ],
    ids=["at once", "gradients explain it", "by and by", "single steps"],
)
def test_steps_that_become_shorter_at_once(lengths, norms, sign):
    beginning = Beginning(60, lambda: None)
    found = [
        beginning.see(step, 2.0, length=length, norm=norm)
        for step, (length, norm) in enumerate(zip(lengths, norms, strict=True), 1)
    ]
    assert (sign in found) if sign else not any(found)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_every_run_ends_whatever_is_seen(seed, share):
    """Each attempt is a step, and going back is bounded: so are attempts."""
    random = Random(seed)
    ladder, step, attempts, total = Ladder(total_steps=100, budget=3), 0, 0, 100
    answer = None
    while step < total and (answer is None or answer.action != "stop"):
        step, attempts = step + 1, attempts + 1
        is_bad = random.random() < share
        answer = ladder.see(Sight(
            step, random.choice([math.nan, math.inf, 9.0, -5.0]) if is_bad else random.random(), is_bad=is_bad,
            is_persistent=is_bad and random.random() < 0.5, is_finite=not is_bad, is_left_out=is_bad,
            weights=random.choice(["sound", "sound", "nonfinite", "jumped"]) if is_bad else "sound",
        ))  # fmt: skip
        if answer is not None and answer.action != "stop":
            step = min(answer.before, step - 1)
            ladder.went_back(answer, to=step)
        assert attempts <= (3 + 1) * total
    assert ladder.spent <= 3


def test_nothing_starts_anew_while_the_initial_weights_find_nothing_finite():
    """But not for ever: the budget is spent in the end."""
    ladder = Ladder(total_steps=1000, budget=2)
    blind = {"loss": math.nan, "is_finite": False, "is_left_out": True}
    answer = bad(ladder, range(1, 6), **blind)
    seen = []
    while answer.action != "stop":
        ladder.went_back(answer, to=0)
        steps = iter(range(1, 200))
        answer = next(filter(None, (ladder.see(Sight(step, is_bad=True, **blind)) for step in steps)))
        seen.append(next(steps) - 1)
    assert seen == [ladder.patience + 1] * 2
    assert not ladder.is_finite
