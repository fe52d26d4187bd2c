"""An hour of a county's talk in minutes: 2,000 people, every channel, and platforms in trouble.

The installation is a process of its own, with its real dispatcher, storage (a SQLite file) and
delivery; it talks over HTTP and WebSocket to the emulators here. Both follow one clock, which the
emulators move on when what was said has been handed over: a slow machine takes longer and sees the
same. At the end everybody's phone is compared with what the installation has written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import random
import re
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlmodel import col

from benchmarks.figures import Figure, note
from bot import logs, web
from bot.app import CHANNELS, App, build_channels, facts_of, services_for
from bot.clock import BEIJING
from bot.settings import demo_settings
from storage.columns import KeyRing
from storage.db import Database
from storage.events import Rsvp
from storage.mailbox import TABLE, Inbox
from storage.organisation import FieldTeam, TeamMember, Unit
from storage.people import Contact, Grant, Person
from storage.profiles import MemberProfile
from storage.reports import Report
from storage.states import State
from storage.tables import METADATA
from tests.people import GIVEN, SURNAMES
from tests.world import KEYS, OFFICE

PEOPLE = 2000
START = datetime(2026, 3, 31, 9, 30, tzinfo=BEIJING)
HOUR = 3600.0  # virtual seconds of talk
STEP = 5.0  # virtual seconds at a time
TAIL = 1800.0  # virtual seconds at most until the last is said
HAND_OVER = 1.0  # real seconds that one step may wait for what was said to be taken
SETTLE = 75.0  # real seconds at most until all is taken and said: one round of what only polls
TAIL_STEP = 0.25  # real seconds of a step after the hour: who waits for others gets their time
BEAT = 60.0  # virtual seconds between two heartbeats
FEW = 50  # people whom a coordinator may write to alone
REGISTER = 3  # one in so many registers; the others only ask
TOKENS_LIVE = 240.0  # virtual seconds until the platforms kill their tokens
GROWTH = 32.0  # megabytes that the installation may grow by in the second half
CITIES = ("上海", "杭州", "北京", "苏州", "呼和浩特")
DONE = (State.SENT, State.DELIVERED, State.READ)
NOTICE = "本周六上午九点，市会展中心有返乡人才交流会，欢迎参加。"
INVITATION = "家乡恳谈会"

ABOUT = {"telegram": 0.05, "wecom_kf": 0.15, "wecom": 0.03, "wecom_bot": 0.02}
"""Shares of the people; everybody else is on WeChat. Telegram takes 16 answers a second."""


# - one clock for two processes -


class FollowedClock:
    """Tells the time that another process keeps in a file: seconds of Unix time as a double."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)

    def now(self) -> datetime:
        (seconds,) = struct.unpack("d", self._shared[:8])
        moment = datetime.fromtimestamp(seconds, UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def set(self, seconds: float) -> None:
        self._shared[:8] = struct.pack("d", seconds)


def leading_clock(path: Path) -> Any:
    """The emulators' clock, which stands still until it is moved, and writes down where it is."""
    # Here, so that the installation's process need not load the emulators.
    from tests.emulators.clock import VirtualClock

    path.write_bytes(struct.pack("d", START.timestamp()))
    shared = FollowedClock(path)

    class Leading(VirtualClock):
        def _jump(self, moment: float) -> None:
            super()._jump(moment)
            shared.set(moment)

    return Leading(START)


# - the installation's process -


async def live(values: Mapping[str, str], clock_file: Path) -> None:
    """Run the whole installation until SIGTERM; the first line printed is its address."""
    logs.configure("ERROR", ())
    settings = demo_settings(**values)
    clock = FollowedClock(clock_file)
    channels = build_channels(settings, clock)
    services = services_for(settings, facts_of(channels), keys=KEYS, clock=clock)
    app = App(services, channels, alone=True)
    with web.listen("127.0.0.1", 0) as listening:
        beating = asyncio.create_task(_beat(app, clock))
        address = web.address_of(listening)
        try:
            await web.serve(app, listening, started=lambda: print(address, flush=True))
        finally:
            beating.cancel()
            app.close()


async def _beat(app: App, clock: FollowedClock) -> None:
    """The heart, by the clock that both follow."""
    last = clock.now()
    while True:
        await asyncio.sleep(0.02)
        if (clock.now() - last).total_seconds() >= BEAT:
            last = clock.now()
            await asyncio.to_thread(app.beat)


@contextlib.asynccontextmanager
async def installation(values: Mapping[str, str], clock_file: Path) -> AsyncIterator[Any]:
    """The process and its address; SIGTERM at the end, and a kill if that does not help."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.soak", json.dumps(dict(values)), str(clock_file)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise RuntimeError("the installation did not start")
        yield process, address
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def megabytes(pid: int) -> float:
    """What a process occupies of memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# - what people do -


@dataclass
class Talk:
    """Everybody who speaks, and the time that passes meanwhile."""

    platforms: Any
    crowds: Mapping[str, Any]
    chance: random.Random
    stride: float = STEP
    flying: int = 0
    names: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By address, who registers under which name from where."""
    leaders: list[str] = field(default_factory=list)
    lives: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def clock(self) -> Any:
        return self.platforms.clock

    async def say(self, crowd: Any, user: str, text: str) -> None:
        await self._handed_over(crowd.say(user, text))

    async def _handed_over(self, doing: Awaitable[None]) -> None:
        self.flying += 1
        try:
            await doing
        finally:
            self.flying -= 1

    def begin(self, life: Awaitable[None]) -> None:
        self.lives.append(asyncio.ensure_future(life))

    async def step(self) -> None:
        """Let a little time pass, and wait until what was said has been taken."""
        await self.clock.advance(self.stride)
        until = time.monotonic() + HAND_OVER
        while time.monotonic() < until and self.flying:
            await asyncio.sleep(0.002)

    async def pause(self, least: float, most: float) -> None:
        await self.clock.wait(self.chance.uniform(least, most))

    # - lives -

    async def member(self, crowd: Any, user: str, number: int, invited: float) -> None:
        """Ask, register, look at it; and answer the event that all are invited to."""
        name = SURNAMES[number % len(SURNAMES)] + GIVEN[number // len(SURNAMES) % len(GIVEN)]
        city = CITIES[number % len(CITIES)]
        await self.pause(0, HOUR * 0.3)
        await self._handed_over(crowd.enter(user))
        for text in ("菜单", "登记", "同意", "是", "8", "2", "跳过", name, city, "1", "确认", "2"):
            await self.say(crowd, user, text)
            await self.pause(2, HOUR / 100)
        self.names[str(crowd.address(user))] = (name, city)
        await self.say(crowd, user, "我的档案")
        await self._until(START.timestamp() + invited)
        await self.pause(0, HOUR * 0.15)
        for text in ("回执 不能来", "确认"):
            await self.say(crowd, user, text)
            await self.pause(2, HOUR / 100)

    async def asker(self, crowd: Any, user: str) -> None:
        """Ask this and that, and never register."""
        await self.pause(0, HOUR * 0.5)
        await self._handed_over(crowd.enter(user))
        for text in ("菜单", "活动", "隐私", "政策"):
            await self.say(crowd, user, text)
            await self.pause(2, HOUR / 10)

    async def clerk(self, crowd: Any, user: str) -> None:
        """Somebody of the staff who asks this and that."""
        for text in ("菜单", "帮助", "政策", "活动"):
            await self.pause(1, HOUR / 5)
            await self.say(crowd, user, text)

    async def leader(self, crowd: Any, user: str) -> None:
        """File the month's report."""
        await self.pause(HOUR * 0.1, HOUR * 0.6)
        self.leaders.append(str(crowd.address(user)))
        other = "推介1 考察0 问题无 下月继续走访"
        for text in ("月报", "22", "18 4", "0", "0", other, "提交"):
            await self.say(crowd, user, text)
            await self.pause(2, HOUR / 100)

    async def coordinator(self, crowd: Any, user: str, invited: float) -> None:
        """Lay an event, announce something to the groups, invite everybody."""
        await self.pause(HOUR * 0.05, HOUR * 0.1)
        for text in ("活动 新建", f"2026年{INVITATION}", "8月12日到14日", "上午9点", "市会展中心",
                     "5000", "前21天", "座谈交流", "确认"):  # fmt: skip
            await self.say(crowd, user, text)
            await self.pause(2, 10)
        await self._until(START.timestamp() + HOUR * 0.4)
        for text in ("群公告", "全部", NOTICE, "提交"):
            await self.say(crowd, user, text)
            await self.pause(2, 10)
        await self._until(START.timestamp() + invited)
        for text in ("活动 邀请 HD-2026-01", "全体", "立即", "提交"):
            await self.say(crowd, user, text)
            await self.pause(2, 10)
        # Few people need nobody else's eyes.
        code = await self._hears(crowd, user, r"请回「确认发送 (\w+)」|已送审 B-0001()")
        if code:
            await self.say(crowd, user, f"确认发送 {code}")

    async def approver(self, crowd: Any, user: str, kinds: Sequence[str]) -> None:
        """Look at each thing that waits, and agree, unless others were enough."""
        for kind in kinds:
            number = await self._hears(crowd, user, rf"({kind}-\d+) 等您审批")
            before = len(crowd.heard(user))
            await self.say(crowd, user, f"审批 {number}")
            code = await self._hears(crowd, user, r"通过请回「同意 (\w+)」|没有", before)
            if code:
                await self.say(crowd, user, f"同意 {code}")

    async def owner(self) -> None:
        """The member of the staff who must tap for each announcement to the customer group."""
        while True:
            for task in self.platforms.wecom_contact.waiting():
                self.platforms.wecom_contact.tap(task)
            await self.clock.wait(60)

    async def trouble(self) -> None:
        """The platforms take their tokens back."""
        while True:
            await self.clock.wait(TOKENS_LIVE)
            self.platforms.wechat.kill_tokens()
            self.platforms.wecom.kill_tokens()

    async def _hears(self, crowd: Any, user: str, pattern: str, after: int = 0) -> str:
        """What a later bubble says, nothing if it says the other thing."""
        while True:
            for text in crowd.heard(user)[after:]:
                found = re.search(pattern, text)
                if found:
                    return found[1] or ""
            await self.clock.wait(STEP)

    async def _until(self, moment: float) -> None:
        await self.clock.wait(max(0.0, moment - self.clock.timestamp()))


# - what was laid before the first word -


def lay(database: Database, crowd: Any, staff: Sequence[str], teams: int) -> None:
    """The staff's offices, and the field teams with one leader each."""
    METADATA.create_all(database.engine)
    with database.session() as session:
        unit = Unit(name="派出单位")
        session.add(unit)
        session.flush()
        people = []
        for user in staff:
            person = Person(created_at=START)
            session.add(person)
            session.flush()
            address = crowd.address(user)
            session.add(
                Contact(
                    person_id=person.id or 0,
                    channel=address.channel,
                    address=str(address),
                    last_seen_at=START,
                )
            )
            people.append(person.id or 0)
        offices = ("coordinator", "coordinator", "leader")
        for person_id, role in zip(people, offices, strict=False):
            session.add(Grant(person_id=person_id, role=role, granted_at=START))
        for number, person_id in enumerate(people[3 : 3 + teams], 1):
            team = FieldTeam(
                code=f"T{number}", name=f"第{number}小分队", unit_id=unit.id or 0, center="上海市"
            )
            session.add(team)
            session.flush()
            team_id = team.id or 0
            member = TeamMember(
                team_id=team_id, position=0, name="王某", leads=True, person_id=person_id
            )
            grant = Grant(
                person_id=person_id, role="team_leader", granted_at=START, team_id=team_id
            )
            session.add_all([member, grant])


# - what came of it -


@dataclass(frozen=True)
class Outcome:
    """What the phones and the tables say at the end."""

    people: int
    messages: int
    answers: int
    states: Mapping[str, int]
    faults: Mapping[str, int]
    lost: int
    """Messages that the inbox does not know."""
    unanswered: int
    """Messages without an answer, in place or in the outbox."""
    misheard: int
    """People whose file does not say what they said."""
    unfiled: int
    """Reports, event answers, invitations and announcements that are not there."""
    doubled: int
    """Letters and announcements that somebody got twice."""
    repeated: int
    """Answers said again because the platform's own answer had been lost; `Outbox.repeatable`."""
    missing: int
    """Bubbles written down as sent that nobody got."""
    stuck: int
    """Rows that are neither at an end nor rightly waiting."""
    unavailable: int
    """Messages that the platform gave up to bring."""
    rss: tuple[float, float, float]
    """Megabytes at the start, in the middle, at the end."""
    seconds: float
    unsettled: int = 0
    """People who had not finished what they had to say."""

    @property
    def growth(self) -> float:
        """Megabytes of the second half."""
        return self.rss[2] - self.rss[1]

    @property
    def broken(self) -> Mapping[str, float]:
        """The promises that were not kept."""
        wrong: dict[str, float] = {
            name: getattr(self, name)
            for name in (
                *("lost", "unanswered", "misheard", "unfiled", "doubled", "missing", "stuck"),
                *("unavailable", "unsettled"),
            )
        }
        # Each answer that came twice, as a text and its card, has a lost answer of the platform to
        # answer for it.
        wrong["repeated"] = max(0, self.repeated - 2 * self.faults.get("cut_after", 0))
        wrong["growth"] = self.growth if self.growth > GROWTH else 0
        return {name: value for name, value in wrong.items() if value}


def judge(database: Database, talk: Talk) -> dict[str, Any]:
    """Compare every phone with the tables."""
    with database.reading() as session:
        person_at = dict(
            session.execute(select(col(Contact.address), col(Contact.person_id))).all()
        )
        heard_from = dict(
            session.execute(
                select(col(Inbox.person_id), func.count()).group_by(col(Inbox.person_id))
            ).all()
        )
        unanswered = _unanswered(session)
        profiles = dict(
            session.execute(
                select(col(MemberProfile.person_id), MemberProfile).where(True)  # type: ignore[arg-type]
            ).all()
        )
        files = {person: (profile.name, profile.city) for person, profile in profiles.items()}
        rows = session.execute(select(TABLE)).all()
        answered = set(session.execute(select(col(Rsvp.person_id))).scalars())
        reports = session.execute(select(func.count()).select_from(Report)).scalar_one()
    # Who has used up what their platform lets us say waits, or is known to have been given back.
    settled = (*DONE, State.UNKNOWN, State.DEFERRED)
    invited = {
        row.address
        for row in rows
        if row.campaign_id and (row.state in settled or row.reason.startswith("超过"))
    }
    spoken: Counter[str] = Counter()
    for crowd in talk.crowds.values():
        spoken.update(said.address for said in crowd.spoken)
    lost = sum(
        max(0, count - heard_from.get(person_at.get(address), 0))
        for address, count in spoken.items()
    )
    misheard = sum(files.get(person_at.get(a)) != said for a, said in talk.names.items())
    unfiled = max(0, len(talk.leaders) - reports)
    unfiled += sum(person_at.get(address) not in answered for address in talk.names)
    unfiled += sum(address not in invited for address in talk.names)
    unfiled += sum(count == 0 for count in _announced(talk).values())
    return {
        "messages": sum(spoken.values()),
        "answers": sum(heard_from.values()) - unanswered,
        "states": dict(Counter(row.state for row in rows)),
        "lost": lost,
        "unanswered": unanswered,
        "misheard": misheard,
        "unfiled": unfiled,
        "stuck": sum(row.state in (State.LEASED, State.SENDING, State.QUEUED) for row in rows),
        **_bubbles(talk, rows),
    }


def _unanswered(session: Any) -> int:
    answers = {
        occasion.removeprefix("answer:")
        for occasion in session.execute(
            select(TABLE.c.occasion).where(TABLE.c.occasion.like("answer:%"))
        ).scalars()
    }
    silent = session.execute(
        select(col(Inbox.key)).where(col(Inbox.reply).is_(None), col(Inbox.person_id).is_not(None))
    ).scalars()
    return sum(key not in answers for key in silent)


def _bubbles(talk: Talk, rows: Sequence[Any]) -> dict[str, int]:
    """Bubbles by address, as sent by our tables and as seen by the phones."""
    sure: Counter[str] = Counter()
    perhaps: Counter[str] = Counter()
    for row in rows:
        if row.address is None:
            continue
        if row.occasion.startswith("progress:"):
            perhaps[row.address] += row.parts_sent  # the first is seen, the others change it
            continue
        if row.state in (State.UNKNOWN, State.DEAD, State.FAILED):
            perhaps[row.address] += max(1, row.parts_sent)
        else:
            sure[row.address] += row.parts_sent
    doubled = repeated = missing = 0
    for crowd in talk.crowds.values():
        users = {said.address for said in crowd.spoken}
        for address in users:
            heard = crowd.heard(address.rpartition(":")[2])
            if address in talk.names:
                doubled += max(0, sum(_invites(text) for text in heard) - 1)
            missing += max(0, sure[address] - len(heard))
            repeated += max(0, len(heard) - sure[address] - perhaps[address])
    doubled += sum(max(0, count - 1) for count in _announced(talk).values())
    return {"doubled": doubled, "repeated": repeated, "missing": missing}


def _invites(text: str) -> bool:
    return INVITATION in text and "诚邀" in text


def _announced(talk: Talk) -> dict[str, int]:
    from benchmarks.crowds import CUSTOMER_GROUP, STAFF_GROUP

    heard = {
        CUSTOMER_GROUP: talk.platforms.wecom_contact.heard(CUSTOMER_GROUP),
        STAFF_GROUP: talk.platforms.wecom_webhook.heard(STAFF_GROUP),
    }
    return {group: sum(NOTICE in text for text in texts) for group, texts in heard.items()}


# - the whole -


async def trial(
    people: int, seed: int, folder: Path, *, tokens_die: bool = True, stride: float = STEP
) -> Outcome:
    """Run it all; bounded by the hour, its tail, and a minute for the last to be said.

    Where tokens die, an installation keeps silent for a real minute now and then.
    """
    from benchmarks.crowds import CROWDS, CUSTOMER_GROUP, make_unreliable, settings_of
    from tests.emulators.server import Platforms

    began = time.monotonic()
    chance = random.Random(seed)  # noqa: S311  # when what goes wrong, not a secret
    clock_file = folder / "clock"
    async with Platforms(leading_clock(clock_file)) as platforms:
        crowds = {name: kind(platforms, chance) for name, kind in CROWDS.items()}
        talk = Talk(platforms, crowds, chance, stride)
        values = settings_of(platforms) | OFFICE
        values |= {"channels": ",".join(CHANNELS), "database_url": f"sqlite:///{folder}/soak.db"}
        values["public_url"] = "https://bot.example.org"
        numbers = {name: max(4, round(people * share)) for name, share in ABOUT.items()}
        staff = [crowds["wecom"].join(n) for n in range(max(4, numbers["wecom"]))]
        teams = max(1, len(staff) // 3)
        database = Database(values["database_url"], KeyRing(KEYS))
        lay(database, crowds["wecom"], staff, teams)
        async with installation(values, clock_file) as (process, address):
            _connect(platforms, address)
            _people(talk, numbers, staff, teams, people)
            platforms.wecom_contact.create(CUSTOMER_GROUP, "乡亲一群", staff[0])
            faults = make_unreliable(platforms, chance)
            rss = await _pass(talk, process.pid, tokens_die)
            for laid in faults.values():
                laid.over = True
            unsettled = await _settle(talk, database)
            rss.append(megabytes(process.pid))
        found = judge(database, talk)
        drawn = sum((laid.drawn for laid in faults.values()), Counter())
        unavailable = sum(
            line.kind == "unavailable"
            for member in platforms.wechat.members.values()
            for line in member.transcript
        )
        database.close()
    return Outcome(
        people=people,
        faults=dict(drawn),
        unavailable=unavailable,
        rss=(rss[0], rss[1], rss[2]),
        seconds=time.monotonic() - began,
        unsettled=unsettled,
        **found,
    )


def _connect(platforms: Any, address: str) -> None:
    platforms.wechat.connect(f"{address}/callback/wechat")
    platforms.wecom.connect(f"{address}/callback/wecom")


def _people(
    talk: Talk, numbers: Mapping[str, int], staff: Sequence[str], teams: int, people: int
) -> None:
    """Everybody begins to live."""
    invited = HOUR * 0.72
    office = talk.crowds["wecom"]
    talk.begin(talk.coordinator(office, staff[0], invited))
    many = people // REGISTER > FEW
    talk.begin(talk.approver(office, staff[1], ("SP", "B") if many else ("SP",)))
    if many:
        talk.begin(talk.approver(office, staff[2], ("B",)))
    for user in staff[3 : 3 + teams]:
        talk.begin(talk.leader(office, user))
    for user in staff[3 + teams :]:
        talk.begin(talk.clerk(office, user))
    for number in range(numbers["wecom_bot"]):
        crowd = talk.crowds["wecom_bot"]
        talk.begin(talk.clerk(crowd, crowd.join(number)))
    numbers = {**numbers, "wechat": people - sum(numbers.values())}
    first = 0
    for name in ("wechat", "telegram", "wecom_kf"):
        crowd = talk.crowds[name]
        for number in range(first, first + numbers[name]):
            user = crowd.join(number)
            if number % REGISTER:
                talk.begin(talk.asker(crowd, user))
            else:
                talk.begin(talk.member(crowd, user, number, invited))
        first += numbers[name]


async def _pass(talk: Talk, pid: int, tokens_die: bool) -> list[float]:
    """The hour, and as much of its tail as somebody needs; memory at the start and half-way."""
    doing = [talk.owner(), *((talk.trouble(),) if tokens_die else ())]
    beside = [asyncio.ensure_future(life) for life in doing]
    start = talk.clock.timestamp()
    rss: list[float] = []
    try:
        while (passed := talk.clock.timestamp() - start) < HOUR + TAIL:
            if len(rss) < 2 and passed >= (HOUR * 0.05, HOUR / 2)[len(rss)]:
                rss.append(megabytes(pid))
            if passed >= HOUR:
                if all(life.done() for life in talk.lives):
                    break
                await asyncio.sleep(TAIL_STEP)
            await talk.step()
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    return rss


async def _settle(talk: Talk, database: Database) -> int:
    """Let the outbox drain and the staff tap; returns how many never finished talking."""
    unfinished = [life for life in talk.lives if not life.done()]
    for life in unfinished:
        life.cancel()
    done = await asyncio.gather(*talk.lives, return_exceptions=True)
    until = time.monotonic() + SETTLE
    quiet = 0
    while quiet < 5 and time.monotonic() < until:
        for task in talk.platforms.wecom_contact.waiting():
            talk.platforms.wecom_contact.tap(task)
        await talk.step()
        await asyncio.sleep(0.2)
        quiet = 0 if _open(database) or judge(database, talk)["lost"] else quiet + 1
    errors = [error for error in done if isinstance(error, Exception)]
    for error in errors[:3]:
        note(f"{type(error).__name__}: {error}")
    return len(unfinished) + len(errors)


def _open(database: Database) -> int:
    with database.reading() as session:
        return int(
            session.execute(
                select(func.count())
                .select_from(TABLE)
                .where(
                    TABLE.c.state.in_(
                        [State.QUEUED, State.LEASED, State.SENDING, State.AWAITING_STAFF]
                    )
                )
            ).scalar_one()
        )


def main(people: int = PEOPLE) -> bool:
    """Print the figures; True when every promise is kept."""
    note(f"{people} 人、{len(CHANNELS)} 个渠道的一小时，用模拟时钟压缩；5% 断线、5% 系统繁忙")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(trial(people, 20260331, Path(folder)))
    note(f"各状态 {dict(sorted(found.states.items()))}；平台的毛病 {dict(found.faults)}")
    for name, unit in (
        ("messages", "条"), ("answers", "条"), ("lost", "条"), ("unanswered", "条"),
        ("misheard", "人"), ("unfiled", "份"), ("doubled", "条"), ("repeated", "条"),
        ("missing", "条"), ("stuck", "条"), ("unavailable", "条"), ("unsettled", "人"),
        ("growth", "MB"), ("seconds", "s"),
    ):  # fmt: skip
        Figure("soak", name, getattr(found, name), unit).tell()
    for name, value in zip(("rss_start", "rss_half", "rss_end"), found.rss, strict=True):
        Figure("soak", name, value, "MB").tell()
    Figure("soak", "unknown", found.states.get("unknown", 0), "条").tell()
    if found.broken:
        note(f"没有做到：{dict(found.broken)}")
    return not found.broken


if __name__ == "__main__":
    asyncio.run(live(json.loads(sys.argv[1]), Path(sys.argv[2])))
