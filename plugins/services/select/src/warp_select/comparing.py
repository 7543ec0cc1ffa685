"""Comparisons as SQL, where the types of what is compared are known only row by row."""

from __future__ import annotations

from typing import Final, Literal

from warp_select.sql import Sql

MIRRORED: Final = {"=": "=", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
Comparison = Literal["=", "!=", "<", "<=", ">", ">="]


def json_with_json(operator: str, a: str, b: str) -> str:
    """Compare two values of JSON: numbers as numbers, others of one type as texts; of two types they differ."""
    other = (
        f"ws_known({a}) IS NOT NULL AND ws_known({b}) IS NOT NULL" if operator == "!=" else "false"
    )
    return (
        f"CASE WHEN ws_known({a}) IS NULL OR ws_known({b}) IS NULL THEN NULL "
        f"WHEN ws_int({a}) IS NOT NULL AND ws_int({b}) IS NOT NULL THEN ws_int({a}) {operator} ws_int({b}) "
        f"WHEN ws_num({a}) IS NOT NULL AND ws_num({b}) IS NOT NULL THEN ws_num({a}) {operator} ws_num({b}) "
        f"WHEN json_type({a}) = json_type({b}) THEN ws_plain({a}) {operator} ws_plain({b}) ELSE {other} END"
    )


def json_with_known(operator: str, a: str, b: str, right: Sql) -> str:
    """Compare a value of JSON with one of a known type; of another type it differs."""
    match right.kind:
        case "TEXT":
            found = f"ws_text({a}) {operator} {b}"
        case "BOOL":
            found = f"ws_bool({a}) {operator} {b}"
        case "TIME":
            return f"(ws_timestamp(ws_text({a}))).t {operator} ({b}).t"
        case "INT":
            found = f"coalesce(ws_int({a}) {operator} {b}, ws_num({a}) {operator} {b})"
        case _:
            found = f"ws_num({a}) {operator} {b}"
    if operator != "!=":
        return found
    return (
        f"coalesce({found}, CASE WHEN ws_known({a}) IS NOT NULL AND {b} IS NOT NULL THEN true END)"
    )


def text_with_number(operator: str, a: str, right: Sql) -> str:
    """Compare a text, as CSV has nothing else, with a number: as numbers if it is one, else it differs."""
    found = f"TRY_CAST({a} AS DOUBLE) {operator} {right.text}"
    if right.kind != "FLOAT":
        found = f"coalesce(TRY_CAST({a} AS DECIMAL(38,10)) {operator} {right.text}, {found})"
    if operator != "!=":
        return found
    return (
        f"coalesce({found}, CASE WHEN {a} IS NOT NULL AND {right.text} IS NOT NULL THEN true END)"
    )
