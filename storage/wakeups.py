"""PostgreSQL tells every process at once that the outbox has something; polling is only the net."""

import threading
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

CHANNEL = "hongyan_outbox"
SECONDS = 1.0  # between looks whether the listener shall end
AGAIN = 0.5  # seconds until a lost connection is opened again


def announce(connection: Connection) -> None:
    """Wake all processes when this transaction commits; on SQLite there is only this one."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")


class Listener:
    """Calls `wake` from a thread of its own for every announcement, until it is closed.

    Behind a pooler that does not carry notifications it stays silent, and polling does the work.
    """

    def __init__(self, engine: Engine, wake: Callable[[], None]) -> None:
        self._engine = engine
        self._wake = wake
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wakeups", daemon=True)
        if engine.dialect.name != "sqlite":
            self._thread.start()

    def close(self) -> None:
        """End the thread; safe to repeat."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        # A database that is away is for the loop that needs it to report; this one only listens.
        while not self._closed.is_set():
            try:
                self._listen()
            except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error):
                self._closed.wait(AGAIN)

    def _listen(self) -> None:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"LISTEN {CHANNEL}")
            driver: Any = connection.connection.driver_connection
            try:
                # What was announced while nobody listened.
                self._wake()
                while not self._closed.is_set():
                    for _told in driver.notifies(timeout=SECONDS, stop_after=1):
                        self._wake()
            finally:
                connection.invalidate()
