"""Values of one type as SQL for another, explicit (CAST) and implied by where they stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from warp_select.errors import refused
from warp_select.sql import Sql

CAST_SCALE: Final = 10
"""Decimal places that CAST(x AS DECIMAL) keeps; 28 digits stay in front of the point."""

NULL_SQL: Final = Sql("NULL", "NULL", atom=True)


class Converter:
    """Converts values. What it binds to variables has names of its own in one query."""

    _variables: int = 0

    def text(self, sql: Sql) -> str:
        """Return SQL for how a value is written; NULL where there is none."""
        match sql.kind:
            case "NULL":
                return "CAST(NULL AS VARCHAR)"
            case "TEXT":
                return sql.text
            case "FLOAT":
                return self._once(sql, lambda x: f"ws_float_text({x})")
            case "DECIMAL" if sql.scale >= CAST_SCALE:
                return self._once(
                    Sql(f"CAST({sql.text} AS VARCHAR)", "TEXT"), lambda x: f"ws_decimal_text({x})"
                )
            case "TIME":
                return self._once(sql, lambda x: f"ws_timestamp_text({x})")
            case "JSON":
                return self._once(sql, lambda x: f"ws_plain({x})")
            case _:
                return f"CAST({sql.text} AS VARCHAR)"

    def _truth(self, sql: Sql) -> Sql:
        match sql.kind:
            case "BOOL":
                return sql
            case "NULL":
                return Sql("CAST(NULL AS BOOLEAN)", "BOOL", atom=True)
            case "TEXT":
                return Sql(f"TRY_CAST({sql.text} AS BOOLEAN)", "BOOL")
            case "JSON":
                return Sql(self._once(sql, lambda x: f"ws_bool({x})"), "BOOL")
            case "INT" | "FLOAT" | "DECIMAL":
                return Sql(f"({sql.text} <> 0)", "BOOL")
        raise refused("IncorrectSqlFunctionArgumentType", "a condition is true or false")

    def _number(self, sql: Sql) -> Sql:
        match sql.kind:
            case "INT" | "FLOAT" | "DECIMAL" | "NULL":
                return sql
            case "TEXT":
                return Sql(f"CAST({sql.text} AS DOUBLE)", "FLOAT")
            case "JSON":
                return Sql(self._once(sql, lambda x: f"ws_num({x})"), "FLOAT")
        raise refused("IncorrectSqlFunctionArgumentType", "arithmetic needs numbers")

    def _string(self, sql: Sql) -> str:
        """Return SQL for a text: of JSON only if it is one, of numbers as they are written."""
        if sql.kind == "JSON":
            return self._once(sql, lambda x: f"ws_text({x})")
        return self.text(sql)

    def _time(self, sql: Sql) -> Sql:
        if sql.kind == "TIME":
            return sql
        if sql.kind == "NULL":
            return Sql("ws_timestamp(CAST(NULL AS VARCHAR))", "TIME")
        if sql.kind not in {"TEXT", "JSON"}:
            raise refused("IncorrectSqlFunctionArgumentType", "a timestamp is needed")
        text = Sql(self._string(sql), "TEXT", atom=sql.atom and sql.kind == "TEXT")
        return Sql(self._once(text, lambda x: f"ws_timestamp({x})"), "TIME")

    def _known(self, sql: Sql) -> Sql:
        """Turn the null of JSON into NULL."""
        if sql.kind != "JSON":
            return sql
        return Sql(self._once(sql, lambda x: f"ws_known({x})"), "JSON")

    def _cast(self, sql: Sql, target: str) -> Sql:
        if sql.kind == "NULL":
            return NULL_SQL
        if target == "STRING":
            return Sql(self.text(sql), "TEXT")
        if target == "TIMESTAMP":
            return self._time(sql)
        if sql.kind == "TIME":
            raise refused("CastFailed", f"a timestamp is no {target}")
        if sql.kind == "JSON":
            return self._cast_json(sql, target)
        match target:
            case "BOOL":
                if sql.kind == "TEXT":
                    return Sql(f"CAST({sql.text} AS BOOLEAN)", "BOOL")
                return self._truth(sql)
            case "INT":
                if sql.kind == "TEXT":
                    return Sql(self._once(sql, lambda x: f"ws_to_int({x})"), "INT")
                if sql.kind in {"FLOAT", "DECIMAL"}:
                    return Sql(f"CAST(trunc({sql.text}) AS BIGINT)", "INT")
                return Sql(f"CAST({sql.text} AS BIGINT)", "INT")
            case "FLOAT":
                return Sql(f"CAST({counted(sql)} AS DOUBLE)", "FLOAT")
        if sql.kind == "DECIMAL":
            return sql
        return Sql(f"CAST({counted(sql)} AS DECIMAL(38,{CAST_SCALE}))", "DECIMAL", scale=CAST_SCALE)

    def _cast_json(self, sql: Sql, target: str) -> Sql:
        text = Sql("", "TEXT", atom=True)
        number = Sql("", "FLOAT", atom=True)

        def cast(x: str) -> str:
            plain = self._cast(text.called(f"ws_plain({x})"), target).text
            if target == "BOOL":
                return f"coalesce(ws_bool({x}), ws_num({x}) <> 0, {plain})"
            if target == "INT":
                trunc = self._cast(number.called(f"ws_num({x})"), target).text
                truth = f"CAST(ws_bool({x}) AS BIGINT)"
                return f"coalesce(CAST(ws_int({x}) AS BIGINT), {trunc}, {truth}, {plain})"
            return plain

        made = self._cast(text.called("''"), target)
        return Sql(self._once(sql, cast), made.kind, scale=made.scale)

    def _once(self, sql: Sql, body: Callable[[str], str]) -> str:
        """Use a value several times and compute it once: what is not cheap is bound to the variable of a lambda."""
        if sql.atom:
            return body(sql.text)
        self._variables += 1
        name = f"v{self._variables}"
        return f"list_transform([{sql.text}], lambda {name}: {body(name)})[1]"


def counted(sql: Sql) -> str:
    """Return SQL that has a number where the value is true or false."""
    return f"CAST({sql.text} AS INTEGER)" if sql.kind == "BOOL" else sql.text
