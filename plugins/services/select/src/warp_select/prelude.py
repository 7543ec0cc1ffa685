"""Macros that every connection starts with: JSON values and timestamps as the dialect sees them.

A timestamp is a struct of `t` (the instant, UTC), `o` (minutes that its zone is ahead) and `p` (precision: 1 year, 2 month, 3 day,
4 minute, 5 second, 5 + n with n digits of a fraction), because `2007T` stays `2007T`, and 12:00+02:00 stays what it is.
A macro's argument is put in wherever it is named: callers bind what is not cheap to a lambda's variable first.
"""

from __future__ import annotations

from typing import Final

_STRICT: Final = (
    r"\d{4}(T|-\d\d(T|-\d\d(T?|[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?)))"
    r"|\d{8}T\d{6}(\.\d+)?(Z|[+-]\d\d:?\d\d)?"
)
_PARTS: Final = (
    r"^(\d{4})-?(\d\d)?-?(\d\d)?[T ]?(\d\d)?:?(\d\d)?:?(\d\d)?\.?(\d+)?(Z|[+-]\d\d:?\d\d)?$"
)

MACROS: Final = (
    # JSON: its text if it is a string, its number if it is one, as written else.
    """CREATE MACRO ws_text(j) AS CASE WHEN json_type(j) = 'VARCHAR' THEN j->>'$' END""",
    """CREATE MACRO ws_int(j) AS
       CASE WHEN json_type(j) IN ('BIGINT', 'UBIGINT') THEN CAST(j->>'$' AS HUGEINT) END""",
    """CREATE MACRO ws_num(j) AS
       CASE WHEN json_type(j) IN ('BIGINT', 'UBIGINT', 'DOUBLE', 'HUGEINT') THEN CAST(j->>'$' AS DOUBLE) END""",
    """CREATE MACRO ws_bool(j) AS CASE WHEN json_type(j) = 'BOOLEAN' THEN CAST(j->>'$' AS BOOLEAN) END""",
    """CREATE MACRO ws_known(j) AS CASE WHEN json_type(j) = 'NULL' THEN NULL ELSE j END""",
    """CREATE MACRO ws_plain(j) AS CASE json_type(j) WHEN 'NULL' THEN NULL WHEN 'VARCHAR' THEN j->>'$'
       ELSE CAST(j AS VARCHAR) END""",
    """CREATE MACRO ws_pointer(k) AS '/' || replace(replace(k, '~', '~0'), '/', '~1')""",
    # A field in upper or lower case, where no field is called exactly so.
    """CREATE MACRO ws_field(j, k) AS list_transform(
         [list_filter(json_keys(j), lambda n: lower(n) = lower(k))],
         lambda f: CASE WHEN len(f) > 1 THEN error('WS:AmbiguousFieldName:' || k)
                   WHEN len(f) = 1 THEN json_extract(j, ws_pointer(f[1])) END)[1]""",
    # Numbers.
    """CREATE MACRO ws_float_text(x) AS CASE WHEN x = trunc(x) AND abs(x) < 1e15
       THEN CAST(CAST(x AS BIGINT) AS VARCHAR) ELSE CAST(x AS VARCHAR) END""",
    """CREATE MACRO ws_decimal_text(x) AS
       CASE WHEN contains(x, '.') THEN rtrim(rtrim(x, '0'), '.') ELSE x END""",
    """CREATE MACRO ws_to_int(x) AS CASE WHEN x IS NULL THEN NULL
       WHEN regexp_full_match(x, '\\s*[+-]?[0-9]+\\s*') THEN CAST(ltrim(trim(x), '+') AS BIGINT)
       ELSE error('WS:CastFailed:"' || left(x, 100) || '" is no integer') END""",
    # Timestamps.
    f"""CREATE MACRO ws_timestamp(s) AS CASE WHEN s IS NULL THEN NULL
        WHEN NOT regexp_full_match(s, '{_STRICT}') THEN error('WS:ValueParseFailure:"' || left(s, 100) || '" is no timestamp')
        ELSE list_transform([regexp_extract(s, '{_PARTS}', ['y', 'mo', 'd', 'h', 'mi', 's', 'f', 'z'])], lambda g:
          list_transform([CASE WHEN g.z IN ('', 'Z') THEN 0 ELSE
              (CASE WHEN g.z[1] = '-' THEN -1 ELSE 1 END) * (CAST(g.z[2:3] AS INTEGER) * 60 + CAST(right(g.z, 2) AS INTEGER)) END],
            lambda o: struct_pack(
              t := CAST(g.y || '-' || coalesce(nullif(g.mo, ''), '01') || '-' || coalesce(nullif(g.d, ''), '01') || ' '
                || coalesce(nullif(g.h, ''), '00') || ':' || coalesce(nullif(g.mi, ''), '00') || ':'
                || coalesce(nullif(g.s, ''), '00') || '.' || coalesce(nullif(left(g.f, 6), ''), '0') AS TIMESTAMP) - to_minutes(o),
              o := o,
              p := CASE WHEN g.f <> '' THEN 5 + least(len(g.f), 6) WHEN g.s <> '' THEN 5 WHEN g.h <> '' THEN 4
                   WHEN g.d <> '' THEN 3 WHEN g.mo <> '' THEN 2 ELSE 1 END))[1])[1] END""",
    """CREATE MACRO ws_local(x) AS x.t + to_minutes(x.o)""",
    """CREATE MACRO ws_two(n) AS lpad(CAST(n AS VARCHAR), 2, '0')""",
    """CREATE MACRO ws_zone(o, colon) AS (CASE WHEN o < 0 THEN '-' ELSE '+' END)
       || ws_two(abs(o) // 60) || colon || ws_two(abs(o) % 60)""",
    """CREATE MACRO ws_zone_z(o) AS CASE WHEN o = 0 THEN 'Z' ELSE ws_zone(o, ':') END""",
    """CREATE MACRO ws_timestamp_text(x) AS CASE WHEN x IS NULL THEN NULL
       WHEN x.p = 1 THEN strftime(ws_local(x), '%Y') || 'T'
       WHEN x.p = 2 THEN strftime(ws_local(x), '%Y-%m') || 'T'
       WHEN x.p = 3 THEN strftime(ws_local(x), '%Y-%m-%d')
       WHEN x.p = 4 THEN strftime(ws_local(x), '%Y-%m-%dT%H:%M') || ws_zone_z(x.o)
       WHEN x.p = 5 THEN strftime(ws_local(x), '%Y-%m-%dT%H:%M:%S') || ws_zone_z(x.o)
       ELSE left(strftime(ws_local(x), '%Y-%m-%dT%H:%M:%S.%f'), CAST(15 + x.p AS BIGINT)) || ws_zone_z(x.o) END""",
    """CREATE MACRO ws_moved(x, local, p) AS struct_pack(t := local - to_minutes(x.o), o := x.o, p := greatest(x.p, p))""",
    # Fields of CSV.
    """CREATE MACRO ws_quoted(v, q, e) AS q || replace(v, q, e || q) || q""",
    """CREATE MACRO ws_csv(v, fd, rd, q, e) AS
       CASE WHEN contains(v, fd) OR contains(v, rd) OR contains(v, q) THEN ws_quoted(v, q, e) ELSE v END""",
)
