// @ts-check
// The first page of herald-notifier: connect, pick topics, watch messages live, send one. Here are
// the forms, the list of topics and what ties them to the connection and the list of messages.
import {Connection} from './connection.js';
import {element, field, make, make_link} from './dom.js';
import {add_message, add_notice, when_replying} from './messages.js';

/** @typedef {import('./connection.js').Message} Message */

const kUnansweredSends = 20;
const kTopicsMs = 100;

const connect_form = /** @type {HTMLFormElement} */ (element('connect'));
const subscribe_form = /** @type {HTMLFormElement} */ (element('subscribe'));
const send_form = /** @type {HTMLFormElement} */ (element('send'));
let topics_due = false;

const connection = new Connection({
  state(kind, text) {
    element('state').dataset.state = kind;
    element('state-text').textContent = text;
    element('toggle').textContent = connection.wanted ? 'Disconnect' : 'Connect';
    element('toggle').classList.toggle('primary', !connection.wanted);
    for (const input of connect_form.querySelectorAll('input')) input.readOnly = connection.wanted;
  },
  message: add_message,
  notice: add_notice,
  topics() {
    if (topics_due) return;
    topics_due = true;
    setTimeout(show_topics, kTopicsMs);
  },
  result(send, text, good, id) {
    send.shown.className = good ? 'good' : 'bad';
    send.shown.textContent = text;
    if (id) send.shown.append(' · ', make_link(`/messages/${encodeURIComponent(id)}`, id));
  },
});

function show_topics() {
  topics_due = false;
  const shown = connection.subscriptions.map(subscription => {
    const remove = make(
      'button',
      {type: 'button', className: 'quiet', ariaLabel: `Unsubscribe ${subscription.topic}`},
      '✕',
    );
    remove.addEventListener('click', () => {
      connection.unsubscribe(subscription);
      field(subscribe_form, 'topic').focus();
      remember();
    });
    const state = subscription.live ? 'live' : connection.open ? 'catching up' : 'not connected';
    const facts =
      subscription.error ||
      `${state} · ${subscription.count} received${subscription.pos === null ? '' : ` · at ${subscription.pos}`}`;
    return make(
      'li',
      {className: subscription.error ? 'bad' : ''},
      make('div', {}, make('code', {}, subscription.topic), make('small', {}, facts)),
      remove,
    );
  });
  const topics = element('topics');
  if (topics.contains(document.activeElement) && topics.children.length === shown.length) {
    // Somebody's keyboard focus is on a button here: change the texts around it only.
    shown.forEach((item, i) =>
      topics.children[i].firstElementChild?.replaceWith(
        /** @type {Element} */ (item.firstElementChild),
      ),
    );
  } else {
    topics.replaceChildren(...shown);
  }
  element('no-topics').hidden = shown.length > 0;
}

/** @param {Message} message */
function reply_to(message) {
  field(send_form, 'recipient').value = message.sender ?? '';
  field(send_form, 'topic').value = '';
  field(send_form, 'message_type').value = 'response';
  field(send_form, 'sender').value = message.recipient ?? '';
  field(send_form, 'conversation').value = message.conversation ?? '';
  field(send_form, 'reply_to').value = message.id;
  field(send_form, 'json').checked = false;
  /** @type {HTMLDetailsElement} */ (send_form.querySelector('details')).open = true;
  field(send_form, 'content').focus();
}

/** @param {HTMLInputElement} input @param {string} why */
function refuse(input, why) {
  input.setCustomValidity(why);
  input.reportValidity();
  input.addEventListener('input', () => input.setCustomValidity(''), {once: true});
}

/** @param {string} text @returns {unknown} undefined if it is no JSON */
function parse_json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// The address carries who is connected and to what, so that a reload or a shared link shows the same.
function remember() {
  const query = new URLSearchParams(who());
  for (const {topic} of connection.subscriptions) query.append('topic', topic);
  const theme = document.documentElement.dataset.theme;
  if (theme) query.set('theme', theme);
  history.replaceState(null, '', `${location.pathname}${query.size ? '?' : ''}${query}`);
}

function who() {
  return ['user', 'agent', 'workspace']
    .map(name => [name, field(connect_form, name).value.trim()])
    .filter(([, value]) => value);
}

connect_form.addEventListener('submit', event => {
  event.preventDefault();
  if (connection.wanted) connection.stop();
  else connection.start(new URLSearchParams(who()).toString());
  remember();
});

subscribe_form.addEventListener('submit', event => {
  event.preventDefault();
  const input = field(subscribe_form, 'topic');
  const begin = field(subscribe_form, 'begin').value;
  const number = field(subscribe_form, 'number').valueAsNumber || 0;
  if (connection.subscriptions.some(s => s.topic === input.value))
    return refuse(input, 'You are subscribed to this already.');
  connection.subscribe(
    input.value,
    begin === 'now' || (begin === 'last' && !number) ? {} : {[begin]: number},
  );
  input.value = '';
  remember();
});
field(subscribe_form, 'begin').addEventListener('change', event => {
  const begin = /** @type {HTMLSelectElement} */ (event.target).value;
  field(subscribe_form, 'number').disabled = begin === 'now';
  field(subscribe_form, 'number').value = begin === 'last' ? '20' : '0';
});

send_form.addEventListener('submit', event => {
  event.preventDefault();
  /** @type {Record<string, unknown>} */
  const fields = {};
  for (const name of [
    'recipient',
    'topic',
    'message_type',
    'sender',
    'conversation',
    'ordering_key',
    'workspace',
    'ttl',
    'reply_to',
  ]) {
    const value = field(send_form, name).value.trim();
    if (value) fields[name] = value;
  }
  const priority = field(send_form, 'priority').valueAsNumber;
  if (priority) fields.priority = priority;
  const metadata = field(send_form, 'metadata');
  if (metadata.value.trim()) {
    fields.metadata = parse_json(metadata.value);
    if (fields.metadata?.constructor !== Object)
      return refuse(metadata, 'Metadata is a JSON object.');
  }
  const content = field(send_form, 'content');
  const as_json = field(send_form, 'json').checked;
  if (as_json && parse_json(content.value) === undefined)
    return refuse(content, 'This is not JSON.');
  if (as_json && !fields.topic)
    return refuse(field(send_form, 'topic'), 'JSON is published to a topic.');
  if (!as_json) fields.content = content.value;
  if (!connection.wanted) return refuse(content, 'Connect first.');
  if (connection.sends.size >= kUnansweredSends)
    return refuse(content, 'Too many messages wait for an answer.');

  const shown = make('li', {}, connection.open ? 'sending …' : 'is sent when connected …');
  element('results').prepend(shown);
  while (element('results').children.length > kUnansweredSends)
    element('results').lastElementChild?.remove();
  connection.send(fields, as_json ? content.value : null, shown);
  content.value = '';
  content.focus();
});
field(send_form, 'content').addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) send_form.requestSubmit();
});

element('theme').addEventListener('click', () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
  remember();
});
document.addEventListener('keydown', event => {
  if (
    event.key === '/' &&
    !(event.target instanceof Element && event.target.matches('input, textarea, select'))
  ) {
    event.preventDefault();
    element('filter').focus();
  }
});
addEventListener('online', () => connection.retry_now());

when_replying(reply_to);

const asked = new URLSearchParams(location.search);
for (const name of ['user', 'agent', 'workspace'])
  field(connect_form, name).value = asked.get(name) ?? '';
if (asked.get('theme')) document.documentElement.dataset.theme = asked.get('theme') ?? '';
for (const topic of new Set(asked.getAll('topic'))) connection.subscribe(topic, {last: 20});
if (asked.has('topic')) connection.start(new URLSearchParams(who()).toString());
