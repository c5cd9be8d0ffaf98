"""The words of the shop: what categories are called and searched for in twelve languages, and its ids as text."""

from __future__ import annotations

import json
from functools import cache

import pyarrow as pa

from recbatch.synthetic.assortment import CATEGORIES

# Neighbours go together: 0 with 1, 2 with 3. English, German, French, Spanish, Russian, Greek, Arabic, Hebrew, Hindi,
# Chinese, Japanese, Korean.
_NOUNS = (
    "coffee Kaffee café café кофе καφές قهوة קפה कॉफ़ी 咖啡 コーヒー 커피",
    "cup Tasse tasse taza чашка φλιτζάνι كوب כוס प्याला 杯子 カップ 컵",
    "shoes Schuhe chaussures zapatos обувь παπούτσια أحذية נעליים जूते 鞋 靴 신발",
    "socks Socken chaussettes calcetines носки κάλτσες جوارب גרביים मोज़े 袜子 靴下 양말",
    "tent Zelt tente tienda палатка σκηνή خيمة אוהל तंबू 帐篷 テント 텐트",
    "lantern Laterne lanterne farol фонарь φανάρι فانوس פנס लालटेन 灯笼 ランタン 랜턴",
    "laptop Notebook ordinateur portátil ноутбук υπολογιστής حاسوب מחשב लैपटॉप 笔记本电脑 ノートパソコン 노트북",
    "mouse Maus souris ratón мышь ποντίκι فأرة עכבר माउस 鼠标 マウス 마우스",
    "pasta Nudeln pâtes pasta паста μακαρόνια معكرونة פסטה पास्ता 意面 パスタ 파스타",
    "sauce Soße sauce salsa соус σάλτσα صلصة רוטב चटनी 酱汁 ソース 소스",
    "bicycle Fahrrad vélo bicicleta велосипед ποδήλατο دراجة אופניים साइकिल 自行车 自転車 자전거",
    "helmet Helm casque casco шлем κράνος خوذة קסדה हेलमेट 头盔 ヘルメット 헬멧",
    "lamp Lampe lampe lámpara лампа λάμπα مصباح מנורה दीपक 台灯 ランプ 램프",
    "bulb Birne ampoule bombilla лампочка λαμπτήρας لمبة נורה बल्ब 灯泡 電球 전구",
    "printer Drucker imprimante impresora принтер εκτυπωτής طابعة מדפסת प्रिंटर 打印机 プリンター 프린터",
    "paper Papier papier papel бумага χαρτί ورق נייר कागज़ 纸 紙 종이",
)
_VARIETIES = ("classic", "travel", "premium", "kids")
# Commas and quotes, so that a reader of CSV has something to do.
_PHRASES = ("{0}", "{0} 2025", '"{0}"', "{0}, {1}", "{0} < 50 €", "{0} 👍")
BRANDS = ("Alba", "Brontë", "Çelik", "Dvořák & Sons", "Ébène", "Fjäll", "Groß", 'H"H', "Ikaros", "Jåvla, Inc.")
TAGS = ("new", "eco", "refurbished", "gift", "bestseller", "limited", "vegan", "bulk", "наш выбор", "限定")
EVENT_TYPES = {"show": "view", "search": "search", "basket": "cart", "order": "purchase"}
UNKNOWN_TYPE = "teleport"
_WRITTEN = ("пользователь", "顧客", "χρήστης", "señor", "sen\u0303or", "مستخدم", "👤")


def category_name(category: int, language: int = 0) -> str:
    noun = _NOUNS[category % len(_NOUNS)].split(" ")[language]
    return f"{noun} {_VARIETIES[category // len(_NOUNS) % len(_VARIETIES)]}"


@cache
def queries(style: str) -> pa.Array:
    """Every search text by its number; plain, or as a value in a line of "csv" or "json"."""
    texts = []
    for category in range(CATEGORIES):
        for noun in _NOUNS[category % len(_NOUNS)].split(" "):
            variety = _VARIETIES[category // len(_NOUNS) % len(_VARIETIES)]
            texts += [phrase.format(noun, variety) for phrase in _PHRASES]
    return pa.array([as_value(text, style) for text in texts])


def as_value(text: str, style: str) -> str:
    """A text as the value of a CSV line (quotes as in RFC 4180) or of a JSON line; "plain" as it is."""
    if style == "json":
        return json.dumps(text, ensure_ascii=False)
    if style == "csv" and any(letter in text for letter in ',"\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def odd_item_id(number: int) -> str:
    """The id of one of the few items whose ids are no numbers."""
    return f"Größe-{number}" if number % 2 else f"品番-{number}"


def non_numeric_user_id(number: int) -> str:
    return f"guest:{number:x}@shop"


def unicode_user_id(number: int) -> str:
    return f"{_WRITTEN[number % len(_WRITTEN)]}-{number}"


def long_user_id(number: int) -> str:
    """An id of 1,000 characters and more, as a broken front end may send a whole token."""
    return f"token-{number}-".ljust(1_000 + number % 500, "0123456789abcdef"[number % 16])
