"""First words, the menu, help, and what is said to words nobody knows."""

from itertools import groupby

from bot.commands import Command, Greeting, command
from bot.context import Context
from bot.entrances import way_in
from bot.messages import SILENCE, Address, Happening, Kind, Reply, say
from handlers import scenes
from handlers.letter_replies import heard
from handlers.place import here
from storage.profiles import MemberProfile

SECTIONS = ("鸿雁档案", "书信与活动", "小分队", "统筹", "常用")


def _menu(context: Context) -> str:
    # A stranger in a group has no number.
    member = context.session.get(MemberProfile, context.person_id) if context.person_id else None
    first = "「我的档案」看自己的档案" if member else "「登记」留个联系方式，常收家乡的信"
    return (
        f"您好，这里是{here(context).title}。\n"
        f"回{first}\n"
        "回「活动」看家乡的活动\n"
        "回「隐私」看我们怎样保护您的信息\n"
        "回「人工」找工作人员\n"
        "回「帮助」看全部指令"
    )


@command("菜单", "/start", help="看主要的几件事", group=True, reads=True)
def menu(context: Context, _argument: str) -> Reply:
    """The few things most people come for."""
    return say(_menu(context), "登记", "活动", "隐私", "帮助")


@command("帮助", "help", "/help", "怎么用", "?", "？", help="看全部指令", group=True, reads=True)
def help(context: Context, _argument: str) -> Reply:
    """Every command this person may say here, by section; made from the catalog."""
    listed = sorted(
        (c for c in context.services.catalog.of(Command) if _listed(context, c)),
        key=lambda c: SECTIONS.index(c.section),
    )
    blocks = []
    for section, commands in groupby(listed, key=lambda c: c.section):
        lines = "\n".join(f"「{c.word}」{_short(c)}" for c in commands)
        blocks.append(f"【{section}】\n{lines}")
    return say("\n".join(blocks) + "\n填表时可回「上一步」「跳过」「取消」「继续」。")


def _short(command: Command) -> str:
    """The help without the word it begins with."""
    return command.help.removeprefix(command.word).lstrip("：: ")


def _listed(context: Context, command: Command) -> bool:
    if not command.help or (command.feature and command.feature not in here(context).features):
        return False
    if not context.inbound.chat.private:
        return command.group
    return context.services.catalog.policy.may(context.roles, command)


def _event(context: Context) -> Reply:
    if context.inbound.chat.group is not None:
        return _newcomer(context, context.inbound.chat.group)
    if context.services.channels[context.inbound.sender.channel].one_way:
        return _elsewhere(context)
    invited = scenes.arrived(context)
    if context.inbound.text in (Happening.FOLLOW, Happening.JOINED, Happening.UNBLOCKED):
        hello = f"{invited}\n\n{_menu(context)}" if invited else _menu(context)
        return say(hello, "登记", "活动", "隐私")
    return say(invited, "活动", "登记") if invited else SILENCE


def _elsewhere(context: Context) -> Reply:
    """For who came where nobody is heard: the channel adds the way to where they are."""
    if context.inbound.text != Happening.FOLLOW:
        return SILENCE
    return say(
        f"您好，这里是{here(context).title}。登记、报名活动、收家乡的信，"
        "请先关注公众号，再对公众号说「登记」。"
    )


def _newcomer(context: Context, group: Address) -> Reply:
    """A line for those who have joined a group, at most one an hour however many come."""
    if context.inbound.text == Happening.JOINED:
        hello = say(
            f"欢迎新乡亲！{here(context).title}：登记、报名请私聊我；群里回 /help 看用法。",
            link=way_in(context),
        )
        hour = f"{context.now:%Y%m%d%H}"
        context.send_to_group(group, hello, occasion=f"newcomer:{group}:{hour}")
    return SILENCE


def _unknown(context: Context, _suggestion: str | None) -> Reply:
    words = {
        Kind.VOICE: "暂时听不了语音，麻烦打字。",
        Kind.IMAGE: "图片我没有保存。",
        Kind.VIDEO: "视频我没有保存。",
        Kind.FILE: "文件我没有保存。",
        Kind.LOCATION: "位置我没有保存，我们也不需要。",
        Kind.CONTACT: "名片我没有保存。",
        Kind.STICKER: "收到表情啦。",
    }.get(context.inbound.kind, "这句话我没看懂。")
    return say(f"{words}回「菜单」看看我能办什么，或回「人工」找工作人员。", "菜单", "人工")


GREETING = Greeting(_event, _unknown, heard)
