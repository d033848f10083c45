-- drop_topic with the engine: what the dropping transaction itself sent before stays dropped, also if
-- that transaction is overtaken and its messages get new positions.
\ir helpers.psql
CREATE EXTENSION dblink;
SELECT plan(8);
SELECT dblink_connect('other', t.conninfo()) \g /dev/null

-- A message of another session, which is read: so whoever is open has been overtaken.
CREATE FUNCTION t.overtake() RETURNS text LANGUAGE sql AS $$
    SELECT content FROM dblink('other', $sql$ SELECT herald.send_message('o', NULL, 'other', topic => 'd') $sql$) AS s(id uuid),
        LATERAL dblink('other', format($sql$ SELECT content FROM herald.wait_for('d', %s, '30 seconds') WHERE id = %L $sql$,
            (SELECT coalesce(max(r.pos), 0) FROM herald.read('d') r WHERE r.id <> s.id), s.id)) AS w(content text) $$;

BEGIN;
SELECT herald.send_message('s', NULL, 'before', topic => 'd') \g /dev/null
SELECT herald.drop_topic('d') \g /dev/null
SELECT is(t.overtake(), 'other', 'overtaken after the drop');
SELECT is((SELECT string_agg(state, ',') FROM herald.senders), 'late', 'it is late');
SELECT herald.send_message('s', NULL, 'after', topic => 'd') \g /dev/null
COMMIT;
SELECT is(t.contents('d'), 'other,after', 'what it sent before its drop is gone');
SELECT is((SELECT messages FROM herald.topics WHERE name = 'd'), 2::bigint, 'and not counted');

BEGIN;
SELECT herald.send_message('s', NULL, 'before', topic => 'd') \g /dev/null
SELECT is(t.overtake(), 'other', 'overtaken before the drop');
SELECT herald.drop_topic('d') \g /dev/null
SELECT herald.send_message('s', NULL, 'after', topic => 'd') \g /dev/null
COMMIT;
SELECT is(t.contents('d'), 'after', 'all that was sent before the drop is gone');

BEGIN;
SELECT herald.send_message('s', NULL, 'kept', topic => 'd') \g /dev/null
SAVEPOINT s;
SELECT herald.drop_topic('d') \g /dev/null
ROLLBACK TO s;
SELECT is(t.overtake(), 'other', 'overtaken after a drop that was rolled back');
COMMIT;
SELECT is(t.contents('d'), 'after,other,kept', 'nothing is gone');

SELECT dblink_disconnect('other') \g /dev/null
SELECT * FROM finish();
