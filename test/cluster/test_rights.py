"""What somebody without grants can do with the bus: nothing. And what a hostile search_path can do to
somebody with all rights: nothing either."""

import json

import psycopg
import pytest
from psycopg import sql

DENIED = psycopg.errors.InsufficientPrivilege
# TRUNCATE of a view and the like fail before anybody's rights are looked at.
IMPOSSIBLE = (psycopg.errors.WrongObjectType, psycopg.errors.ObjectNotInPrerequisiteState)

# Shadows of what the bus may use by a name without a schema. Each one gives itself away.
SHADOWED_OPERATORS = [
    ("=", "text", "text"), ("<>", "text", "text"), ("<", "text", "text"), (">", "text", "text"),
    ("||", "text", "text"), ("~~", "text", "text"), ("~", "text", "text"),
    ("=", "bigint", "bigint"), ("<>", "bigint", "bigint"), ("<", "bigint", "bigint"),
    (">", "bigint", "bigint"), ("<=", "bigint", "bigint"), (">=", "bigint", "bigint"),
    ("+", "bigint", "bigint"), ("-", "bigint", "bigint"), ("+", "bigint", "integer"),
    ("*", "bigint", "bigint"), ("/", "bigint", "bigint"), ("-", "bigint", "integer"),
    ("=", "integer", "integer"), ("<", "integer", "integer"), (">", "integer", "integer"),
    ("=", "uuid", "uuid"), ("=", "oid", "oid"), ("=", "name", "name"), ("=", "name", "text"),
    ("<", "timestamptz", "timestamptz"), (">", "timestamptz", "timestamptz"),
    ("+", "timestamptz", "interval"), ("-", "timestamptz", "interval"),
    ("->", "jsonb", "text"), ("->>", "jsonb", "text"), ("||", "text[]", "text[]"),
]  # fmt: skip
SHADOWED_FUNCTIONS = [
    ("now", ""), ("clock_timestamp", ""), ("statement_timestamp", ""), ("gen_random_uuid", ""),
    ("length", "text"), ("lower", "text"), ("btrim", "text"), ("octet_length", "text"),
    ("string_to_array", "text, text"), ("cardinality", "text[]"), ("quote_literal", "text"),
    ("nextval", "regclass"), ("setval", "regclass, bigint, boolean"), ("jsonb_typeof", "jsonb"),
    ("to_jsonb", "text"), ("current_setting", "text"), ("array_to_string", "text[], text"),
    ("pg_notify", "text, text"), ("format", "text, text, text"),
]  # fmt: skip

EVERY_CALL = [
    "SELECT herald.send_message('a', 'b', 'hello', metadata => '{\"a\": 1}', ttl => '1 hour',"
    " conversation => 'c', idempotency_key => 'k')",
    "SELECT herald.send_message('a', 'b', 'hello', idempotency_key => 'k')",
    "SELECT herald.publish('news', '{\"a\": 1}', idempotency_key => 'k')",
    "SELECT herald.send_batch('[{\"sender\": \"a\", \"content\": \"x\", \"ttl\": \"1 hour\"}]')",
    "SELECT herald.publish_batch('news', ARRAY['1', '2']::jsonb[])",
    "SELECT herald.reply(id, 'yes') FROM herald.tail('agent:b:inbox', 1)",
    "INSERT INTO herald.message (topic, content) VALUES ('news', 'inserted')",
    "SELECT * FROM herald.read('*')", "SELECT * FROM herald.read('news')",
    "SELECT * FROM herald.tail('*')", "SELECT * FROM herald.tail('news')",
    "SELECT * FROM herald.conversation('c')",
    "SELECT herald.message_by_id(id) FROM herald.tail('news', 1)",
    "SELECT herald.envelope(m), herald.envelope(m, 10) FROM herald.messages m",
    "SELECT * FROM herald.messages", "SELECT * FROM herald.topics", "SELECT herald.horizon()",
    "SELECT * FROM herald.feed('*', 0, 10, 10000, 100)", "SELECT herald.gap('*', 0)",
    "SELECT herald.tail_start('*', 3)", "SELECT herald.matches('a*', 'ab'), herald.channel('a')",
    "SELECT herald.create_topic('made', 'here')",
    "SELECT herald.create_topic('made', if_not_exists => true)",
    "SELECT herald.watch('public.item', 'items', 'insert, update,delete,truncate', ARRAY['name'])",
    "INSERT INTO public.item VALUES (1, 'one')", "UPDATE public.item SET name = 'two'",
    "DELETE FROM public.item", "TRUNCATE public.item", "SELECT herald.unwatch('public.item')",
    "SELECT herald.send_payload(herald.put_payload('small', 'text/plain'), 'news')",
    "WITH up AS (SELECT herald.payload_open('text/plain', 'gzip', 3) AS id)"
    " SELECT herald.payload_write(id, 'abc', 0), herald.payload_close(id, sha256('abc')) FROM up",
    "SELECT herald.payload_read(payload), herald.payload_stored(payload, 0, 10)"
    " FROM herald.messages WHERE payload IS NOT NULL",
    "SELECT herald.payload_abort(herald.payload_open())",
    "SELECT herald.send_message('a', 'b', repeat('large', 1000000))",
    "SELECT * FROM herald.payloads", "SELECT * FROM herald.payload_segments",
    "SELECT herald.drop_topic('news')", "SELECT herald.maintain()", "SELECT herald.start_segment()",
    "SELECT herald.send_message('a', NULL, 'in the second segment')",
]  # fmt: skip


@pytest.fixture
def owner(cluster, database):
    """A superuser on a database with one message and one table."""
    with cluster.connect(database) as connection:
        connection.execute("SELECT herald.send_message('a', 'b', 'secret')")
        connection.execute("CREATE TABLE public.item (number int, name text)")
        yield connection


@pytest.fixture
def stranger(cluster, database, owner):
    """A role that may log in and make objects of its own, and nothing else."""
    owner.execute("CREATE ROLE stranger LOGIN")
    owner.execute("CREATE SCHEMA own AUTHORIZATION stranger")
    try:
        with cluster.connect(database, user="stranger") as connection:
            yield connection
    finally:
        owner.execute("DROP OWNED BY stranger CASCADE; DROP ROLE stranger")


def functions(owner):
    """Every function of the bus with a call of it. (The arguments are not NULL where the function
    is strict: the planner turns such a call into NULL without asking for the right to make it.)"""
    return owner.execute(
        """
        SELECT p.oid::regprocedure::text, format('SELECT herald.%I(%s)', proname, (
            SELECT string_agg(
                CASE WHEN NOT proisstrict THEN 'NULL'
                     WHEN typtype = 'c' THEN 'ROW(' || repeat('NULL,', 17) || 'NULL)'
                     WHEN typname = 'uuid' THEN 'gen_random_uuid()'
                     ELSE quote_literal('1') END || '::' || format_type(type, NULL),
                ', ' ORDER BY n)
            FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS argument (type, n)
            JOIN pg_type AS t ON t.oid = type))
        FROM pg_proc AS p
        WHERE pronamespace = 'herald'::regnamespace AND prorettype <> 'trigger'::regtype
        ORDER BY 1
        """
    ).fetchall()


def relations(owner):
    return owner.execute(
        "SELECT oid::regclass::text, relkind FROM pg_class"
        " WHERE relnamespace = 'herald'::regnamespace AND relkind IN ('r', 'p', 'v', 'S', 'm')"
    ).fetchall()


def attack(owner, stranger):
    """Everything that is there, each in the ways there are. Returns what was not refused."""
    allowed = []

    def attempt(statement):
        try:
            with stranger.transaction():
                stranger.execute(statement)
        except (DENIED, *IMPOSSIBLE):
            return
        except psycopg.Error as error:
            allowed.append(f"{statement}: {error}")
        else:
            allowed.append(statement)

    for _, call in functions(owner):
        attempt(call)
    for name, kind in relations(owner):
        if kind == "S":
            attempt(f"SELECT pg_catalog.nextval('{name}')")
            attempt(f"SELECT pg_catalog.setval('{name}', 1)")
            attempt(f"SELECT last_value FROM {name}")
            continue
        attempt(f"SELECT FROM {name}")
        attempt(f"DELETE FROM {name}")
        attempt(f"TRUNCATE {name}")
        attempt(f"INSERT INTO {name} DEFAULT VALUES")
        attempt(f"COPY {name} TO STDOUT")
        attempt(f"COPY {name} FROM STDIN")
        attempt(f"LOCK {name} IN ACCESS SHARE MODE")
        attempt(f"ALTER TABLE {name} OWNER TO stranger")
    attempt("CREATE TABLE herald.mine ()")
    attempt("CREATE FUNCTION herald.channel(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    attempt("CREATE TRIGGER t AFTER INSERT ON herald.message EXECUTE FUNCTION herald.log_inserted()")
    attempt("CREATE VIEW own.messages AS SELECT * FROM herald.messages; SELECT FROM own.messages")
    attempt("ALTER EXTENSION pg_herald UPDATE")
    attempt("DROP EXTENSION pg_herald")
    return allowed


def test_a_stranger_can_do_nothing(owner, stranger):
    assert len(functions(owner)) > 25 and len(relations(owner)) > 5
    assert attack(owner, stranger) == []


def test_usage_of_the_schema_alone_gives_nothing(owner, stranger):
    owner.execute("GRANT USAGE ON SCHEMA herald TO stranger")
    assert attack(owner, stranger) == []
    # Its own table cannot be made to publish either.
    stranger.execute("CREATE TABLE own.mine (number int)")
    with pytest.raises(DENIED):
        stranger.execute(
            "CREATE TRIGGER t AFTER INSERT ON own.mine FOR EACH ROW"
            " EXECUTE FUNCTION herald.publish_change('broadcast')"
        )
    # Nor its own table in the log's place.
    with pytest.raises(psycopg.Error):
        stranger.execute(
            "CREATE TRIGGER t AFTER INSERT ON own.mine FOR EACH ROW"
            " EXECUTE FUNCTION herald.log_inserted()"
        )


def test_a_grant_of_one_function_opens_nothing_else(owner, stranger):
    """EXECUTE on send_message and read: no other function, and no table, opens with them, whatever
    is in the caller's search_path; and nothing of the caller's runs with the owner's rights."""
    owner.execute("GRANT USAGE ON SCHEMA herald TO stranger")
    granted = ("herald.send_message", "herald.read")
    for name, _ in functions(owner):
        if name.startswith(tuple(f"{function}(" for function in granted)):
            owner.execute(f"GRANT EXECUTE ON FUNCTION {name} TO stranger")
    shadow(stranger, "own")
    stranger.execute("CREATE TEMP TABLE message (LIKE pg_class)")
    stranger.execute("CREATE TABLE own.message (pos int); CREATE TABLE own.state (folded_to int)")
    stranger.execute("SET search_path = own, pg_temp, herald, pg_catalog")
    try:
        for call in ("SELECT herald.send_message('s', NULL, 'mine', topic => 'own',"
                     " idempotency_key => 'k')", "SELECT * FROM herald.read('own')"):  # fmt: skip
            for _ in range(2):
                try:
                    stranger.execute(call)
                except DENIED:
                    pass  # it may need rights on tables as well: then it has to say so
        ours = tuple(f"SELECT {function}(" for function in granted)
        assert [call for call in attack(owner, stranger) if not call.startswith(ours)] == []
        with pytest.raises(DENIED):
            stranger.execute("SET herald.notify = off")
    finally:
        stranger.execute("SET search_path = pg_catalog")
    owner.execute("SELECT 1 FROM herald.messages")


def shadow(connection, schema):
    """Fills a schema with operators and functions that look like PostgreSQL's own and raise."""
    shadowed = sql.Identifier(schema)

    def define(name, arguments, result="boolean"):
        connection.execute(
            sql.SQL(
                "CREATE FUNCTION {}.{}({}) RETURNS {} LANGUAGE plpgsql AS"
                " $$BEGIN RAISE EXCEPTION 'trapped as %', current_user USING ERRCODE = 'ZZ001'; END$$"
            ).format(shadowed, sql.Identifier(name), sql.SQL(arguments), sql.SQL(result))
        )

    for number, (operator, left, right) in enumerate(SHADOWED_OPERATORS):
        define(f"trap_{number}", f"{left}, {right}")
        connection.execute(
            sql.SQL("CREATE OPERATOR {}.{} (FUNCTION = {}.{}, LEFTARG = {}, RIGHTARG = {})").format(
                shadowed, sql.SQL(operator), shadowed, sql.Identifier(f"trap_{number}"),
                sql.SQL(left), sql.SQL(right),
            )  # fmt: skip
        )
    for name, arguments in SHADOWED_FUNCTIONS:
        define(name, arguments, "text")


def test_a_hostile_search_path_bends_nothing(owner):
    """All functions, called by a superuser who has somebody's schema before pg_catalog."""
    owner.execute("CREATE SCHEMA evil")
    shadow(owner, "evil")
    owner.execute("SET search_path = evil, pg_catalog")
    with pytest.raises(psycopg.Error, match="trapped"):
        owner.execute("SELECT 'a'::text = 'b'::text")  # the traps work
    for call in EVERY_CALL:
        owner.execute(call)
    owner.execute("SET search_path = pg_catalog")
    contents = owner.execute("SELECT content FROM herald.read('broadcast')").fetchall()
    assert ("in the second segment",) in contents


@pytest.mark.tier("engine", "plain")
def test_who_may_write_a_watched_table_needs_no_grant(cluster, database, owner, stranger):
    """The change is published for the table's owner; the writer still can do nothing else, not even
    keep it quiet."""
    owner.execute("SELECT herald.watch('public.item', 'items')")
    owner.execute("GRANT INSERT ON public.item TO stranger")
    shadow(stranger, "own")
    with cluster.connect(database) as listener:
        listener.execute("LISTEN items")
        if cluster.engine:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                stranger.execute("SET herald.notify = off")
        else:  # before the library is loaded: nobody's name
            stranger.execute("SET herald.notify = off")
        stranger.execute("SET search_path = own, pg_catalog")
        stranger.execute("INSERT INTO public.item VALUES (1, 'by a stranger')")
        stranger.execute("SET search_path = pg_catalog")
        heard = json.loads(next(listener.notifies()).payload)
    assert heard["content"]["new"] == {"number": 1, "name": "by a stranger"}
    assert owner.execute("SELECT count(*) FROM herald.read('items')").fetchone()[0] == 1
    assert attack(owner, stranger) == []
