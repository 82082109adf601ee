"""Character sets: which one a message is in, and its text.

The order is fixed: byte order mark, MSH-18, the channel's charset, UTF-8, the channel's fallback. The choice is kept
with the message, and decoding never fails: bytes that the fallback does not define become the code point of the same
number.
"""

from __future__ import annotations

import codecs
from functools import lru_cache
from typing import Final

from engine.domain.record import Phi

_WIDE: Final = ("utf-16", "utf-32")

CHARSET_UNKNOWN: Final = "charset-unknown"
CHARSET_UNDECODABLE: Final = "charset-undecodable"
CHARSET_FALLBACK: Final = "charset-fallback"
BYTE_ORDER_MARK: Final = "byte-order-mark"

_BOMS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

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


def unicode_form(payload: bytes) -> str | None:
    """`utf-16-le` or `utf-16-be` when the payload is in one of them: it starts so, or its MSH can be read so."""
    start = payload[:64]
    if start.startswith(codecs.BOM_UTF16_LE):
        return "utf-16-le"
    if start.startswith(codecs.BOM_UTF16_BE):
        return "utf-16-be"
    at = start.find(b"M\x00S\x00H")
    if at < 0 or start[:at].strip(b"\x00\t\n\r "):
        return None
    return "utf-16-be" if at % 2 else "utf-16-le"


def decode(payload: bytes, names: tuple[str, ...], *, default: str | None, fallback: str) -> Decoded:
    """The payload's text, without a byte order mark.

    names: the repetitions of MSH-18. default, fallback: Python codec names, known to exist.
    """
    if payload[:3] == b"MSH":  # nearly every message: no byte order mark, not UTF-16, and in the charset it names
        declared, understood = declared_codec(names)
        codec = declared or default or "utf-8"
        if not codec.startswith(_WIDE):
            try:
                text = payload.decode(codec)
                return Decoded(text=text, charset=codec, deviations=() if understood else (CHARSET_UNKNOWN,))
            except UnicodeError:
                pass
    deviations: list[str] = []
    candidates: list[str] = []
    wide = unicode_form(payload)
    marked = next(((mark, codec) for mark, codec in _BOMS if payload.startswith(mark)), None)
    if marked is not None:
        deviations.append(BYTE_ORDER_MARK)
        payload = payload[len(marked[0]) :]
        candidates.append(marked[1])
    elif wide is not None:
        candidates.append(wide)
    else:
        declared, understood = declared_codec(names)
        if not understood:
            deviations.append(CHARSET_UNKNOWN)
        candidates += [codec for codec in (declared, default) if codec is not None]
    claimed = len(candidates)
    candidates.append("utf-8")
    for position, codec in enumerate(candidates):
        try:
            if wide is None and codec.startswith(_WIDE):  # the bytes are not what was declared, though they may decode
                raise UnicodeError  # noqa: TRY301
            text = payload.decode(codec)
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
    """A field of MSH as text: in the declared codec if it can be, else UTF-8, else windows-1252."""
    for candidate in (codec, "utf-8"):
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
