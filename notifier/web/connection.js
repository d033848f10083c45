// @ts-check
// Connection: one WebSocket that comes back by itself, resumes every subscription after the highest
// position it has seen, and repeats an unanswered send under its idempotency key. Knows no DOM: what
// happens is told to a View.

/** @typedef {{pos: number, id: string, topic: string, type: string, at: string, sender?: string,
 *   recipient?: string, conversation?: string, content?: unknown, metadata?: unknown, reply_to?: string,
 *   priority?: number, key?: string, expires_at?: string, ref?: {bytes: number, href: string}}} Message */
/** @typedef {{topic: string, from: {after?: number, last?: number}, pos: number | null, live: boolean,
 *   count: number, error: string, matches: RegExp}} Subscription */
/** @typedef {{frame: string, shown: HTMLElement, begun: number}} Send */

// Redis PSUBSCRIBE's rule: * is any run of characters, ? is one; all else stands for itself.
/** @param {string} pattern */
function pattern_to_regexp(pattern) {
  const source = pattern
    .replace(/[.+^${}()|[\]\\/]/g, '\\$&')
    .replace(/\*+/g, '[^]*')
    .replace(/\?/g, '[^]');
  return new RegExp(`^${source}$`, 'u');
}

const kFinalCodes = new Set([1000, 1002, 1003, 1007, 1009]);

export class Connection {
  /** @type {Subscription[]} */ subscriptions = [];
  /** @type {Map<number, Send>} */ sends = new Map();
  /** @type {Map<number, Subscription>} */ #asked = new Map();
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {{reconnect?: boolean, after_ms?: number, why?: string, code?: number} | null} */ #bye =
    null;
  /** @type {number | undefined} */ #timer;
  #url = '';
  #failures = 0;
  #opened = 0;
  #next_id = 1;

  /** @param {{state(kind: string, text: string): void, message(m: Message, raw: string): void,
   *   notice(text: string, bad: boolean, pos?: number): void, topics(): void,
   *   result(send: Send, text: string, good: boolean, id?: string): void}} view */
  constructor(view) {
    this.view = view;
  }

  get wanted() {
    return this.#url !== '';
  }
  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** @param {string} query */
  start(query) {
    this.#url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws/connect${query && '?'}${query}`;
    this.#failures = 0;
    this.#connect();
  }

  // Ends for good; sends without an answer are given up, and said to be.
  /** @param {string} [why] shown as a failure */
  stop(why) {
    this.#url = '';
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
    this.#lost();
    for (const send of this.sends.values())
      this.view.result(send, 'disconnected before an answer came', false);
    this.sends.clear();
    this.view.state(why ? 'failed' : 'off', why ?? 'Not connected');
  }

  retry_now() {
    if (this.wanted && !this.#socket) this.#connect();
  }

  /** @param {string} topic @param {{after?: number, last?: number}} from */
  subscribe(topic, from) {
    const subscription = {
      topic,
      from,
      pos: null,
      live: false,
      count: 0,
      error: '',
      matches: pattern_to_regexp(topic),
    };
    this.subscriptions.push(subscription);
    this.#ask(subscription);
    this.view.topics();
  }

  /** @param {Subscription} subscription */
  unsubscribe(subscription) {
    this.subscriptions = this.subscriptions.filter(other => other !== subscription);
    if (!subscription.error)
      this.#write({op: 'unsub', topic: subscription.topic, id: this.#next_id++});
    this.view.topics();
  }

  // `payload` is JSON text, put into the frame as it is so that no number loses digits.
  /** @param {Record<string, unknown>} fields @param {string | null} payload @param {HTMLElement} shown */
  send(fields, payload, shown) {
    const id = this.#next_id++;
    const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), b =>
      b.toString(16).padStart(2, '0'),
    ).join('');
    const frame = JSON.stringify({op: 'send', id, ...fields, idempotency_key: key});
    const send = {
      frame: payload === null ? frame : `${frame.slice(0, -1)},"payload":${payload}}`,
      shown,
      begun: Date.now(),
    };
    this.sends.set(id, send);
    if (this.open) this.#socket?.send(send.frame);
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#bye = null;
    this.view.state('wait', 'Connecting …');
    const socket = new WebSocket(this.#url, 'herald.v1');
    this.#socket = socket;
    const current = () => this.#socket === socket;
    socket.onopen = () => current() && this.#ready();
    socket.onmessage = event => current() && this.#receive(String(event.data));
    socket.onclose = event => current() && this.#closed(event);
  }

  #ready() {
    this.#opened = Date.now();
    this.view.state('open', 'Connected');
    for (const subscription of this.subscriptions) this.#ask(subscription);
    for (const send of this.sends.values()) this.#socket?.send(send.frame);
  }

  #lost() {
    this.#socket = null;
    this.#asked.clear();
    for (const subscription of this.subscriptions) subscription.live = false;
    this.view.topics();
  }

  /** @param {CloseEvent} event */
  #closed(event) {
    const bye = this.#bye;
    const why = bye?.why || event.reason || `code ${event.code}`;
    if (Date.now() - this.#opened > 10_000) this.#failures = 0;
    if (!(bye?.reconnect ?? !kFinalCodes.has(event.code))) return this.stop(`Closed: ${why}`);
    this.#lost();
    const backoff = Math.min(30_000, 500 * 2 ** this.#failures++) * (0.5 + Math.random() / 2);
    this.#wait(Date.now() + (bye?.after_ms ?? backoff));
  }

  /** @param {number} until */
  #wait(until) {
    const left = until - Date.now();
    if (left <= 0) return this.#connect();
    this.view.state('wait', `Reconnecting in ${Math.ceil(left / 1000)} s`);
    this.#timer = setTimeout(() => this.#wait(until), Math.min(left, 1000));
  }

  /** @param {object} frame */
  #write(frame) {
    if (this.open) this.#socket?.send(JSON.stringify(frame));
  }

  /** @param {Subscription} subscription */
  #ask(subscription) {
    if (!this.open || !this.subscriptions.includes(subscription)) return;
    const id = this.#next_id++;
    subscription.error = '';
    this.#asked.set(id, subscription);
    this.#write({
      op: 'sub',
      topic: subscription.topic,
      ...(subscription.pos === null ? subscription.from : {after: subscription.pos}),
      id,
    });
  }

  /** @param {string} raw */
  #receive(raw) {
    const frame = JSON.parse(raw);
    if (frame.op === undefined) this.#message(frame, raw);
    else if (frame.op === 'ok') this.#ok(frame);
    else if (frame.op === 'err') this.#err(frame);
    else if (frame.op === 'gap') this.#gap(frame);
    else if (frame.op === 'bye') {
      this.#bye = frame;
      this.view.notice(`Server says goodbye: ${frame.why ?? ''} (code ${frame.code})`, false);
    }
  }

  // While a subscription still replays, a message that another one matches too may have come from
  // that one and says nothing about how far the replay is.
  /** @param {Message} message @param {string} raw */
  #message(message, raw) {
    const matching = this.subscriptions.filter(s => s.matches.test(message.topic));
    for (const subscription of matching) {
      subscription.count++;
      if ((subscription.live || matching.length === 1) && message.pos > (subscription.pos ?? 0))
        subscription.pos = message.pos;
    }
    this.view.message(message, raw);
    this.view.topics();
  }

  /** @param {{id: number, pos?: number, message?: string}} frame */
  #ok(frame) {
    const subscription = this.#asked.get(frame.id);
    const send = this.sends.get(frame.id);
    if (subscription) {
      this.#asked.delete(frame.id);
      subscription.live = true;
      subscription.pos = Math.max(subscription.pos ?? 0, frame.pos ?? 0);
      this.view.topics();
    } else if (send) {
      this.sends.delete(frame.id);
      this.view.result(send, `stored in ${Date.now() - send.begun} ms`, true, frame.message);
    }
  }

  /** @param {{id?: number, code: string, message: string, hint?: string, retry_ms?: number}} frame */
  #err(frame) {
    const id = frame.id ?? 0;
    const subscription = this.#asked.get(id);
    const send = this.sends.get(id);
    const text = frame.hint ? `${frame.message} (${frame.hint})` : frame.message;
    const socket = this.#socket;
    const again = frame.code === 'unavailable' ? Math.max(frame.retry_ms ?? 1000, 100) : 0;
    if (subscription) {
      this.#asked.delete(id);
      subscription.error = text;
      if (again) setTimeout(() => this.#socket === socket && this.#ask(subscription), again);
      this.view.topics();
    } else if (send && again) {
      setTimeout(
        () => this.#socket === socket && this.sends.has(id) && socket?.send(send.frame),
        again,
      );
    } else if (send) {
      this.sends.delete(id);
      this.view.result(send, `${frame.code}: ${text}`, false);
    } else {
      this.view.notice(`${frame.code}: ${text}`, true);
    }
  }

  /** @param {{topic: string, from: number, to: number, why: string}} frame */
  #gap(frame) {
    for (const subscription of this.subscriptions) {
      if (subscription.topic !== frame.topic) continue;
      subscription.pos =
        frame.why === 'reset' ? frame.to : Math.max(subscription.pos ?? 0, frame.to);
    }
    this.view.notice(
      `${frame.topic}: messages from ${frame.from} to ${frame.to} are gone (${frame.why})`,
      false,
      frame.to,
    );
  }
}
