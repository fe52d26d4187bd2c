"""Personal names of any people, and how a letter may address their bearers."""

from __future__ import annotations

import re
import unicodedata

from bot.normalize import Miss, explicit, read_integer, tidy

LONGEST_NAME = 50
LONGEST_SALUTATION = 12
# The standard for names in information systems: one middle dot, U+00B7, whatever was typed.
_DOTS = re.compile("\\s*[.·•‧∙⋅・･\uff0e\u2024\u0387\u22c4\u30fb]\\s*")
_INTRODUCTION = re.compile(
    r"^(?:我的?)?(?:姓名|名字|名)(?:是|叫)?[:：\s]*|^(?:我|本人)?(?:叫做?|是)\s*|^本人\s*"
)
_NAME_EXAMPLE = "「高远山」「巴特尔」「阿依古丽·买买提」"
_HAN = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3007"
    "\U00020000-\U0003ffff"
    "\ufe00-\ufe0f\U000e0100-\U000e01ef"
)
_HAN_NAME = re.compile(f"[{_HAN}]+")
_ALLOWED_SCRIPTS = ("LATIN", "CYRILLIC", "MONGOLIAN")
_JOINERS = frozenset(" ·'’-\u2010\u180e\u200c\u200d\u202f")


def parse_name(text: str) -> str | Miss:
    """Return a name of 2 to 50 characters with every kind of dot turned into U+00B7.

    Han (rare characters too), Latin, Cyrillic and traditional Mongolian letters pass. 确认 and 同意
    are answers to another question.
    """
    if explicit(text) is not None:
        return Miss(f"这里请写姓名，如{_NAME_EXAMPLE}。")
    plain = _INTRODUCTION.sub("", tidy(text).strip('。！!，,「」“”"'))
    plain = _DOTS.sub("·", plain).strip("· ")
    plain = re.sub(f"(?<=[{_HAN}]) +(?=[{_HAN}])", "", plain)
    plain = re.sub(" {2,}", " ", plain)
    if len(plain) > LONGEST_NAME:
        return Miss(f"姓名最多{LONGEST_NAME}个字，请只写姓名，如{_NAME_EXAMPLE}。")
    wrong = next((sign for sign in plain if not _is_name_sign(sign)), None)
    if wrong is not None:
        kind = "数字" if wrong.isdigit() else f"「{wrong}」"
        return Miss(f"姓名里不能有{kind}，请只写姓名，如{_NAME_EXAMPLE}。")
    if len(plain) < 2:
        return Miss(f"姓名至少两个字，请写全名，如{_NAME_EXAMPLE}。")
    return plain


def _is_name_sign(sign: str) -> bool:
    if sign in _JOINERS or _HAN_NAME.fullmatch(sign):
        return True
    name = unicodedata.name(sign, "")
    return unicodedata.category(sign)[0] in "LM" and name.startswith(_ALLOWED_SCRIPTS)


# Some 370, the frequent ones first; syllables that open Mongolian names are left out.
_SURNAMES = frozenset(
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖田董潘袁蔡蒋余"
    "于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石金韦贾夏付傅方邹熊白孟秦邱侯江尹薛阎闫"
    "段雷龙黎史陶贺毛郝顾龚邵万覃武钱戴严莫孔向汤温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂"
    "章鲁岳翟殷詹申欧耿关兰焦俞左柳甘祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷曲盛翁"
    "冉骆蓝路游辛靳管柴蒙鲍华喻祁蒲房滕屈饶解牟艾尤阳穆农司卓古吉缪简车项连芦麦褚娄窦"
    "戚岑景党宫费卜冷晏席卫米柏宗瞿桂佟应臧闵苟邬边卞姬师仇栾隋商刁沙荣寇桑郎甄丛仲虞"
    "敖巩佘池麻苑迟邝官封谈匡鞠惠荆乐冀郁胥班储原栗燕楚鄢劳谌奚皮粟冼蔺楼盘闻厉仝区郜"
    "阚权帅屠豆朴盖练廉禹井祖漆巫丰支卿狄计晋相容敬扈晁芮普阙浦戈伏鹿薄邸雍辜羊母裘亓"
    "修邰赫杭况宿鲜印逯隆茹诺战慕危亢嵇公湛宾戎勾茅利於居揭干但尉冶元束檀衣展阴昝幸奉"
    "植衡富尧闭由"
)
_COMPOUND_SURNAMES = (
    "欧阳 上官 司马 诸葛 慕容 呼延 尉迟 长孙 宇文 皇甫 夏侯 东方 独孤 令狐 公孙 端木 司徒 司空 "
    "轩辕 钟离 闻人 申屠 公冶 宗政 濮阳 淳于 单于 太叔 仲孙 赫连 澹台 拓跋 鲜于 闾丘 亓官 南宫 "
    "第五 百里 东郭 西门 南门 公羊 万俟 完颜 耶律 纳兰 叶赫 爱新觉罗"
)
# First syllables of Mongolian names that look like a Han surname: 高娃 is a name, not Ms Gao.
_MONGOLIAN_OPENINGS = (
    "高娃 白音 白乙 白嘎 孟和 孟根 孟克 孟恩 苏日 苏和 苏布 苏德 苏雅 敖登 敖日 "
    "敖特 敖其 敖云 包音 宝音 宝力 宝乐 胡日 胡格 胡和 吉日 吉雅 吉仁 毕力 毕勒 "
    "达来 布仁 布和 德力 德德 莫日 莫德 温都 萨仁 萨日 塔娜 金达 安达 朝鲁 朝克 "
    "车力 乔巴 贺希 贺西 陶格 陶克 特木 图雅 格日 常命 牧仁 康巴 巴特 巴雅 巴图 "
    "巴根 查干 满都 满达 娜仁 乌兰 乌云 乌日 乌力 青格 希日 其其 其木 阿拉 阿古 "
    "额尔 额日 哈斯 海日 那日 那木 那顺 那仁 呼和 呼日 斯琴 斯日 通拉 伊拉 伊德 "
    "双福 道尔 丹巴 云登 旺吉 雅茹 桑布 桑杰 舍楞 银花 宁布 鲁布 罗布 扎木 扎那 "
    "韩格"
)
_OPENINGS = frozenset(_MONGOLIAN_OPENINGS.split())
_COMPOUNDS = tuple(sorted(_COMPOUND_SURNAMES.split(), key=len, reverse=True))
# A single surname with three more characters is hardly ever Han: 斯琴高娃, 白乙拉图.
_LONGEST_WITH_SINGLE_SURNAME = 3


def surname_of(name: str) -> str | None:
    """Return the Han surname of a name, or None where cutting the name might insult its bearer."""
    if not _HAN_NAME.fullmatch(name) or len(name) < 2 or name[:2] in _OPENINGS:
        return None
    if name in _COMPOUNDS:
        return None
    for compound in _COMPOUNDS:
        if name.startswith(compound) and len(compound) < len(name) <= len(compound) + 2:
            return compound
    if len(name) <= _LONGEST_WITH_SINGLE_SURNAME and name[0] in _SURNAMES:
        return name[0]
    return None


def salutation_options(name: str) -> tuple[str, ...]:
    """Return the ready-made ways to address somebody, in the order in which they are numbered.

    The form adds 自定义 as the last number. Without a certain Han surname the name stays whole.
    """
    surname = surname_of(name)
    if surname is None:
        return tuple(f"{name}{title}" for title in ("先生", "女士", "老师", "同志"))
    short = tuple(f"{surname}{title}" for title in ("先生", "女士", "老师"))
    return (*short, *(f"{name}{title}" for title in ("同志", "先生", "女士")))


def parse_salutation(text: str, name: str) -> str | Miss:
    """Return the chosen or freely written form of address; `不对 还是1吧` counts as 1."""
    options = salutation_options(name)
    plain = tidy(text).strip('。！!，,「」“”"：:')
    last_word = re.split(r"还是|不对|不是|改成|改为", plain)[-1].strip(" ，,")
    number = read_integer(re.sub(r"^选?第?|[个号吧呢啊]+$", "", last_word))
    if number is not None:
        return _numbered(number, options)
    custom = last_word or plain
    if custom == "自定义":
        return Miss(f"请写出称呼，最多{LONGEST_SALUTATION}个字，如「{name}老师」。")
    custom = re.sub(rf"^(?:{len(options) + 1}|自定义)[\s:：、.]*", "", custom)
    if len(custom) > LONGEST_SALUTATION:
        return Miss(f"称呼最多{LONGEST_SALUTATION}个字，请写短一些，如「{options[2]}」。")
    if not all(_is_name_sign(sign) for sign in custom) or len(custom) < 2:
        return Miss(f"请回1到{len(options)}的数字，或直接写称呼，如「{options[2]}」。")
    return custom if _RESPECT.match(custom) else custom.removeprefix("尊敬的")


def _numbered(number: int, options: tuple[str, ...]) -> str | Miss:
    if 1 <= number <= len(options):
        return options[number - 1]
    if number == len(options) + 1:
        return Miss(f"请写出称呼，最多{LONGEST_SALUTATION}个字，如「{options[2]}」。")
    return Miss(f"请回1到{len(options) + 1}的数字，或直接写称呼，如「{options[2]}」。")


_RESPECT = re.compile("尊敬|敬爱|亲爱")


def salutation_line(text: str | None, name: str) -> str:
    """Return the line that opens a letter, without its colon; never doubled, never guessed."""
    if not text:
        return f"尊敬的{name}乡亲"
    return text if _RESPECT.match(text) else f"尊敬的{text}"
