// The official client, led by a Python test: requests as JSON lines on stdin, answers and events
// as JSON lines on stdout. See tests/support/node.py.
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

let manager;
const tokens = new Map();
const sockets = new Map();
const streams = new Map();

function track(namespace, name, data) {
  const heads = streams.get(namespace);
  if (name === "ready") {
    for (const [stream, { epoch, seq }] of Object.entries(data?.streams ?? {})) heads[stream] = { epoch, seq };
  } else if (data?.stream && data?.seq) {
    heads[data.stream] = { epoch: data.epoch, seq: data.seq };
  }
}

const operations = {
  // Connects a namespace; answers once it is connected or refused.
  connect({ url, namespace, token, resume, options }) {
    const heads = { ...resume };
    streams.set(namespace, heads);
    tokens.set(namespace, token);
    let connectedBefore = resume != null;
    const socket = io(url + namespace, {
      reconnectionDelay: 100,
      reconnectionDelayMax: 500,
      ...options,
      auth: (give) => {
        const token = tokens.get(namespace);
        give(connectedBefore ? { token, resume: heads } : { token });
      },
    });
    sockets.set(namespace, socket);
    manager = socket.io;
    socket.onAny((name, ...args) => {
      track(namespace, name, args[0]);
      say({ namespace, event: name, args });
    });
    socket.on("disconnect", (reason) => say({ namespace, state: "disconnected", reason }));
    return new Promise((resolve) => {
      socket.on("connect", () => {
        connectedBefore = true;
        say({ namespace, state: "connected", sid: socket.id });
        resolve({ ok: true, sid: socket.id });
      });
      socket.on("connect_error", (error) => {
        say({ namespace, state: "refused", message: error.message, data: error.data });
        resolve({ ok: false, message: error.message, data: error.data });
      });
    });
  },
  // Sends a command; answers its ack as it came.
  async request({ namespace, command, data, timeout }) {
    const socket = sockets.get(namespace);
    return { ok: true, ack: await socket.timeout(timeout).emitWithAck(command, data) };
  },
  // Sends an event that nobody answers.
  emit({ namespace, event, data }) {
    sockets.get(namespace).emit(event, data);
    return { ok: true };
  },
  // What to show from now on when it connects again.
  token({ namespace, token }) {
    tokens.set(namespace, token);
    return { ok: true };
  },
  // Breaks the transport under the client; it reconnects by itself.
  cut() {
    manager.engine.close();
    return { ok: true };
  },
  transport() {
    return { ok: true, name: manager.engine.transport.name };
  },
  close({ namespace }) {
    sockets.get(namespace).disconnect();
    return { ok: true };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...args } = JSON.parse(line);
  Promise.resolve()
    .then(() => operations[op](args))
    .then((result) => say({ id, ...result }))
    .catch((error) => say({ id, ok: false, message: String(error) }));
}
for (const socket of sockets.values()) socket.disconnect();
