"""The demo's county: eight people before the page, three hundred around them, all of them invented.

Who gets which city, category or channel follows from their number and not from chance, so that
each start of the demo shows the same county.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from sqlmodel import Session, col, select

from bot.clock import BEIJING, beijing
from bot.commands import DemoData, DemoPhone
from bot.context import Services
from bot.heart import fire
from bot.messages import Address
from bot.text import content_hash
from handlers.forms.cities import City, parse_city
from handlers.forms.names import salutation_options
from handlers.notices import current
from handlers.periods import Month
from handlers.place import Place, place_of
from handlers.purposes import PROFILE
from handlers.reports.facts import gather
from handlers.roles import ROLE_WORDS, Role, leaders_of
from storage.events import Event
from storage.organisation import FieldTeam, TeamMember, TeamTarget, Unit, roster
from storage.people import (
    ALL_TOPICS,
    ConsentEntry,
    ConsentNow,
    Contact,
    Grant,
    Person,
    Unsubscription,
    people_with_role,
)
from storage.profiles import MemberCategory, MemberProfile, keep_phone
from storage.reports import (
    ChangeState,
    Project,
    Recognition,
    Report,
    ReportDays,
    ReportedFunds,
    Stage,
    projects_of,
)
from storage.sequences import Sequence as Counter
from storage.sequences import next_number

PEOPLE = 300
OFFICE = "霍林郭勒市「鸿雁回通」演示办公室"
TEN_THOUSAND = 10_000

SURNAMES = "高王李张刘陈杨赵周吴徐孙马朱胡郭何林罗梁宋郑谢韩唐冯于董萧程"
FIRST = "海志文春晓玉建雪立明佳永国秀子思雨振长丽"
SECOND = "林华山峰燕梅霞宇川云洋兰东宁辉波雁原歌草"
MONGOLIAN_FIRST = "乌日 苏日 娜仁 萨仁 阿拉坦 哈斯 敖登 斯琴 朝鲁 那日 宝音 呼和 查干 额尔敦"
MONGOLIAN_SECOND = "娜 高娃 托娅 巴图 其其格 图雅 夫 巴雅尔 格日乐 朝克图"
CITIES = (
    "北京 上海 北京 呼和浩特 沈阳 上海 深圳 通辽 大连 杭州 北京 上海 天津 苏州 长春 上海 青岛 "
    "北京 广州 呼和浩特 西安 上海 哈尔滨 赤峰 杭州 南京 东京 厦门 乌兰巴托"
)
TRADES = "机械 食品 牧业 软件 物流 新材料 纺织 文旅"


@dataclass(frozen=True)
class Invented:
    """One of the three hundred: what becomes of them follows from the number."""

    number: int
    name: str
    city: str

    @property
    def phone(self) -> str:
        """A number in a block that no operator gives out."""
        return f"1380000{self.number:04d}"


def invented(number: int) -> Invented:
    """The invented person of this number; every sixth has a Mongolian name."""
    if number % 6 == 5:
        name = _nth(MONGOLIAN_FIRST, number * 5) + _nth(MONGOLIAN_SECOND, number * 7 // 6)
    else:
        second = SECOND[number * 11 % len(SECOND)] if number % 9 else ""
        name = SURNAMES[number * 7 % len(SURNAMES)] + FIRST[number * 3 // 2 % len(FIRST)] + second
    return Invented(number, name, _nth(CITIES, number))


def _nth(words: str, number: int) -> str:
    listed = words.split()
    return listed[number % len(listed)]


def _city(name: str) -> City:
    city = parse_city(name)
    assert isinstance(city, City)
    return city


# - before the page -

MEMBER_TRIES = ("登记", "我的档案", "活动", "回执", "隐私", "人工", "撤回同意")

CAST = (
    DemoPhone(
        "member",
        "会员",
        "高远山",
        "会员 · 初次来访，在上海",
        "gao",
        MEMBER_TRIES,
        (
            (
                "",
                "您好，这里是霍林郭勒市「鸿雁回通」。\n"
                "回「登记」留个联系方式，常收家乡的信；想先看看，回「菜单」。",
            ),
        ),
    ),
    DemoPhone(
        "member",
        "会员",
        "乌日娜",
        "会员 · 已登记，在北京",
        "wurina",
        ("我的档案", "活动", "回执", "退订", "修改 城市 天津", "人工"),
        (("", "乌日娜您好，您已经在鸿雁名册里了。家乡的信和活动邀请会寄到这里。"),),
    ),
    DemoPhone(
        "leader",
        "小分队",
        "王长河",
        "上海小分队 · 带队人",
        "wang",
        ("月报", "稍后", "我的进度", "排名", "帮助"),
        (
            (
                "",
                "王队好，月报每月25日开放，到时我会提醒您。\n"
                "回「月报」就能填，约3分钟，说到一半也不会丢。想现在就试，请把时钟拨到月末。",
            ),
        ),
    ),
    DemoPhone(
        "coordinator",
        "统筹员",
        "林清",
        "统筹员",
        "lin",
        ("群发", "信件", "活动 新建", "群发 进度", "回信箱", "迟报", "排名", "审批", "帮助"),
        (
            (
                "",
                "林清您好，名册里有三百来位乡亲。\n"
                "「群发」写给一部分人，「信件」看下一封节日信，「活动 新建」办一场活动。\n"
                "送审以后换到陈默、苏和去审批。",
            ),
        ),
    ),
    DemoPhone(
        "coordinator",
        "统筹员",
        "陈默",
        "统筹员 · 第二审批人",
        "chen",
        ("审批", "信件", "群发 进度", "迟报", "排名", "帮助"),
        (("", "陈默您好，同事送审的事项会在这里等您，回「审批」查看。"),),
    ),
    DemoPhone(
        "coordinator",
        "统筹员",
        "苏和",
        "领导",
        "suhe",
        ("审批", "信件", "排名", "迟报", "帮助"),
        (("", "苏和您好，全体信件需要您最后同意，回「审批」查看。"),),
    ),
    DemoPhone(
        "group",
        "群",
        "鸿雁回通群",
        "群里只答公开的事",
        "gao",
        ("@鸿雁 菜单", "活动", "热线", "我的档案", "大家好"),
        (
            ("白晓燕", "今年的那达慕定日子了吗？"),
            ("韩立东", "还早吧，等通知。"),
            ("", "大家在群里聊，我不插话。要找我请 @鸿雁；涉及个人的事请私聊我办理。"),
        ),
        group=True,
    ),
)

STAFF = {
    "lin": (Role.COORDINATOR, Role.ADMIN),
    "chen": (Role.COORDINATOR,),
    "suhe": (Role.LEADER,),
    "wang": (Role.TEAM_LEADER,),
}


# - writing them down -


def seed(services: Services, session: Session, now: datetime) -> None:
    """Write the whole county into empty tables: about three hundred people in about a second."""
    writer = _Writer(services, session, now)
    writer.around()
    units = writer.units()
    teams = writer.teams(units)
    writer.cast(teams)
    writer.months_before(teams)
    writer.event()
    writer.counters()


class _Writer:
    """Writes the county; `now` is the moment at which the demo begins."""

    def __init__(self, services: Services, session: Session, now: datetime) -> None:
        self.services = services
        self.session = session
        self.now = now
        self.place: Place = place_of(services)
        self.members = 0

    def _somebody(self, **values: Any) -> Person:
        return Person(created_at=self.now - timedelta(days=200), **values)

    def person(self, **values: Any) -> Person:
        person = self._somebody(**values)
        self.session.add(person)
        self.session.flush()
        return person

    def contact(self, person: Person, user: str, channel: str = "demo", **values: Any) -> None:
        assert person.id is not None
        self.session.add(
            Contact(
                person_id=person.id,
                channel=channel,
                address=str(Address(channel, "demo", user)),
                last_seen_at=self.now - timedelta(days=3),
                **values,
            )
        )

    def around(self) -> None:
        """The three hundred, with all that keeps some of them from being written to."""
        everybody = [invented(number) for number in range(PEOPLE)]
        people = [self._somebody(timezone=_city(one.city).timezone) for one in everybody]
        # One statement a table, not one a person: the page must be there at once.
        self.session.add_all(people)
        self.session.flush()
        for person, one in zip(people, everybody, strict=True):
            assert person.id is not None
            number = one.number
            self._reach(person, number)
            if number % 33 == 32:
                continue  # Spoke to us once and never registered.
            self.member(person, one, withdrawn=number % 47 == 20)
            if number % 29 == 7:
                self.stop(person.id, "活动邀请")
            if number % 61 == 11:
                self.stop(person.id, ALL_TOPICS)

    def _reach(self, person: Person, number: int) -> None:
        """Most on a platform that may always be written to, a third where it may only answer."""
        user = f"u{number:03d}"
        if number % 19 == 4:
            return
        if number % 23 == 9:
            self.contact(person, user, reachable=False)
        elif number % 3 == 1:
            recent = number % 2 == 0
            until = self.now + timedelta(hours=30 if recent else -100)
            self.contact(person, user, "wechat", window_until=until, window_left=4)
        else:
            self.contact(person, f"{user}-gone" if number % 71 == 3 else user)

    def member(
        self, person: Person, one: Invented, salutation: str = "", *, withdrawn: bool = False
    ) -> None:
        """A profile with its consent."""
        assert person.id is not None
        city = _city(one.city)
        profiles, number = self.place.profiles, one.number
        year = beijing(self.now).year
        self.members += 1
        registered = self.now - timedelta(days=30 + number * 7 % 500)
        profile = MemberProfile(
            person_id=person.id,
            number=f"HY-{year}-{self.members:06d}",
            name=one.name,
            hometown_tie=profiles.ties[number * 5 % len(profiles.ties)],
            country=city.country,
            province=city.province,
            city=city.city,
            salutation=salutation or salutation_options(one.name)[number % 2],
            registered_at=registered,
            last_confirmed_at=registered,
        )
        if number % 3 == 0:
            keep_phone(profile, one.phone, self.services.keys)
        if number % 4 == 0:
            profile.org = f"{one.city}某{_nth(TRADES, number // 4)}公司"
        self.session.add(profile)
        for position, kind in enumerate(self._kinds(number)):
            self.session.add(MemberCategory(person_id=person.id, category=kind, position=position))
        self._consent(person.id, registered, withdrawn)

    def _kinds(self, number: int) -> list[str]:
        """One or two categories; most of those in the two great cities are of the first kind."""
        kinds = [kind.key for kind in self.place.profiles.categories]
        great = invented(number).city in ("北京", "上海") and number % 5 < 4
        chosen = kinds[0] if great or number % 4 == 0 else kinds[number * 5 % len(kinds)]
        second = kinds[(number // 5 * 3 + 2) % len(kinds)]
        return list(dict.fromkeys([chosen, second] if number % 5 == 0 else [chosen]))

    def _consent(self, person_id: int, registered: datetime, withdrawn: bool) -> None:
        """The ledger, and its last word."""
        told = current(self.place)
        said = [("granted", registered, "同意")]
        if withdrawn:
            said.append(("withdrawn", self.now - timedelta(days=20), "撤回同意"))
        for action, at, words in said:
            self.session.add(
                ConsentEntry(
                    person_id=person_id,
                    scope=PROFILE,
                    action=action,
                    version=told.version,
                    notice_hash=told.hash,
                    at=at,
                    channel="demo",
                    source="",
                    words=words,
                )
            )
        live, at = not withdrawn, said[-1][1]
        self.session.add(
            ConsentNow(person_id=person_id, scope=PROFILE, live=live, version=told.version, at=at)
        )

    def stop(self, person_id: int, topic: str) -> None:
        """No more of a topic."""
        self.session.add(Unsubscription(person_id=person_id, topic=topic, at=self.now))

    # - the organisation -

    def units(self) -> list[Unit]:
        """Units that dispatch teams and look after kinds of members, each with a liaison."""
        names = dict.fromkeys(
            name for kind in self.place.profiles.categories for name in kind.unit.split("、")
        )
        units = [Unit(name=name) for name in names if name]
        self.session.add_all(units)
        self.session.flush()
        for number, unit in enumerate(units):
            liaison = self.person(called=f"{SURNAMES[number]}联络员")
            self.contact(liaison, f"liaison{number}")
            self.grant(liaison, Role.UNIT_LIAISON, unit_id=unit.id)
        return units

    def teams(self, units: Sequence[Unit]) -> list[FieldTeam]:
        """Three field teams with roster, target and projects; the first leader has a phone."""
        teams = []
        for number, (center, nearby) in enumerate(
            (("上海", "苏州、杭州"), ("北京", "天津、石家庄"), ("深圳", "广州、东莞"))
        ):
            unit = units[number]
            assert unit.id is not None
            team = FieldTeam(
                code=f"T{number + 1}",
                name=f"{center}小分队",
                unit_id=unit.id,
                center=center,
                nearby=nearby,
            )
            self.session.add(team)
            self.session.flush()
            assert team.id is not None
            self.session.add(
                TeamTarget(
                    team_id=team.id,
                    year=beijing(self.now).year,
                    target_yuan=(30_000 - 5_000 * number) * TEN_THOUSAND,
                )
            )
            self._roster(team, number)
            self._projects(team, number)
            teams.append(team)
        return teams

    def _roster(self, team: FieldTeam, number: int) -> None:
        assert team.id is not None
        if number:
            leader = self.person(called=f"{SURNAMES[number * 4]}队长")
            self.contact(leader, f"leader{number}")
            self.grant(leader, Role.TEAM_LEADER, team_id=team.id)
            self._on_team(team.id, 0, invented(401 + number).name, leader.id)
        for position in (1, 2):
            name = invented(500 + number * 13 + position).name
            self._on_team(team.id, position, name, None)

    def _on_team(self, team_id: int, position: int, name: str, person_id: int | None) -> None:
        self.session.add(
            TeamMember(
                team_id=team_id,
                position=position,
                name=name,
                nickname=f"{'队' if position == 0 else '老小'[position - 1]}{name[0]}",
                leads=position == 0,
                person_id=person_id,
            )
        )

    def _projects(self, team: FieldTeam, number: int) -> None:
        """Two projects a team: one signed, one still in talks."""
        assert team.id is not None
        month_ago = beijing(self.now).date() - timedelta(days=40 + number)
        for kind, stage, planned in (
            ("铝基新材料", Stage.SIGNED, 12_000),
            ("牧草深加工", Stage.IN_TALKS, 8_000),
        ):
            signed = stage is Stage.SIGNED
            self.session.add(
                Project(
                    code=f"P{next_number(self.session, 'project'):02d}",
                    team_id=team.id,
                    name=f"{team.center}{kind}项目",
                    investor=f"{team.center}某{kind[:2]}公司",
                    planned_yuan=planned * TEN_THOUSAND,
                    fixed_yuan=planned * 8 // 10 * TEN_THOUSAND if signed else 0,
                    stage=stage,
                    talks_on=month_ago - timedelta(days=60),
                    signed_on=month_ago if signed else None,
                    carried_over=True,
                    created_at=datetime.combine(month_ago, datetime.min.time(), BEIJING),
                )
            )

    # - before the page -

    def cast(self, teams: Sequence[FieldTeam]) -> None:
        """Those whose phones the page shows."""
        for phone in CAST:
            if phone.group:
                continue
            roles = STAFF.get(phone.user, ())
            person = self.person(called=phone.title if roles else None)
            self.contact(person, phone.user)
            for role in roles:
                limits = {"team_id": teams[0].id} if role is Role.TEAM_LEADER else {}
                self.grant(person, role, **limits)
            if phone.user == "wang":
                assert teams[0].id is not None
                self._on_team(teams[0].id, 0, phone.title, person.id)
            if phone.user == "wurina":
                self.member(person, Invented(0, phone.title, "北京"), f"{phone.title}乡亲")

    def months_before(self, teams: Sequence[FieldTeam]) -> None:
        """What the teams filed this year, and what was recognised of it: there is a ranking."""
        office = people_with_role(self.session, Role.COORDINATOR, self.now)[0]
        for number, team in enumerate(teams):
            assert team.id is not None
            leader = leaders_of(self.session, team.id, self.now)[0]
            for month in self._past():
                self._report(team, month, leader, number)
            reports = self.session.exec(select(Report).where(Report.team_id == team.id)).all()
            for report in reports:
                self._days_and_funds(report, office, number)
        # Its bulletin is an old story: the coordinators' phones begin with what to try.
        fire(self.session, "monthly_report", f"{self._past()[-1]}:bulletin", self.now)

    def _past(self) -> list[Month]:
        """The year's months until the last full one, which may be a year ago's."""
        last = beijing(self.now).date().replace(day=1) - timedelta(days=1)
        return [Month(last.year, month) for month in range(1, last.month + 1)]

    def _report(self, team: FieldTeam, month: Month, leader: int, number: int) -> None:
        assert team.id is not None
        name = f"YB-{month}-{team.code}-v1"
        counted = {"visits": 18 - 3 * number, "visits_key": 4, "promos": 1}
        facts = gather(self.session, self.place, team, month, leader)
        self.session.add(
            Report(
                number=name,
                team_id=team.id,
                month=str(month),
                as_of=month.last_day,
                filed_at=datetime.combine(month.last_day, time(16, 30), BEIJING),
                filed_by=leader,
                answers=json.dumps({"answers": counted, "facts": facts}, ensure_ascii=False),
                content_hash=content_hash(name),
                text=f"{team.name} {month} 月报（演示用的往月数据）",
                inbound_batches=1,
                inbound_people=6,
                visits=counted["visits"],
                visits_key=counted["visits_key"],
                promos=counted["promos"],
            )
        )
        self.session.flush()

    def _days_and_funds(self, report: Report, office: int, number: int) -> None:
        assert report.id is not None
        for position, member in enumerate(roster(self.session, report.team_id)):
            assert member.id is not None
            half_days = 44 - 2 * position - number
            self.session.add(
                ReportDays(report_id=report.id, member_id=member.id, half_days=half_days)
            )
        project = projects_of(self.session, report.team_id)[0]
        assert project.id is not None
        fixed, other = ((700 - 150 * number) * TEN_THOUSAND, 100 * TEN_THOUSAND)
        self.session.add(
            ReportedFunds(
                report_id=report.id,
                project_id=project.id,
                month=report.month,
                fixed_yuan=fixed,
                other_yuan=other,
            )
        )
        self.session.add(
            Recognition(
                project_id=project.id,
                month=report.month,
                fixed_yuan=fixed,
                other_yuan=other,
                basis="银行回单（演示）",
                state=ChangeState.CONFIRMED,
                entered_by=office,
                entered_at=report.filed_at + timedelta(days=2),
            )
        )

    def event(self) -> None:
        """A day next month that everybody may answer to."""
        day = beijing(self.now).date() + timedelta(days=40)
        office = people_with_role(self.session, Role.COORDINATOR, self.now)[0]
        self.session.add(
            Event(
                number=f"HD-{day.year}-{next_number(self.session, f'event:{day.year}'):02d}",
                title="鸿雁归乡恳谈会",
                starts_on=day,
                ends_on=day,
                starts_at="14:00",
                venue="演示会堂",
                capacity=60,
                deadline=day - timedelta(days=10),
                created_by=office,
                created_at=self.now - timedelta(days=2),
            )
        )

    def counters(self) -> None:
        """The next one to register gets the next number."""
        name = f"profile:{beijing(self.now).year}"
        self.session.add(Counter(name=name, value=self.members))

    def grant(self, person: Person, role: Role, **limits: Any) -> None:
        """A role without the codes."""
        assert person.id is not None
        self.session.add(
            Grant(
                person_id=person.id,
                role=role,
                granted_at=self.now - timedelta(days=100),
                **limits,
            )
        )


def masked_names(session: Session, person_ids: Sequence[int]) -> Mapping[int, str]:
    """A name a person for the outbox: staff by their role, members by the first character."""
    names: dict[int, str] = {}
    wanted = col(Grant.person_id).in_(person_ids)
    roles = select(Grant.person_id, Grant.role).where(wanted).order_by(col(Grant.id))
    for person_id, role in session.exec(roles):
        names.setdefault(person_id, ROLE_WORDS[Role(role)])
    members = select(MemberProfile.person_id, MemberProfile.name).where(
        col(MemberProfile.person_id).in_(person_ids)
    )
    for person_id, name in session.exec(members):
        names[person_id] = f"{name[0]}{'*' * (len(name) - 1)}"
    strangers = {number: "来访者" for number in person_ids}
    return strangers | names


DEMO = DemoData(
    CAST,
    seed,
    masked_names,
    {
        "place": "huolingol",
        "office_name": OFFICE,
        "office_phone": "0475-0000000",
        "signatory": OFFICE,
    },
    "鸿雁",
    (
        ("① 登记一位乡亲", "gao", "登记"),
        ("② 拨到月末，报一份月报", "wang", "月报", "month_end"),
        ("③ 群发给一部分人", "lin", "群发"),
        ("④ 送审一封节日信，再拨钟", "lin", "信件"),
        ("⑤ 办一场活动", "lin", "活动 新建"),
    ),
)
