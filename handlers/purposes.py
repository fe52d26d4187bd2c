"""Why people are written to unasked; each purpose names the consent and the topic it needs."""

from bot.commands import Purpose

PROFILE = "profile"  # the basic consent; S1 … S8 are the separate ones

LETTER = Purpose("letter", "节日信", scope=PROFILE, topic="节日信")
INVITATION = Purpose("invitation", "活动邀请", scope=PROFILE, topic="活动邀请")
POLICY = Purpose("policy", "政策", scope=PROFILE, topic="政策")
NEWS = Purpose("news", "家乡动态", scope=PROFILE, topic="家乡动态")

EVENT_SERVICE = Purpose(
    "event_service", "活动通知（已回执者）", scope=PROFILE, repeatable=True, service=True
)
"""About an event the person answered: moving up from the waiting list, the day before."""

LETTER_ANSWER = Purpose("letter_answer", "答复您的回信", scope=PROFILE, urgent=True, service=True)
"""To a member who answered a letter: they asked, so it is no letter one can stop."""

DUTY = Purpose("duty", "工作通知", repeatable=True, service=True)
"""To staff about their work: reminders, approvals, delivered reports. Duty, not consent."""

DUTY_NOW = Purpose(
    "duty_now", "工作通知（即时）", quiet=False, urgent=True, repeatable=True, service=True
)
"""To staff who wait for it: an approval asked for, a vote given."""

TOPICS = {purpose.topic or "": purpose for purpose in (LETTER, INVITATION, POLICY, NEWS)}
DEFAULT_TOPICS = ("节日信", "活动邀请")
