// Payloads with the clients that JavaScript has: fetch, streams, compressed answers.
import assert from 'node:assert/strict';
import {createHash, randomBytes} from 'node:crypto';
import {request} from 'node:http';
import {after, before, test} from 'node:test';

import {Stage} from './stage.js';

let stage;
before(async () => {
  stage = await Stage.start();
});
after(() => stage.end());

const kLarge = 100_000_000;
const sha256 = bytes => createHash('sha256').update(bytes).digest('hex');

async function send(payload) {
  const text = 'SELECT herald.send_payload(%s, topic => %s)';
  const [[id]] = await stage.sql(text, payload, stage.topic());
  return `${stage.origin()}/messages/${id}`;
}

async function upload(body, headers = {}, options = {}) {
  const answer = await fetch(`${stage.origin()}/payloads`, {
    method: 'POST',
    body,
    headers,
    ...options,
  });
  assert.equal(answer.status, 201);
  return answer.json();
}

test('100 MB there and back with fetch', async () => {
  const content = randomBytes(kLarge);
  const stored = await upload(content, {'content-type': 'video/mp4'});
  assert.equal(stored.checksum, `sha256:${sha256(content)}`);
  const answer = await fetch(await send(stored.payload));
  assert.equal(answer.headers.get('content-type'), 'video/mp4');
  const hash = createHash('sha256');
  for await (const part of answer.body) hash.update(part);
  assert.equal(`sha256:${hash.digest('hex')}`, stored.checksum);
});

test('a stream of unknown length', async () => {
  const parts = Array.from({length: 40}, (_, n) => Buffer.alloc(n * 1500 + 1, n));
  const stream = new ReadableStream({
    start(controller) {
      for (const part of parts) controller.enqueue(part);
      controller.close();
    },
  });
  const stored = await upload(stream, {}, {duplex: 'half'});
  assert.equal(stored.checksum, `sha256:${sha256(Buffer.concat(parts))}`);
});

for (const compression of ['zstd', 'gzip', 'none'])
  test(`what is stored with ${compression} is read by fetch, which asks for compressed`, async () => {
    const content = 'a line that repeats\n'.repeat(100_000);
    const answer = await fetch(`${stage.origin()}/payloads?compression=${compression}`, {
      method: 'POST',
      body: content,
    });
    const {payload} = await answer.json();
    const download = await fetch(await send(payload));
    if (compression === 'gzip') assert.equal(download.headers.get('content-encoding'), 'gzip');
    assert.equal(await download.text(), content);
  });

test('ranges and conditions', async () => {
  const content = randomBytes(1_000_000);
  const address = await send((await upload(content)).payload);
  const part = await fetch(address, {headers: {range: 'bytes=500000-'}});
  assert.equal(part.status, 206);
  assert.deepEqual(Buffer.from(await part.arrayBuffer()), content.subarray(500_000));
  const again = await fetch(address, {headers: {'if-none-match': part.headers.get('etag')}});
  assert.equal(again.status, 304);
});

test('a fetch that is aborted does no harm', async () => {
  const address = await send((await upload(randomBytes(20_000_000))).payload);
  const controller = new AbortController();
  const answer = await fetch(address, {signal: controller.signal});
  await answer.body.getReader().read();
  controller.abort();
  assert.equal((await fetch(`${stage.origin()}/healthz`)).status, 200);
});

test('100-continue tells where the upload goes', async () => {
  const content = randomBytes(2_000_000);
  const sending = request(`${stage.origin()}/payloads`, {
    method: 'POST',
    headers: {expect: '100-continue', 'content-length': content.length},
  });
  const location = await new Promise((resolve, reject) => {
    sending.on('error', reject);
    sending.on('information', info => resolve(info.headers.location));
    sending.flushHeaders();
  });
  const answered = new Promise(resolve => sending.on('response', resolve));
  sending.end(content);
  const answer = await answered;
  assert.equal(answer.statusCode, 201);
  assert.equal(answer.headers.location, location);
  answer.resume();
});
