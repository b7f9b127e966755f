// One of several nodes of Socket.IO on Node.js, with the sharded Redis adapter, as its documentation
// sets it up.
//
//   node server.js PORT REDIS_URL SECRET
//
// Events: join(room), pub(room, payload) -> msg(payload) to the room.
import { createServer } from "node:http";
import { createShardedAdapter } from "@socket.io/redis-adapter";
import jwt from "jsonwebtoken";
import { createClient } from "redis";
import { Server } from "socket.io";

const [port, redis, secret] = process.argv.slice(2);

const publishing = createClient({ url: redis });
const subscribing = publishing.duplicate();
await Promise.all([publishing.connect(), subscribing.connect()]);

const http = createServer();
const io = new Server(http, {
  serveClient: false,
  adapter: createShardedAdapter(publishing, subscribing),
});

const namespace = io.of("/messages");
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
});

process.on("SIGTERM", () => process.exit(0));
http.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
