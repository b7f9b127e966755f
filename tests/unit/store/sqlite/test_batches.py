"""Group commit: a batch does what its operations would have done one after the other."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.engine import Append
from tests.support.store_model import Model, appends, outcome
from tests.support.stores import gathered
from tests.unit.store.conftest import SqliteStores
from tests.unit.store.sqlite.test_outage import locked


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches=st.lists(st.lists(appends(), min_size=1, max_size=25), min_size=1, max_size=3))
async def test_a_batch_does_what_its_appends_do(
    sqlite: SqliteStores, batches: list[list[Append]]
) -> None:
    await sqlite.clear()
    engine = await sqlite.engine(busy_timeout=20)
    model = Model()
    for batch in batches:
        with locked(sqlite.path):  # so that all of them queue up
            running = asyncio.gather(*(gathered(engine.append(append)) for append in batch))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        results = [result for (result,) in await running]
        assert [outcome(result) for result in results] == [model.append(each) for each in batch]
    await model.check(engine)
    await model.check(await sqlite.restart(engine))
