"""人工, 热线 and 政策: the telephone, a coordinator who is told, and where policies are had."""

from bot.clock import beijing
from bot.commands import command
from bot.context import Context
from bot.messages import Reply, say
from handlers.place import here
from handlers.purposes import DUTY_NOW
from handlers.roles import Role
from storage.people import people_with_role
from storage.profiles import MemberProfile

EMERGENCY = "紧急情况请直接拨打110、119、120。"


@command("热线", "电话", "服务热线", help="热线：办公室电话", group=True, reads=True)
def hotline(context: Context, _argument: str) -> Reply:
    """The number, for anybody, anywhere."""
    return say(f"{_number(context)}{EMERGENCY}")


@command(
    "人工",
    "求助",
    "/ticket",
    "转人工",
    "客服",
    "真人",
    "人工客服",
    help="人工：找工作人员",
    wins=True,
)
def human(context: Context, _argument: str) -> Reply:
    """Tell a coordinator, once a day for each person, and give the number; a person goes on where
    the platform has the staff answer.
    """
    told = [
        context.send(
            person_id,
            say(f"{_who(context)}请求人工服务（{beijing(context.now):%H:%M}），请尽快联系。"),
            occasion=f"human:{context.person_id}:{context.today}",
            purpose=DUTY_NOW,
        )
        for person_id in people_with_role(context.session, Role.COORDINATOR, context.now)
        if person_id != context.person_id
    ]
    context.audit("human.asked", f"person:{context.person_id}")
    passed_on = "已转告工作人员，会尽快与您联系。" if any(told) else ""
    return say(f"{passed_on}{_number(context)}{EMERGENCY}").handing_over()


@command("政策", "返乡就业", help="政策：怎样拿到惠企、人才和返乡就业政策", group=True, reads=True)
def policies(context: Context, _argument: str) -> Reply:
    """Where the handbook is to be had; looking things up in it here comes later."""
    return say(
        "惠企、人才和返乡就业政策由办公室汇编，按您的情况发给您，一律以文件原文为准。\n"
        f"请回「人工」说明要哪一类，或打电话。{_number(context)}"
    )


def _number(context: Context) -> str:
    office = here(context).office
    if not office.phone:
        return "办公室电话还没有公布，请稍后再问。"
    return f"{office.name or '办公室'}电话 {office.phone}（工作日）。"


def _who(context: Context) -> str:
    profile = context.session.get(MemberProfile, context.person_id)
    if profile is not None:
        return f"{profile.number} {profile.name}（{profile.city}）"
    return f"一位还没有登记的乡亲（{context.inbound.sender.channel}）"
