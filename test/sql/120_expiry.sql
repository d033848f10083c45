-- ttl and expires_at: an expired message is not read by anything. No test here waits: a ttl of a
-- microsecond has passed when the next statement begins.
\ir helpers.psql
SELECT plan(25);

SELECT herald.send_message('s', NULL, 'stays', topic => 'e', ttl => '1 hour', conversation => 'c') AS stays \gset
SELECT herald.send_message('s', NULL, 'gone', topic => 'e', ttl => '1 microsecond', conversation => 'c') AS gone \gset
SELECT herald.send_message('s', NULL, 'for ever', topic => 'e', conversation => 'c') AS forever \gset

SELECT is((SELECT string_agg(content, ',' ORDER BY pos) FROM herald.message WHERE topic = 'e'), 'stays,gone,for ever',
    'the log still has it');
SELECT is((SELECT string_agg(content, ',' ORDER BY pos) FROM herald.messages WHERE topic = 'e'), 'stays,for ever',
    'the view does not show it');
SELECT is(t.contents('e'), 'stays,for ever', 'read');
SELECT is(t.contents('e*'), 'stays,for ever', 'read of a pattern');
SELECT is((SELECT string_agg(content, ',') FROM herald.tail('e', 2)), 'stays,for ever', 'tail reaches past it');
SELECT is((SELECT string_agg(content, ',') FROM herald.conversation('c')), 'stays,for ever', 'conversation');
SELECT is_empty(format('SELECT herald.message_by_id(%L)', :'gone'), 'message_by_id');
SELECT is((SELECT content FROM herald.message_by_id(:'stays')), 'stays', 'message_by_id of one that has time left');
SELECT is((SELECT string_agg(envelope::json ->> 'content', ',' ORDER BY pos) FROM herald.feed('e', 0, 10, 100000, 100000)),
    'stays,for ever', 'feed');
SELECT is(t.contents('e', herald.tail_start('e', 2)), 'stays,for ever', 'tail_start counts only what can be read');
SELECT is(t.contents('e', herald.tail_start('e', 1)), 'for ever', 'tail_start 1');
SELECT t.fails(format('SELECT herald.reply(%L, ''too late'')', :'gone'), 'P0002', :'gone', 'it cannot be replied to');
SELECT is((SELECT string_agg(content, ',') FROM herald.read('e', 0, 1)), 'stays', 'a page of one');
SELECT is(t.contents('e', (SELECT pos FROM herald.messages WHERE content = 'stays'), 1), 'for ever',
    'a page is filled with what can be read');
SELECT is((SELECT (to_pos, why)::text FROM herald.gap('e', 0)), '(,)', 'expiry is no gap: the sender wished it');

SELECT ok((SELECT expires_at = at + interval '1 hour' FROM herald.messages WHERE id = :'stays'), 'expires_at = at + ttl');
SELECT herald.publish('p', '1', ttl => '1 day') \g /dev/null
SELECT is((SELECT expires_at - at FROM herald.messages WHERE topic = 'p'), interval '1 day', 'publish with ttl');
SELECT is(t.contents('gone only'), '', 'before: nothing');
SELECT herald.publish('gone only', '1', ttl => '1 microsecond') \g /dev/null
SELECT is(t.contents('gone only'), '', 'a topic whose only message has expired reads as empty');
SELECT is((SELECT pos FROM herald.feed('gone only', 0, 10, 1000, 1000)), herald.horizon(), 'and its feed is complete up to the horizon');

-- The same by a plain INSERT: expires_at counts, wherever it comes from.
INSERT INTO herald.message (topic, content, at, expires_at) VALUES
    ('i', 'past', now() - interval '2 days', now() - interval '1 day'),
    ('i', 'future', now() - interval '2 days', now() + interval '1 day'),
    ('i', 'infinite', now(), 'infinity');
SELECT is(t.contents('i'), 'future,infinite', 'INSERT with expires_at');
SELECT is((SELECT herald.envelope(m)::jsonb ? 'expires_at' FROM herald.messages m WHERE content = 'infinite'), false,
    'infinity is no time to tell');
SELECT is((SELECT count(expires_us) FROM herald.feed('i', 0, 10, 10000, 10000)), 1::bigint, 'nor for a notifier');
SELECT t.fails($$ INSERT INTO herald.message (topic, content, at, expires_at) VALUES ('i', 'x', now(), now() - interval '1 second') $$,
    '22023', 'expire', 'INSERT of a message that expires before it is sent');
SELECT t.fails($$ INSERT INTO herald.message (topic, content, expires_at) VALUES ('i', 'x', '-infinity') $$, '22023', 'expire',
    'INSERT that expires at -infinity');

SELECT * FROM finish();
