"""A guard in the tests' databases: no outbox row ever moves as `TRANSITIONS` does not say."""

from __future__ import annotations

from storage.states import TRANSITIONS

_LEGAL = ", ".join(
    f"'{before}>{after}'" for before, known in TRANSITIONS.items() for after in sorted(known)
)
_ILLEGAL = f"OLD.state <> NEW.state AND OLD.state || '>' || NEW.state NOT IN ({_LEGAL})"

ON_SQLITE = (
    f"CREATE TRIGGER IF NOT EXISTS outbox_moves BEFORE UPDATE OF state ON outbox WHEN {_ILLEGAL} "
    "BEGIN SELECT RAISE(ABORT, 'no such transition'); END"
)
ON_POSTGRESQL = (
    "CREATE FUNCTION refuse_move() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE 'no such transition: % to %', OLD.state, NEW.state; END $$;\n"
    "CREATE TRIGGER outbox_moves BEFORE UPDATE OF state ON outbox FOR EACH ROW "
    f"WHEN ({_ILLEGAL}) EXECUTE FUNCTION refuse_move()"
)
