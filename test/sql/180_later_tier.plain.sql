-- What needs the engine says so: 0A000, with what was asked for in the message and a hint.
BEGIN;
\ir helpers.psql
SELECT plan(15);

SELECT t.fails($$ SELECT herald.send_message('s', 'r', 'c', deliver_at => now() + interval '1 hour') $$, '0A000', 'deliver_at',
    'send_message: deliver_at');
SELECT t.fails($$ SELECT herald.send_message('s', 'r', 'c', deliver_at => now() - interval '1 hour') $$, '0A000', 'deliver_at',
    'send_message: deliver_at in the past');
SELECT t.fails($$ SELECT herald.publish('a', '1', deliver_at => now()) $$, '0A000', 'deliver_at', 'publish: deliver_at');
SELECT t.fails($$ SELECT herald.send_batch('[{"sender": "s", "content": "c", "deliver_at": "2099-01-01T00:00:00Z"}]') $$, '0A000',
    'deliver_at', 'send_batch: deliver_at');
SELECT ok(e.message || ' ' || e.context ~ '(messages|element)\W*2\M', 'send_batch: the index of the element')
FROM t.error_of($$ SELECT herald.send_batch('[{"sender": "s", "content": "1"}, {"sender": "s", "content": "2"},
    {"sender": "s", "content": "c", "deliver_at": "2099-01-01"}]') $$) e;
SELECT herald.send_message('s', 'r', 'c') AS id \gset
SELECT t.fails(format('SELECT herald.reply(%L, ''c'', deliver_at => now())', :'id'), '0A000', 'deliver_at', 'reply: deliver_at');
SELECT t.fails($$ SELECT herald.wait_for('a', 0, '1 second') $$, '0A000', 'wait_for', 'wait_for');
SELECT t.fails(format('SELECT herald.cancel(%L)', :'id'), '0A000', 'cancel', 'cancel');
SELECT alike((t.error_of($$ SELECT herald.wait_for('a', 0, '1 second') $$)).hint, '%shared_preload_libraries%',
    'the hint names the setting');
SELECT is((t.error_of($$ SELECT herald.wait_for('a', 0, '0') $$)).state, '0A000', 'wait_for with no time');

-- With NULL they are as if not given.
SELECT isnt(herald.send_message('s', 'r', 'c', deliver_at => NULL), NULL, 'send_message');
SELECT isnt(herald.publish('a', '1', deliver_at => NULL), NULL, 'publish');
SELECT isnt(herald.reply(:'id', 'c', deliver_at => NULL), NULL, 'reply');
SELECT is((SELECT count(*) FROM herald.send_batch('[{"sender": "s", "content": "c", "deliver_at": null}]')), 1::bigint, 'send_batch');

SELECT throws_ok('SET herald.no_such_setting = 1', NULL, NULL, 'the settings herald.… are known ones only');

SELECT * FROM finish();
ROLLBACK;
