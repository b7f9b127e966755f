"""What finding a user's sessions costs."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from domain.clock import SystemClock
from store.accounts.sessions import COLLECTIONS, SESSIONS, SessionRepository
from store.sqlite import SqliteEngine
from store.sqlite.reads import find
from store.sqlite.tables import Table

NOW = "2026-01-01T00:00:00.000Z"


async def test_a_users_live_sessions_are_found_without_reading_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "parley.db"
    engine = SqliteEngine(path, COLLECTIONS, clock=SystemClock())
    await engine.start()
    await engine.stop()
    asked: list[tuple[Any, Any]] = []

    async def ask(_: str, __: object, where: Any, *, order: Any) -> list[Any]:
        asked.append((where, order))
        return []

    monkeypatch.setattr(engine, "find", ask)
    await SessionRepository(engine).live("org", "ann", NOW)
    ((where, order),) = asked
    db = sqlite3.connect(path)
    try:
        statements: list[str] = []
        db.set_trace_callback(statements.append)
        find(Table(SESSIONS), "org", where, order, None, None)(db)
        db.set_trace_callback(None)
        plan = " / ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statements[0]}"))
    finally:
        db.close()
    assert "(_org=? AND user=? AND revoked_at=? AND expires_at>?)" in plan, plan
