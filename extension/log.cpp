#include "log.h"

#include "compat.h"
#include "payload_chunks.h"
#include "scoped.h"

namespace herald {

namespace {

struct SegmentName {
    char text[NAMEDATALEN];
};

SegmentName segment_name(std::int64_t number) {
    SegmentName name;
    snprintf(name.text, sizeof name.text, "message_%lld", static_cast<long long>(number));
    return name;
}

// Attaching takes a lock that senders and readers don't notice (SHARE UPDATE EXCLUSIVE);
// CREATE TABLE … PARTITION OF would lock them out.
Oid make_segment(std::int64_t number) {
    const SegmentName name = segment_name(number);
    // Of several who find it missing one makes it.
    LockRelationOid(log_table(), ShareUpdateExclusiveLock);
    if (const Oid made = get_relname_relid(name.text, log_schema()); OidIsValid(made)) return made;
    const long long from = number * kSegmentWidth;
    const long long to = from + kSegmentWidth;
    with_owner_spi([&] {
        run_statement(
            psprintf("CREATE TABLE herald.%s (LIKE herald.message INCLUDING ALL)", name.text),
            SPI_OK_UTILITY);
        run_statement(psprintf("ALTER TABLE herald.%s"
                               " ALTER sender SET STATISTICS 0, ALTER recipient SET STATISTICS 0,"
                               " ALTER content SET STATISTICS 0, ALTER metadata SET STATISTICS 0,"
                               " ALTER conversation SET STATISTICS 0,"
                               " ALTER ordering_key SET STATISTICS 0,"
                               " ALTER workspace SET STATISTICS 0,"
                               " ALTER idempotency_key SET STATISTICS 0",
                               name.text),
                      SPI_OK_UTILITY);
        run_statement(psprintf("ALTER TABLE herald.message ATTACH PARTITION herald.%s "
                               "FOR VALUES FROM (%lld) TO (%lld)",
                               name.text, from, to),
                      SPI_OK_UTILITY);
    });
    const Oid segment = get_relname_relid(name.text, log_schema());
    add_table_to_extension(segment, get_extension_oid("pg_herald", false));
    CommandCounterIncrement();
    make_chunk_table(number);
    return segment;
}

}  // namespace

Oid log_schema() {
    return get_namespace_oid("herald", false);
}

Oid log_table() {
    const Oid table = get_relname_relid("message", log_schema());
    if (!OidIsValid(table))
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("herald.message does not exist"),
                        errhint("CREATE EXTENSION pg_herald")));
    return table;
}

bool log_exists() {
    const Oid schema = get_namespace_oid("herald", true);
    return OidIsValid(schema) && OidIsValid(get_relname_relid("message", schema));
}

Oid segment_at(std::int64_t pos) {
    const std::int64_t number = pos / kSegmentWidth;
    const Oid segment = get_relname_relid(segment_name(number).text, log_schema());
    return OidIsValid(segment) ? segment : make_segment(number);
}

bool segment_exists(std::int64_t pos) {
    return OidIsValid(get_relname_relid(segment_name(pos / kSegmentWidth).text, log_schema()));
}

void require_attached(Oid segment) {
    if (get_rel_relispartition(segment) && !PartitionHasPendingDetach(segment)) return;
    ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
                    errmsg("%s is being removed from the log", get_rel_name(segment)),
                    errhint("Try again when herald.segments no longer shows it.")));
}

void drop_member_table(Oid table) {
    ObjectAddress object;
    ObjectAddressSet(object, RelationRelationId, table);
    performDeletion(&object, DROP_RESTRICT, PERFORM_DELETION_SKIP_EXTENSIONS);
}

void make_segment_ahead(std::int64_t pos) {
    const std::int64_t next = pos / kSegmentWidth + 1;
    if (segment_exists(next * kSegmentWidth)) return;
    Relation log = table_open(log_table(), AccessShareLock);
    const bool in_use = log->rd_refcnt > 1;
    table_close(log, NoLock);
    if (!in_use) (void)make_segment(next);
}

void LogWriter::open(std::int64_t pos) {
    segment_.open(segment_at(pos), RowExclusiveLock);
    number_ = pos / kSegmentWidth;
    // Before ALTER EXTENSION UPDATE from 0.1.0 the last column is not there.
    if (segment_.columns() != kColumns && segment_.columns() != kColumns - 1)
        elog(ERROR, "herald: segment %s has %d columns where %d were expected", segment_.name(),
             segment_.columns(), static_cast<int>(kColumns));
}

void LogWriter::append(const Row& row) {
    if (!segment_.is_open() || number_ != row.pos() / kSegmentWidth) open(row.pos());
    segment_.append(row.values, row.nulls);
}

void LogWriter::close() {
    segment_.close();
}

}  // namespace herald
