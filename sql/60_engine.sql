-- Looking into the engine.

CREATE FUNCTION herald.engine_state(
    OUT loaded boolean, OUT next_position bigint, OUT horizon bigint, OUT reserved_to bigint,
    OUT announced_to bigint, OUT senders int, OUT oldest_sender timestamptz,
    OUT restamped_transactions bigint, OUT restamped_messages bigint, OUT dispatcher_pid int,
    OUT dispatcher_lag bigint, OUT notifications bigint, OUT notifications_per_second float8,
    OUT wake_ups bigint, OUT next_delivery timestamptz
)
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_engine_state';
COMMENT ON FUNCTION herald.engine_state() IS 'What herald.engine shows';

CREATE VIEW herald.engine AS SELECT * FROM herald.engine_state();
COMMENT ON VIEW herald.engine IS 'The state of the engine in this database';
COMMENT ON COLUMN herald.engine.loaded IS 'Whether the library was preloaded; if not, most columns are NULL';
COMMENT ON COLUMN herald.engine.next_position IS 'The next position';
COMMENT ON COLUMN herald.engine.horizon IS 'Everything up to here is decided';
COMMENT ON COLUMN herald.engine.reserved_to IS 'Positions up to here are reserved; after a crash positions go on above';
COMMENT ON COLUMN herald.engine.announced_to IS 'Everything up to here has been announced';
COMMENT ON COLUMN herald.engine.senders IS 'Open transactions that have sent';
COMMENT ON COLUMN herald.engine.oldest_sender IS 'When the oldest of them sent first';
COMMENT ON COLUMN herald.engine.restamped_transactions IS 'Transactions whose messages got new positions because they were late, since the server''s start';
COMMENT ON COLUMN herald.engine.restamped_messages IS 'How many messages those were';
COMMENT ON COLUMN herald.engine.dispatcher_pid IS 'The background worker of this database; NULL: it does not run';
COMMENT ON COLUMN herald.engine.dispatcher_lag IS 'How many positions are decided and not yet announced';
COMMENT ON COLUMN herald.engine.notifications IS 'NOTIFYs since the server''s start';
COMMENT ON COLUMN herald.engine.notifications_per_second IS 'NOTIFYs per second, lately';
COMMENT ON COLUMN herald.engine.wake_ups IS 'Rounds of the dispatcher since the server''s start';
COMMENT ON COLUMN herald.engine.next_delivery IS 'When the dispatcher looks for scheduled messages next';

CREATE FUNCTION herald.engine_senders() RETURNS TABLE (
    pid int, since timestamptz, low_position bigint, state text, kind text
)
    LANGUAGE c VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'herald_engine_senders';
COMMENT ON FUNCTION herald.engine_senders() IS 'What herald.senders shows';

CREATE VIEW herald.senders AS SELECT * FROM herald.engine_senders();
COMMENT ON VIEW herald.senders IS 'Open transactions that have sent, and what they hold of the order';
COMMENT ON COLUMN herald.senders.since IS 'When it sent first (near), or began to hold others back (far)';
COMMENT ON COLUMN herald.senders.low_position IS 'All its positions of this kind are at or above';
COMMENT ON COLUMN herald.senders.state IS 'open; late: overtaken, its messages get new positions; committing';
COMMENT ON COLUMN herald.senders.kind IS 'near: from the counter; far: a block ahead of it';
