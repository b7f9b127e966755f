"""Random appends, retries, guards and trims against a model."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.engine import Append, StoreError
from tests.support.store_model import STREAMS, Model, appends, at_once, crowds, outcome
from tests.support.stores import OTHER, Stores

LONG_AGO = "2000-01-01T00:00:00.000Z"

steps = st.lists(
    st.one_of(appends(), appends(), appends(), st.integers(0, 4), st.just("restart")),
    min_size=1,
    max_size=25,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
async def test_the_engine_does_what_the_model_does(stores: Stores, steps: list[object]) -> None:
    await stores.clear()
    engine = await stores.start()
    model = Model()
    for step in steps:
        if isinstance(step, Append):
            try:
                result: object = await engine.append(step)
            except StoreError as error:
                result = error
            assert outcome(result) == model.append(step)
        elif isinstance(step, int):
            assert await engine.trim(keep=step, before=LONG_AGO) == model.trim(step)
        else:
            engine = await stores.restart(engine)
    await model.check(engine)
    engine = await stores.restart(engine)
    await model.check(engine)
    assert await engine.heads(OTHER, STREAMS) == {}


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(turns=st.lists(crowds(12), min_size=1, max_size=4))
async def test_what_is_asked_at_once_happens_one_after_the_other(
    stores: Stores, turns: list[list[Append]]
) -> None:
    await stores.clear()
    engine = await stores.start()
    model = Model()
    for crowd in turns:
        await at_once(engine, model, crowd)
    engine = await stores.restart(engine)
    await model.check(engine)
