"""A second try is no second message, and a second message is no second try."""

from datetime import UTC, datetime, timedelta

from storage.sendings import KEPT, Try, begin, forget_sendings, note, refused
from tests.bare import Bare

NOW = datetime(2026, 3, 12, 2, 0, tzinfo=UTC)
SPAN = timedelta(minutes=30)


def tried(bare: Bare, key: str, *, content: str = "words", minutes: float = 0) -> Try:
    with bare.database.transaction() as connection:
        moment = NOW + timedelta(minutes=minutes)
        return begin(connection, "reader", content, key, moment, SPAN)


def test_a_second_try_finds_what_the_first_one_got(bare: Bare) -> None:
    assert tried(bare, "1-0") == Try(True, NOW)
    with bare.database.transaction() as connection:
        note(connection, "reader", "words", media="m1")
        note(connection, "reader", "words", message="msg1")
    assert tried(bare, "1-0", minutes=5) == Try(True, NOW, "m1", "msg1", again=True)


def test_the_same_words_on_another_occasion_are_not_dropped_as_a_repetition(bare: Bare) -> None:
    tried(bare, "1-0")
    assert not tried(bare, "2-0", minutes=29).checked
    assert not tried(bare, "2-0", minutes=29).checked
    assert tried(bare, "3-0", minutes=60).checked


def test_other_words_have_nothing_to_do_with_it(bare: Bare) -> None:
    tried(bare, "1-0")
    assert tried(bare, "2-0", content="other words").checked


def test_what_was_refused_begins_anew(bare: Bare) -> None:
    tried(bare, "1-0")
    with bare.database.transaction() as connection:
        refused(connection, "reader", "words")
    assert tried(bare, "1-0", minutes=45) == Try(True, NOW + timedelta(minutes=45))


def test_all_is_forgotten_after_a_day(bare: Bare) -> None:
    tried(bare, "1-0")
    with bare.database.transaction() as connection:
        assert forget_sendings(connection, NOW + KEPT - timedelta(seconds=1)) == 0
        assert forget_sendings(connection, NOW + KEPT) == 1
    assert tried(bare, "1-0") == Try(True, NOW)
