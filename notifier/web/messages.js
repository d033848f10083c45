// @ts-check
// The list of messages: at most kRows of them, sorted by position, with notices between them.
// What came from outside is set as text. Draws at most once every kDrawMs.
import {element, make, make_link} from './dom.js';

/** @typedef {import('./connection.js').Message} Message */

const kRows = 500;
const kRowChars = 16 * 1024 * 1024;
const kPreviewChars = 4000;
const kDrawMs = 250;

const list = element('messages');
const announcement = element('announce');
const filter = /** @type {HTMLInputElement} */ (element('filter'));
const order = /** @type {HTMLSelectElement} */ (element('order'));
const pause = element('pause');

// Ascending by pos. Notices stand half a position above what they follow.
/** @type {{pos: number, raw: string, shown: HTMLElement, message: boolean}[]} */
let rows = [];
let row_chars = 0;
// What is not drawn yet: the newest of it, within the same bounds.
/** @type {{message: Message, raw: string}[]} */
let queue = [];
let queue_chars = 0;
let unannounced = 0;
let paused = false;
let drawing = false;
let drawn = 0;
/** @type {(message: Message) => void} */
let on_reply = () => {};

/** @param {(message: Message) => void} reply called for the message somebody wants to answer */
export function when_replying(reply) {
  on_reply = reply;
}

/** @param {Message} message @param {string} raw the envelope as it came */
export function add_message(message, raw) {
  queue.push({message, raw});
  queue_chars += raw.length;
  while (queue.length > kRows || (queue_chars > kRowChars && queue.length > 1))
    queue_chars -= queue.shift()?.raw.length ?? 0;
  draw_soon();
}

/** @param {string} text @param {boolean} bad @param {number} [pos] what it follows; else: everything */
export function add_notice(text, bad, pos) {
  const above = pos ?? Math.max(rows.at(-1)?.pos ?? 0, ...queue.map(q => q.message.pos));
  const shown = make('li', {className: bad ? 'notice bad' : 'notice', textContent: text});
  insert(Math.floor(above) + 0.5, shown, text, false);
  announcement.textContent = text;
  show_count();
}

// The first message after a quiet moment is drawn at once. A tab in the background draws nothing
// and keeps the newest messages for when it is looked at.
function draw_soon() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => requestAnimationFrame(draw), Math.max(0, drawn + kDrawMs - performance.now()));
}

function draw() {
  drawing = false;
  drawn = performance.now();
  if (!paused) show_queue();
  const many = queue.length === kRows ? '+' : '';
  pause.textContent = paused ? `Resume (${queue.length}${many})` : 'Pause';
}

function show_queue() {
  const follows =
    order.value === 'follow' && list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  for (const {message, raw} of queue)
    insert(message.pos, message_row(message, raw, on_reply), raw, true);
  if (queue.length && !unannounced) {
    setTimeout(() => {
      announcement.textContent = `${unannounced} new ${unannounced === 1 ? 'message' : 'messages'}`;
      unannounced = 0;
    }, 2000);
  }
  unannounced += queue.length;
  queue = [];
  queue_chars = 0;
  show_count();
  if (follows) list.scrollTop = list.scrollHeight;
}

/** @param {number} pos @param {HTMLElement} shown @param {string} raw @param {boolean} message */
function insert(pos, shown, raw, message) {
  let at = rows.length;
  while (at > 0 && rows[at - 1].pos > pos) at--;
  const below = rows[at - 1];
  if ((message && below?.pos === pos) || (at === 0 && rows.length >= kRows)) return;
  list.insertBefore(shown, (order.value === 'newest' ? below : rows[at])?.shown ?? null);
  rows.splice(at, 0, {pos, raw, shown, message});
  row_chars += raw.length;
  apply_filter(rows[at]);
  while (rows.length > kRows || (row_chars > kRowChars && rows.length > 1)) {
    const oldest = rows.shift();
    row_chars -= oldest?.raw.length ?? 0;
    oldest?.shown.remove();
  }
}

/** @param {{raw: string, shown: HTMLElement}} row */
function apply_filter(row) {
  row.shown.hidden = !row.raw.toLowerCase().includes(filter.value.toLowerCase());
}

function show_count() {
  const messages = rows.filter(row => row.message);
  const seen = messages.filter(row => !row.shown.hidden).length;
  element('count').textContent =
    seen === messages.length ? `${seen}` : `${seen} of ${messages.length}`;
  element('no-messages').hidden = rows.length > 0;
}

/** @param {string} at */
function local_time(at) {
  const time = new Date(at);
  const clock =
    time.toLocaleTimeString('en-GB') + '.' + String(time.getMilliseconds()).padStart(3, '0');
  return time.toDateString() === new Date().toDateString()
    ? clock
    : `${time.toLocaleDateString('en-CA')} ${clock}`;
}

/** @param {Message} message @param {string} raw @param {(m: Message) => void} on_reply */
function message_row(message, raw, on_reply) {
  const head = make('div', {className: 'head'}, make('span', {className: 'type'}, message.type));
  /** @type {HTMLElement} */ (head.firstChild).dataset.type = message.type;
  if (message.sender || message.recipient) {
    head.append(
      make(
        'span',
        {className: 'who'},
        `${message.sender ?? '–'} → ${message.recipient ?? 'everybody'}`,
      ),
    );
  }
  head.append(
    make('code', {}, message.topic),
    make('time', {dateTime: message.at, title: message.at}, local_time(message.at)),
    make('span', {className: 'pos', title: 'position'}, `#${message.pos}`),
  );

  const facts = make('div', {className: 'facts'});
  /** @param {string} name @param {unknown} value */
  const fact = (name, value) => {
    if (value !== undefined)
      facts.append(
        make('span', {}, `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`),
      );
  };
  fact('conversation', message.conversation);
  fact('in reply to', message.reply_to);
  fact('priority', message.priority);
  fact('key', message.key);
  fact('expires', message.expires_at);
  fact('metadata', message.metadata);

  const details = make('details', {}, make('summary', {}, 'Envelope'));
  details.addEventListener('toggle', () => details.append(make('pre', {}, raw)), {once: true});
  const foot = make('div', {className: 'foot'}, details);
  if (message.sender) {
    const reply = make('button', {type: 'button', className: 'quiet'}, 'Reply');
    reply.addEventListener('click', () => on_reply(message));
    foot.append(reply);
  }
  return make(
    'li',
    {className: 'message'},
    head,
    ...message_body(message),
    ...(facts.childNodes.length ? [facts] : []),
    foot,
  );
}

/** @param {Message} message */
function message_body(message) {
  if (message.ref) {
    const href = message.ref.href.startsWith('/messages/')
      ? message.ref.href
      : `/messages/${encodeURIComponent(message.id)}`;
    return [
      make(
        'p',
        {className: 'body cut'},
        `${message.ref.bytes.toLocaleString('en')} bytes, too much to push. `,
        make_link(href, 'Open'),
      ),
    ];
  }
  const is_text = typeof message.content === 'string';
  const text = is_text ? String(message.content) : JSON.stringify(message.content, null, 2);
  const body = make(
    'div',
    {className: is_text ? 'body' : 'body json'},
    text.slice(0, kPreviewChars),
  );
  if (text.length <= kPreviewChars) return [body];
  return [
    body,
    make(
      'p',
      {className: 'body cut'},
      `… ${text.length.toLocaleString('en')} characters; the envelope has them all.`,
    ),
  ];
}

filter.addEventListener('input', () => {
  rows.forEach(apply_filter);
  show_count();
});
order.addEventListener('change', () => {
  list.append(...[...list.children].reverse());
  list.scrollTop = order.value === 'follow' ? list.scrollHeight : 0;
});
pause.addEventListener('click', () => {
  paused = !paused;
  pause.setAttribute('aria-pressed', String(paused));
  draw_soon();
});
element('clear').addEventListener('click', () => {
  rows = [];
  row_chars = 0;
  list.replaceChildren();
  show_count();
});
