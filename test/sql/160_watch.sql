-- watch and unwatch: row changes of user tables become messages.
BEGIN;
\ir helpers.psql
SELECT plan(68);

-- The payloads on a topic since the last look, in order.
CREATE TEMP TABLE seen (pos bigint DEFAULT 0);
INSERT INTO seen DEFAULT VALUES;
CREATE FUNCTION t.news(topic text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    result jsonb;
    upto bigint;
BEGIN
    SELECT coalesce(jsonb_agg(content::jsonb ORDER BY pos), '[]'), max(pos) INTO result, upto
    FROM herald.messages m WHERE m.topic = news.topic AND pos > (SELECT pos FROM seen);
    UPDATE seen SET pos = greatest(pos, upto);
    RETURN result;
END $$;

CREATE TABLE public.item (id int PRIMARY KEY, name text, price numeric(10, 2), tags text[], doc jsonb, at timestamptz);
SELECT is(herald.watch('item', 'items')::text, '', 'watch');
INSERT INTO item VALUES (1, 'é"x', 1.50, '{a,b}', '{"k": [1]}', '2026-11-21 02:40:00.5+00');
SELECT is(t.news('items'), '[{"event": "insert", "table": "public.item", "new":
    {"id": 1, "name": "é\"x", "price": 1.50, "tags": ["a", "b"], "doc": {"k": [1]}, "at": "2026-11-21T02:40:00.5+00:00"}}]',
    'insert: the new row, with JSON types');
UPDATE item SET name = NULL, tags = NULL, doc = NULL, at = NULL;
SELECT is(t.news('items'), '[{"event": "update", "table": "public.item",
    "new": {"id": 1, "name": null, "price": 1.50, "tags": null, "doc": null, "at": null},
    "old": {"id": 1, "name": "é\"x", "price": 1.50, "tags": ["a", "b"], "doc": {"k": [1]}, "at": "2026-11-21T02:40:00.5+00:00"}}]',
    'update: new and old; NULLs are null');
UPDATE item SET name = NULL;
SELECT is(jsonb_array_length(t.news('items')), 1, 'an update that changes nothing is an update');
DELETE FROM item;
SELECT is(t.news('items'), '[{"event": "delete", "table": "public.item",
    "old": {"id": 1, "name": null, "price": 1.50, "tags": null, "doc": null, "at": null}}]', 'delete: the old row');
INSERT INTO item SELECT n, 'n' || n FROM generate_series(1, 1000) n;
SELECT is((SELECT jsonb_agg(e #> '{new,id}') FROM jsonb_array_elements(t.news('items')) e),
    (SELECT jsonb_agg(n) FROM generate_series(1, 1000) n), 'a thousand rows in one statement, in order');
TRUNCATE item;
SELECT is(t.news('items'), '[]', 'truncate is not watched unless asked for');
SELECT is((SELECT DISTINCT (message_type, is_json, sender, recipient)::text FROM herald.messages WHERE topic = 'items'),
    '(notification,t,,)', 'the messages are like those of publish');
COPY item (id, name) FROM STDIN;
7	copied
8	copied too
\.
SELECT is((SELECT jsonb_agg(e #> '{new,id}') FROM jsonb_array_elements(t.news('items')) e), '[7, 8]', 'COPY');
INSERT INTO item VALUES (7, 'again') ON CONFLICT (id) DO UPDATE SET name = excluded.name;
SELECT is((SELECT jsonb_agg(e -> 'event') FROM jsonb_array_elements(t.news('items')) e), '["update"]', 'ON CONFLICT DO UPDATE is an update');
INSERT INTO item VALUES (7, 'again') ON CONFLICT DO NOTHING;
SELECT is(t.news('items'), '[]', 'ON CONFLICT DO NOTHING is nothing');
SAVEPOINT s;
DELETE FROM item;
ROLLBACK TO s;
SELECT is(t.news('items'), '[]', 'what is undone is not told');

-- Watch again replaces.
SELECT lives_ok($$ SELECT herald.watch('item', 'renamed', 'truncate, delete') $$, 'watch again');
INSERT INTO item (id) VALUES (20);
SELECT is(t.news('items') || t.news('renamed'), '[]', 'the old events and topic are no longer told');
DELETE FROM item WHERE id = 20;
SELECT is((SELECT jsonb_agg(e -> 'event') FROM jsonb_array_elements(t.news('renamed')) e), '["delete"]', 'only the new ones');
TRUNCATE item;
SELECT is(t.news('renamed'), '[{"event": "truncate", "table": "public.item"}]', 'truncate has no rows');
SELECT is(jsonb_array_length(t.news('items')), 0, 'once');
SELECT lives_ok($$ SELECT herald.watch('item', 'items', 'INSERT,  Update') $$, 'events in any case, with spaces');
INSERT INTO item (id) VALUES (21);
UPDATE item SET name = 'u';
DELETE FROM item;
TRUNCATE item;
SELECT is((SELECT jsonb_agg(e -> 'event') FROM jsonb_array_elements(t.news('items')) e), '["insert", "update"]', 'insert and update only');

-- unwatch.
SELECT is(herald.unwatch('item'), true, 'unwatch');
INSERT INTO item (id) VALUES (22);
SELECT is(t.news('items'), '[]', 'is silence');
SELECT is(herald.unwatch('item'), false, 'unwatch of a table that is not watched');

-- Columns.
SELECT herald.watch('item', 'columns', columns => ARRAY['id', 'price']) \g /dev/null
INSERT INTO item (id, name, price) VALUES (30, 'secret', 1);
SELECT is(t.news('columns'), '[{"event": "insert", "table": "public.item", "new": {"id": 30, "price": 1.00}}]', 'only these columns');
UPDATE item SET name = 'other secret', tags = '{x}' WHERE id = 30;
SELECT is(t.news('columns'), '[]', 'an update of other columns is not told');
UPDATE item SET price = 1.0 WHERE id = 30;
SELECT is(t.news('columns'), '[]', 'nor is one that changes none of them');
UPDATE item SET price = 2, name = 'x' WHERE id = 30;
SELECT is(t.news('columns'), '[{"event": "update", "table": "public.item", "new": {"id": 30, "price": 2.00}, "old": {"id": 30, "price": 1.00}}]',
    'an update of one of them is');
UPDATE item SET price = NULL WHERE id = 30;
SELECT is(t.news('columns') #> '{0,new}', '{"id": 30, "price": null}', 'to NULL');
UPDATE item SET price = NULL WHERE id = 30;
SELECT is(t.news('columns'), '[]', 'NULL to NULL is no change');
UPDATE item SET price = 3 WHERE id = 30;
SELECT is(t.news('columns') #> '{0,old}', '{"id": 30, "price": null}', 'from NULL');
DELETE FROM item WHERE id = 30;
SELECT is(t.news('columns'), '[{"event": "delete", "table": "public.item", "old": {"id": 30, "price": 3.00}}]', 'delete');

-- The table changes under the watch.
SELECT herald.watch('item', 'altered') \g /dev/null
ALTER TABLE item DROP COLUMN doc;
ALTER TABLE item ADD COLUMN extra int DEFAULT 5;
INSERT INTO item (id) VALUES (40);
SELECT is(t.news('altered') #> '{0,new}', '{"id": 40, "name": null, "price": null, "tags": null, "at": null, "extra": 5}',
    'a dropped and an added column');
ALTER TABLE item RENAME TO thing;
INSERT INTO thing (id) VALUES (41);
SELECT is(t.news('altered') #>> '{0,table}', 'public.thing', 'a renamed table');
ALTER TABLE thing RENAME TO item;

-- Names that need quotes; generated columns.
CREATE SCHEMA "Odd Schema";
CREATE TABLE "Odd Schema"."Order ""x""" ("Id" int, "two words" text, "it's" int GENERATED ALWAYS AS ("Id" * 2) STORED);
SELECT lives_ok($$ SELECT herald.watch('"Odd Schema"."Order ""x"""', 'Odd: Topic', columns => ARRAY['Id', 'it''s']) $$, 'quoted names');
INSERT INTO "Odd Schema"."Order ""x""" VALUES (4, 'x');
SELECT is(t.news('Odd: Topic'), '[{"event": "insert", "table": "Odd Schema.Order \"x\"", "new": {"Id": 4, "it''s": 8}}]',
    'plain names and generated values in the message');
UPDATE "Odd Schema"."Order ""x""" SET "Id" = 5;
SELECT is(t.news('Odd: Topic') #> '{0,new}', '{"Id": 5, "it''s": 10}', 'generated columns are up to date');
SELECT is(herald.unwatch('"Odd Schema"."Order ""x"""'), true, 'unwatch');

-- Triggers of the user see and change rows first.
CREATE TABLE touched (id int, by text);
CREATE FUNCTION pg_temp.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.by := 'trigger'; RETURN NEW; END $$;
CREATE TRIGGER zzz BEFORE INSERT ON touched FOR EACH ROW EXECUTE FUNCTION pg_temp.touch();
SELECT herald.watch('touched', 'touched') \g /dev/null
INSERT INTO touched VALUES (1, 'me');
SELECT is(t.news('touched') #>> '{0,new,by}', 'trigger', 'the row as it was stored');

-- Partitioned tables, partitions made later too.
CREATE TABLE parted (id int, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
SELECT lives_ok($$ SELECT herald.watch('parted', 'parted') $$, 'a partitioned table');
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (20);
INSERT INTO parted VALUES (1, 'a'), (11, 'b');
SELECT is((SELECT jsonb_agg(e #> '{new,id}') FROM jsonb_array_elements(t.news('parted')) e), '[1, 11]', 'rows of all partitions');
UPDATE parted SET id = 12 WHERE id = 1;
SELECT is((SELECT jsonb_agg(e -> 'event') FROM jsonb_array_elements(t.news('parted')) e), '["delete", "insert"]',
    'a row that moves to another partition leaves one and enters the other');
SELECT is(herald.unwatch('parted'), true, 'unwatch of a partitioned table');
INSERT INTO parted VALUES (2, 'c');
SELECT is(t.news('parted'), '[]', 'is silence');

-- A watched column that is renamed: the writer is told what to do, and nothing is half done.
CREATE TABLE renamed (a int, b int);
SELECT herald.watch('renamed', 'renamed', columns => ARRAY['a']) \g /dev/null
ALTER TABLE renamed RENAME a TO c;
SELECT t.fails('INSERT INTO renamed VALUES (1, 1)', '42703', '"a"', 'a watched column that was renamed');
SELECT herald.watch('renamed', 'renamed', columns => ARRAY['c']) \g /dev/null
INSERT INTO renamed VALUES (1, 1);
SELECT is(t.news('renamed') #> '{0,new}', '{"c": 1}', 'watch again mends it');

-- Values stored out of line.
CREATE TABLE toasted (id int, v text);
ALTER TABLE toasted ALTER v SET STORAGE EXTERNAL;
SELECT herald.watch('toasted', 'toasted', columns => ARRAY['v']) \g /dev/null
INSERT INTO toasted VALUES (1, repeat('a', 50000));
SELECT is(length(t.news('toasted') #>> '{0,new,v}'), 50000, 'a value stored out of line');
UPDATE toasted SET id = 2;
SELECT is(t.news('toasted'), '[]', 'which does not change when its neighbour does');
UPDATE toasted SET v = repeat('b', 50000);
SELECT is((SELECT n #> '{0,old,v}' = to_jsonb(repeat('a', 50000)) AND n #> '{0,new,v}' = to_jsonb(repeat('b', 50000))
           FROM t.news('toasted') n), true, 'an update has both values whole');

-- A watched row too large for a NOTIFY is still a message.
CREATE TABLE large (v text);
SELECT herald.watch('large', 'large') \g /dev/null
INSERT INTO large VALUES (repeat('é', 100000));
SELECT is(length(t.news('large') #>> '{0,new,v}'), 100000, 'a large row');
CREATE TABLE wide ();
SELECT lives_ok($$ SELECT herald.watch('wide', 'wide'); INSERT INTO wide DEFAULT VALUES $$, 'a table without columns');
SELECT is(t.news('wide') #> '{0,new}', '{}', 'has an empty row');

-- The table goes, with its watch.
SELECT lives_ok('DROP TABLE large', 'a watched table can be dropped');

-- Bad input.
CREATE VIEW looked AS SELECT 1 AS x;
CREATE SEQUENCE counted;
SELECT t.fails($$ SELECT herald.watch('looked', 'a') $$, '42809', 'looked', 'a view');
SELECT t.fails($$ SELECT herald.watch('counted', 'a') $$, '42809', 'counted', 'a sequence');
SELECT t.fails($$ SELECT herald.watch('item', 'a', columns => ARRAY['id', 'nothing']) $$, '42703', 'nothing', 'an unknown column');
SELECT t.fails($$ SELECT herald.watch('item', 'a', columns => ARRAY['ctid']) $$, '42703', 'ctid', 'a system column');
SELECT t.fails($$ SELECT herald.watch('item', 'a', columns => ARRAY['doc']) $$, '42703', 'doc', 'a dropped column');
SELECT t.fails($$ SELECT herald.watch('item', 'a', columns => '{}') $$, '22023', 'columns', 'no columns');
SELECT t.fails($$ SELECT herald.watch('item', 'a', columns => ARRAY['id', NULL]) $$, '42703', 'NULL', 'a NULL column');
SELECT t.fails($$ SELECT herald.watch('item', 'a', 'insert,upsert') $$, '22023', 'upsert', 'an unknown event');
SELECT t.fails($$ SELECT herald.watch('item', 'a', '') $$, '22023', 'event', 'no events');
SELECT t.fails($$ SELECT herald.watch('item', 'a', NULL) $$, '22004', 'events', 'NULL events');
SELECT t.fails($$ SELECT herald.watch('item', 'a*') $$, '22023', 'a\*', 'a pattern as topic');
SELECT t.fails($$ SELECT herald.watch('item', 'herald:x') $$, '42939', 'herald:x', 'a reserved topic');
SELECT t.fails($$ SELECT herald.watch('item', NULL) $$, '22004', 'topic', 'NULL topic');
SELECT t.fails($$ SELECT herald.watch(NULL, 'a') $$, '22004', 'watched', 'NULL table');
SELECT t.fails($$ SELECT herald.unwatch(NULL) $$, '22004', 'watched', 'unwatch: NULL table');
SELECT t.fails($$ SELECT herald.watch('no_such_table', 'a') $$, '42P01', 'no_such_table', 'an unknown table', hinted => false);
UPDATE item SET extra = 6 WHERE id = 40;
SELECT is(jsonb_array_length(t.news('altered')), 1, 'a refused watch leaves the old one as it was');

SELECT * FROM finish();
ROLLBACK;
