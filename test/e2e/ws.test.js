// The notifier and Node's `ws`, the client most programs use.
import assert from 'node:assert/strict';
import {after, before, test} from 'node:test';
import WebSocket from 'ws';
import {kDeadlineMs, Stage} from './stage.js';

let stage;
before(async () => {
  stage = await Stage.start();
});
after(async () => {
  await stage?.end();
});

// A connection whose frames are taken one by one, in order.
class Client {
  frames = [];
  #wake = () => {};
  #ids = 0;

  static async open(query, options) {
    const client = new Client();
    client.socket = new WebSocket(stage.url(query), 'herald.v1', options);
    client.socket.on('message', (data, binary) => {
      assert.equal(binary, false);
      client.frames.push(String(data));
      client.#wake();
    });
    client.closed = new Promise(resolve =>
      client.socket.on('close', (code, reason) => {
        resolve({code, reason: String(reason)});
        client.#wake();
      }),
    );
    await new Promise((resolve, reject) =>
      client.socket.once('open', resolve).once('error', reject),
    );
    return client;
  }

  write(frame) {
    this.socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  // The next frame's text; null once the connection has ended and everything is read.
  async raw() {
    while (!this.frames.length) {
      if (this.socket.readyState === WebSocket.CLOSED) return null;
      await new Promise((resolve, reject) => {
        const timer = setTimeout(
          () => reject(new Error(`no frame within ${kDeadlineMs} ms`)),
          kDeadlineMs,
        );
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.frames.shift();
  }

  async next() {
    return JSON.parse(await this.raw());
  }

  async ask(frame) {
    const id = `id ${++this.#ids}`;
    this.write({...frame, id});
    const kept = [];
    for (;;) {
      const text = await this.raw();
      if (JSON.parse(text).id === id) {
        this.frames.unshift(...kept);
        return JSON.parse(text);
      }
      kept.push(text);
    }
  }

  async end() {
    this.socket.close(1000);
    return this.closed;
  }
}

test('subscribe, hear, send, unsubscribe', async () => {
  const topic = stage.topic();
  const client = await Client.open('?user=anna&agent=a%3A1');
  assert.equal(client.socket.protocol, 'herald.v1');
  assert.equal(client.socket.extensions, '');
  const ok = await client.ask({op: 'sub', topic});
  assert.deepEqual(Object.keys(ok).sort(), ['id', 'op', 'pos', 'topic']);
  const sent = await client.ask({op: 'send', topic, content: 'hello 😀', message_type: 'request'});
  const message = await client.next();
  assert.equal(message.id, sent.message);
  assert.equal(message.sender, 'a:1');
  assert.equal(message.content, 'hello 😀');
  assert.ok(message.pos > ok.pos && Number.isSafeInteger(message.pos));
  assert.equal((await client.ask({op: 'unsub', topic})).op, 'ok');
  assert.equal((await client.end()).code, 1000);
});

test('a client that connects late replays the same bytes', async () => {
  const topic = stage.topic();
  const live = await Client.open();
  await live.ask({op: 'sub', topic});
  for (const payload of [
    1,
    'text\u2028"\\',
    {a: [null, true]},
    '😀'.repeat(5000),
    'x'.repeat(300_000),
  ])
    await stage.publish(topic, payload);
  const pushed = [];
  for (let i = 0; i < 5; i++) pushed.push(await live.raw());
  const late = await Client.open();
  late.write({op: 'sub', topic, after: 0, id: 1});
  for (let i = 0; i < 5; i++) assert.equal(await late.raw(), pushed[i]);
  assert.equal((await late.next()).op, 'ok');
  await Promise.all([live.end(), late.end()]);
});

test('200 clients hear one message, and each hears its own inbox', async () => {
  const base = stage.topic('agent');
  const clients = await Promise.all(
    Array.from({length: 200}, (_, n) => Client.open(`?agent=${n}`)),
  );
  await Promise.all(clients.map((client, n) => client.ask({op: 'sub', topic: `${base}:${n}`})));
  await Promise.all(clients.map(client => client.ask({op: 'sub', topic: `${base}:all`})));
  const id = await stage.publish(`${base}:all`, 'stand-up');
  for (const client of clients) assert.equal((await client.next()).id, id);
  await Promise.all(
    clients.map((client, n) =>
      client.ask({op: 'send', topic: `${base}:${(n + 1) % 200}`, payload: n}),
    ),
  );
  for (const [n, client] of clients.entries())
    assert.equal((await client.next()).content, (n + 199) % 200);
  await Promise.all(clients.map(client => client.end()));
});

test('the order of a bulk load in one statement', async () => {
  const topic = stage.topic();
  const client = await Client.open();
  await client.ask({op: 'sub', topic});
  await stage.sql(
    'SELECT count(*) FROM herald.publish_batch(%s, ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 10000) n))',
    topic,
  );
  for (let n = 1; n <= 10000; n++) assert.equal((await client.next()).content, n);
  await client.end();
});

test('payload and content larger than a TCP segment, both ways', async () => {
  const topic = stage.topic();
  const client = await Client.open();
  await client.ask({op: 'sub', topic});
  const content = 'ü😀\n'.repeat(80_000);
  const {message} = await client.ask({op: 'send', topic, content});
  const heard = await client.next();
  assert.equal(heard.id, message);
  assert.equal(heard.content, content);
  await client.end();
});

test('a frame over the limit closes with 1009', async () => {
  const client = await Client.open();
  client.socket.on('error', () => {}); // the write may meet a connection that is already closed
  client.write('x'.repeat((1 << 20) + 1));
  assert.equal((await client.closed).code, 1009);
});

test('a binary message closes with 1003', async () => {
  const client = await Client.open();
  client.socket.send(Buffer.from('{}'));
  assert.equal((await client.closed).code, 1003);
});

test('ping is answered', async () => {
  const client = await Client.open();
  client.socket.ping('payload');
  const data = await new Promise(resolve => client.socket.once('pong', resolve));
  assert.equal(String(data), 'payload');
  await client.end();
});

test('compression is offered and not taken', async () => {
  const client = await Client.open('', {perMessageDeflate: true});
  assert.equal(client.socket.extensions, '');
  assert.equal((await client.ask({op: 'x'})).code, 'unknown_op');
  await client.end();
});

test('a foreign origin is refused with 403', async () => {
  await assert.rejects(Client.open('', {origin: 'https://evil.example'}), /403/);
  const own = await Client.open('', {origin: stage.origin()});
  await own.end();
});

test('killed in the middle of a stream, a client that resumes has everything once', async () => {
  const topic = stage.topic();
  const seen = [];
  let pos = 0;
  const follow = (async () => {
    for (;;) {
      let client;
      try {
        client = await Client.open();
      } catch (error) {
        assert.ok(
          ['ECONNREFUSED', 'ECONNRESET'].includes(error.code) ||
            /socket hang up/.test(error.message),
          String(error),
        );
        await new Promise(setImmediate);
        continue;
      }
      client.write({op: 'sub', topic, after: pos});
      for (let text; (text = await client.raw()) !== null; ) {
        const frame = JSON.parse(text);
        if (frame.op === undefined) seen.push(frame.id);
        if (frame.code === 'unavailable') client.socket.close(); // a moment after its start
        pos = Math.max(pos, frame.pos ?? 0);
        if (frame.content === 'last') return client.end();
      }
    }
  })();
  const sent = [];
  for (let n = 0; n < 300; n++) {
    sent.push(await stage.publish(topic, n));
    if (n % 75 === 40) {
      await stage.kill();
      sent.push(await stage.publish(topic, 'while it is away'));
      await stage.start();
    }
  }
  sent.push(await stage.publish(topic, 'last'));
  await follow;
  assert.deepEqual(seen, sent);
});
