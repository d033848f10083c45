// The rival of the fan-out and memory benchmarks: a `ws` server. It answers each text frame with
// {"op":"ok"} and, for each "go N" line on stdin, sends the next N lines of the given file to every
// connection, from memory. It waits while a connection has more than 1 MiB unsent.
//   node ws_server.mjs [file [corked]]       prints "listening PORT"
// With `corked` (1 = each message by itself, as everybody writes it) so many messages go to a
// connection in one gathered write, which is the most that can be had of `ws`.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { WebSocketServer } from 'ws';

const kUnsentLimit = 1 << 20;
const kUnsentCheckEvery = 64; // messages

const frames = process.argv[2]
  ? readFileSync(process.argv[2], 'utf8').split('\n').filter(Boolean).map((line) => Buffer.from(line))
  : [];
const corked = Number(process.argv[3] ?? 1);
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
let next = 0;
let wanted = 0;
let running = false;

server.on('listening', () => console.log(`listening ${server.address().port}`));
server.on('connection', (socket) => {
  socket.on('message', () => socket.send('{"op":"ok"}'));
  socket.on('error', () => socket.terminate());
});

function someoneIsFull() {
  for (const socket of server.clients) if (socket.bufferedAmount > kUnsentLimit) return true;
  return false;
}

function send(socket, batch) {
  if (corked === 1) {
    socket.send(batch[0], { binary: false });
    return;
  }
  socket._socket.cork();
  for (const frame of batch) socket.send(frame, { binary: false });
  socket._socket.uncork();
}

function turn() {
  if (next >= wanted) {
    running = false;
    return;
  }
  if (next % kUnsentCheckEvery >= corked || !someoneIsFull()) {
    const batch = frames.slice(next, Math.min(next + corked, wanted));
    next += batch.length;
    for (const socket of server.clients) send(socket, batch);
  }
  setImmediate(turn);
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const match = /^go (\d+)$/.exec(line);
  if (!match) throw new Error(`unknown command: ${line}`);
  wanted = Math.min(frames.length, wanted + Number(match[1]));
  if (!running) {
    running = true;
    setImmediate(turn);
  }
}).on('close', () => process.exit(0));
