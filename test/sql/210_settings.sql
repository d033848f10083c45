-- The settings as pg_settings tells of them.
\ir helpers.psql
SELECT plan(11);
SELECT herald.horizon() \g /dev/null

CREATE VIEW t.setting AS SELECT * FROM pg_settings WHERE name LIKE 'herald.%'
    AND name NOT IN ('herald.max_databases', 'herald.max_channels');  -- only with the engine
SELECT results_eq($$ SELECT name, vartype, coalesce(unit, '-'), boot_val, coalesce(min_val, '-'), coalesce(max_val, '-'), context
                     FROM t.setting ORDER BY name COLLATE "C" $$, $$ VALUES
    ('herald.archive_interval', 'integer', 's', '60', '0', '2147483647', 'superuser'),
    ('herald.audit', 'bool', '-', 'off', '-', '-', 'superuser'),
    ('herald.idempotency_window', 'integer', 's', '86400', '0', '2147483647', 'user'),
    ('herald.inline_limit', 'integer', 'kB', '1024', '1', '1048576', 'user'),
    ('herald.maintain', 'bool', '-', 'on', '-', '-', 'sighup'),
    ('herald.max_hold', 'integer', 'ms', '20', '1', '60000', 'sighup'),
    ('herald.max_payload', 'integer', 'kB', '1048576', '1', '2147483647', 'superuser'),
    ('herald.notify', 'bool', '-', 'on', '-', '-', 'superuser'),
    ('herald.segment_age', 'integer', 's', '86400', '1', '2147483647', 'superuser'),
    ('herald.segment_size', 'integer', 'kB', '1048576', '64', '2147483647', 'superuser'),
    ('herald.upload_timeout', 'integer', 's', '3600', '1', '2147483647', 'superuser') $$, 'type, unit, default, bounds and who may set them');
SELECT is_empty($$ SELECT name FROM t.setting WHERE coalesce(short_desc, '') !~ '\.$' OR coalesce(extra_desc, '') !~ '\.$' $$,
    'each is described in sentences');
SELECT is_empty($$ SELECT name FROM t.setting WHERE setting <> boot_val $$, 'nothing is changed');
SELECT is(current_setting('herald.max_hold'), '20ms', 'max_hold is shown with its unit');
SELECT is(current_setting('herald.idempotency_window'), '1d', 'the window too');

SELECT throws_ok(format('SET herald.idempotency_window = %L', value), '22023', NULL, 'idempotency_window: ' || value)
FROM unnest(ARRAY['-1', '1 parsec', 'on']) value;
SELECT throws_ok('SET herald.notify = 7', '22023', NULL, 'notify: 7');
SELECT throws_ok('SET herald.max_hold = 30', '55P02', NULL, 'max_hold is the server''s');
SELECT throws_ok('SET herald.no_such_setting = 1', '42602', NULL, 'an unknown setting is refused');

SELECT * FROM finish();
