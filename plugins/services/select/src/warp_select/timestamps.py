"""Functions on timestamps as SQL; `x` is the name of a variable that holds one (see `prelude`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from warp_select.errors import refused

PATTERN_MAX: Final = 256
"""Characters of a format; each may become some hundred of SQL."""

# Precision that a part has, as `prelude` counts.
_PRECISION: Final = {"year": 1, "month": 2, "day": 3, "hour": 4, "minute": 4, "second": 5}

# Symbols of TO_STRING, source: "TO_STRING" in the SQL reference for Amazon S3 Select.
_SYMBOLS: Final = {
    "yy": "strftime({l}, '%y')",
    "y": "CAST(year({l}) AS VARCHAR)",
    "yyyy": "lpad(CAST(year({l}) AS VARCHAR), 4, '0')",
    "M": "CAST(month({l}) AS VARCHAR)",
    "MM": "strftime({l}, '%m')",
    "MMM": "strftime({l}, '%b')",
    "MMMM": "strftime({l}, '%B')",
    "MMMMM": "left(strftime({l}, '%b'), 1)",
    "d": "CAST(day({l}) AS VARCHAR)",
    "dd": "strftime({l}, '%d')",
    "a": "strftime({l}, '%p')",
    "h": "CAST((hour({l}) + 11) % 12 + 1 AS VARCHAR)",
    "hh": "strftime({l}, '%I')",
    "H": "CAST(hour({l}) AS VARCHAR)",
    "HH": "strftime({l}, '%H')",
    "m": "CAST(minute({l}) AS VARCHAR)",
    "mm": "strftime({l}, '%M')",
    "s": "CAST(second({l}) AS VARCHAR)",
    "ss": "strftime({l}, '%S')",
    "n": "CAST(CAST(strftime({l}, '%f') AS BIGINT) * 1000 AS VARCHAR)",
    "X": "CASE WHEN {x}.o = 0 THEN 'Z' ELSE left(ws_zone({x}.o, ''), 3) END",
    "XX": "CASE WHEN {x}.o = 0 THEN 'Z' ELSE ws_zone({x}.o, '') END",
    "XXX": "ws_zone_z({x}.o)",
    "x": "left(ws_zone({x}.o, ''), 3)",
    "xx": "ws_zone({x}.o, '')",
    "xxx": "ws_zone({x}.o, ':')",
}
_SYMBOLS_ALSO: Final = {"XXXX": "XX", "XXXXX": "XXX", "xxxx": "xx", "xxxxx": "xxx"}
_PIECE: Final = re.compile(
    r"'(?P<quoted>(?:[^']|'')*)'|(?P<symbol>([A-Za-z])\3*)|(?P<other>[^A-Za-z']+)"
)


def formatted(pattern: str, literal: Callable[[str], str]) -> str:
    """Return SQL for a timestamp in a format; `{x}` stands for the timestamp, `literal` makes SQL of a text.

    Raises:
        QueryRefused: The format has a symbol that there is not, or a quote that does not end.
    """
    if len(pattern) > PATTERN_MAX:
        raise refused("EvaluatorInvalidTimestampFormatPattern", "too long")
    pieces, at = ["''"], 0
    while at < len(pattern):
        match = _PIECE.match(pattern, at)
        if match is None:
            raise refused("EvaluatorInvalidTimestampFormatPattern", "a quote does not end")
        at = match.end()
        symbol = match["symbol"]
        if symbol is None:
            text = match["other"] or (match["quoted"] or "").replace("''", "'") or "'"
            pieces.append(literal(text))
        elif set(symbol) == {"S"} and len(symbol) <= 9:
            pieces.append(f"left(strftime({{l}}, '%f') || '000', {len(symbol)})")
        else:
            found = _SYMBOLS.get(_SYMBOLS_ALSO.get(symbol, symbol))
            if found is None:
                raise refused("EvaluatorInvalidTimestampFormatPatternSymbol", symbol[:20])
            pieces.append(f"({found})")
    return "(" + " || ".join(pieces).replace("{l}", "ws_local({x})") + ")"


def extracted(part: str, x: str) -> str:
    """Return SQL for a part, as clocks show it in the timestamp's zone."""
    match part:
        case "timezone_hour":
            return f"CAST(sign({x}.o) * (abs({x}.o) // 60) AS BIGINT)"
        case "timezone_minute":
            return f"CAST(sign({x}.o) * (abs({x}.o) % 60) AS BIGINT)"
    return f"CAST({part}(ws_local({x})) AS BIGINT)"


def moved(part: str, count: str, x: str) -> str:
    """Return SQL for a timestamp that many parts later; it is at least as precise as the part."""
    return (
        f"ws_moved({x}, ws_local({x}) + to_{part}s({_argument(part, count)}), {_PRECISION[part]})"
    )


def _argument(part: str, count: str) -> str:
    return f"CAST({count} AS INTEGER)" if part in {"year", "month", "day"} else count


def between(part: str, a: str, b: str) -> str:
    """Return SQL for how many whole parts lie between two timestamps."""
    return f"CAST(date_sub('{part}', ({a}).t, ({b}).t) AS BIGINT)"
