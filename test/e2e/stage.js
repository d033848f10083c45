// The notifier under test, and waiting, for the tests in JavaScript. See stage.py.
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {createInterface} from 'node:readline';
import {fileURLToPath} from 'node:url';

export const kDeadlineMs = 30_000;

export class Stage {
  #process;
  #lines;
  #last = Promise.resolve();
  #names = 0;

  static async start() {
    const stage = new Stage();
    stage.#process = spawn(
      process.env.PYTHON ?? '/usr/bin/python3',
      [fileURLToPath(new URL('stage.py', import.meta.url))],
      {stdio: ['pipe', 'pipe', 'inherit']},
    );
    stage.#lines = createInterface({input: stage.#process.stdout})[Symbol.asyncIterator]();
    Object.assign(stage, await stage.#answer());
    return stage;
  }

  async end() {
    const ended = once(this.#process, 'exit');
    this.#process.stdin.end();
    const [code] = await ended;
    if (code !== 0) throw new Error(`stage.py ended with ${code}`);
  }

  topic(name = 'topic') {
    return `${name}:${++this.#names}`;
  }
  origin() {
    return `http://${this.host}:${this.port}`;
  }
  url(query = '') {
    return `ws://${this.host}:${this.port}/ws/connect${query}`;
  }

  sql(text, ...values) {
    return this.#ask({do: 'sql', text, values});
  }
  kill() {
    return this.#ask({do: 'kill'});
  }
  stop() {
    return this.#ask({do: 'stop'});
  }
  start() {
    return this.#ask({do: 'start'});
  }

  // Publishes any JSON; gives the id.
  async publish(topic, payload) {
    return (
      await this.sql('SELECT herald.publish(%s, %s::jsonb)', topic, JSON.stringify(payload))
    )[0][0];
  }

  #ask(request) {
    this.#last = this.#last
      .catch(() => undefined)
      .then(async () => {
        this.#process.stdin.write(JSON.stringify(request) + '\n');
        const {result, error} = await this.#answer();
        if (error) throw new Error(error);
        return result;
      });
    return this.#last;
  }

  async #answer() {
    const {value, done} = await this.#lines.next();
    if (done) throw new Error('stage.py ended');
    return JSON.parse(value);
  }
}
