"""G1 to G4 against a model: 100 random runs of 32 sessions (model.py says how to run thousands),
and a check of the checker: histories that break one rule each."""

import os
import random

import pytest

from model import model_cluster, run_seeds
from model_checker import check
from model_history import Hearing, History, Sent, Stored, Trail, Transaction
from workload import ABORTED, COMMITTED, UNKNOWN

GROUPS, RUNS = 5, 20  # with the engine
PLAIN_RUNS = 10


@pytest.fixture(scope="module")
def model(tier):
    with model_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def first_seed():
    return int(os.environ.get("HERALD_SEED") or random.SystemRandom().randrange(10**9))


def run(cluster, first, runs):
    """Runs in a row; the failure names the seed."""
    print(f"test/cluster/model.py{'' if cluster.engine else ' --plain'} --seeds N repeats seed N")
    run_seeds(cluster, range(first, first + runs))


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_runs_obey_the_model(model, first_seed, group):
    run(model, first_seed + group * RUNS, RUNS)


@pytest.mark.tier("plain")
def test_random_runs_without_the_engine_obey_it_too(model, first_seed):
    run(model, first_seed, PLAIN_RUNS)


# The checker. Times in these histories are whole seconds, positions 101, 102, …

TOPICS = {"a": "news", "b": "room:1"}


def transaction(name, began, ended, *labels, outcome=COMMITTED):
    """Sends one message a label; the first letter of a label says on which topic."""
    sent = [Sent(label, TOPICS[label[0]], id=f"id-{label}") for label in labels]
    return Transaction(name, began, sent, commit_sent=ended - 0.5, ended=ended, outcome=outcome)


def sound():
    """Three transactions, two of them side by side, one rolled back; everybody saw it all."""
    history = History(base=100)
    history.transactions = [
        transaction("one", 1, 4, "a1", "b1"),
        transaction("two", 2, 5, "a2"),
        transaction("undone", 2, 3, "a9", outcome=ABORTED),
        transaction("three", 6, 7, "b3", "a3"),
    ]
    history.transactions[0].discarded.append("a8")
    history.log = [
        Stored(101 + n, f"id-{label}", TOPICS[label[0]], label, f"envelope of {label}")
        for n, label in enumerate(["a1", "b1", "a2", "b3", "a3"])
    ]
    both, news = frozenset({"news", "room:1"}), frozenset({"news"})
    history.trails = [
        Trail("pager", both, [(row.pos, row.id) for row in history.log]),
        Trail("news", news, [(101, "id-a1"), (103, "id-a2"), (105, "id-a3")]),
    ]
    everything = [(row.pos, row.id, row.envelope) for row in history.log]
    history.hearings = [Hearing("listener", both, 100, everything)]
    history.sightings = [(4.5, 102, "pager"), (5.5, 103, "pager"), (8, 105, "pager")]
    history.horizons = [100, 102, 102, 105]
    return history


def at(history, label):
    return next(row for row in history.log if row.label == label)


def sent(history, label):
    return next(m for t in history.transactions for m in t.messages if m.label == label)


def lose_a_message(history):
    history.log.remove(at(history, "a2"))


def keep_what_was_rolled_back(history):
    history.log.append(Stored(106, "id-a9", "news", "a9", ""))


def keep_what_was_rolled_back_to_a_savepoint(history):
    history.log.append(Stored(106, "id-a8", "news", "a8", ""))


def keep_half_of_an_unanswered_transaction(history):
    history.transactions[0].outcome, history.transactions[0].ended = UNKNOWN, None
    history.log.remove(at(history, "b1"))


def store_twice(history):
    history.log.append(Stored(106, "id-again", "news", "a1", ""))


def put_on_another_topic(history):
    at(history, "a1").topic = "room:1"


def give_another_id(history):
    at(history, "a1").id = "id-other"


def give_a_position_twice(history):
    at(history, "a2").pos = 102


def give_an_id_twice(history):
    at(history, "a2").id = "id-b1"
    sent(history, "a2").id = "id-b1"


def go_below_the_base(history):
    at(history, "a1").pos = 100


def leave_the_range(history):
    at(history, "a3").pos = 2**53


def turn_a_transaction_round(history):
    one, other = at(history, "b3"), at(history, "a3")
    one.pos, other.pos = other.pos, one.pos


def break_real_time_order(history):
    """three, which began after two's commit was answered, comes before it."""
    at(history, "a2").pos = 106


def arrive_late(history):
    """one's COMMIT was sent when 102 had been seen already."""
    history.sightings.append((3.4, 102, "somebody"))


def take_the_horizon_back(history):
    history.horizons.append(104)


def move_a_message_down(history):
    sent(history, "a2").seen_at = 104


def reuse_a_number(history):
    """undone had seen the number that two's message has now."""
    sent(history, "a9").seen_at = 103


def reuse_a_number_of_nobody(history):
    sent(history, "a9").seen_at = 110
    other = transaction("undone too", 2, 3, "a7", outcome=ABORTED)
    other.messages[0].seen_at = 110
    history.transactions.append(other)


def skip_in_a_reader(history):
    del history.trails[0].got[2]


def give_a_reader_a_stranger(history):
    history.trails[1].got.insert(1, (102, "id-b1"))


def give_a_reader_twice(history):
    history.trails[1].got.insert(1, (101, "id-a1"))


def turn_a_reader_round(history):
    history.trails[0].got.reverse()


def skip_in_a_listener(history):
    del history.hearings[0].heard[1]


def skip_the_end_in_a_listener(history):
    del history.hearings[0].heard[-1]


def skip_the_beginning_in_a_listener(history):
    """It was there before COMMIT was sent."""
    del history.hearings[0].heard[0]


def skip_all_in_a_listener(history):
    history.hearings[0].heard.clear()


def announce_twice(history):
    history.hearings[0].heard.append(history.hearings[0].heard[-1])


def announce_with_another_position(history):
    history.hearings[0].heard[-1] = (106, *history.hearings[0].heard[-1][1:])


def announce_with_another_envelope(history):
    history.hearings[0].heard[0] = (101, "id-a1", "another envelope")


def announce_out_of_order(history):
    history.hearings[0].heard.reverse()


def skip_before_a_cut(history):
    """What came last before the server's end is known; what was left out before it, is missing."""
    history.hearings[0].cut = True
    del history.hearings[0].heard[2]


def skip_after_the_beginning(history):
    """Of what was there before LISTEN some may be heard; of what came after it, all."""
    history.hearings[0].horizon = 101
    del history.hearings[0].heard[2]


def store_a_key_twice(history):
    for label in ("a1", "a2"):
        sent(history, label).key = "key"


def return_a_wrong_id_for_a_key(history):
    """two sent with the key that three's stored message has, and was told of yet another one."""
    sent(history, "a2").key = sent(history, "a3").key = "key"
    lose_a_message(history)
    history.trails[0].got.remove((103, "id-a2"))
    history.trails[1].got.remove((103, "id-a2"))
    del history.hearings[0].heard[2]


BREAKS = {
    lose_a_message: "a2 is lost",
    keep_what_was_rolled_back: "a9 is stored, though nobody committed it",
    keep_what_was_rolled_back_to_a_savepoint: "a8 is stored, though nobody committed it",
    keep_half_of_an_unanswered_transaction: "b1 is lost",
    store_twice: "a1 is stored 2 times",
    put_on_another_topic: "a1 is on room:1, not on news",
    give_another_id: "a1 has id id-other",
    give_a_position_twice: "position 102 is given twice",
    give_an_id_twice: "id id-b1 is given 2 times",
    go_below_the_base: "a1 has position 100",
    leave_the_range: f"a3 has position {2**53}",
    turn_a_transaction_round: "not in the order of sending",
    break_real_time_order: "position 104 was given after a commit that had 106",
    arrive_late: "position 101 came late: somebody had 102",
    take_the_horizon_back: "the horizon went back from 105 to 104",
    move_a_message_down: "a2 went back to 103",
    reuse_a_number: "position 103 was seen on a9, is now of a2",
    reuse_a_number_of_nobody: "position 110 was seen on a9 too",
    skip_in_a_reader: "pager: 4 received, 5 expected; missing [103]",
    give_a_reader_a_stranger: "news: 4 received, 3 expected; missing [], too much [102]",
    give_a_reader_twice: "news: 4 received, 3 expected; missing [], too much [], repeated [101]",
    turn_a_reader_round: "pager: positions not increasing",
    skip_in_a_listener: "listener: 4 received, 5 expected; missing [102]",
    skip_the_end_in_a_listener: "listener: 4 received, 5 expected; missing [105]",
    skip_the_beginning_in_a_listener: "listener: 4 received, 5 expected; missing [101]",
    skip_all_in_a_listener: "listener: 0 received, 5 expected",
    announce_twice: "listener: 6 received, 5 expected",
    announce_with_another_position: "missing [105], too much [106]",
    announce_with_another_envelope: "(101, 'id-a1', 'another envelope')",
    announce_out_of_order: "listener: positions not increasing",
    skip_after_the_beginning: "listener: 4 received, 5 expected; missing [103]",
    skip_before_a_cut: "listener: 4 received, 5 expected; missing [103]",
    store_a_key_twice: "key 'key' is stored 2 times",
    return_a_wrong_id_for_a_key: "key 'key': id-a3 is stored, ['id-a2'] was returned",
}


@pytest.mark.parametrize("spoil", BREAKS, ids=lambda spoil: spoil.__name__)
def test_the_checker_finds_what_is_broken(spoil):
    history = sound()
    spoil(history)
    history.log.sort(key=lambda row: row.pos)
    broken = "\n".join(check(history))
    assert BREAKS[spoil] in broken


def leave_it(_):
    pass


def settle_as_committed(history):
    history.transactions[0].outcome, history.transactions[0].ended = UNKNOWN, None


def settle_as_rolled_back(history):
    history.transactions[2].outcome, history.transactions[2].ended = UNKNOWN, None


def leave_a_gap(history):
    at(history, "a3").pos += 1000
    history.trails[0].got[-1] = history.trails[1].got[-1] = (1105, "id-a3")
    history.hearings[0].heard[-1] = (1105, "id-a3", "envelope of a3")


def renumber_a_message(history):
    sent(history, "a3").seen_at = 104 - 4
    history.base = 99


def send_a_key_again(history):
    """two was told the id of one's message."""
    for label in ("a1", "a2"):
        sent(history, label).key, sent(history, label).id = "key", "id-a1"
    lose_a_message(history)
    history.trails[0].got.remove((103, "id-a2"))
    history.trails[1].got.remove((103, "id-a2"))
    del history.hearings[0].heard[2]


def begin_to_listen_in_the_middle(history):
    history.hearings[0].horizon = 103
    del history.hearings[0].heard[:3]


def hear_some_of_what_was_there_before(history):
    history.hearings[0].horizon = 103
    del history.hearings[0].heard[1:3]


def lose_the_end_with_the_server(history):
    history.hearings[0].cut = True
    del history.hearings[0].heard[3:]


@pytest.mark.parametrize(
    "change",
    [
        leave_it, settle_as_committed, settle_as_rolled_back, leave_a_gap, renumber_a_message,
        send_a_key_again, begin_to_listen_in_the_middle, hear_some_of_what_was_there_before,
        lose_the_end_with_the_server,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_the_checker_is_content_with_what_is_allowed(change):
    history = sound()
    change(history)
    assert check(history) == []
