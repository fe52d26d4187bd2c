"""`hongyan play`: a conversation in the terminal with a whole bot on a throw-away database."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlmodel import select

from bot.app import App, services_for
from bot.catalog import Catalog
from bot.channels.console import FACTS, Console
from bot.clock import BEIJING, MovableClock, beijing, show_time
from bot.messages import Inbound
from bot.settings import demo_settings
from storage.columns import KeyRing
from storage.people import Contact, Grant
from storage.tables import METADATA

SPEAKER = "乡亲"
"""Who speaks in a transcript when no name is given."""

OFFICE: Mapping[str, str] = {
    "office_name": "区域经济合作服务中心",
    "office_phone": "0475-0000000",
    "signatory": "区域经济合作服务中心",
}
"""The invented office of transcripts."""


@dataclass
class Transcript:
    """What was said, in the format in which the tests play it again."""

    place: str
    start: datetime
    role: str
    lines: list[str] = field(default_factory=list)

    def note(self, mark: str, text: str) -> None:
        """One line said (`>`), answered (`<`), unasked (`<<`) or a moved clock (`@`)."""
        self.lines.append(f"{mark} {text}".rstrip())

    def text(self) -> str:
        """The file."""
        head = [f"% place {self.place}", f"% start {show_time(self.start)}"]
        if self.role:
            head.append(f"% role {SPEAKER} {self.role}")
        return "\n".join([*head, "", *self.lines]) + "\n"


def typed(prompt: str = "> ") -> Iterator[str]:
    """Lines as they are typed, until Ctrl-D or Ctrl-C."""
    while True:
        try:
            yield input(prompt)
        except (EOFError, KeyboardInterrupt):
            return


def play(
    catalog: Catalog,
    lines: Iterable[str],
    write: Callable[[str], None],
    *,
    place: str,
    role: str,
    start: datetime,
) -> Transcript:
    """Talk until the lines end; `@ 2026-09-25 09:00` moves the clock, an empty line beats."""
    start = beijing(start).replace(second=0, microsecond=0)
    transcript = Transcript(place, start, role)
    clock = MovableClock(start)
    with tempfile.TemporaryDirectory(prefix="hongyan-play-") as folder:
        settings = demo_settings(database_url=f"sqlite:///{folder}/play.db", place=place, **OFFICE)
        services = services_for(
            settings, {FACTS.name: FACTS}, keys=KeyRing.generate(), clock=clock, catalog=catalog
        )
        METADATA.create_all(services.database.engine)

        async def settled() -> None:
            await app.delivery.until_idle()

        def moved(words: str) -> None:
            try:
                moment = datetime.fromisoformat(words) if words else beijing(clock.now())
            except ValueError:
                write("（时间的写法是 @ 2026-09-25 09:00）")
                return
            clock.set(moment.replace(tzinfo=BEIJING))
            transcript.note("@", show_time(clock.now()))
            write(f"（{show_time(clock.now())}）")
            app.beat()

        console = Console(lines, write, clock, settled, moved, transcript.note)
        app = App(services, {FACTS.name: console}, alone=True)
        try:
            if role:
                _grant(app, console, role)
            _run(app, console)
        finally:
            app.close()
    return transcript


def _grant(app: App, console: Console, role: str) -> None:
    hello = Inbound("0", console.person, "菜单", app.services.clock.now())
    app.dispatcher.handle(hello)
    with app.services.database.session() as session:
        person_id = session.exec(
            select(Contact.person_id).where(Contact.address == str(console.person))
        ).one()
        session.add(Grant(person_id=person_id, role=role, granted_at=app.services.clock.now()))


def _run(app: App, console: Console) -> None:
    # Not asyncio.run: it would swallow the Ctrl-C of somebody who is being waited for.
    loop = asyncio.new_event_loop()
    app.dispatcher.start()
    try:
        loop.run_until_complete(console.run(app.receive))
    finally:
        app.dispatcher.stop()
        loop.close()


def save(transcript: Transcript, path: Path) -> None:
    """Write a transcript; an older file of that name is kept under `.old`."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}.old"))
    path.write_text(transcript.text(), encoding="utf-8")
