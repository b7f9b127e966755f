"""Where only websocket is served, as by several workers: what the official client is told, and how
it comes in.
"""

import json

from tests.integration.transport.reference import serve
from tests.support.node import node, run_to_end

PROGRAM = """
import { io } from "socket.io-client";
const [url, options] = [process.env.URL, JSON.parse(process.env.OPTIONS)];
const socket = io(url, { reconnection: false, forceNew: true, ...options });
const end = (told) => { console.log(JSON.stringify(told)); process.exit(0); };
socket.on("connect", () => end({ transport: socket.io.engine.transport.name }));
socket.on("connect_error", (error) => end({
  message: error.message,
  told: JSON.parse(error.context.responseText),
}));
"""


async def told(options: dict[str, object]) -> object:
    async with serve(polling=False, ping_interval=20.0) as server:
        output = await run_to_end(
            *(node(), "--input-type=module", "-"),
            environment={"URL": server.url, "OPTIONS": json.dumps(options)},
            source=PROGRAM,
        )
    return json.loads(output)


async def test_a_client_that_polls_is_told_why_it_may_not() -> None:
    assert await told({}) == {
        "message": "xhr poll error",
        "told": {
            "code": 0,
            "message": "Transport unknown: only websocket is served here; "
            'transports: ["websocket"]',
        },
    }


async def test_a_client_that_tries_all_transports_comes_in() -> None:
    assert await told({"tryAllTransports": True}) == {"transport": "websocket"}


async def test_a_client_that_begins_with_websocket_comes_in() -> None:
    assert await told({"transports": ["websocket"]}) == {"transport": "websocket"}
