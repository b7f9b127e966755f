"""Traces of two nodes, at a stand-in for a collector: a command from its door to the store and to
the other node; and what a setting says whose packages are missing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import StartServer
from tests.integration.cluster.test_nodes import direct, say
from tests.integration.transport.clients import until
from tests.support.client import connect
from tests.support.mongod import scratch
from tests.support.redis import RedisProcess, require_redis
from tests.support.rest import Api


class Seen(NamedTuple):
    """A span and the node that sent it."""

    node: str
    span: Span


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[Seen]]]:
    """The address of a stand-in, and the spans that come to it."""
    seen: list[Seen] = []

    async def take(request: web.Request) -> web.Response:
        told = ExportTraceServiceRequest()
        told.ParseFromString(await request.read())
        for each in told.resource_spans:
            names = {one.key: one.value.string_value for one in each.resource.attributes}
            assert names["service.name"] == "parley"
            for scope in each.scope_spans:
                seen.extend(Seen(names["service.instance.id"], span) for span in scope.spans)
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


async def test_a_trace_follows_a_command_to_the_last_node(
    mongodb: str, tmp_path: Path, start_server: StartServer
) -> None:
    require_redis()
    with RedisProcess(tmp_path / "redis") as redis, scratch(mongodb) as database:
        async with collector() as (endpoint, seen):
            settings = {
                "SECRET_KEY": "of both nodes " * 3,
                "REDIS_URL": redis.url,
                "STORE_URL": database.url,
                "OTLP_ENDPOINT": endpoint,
            }
            one = await asyncio.to_thread(start_server, **settings)
            other = await asyncio.to_thread(start_server, **settings)
            async with Api(one.url) as api:
                ann, ben = await api.register("Ann"), await api.register("Ben")
                conversation = await direct(ann, ben)
            here = await connect(one.url, "/messages", ann.token)
            there = await connect(other.url, "/messages", ben.token)
            await say(here, conversation, "a secret")
            await there.wait_for("message.created")
            await here.call("typing.start", {"conversation": conversation})
            await there.wait_for("typing.changed", lambda event: event["data"]["typing"])
            await here.close()
            await there.close()
            # What is left is sent before the end.
            await asyncio.to_thread(one.stop)
            await asyncio.to_thread(other.stop)
    command = next(each for each in seen if each.span.name == "message.send")
    assert command.span.kind == Span.SPAN_KIND_SERVER
    assert not command.span.parent_span_id
    attributes = {one.key: one.value.string_value for one in command.span.attributes}
    assert attributes.items() >= {"parley.door": "socket", "parley.user": ann.id}.items()
    trace = [each for each in seen if each.span.trace_id == command.span.trace_id]
    by_id = {each.span.span_id: each for each in trace}

    def within(each: Seen, ancestor: Seen) -> bool:
        parent = by_id.get(each.span.parent_span_id)
        return parent is not None and (parent is ancestor or within(parent, ancestor))

    appended = next(each for each in trace if each.span.name == "store.append")
    assert within(appended, command)
    stream = f"messages/{conversation}"
    published, received = (
        next(
            each
            for each in trace
            if each.span.name == name
            and any(one.value.string_value == stream for one in each.span.attributes)
        )
        for name in ("publish", "receive")
    )
    assert within(published, command)
    assert by_id[received.span.parent_span_id] is published
    assert received.node != command.node == published.node
    typing = next(each for each in seen if each.span.name == "typing.start")
    assert any(
        each.span.trace_id == typing.span.trace_id and each.node == received.node
        for each in seen
        if each.span.name == "receive"
    )
    assert not any(b"a secret" in each.span.SerializeToString() for each in seen)


async def test_errors_have_their_codes_and_rest_is_traced_too(start_server: StartServer) -> None:
    async with collector() as (endpoint, seen):
        server = await asyncio.to_thread(start_server, OTLP_ENDPOINT=endpoint)
        async with Api(server.url) as api:
            ann = await api.register("Ann")
            (await ann.api.request("GET", "/conversations/none")).expect(404)
        await asyncio.to_thread(server.stop)
        await until(lambda: any(each.span.name == "conversation.get" for each in seen))
    span = next(each.span for each in seen if each.span.name == "conversation.get")
    attributes = {one.key: one.value.string_value for one in span.attributes}
    assert attributes.items() >= {"error.type": "not_found", "parley.door": "rest"}.items()
    assert span.status.code == 0  # it is the caller's error


async def test_of_a_share_of_none_nothing_is_sent(start_server: StartServer) -> None:
    async with collector() as (endpoint, seen):
        server = await asyncio.to_thread(start_server, OTLP_ENDPOINT=endpoint, TRACE_SHARE="0")
        async with Api(server.url) as api:
            await api.register("Ann")
        await asyncio.to_thread(server.stop)
    assert not seen


async def test_a_collector_that_is_away_costs_nobody_anything(start_server: StartServer) -> None:
    server = await asyncio.to_thread(start_server, OTLP_ENDPOINT="http://127.0.0.1:9")
    async with Api(server.url) as api:
        await api.register("Ann")
    assert await asyncio.to_thread(server.stop) == 0
