"""The tables, and every statement on them (`docs/formats/postgres.md`).

```
 head      format, identity, version               of the newest commit; every commit replaces it, so commits form one line
 rows      key → version, value                    what is there now
 past      version, key → was_version, was_value   every change of the last minute, with what it replaced
 commits   version → request                       the same minute's commits, so that none is applied twice
 horizon   version                                 up to which past and commits are forgotten
 leases    name → holder, token, ends
```

A view of version v reads `rows` where they are not younger than v, and else the first change after v in `past`.
"""

from __future__ import annotations

from dataclasses import dataclass

FORMAT = 1
UNFIXED = 2**63 - 1  # asks for the newest


def create(schema: str, identity: str, *, tuned: bool) -> tuple[str, ...]:
    """Return the statements that make an empty store, harmless where it is there.

    Where the server is PostgreSQL itself they are `tuned`: `past`, `commits` and `head` are written and deleted all the time, so they
    are vacuumed by count, not by share.
    """
    schema = quoted(schema)
    churned = (
        ""
        if not tuned
        else (
            "WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000, "
            "autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000)"
        )
    )
    single = (
        ""
        if not tuned
        else (
            "WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)"
        )
    )
    return (
        f"CREATE SCHEMA IF NOT EXISTS {schema}",
        f"""CREATE TABLE IF NOT EXISTS {schema}.head (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            format integer NOT NULL,
            identity text NOT NULL,
            version bigint NOT NULL) {single}""",
        f"""CREATE TABLE IF NOT EXISTS {schema}.horizon (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            version bigint NOT NULL) {single}""",
        f"""CREATE TABLE IF NOT EXISTS {schema}.rows (
            key bytea PRIMARY KEY,
            version bigint NOT NULL,
            value bytea NOT NULL)""",
        f"""CREATE TABLE IF NOT EXISTS {schema}.past (
            version bigint NOT NULL,
            key bytea NOT NULL,
            was_version bigint,
            was_value bytea,
            PRIMARY KEY (version, key)) {churned}""",
        f"""CREATE TABLE IF NOT EXISTS {schema}.commits (
            version bigint PRIMARY KEY,
            request bytea NOT NULL UNIQUE) {churned}""",
        f"""CREATE TABLE IF NOT EXISTS {schema}.leases (
            name text PRIMARY KEY,
            holder text NOT NULL,
            token bigint NOT NULL,
            ends timestamptz NOT NULL)""",
        f"INSERT INTO {schema}.horizon (version) VALUES (0) ON CONFLICT DO NOTHING",
        f"INSERT INTO {schema}.head (format, identity, version) VALUES ({FORMAT}, '{identity}', 0) "
        "ON CONFLICT DO NOTHING",
    )


@dataclass(frozen=True, slots=True)
class Statements:
    """Every statement, with the names of one schema in it."""

    exists: str
    format: str
    gets: str
    scan: str
    scan_back: str
    changes: str
    values: str
    judge: str
    apply: str
    fence: str
    applied: str
    extent: str
    prune: str
    grant: str
    holder: str
    renew: str
    release: str


def quoted(schema: str) -> str:
    """Return a schema's name as statements have it: it may be one of SQL's words."""
    return f'"{schema}"'


def channel(schema: str) -> str:
    """Return the name under which commits are told of."""
    return f"warp_{schema}"


def statements(schema: str, *, notify: bool) -> Statements:
    """Return the statements on a schema; with `notify`, a commit tells those that listen."""
    told, schema = channel(schema), quoted(schema)
    return Statements(
        exists=f"SELECT to_regclass('{schema}.head') IS NOT NULL",
        format=f"SELECT format, version, identity FROM {schema}.head",
        # $1 keys, $2 versions of their views. Row 0 says which version the newest is, and how much is forgotten.
        gets=f"""
            SELECT 0::bigint, head.version, NULL::bytea, horizon.version FROM {schema}.head, {schema}.horizon
            UNION ALL
            SELECT asked.n, found.version, found.value, 0::bigint
            FROM unnest($1::bytea[], $2::bigint[]) WITH ORDINALITY AS asked(key, at, n)
            CROSS JOIN LATERAL (
                SELECT version, value FROM {schema}.rows WHERE key = asked.key AND version <= asked.at
                UNION ALL
                SELECT was_version, was_value FROM {schema}.past
                WHERE version > asked.at AND key = asked.key AND was_version <= asked.at
                LIMIT 1) AS found""",
        scan=_scan(schema, "ASC"),
        scan_back=_scan(schema, "DESC"),
        # $1 since, $2 and $3 the keys' range, $4 rows at most.
        changes=f"""
            SELECT past.version, past.key FROM {schema}.past
            WHERE past.version > $1 AND past.key >= $2 AND past.key < $3
            ORDER BY past.version, past.key LIMIT $4""",
        # $1 since, $2 until, $3 keys: what they were set to in between. Row 0 says how much is forgotten.
        values=f"""
            SELECT NULL::bytea, head.version, NULL::bytea, horizon.version FROM {schema}.head, {schema}.horizon
            UNION ALL
            SELECT key, version, value, 0 FROM {schema}.rows
            WHERE key = ANY($3::bytea[]) AND version > $1 AND version <= $2
            UNION ALL
            SELECT key, was_version, was_value, 0 FROM {schema}.past
            WHERE version > $1 AND was_version > $1 AND was_version <= $2 AND key = ANY($3::bytea[])""",
        # $1 keys to check, $2 keys to merge, $3 requests, $4 to $6 ranges with the versions that they were seen at.
        judge=f"""
            SELECT 0, NULL::bytea, head.version, NULL::bytea FROM {schema}.head
            UNION ALL
            SELECT 1, key, version, NULL FROM {schema}.rows WHERE key = ANY($1::bytea[])
            UNION ALL
            SELECT 2, key, version, value FROM {schema}.rows WHERE key = ANY($2::bytea[])
            UNION ALL
            SELECT 3, request, version, NULL FROM {schema}.commits WHERE request = ANY($3::bytea[])
            UNION ALL
            SELECT 4, NULL, seen.n, NULL
            FROM unnest($4::bytea[], $5::bytea[], $6::bigint[]) WITH ORDINALITY AS seen(low, high, at, n)
            WHERE seen.at < (SELECT version FROM {schema}.horizon) OR EXISTS (
                SELECT 1 FROM {schema}.past
                WHERE past.version > seen.at AND past.key >= seen.low AND past.key < seen.high)""",
        # One statement, hence one transaction: all of it, or nothing where the head is no longer $1.
        apply=f"""
            WITH moved AS (
                UPDATE {schema}.head SET version = $2 WHERE version = $1
                RETURNING version{f", pg_notify('{told}', $2::bigint::text)" if notify else ""}
            ), replaced AS (
                INSERT INTO {schema}.past (version, key, was_version, was_value)
                SELECT first.version, first.key, rows.version, rows.value
                FROM moved CROSS JOIN unnest($3::bytea[], $4::bigint[]) AS first(key, version)
                LEFT JOIN {schema}.rows ON rows.key = first.key
            ), between AS (
                INSERT INTO {schema}.past (version, key, was_version, was_value)
                SELECT later.version, later.key, later.was_version, later.was_value
                FROM moved CROSS JOIN unnest($5::bigint[], $6::bytea[], $7::bigint[], $8::bytea[])
                    AS later(version, key, was_version, was_value)
            ), put AS (
                INSERT INTO {schema}.rows (key, version, value)
                SELECT new.key, new.version, new.value
                FROM moved CROSS JOIN unnest($9::bytea[], $10::bigint[], $11::bytea[]) AS new(key, version, value)
                ON CONFLICT (key) DO UPDATE SET version = excluded.version, value = excluded.value
            ), gone AS (
                DELETE FROM {schema}.rows USING moved WHERE key = ANY($12::bytea[])
            ), noted AS (
                INSERT INTO {schema}.commits (version, request)
                SELECT made.version, made.request
                FROM moved CROSS JOIN unnest($13::bigint[], $14::bytea[]) AS made(version, request)
            )
            SELECT version FROM moved""",
        # After it, no statement that was sent before it and had not arrived can be applied any more.
        fence=f"UPDATE {schema}.head SET version = version + 1 RETURNING version",
        applied=f"SELECT request, version FROM {schema}.commits WHERE request = ANY($1::bytea[])",
        extent=f"SELECT head.version, horizon.version FROM {schema}.head, {schema}.horizon",
        prune=f"""
            WITH moved AS (
                UPDATE {schema}.horizon SET version = $1 WHERE version < $1 RETURNING version
            ), forgotten AS (
                DELETE FROM {schema}.past USING moved WHERE past.version <= $1
            )
            DELETE FROM {schema}.commits USING moved WHERE commits.version <= $1""",
        # A lease that ended stays as a row, for its token.
        grant=f"""
            INSERT INTO {schema}.leases AS held (name, holder, token, ends)
            VALUES ($1, $2, 1, clock_timestamp() + $3 * interval '1 second')
            ON CONFLICT (name) DO UPDATE SET
                holder = excluded.holder, token = held.token + 1,
                ends = clock_timestamp() + $3 * interval '1 second'
            WHERE held.holder = excluded.holder OR held.ends <= clock_timestamp()
            RETURNING token""",
        holder=f"SELECT holder FROM {schema}.leases WHERE name = $1",
        renew=f"""
            UPDATE {schema}.leases SET ends = clock_timestamp() + $3 * interval '1 second'
            WHERE name = $1 AND token = $2 AND ends > clock_timestamp() RETURNING token""",
        release=f"UPDATE {schema}.leases SET ends = to_timestamp(0) WHERE name = $1 AND token = $2",
    )


def _scan(schema: str, order: str) -> str:
    """Return the scan in one direction: $1 start, $2 end, $3 the view's version, $4 rows at most."""
    return f"""
        SELECT NULL::bytea, NULL::bytea, head.version, horizon.version FROM {schema}.head, {schema}.horizon
        UNION ALL
        SELECT * FROM (
            SELECT key, value, version, 0::bigint FROM (
                (SELECT key, value, version FROM {schema}.rows
                 WHERE key >= $1 AND key < $2 AND version <= $3 ORDER BY key {order} LIMIT $4)
                UNION ALL
                SELECT key, was_value, was_version FROM {schema}.past
                WHERE version > $3 AND key >= $1 AND key < $2 AND was_version <= $3
            ) AS both_times ORDER BY key {order} LIMIT $4
        ) AS page"""
