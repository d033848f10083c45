-- Scheduled messages: what was sent with deliver_at waits here until it is due.

-- The columns of herald.message, with deliver_at in the place of pos (see extension/schedule.cpp).
CREATE TABLE herald.scheduled (
    deliver_at timestamptz NOT NULL,
    id uuid PRIMARY KEY,
    topic text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL,
    sender text,
    recipient text,
    message_type text NOT NULL,
    content text NOT NULL,
    metadata jsonb,
    conversation text COLLATE "C",
    reply_to uuid,
    priority smallint NOT NULL,
    ordering_key text COLLATE "C",
    expires_at timestamptz,
    workspace text,
    idempotency_key text COLLATE "C",
    is_json boolean NOT NULL,
    payload uuid
);
COMMENT ON TABLE herald.scheduled IS
    'Messages that wait for their deliver_at; then they enter the log. Add by the deliver_at argument of a send, remove by herald.cancel';
ALTER TABLE herald.scheduled
    ALTER sender SET STATISTICS 0, ALTER recipient SET STATISTICS 0, ALTER content SET STATISTICS 0,
    ALTER metadata SET STATISTICS 0, ALTER conversation SET STATISTICS 0,
    ALTER ordering_key SET STATISTICS 0, ALTER workspace SET STATISTICS 0,
    ALTER idempotency_key SET STATISTICS 0;
CREATE INDEX scheduled_deliver_at_idx ON herald.scheduled (deliver_at, id);
CREATE INDEX scheduled_idempotency_key_idx ON herald.scheduled (idempotency_key, topic)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX scheduled_payload_idx ON herald.scheduled (payload) WHERE payload IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('herald.scheduled', '');

CREATE FUNCTION herald.schedule_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'herald_schedule_changed';
COMMENT ON FUNCTION herald.schedule_changed() IS 'Tells the dispatcher, when the transaction ends, that the schedule has changed';

CREATE TRIGGER schedule_changed AFTER INSERT OR DELETE ON herald.scheduled
    FOR EACH ROW EXECUTE FUNCTION herald.schedule_changed();

CREATE OR REPLACE FUNCTION herald.cancel(message uuid) RETURNS boolean
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'herald_cancel';
COMMENT ON FUNCTION herald.cancel(uuid) IS
    'Cancels a message whose deliver_at has not come; false if there is no such message any more. Needs the engine';
