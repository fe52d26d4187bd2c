"""The member profile: what a person told us about themselves, with consent."""

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Field, Session, SQLModel, col, delete, select

from storage.columns import EncryptedText, KeyRing, UtcDateTime, personal

KEEP_IN_TOUCH = "建立鸿雁档案、寄送节日问候和活动邀请"
RECEIVE = "活动接待和项目对接"


class MemberProfile(SQLModel, table=True):
    """One member's file. Names and cities stay readable to the database: they are searched.

    `salutation` is the finished text (高先生), never derived at send time. `phone` is sealed and
    found by keyed digests of the whole number and of its last four digits.
    """

    __tablename__ = "member_profile"
    __table_args__ = {"info": {"erase": "delete"}}

    person_id: int = Field(foreign_key="person.id", primary_key=True)
    number: str = Field(unique=True, sa_column_kwargs=personal(KEEP_IN_TOUCH, "档案号"))
    name: str = Field(index=True, sa_column_kwargs=personal(KEEP_IN_TOUCH, "姓名"))
    hometown_tie: str = Field(sa_column_kwargs=personal(KEEP_IN_TOUCH, "与家乡的渊源"))
    banner: str | None = Field(default=None, sa_column_kwargs=personal(KEEP_IN_TOUCH, "旗县市区"))
    subdistrict: str | None = Field(
        default=None, sa_column_kwargs=personal(KEEP_IN_TOUCH, "苏木街道")
    )
    country: str = Field(default="中国", sa_column_kwargs=personal(KEEP_IN_TOUCH, "国家"))
    province: str = Field(default="", sa_column_kwargs=personal(KEEP_IN_TOUCH, "省份"))
    city: str = Field(index=True, sa_column_kwargs=personal(KEEP_IN_TOUCH, "现居地"))
    salutation: str | None = Field(
        default=None, sa_column_kwargs=personal(KEEP_IN_TOUCH, "信中称呼")
    )
    phone: str | None = Field(
        default=None, sa_type=EncryptedText, sa_column_kwargs=personal(RECEIVE, "手机")
    )
    phone_digest: str | None = Field(
        default=None, index=True, sa_column_kwargs=personal(RECEIVE, "手机（查找用摘要）")
    )
    phone_tail_digest: str | None = Field(
        default=None, index=True, sa_column_kwargs=personal(RECEIVE, "手机后四位（查找用摘要）")
    )
    org: str | None = Field(default=None, sa_column_kwargs=personal(RECEIVE, "单位或企业"))
    title: str | None = Field(default=None, sa_column_kwargs=personal(RECEIVE, "职务或职称"))
    return_intent: str | None = Field(default=None, sa_column_kwargs=personal(RECEIVE, "回乡意愿"))
    note: str | None = Field(
        default=None, sa_type=EncryptedText, sa_column_kwargs=personal(RECEIVE, "想说的话")
    )
    source_unit_id: int | None = Field(default=None, foreign_key="unit.id")
    registered_at: datetime = Field(sa_type=UtcDateTime)
    last_confirmed_at: datetime = Field(sa_type=UtcDateTime, index=True)


class MemberCategory(SQLModel, table=True):
    """A category a member chose, in the order they said it (the first picks the letter's text)."""

    __tablename__ = "member_category"
    __table_args__ = {"info": {"erase": "delete"}}

    category: str = Field(primary_key=True, sa_column_kwargs=personal(KEEP_IN_TOUCH, "类别"))
    person_id: int = Field(foreign_key="person.id", primary_key=True, index=True)
    position: int = 0


class ProfileChange(SQLModel, table=True):
    """What a field held before it was corrected; sealed."""

    __tablename__ = "profile_change"
    __table_args__ = {"info": {"erase": "delete"}}

    id: int | None = Field(default=None, primary_key=True)
    person_id: int = Field(foreign_key="person.id", index=True)
    name: str
    before: str | None = Field(
        default=None, sa_type=EncryptedText, sa_column_kwargs=personal("更正留痕", "更正前的值")
    )
    at: datetime = Field(sa_type=UtcDateTime)


def phone_digests(keys: KeyRing, number: str) -> tuple[str, str]:
    """Keyed digests of a telephone number and of its last four digits, to find its bearer by."""
    return keys.digest(number), keys.digest(number[-4:])


def keep_phone(profile: MemberProfile, number: str | None, keys: KeyRing) -> None:
    """Set or clear a member's telephone and the digests it is found by."""
    profile.phone = number
    digests = phone_digests(keys, number) if number else (None, None)
    profile.phone_digest, profile.phone_tail_digest = digests


def categories_of(session: Session, person_id: int) -> list[str]:
    """A member's categories in the order they were said."""
    return list(
        session.exec(
            select(MemberCategory.category)
            .where(MemberCategory.person_id == person_id)
            .order_by(col(MemberCategory.position))
        )
    )


def keep_categories(session: Session, person_id: int, categories: Sequence[str]) -> None:
    """Replace a member's categories, in the order they said them."""
    session.exec(delete(MemberCategory).where(col(MemberCategory.person_id) == person_id))
    for position, category in enumerate(categories):
        session.add(MemberCategory(category=category, person_id=person_id, position=position))
    session.flush()
