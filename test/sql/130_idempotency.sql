-- idempotency_key: the second send with the same key in the same topic within the window returns
-- the first message's id and stores nothing.
\ir helpers.psql
SELECT plan(30);

SELECT herald.send_message('s', NULL, 'one', topic => 'i', idempotency_key => 'k') AS first \gset
SELECT is(herald.send_message('s', NULL, 'two', topic => 'i', idempotency_key => 'k'), :'first', 'the second returns the first''s id');
SELECT is(t.contents('i'), 'one', 'and stores nothing');
SELECT is(herald.send_message('other', 'r', 'three', 'command', topic => 'i', priority => 3, idempotency_key => 'k'), :'first',
    'only topic and key count');
SELECT is(herald.publish('i', '4', idempotency_key => 'k'), :'first', 'publish shares the keys');
SELECT isnt(herald.send_message('s', NULL, 'other topic', topic => 'j', idempotency_key => 'k'), :'first', 'another topic: another message');
SELECT isnt(herald.send_message('s', NULL, 'other key', topic => 'i', idempotency_key => 'K'), :'first', 'another key: another message');
SELECT isnt(herald.send_message('s', NULL, 'no key', topic => 'i'), :'first', 'no key: another message');
SELECT isnt(herald.send_message('s', NULL, 'no key', topic => 'i'), :'first', 'every time');
SELECT is(t.contents('i'), 'one,other key,no key,no key', 'what is stored');
SELECT is(t.contents('j'), 'other topic', 'in the other topic too');
SELECT isnt(herald.send_message('s', NULL, 'empty key', topic => 'e', idempotency_key => ''), NULL, 'an empty key');
SELECT is((SELECT count(DISTINCT herald.send_message('s', NULL, 'many', topic => 'many', idempotency_key => 'm')) FROM generate_series(1, 100)),
    1::bigint, 'a hundred times in one statement');
SELECT is(t.contents('many'), 'many', 'is stored once');

-- Bad arguments stay errors even when the key is known.
SELECT t.fails($$ SELECT herald.send_message('s', NULL, NULL, topic => 'i', idempotency_key => 'k') $$, '22004', 'content',
    'a repeated send is checked like the first');

-- Rolled back first: it never was.
BEGIN;
SELECT herald.send_message('s', NULL, 'undone', topic => 'r', idempotency_key => 'k') AS undone \gset
SELECT is(herald.send_message('s', NULL, 'same transaction', topic => 'r', idempotency_key => 'k'), :'undone', 'known in its own transaction');
ROLLBACK;
SELECT isnt(herald.send_message('s', NULL, 'after rollback', topic => 'r', idempotency_key => 'k'), :'undone', 'a rollback frees the key');
SELECT is(t.contents('r'), 'after rollback', 'the second is stored');
BEGIN;
SAVEPOINT s;
SELECT herald.send_message('s', NULL, 'undone', topic => 'sp', idempotency_key => 'k') \g /dev/null
ROLLBACK TO s;
SELECT herald.send_message('s', NULL, 'after savepoint', topic => 'sp', idempotency_key => 'k') \g /dev/null
COMMIT;
SELECT is(t.contents('sp'), 'after savepoint', 'so does a savepoint');

-- The window.
SELECT is(current_setting('herald.idempotency_window'), '1d', 'a day by default');
INSERT INTO herald.message (topic, content, at, idempotency_key) VALUES
    ('w', 'two days old', now() - interval '2 days', 'old'), ('w', 'two hours old', now() - interval '2 hours', 'young');
SELECT is(t.contents('w'), 'two days old,two hours old', 'two messages with keys');
SELECT isnt(herald.send_message('s', NULL, 'old again', topic => 'w', idempotency_key => 'old'), NULL, 'outside the window');
SELECT is((t.row(herald.send_message('s', NULL, 'young again', topic => 'w', idempotency_key => 'young'))).content, 'two hours old',
    'inside the window');
SET herald.idempotency_window = '1 h';
SELECT is((t.row(herald.send_message('s', NULL, 'young outside', topic => 'w', idempotency_key => 'young'))).content, 'young outside',
    'a smaller window');
SET herald.idempotency_window = 0;
SELECT is((t.row(herald.send_message('s', NULL, 'third', topic => 'w', idempotency_key => 'young'))).content, 'third', 'no window: no memory');
SET herald.idempotency_window = 604800;
SELECT is((t.row(herald.send_message('s', NULL, 'x', topic => 'w', idempotency_key => 'old'))).content, 'two days old',
    'a larger window: the first of that time');
SELECT is(t.contents('w'), 'two days old,two hours old,old again,young outside,third', 'what is stored');
RESET herald.idempotency_window;
SELECT throws_ok('SET herald.idempotency_window = -1', '22023', NULL, 'a negative window is refused');

-- In a repeatable read transaction the newest keys count, not those of its snapshot.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT herald.send_message('s', NULL, 'rr', topic => 'rr', idempotency_key => 'k') AS rr \gset
SELECT is(herald.send_message('s', NULL, 'rr', topic => 'rr', idempotency_key => 'k'), :'rr', 'REPEATABLE READ: its own keys');
COMMIT;

-- A key of a message that drop_topic took away is free: the id of nothing helps nobody.
SELECT herald.drop_topic('i') \g /dev/null
SELECT isnt(herald.send_message('s', NULL, 'new life', topic => 'i', idempotency_key => 'k'), :'first', 'a dropped topic forgets its keys');
SELECT is(t.contents('i'), 'new life', 'the new message is stored');

SELECT * FROM finish();
