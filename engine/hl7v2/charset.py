"""Character sets: which one a message is in, and its text.

The order is fixed: what the channel forces, byte order mark, MSH-18, the channel's charset, UTF-8, the channel's
fallback. The choice is kept with the message, and decoding never fails: bytes that the fallback does not define become
the code point of the same number.

A set of single bytes decodes any bytes, so that nobody notices when it is declared in error. It is not believed where
all that is not ASCII is valid UTF-8 (real text of such a set never is): that is read as UTF-8, with the deviation
CHARSET_DOUBTFUL. Bytes 80 to 9F are no text in ISO 8859; they are read as the windows set that contains it.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from typing import Final

from engine.domain.record import Phi
from engine.hl7v2.mllp import WIDE_HEADER, is_wide

_WIDE: Final = ("utf-16", "utf-32")
_WIDE_NAMES: Final = ("UTF16", "UTF32", "UCS2", "UCS4", "10646UCS")
_SINGLE: Final = ("iso8859-", "cp125", "koi8-")
_C1: Final = re.compile("[\x80-\x9f]")
_SUPERSETS: Final = {"iso8859-1": "windows-1252", "iso8859-9": "windows-1254"}  # those that agree but for 80 to 9F

CHARSET_UNKNOWN: Final = "charset-unknown"
CHARSET_UNDECODABLE: Final = "charset-undecodable"
CHARSET_FALLBACK: Final = "charset-fallback"
CHARSET_DOUBTFUL: Final = "charset-doubtful"
BYTE_ORDER_MARK: Final = "byte-order-mark"


_JAPANESE: Final = "iso2022_jp_ext"  # JIS X 0201, 0208 and 0212 by escape sequences: ISO IR14, IR87, IR159

# HL7 table 0211, then the names that senders write instead; compared by letters and digits only. The supersets that
# vendors mean are taken (windows' 950 for Big5, 949 for KS X 1001). CNS 11643 has no codec in Python.
_CODECS: Final = {
    "ASCII": "ascii", "ISOIR6": "ascii",
    **{f"8859{part}": f"iso8859-{part}" for part in (*range(1, 12), 13, 14, 15, 16)},
    "ISOIR14": _JAPANESE, "ISOIR87": _JAPANESE, "ISOIR159": _JAPANESE,
    "JISX0201": _JAPANESE, "JISX0208": _JAPANESE, "JISX0212": _JAPANESE,
    "GB180302000": "gb18030", "KSX1001": "cp949", "BIG5": "cp950",
    "UNICODE": "utf-8", "UNICODEUTF8": "utf-8", "UNICODEUTF16": "utf-16", "UNICODEUTF32": "utf-32",
    "USASCII": "ascii", "ISO646": "ascii", "UTF8": "utf-8", "UTF16": "utf-16",
    **{f"ISO8859{part}": f"iso8859-{part}" for part in (*range(1, 12), 13, 14, 15, 16)},
    "ISOIR100": "iso8859-1", "ISOIR101": "iso8859-2", "ISOIR109": "iso8859-3", "ISOIR110": "iso8859-4",
    "ISOIR144": "iso8859-5", "ISOIR127": "iso8859-6", "ISOIR126": "iso8859-7", "ISOIR138": "iso8859-8",
    "ISOIR148": "iso8859-9", "ISOIR192": "utf-8",
    "LATIN1": "iso8859-1", "WINDOWS1252": "windows-1252", "CP1252": "windows-1252", "ANSI": "windows-1252",
    "WINDOWS1250": "windows-1250", "WINDOWS1251": "windows-1251", "CP1250": "windows-1250", "CP1251": "windows-1251",
    "GB18030": "gb18030", "GBK": "gbk", "GB2312": "gb2312", "SHIFTJIS": "shift_jis", "SJIS": "shift_jis",
    "ISO2022JP": _JAPANESE, "EUCJP": "euc_jp", "EUCKR": "cp949",
}  # fmt: skip


class Decoded(Phi, frozen=True, kw_only=True):
    text: str
    charset: str
    """Python's name of the codec that was used."""
    deviations: tuple[str, ...] = ()


def codec_of(name: str) -> str | None:
    """The codec of a character set named as in table 0211 (or as senders write it), none when it is not known."""
    return _CODECS.get("".join(filter(str.isalnum, name)).upper())


@lru_cache(maxsize=64)
def declared_codec(names: tuple[str, ...]) -> tuple[str | None, bool]:
    """The codec that MSH-18 declares, and whether its names were understood.

    The first repetition counts. Japanese senders leave it empty or ASCII and name in a further one the sets that they
    switch to by ISO 2022 escape sequences; the codec for those reads plain ASCII as well.
    """
    if not any(names):
        return None, True
    codec = codec_of(names[0]) if names[0] else "ascii"
    if codec == "ascii" and any(codec_of(name) == _JAPANESE for name in names[1:]):
        codec = _JAPANESE
    return codec, codec is not None


@lru_cache(maxsize=64)
def is_single_byte(codec: str) -> bool:
    """Whether any bytes are text in this codec: one of the sets of single bytes."""
    return codecs.lookup(codec).name.startswith(_SINGLE)


@lru_cache(maxsize=64)
def names_wide(names: tuple[str, ...]) -> bool:
    """Whether MSH-18 names UTF-16 or UTF-32, as table 0211 does or by another of their names (ISO IR 10646-UCS-2)."""
    return any(wide in "".join(filter(str.isalnum, name)).upper() for name in names for wide in _WIDE_NAMES)


def wide_text(payload: bytes, bytes_max: int | None = None) -> str | None:
    """The text of a message in UTF-16 or UTF-32, as far as it can be read, from its header on; none: it is in neither.

    For people and for the answer's header only: the payload may be half of a message.
    """
    found = WIDE_HEADER.match(payload) if is_wide(payload) else None
    if found is None:
        return None
    at = next(index for index, byte in enumerate(payload) if byte in b"MmFfBb")
    width = 4 if payload[at + 1 : at + 4] == b"\0\0\0" else 2
    end = len(payload) if bytes_max is None else at + bytes_max
    codec = f"utf-{8 * width}"
    # A mark or blanks of another width may stand before it: the order of bytes is the one that gives more plain text.
    readings = [
        payload[start:end].decode(codec + order, "replace")
        for start, order in ((at, "-le"), (max(0, at + 1 - width), "-be"))
    ]
    return max(readings, key=lambda text: sum(map(str.isascii, text)))


def decode(
    payload: bytes, names: tuple[str, ...], *, default: str | None, fallback: str, force: str | None = None
) -> Decoded:
    """The payload's text, without a byte order mark.

    names: the repetitions of MSH-18. default, fallback, force: Python codec names, known to exist; force takes the
    place of all that the message says.
    """
    if payload[:3] == b"MSH":  # nearly every message: no byte order mark, and in the charset it names
        declared, understood = declared_codec(names)
        codec = force or declared or default or "utf-8"
        if codec == "utf-8" or (payload.isascii() and not codec.startswith(_WIDE)):
            try:
                text = payload.decode(codec)
                return Decoded(text=text, charset=codec, deviations=() if understood or force else (CHARSET_UNKNOWN,))
            except UnicodeError:
                pass
    if not payload.startswith(codecs.BOM_UTF8) and (wide := wide_text(payload)) is not None:
        return Decoded(text=wide, charset="utf-16", deviations=(CHARSET_UNDECODABLE,))
    deviations: list[str] = []
    candidates: list[str] = []
    marked = payload.startswith(codecs.BOM_UTF8)
    if marked:
        deviations.append(BYTE_ORDER_MARK)
        payload = payload[len(codecs.BOM_UTF8) :]
    if force is not None:
        candidates.append(force)
    elif marked:
        candidates.append("utf-8")
    else:
        declared, understood = declared_codec(names)
        if not understood:
            deviations.append(CHARSET_UNKNOWN)
        candidates += [codec for codec in (declared, default) if codec is not None]
    claimed = len(candidates)
    candidates.append("utf-8")
    for position, codec in enumerate(candidates):
        try:
            if codec.startswith(_WIDE):  # the bytes are not what was declared, though they may decode
                raise UnicodeError  # noqa: TRY301
            if force is None and is_single_byte(codec) and not payload.isascii() and decodes(payload, "utf-8"):
                deviations.append(CHARSET_DOUBTFUL)
                codec = "utf-8"  # noqa: PLW2901 - what it is read with, from here on
            text = payload.decode(codec)
            superset = _SUPERSETS.get(codecs.lookup(codec).name)
            if superset is not None and _C1.search(text):
                deviations.append(CHARSET_UNDECODABLE)
                codec = superset  # noqa: PLW2901
                text = payload.decode(codec, "handoff-same-number")
        except UnicodeError:
            if position < claimed:
                deviations.append(CHARSET_UNDECODABLE)
            continue
        return Decoded(text=text, charset=codec, deviations=tuple(dict.fromkeys(deviations)))
    deviations.append(CHARSET_FALLBACK)
    text = payload.decode(fallback, "handoff-same-number")
    return Decoded(text=text, charset=fallback, deviations=tuple(dict.fromkeys(deviations)))


def decodes(raw: bytes, codec: str) -> bool:
    """Whether these bytes are text in that codec. UTF-16 and UTF-32 are never meant: their MSH is no bytes `MSH`."""
    if codec.startswith(_WIDE):
        return False
    try:
        raw.decode(codec)
    except UnicodeError:
        return False
    return True


def decode_short(raw: bytes, codec: str | None) -> str:
    """A field of MSH as text: in the declared codec if it can be, else UTF-8, else windows-1252.

    A set of single bytes is not believed where the bytes are UTF-8, as in `decode`.
    """
    for candidate in ("utf-8", codec) if codec is None or is_single_byte(codec) else (codec, "utf-8"):
        if candidate is None:
            continue
        try:
            return raw.decode(candidate)
        except UnicodeError:
            continue
    return raw.decode("windows-1252", "handoff-same-number")


def _same_number(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(map(chr, error.object[error.start : error.end])), error.end


codecs.register_error("handoff-same-number", _same_number)
