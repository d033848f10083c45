-- reply: to the sender's inbox, in the same conversation, pointing at the message.
\ir helpers.psql
SELECT plan(29);

SELECT herald.send_message('pm', 'dev', 'question?', 'request', conversation => 'run-1', workspace => 'w') AS question \gset
CREATE TEMP TABLE answer AS SELECT r.* FROM t.row(herald.reply(:'question', 'answer')) r;
SELECT is((SELECT topic FROM answer), 'agent:pm:inbox', 'goes to the inbox of the sender');
SELECT is((SELECT recipient FROM answer), 'pm', 'recipient: the original''s sender');
SELECT is((SELECT sender FROM answer), 'dev', 'sender: the original''s recipient');
SELECT is((SELECT message_type FROM answer), 'response', 'type: response');
SELECT is((SELECT conversation FROM answer), 'run-1', 'same conversation');
SELECT is((SELECT reply_to FROM answer), :'question', 'reply_to');
SELECT is((SELECT priority FROM answer), 0::smallint, 'priority: its own');
SELECT is((SELECT string_agg(content, ',') FROM herald.conversation('run-1')), 'question?,answer', 'read as a conversation');

CREATE TEMP TABLE full_one AS SELECT r.* FROM t.row(herald.reply(message => :'question', content => 'all', sender => 'qa',
    message_type => 'command', metadata => '{"m": 1}', priority => 4, ordering_key => 'o', ttl => '1 hour',
    idempotency_key => 'k')) r;
SELECT is((SELECT (topic, sender, recipient, message_type, metadata, priority, ordering_key, expires_at - at,
                   idempotency_key, conversation)::text FROM full_one),
    ROW('agent:pm:inbox', 'qa', 'pm', 'command', '{"m": 1}'::jsonb, 4, 'o', interval '1 hour', 'k', 'run-1')::text,
    'every option');

-- A reply to a reply goes back; a chain keeps its conversation.
SELECT id AS answer FROM answer \gset
SELECT is((SELECT (topic, sender, recipient)::text FROM t.row(herald.reply(:'answer', 'thanks'))),
    '(agent:dev:inbox,pm,dev)', 'a reply to a reply');
SELECT is((SELECT count(*) FROM herald.conversation('run-1')), 4::bigint, 'all in one conversation');

-- A broadcast has no recipient: who replies says so.
SELECT herald.send_message('pm', NULL, 'all hands', conversation => 'stand-up') AS broadcast \gset
SELECT is((SELECT (topic, sender, recipient)::text FROM t.row(herald.reply(:'broadcast', 'here', sender => 'qa'))),
    '(agent:pm:inbox,qa,pm)', 'a reply to a broadcast');
SELECT t.fails(format('SELECT herald.reply(%L, ''who?'')', :'broadcast'), '22004', 'sender', 'a reply to a broadcast needs a sender');
SELECT is((t.row(herald.reply(herald.send_message('pm', 'dev', 'c'), 'c'))).conversation, NULL, 'no conversation stays none');

SELECT t.fails($$ SELECT herald.reply('01980000-0000-7000-8000-00000000002a', 'c') $$, 'P0002',
    '01980000-0000-7000-8000-00000000002a', 'an unknown message');
SELECT t.fails($$ SELECT herald.reply('f81d4fae-7dec-11d0-a765-00a0c91e6bf6', 'c') $$, 'P0002',
    'f81d4fae-7dec-11d0-a765-00a0c91e6bf6', 'an id that is no UUIDv7');
SELECT t.fails($$ SELECT herald.reply(NULL, 'c') $$, '22004', 'message', 'NULL message');
SELECT t.fails(format('SELECT herald.reply(%L, NULL)', :'question'), '22004', 'content', 'NULL content');
SELECT t.fails(format('SELECT herald.reply(%L, ''c'', priority => 10)', :'question'), '22023', 'priority.*10', 'priority 10');
SELECT t.fails(format('SELECT herald.reply(%L, ''c'', metadata => ''[]'')', :'question'), '22023', 'metadata', 'metadata is an array');
SELECT t.fails(format('SELECT herald.reply(%L, ''c'', ttl => ''0'')', :'question'), '22023', '', 'ttl zero');
SELECT t.fails(format('SELECT herald.reply(%L, ''c'', sender => repeat(''s'', 201))', :'question'), '22001', 'sender', 'long sender');
SELECT t.fails(format('SELECT herald.reply(%L, ''c'', message_type => repeat(''s'', 201))', :'question'), '22001', 'message_type', 'long type');
SELECT t.fails(format('SELECT herald.reply(%L, ''c'', ordering_key => repeat(''s'', 201))', :'question'), '22001', 'ordering_key', 'long ordering_key');
SELECT t.fails(format('SELECT herald.reply(%L, ''c'', idempotency_key => repeat(''s'', 201))', :'question'), '22001', 'idempotency_key', 'long key');

-- Nowhere to reply to.
SELECT herald.publish('orders', '{}') AS anonymous \gset
SELECT t.fails(format('SELECT herald.reply(%L, ''c'')', :'anonymous'), '22023', 'sender', 'a message without sender');

-- Idempotency: the key belongs to the inbox the reply goes to.
SELECT is(herald.reply(:'question', 'again', idempotency_key => 'k'), (SELECT id FROM full_one), 'the same reply twice is one');
SELECT is((SELECT count(*) FROM herald.conversation('run-1')), 4::bigint, 'nothing more is stored');
SELECT ok((SELECT bool_and(a.pos > q.pos) FROM herald.messages a JOIN herald.messages q ON q.id = a.reply_to),
    'replies come after what they reply to');

SELECT * FROM finish();
