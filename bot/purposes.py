"""The purposes the machine itself has: answers to people, and calls for help to its keepers."""

from bot.commands import Purpose

ANSWER = Purpose("answer", "回复", quiet=False, urgent=True, repeatable=True)
TROUBLE = Purpose("trouble", "故障告警", quiet=False, urgent=True, repeatable=True)
