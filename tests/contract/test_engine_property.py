"""Random appends, retries, guards and trims against a model."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.engine import Append, Appended, StoreError
from tests.support.store_model import STREAMS, Model, appends, outcome
from tests.support.stores import NOTES, OTHER, Stores, gathered

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


@st.composite
def crowds(draw: st.DrawFn) -> list[Append]:
    """Appends of which no stream's has to do with another stream's."""
    return [
        append._replace(
            changes=[each for each in append.changes if each.collection is NOTES],
            redactions=append.redactions if draw(st.integers(0, 9)) == 0 else (),
        )
        for append in draw(st.lists(appends(), min_size=1, max_size=12))
    ]


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(turns=st.lists(crowds(), min_size=1, max_size=4))
async def test_what_is_asked_at_once_happens_one_after_the_other(
    stores: Stores, turns: list[list[Append]]
) -> None:
    await stores.clear()
    engine = await stores.start()
    model = Model()
    for crowd in turns:
        done = await gathered(*map(engine.append, crowd))
        assert all(isinstance(each, Appended | StoreError) for each in done)
        happened = [
            (each.seq, append, each)
            for append, each in zip(crowd, done, strict=True)
            if isinstance(each, Appended) and not each.replayed
        ]
        for _, append, each in sorted(happened, key=lambda one: one[0]):
            assert outcome(each) == model.append(append)
        for append, each in zip(crowd, done, strict=True):
            if isinstance(each, Appended) and each.replayed:
                assert outcome(each) == model.append(append)
        await model.check(engine)
    engine = await stores.restart(engine)
    await model.check(engine)
