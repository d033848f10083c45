// The page at /, in a real Chromium.
import assert from 'node:assert/strict';
import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {after, afterEach, before, beforeEach, test} from 'node:test';
import {chromium} from 'playwright-core';
import {kDeadlineMs, Stage} from './stage.js';

const kFlags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

let stage, profile, browser, page, complaints;

before(async () => {
  profile = await mkdtemp(join(tmpdir(), 'herald-chromium-'));
  stage = await Stage.start();
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: kFlags,
    viewport: {width: 1280, height: 860},
  });
  browser.setDefaultTimeout(kDeadlineMs);
});
after(async () => {
  await browser?.close();
  await stage?.end();
  if (profile) await rm(profile, {recursive: true, force: true});
});
beforeEach(async () => {
  page = await browser.newPage();
  complaints = [];
  page.on('pageerror', error => complaints.push(String(error)));
  page.on('console', message => message.type() === 'error' && complaints.push(message.text()));
});
afterEach(async () => {
  await page.close();
  // While the notifier is away the browser reports each attempt to connect.
  assert.deepEqual(
    complaints.filter(text => !/^WebSocket connection to .* failed/.test(text)),
    [],
  );
});

const message_rows = () => page.locator('#messages .message');
const texts = () => page.locator('#messages .message .body').allTextContents();
const state = kind => page.locator(`#state[data-state="${kind}"]`).waitFor();

async function open(query = '') {
  await page.goto(`${stage.origin()}/${query}`);
}

async function connect(fields = {}) {
  const form = page.getByRole('form', {name: 'Connection'});
  for (const [label, value] of Object.entries(fields)) await form.getByLabel(label).fill(value);
  await form.getByRole('button', {name: 'Connect'}).click();
  await state('open');
}

async function subscribe(topic, begin = 'Last', number = '20') {
  const form = page.locator('#subscribe');
  await form.getByLabel('Topic or pattern').fill(topic);
  await form.getByLabel('Begin').selectOption({label: begin});
  if (begin !== 'Now') await form.getByLabel('Number').fill(number);
  await form.getByRole('button', {name: 'Subscribe'}).click();
}

const topic_item = topic =>
  page.locator('#topics li').filter({
    has: page.locator('code', {hasText: new RegExp(`^${topic.replace(/[*?]/g, '\\$&')}$`)}),
  });
const live = topic => topic_item(topic).filter({hasText: 'live'}).waitFor();

async function send(content, fields = {}) {
  const form = page.locator('#send');
  for (const [label, value] of Object.entries(fields))
    await form.getByLabel(label, {exact: true}).fill(value);
  await form.getByLabel('Content', {exact: true}).fill(content);
  await form.getByRole('button', {name: 'Send'}).click();
}

const count_is = number =>
  page.waitForFunction(n => document.querySelectorAll('#messages .message').length === n, number);

test('connect, subscribe, watch, disconnect', async () => {
  const topic = stage.topic('page');
  for (let n = 0; n < 5; n++) await stage.publish(topic, `old ${n}`);
  await open();
  assert.equal(await page.title(), 'herald');
  await connect({User: 'ü anna', Agent: 'page', Workspace: 'w'});
  const [connection] = (
    await (await fetch(`${stage.origin()}/ws/connections`)).json()
  ).connections.filter(c => c.user === 'ü anna');
  assert.equal(connection.agent, 'page');
  assert.equal(connection.workspace, 'w');
  await subscribe(topic, 'Last', '3');
  await live(topic);
  await count_is(3);
  assert.deepEqual(await texts(), ['old 4', 'old 3', 'old 2']);
  await stage.publish(topic, 'new');
  await count_is(4);
  assert.equal((await texts())[0], 'new');
  await page.getByRole('button', {name: 'Disconnect'}).click();
  await state('off');
  await stage.publish(topic, 'unheard');
  await page.getByRole('button', {name: 'Connect'}).click(); // goes on where it was
  await count_is(5);
  assert.equal((await texts())[0], 'unheard');
});

test('subscriptions by position, from now on, by pattern; removed', async () => {
  const base = stage.topic('page');
  for (let n = 0; n < 4; n++) await stage.publish(`${base}:a`, n);
  const positions = (await stage.sql('SELECT pos FROM herald.read(%s)', `${base}:a`)).map(
    row => row[0],
  );
  await open();
  await connect({User: 'unsubscriber'});
  await subscribe(`${base}:a`, 'After', String(positions[1]));
  await live(`${base}:a`);
  await count_is(2);
  await subscribe(`${base}:*`, 'Now');
  await live(`${base}:*`);
  await stage.publish(`${base}:b`, 'by pattern');
  await stage.publish(`${base}:a`, 'once');
  await count_is(4);
  await page.getByRole('button', {name: `Unsubscribe ${base}:*`}).click();
  await topic_item(`${base}:*`).waitFor({state: 'detached'});
  await page.waitForFunction(async () => {
    const {connections} = await (await fetch('/ws/connections')).json();
    return connections.find(({user}) => user === 'unsubscriber').subscriptions === 1;
  });
  await stage.publish(`${base}:b`, 'no more');
  await stage.publish(`${base}:a`, 'fence');
  await count_is(5);
  assert.deepEqual(await texts(), ['fence', 'once', 'by pattern', '3', '2']);
});

test('content is text, never HTML, and the envelope is what was pushed', async () => {
  const topic = stage.topic('page');
  const evil =
    "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>&amp;\u202e\n2nd line";
  await open();
  await connect();
  await subscribe(topic);
  await live(topic);
  const [[id]] = await stage.sql(
    'SELECT herald.send_message(%s, %s, %s, topic => %s, message_type => %s, metadata => %s::jsonb)',
    '<b>s</b>',
    '<i>r</i>',
    evil,
    topic,
    '<u>t</u>',
    '{"<s>": "</s>"}',
  );
  await count_is(1);
  assert.deepEqual(await texts(), [evil]);
  assert.equal(await page.locator('#messages').locator('img, script, b, i, u, s').count(), 0);
  assert.equal(await page.title(), 'herald');
  assert.match(
    await message_rows().locator('.head').textContent(),
    /<u>t<\/u><b>s<\/b> → <i>r<\/i>/,
  );
  assert.match(await message_rows().locator('.facts').textContent(), /\{"<s>":"<\/s>"\}/);
  await message_rows().getByText('Envelope').click();
  const [[envelope]] = await stage.sql(
    'SELECT herald.envelope(m)::text FROM herald.message_by_id(%s) m',
    id,
  );
  assert.equal(await message_rows().locator('pre').textContent(), envelope);
});

test('all the facts of a message, JSON content and a message too large to push', async () => {
  const topic = stage.topic('page');
  await open();
  await connect();
  await subscribe(topic);
  await live(topic);
  await stage.sql(
    'SELECT herald.send_message(%s, %s, %s, topic => %s, conversation => %s, priority => 7, ordering_key => %s, ttl => %s)',
    's',
    'r',
    'c',
    topic,
    'talk-9',
    'key-1',
    '1 hour',
  );
  await stage.publish(topic, {a: 'insert', b: [1, 2]});
  const large = await stage.publish(topic, 'x'.repeat(1 << 20));
  await count_is(3);
  const facts = await message_rows().nth(2).locator('.facts').textContent();
  for (const part of ['conversation talk-9', 'priority 7', 'key key-1', 'expires 20'])
    assert.ok(facts.includes(part), facts);
  assert.equal(
    await message_rows().nth(1).locator('.body').textContent(),
    JSON.stringify({a: 'insert', b: [1, 2]}, null, 2),
  );
  const link = message_rows().nth(0).getByRole('link', {name: 'Open'});
  assert.equal(await link.getAttribute('href'), `/messages/${large}`);
});

test('send to a recipient, to a topic as JSON, and reply', async () => {
  const inbox = stage.topic('dev');
  await open();
  await connect({Agent: 'pm'});
  await subscribe('agent:*', 'Now');
  await live('agent:*');
  await send('Please look', {Recipient: inbox, Type: 'request'});
  await count_is(1);
  await page.locator('#results li.good').waitFor();
  assert.match(await page.locator('#results li').first().textContent(), /stored in \d+ ms/);
  assert.match(
    await message_rows().locator('.head').textContent(),
    new RegExp(`requestpm → ${inbox}`),
  );
  const [id] = (await stage.sql('SELECT id FROM herald.tail(%s, 1)', `agent:${inbox}:inbox`))[0];

  await message_rows().getByRole('button', {name: 'Reply'}).click();
  await page.keyboard.type('On it');
  await page.keyboard.press('Control+Enter');
  await count_is(2);
  const [[sender, reply_to, type, topic]] = await stage.sql(
    'SELECT sender, reply_to, message_type, topic FROM herald.messages ORDER BY pos DESC LIMIT 1',
  );
  assert.deepEqual([sender, reply_to, type, topic], [inbox, id, 'response', 'agent:pm:inbox']);

  await page.getByRole('button', {name: 'Clear'}).first().click();
  const json_topic = stage.topic('page');
  await page.locator('#send').getByLabel('Content is JSON').check();
  await send('{"n": 12345678901234567890.5}', {Topic: json_topic});
  await page.waitForFunction(() => document.querySelectorAll('#results li.good').length === 3);
  const [[content, is_json]] = await stage.sql(
    'SELECT content, is_json FROM herald.tail(%s, 1)',
    json_topic,
  );
  assert.equal(content, '{"n": 12345678901234567890.5}');
  assert.equal(is_json, true);
});

test('every field of the send form is stored', async () => {
  const topic = stage.topic('page');
  await open();
  await connect();
  await page.locator('#send summary').click();
  await send('content', {
    Recipient: 'r',
    Topic: topic,
    Type: 'own type',
    Sender: 's',
    Priority: '4',
    Conversation: 'talk',
    'Ordering key': 'k',
    Workspace: 'w',
    'Expires after': '2 hours',
    Metadata: '{"a": 1}',
  });
  await page.locator('#results li.good').waitFor();
  const [row] = await stage.sql(
    `SELECT recipient, message_type, sender, priority, conversation, ordering_key, workspace,
    expires_at - at, metadata, length(idempotency_key) > 20 FROM herald.tail(%s, 1)`,
    topic,
  );
  assert.deepEqual(row, ['r', 'own type', 's', 4, 'talk', 'k', 'w', '2:00:00', {a: 1}, true]);
});

test('mistakes are told where they are made', async () => {
  await open();
  await connect();
  await subscribe('bad[pattern]');
  await page.locator('#topics li.bad').waitFor();
  assert.match(await page.locator('#topics li.bad').textContent(), /\[/);
  await send('x', {Topic: 'herald'});
  await page.locator('#results li.bad').waitFor();
  assert.match(await page.locator('#results li.bad').textContent(), /herald/);
  const content = page.locator('#send').getByLabel('Content', {exact: true});
  await page.locator('#send').getByLabel('Content is JSON').check();
  await send('{no json', {Topic: 't'});
  assert.equal(await content.evaluate(input => input.validationMessage), 'This is not JSON.');
  assert.equal(await page.locator('#results li').count(), 1);
});

test('a notifier killed and started again: the page comes back and misses nothing', async () => {
  const topic = stage.topic('page');
  await open();
  await connect();
  await subscribe(topic, 'Now');
  await subscribe(`${topic}*`, 'Now');
  await live(topic);
  await live(`${topic}*`);
  const sent = [];
  const publish = async content => {
    sent.unshift(content);
    await stage.publish(topic, content);
  };
  await publish('before');
  await count_is(1);
  await stage.kill();
  await state('wait');
  await publish('away 1');
  await publish('away 2');
  await send('from the page', {Topic: topic}); // waits for the connection
  await stage.start();
  await state('open');
  await count_is(4);
  await publish('after');
  await count_is(5);
  assert.deepEqual(
    (await texts()).filter(text => text !== 'from the page'),
    sent,
  );
  assert.equal(
    (await stage.sql('SELECT count(*) FROM herald.messages WHERE topic = %s', topic))[0][0],
    5,
  );
  await stage.stop(); // the polite way: bye, then 1001
  await page.locator('#messages .notice').filter({hasText: 'goodbye'}).waitFor();
  await stage.start();
  await publish('last');
  await count_is(6);
});

test('a send whose answer is lost is repeated and stored once', async () => {
  const topic = stage.topic('page');
  let cut = 0;
  await page.routeWebSocket(/\/ws\/connect/, socket => {
    const server = socket.connectToServer();
    server.onMessage(text => {
      if (!cut && JSON.parse(text).message) {
        cut++;
        server.close();
        socket.close({code: 1011});
      } else {
        socket.send(text);
      }
    });
  });
  await open();
  await connect();
  await send('once', {Topic: topic});
  await page.locator('#results li.good').waitFor();
  assert.equal(cut, 1);
  assert.equal(
    (await stage.sql('SELECT count(*) FROM herald.messages WHERE topic = %s', topic))[0][0],
    1,
  );
});

test('a gap is shown', async () => {
  const topic = stage.topic('page');
  await stage.publish(topic, 'old');
  await stage.sql('SELECT herald.drop_topic(%s)::text', topic);
  await stage.publish(topic, 'kept');
  await open();
  await connect();
  await subscribe(topic, 'After', '0');
  await count_is(1);
  assert.match(await page.locator('#messages .notice').textContent(), /gone \(dropped\)/);
});

test('at most 500 messages stay, sorted, filtered, paused, followed, cleared', async () => {
  const topic = stage.topic('page');
  await stage.sql(
    'SELECT count(*) FROM herald.publish_batch(%s, ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 1200) n))',
    topic,
  );
  await open();
  await connect();
  await subscribe(topic, 'After', '0');
  await message_rows().first().locator('.body').getByText('1200', {exact: true}).waitFor();
  await count_is(500);
  assert.deepEqual((await texts()).slice(0, 2), ['1200', '1199']);
  await page.getByLabel('Filter').fill('"content":120');
  await page.waitForFunction(() => document.querySelector('#count').textContent === '1 of 500');
  await page.getByLabel('Filter').fill('');
  await page.getByRole('combobox', {name: 'Order'}).selectOption('follow');
  assert.deepEqual((await texts()).slice(-2), ['1199', '1200']);
  await page.getByRole('button', {name: 'Pause'}).click();
  await stage.publish(topic, 'while paused');
  await page.getByRole('button', {name: 'Resume (1)'}).click();
  await page.waitForFunction(() =>
    document.querySelector('#messages').lastElementChild.textContent.includes('while paused'),
  );
  await page.waitForFunction(() => {
    const list = document.querySelector('#messages');
    return list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  });
  await page.locator('.bar').getByRole('button', {name: 'Clear'}).click();
  await count_is(0);
});

test('a link with topics connects by itself', async () => {
  const topic = stage.topic('page');
  await stage.publish(topic, 'hello');
  await open(`?user=linked&theme=dark&topic=${encodeURIComponent(topic)}`);
  await state('open');
  await count_is(1);
  assert.equal(await page.getByLabel('User').inputValue(), 'linked');
  await page.reload();
  await count_is(1);
});

test('scripts of the page fetch payloads, compressed or not', async () => {
  await open();
  for (const compression of ['zstd', 'gzip', 'none']) {
    const content = `${compression} in several chunks\n`.repeat(50_000);
    const [[id]] = await stage.sql(
      "SELECT herald.send_payload(herald.put_payload(convert_to(%s, 'UTF8'), compression => %s), topic => %s)",
      content,
      compression,
      stage.topic(),
    );
    const [coding, fetched] = await page.evaluate(async path => {
      const answer = await fetch(path);
      return [answer.headers.get('content-encoding'), await answer.text()];
    }, `/messages/${id}`);
    if (compression === 'gzip') assert.equal(coding, 'gzip');
    assert.ok(fetched === content, compression);
  }
});

test('every control has a name, and the keyboard reaches them', async () => {
  await open();
  const nameless = await page
    .locator('input, select, textarea, button, summary, a')
    .evaluateAll(all =>
      all
        .filter(one => !(one.labels?.[0]?.textContent || one.ariaLabel || one.textContent).trim())
        .map(one => one.outerHTML),
    );
  assert.deepEqual(nameless, []);
  await page.locator('h1').click();
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'filter');
  await page.getByLabel('User').focus();
  await page.keyboard.type('keys');
  await page.keyboard.press('Enter');
  await state('open');
  assert.equal(await page.locator('#state').getAttribute('role'), 'status');
});

test('nothing overflows at 360 pixels, in light and dark', async () => {
  const topic = stage.topic(`page:${'long'.repeat(40)}`);
  await stage.publish(topic, {['k'.repeat(300)]: 'v'.repeat(300)});
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({colorScheme});
    await page.setViewportSize({width: 360, height: 740});
    await open(`?user=${'u'.repeat(80)}&topic=${encodeURIComponent(topic)}`);
    await count_is(1);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
    const [text, ground] = await page.evaluate(() => {
      const style = getComputedStyle(document.body);
      return [style.color, style.backgroundColor].map(color =>
        color
          .match(/\d+/g)
          .slice(0, 3)
          .reduce((sum, part) => sum + Number(part), 0),
      );
    });
    assert.ok(colorScheme === 'dark' ? text > ground : text < ground);
  }
});
