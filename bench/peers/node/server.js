// Socket.IO on Node.js, as its documentation sets it up.
//
//   node --expose-gc server.js PORT DATABASE SECRET
//
// Events: join(room), pub(room, payload), send(room, payload) -> msg(payload) to the room.
// `send` is acknowledged after the payload is committed to SQLite.
import { createServer } from "node:http";
import Database from "better-sqlite3";
import jwt from "jsonwebtoken";
import { Server } from "socket.io";

const [port, database, secret] = process.argv.slice(2);

const db = new Database(database);
db.pragma("journal_mode = WAL");
db.pragma("synchronous = FULL");
db.exec("CREATE TABLE messages (id INTEGER PRIMARY KEY, room TEXT, body TEXT)");
db.exec("CREATE INDEX by_room ON messages (room, id)");
const insert = db.prepare("INSERT INTO messages (room, body) VALUES (?, ?)");
const commit = db.transaction((batch) => {
  for (const { room, body } of batch) insert.run(room, body);
});

// All that arrived in one turn of the event loop share one commit.
let waiting = [];
function store(room, body, stored) {
  if (waiting.length === 0) {
    setImmediate(() => {
      const batch = waiting;
      waiting = [];
      commit(batch);
      for (const entry of batch) entry.stored();
    });
  }
  waiting.push({ room, body, stored });
}

const http = createServer();
const io = new Server(http, { serveClient: false });

for (const name of ["/messages", "/presence", "/reactions"]) {
  const namespace = io.of(name);
  namespace.use((socket, next) => {
    try {
      const claims = jwt.verify(socket.handshake.auth.token, secret, { algorithms: ["HS256"] });
      socket.data.user = claims.sub;
      next();
    } catch {
      next(new Error("unauthenticated"));
    }
  });
  namespace.on("connection", (socket) => {
    socket.on("join", (room, ack) => {
      socket.join(room);
      ack({ ok: true });
    });
    socket.on("pub", (room, payload) => {
      namespace.to(room).emit("msg", payload);
    });
    socket.on("send", (room, payload, ack) => {
      store(room, payload, () => {
        namespace.to(room).emit("msg", payload);
        ack({ ok: true });
      });
    });
  });
}

process.on("SIGUSR2", () => globalThis.gc());
process.on("SIGTERM", () => process.exit(0));
http.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
