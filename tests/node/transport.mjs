// The official client against the transport's reference server, one case per run:
//   node transport.mjs URL CASE
// Prints what it saw as one JSON line; tests/integration/transport/test_official_client.py judges.
import { io } from "socket.io-client";

const [url, name] = process.argv.slice(2);
const binary = Uint8Array.from({ length: 1000 }, (_, i) => i % 256);

function open(transports, namespace = "/") {
  const options = { transports, forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 100 };
  const socket = io(url + namespace, options);
  // Shown when the case fails.
  socket.on("disconnect", (reason, details) => console.error("disconnected:", reason, details));
  return socket;
}

const connected = (socket) =>
  new Promise((resolve, reject) => {
    socket.on("connect", resolve);
    socket.on("connect_error", reject);
  });

const once = (socket, event) => new Promise((resolve) => socket.once(event, (...args) => resolve(args)));

async function burst(socket, count) {
  const answers = [];
  await Promise.all(
    Array.from({ length: count }, async (_, i) => {
      answers.push(await socket.timeout(15000).emitWithAck("message-with-ack", i));
    }),
  );
  return answers;
}

async function binaryBothWays(socket) {
  const back = once(socket, "message-back");
  socket.emit("message", { deep: [binary] }, "text", Buffer.from([1, 2, 3]));
  const [first, text, last] = await back;
  const ack = await socket.timeout(15000).emitWithAck("message-with-ack", binary);
  return {
    equal: Buffer.compare(Buffer.from(first.deep[0]), Buffer.from(binary)) === 0,
    text,
    last: [...last],
    ack: Buffer.compare(Buffer.from(ack), Buffer.from(binary)) === 0,
  };
}

const cases = {
  async polling() {
    const socket = open(["polling"]);
    const auth = once(socket, "auth");
    await connected(socket);
    const result = {
      auth: (await auth)[0],
      answers: await burst(socket, 60),
      binary: await binaryBothWays(socket),
      transport: socket.io.engine.transport.name,
    };
    socket.close();
    return result;
  },
  async websocket() {
    const socket = open(["websocket"]);
    await connected(socket);
    const result = {
      answers: await burst(socket, 60),
      binary: await binaryBothWays(socket),
      transport: socket.io.engine.transport.name,
    };
    socket.close();
    return result;
  },
  async upgrade() {
    const socket = open(["polling", "websocket"]);
    // The engine is there from the start; its upgrade may be done before the namespace is.
    const upgraded = new Promise((resolve) => socket.io.engine.once("upgrade", resolve));
    await connected(socket);
    const first = burst(socket, 60);
    await upgraded;
    const second = burst(socket, 60);
    const result = {
      first: await first,
      second: await second,
      binary: await binaryBothWays(socket),
      transport: socket.io.engine.transport.name,
    };
    socket.close();
    return result;
  },
  async reconnect() {
    const socket = open(["polling", "websocket"]);
    await connected(socket);
    const first = socket.id;
    const disconnected = once(socket, "disconnect");
    const again = new Promise((resolve) => socket.io.once("reconnect", resolve));
    socket.emit("close-me", true);
    const closing = (await once(socket, "closing"))[0];
    const reason = (await disconnected)[0];
    await again;
    if (!socket.connected) await once(socket, "connect");
    const result = { closing, reason, other: socket.id !== first, answers: await burst(socket, 3) };
    socket.close();
    return result;
  },
  async stay_away() {
    const socket = open(["websocket"]);
    await connected(socket);
    const disconnected = once(socket, "disconnect");
    socket.emit("close-me", false);
    const closing = (await once(socket, "closing"))[0];
    const reason = (await disconnected)[0];
    const result = { closing, reason, active: socket.active };
    socket.close();
    return result;
  },
  async namespaces() {
    const options = { transports: ["websocket"] };
    const main = io(url, options);
    const custom = io(url + "/custom", options);
    const refusing = io(url + "/refusing", options);
    const unknown = io(url + "/unknown", options);
    const errors = Promise.all(
      [refusing, unknown].map(
        (socket) =>
          new Promise((resolve) =>
            socket.once("connect_error", (error) => resolve({ message: error.message, data: error.data ?? null })),
          ),
      ),
    );
    await Promise.all([connected(main), connected(custom)]);
    const result = {
      errors: await errors,
      answers: [await burst(main, 2), await burst(custom, 2)],
      shared: main.io === custom.io,
    };
    for (const socket of [main, custom, refusing, unknown]) socket.close();
    return result;
  },
};

console.log(JSON.stringify(await cases[name]()));
