// Two people talk through Parley. One of them is cut off in the middle of it, comes back, and has
// missed nothing. Only public means are used: REST, and the official socket.io-client.
//
//   PARLEY_URL=http://127.0.0.1:8000 node demo.mjs
//
// In a cluster, PARLEY_URL_ADA and PARLEY_URL_BEN may lead them to different nodes, and with
// PARLEY_NODE_OF_BEN, a process id, it is Ben's node that dies instead of his network.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { io } from "socket.io-client";

const url = (process.env.PARLEY_URL ?? "http://127.0.0.1:8000").replace(/\/+$/, "");
const nodeOfBen = Number(process.env.PARLEY_NODE_OF_BEN ?? 0);
const started = performance.now();

const style = process.stdout.isTTY ? (code, text) => `\x1b[${code}m${text}\x1b[0m` : (_, text) => text;
const dim = (text) => style(2, text);
const bold = (text) => style(1, text);
const clock = () => dim(`${((performance.now() - started) / 1000).toFixed(2).padStart(5)}s`);
const say = (mark, text) => console.log(`${clock()}  ${mark}  ${text}`);
const heading = (text) => console.log(`\n${bold(text)}`);

function ensure(condition, complaint) {
  if (!condition) throw new Error(complaint);
}

async function rest(method, path, { token, body } = {}) {
  const response = await fetch(`${url}/api/v1${path}`, {
    method,
    headers: {
      ...(body && { "Content-Type": "application/json" }),
      ...(token && { Authorization: `Bearer ${token}` }),
    },
    body: body && JSON.stringify(body),
  });
  const answer = await response.json();
  ensure(response.ok, `${method} ${path}: ${response.status} ${answer.detail ?? answer.code ?? ""}`);
  return answer;
}

// Somebody with an account, a connection, and a memory of all that came over it.
class Person {
  streams = {}; // where this client stands: {<stream>: {epoch, seq}}
  events = []; // every durable event, in the order of arrival
  waiting = new Set();
  typed = 0;

  constructor(name, names) {
    this.name = name;
    this.names = names;
  }

  async register() {
    const email = `${this.name.toLowerCase()}.${randomUUID().slice(0, 8)}@example.com`;
    const password = `${randomUUID()}-Aa1`;
    const answer = await rest("POST", "/auth/register", { body: { email, password, name: this.name } });
    this.token = answer.access_token;
    this.id = answer.user.id;
    this.names.set(this.id, this.name);
    say("+", `${bold(this.name)} registers as ${email}`);
  }

  async connect() {
    const own = process.env[`PARLEY_URL_${this.name.toUpperCase()}`] ?? url;
    this.socket = io(`${own}/messages`, {
      forceNew: true,
      reconnectionDelay: 1500,
      randomizationFactor: 0,
      withCredentials: true, // a balancer knows by a cookie which node has the session
      // Asked before each attempt: after the first connection it says where this client stands.
      auth: (give) => give({ token: this.token, ...(this.known && { resume: this.streams }) }),
    });
    this.socket.onAny((name, data) => this.receive(name, data));
    this.socket.on("disconnect", () => (this.greeted = false));
    this.socket.on("connect_error", (error) => {
      if (!this.socket.active) this.fail(new Error(`${this.name} is refused: ${error.message}`));
    });
    await this.until(() => this.greeted, "the server's greeting");
    if (this.socket.io.engine.transport.name !== "websocket") {
      await new Promise((done) => this.socket.io.engine.once("upgrade", done));
    }
    say("+", `${bold(this.name)} is connected by ${this.socket.io.engine.transport.name}`);
  }

  receive(name, data) {
    if (name === "ready") {
      this.greeted = true;
      this.known = true;
      for (const [stream, { epoch, seq, recovered }] of Object.entries(data.streams)) {
        if (recovered === false) this.fail(new Error(`${stream} could not be resumed`));
        this.streams[stream] = { epoch, seq };
      }
    } else if (data?.stream && data.seq) {
      this.events.push(data);
      this.streams[data.stream] = { epoch: data.epoch, seq: data.seq };
      if (name === "message.created") this.onMessage(data);
    } else if (name === "receipt.updated") {
      this.onReceipt?.(data.data);
    }
    this.check();
  }

  onMessage(event) {
    const { sender, body, conversation, seq } = event.data;
    const author = this.names.get(sender);
    if (sender === this.id) return;
    const mark = this.comingBack ? "↻" : " ";
    setTimeout(() => {
      say(mark, `  ${dim(`${this.name} reads`)} #${seq} ${author}: ${body}`);
      this.socket.emit("message.read", { conversation, seq }, () => {});
    }, 40);
  }

  // Sends a command until it is answered. A command that creates something carries a client_id,
  // so that the answer to a repetition is the first result and nothing is made twice.
  async call(command, data) {
    for (;;) {
      try {
        const answer = await this.socket.timeout(5000).emitWithAck(command, data);
        if (answer.ok) return answer.data;
        ensure(answer.error.code === "unavailable", `${command}: ${answer.error.message}`);
        await sleep(500);
      } catch (error) {
        if (!/timed out|disconnected/.test(error.message)) throw error;
        say("↻", `${this.name} has no answer to ${command} and sends it again`);
      }
    }
  }

  async write(conversation, body) {
    const message = await this.call("message.send", {
      conversation,
      body,
      client_id: `${this.id}-${++this.typed}`,
    });
    say("✓", `${bold(this.name)} #${message.seq}: ${body}`);
    await sleep(150); // time to read it
    return message;
  }

  // What a dead network does: the TCP connection is gone, nobody says goodbye.
  cut() {
    const { engine } = this.socket.io;
    if (engine.transport.ws) engine.transport.ws.terminate();
    else engine.close();
  }

  until(condition, what, seconds = 15) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => entry.reject(new Error(`${this.name} waited in vain for ${what}`)), seconds * 1000);
      const settle = (end) => (value) => {
        clearTimeout(timer);
        this.waiting.delete(entry);
        end(value);
      };
      const entry = { condition, resolve: settle(resolve), reject: settle(reject) };
      this.waiting.add(entry);
      this.check();
    });
  }

  check() {
    for (const entry of this.waiting) {
      if (this.failure) entry.reject(this.failure);
      else if (entry.condition()) entry.resolve();
    }
  }

  fail(error) {
    this.failure = error;
    this.check();
  }
}

async function main() {
  const names = new Map();
  const ada = new Person("Ada", names);
  const ben = new Person("Ben", names);

  heading(`Two people meet at ${url}`);
  await ada.register();
  await ben.register();
  await Promise.all([ada.connect(), ben.connect()]);
  const { id } = await ada.call("conversation.create", {
    kind: "direct",
    members: [ben.id],
    client_id: randomUUID(),
  });
  const stream = `messages/${id}`;
  const seqs = (person) => person.events.filter((event) => event.stream === stream).map((event) => event.seq);
  await Promise.all([ada, ben].map((person) => person.until(() => seqs(person).length, "the conversation")));
  say("+", `${bold("Ada")} opens a conversation with ${bold("Ben")}`);
  let seen = 0;
  ada.onReceipt = ({ conversation, user, read_seq }) => {
    if (conversation !== id || user !== ben.id || read_seq <= seen) return;
    seen = read_seq;
    say("✓✓", `${dim(`Ada sees that Ben has read up to #${read_seq}`)}`);
  };

  heading("They talk");
  await ada.write(id, "Hi Ben, is the release out?");
  await ben.write(id, "Almost. The last tests are running.");
  const hurry = await ada.write(id, "Good. I will wait for your word.");
  await ben.until(() => seqs(ben).includes(hurry.seq), "Ada's message");

  heading(`Ben's ${nodeOfBen ? "node is killed (kill -9)" : "network dies"}, in the middle of a sentence`);
  const offline = new Promise((done) => ben.socket.once("disconnect", done));
  const unanswered = ben.write(id, "They are green! Shipping it n…");
  ben.comingBack = true;
  if (nodeOfBen) process.kill(nodeOfBen, "SIGKILL");
  else ben.cut();
  say("✂", `${bold("Ben")} is cut off: ${await offline}`);
  const before = seqs(ben).length;
  for (const body of ["Ben?", "You were saying?", "I will just write on: it keeps."]) {
    await ada.write(id, body);
  }

  heading("Ben comes back and says where he stood");
  await ada.write(id, "The whole team is listening.");
  await ben.until(() => ben.greeted, "the connection", 30);
  await unanswered;
  ben.comingBack = false;
  const last = await ben.write(id, "Sorry, a tunnel. What did I miss? Ah, it is all here.");
  await Promise.all([ada, ben].map((person) => person.until(() => seqs(person).includes(last.seq), "the end")));
  await ada.write(id, "Welcome back.");
  await ben.until(() => seqs(ben).length === seqs(ada).length, "the last message");

  heading("The history, over REST");
  const { items } = await rest("GET", `/conversations/${id}/messages?limit=200`, { token: ben.token });
  for (const { seq, sender, body } of items) say(" ", `#${seq} ${names.get(sender)}: ${body}`);

  heading("What Ben had live, against the history");
  const live = ben.events.filter((event) => event.stream === stream);
  const expected = Array.from({ length: live.length }, (_, index) => live[0].seq + index);
  ensure(seqs(ben).join() === expected.join(), `Ben saw ${seqs(ben)}, not each seq once and in order`);
  ensure(seqs(ada).join() === seqs(ben).join(), `Ada saw ${seqs(ada)}, Ben saw ${seqs(ben)}`);
  const bodies = (list) => list.map(({ seq, body }) => `#${seq} ${body}`).join("\n");
  const messages = live.filter((event) => event.type === "message.created").map((event) => event.data);
  ensure(bodies(messages) === bodies(items), "the history differs from what Ben saw");
  const missed = live.length - before;
  say("✓", `${items.length} of ${items.length} messages, each once and in order: nothing was missed`);
  say("✓", `${missed} events since the cut; the unanswered message is there once`);
  ada.socket.disconnect();
  ben.socket.disconnect();
}

main().catch((error) => {
  const reason = error.cause?.code === "ECONNREFUSED" ? `nothing listens at ${url}; start it with: make run` : error.message;
  console.error(`\n✗  ${reason}`);
  process.exit(1);
});
