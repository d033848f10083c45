// Archives: what matches a topic or pattern is written to files or to a table before it leaves the
// log. Which archives there are, how far each has come and when it writes is in SQL
// (sql/48_archive.sql); here is the writing and the reading.
//
// An archive is a reader of the log with a position of its own, herald.archive.archived_to, which
// moves in the transaction that writes. Rows of a table are written by that transaction. A file is
// on disk under its name before the transaction commits; if it doesn't, the file is a leftover, and
// the next attempt, which begins at the same position, writes its messages again. Then
//   - a leftover whose messages are all in the new file is removed;
//   - one that has others as well, because these have expired since, stays: who reads the archive
//     takes overlapping files one after the other and leaves out what he has had;
//   - one that lacks messages too, or has others at the same positions, is of another history of
//     this log, a backup's perhaps: that is an error, and nothing is written or removed.

#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <cstring>

#include "archive_file.h"
#include "archive_payload.h"
#include "check.h"
#include "core/topic.h"
#include "locks.h"
#include "log.h"
#include "payload.h"
#include "read.h"
#include "rows.h"
#include "tier.h"

namespace herald {

namespace {

// A batch, which is a file and a transaction, ends when it has so many bytes of lines and of
// payloads (of a table: of contents); one of a pattern also after so many messages of the log.
constexpr std::int64_t kBatchBytes = 32 * 1024 * 1024;
constexpr std::int64_t kBatchScanned = 200'000;

// What a batch has come to.
struct Batch {
    std::int64_t upto;
    std::int64_t messages;
    std::int64_t bytes;
    bool file;
};

// Directories

[[noreturn]] void refuse_directory(const char* directory, const char* what) {
    ereport(
        ERROR,
        (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("directory \"%s\" %s", directory, what),
         errhint("Give the absolute path of a directory on the server, outside its data "
                 "directory, in which the server may write; a table as 'name'::regclass.")));
    pg_unreachable();
}

// The directory's path without detours; error unless it is absolute and a directory.
char* directory_path(const char* given) {
    char* path = pstrdup(given);
    canonicalize_path(path);
    if (!is_absolute_path(path)) refuse_directory(given, "is not an absolute path");
    if (strlen(path) > MAXPGPATH - 64) refuse_directory(given, "has too long a path");
    struct stat found;
    if (stat(path, &found) != 0)
        ereport(ERROR,
                (errcode_for_file_access(), errmsg("could not access directory \"%s\": %m", path),
                 errhint("Make it, with the server's account as its owner.")));
    if (!S_ISDIR(found.st_mode)) refuse_directory(given, "is no directory");
    return path;
}

void require_outside_data(const char* directory) {
    char data[PATH_MAX];
    char target[PATH_MAX];
    if (realpath(DataDir, data) == nullptr || realpath(directory, target) == nullptr)
        ereport(ERROR, (errcode_for_file_access(),
                        errmsg("could not resolve directory \"%s\": %m", directory)));
    if (path_is_prefix_of_path(data, target))
        refuse_directory(directory, "is in the server's data directory");
}

void require_member(Oid role, Oid of, const char* what, const char* name) {
    if (has_privs_of_role(role, of)) return;
    ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                    errmsg("role \"%s\" may not %s", GetUserNameFromId(role, false), what),
                    errhint("Grant it the role %s.", name)));
}

// Tables

Oid table_named(const char* name) {
    const RangeVar* range =
        makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(name)));
    const Oid table = RangeVarGetRelid(range, RowExclusiveLock, true);
    if (!OidIsValid(table))
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
                        errmsg("table %s of the archive does not exist", name),
                        errhint("Make it again, or end the archive by herald.stop_archive.")));
    return table;
}

const char* name_of_table(Oid table) {
    return quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
                                      get_rel_name(table));
}

// The columns of herald.messages: names and types.
TupleDesc message_columns() {
    return lookup_rowtype_tupdesc_copy(get_rel_type_id(get_relname_relid("messages", log_schema())),
                                       -1);
}

// Error unless the table can take what herald.messages has, from this role.
void require_target(Oid table, Oid role) {
    const char* name = name_of_table(table);
    const char kind = get_rel_relkind(table);
    if ((kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE) ||
        get_rel_namespace(table) == log_schema())
        ereport(ERROR,
                (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("%s is not a table of your own", name),
                 errhint("CREATE TABLE … (LIKE herald.messages)")));
    if (get_rel_persistence(table) == RELPERSISTENCE_TEMP)
        ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("table %s is temporary", name),
                        errhint("The archive outlives this session.")));
    if (pg_class_aclcheck(table, role, ACL_INSERT) != ACLCHECK_OK)
        ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                        errmsg("role \"%s\" may not insert into table %s",
                               GetUserNameFromId(role, false), name),
                        errhint("Grant it INSERT on the table.")));
    TupleDesc columns = message_columns();
    for (int i = 0; i < columns->natts; ++i) {
        const FormData_pg_attribute* column = TupleDescAttr(columns, i);
        const AttrNumber number = get_attnum(table, NameStr(column->attname));
        if (number <= 0)
            ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
                            errmsg("table %s has no column \"%s\"", name, NameStr(column->attname)),
                            errhint("It needs the columns of herald.messages.")));
        if (get_atttype(table, number) != column->atttypid)
            ereport(ERROR,
                    (errcode(ERRCODE_DATATYPE_MISMATCH),
                     errmsg("column \"%s\" of table %s is not of type %s", NameStr(column->attname),
                            name, format_type_be(column->atttypid)),
                     errhint("It needs the columns of herald.messages.")));
    }
}

// Whose rights the rows are inserted with. What a table's owner has hung on it (triggers, defaults)
// runs with them: with his own, if the archive's role could act as him anyway.
Oid inserting_role(Oid table, Oid role) {
    HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
    if (!HeapTupleIsValid(tuple)) elog(ERROR, "cache lookup failed for relation %u", table);
    const Oid owner = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuple))->relowner;
    ReleaseSysCache(tuple);
    return is_member_of_role(role, owner) ? owner : role;
}

template <typename Work>
void as_role(Oid role, Work&& work) {
    Oid saved_user;
    int saved_context;
    GetUserIdAndSecContext(&saved_user, &saved_context);
    SetUserIdAndSecContext(
        role, saved_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
    work();
    SetUserIdAndSecContext(saved_user, saved_context);
}

// A column that an archive's table may have beside those of herald.messages: what is in payloads.
constexpr const char* kPayloadContent = "payload_content";

bool wants_payloads(Oid table) {
    const AttrNumber number = get_attnum(table, kPayloadContent);
    return number > 0 && get_atttype(table, number) == BYTEAOID;
}

SPIPlanPtr insert_plan(Oid table) {
    TupleDesc columns = message_columns();
    StringInfoData sql;
    StringInfoData values;
    initStringInfo(&sql);
    initStringInfo(&values);
    appendStringInfo(&sql, "INSERT INTO %s (", name_of_table(table));
    Oid types[kColumns + 1];
    int count = kColumns;
    if (columns->natts != kColumns) elog(ERROR, "herald: herald.messages has other columns");
    for (int i = 0; i < kColumns; ++i) {
        const FormData_pg_attribute* column = TupleDescAttr(columns, i);
        types[i] = column->atttypid;
        appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "",
                         quote_identifier(NameStr(column->attname)));
        appendStringInfo(&values, "%s$%d", i > 0 ? ", " : "", i + 1);
    }
    if (wants_payloads(table)) {
        types[count++] = BYTEAOID;
        appendStringInfo(&sql, ", %s", kPayloadContent);
        appendStringInfo(&values, ", $%d", count);
    }
    appendStringInfo(&sql, ") VALUES (%s)", values.data);
    SPIPlanPtr plan = SPI_prepare(sql.data, count, types);
    if (plan == nullptr) elog(ERROR, "herald: cannot prepare: %s", sql.data);
    return plan;
}

// `content`: of its payload; nullptr: none, or the table does not want it.
void insert_row(SPIPlanPtr plan, const Row& row, const bytea* content) {
    Datum values[kColumns + 1];
    char nulls[kColumns + 2] = {};
    for (int i = 0; i < kColumns; ++i) {
        values[i] = row.values[i];
        nulls[i] = row.nulls[i] ? 'n' : ' ';
    }
    values[kColumns] = PointerGetDatum(content);
    nulls[kColumns] = content != nullptr ? ' ' : 'n';
    const int code = SPI_execute_plan(plan, values, nulls, false, 0);
    if (code != SPI_OK_INSERT || SPI_processed != 1)
        ereport(ERROR, (errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
                        errmsg("the table of the archive did not take message %lld",
                               static_cast<long long>(row.pos())),
                        errhint("A trigger or rule of the table keeps it away.")));
}

// The log

// Up to where a batch goes at most: everything there is decided.
std::int64_t batch_end(const TopicFilter& filter, std::int64_t after, std::int64_t horizon) {
    static constinit KeptPlan plan;
    if (!filter.pattern) return horizon;
    Datum values[] = {Int64GetDatum(after), Int64GetDatum(horizon), Int64GetDatum(kBatchScanned)};
    run_read_only(plan.get("SELECT pos - 1 FROM herald.message WHERE pos > $1 AND pos <= $2"
                           " ORDER BY pos OFFSET $3 LIMIT 1",
                           {INT8OID, INT8OID, INT8OID}),
                  values, nullptr, 1);
    if (SPI_processed == 0) return horizon;
    bool null = false;
    return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
}

// Calls `each(row)`, which gives the bytes that it has written, for the readable messages above
// `after`, until the batch is full or the log is at its end. Inside with_fresh_spi; `each` runs in
// a memory context of its own.
template <typename Each>
Batch write_batch(const TopicFilter& filter, std::int64_t after, std::int64_t horizon,
                  Each&& each) {
    static constinit KeptPlan exact{KeptPlan::Planned::kOnce};
    static constinit KeptPlan pattern{KeptPlan::Planned::kOnce};
    Batch batch = {batch_end(filter, after, horizon), 0, 0, false};
    Datum values[] = {text_datum(filter.text), Int64GetDatum(after), Int64GetDatum(batch.upto)};
    SPIPlanPtr plan = filter.pattern
                          ? pattern.get(
                                "SELECT * FROM herald.messages WHERE herald.matches($1, topic)"
                                " AND pos > $2 AND pos <= $3 ORDER BY pos",
                                {TEXTOID, INT8OID, INT8OID})
                          : exact.get(
                                "SELECT * FROM herald.messages WHERE (topic, pos) > ($1, $2)"
                                " AND (topic, pos) <= ($1, $3) AND pos > $2 AND pos <= $3"
                                " ORDER BY topic, pos",
                                {TEXTOID, INT8OID, INT8OID});
    MemoryContext scratch =
        AllocSetContextCreate(CurrentMemoryContext, "herald archive row", ALLOCSET_DEFAULT_SIZES);
    for_each_row(plan, values, nullptr, [&](HeapTuple tuple, TupleDesc description) {
        CHECK_FOR_INTERRUPTS();
        MemoryContext caller = MemoryContextSwitchTo(scratch);
        const Row row = Row::from_tuple(tuple, description);
        batch.bytes += each(row);
        ++batch.messages;
        const bool full = batch.bytes >= kBatchBytes;
        if (full) batch.upto = row.pos();
        MemoryContextSwitchTo(caller);
        MemoryContextReset(scratch);
        return !full;
    });
    MemoryContextDelete(scratch);
    return batch;
}

Batch write_to_table(const TopicFilter& filter, std::int64_t after, std::int64_t horizon,
                     const char* target, Oid role) {
    const Oid table = table_named(target);
    require_target(table, role);
    const Oid inserts_as = inserting_role(table, role);
    SPIPlanPtr plan = insert_plan(table);
    const bool payloads = wants_payloads(table);
    const Batch batch = write_batch(filter, after, horizon, [&](const Row& row) {
        const bytea* content = nullptr;
        if (payloads && row.has(kPayload)) {
            const Payload payload = complete_payload(*DatumGetUUIDP(row.values[kPayload]));
            content = read_content(payload, 0, payload.bytes);
        }
        as_role(inserts_as, [&] { insert_row(plan, row, content); });
        const std::size_t bytes = row.text(kContent).size();
        return static_cast<std::int64_t>(content != nullptr ? VARSIZE(content) : bytes);
    });
    (void)SPI_freeplan(plan);
    return batch;
}

// Leftovers

const char* path_in(const char* directory, const ArchiveFile& file) {
    return psprintf("%s/%s", directory, file.name());
}

[[noreturn]] void refuse_history(const char* path, const char* why) {
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("archive file \"%s\" %s", path, why),
                    errhint("Move it away, or archive to another directory.")));
    pg_unreachable();
}

template <typename Work>
void in_own_context(Work&& work) {
    MemoryContext own =
        AllocSetContextCreate(CurrentMemoryContext, "herald archive", ALLOCSET_DEFAULT_SIZES);
    MemoryContext caller = MemoryContextSwitchTo(own);
    work();
    MemoryContextSwitchTo(caller);
    MemoryContextDelete(own);
}

// Whether all messages of a leftover above `after` are in the new file, too.
bool is_within(const char* leftover, const char* fresh, std::int64_t after,
               const ArchiveHeader& ours) {
    struct Cursor {
        ArchiveReader reader;
        MemoryContext rows;
        Row row;
        bool has;

        void open(const char* path) {
            (void)reader.open(path);
            rows = AllocSetContextCreate(CurrentMemoryContext, "herald archive row",
                                         ALLOCSET_DEFAULT_SIZES);
        }
        void advance() {
            MemoryContextReset(rows);
            MemoryContext caller = MemoryContextSwitchTo(rows);
            has = reader.next(&row);
            MemoryContextSwitchTo(caller);
        }
    };
    bool more = false;     // in the leftover
    bool missing = false;  // there
    in_own_context([&] {
        Cursor old = {};
        Cursor now = {};
        old.open(leftover);
        if (!old.reader.has_header() || !old.reader.header().same_archive(ours))
            refuse_history(leftover, "is not of this archive");
        now.open(fresh);
        do {
            old.advance();
        } while (old.has && old.row.pos() <= after);
        now.advance();
        while (old.has) {
            const std::int64_t theirs = old.row.pos();
            if (!now.has || theirs < now.row.pos()) {
                more = true;
                old.advance();
            } else if (theirs > now.row.pos()) {
                missing = true;
                now.advance();
            } else {
                if (!DatumGetBool(
                        DirectFunctionCall2(uuid_eq, old.row.values[kId], now.row.values[kId])))
                    refuse_history(leftover, "has other messages at the positions of this log");
                old.advance();
                now.advance();
            }
        }
        old.reader.close();
        now.reader.close();
    });
    if (more && missing) refuse_history(leftover, "does not have the messages of this log");
    return !more;
}

// Gives the complete new file its name, and removes the leftovers that it replaces.
void publish(const char* directory, const ArchiveFile& file, const ArchiveHeader& header) {
    const char* fresh = ArchiveWriter::temporary_name(directory);
    const char* path = path_in(directory, file);
    const ArchiveFiles leftovers = list_archive(directory, header.after);
    bool* replaced = static_cast<bool*>(palloc0(sizeof(bool) * Max(leftovers.count, 1)));
    for (int i = 0; i < leftovers.count; ++i)
        replaced[i] =
            is_within(path_in(directory, leftovers.files[i]), fresh, header.after, header);
    (void)durable_rename(fresh, path, ERROR);
    for (int i = 0; i < leftovers.count; ++i) {
        const char* old = path_in(directory, leftovers.files[i]);
        if (replaced[i] && strcmp(old, path) != 0) (void)durable_unlink(old, ERROR);
    }
}

Batch write_to_directory(const TopicFilter& filter, std::int64_t after, std::int64_t horizon,
                         const char* directory) {
    const char* path = directory_path(directory);
    require_outside_data(path);
    Batch batch = {};
    MemoryContext home = CurrentMemoryContext;
    PG_TRY();
    {
        ArchiveWriter writer;
        batch = write_batch(filter, after, horizon, [&](const Row& row) {
            if (!writer.is_open()) {
                MemoryContext caller = MemoryContextSwitchTo(home);
                writer.open(path);
                MemoryContextSwitchTo(caller);
            }
            const std::int64_t before = writer.bytes();
            writer.append(row);
            const std::int64_t payload =
                row.has(kPayload) ? archive_payload(path, *DatumGetUUIDP(row.values[kPayload])) : 0;
            return writer.bytes() - before + payload;
        });
        batch.file = writer.is_open();
        if (batch.file) {
            ArchiveHeader header = {};
            header.system = GetSystemIdentifier();
            header.database = MyDatabaseId;
            header.topics = filter.text;
            header.after = after;
            header.upto = batch.upto;
            writer.close(header);
            publish(path, writer.span(), header);
        }
    }
    PG_CATCH();
    {
        // Half a file helps nobody whose disk is full.
        (void)unlink(ArchiveWriter::temporary_name(path));
        discard_unfinished_payload(path);
        PG_RE_THROW();
    }
    PG_END_TRY();
    return batch;
}

Oid role_named(const char* name) {
    const Oid role = get_role_oid(name, true);
    if (!OidIsValid(role))
        ereport(ERROR,
                (errcode(ERRCODE_UNDEFINED_OBJECT),
                 errmsg("role \"%s\", for which the archive is written, does not exist", name),
                 errhint("Call herald.stop_archive and herald.archive_to again.")));
    return role;
}

// Error unless a file has what the log has of its range: it may be the leftover of a transaction
// that had removed some.
void require_complete(const char* directory, const char* path, const ArchiveHeader& header) {
    bool lacks = false;
    with_fresh_spi([&] {
        Oid types[] = {TEXTOID, TEXTOID, INT8OID, INT8OID};
        Datum values[] = {text_datum(directory), text_datum(header.topics),
                          Int64GetDatum(header.after), Int64GetDatum(header.upto)};
        const int code = SPI_execute_with_args(
            "SELECT pos, id FROM herald.messages WHERE herald.matches($2, topic) AND pos > $3"
            " AND pos <= $4 EXCEPT SELECT pos, id FROM herald.read_archive($1, $2, $3) LIMIT 1",
            4, types, values, nullptr, true, 1);
        if (code != SPI_OK_SELECT) elog(ERROR, "herald: %s", SPI_result_code_string(code));
        lacks = SPI_processed > 0;
    });
    if (lacks) refuse_history(path, "does not have the messages of this log");
}

// Where an archive of these topics goes on that has files in the directory already.
std::int64_t continue_from(const char* directory, const char* topics) {
    const ArchiveFiles files = list_archive(directory, 0);
    if (files.count == 0) return 0;
    std::int64_t upto = 0;
    ArchiveFile newest = files.files[0];
    for (int i = 1; i < files.count; ++i) {
        if (files.files[i].last > newest.last) newest = files.files[i];
    }
    const char* path = path_in(directory, newest);
    in_own_context([&] {
        ArchiveReader reader;
        if (!reader.open(path) || !reader.has_header())
            refuse_history(path, "does not say which archive it is of");
        ArchiveHeader ours = {};
        ours.system = GetSystemIdentifier();
        ours.database = MyDatabaseId;
        ours.topics = topics;
        if (!reader.header().same_archive(ours))
            refuse_history(path, "is of an archive of other topics, or of another database");
        upto = reader.header().upto;
        if (upto > tier().horizon())
            refuse_history(path, "has positions that this log has not reached");
        require_complete(directory, path, reader.header());
        reader.close();
    });
    return upto;
}

Datum archive_to(FunctionCallInfo fcinfo, bool to_directory) {
    constexpr const char* kSecond[] = {"target", "directory"};
    require_argument(!PG_ARGISNULL(0), "topics");
    require_argument(!PG_ARGISNULL(1), kSecond[to_directory ? 1 : 0]);
    require_pattern(text_view(PG_GETARG_DATUM(0)));
    const char* topics = TextDatumGetCString(PG_GETARG_DATUM(0));
    const char* destination = nullptr;
    std::int64_t from = 0;
    if (to_directory) {
        destination = directory_path(TextDatumGetCString(PG_GETARG_DATUM(1)));
        require_member(GetUserId(), ROLE_PG_WRITE_SERVER_FILES, "write files on the server",
                       "pg_write_server_files");
        require_outside_data(destination);
    } else {
        const Oid table = PG_GETARG_OID(1);
        if (!OidIsValid(get_rel_namespace(table)))
            ereport(ERROR,
                    (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("table %u does not exist", table),
                     errhint("CREATE TABLE … (LIKE herald.messages)")));
        require_target(table, GetUserId());
        destination = name_of_table(table);
    }
    const LOCKTAG books = herald_lock(kBooksKey);
    (void)LockAcquire(&books, ExclusiveLock, false, false);
    if (to_directory) from = continue_from(destination, topics);
    const char* role = GetUserNameFromId(GetUserId(), false);
    with_owner_spi([&] {
        Oid types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID};
        Datum values[] = {text_datum(topics), text_datum(destination), text_datum(destination),
                          text_datum(role), Int64GetDatum(from)};
        const int code =
            SPI_execute_with_args("SELECT herald.add_archive($1, $2, $3, $4, $5)", 5, types, values,
                                  to_directory ? "  n  " : " n   ", false, 0);
        if (code != SPI_OK_SELECT) elog(ERROR, "herald: %s", SPI_result_code_string(code));
    });
    PG_RETURN_VOID();
}

}  // namespace

HERALD_FUNCTION(herald_archive_to_directory) {
    return archive_to(fcinfo, true);
}

HERALD_FUNCTION(herald_archive_to_table) {
    return archive_to(fcinfo, false);
}

HERALD_FUNCTION(herald_write_archive) {
    const TopicFilter filter = TopicFilter::of(text_view(PG_GETARG_DATUM(0)));
    const Oid role = role_named(TextDatumGetCString(PG_GETARG_DATUM(3)));
    const std::int64_t after = PG_GETARG_INT64(4);
    TupleDesc description;
    if (get_call_result_type(fcinfo, nullptr, &description) != TYPEFUNC_COMPOSITE)
        elog(ERROR, "herald.write_archive must return a row");
    const std::int64_t horizon = tier().horizon();
    // What may be taken back, or move, is not to be found in an archive.
    if (tier().unsettled() > 0 || tier().is_ours(horizon))
        ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
                        errmsg("cannot archive in a transaction that has sent messages"),
                        errhint("Commit first.")));
    Batch batch = {after, 0, 0, false};
    if (horizon > after) {
        if (PG_ARGISNULL(2)) {
            require_member(role, ROLE_PG_WRITE_SERVER_FILES, "write files on the server",
                           "pg_write_server_files");
            const char* directory = TextDatumGetCString(PG_GETARG_DATUM(1));
            with_fresh_spi([&] { batch = write_to_directory(filter, after, horizon, directory); });
        } else {
            const char* target = TextDatumGetCString(PG_GETARG_DATUM(2));
            with_fresh_spi([&] { batch = write_to_table(filter, after, horizon, target, role); });
        }
    }
    Datum values[] = {Int64GetDatum(batch.upto), Int64GetDatum(batch.messages),
                      Int64GetDatum(batch.bytes), BoolGetDatum(batch.file)};
    bool nulls[4] = {};
    PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(description, values, nulls)));
}

HERALD_FUNCTION(herald_read_archive) {
    constexpr const char* kNames[] = {"directory", "topics", "after"};
    for (int i = 0; i < 3; ++i) require_argument(!PG_ARGISNULL(i), kNames[i]);
    require_member(GetUserId(), ROLE_PG_READ_SERVER_FILES, "read files on the server",
                   "pg_read_server_files");
    const char* directory = directory_path(TextDatumGetCString(PG_GETARG_DATUM(0)));
    const std::string_view topics = text_view(PG_GETARG_DATUM(1));
    require_pattern(topics);
    std::int64_t last = PG_GETARG_INT64(2);
    require_position(last, "after");
    const std::int64_t max = PG_ARGISNULL(3) ? INT64_MAX : PG_GETARG_INT64(3);
    if (max < 1)
        ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                        errmsg("max is %lld; it must be at least 1", static_cast<long long>(max)),
                        errhint("Leave it out to read all.")));
    InitMaterializedSRF(fcinfo, 0);
    auto* result = reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo);
    if (result->setDesc->natts != kColumns)
        elog(ERROR, "herald: herald.messages has other columns");

    std::int64_t rows = 0;
    // Gives whether the file was there.
    const auto read_file = [&](const ArchiveFile& file) {
        ArchiveReader reader;
        if (!reader.open(path_in(directory, file))) return false;
        MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "herald archive row",
                                                      ALLOCSET_DEFAULT_SIZES);
        ErrorContextCallback context;
        context.previous = error_context_stack;
        context.callback = ArchiveReader::add_context;
        context.arg = &reader;
        error_context_stack = &context;
        for (bool more = true; more && rows < max;) {
            CHECK_FOR_INTERRUPTS();
            MemoryContext caller = MemoryContextSwitchTo(scratch);
            Row row;
            more = reader.next(&row);
            if (more && row.pos() > last) {
                last = row.pos();
                if (topic_matches(topics, row.text(kTopic))) {
                    tuplestore_putvalues(result->setResult, result->setDesc, row.values, row.nulls);
                    ++rows;
                }
            }
            MemoryContextSwitchTo(caller);
            MemoryContextReset(scratch);
        }
        error_context_stack = context.previous;
        reader.close();
        return true;
    };
    // A file that has been replaced since the look at the directory: one looks again.
    for (bool there = false; !there && rows < max;) {
        there = true;
        const ArchiveFiles list = list_archive(directory, last);
        for (int i = 0; i < list.count && there && rows < max; ++i) {
            if (list.files[i].last <= last) continue;
            in_own_context([&] { there = read_file(list.files[i]); });
        }
    }
    return 0;
}

HERALD_FUNCTION(herald_read_archived_payload) {
    constexpr const char* kNames[] = {"directory", "payload", "offset"};
    for (int i = 0; i < 3; ++i) require_argument(!PG_ARGISNULL(i), kNames[i]);
    require_member(GetUserId(), ROLE_PG_READ_SERVER_FILES, "read files on the server",
                   "pg_read_server_files");
    const char* directory = directory_path(TextDatumGetCString(PG_GETARG_DATUM(0)));
    const std::int64_t offset = PG_GETARG_INT64(2);
    require_not_negative(offset, "offset");
    const std::int64_t length = PG_ARGISNULL(3) ? -1 : PG_GETARG_INT64(3);
    if (!PG_ARGISNULL(3)) require_not_negative(length, "length");
    PG_RETURN_BYTEA_P(read_archived_payload(directory, *PG_GETARG_UUID_P(1), offset, length));
}

}  // namespace herald
