"""Words of the dialect: parts of dates, types, functions, aggregates, and those that are no names."""

from __future__ import annotations

from typing import Final

DATE_PARTS: Final = frozenset({"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"})
EXTRACTED: Final = DATE_PARTS | {"TIMEZONE_HOUR", "TIMEZONE_MINUTE"}

TYPES: Final = {
    "BOOL": "BOOL",
    "BOOLEAN": "BOOL",
    "INT": "INT",
    "INTEGER": "INT",
    "BIGINT": "INT",
    "SMALLINT": "INT",
    "STRING": "STRING",
    "VARCHAR": "STRING",
    "CHAR": "STRING",
    "CHARACTER": "STRING",
    "FLOAT": "FLOAT",
    "DOUBLE": "FLOAT",
    "REAL": "FLOAT",
    "DECIMAL": "DECIMAL",
    "NUMERIC": "DECIMAL",
    "TIMESTAMP": "TIMESTAMP",
}

# Function: how many arguments it takes.
FUNCTIONS: Final = {
    "COALESCE": (1, 1000),
    "NULLIF": (2, 2),
    "CHAR_LENGTH": (1, 1),
    "LOWER": (1, 1),
    "UPPER": (1, 1),
    "TO_STRING": (1, 2),
    "TO_TIMESTAMP": (1, 1),
    "UTCNOW": (0, 0),
}
SYNONYMS: Final = {"CHARACTER_LENGTH": "CHAR_LENGTH"}
AGGREGATES: Final = frozenset({"AVG", "COUNT", "MAX", "MIN", "SUM"})

# Words that no name is unless it stands in quotes.
RESERVED: Final = frozenset(
    {"SELECT", "FROM", "WHERE", "LIMIT", "AS", "AND", "OR", "NOT", "IN", "IS", "NULL", "MISSING"}
    | {"LIKE", "ESCAPE", "BETWEEN", "CASE", "WHEN", "THEN", "ELSE", "END", "CAST", "TRUE", "FALSE"}
    | {"GROUP", "ORDER", "HAVING", "UNION", "JOIN", "INNER", "CROSS", "DISTINCT", "INTERSECT"}
    | {"EXCEPT", "OFFSET", "ON"}
)
