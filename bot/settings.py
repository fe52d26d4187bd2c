"""What an operator may set: `HONGYAN_*` variables, or the file that `hongyan init` wrote."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bot.clock import QuietHours

FILE = "hongyan.env"
PREFIX = "HONGYAN_"


class Settings(BaseSettings):
    """Every setting with its default; secrets never show in `repr`, logs or errors."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=FILE, env_file_encoding="utf-8", extra="ignore"
    )

    database_url: str = Field(
        "sqlite:///hongyan.db", description="数据库：SQLite 文件或 PostgreSQL"
    )
    spool: str = Field(
        "", description="数据库用不了时暂存来信的文件夹；空则在数据库文件旁，或当前文件夹"
    )
    place: str = Field("huolingol", description="地方：名称，或一份 TOML 文件的路径")
    office_name: str = Field("", description="办公室全称（覆盖地方文件）")
    office_phone: str = Field("", description="办公室电话（覆盖地方文件）")
    signatory: str = Field("", description="信件落款（覆盖地方文件）")
    keys: SecretStr = Field(
        SecretStr(""), description="密钥环：编号:密钥,编号:密钥（第一把用于加密）"
    )
    public_url: str = Field("", description="外网地址，如 https://bot.example.org")
    channels: str = Field("", description="启用的渠道，逗号分隔：wechat,telegram,wecom,…")
    timezone: str = Field("Asia/Shanghai", description="本地时区")
    quiet_hours: str = Field("21:30-08:30", description="静默时段，不主动打扰")
    log_level: str = Field("INFO", description="日志级别")
    metrics_token: SecretStr = Field(SecretStr(""), description="/metrics 的令牌，空则关闭")
    keep_sent_days: int = Field(
        366, ge=90, le=3660, description="发件明细留多少天，之后群发只留人数（90 到 3660）"
    )

    wechat_app_id: str = Field("", description="公众号 AppID")
    wechat_app_secret: SecretStr = Field(SecretStr(""), description="公众号 AppSecret")
    wechat_token: SecretStr = Field(SecretStr(""), description="公众号服务器配置的 Token")
    wechat_aes_key: SecretStr = Field(
        SecretStr(""), description="公众号 EncodingAESKey（安全模式）"
    )
    wechat_api_base: str = Field("https://api.weixin.qq.com", description="公众号接口地址")
    wechat_menu: str = Field(
        "", description="公众号菜单，如 登记,活动,更多=我的档案/隐私/人工；空则不动"
    )

    wechat_templates: str = Field(
        "",
        description="公众号服务通知的模板，如 duty=模板编号:thing1=标题,time2=时间；分号隔开",
    )
    wechat_notices: str = Field(
        "",
        description="公众号订阅通知的模板，写法同上；长期订阅写 letter=长期 模板编号:…",
    )
    wechat_msgmenu: bool = Field(
        False, description="公众号主动发的选择题用可点的菜单消息（须已认证）"
    )
    wechat_unionid: bool = Field(
        False, description="公众号已绑定微信开放平台：记下关注者的统一标识，用于核对联络群"
    )

    wecom_corp_id: str = Field("", description="企业微信企业ID")
    wecom_agent_id: str = Field("", description="企业微信自建应用的 AgentId")
    wecom_secret: SecretStr = Field(SecretStr(""), description="企业微信自建应用的 Secret")
    wecom_token: SecretStr = Field(SecretStr(""), description="企业微信应用接收消息的 Token")
    wecom_aes_key: SecretStr = Field(
        SecretStr(""), description="企业微信应用接收消息的 EncodingAESKey"
    )
    wecom_api_base: str = Field("https://qyapi.weixin.qq.com", description="企业微信接口地址")
    wecom_bot_id: str = Field("", description="企业微信智能机器人的 BotID（长连接方式）")
    wecom_bot_secret: SecretStr = Field(SecretStr(""), description="智能机器人长连接的 Secret")
    wecom_bot_token: SecretStr = Field(SecretStr(""), description="智能机器人回调的 Token")
    wecom_bot_aes_key: SecretStr = Field(
        SecretStr(""), description="智能机器人回调的 EncodingAESKey"
    )
    wecom_bot_url: str = Field(
        "wss://openws.work.weixin.qq.com", description="智能机器人长连接的地址"
    )
    wecom_group_link: str = Field(
        "", description="客户群欢迎语里的链接：公众号的关注页或登记页，空则只有文字"
    )
    wecom_kf_servicer: str = Field(
        "", description="微信客服转人工时接手的成员账号，空则进入待接入池"
    )
    wecom_webhook_url: SecretStr = Field(
        SecretStr(""),
        description="企业微信消息推送的 Webhook 地址（含密钥）；几个群写「群名=地址」，逗号隔开",
    )

    telegram_token: SecretStr = Field(SecretStr(""), description="Telegram 机器人令牌")
    telegram_api_base: str = Field("https://api.telegram.org", description="Telegram 接口地址")
    telegram_mode: Literal["polling", "webhook"] = Field("polling", description="收消息的方式")
    telegram_secret: SecretStr = Field(SecretStr(""), description="webhook 的校验口令")
    telegram_policy: Literal["off", "public_only", "overseas_self", "full"] = Field(
        "overseas_self", description="跨境模式：能收哪些人的哪些信息"
    )
    telegram_filing: str = Field("", description="跨境模式 full 所依据的评估或备案文号")
    telegram_proxy: str = Field("", description="访问 Telegram 的代理地址")

    @field_validator("quiet_hours")
    @classmethod
    def _span(cls, value: str) -> str:
        if not re.fullmatch(r"\d{1,2}:\d{2}\s*-\s*\d{1,2}:\d{2}", value):
            raise ValueError("静默时段的写法是 21:30-08:30")
        begins, ends = (part.strip().zfill(5) for part in value.split("-"))
        if begins <= ends:
            raise ValueError("静默时段要跨过午夜，如 21:30-08:30")
        return value

    @property
    def quiet(self) -> QuietHours:
        """The quiet hours as times of day."""
        begins, ends = (
            time.fromisoformat(part.strip().zfill(5)) for part in self.quiet_hours.split("-")
        )
        return QuietHours(begins, ends)

    @property
    def enabled(self) -> tuple[str, ...]:
        """Names of the channels to run."""
        return tuple(name.strip() for name in self.channels.split(",") if name.strip())

    @property
    def office(self) -> Mapping[str, str]:
        """What overrides the place file, only where it is set."""
        given = {
            "office_name": self.office_name,
            "office_phone": self.office_phone,
            "signatory": self.signatory,
        }
        return {key: value for key, value in given.items() if value}

    def secrets(self) -> tuple[str, ...]:
        """Every secret that is set, for redaction."""
        values = (getattr(self, name) for name in type(self).model_fields)
        texts = (v.get_secret_value() for v in values if isinstance(v, SecretStr))
        return tuple(text for text in texts if text)


def demo_settings(**values: Any) -> Settings:
    """Settings that look at no file and no environment."""

    class Bare(Settings):
        model_config = SettingsConfigDict(env_prefix="HONGYAN_NOT_READ_", env_file=None)

    return Bare(**values)


def key_file(database_url: str) -> Path | None:
    """Where a SQLite installation without HONGYAN_KEYS keeps its keys: beside the database."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(.+)", database_url)
    if not found or found[1] == ":memory:":
        return None
    return Path(f"{found[1]}.keys")


def spool_folder(settings: Settings) -> Path:
    """Where messages wait while the database is away."""
    if settings.spool:
        return Path(settings.spool)
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(.+)", settings.database_url)
    return Path(f"{found[1] if found else 'hongyan'}.spool")


def read_or_make_keys(settings: Settings, generate: Any) -> str:
    """The key ring's text; a first start on SQLite makes one, readable by its owner only.

    Returns an empty text where an operator must provide it (PostgreSQL).
    """
    given = settings.keys.get_secret_value()
    path = key_file(settings.database_url)
    if given or path is None:
        return given
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    text: str = generate()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return text
