"""Appends to MongoDB that go together, against a model."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.engine import Append
from store.mongo import lines
from tests.support.mongo_stores import MongoStores
from tests.support.store_model import STREAMS, Model, at_once, crowds
from tests.support.stores import appending


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(turns=st.lists(crowds(30, keys=False), min_size=1, max_size=3))
async def test_a_round_does_what_its_appends_do_one_after_the_other(
    mongo: MongoStores, monkeypatch: pytest.MonkeyPatch, turns: list[list[Append]]
) -> None:
    monkeypatch.setattr(lines, "AT_ONCE", 1)  # nearly all of them wait for each other
    await mongo.clear()
    engine = await mongo.start()
    model = Model()
    for stream in STREAMS:
        await at_once(engine, model, [appending(stream)])
    for crowd in turns:
        await at_once(engine, model, crowd)
