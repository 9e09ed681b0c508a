"""How an engine carries out the statements of a call: what it would read whole, or sort."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from sqlalchemy import event

from metalmark.store import Connection

Call: TypeAlias = Callable[[Connection], Awaitable[object]]


@contextmanager
def caught(connection: Connection) -> Iterator[list[tuple[str, Any]]]:
    statements: list[tuple[str, Any]] = []
    engine = connection.engine.sync_engine

    def remember(
        _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, executemany: bool
    ) -> None:
        if not statement.startswith(("EXPLAIN", "SET", "PRAGMA", "BEGIN", "SAVEPOINT", "RELEASE")):
            statements.append((statement, parameters[0] if executemany else parameters))

    event.listen(engine, "before_cursor_execute", remember)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", remember)


async def faults_on_sqlite(connection: Connection, statement: str, parameters: Any, *, sorts: bool) -> list[str]:
    rows = (await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)).all()
    steps = [str(row[3]) for row in rows]
    scans = [step for step in steps if step.startswith("SCAN") and " USING " not in step and "SUBQUERY" not in step]
    # Rows made by the statement itself, as a common table expression or a subquery, have no index.
    made = re.findall(r"(\w+)\s*(?:\([^()]*\)\s*)?\s+AS\s+(?:NOT\s+)?(?:MATERIALIZED\s+)?\(", statement)
    made += re.findall(r"\)\s+AS\s+(\w+)", statement)
    found = [step for step in scans if not step.startswith(("SCAN (", "SCAN CONSTANT", "SCAN anon"))]
    found = [step for step in found if not set(re.findall(r"AS (\w+)", step) + step.split()[1:2]) & set(made)]
    return found + ([] if sorts else [step for step in steps if "TEMP B-TREE FOR ORDER BY" in step])


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes_of(inner)


async def faults_on_postgresql(connection: Connection, statement: str, parameters: Any, *, sorts: bool) -> list[str]:
    for setting in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
        await connection.exec_driver_sql(f"SET LOCAL {setting} = off")
    rows = (await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)).scalar_one()
    plan = (rows if isinstance(rows, list) else json.loads(rows))[0]["Plan"]
    bad = {"Seq Scan"} if sorts else {"Seq Scan", "Sort"}
    return [
        f"{node['Node Type']} {node.get('Relation Name', '')}" for node in nodes_of(plan) if node["Node Type"] in bad
    ]


async def faults_of_statement(connection: Connection, statement: str, parameters: Any, *, sorts: bool) -> list[str]:
    """Return what an engine would read whole or sort, were it to carry out a statement."""
    explain = faults_on_sqlite if connection.dialect.name == "sqlite" else faults_on_postgresql
    return await explain(connection, statement, parameters, sorts=sorts)


async def faults_of_call(
    connection: Connection, call: Call, *, sorts: bool = False, counts: bool = True
) -> dict[str, list[str]]:
    """Carry out a call, and return its statements that read tables whole or sort.

    Args:
        connection: A connection.
        call: The call.
        sorts: Whether it may sort.
        counts: Whether it counts by an index too.
    """
    with caught(connection) as statements:
        await call(connection)
    assert statements, "it asked the database nothing"
    found = {}
    for statement, parameters in statements:
        if statement.startswith("SELECT pg_advisory") or (not counts and statement.startswith("SELECT count(*)")):
            continue
        found[statement] = await faults_of_statement(connection, statement, parameters, sorts=sorts)
    return {statement: faults for statement, faults in found.items() if faults}


async def indexes_of_call(connection: Connection, call: Call) -> set[str]:
    """Carry out a call, and return the names of the indexes that it needs."""
    with caught(connection) as statements:
        await call(connection)
    plans = []
    for statement, parameters in statements:
        if connection.dialect.name == "sqlite":
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans += [str(row[3]) for row in rows]
        else:
            await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plans += [str(row[0]) for row in await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]
    return set(re.findall(r"\b(?:ix|pk|uq)_\w+", "\n".join(plans)))
