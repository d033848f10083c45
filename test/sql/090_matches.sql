-- matches(): * is any run of characters, ? is one character, everything else is itself.
BEGIN;
\ir helpers.psql
SELECT plan(62);

SELECT is(herald.matches(pattern, topic), wanted, format('%s %s %s', left(pattern, 24), CASE WHEN wanted THEN '~' ELSE '!~' END, left(topic, 24)))
FROM (VALUES
    ('a', 'a', true), ('a', 'b', false), ('a', 'A', false), ('a', 'aa', false), ('aa', 'a', false),
    ('*', 'a', true), ('*', 'a:b:c', true), ('**', 'a', true), ('*', '😀', true),
    ('?', 'a', true), ('?', 'ab', false), ('?', 'é', true), ('?', '主', true), ('?', '😀', true), ('??', '😀', false),
    ('??', 'é😀', true), ('a?c', 'abc', true), ('a?c', 'a:c', true), ('a?c', 'ac', false), ('a?c', 'a😀c', true),
    ('a*', 'a', true), ('a*', 'abc', true), ('a*', 'ba', false), ('*a', 'a', true), ('*a', 'bca', true), ('*a', 'ab', false),
    ('a*c', 'ac', true), ('a*c', 'abc', true), ('a*c', 'abcbc', true), ('a*c', 'abcb', false), ('a*b*c', 'aXbYc', true),
    ('a*b*c', 'aXcYb', false), ('*b*', 'abc', true), ('*b*', 'ac', false), ('a**c', 'abc', true), ('a*?c', 'abc', true),
    ('a*?c', 'ac', false), ('a?*c', 'a1c', true), ('*??', 'a', false), ('*??', 'ab', true), ('??*', 'ab', true),
    ('agent:*:inbox', 'agent:42:inbox', true), ('agent:*:inbox', 'agent::inbox', true),
    ('agent:*:inbox', 'agent:a:b:inbox', true), ('agent:*:inbox', 'agent:inbox', false), ('agent:*', 'agent', false),
    ('agent:*', 'agent:', true), ('workspace:?', 'workspace:12', false), ('a.c', 'abc', false), ('a%', 'ab', false),
    ('a_', 'ab', false), ('a+', 'aa', false), ('(a)', 'a', false), ('^a$', 'a', false), ('a|b', 'a', false),
    ('é*', 'éa', true), ('*é', 'aé', true), ('*ab', 'aab', true), ('*aab', 'aaab', true)
) AS c(pattern, topic, wanted);

-- Many stars against a long name: quadratic at worst, never exponential.
SELECT is(herald.matches(repeat('a*', 100), repeat('a', 199) || 'b'), true, 'a hundred stars that match');
SELECT is(herald.matches(repeat('*a', 99) || '*b', repeat('a', 200)), false, 'a hundred stars that do not');

SELECT ok(herald.matches(NULL, 'a') IS NULL AND herald.matches('a', NULL) IS NULL, 'NULL gives NULL');

SELECT * FROM finish();
ROLLBACK;
