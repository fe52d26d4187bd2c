"""A ten-question form in WeRoBot with its own SQLite session, served by gunicorn.

`WEROBOT_WAL=1` tunes its database to WAL and synchronous NORMAL, which it does not do by itself.
"""

import os
from typing import Any

from werobot import WeRoBot
from werobot.session.sqlitestorage import SQLiteStorage

from benchmarks.wechat_load import AES_KEY, APP_ID, QUESTIONS, TOKEN

storage = SQLiteStorage(os.environ["WEROBOT_DATABASE"])
if os.environ.get("WEROBOT_WAL"):
    storage.db.execute("PRAGMA journal_mode=WAL")
    storage.db.execute("PRAGMA synchronous=NORMAL")

robot = WeRoBot(
    token=TOKEN,
    encoding_aes_key=AES_KEY,
    app_id=APP_ID,
    enable_session=True,
    session_storage=storage,
)


@robot.text
def answer(message: Any, session: Any) -> str:
    """Keep a digit, ask for the next."""
    answers = session.get("answers", [])
    if message.content != "开始":
        if not message.content.isdigit():
            return "请回数字。"
        answers = [*answers, int(message.content)]
    session["answers"] = answers
    if len(answers) == QUESTIONS:
        return "填完了。"
    return f"第{len(answers) + 1}/{QUESTIONS}题：请回数字。"


app = robot.wsgi
