-- send_message: where a message goes, what is stored, and what is refused.
BEGIN;
\ir helpers.psql
SELECT plan(65);

-- Routing: the given topic, else the recipient's inbox, else the workspace, else broadcast.
SELECT is((t.row(herald.send_message('pm', 'dev', 'c'))).topic, 'agent:dev:inbox', 'recipient: the inbox');
SELECT is((t.row(herald.send_message('pm', 'dev', 'c', workspace => 'w1'))).topic, 'agent:dev:inbox',
          'recipient and workspace: the inbox');
SELECT is((t.row(herald.send_message('pm', NULL, 'c', workspace => 'w1'))).topic, 'workspace:w1', 'workspace only');
SELECT is((t.row(herald.send_message('pm', NULL, 'c'))).topic, 'broadcast', 'neither: broadcast');
SELECT is((t.row(herald.send_message('pm', 'dev', 'c', topic => 'plan:7', workspace => 'w1'))).topic, 'plan:7',
          'the given topic wins');
SELECT is((t.row(herald.send_message('pm', NULL, 'c', topic => 'plan:7'))).topic, 'plan:7', 'topic without recipient');

-- Defaults.
CREATE TEMP TABLE plain AS SELECT r.* FROM t.row(herald.send_message('pm', 'dev', 'hello')) r;
SELECT is((SELECT sender || '>' || recipient || ':' || content FROM plain), 'pm>dev:hello', 'sender, recipient, content');
SELECT is((SELECT message_type FROM plain), 'notification', 'type: notification');
SELECT is((SELECT priority FROM plain), 0::smallint, 'priority: 0');
SELECT is((SELECT is_json FROM plain), false, 'text, not JSON');
SELECT ok((SELECT metadata IS NULL AND conversation IS NULL AND reply_to IS NULL AND ordering_key IS NULL
              AND expires_at IS NULL AND workspace IS NULL AND idempotency_key IS NULL FROM plain),
          'everything not given is NULL');
SELECT ok((SELECT at BETWEEN now() AND clock_timestamp() FROM plain), 'at: the time of the send');
SELECT ok((SELECT pos > 0 AND pos < 9007199254740992 FROM plain), 'pos: positive, below 2^53');

-- Every option.
CREATE TEMP TABLE full_one AS
    SELECT r.* FROM t.row(herald.send_message(sender => 'pm', recipient => 'dev', content => 'all',
        message_type => 'command', metadata => '{"k": [1, {"n": null}]}', conversation => 'run-9',
        topic => 'plan:9', workspace => 'w', reply_to => (SELECT id FROM plain), priority => 9,
        ordering_key => 'order-1', ttl => '1 hour', idempotency_key => 'key-1')) r;
SELECT is((SELECT message_type FROM full_one), 'command', 'message_type');
SELECT is((SELECT metadata FROM full_one), '{"k": [1, {"n": null}]}'::jsonb, 'metadata');
SELECT is((SELECT conversation FROM full_one), 'run-9', 'conversation');
SELECT is((SELECT workspace FROM full_one), 'w', 'workspace is kept even when the topic is given');
SELECT is((SELECT reply_to FROM full_one), (SELECT id FROM plain), 'reply_to');
SELECT is((SELECT priority FROM full_one), 9::smallint, 'priority');
SELECT is((SELECT ordering_key FROM full_one), 'order-1', 'ordering_key');
SELECT is((SELECT expires_at - at FROM full_one), interval '1 hour', 'ttl: expires_at counts from at');
SELECT is((SELECT idempotency_key FROM full_one), 'key-1', 'idempotency_key');
SELECT is((SELECT content FROM herald.message_by_id((SELECT id FROM full_one))), 'all', 'and it is read by its id');

SELECT isnt(herald.send_message('pm', 'dev', 'c', message_type => 'anything at all'), NULL, 'any message type');
SELECT is((t.row(herald.send_message('pm', 'dev', ''))).content, '', 'empty content is content');
SELECT is(length((t.row(herald.send_message('pm', 'dev', repeat('é', 500000)))).content), 500000,
          'half a million characters come back');
SELECT is((t.row(herald.send_message('pm', 'dev', 'c', reply_to => gen_random_uuid()))).content, 'c',
          'reply_to may name a message that is not here');

-- Lengths count characters, not bytes.
SELECT isnt(herald.send_message(repeat('é', 200), NULL, 'c', conversation => repeat('é', 200),
    message_type => repeat('é', 200), ordering_key => repeat('é', 200), idempotency_key => repeat('é', 200)), NULL,
    '200 characters in every field');
SELECT is((t.row(herald.send_message('pm', repeat('é', 188), 'c'))).topic, 'agent:' || repeat('é', 188) || ':inbox',
    'a recipient whose inbox has exactly 200 characters');

-- Bad input: state, offending value, hint, nothing stored.
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', NULL) $$, '22004', 'content', 'NULL content');
SELECT t.fails($$ SELECT herald.send_message(repeat('s', 201), 'dev', 'c') $$, '22001', 'sender', 'sender of 201 characters');
SELECT t.fails($$ SELECT herald.send_message('pm', repeat('é', 201), 'c', topic => 'a') $$, '22001', 'recipient',
    'recipient of 201 characters');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', conversation => repeat('s', 201)) $$, '22001',
    'conversation', 'conversation of 201 characters');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', message_type => repeat('s', 201)) $$, '22001',
    'message_type', 'message_type of 201 characters');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', ordering_key => repeat('s', 201)) $$, '22001',
    'ordering_key', 'ordering_key of 201 characters');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', idempotency_key => repeat('s', 201)) $$, '22001',
    'idempotency_key', 'idempotency_key of 201 characters');
SELECT t.fails(format($$ SELECT herald.send_message('pm', 'dev', 'c', priority => %s) $$, p), '22023',
    'priority.*' || p, 'priority ' || p) FROM unnest(ARRAY['-1', '10', '32768', '2147483647', '-2147483648']) p;
SELECT t.fails(format($$ SELECT herald.send_message('pm', 'dev', 'c', metadata => %L) $$, m), '22023', 'metadata',
    'metadata is ' || m) FROM unnest(ARRAY['[]', '"text"', '1', 'null', 'true']) m;
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', ttl => '0') $$, '22023', 'expire|ttl', 'ttl zero');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', ttl => '-1 second') $$, '22023', 'expire|ttl',
    'ttl in the past');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', ttl => '1 month -40 days') $$, '22023', 'expire|ttl',
    'ttl of mixed signs that comes out in the past');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', topic => '') $$, '22023', 'topic', 'empty topic');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', topic => 'a*') $$, '22023', 'a\*', 'pattern as topic');
SELECT t.fails($$ SELECT herald.send_message('pm', 'd*v', 'c') $$, '22023', 'd\*v', 'recipient that makes a bad topic');
SELECT t.fails($$ SELECT herald.send_message('pm', repeat('x', 189), 'c') $$, '22023', 'xxx',
    'recipient that makes a topic of 201 characters');
SELECT t.fails($$ SELECT herald.send_message('pm', NULL, 'c', workspace => E'w\n') $$, '22023', 'control',
    'workspace that makes a bad topic');
SELECT t.fails($$ SELECT herald.send_message('pm', '', 'c') $$, '22023', 'recipient', 'empty recipient');
SELECT t.fails($$ SELECT herald.send_message('pm', NULL, 'c', workspace => '') $$, '22023', 'workspace', 'empty workspace');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', message_type => '') $$, '22023', 'message_type', 'empty message_type');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', message_type => NULL) $$, '22004', 'message_type', 'NULL message_type');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', priority => NULL) $$, '22004', 'priority', 'NULL priority');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', ttl => '300000 years') $$, '22008', 'timestamp|expire|ttl',
    'ttl beyond the calendar', hinted => false);
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', topic => 'herald') $$, '42939', 'herald',
    'topic herald is reserved');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', topic => 'herald:x') $$, '42939', 'herald:x',
    'topics beginning herald: are reserved');
SELECT t.fails($$ SELECT herald.send_message('pm', 'dev', 'c', metadata => '{bad') $$, '22P02', 'json',
    'metadata that is not JSON', hinted => false);

-- In a plpgsql block with a handler, the next send is as good as if the failed one had never been.
SELECT lives_ok($$ DO $do$ BEGIN
    BEGIN PERFORM herald.send_message('pm', 'dev', NULL); EXCEPTION WHEN null_value_not_allowed THEN NULL; END;
    PERFORM herald.send_message('pm', NULL, 'after the error', topic => 'recovered');
END $do$ $$, 'a caught error is over');
SELECT is((SELECT count(*) FROM herald.messages WHERE topic = 'recovered'), 1::bigint, 'and exactly one message is stored');

SELECT * FROM finish();
ROLLBACK;
