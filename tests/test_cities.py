"""Cities of China and abroad, and the time zones that follow from them."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.normalize import Miss
from handlers.forms.cities import City, find_city, parse_city


@pytest.mark.parametrize(
    ("said", "province", "city"),
    [
        ("上海", "上海", "上海"),
        ("北京市", "北京", "北京"),
        ("苏州", "江苏", "苏州"),
        ("苏州市", "江苏", "苏州"),
        ("江苏苏州", "江苏", "苏州"),
        ("江苏省苏州市", "江苏", "苏州"),
        ("宿州", "安徽", "宿州"),
        ("霍市", "内蒙古", "霍林郭勒"),
        ("霍林郭勒市", "内蒙古", "霍林郭勒"),
        ("内蒙古自治区通辽市", "内蒙古", "通辽"),
        ("锡林郭勒", "内蒙古", "锡林郭勒盟"),
        ("锡盟", "内蒙古", "锡林郭勒盟"),
        ("兴安盟", "内蒙古", "兴安盟"),
        ("延边朝鲜族自治州", "吉林", "延边州"),
        ("吉林市", "吉林", "吉林"),
        ("吉林长春", "吉林", "长春"),
        ("海南三亚", "海南", "三亚"),
        ("朝阳", "辽宁", "朝阳"),
        ("昆山", "江苏", "昆山"),
        ("公安县", "湖北", "公安县"),
        ("雄安新区", "河北", "雄安新区"),
        ("阿克苏地区", "新疆", "阿克苏地区"),
        ("现在住在上海", "上海", "上海"),
        ("上海开公司", "上海", "上海"),
    ],
)
def test_a_chinese_city_is_found_however_it_is_named(said: str, province: str, city: str) -> None:
    assert parse_city(said) == City(province, city)


@pytest.mark.parametrize(
    ("said", "city"),
    [
        ("北京朝阳区", "北京"),
        ("北京朝阳", "北京"),
        ("上海市浦东新区张江路100号", "上海"),
        ("鄂尔多斯市东胜区", "鄂尔多斯"),
        ("内蒙古通辽市科尔沁区", "通辽"),
    ],
)
def test_a_district_or_an_address_is_dropped_and_the_person_told(said: str, city: str) -> None:
    found = parse_city(said)
    assert isinstance(found, City)
    assert (found.city, found.note) == (city, "只记到城市")


def test_a_slip_is_corrected_and_the_person_told() -> None:
    assert parse_city("霍林果勒") == City("内蒙古", "霍林郭勒", note="按「霍林郭勒」记")


@pytest.mark.parametrize(
    ("said", "text", "timezone"),
    [
        ("蒙古国乌兰巴托", "蒙古国乌兰巴托", "Asia/Ulaanbaatar"),
        ("乌兰巴托", "蒙古国乌兰巴托", "Asia/Ulaanbaatar"),
        ("日本东京", "日本东京", "Asia/Tokyo"),
        ("美国旧金山", "美国旧金山", "America/Los_Angeles"),
        ("旧金山", "美国旧金山", "America/Los_Angeles"),
        ("美国 纽约", "美国纽约", "America/New_York"),
        ("新加坡", "新加坡", "Asia/Singapore"),
        ("德国柏林", "德国柏林", "Europe/Berlin"),
        ("德国小城", "德国小城", "Europe/Berlin"),
        ("澳洲悉尼", "澳大利亚悉尼", "Australia/Sydney"),
        ("中国香港", "香港", "Asia/Hong_Kong"),
        ("台北", "台北", "Asia/Taipei"),
    ],
)
def test_abroad_the_time_zone_follows_from_country_or_city(
    said: str, text: str, timezone: str
) -> None:
    found = parse_city(said)
    assert isinstance(found, City)
    assert (found.text, found.timezone, found.zones) == (text, timezone, ())


def test_in_a_country_of_many_zones_an_unknown_city_leaves_the_zone_to_ask() -> None:
    found = parse_city("美国小镇")
    assert isinstance(found, City)
    assert (found.timezone, found.zones[:2]) == (None, ("America/New_York", "America/Chicago"))
    assert [ZoneInfo(zone).key for zone in found.zones] == list(found.zones)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "请写现在居住的城市"),
        ("内蒙古", "请写到城市"),
        ("吉林", "请写到城市"),
        ("海南", "请写到城市"),
        ("德国", "请把城市也写上，如「德国柏林」"),
        ("朝阳区", "请写到城市"),
        ("北京和上海", "一个城市"),
        ("火星", "没认出这个城市"),
        ("在路上呢", "没认出这个城市"),
    ],
)
def test_what_is_no_city_is_asked_again(said: str, words: str) -> None:
    missed = parse_city(said)
    assert isinstance(missed, Miss)
    assert words in missed.text


def test_nothing_is_guessed_when_a_city_is_only_looked_for() -> None:
    found = [find_city(text) for text in ("苏州市吴中区", "霍林果勒", "内蒙古", "德国")]
    assert found == [(City("江苏", "苏州"), "吴中区"), None, None, None]


@given(st.text(max_size=20))
def test_no_text_makes_the_city_reader_fail(text: str) -> None:
    assert isinstance(parse_city(text), City | Miss)
