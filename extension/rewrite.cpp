#include "rewrite.h"

#include "compat.h"
#include "locks.h"
#include "log.h"
#include "payload_chunks.h"
#include "scoped.h"
#include "settings.h"
#include "waste.h"
#include "worker.h"

namespace herald {

namespace {

// One transaction copies so many pages of a table at most, and, TOAST counted, about so many bytes.
constexpr BlockNumber kMostPages = 256;
constexpr std::int64_t kMostBytes = 16 * 1024 * 1024;
// So long a round copies; then the keeper's other duties come. Microseconds.
constexpr std::int64_t kSlice = 200'000;
// Rows that are stored at once.
constexpr int kBatch = 64;
// How long the exchange of files queues for its lock, and readers behind it.
constexpr const char* kMostQueue = "10ms";

// A table that is to be rewritten: a segment of the log, or the chunks of the payloads begun in it.
struct Candidate {
    Oid table;  // InvalidOid: there is none
    std::int64_t number;
    bool has_payloads;
};

// The keeper's: it has looked for what a keeper before it has left.
constinit bool swept = false;
// The table that was tried last: the next time others come first, if it was in use.
constinit Oid tried = InvalidOid;
// Transactions before this one had begun in an earlier round.
constinit TransactionId noted = InvalidTransactionId;

// What is kept: of a segment the messages of each topic from a position on, otherwise the chunks of
// some payloads. Topics and payloads are told apart by a hash; of two with the same one more is
// kept.
class Kept {
  public:
    // The caller's memory context outlives it.
    void create() {
        HASHCTL control = {};
        control.keysize = sizeof(std::uint64_t);
        control.entrysize = sizeof(Entry);
        control.hcxt = CurrentMemoryContext;
        firsts_ = hash_create("herald kept", 1024, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
    }
    void add(std::string_view name, std::int64_t first) {
        const std::uint64_t key = hash_of(name);
        bool found = false;
        auto* entry = static_cast<Entry*>(hash_search(firsts_, &key, HASH_ENTER, &found));
        entry->first = found ? Min(entry->first, first) : first;
    }
    bool has(std::string_view name, std::int64_t pos) const {
        const std::uint64_t key = hash_of(name);
        const auto* entry =
            static_cast<const Entry*>(hash_search(firsts_, &key, HASH_FIND, nullptr));
        return entry != nullptr && pos >= entry->first;
    }
    bool empty() const { return hash_get_num_entries(firsts_) == 0; }

  private:
    struct Entry {
        std::uint64_t hash;
        std::int64_t first;
    };

    static std::uint64_t hash_of(std::string_view name) {
        return hash_bytes_extended(reinterpret_cast<const unsigned char*>(name.data()),
                                   static_cast<int>(name.size()), 0);
    }

    HTAB* firsts_ = nullptr;
};

// The pages of a table, and how many of them one transaction copies.
struct Extent {
    BlockNumber pages;
    BlockNumber at_once;
};

// The copy of a table that is under way.
struct Copy {
    Candidate original;
    Oid table;             // InvalidOid: there is none
    MemoryContext memory;  // for what is kept
    Kept kept;
    TransactionId unseen;  // snapshots that don't know a transaction before it see what is kept
    std::int64_t purges;   // the last purge that this copy heeds
    Extent extent;
    BlockNumber next_page;
    std::int64_t rows;
    std::int64_t bytes;  // of messages' contents, or of chunks
};
constexpr Copy kNone = {};
constinit Copy copy = kNone;

// Stores rows of a table in the one that is to replace it.
class Replacement {
  public:
    Replacement(Relation original, Oid table) : relation_(table_open(table, RowExclusiveLock)) {
        // Values that stand apart are found by it after the exchange.
        relation_->rd_toastoid = original->rd_rel->reltoastrelid;
        state_ = CreateExecutorState();
        target_ = makeNode(ResultRelInfo);
        InitResultRelInfo(target_, relation_, 0, nullptr, 0);
        ExecOpenIndices(target_, false);
        for (TupleTableSlot*& slot : batch_) slot = table_slot_create(relation_, nullptr);
        bulk_ = GetBulkInsertState();
        scratch_ = AllocSetContextCreate(CurrentMemoryContext, "herald rewrite batch",
                                         ALLOCSET_DEFAULT_SIZES);
    }

    void add(TupleTableSlot* row) {
        ExecCopySlot(batch_[count_++], row);
        if (count_ == kBatch) flush();
    }

    void close() {
        flush();
        FreeBulkInsertState(bulk_);
        table_finish_bulk_insert(relation_, kOptions);
        for (TupleTableSlot* slot : batch_) ExecDropSingleTupleTableSlot(slot);
        ExecCloseIndices(target_);
        FreeExecutorState(state_);
        relation_->rd_toastoid = InvalidOid;
        table_close(relation_, NoLock);
        MemoryContextDelete(scratch_);
    }

  private:
    static constexpr int kOptions =
        TABLE_INSERT_SKIP_FSM | TABLE_INSERT_FROZEN | TABLE_INSERT_NO_LOGICAL;

    void flush() {
        if (count_ == 0) return;
        MemoryContext caller = MemoryContextSwitchTo(scratch_);
        table_multi_insert(relation_, batch_, count_, GetCurrentCommandId(true), kOptions, bulk_);
        for (int i = 0; i < count_; ++i) {
            GetPerTupleExprContext(state_)->ecxt_scantuple = batch_[i];
            insert_index_entries(target_, batch_[i], state_);
            ResetPerTupleExprContext(state_);
            ExecClearTuple(batch_[i]);
        }
        MemoryContextSwitchTo(caller);
        MemoryContextReset(scratch_);
        count_ = 0;
    }

    Relation relation_;
    EState* state_;
    ResultRelInfo* target_;
    BulkInsertState bulk_;
    MemoryContext scratch_;
    TupleTableSlot* batch_[kBatch] = {};
    int count_ = 0;
};

bool has_expired(const TupleTableSlot* row, TimestampTz now) {
    if (row->tts_isnull[kExpiresAt]) return false;
    const TimestampTz window =
        row->tts_isnull[kIdempotencyKey]
            ? DT_NOBEGIN
            : TimestampTzPlusMilliseconds(DatumGetTimestampTz(row->tts_values[kAt]),
                                          std::int64_t{1000} * setting_idempotency_window);
    return DatumGetTimestampTz(row->tts_values[kExpiresAt]) <= now && window <= now;
}

std::string_view uuid_view(Datum uuid) {
    return {reinterpret_cast<const char*>(DatumGetUUIDP(uuid)->data), UUID_LEN};
}

bool is_kept(const TupleTableSlot* row, TimestampTz now) {
    if (copy.original.has_payloads)
        return copy.kept.has(uuid_view(row->tts_values[kChunkPayload]), 0);
    return copy.kept.has(text_view(row->tts_values[kTopic]),
                         DatumGetInt64(row->tts_values[kPos])) &&
           !has_expired(row, now);
}

// Copies what is kept on these pages.
void copy_pages(BlockNumber first, BlockNumber count) {
    const int content = copy.original.has_payloads ? static_cast<int>(kChunkData) : kContent;
    PushActiveSnapshot(GetLatestSnapshot());
    Relation original = table_open(copy.original.table, AccessShareLock);
    Replacement replacement(original, copy.table);
    TupleTableSlot* row = table_slot_create(original, nullptr);
    TableScanDesc scan =
        table_beginscan_strat(original, GetActiveSnapshot(), 0, nullptr, true, false);
    heap_setscanlimits(scan, first, count);
    MemoryContext scratch =
        AllocSetContextCreate(CurrentMemoryContext, "herald rewrite row", ALLOCSET_DEFAULT_SIZES);
    const TimestampTz now = GetCurrentTimestamp();
    while (table_scan_getnextslot(scan, ForwardScanDirection, row)) {
        slot_getallattrs(row);
        MemoryContext caller = MemoryContextSwitchTo(scratch);
        const bool stays = is_kept(row, now);
        MemoryContextSwitchTo(caller);
        MemoryContextReset(scratch);
        if (!stays) continue;
        replacement.add(row);
        copy.rows += 1;
        copy.bytes +=
            static_cast<std::int64_t>(toast_raw_datum_size(row->tts_values[content])) - VARHDRSZ;
    }
    table_endscan(scan);
    ExecDropSingleTupleTableSlot(row);
    replacement.close();
    table_close(original, NoLock);
    PopActiveSnapshot();
}

Extent extent_of(Oid table) {
    Relation relation = table_open(table, AccessShareLock);
    const BlockNumber pages = RelationGetNumberOfBlocks(relation);
    table_close(relation, NoLock);
    const std::int64_t bytes =
        DatumGetInt64(DirectFunctionCall1(pg_table_size, ObjectIdGetDatum(table)));
    const std::int64_t fit = pages * kMostBytes / Max(bytes, 1);
    return {pages, static_cast<BlockNumber>(Max(1, Min(kMostPages, fit)))};
}

// In a statement's result.
Datum column_of(std::uint64_t row, int number) {
    bool null = false;
    return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, &null);
}

// The first table that is to be rewritten; `which` is a condition, or an order.
Candidate find_candidate(const char* which) {
    Candidate found = kNone.original;
    with_owner_spi([&] {
        run_statement(psprintf("SELECT original::oid, number, has_payloads"
                               " FROM herald.rewritable_tables() %s LIMIT 1",
                               which),
                      SPI_OK_SELECT);
        if (SPI_processed == 0) return;
        found = {DatumGetObjectId(column_of(0, 1)), DatumGetInt64(column_of(0, 2)),
                 DatumGetBool(column_of(0, 3))};
    });
    return found;
}

Candidate find_table(Oid table) {
    return find_candidate(psprintf("WHERE original = %u", table));
}

bool is_wanted(Oid table) {
    return OidIsValid(find_table(table).table);
}

// Others come before the one that was tried last.
Candidate next_candidate() {
    return find_candidate(psprintf("ORDER BY original::oid <= %u, original::oid", tried));
}

std::int64_t int8_of(const char* sql) {
    run_statement(sql, SPI_OK_SELECT);
    return DatumGetInt64(column_of(0, 1));
}

// False: it is not to be rewritten (any more).
bool find_kept_messages(std::int64_t number) {
    run_statement(psprintf("SELECT c.topic, c.first_pos FROM herald.topic_segment AS c"
                           " WHERE c.segment = %lld",
                           static_cast<long long>(number)),
                  SPI_OK_SELECT);
    for (std::uint64_t i = 0; i < SPI_tuptable->numvals; ++i)
        copy.kept.add(text_view(column_of(i, 1)), DatumGetInt64(column_of(i, 2)));
    return !copy.kept.empty();
}

// False: not now, some are in use.
bool find_kept_payloads(std::int64_t number) {
    run_statement(psprintf("SELECT herald.expire_unkept(%lld)", static_cast<long long>(number)),
                  SPI_OK_SELECT);
    if (!DatumGetBool(column_of(0, 1))) return false;
    run_statement(psprintf("SELECT p.id FROM herald.payload AS p WHERE p.segment = %lld"
                           " AND p.state IN ('pending', 'complete')",
                           static_cast<long long>(number)),
                  SPI_OK_SELECT);
    for (std::uint64_t i = 0; i < SPI_tuptable->numvals; ++i)
        copy.kept.add(uuid_view(column_of(i, 1)), 0);
    return true;
}

// Looks what is kept, and makes the table for it. False: it is not to be rewritten (any more), or
// not now. `memory`: what is kept until the copy is done.
bool begin_copy(const Candidate& candidate, MemoryContext memory) {
    copy = kNone;
    copy.original = candidate;
    copy.memory = memory;
    MemoryContext caller = MemoryContextSwitchTo(memory);
    copy.kept.create();
    MemoryContextSwitchTo(caller);
    const char* name = psprintf(candidate.has_payloads ? "rewrite_payload_%lld" : "rewrite_%lld",
                                static_cast<long long>(candidate.number));
    bool wanted = false;
    with_owner_spi([&] {
        // First: what these have let go of is seen by all that follows.
        copy.purges = int8_of("SELECT coalesce(max(p.id), 0) FROM herald.purge AS p");
        wanted = is_wanted(candidate.table) &&
                 (candidate.has_payloads ? find_kept_payloads(candidate.number)
                                         : find_kept_messages(candidate.number));
        // Read after it: what was seen was done by transactions before this one.
        copy.unseen = XidFromFullTransactionId(ReadNextFullTransactionId());
        if (!wanted) return;
        run_statement(psprintf("CREATE TABLE herald.%s (LIKE herald.%s INCLUDING ALL)"
                               " WITH (autovacuum_enabled = off)",
                               name, get_rel_name(candidate.table)),
                      SPI_OK_UTILITY);
    });
    if (!wanted) return false;
    copy.table = get_relname_relid(name, log_schema());
    add_table_to_extension(copy.table, get_extension_oid("pg_herald", false));
    CommandCounterIncrement();
    copy.extent = extent_of(candidate.table);
    return true;
}

// Exchanges the files of two relations of the same shape; both are locked.
void exchange_files(Oid one, Oid other) {
    Relation catalog = table_open(RelationRelationId, RowExclusiveLock);
    HeapTuple tuples[] = {SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(one)),
                          SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(other))};
    if (!HeapTupleIsValid(tuples[0]) || !HeapTupleIsValid(tuples[1]))
        elog(ERROR, "cache lookup failed for relation %u or %u", one, other);
    auto* a = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuples[0]));
    auto* b = reinterpret_cast<Form_pg_class>(GETSTRUCT(tuples[1]));
    exchange_file_columns(*a, *b);
    CatalogIndexState indexes = CatalogOpenIndexes(catalog);
    for (HeapTuple tuple : tuples)
        CatalogTupleUpdateWithInfo(catalog, &tuple->t_self, tuple, indexes);
    CatalogCloseIndexes(indexes);
    table_close(catalog, RowExclusiveLock);
}

// Locks a relation for this transaction, without waiting.
bool lock_now(Oid relation) {
    return ConditionalLockRelationOid(relation, AccessExclusiveLock);
}

// The indexes of one table and those of the other that are the same; false if not each has one, or
// a lock on one of them was not to be had.
bool pair_indexes(Relation one, Relation other, List** pairs) {
    List* others = RelationGetIndexList(other);
    AttrMap* same = make_attrmap(RelationGetDescr(one)->natts);
    for (int i = 0; i < same->maplen; ++i) same->attnums[i] = static_cast<AttrNumber>(i + 1);
    bool complete = list_length(others) == list_length(RelationGetIndexList(one));
    ListCell* cell = nullptr;
    foreach (cell, RelationGetIndexList(one)) {
        if (!complete || !lock_now(lfirst_oid(cell))) return false;
        Relation index = index_open(lfirst_oid(cell), NoLock);
        IndexInfo* info = BuildIndexInfo(index);
        Oid found = InvalidOid;
        ListCell* candidate = nullptr;
        foreach (candidate, others) {
            Relation twin = index_open(lfirst_oid(candidate), AccessExclusiveLock);
            if (CompareIndexInfo(BuildIndexInfo(twin), info, twin->rd_indcollation,
                                 index->rd_indcollation, twin->rd_opfamily, index->rd_opfamily,
                                 same))
                found = RelationGetRelid(twin);
            index_close(twin, NoLock);
            if (OidIsValid(found)) break;
        }
        index_close(index, NoLock);
        complete = OidIsValid(found);
        others = list_delete_oid(others, found);
        *pairs = lappend_oid(lappend_oid(*pairs, lfirst_oid(cell)), found);
    }
    return complete;
}

Oid only_index(Relation toast) {
    const List* indexes = RelationGetIndexList(toast);
    if (list_length(indexes) != 1) elog(ERROR, "herald: a TOAST table with several indexes");
    return linitial_oid(indexes);
}

// The original is locked. False: somebody has an index or a TOAST table open by itself.
bool exchange() {
    Relation original = table_open(copy.original.table, NoLock);
    Relation table = table_open(copy.table, AccessExclusiveLock);
    List* pairs = NIL;
    const Oid toasts[] = {original->rd_rel->reltoastrelid, table->rd_rel->reltoastrelid};
    bool locked =
        lock_now(toasts[0]) && lock_now(toasts[1]) && pair_indexes(original, table, &pairs);
    if (locked) {
        pairs = lappend_oid(lappend_oid(pairs, toasts[0]), toasts[1]);
        for (const Oid oid : toasts) {
            Relation toast = table_open(oid, NoLock);
            const Oid index = only_index(toast);
            table_close(toast, NoLock);
            locked = locked && lock_now(index);
            pairs = lappend_oid(pairs, index);
        }
        pairs = lappend_oid(lappend_oid(pairs, copy.original.table), copy.table);
        TransferPredicateLocksToHeapRelation(original);
    }
    table_close(table, NoLock);
    table_close(original, NoLock);
    if (!locked) return false;
    for (int i = 0; i < list_length(pairs); i += 2)
        exchange_files(list_nth_oid(pairs, i), list_nth_oid(pairs, i + 1));
    CommandCounterIncrement();
    return true;
}

void note_rewritten() {
    with_owner_spi([&] {
        run_statement(
            psprintf("SELECT herald.%s(%lld, %lld, %lld, %lld)",
                     copy.original.has_payloads ? "payloads_rewritten" : "rewritten",
                     static_cast<long long>(copy.original.number),
                     static_cast<long long>(copy.rows), static_cast<long long>(copy.bytes),
                     static_cast<long long>(copy.purges)),
            SPI_OK_SELECT);
    });
}

// There may be very many: the keeper does it after the exchange, whose lock readers would wait for;
// the one against writing is still there. If it is not done, the next purge rewrites the table once
// more.
void note_gone(const Candidate& rewritten) {
    if (!rewritten.has_payloads) return;
    with_owner_spi([&] {
        run_statement(
            psprintf("SELECT herald.payloads_gone(%lld)", static_cast<long long>(rewritten.number)),
            SPI_OK_SELECT);
    });
}

// The transactions in this database with snapshots that may not see what `unseen` and those before
// it did.
VirtualTransactionId* older_than(TransactionId unseen, int* count) {
    TransactionId last = unseen;
    TransactionIdRetreat(last);
    return GetCurrentVirtualXIDs(last, true, false, PROC_IS_AUTOVACUUM | PROC_IN_VACUUM, count);
}

bool books_are_ours() {
    const LOCKTAG tag = herald_lock(kBooksKey);
    return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

void lock_for_exchange() {
    int count = 0;
    const VirtualTransactionId* others = older_than(copy.unseen, &count);
    for (int i = 0; i < count; ++i) (void)VirtualXactLock(others[i], true);
    wait_for_users(copy.original.table);
    if (lock_now(copy.original.table)) return;
    // Only those are left that have begun since: they will be gone in a moment.
    const int level = NewGUCNestLevel();
    (void)set_config_option("lock_timeout", kMostQueue, PGC_SUSET, PGC_S_OVERRIDE, GUC_ACTION_SAVE,
                            true, 0, false);
    LockRelationOid(copy.original.table, AccessExclusiveLock);
    AtEOXact_GUC(true, level);
}

// Runs `work`, which waits for locks. False: it had to wait for too long. Then only a
// subtransaction is rolled back; the end of the whole would take the lock of the session with it.
template <typename Work>
bool waited_for(Work&& work) {
    MemoryContext caller = CurrentMemoryContext;
    ResourceOwner owner = CurrentResourceOwner;
    volatile bool done = true;
    BeginInternalSubTransaction(nullptr);
    PG_TRY();
    {
        work();
        ReleaseCurrentSubTransaction();
    }
    PG_CATCH();
    {
        if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE) PG_RE_THROW();
        MemoryContextSwitchTo(caller);
        FlushErrorState();
        RollbackAndReleaseCurrentSubTransaction();
        done = false;
    }
    PG_END_TRY();
    MemoryContextSwitchTo(caller);
    CurrentResourceOwner = owner;
    return done;
}

enum class Outcome : std::uint8_t { kDone, kInTheWay, kUnwanted };

// The last step, in a transaction.
Outcome replace() {
    if (!books_are_ours()) return Outcome::kInTheWay;
    // Again, with the books.
    if (!is_wanted(copy.original.table)) return Outcome::kUnwanted;
    if (!waited_for(lock_for_exchange) || !exchange()) return Outcome::kInTheWay;
    note_rewritten();
    discard_member_table(copy.table);
    return Outcome::kDone;
}

// Against all who would write to it, for the session.
bool lock_original(Oid table) {
    const LOCKTAG tag = relation_lock(table);
    return LockAcquire(&tag, ShareLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

// Whether nobody can have written to it since, and nobody wants to. An error that ended a
// transaction of this worker has taken the lock away.
bool original_is_ours() {
    const LOCKTAG tag = relation_lock(copy.original.table);
    return lock_held_by_me(&tag, ShareLock) && !LockHasWaiters(&tag, ShareLock, true);
}

// Drops tables that a keeper before has left.
void sweep() {
    with_owner_spi([&] {
        run_statement("SELECT leftover::oid FROM herald.rewrite_tables() AS leftover",
                      SPI_OK_SELECT);
        for (std::uint64_t i = 0; i < SPI_tuptable->numvals; ++i)
            drop_member_table(DatumGetObjectId(column_of(i, 1)));
    });
}

// Whether somebody has a snapshot that was there in an earlier round: he may keep it for long, and
// what is copied now would wait for him.
bool somebody_is_slow() {
    const TransactionId before = noted;
    noted = XidFromFullTransactionId(ReadNextFullTransactionId());
    if (!TransactionIdIsValid(before)) return true;
    int count = 0;
    (void)older_than(before, &count);
    return count > 0;
}

void let_original_go() {
    const LOCKTAG tag = relation_lock(copy.original.table);
    if (lock_held_by_me(&tag, ShareLock)) (void)LockRelease(&tag, ShareLock, true);
}

// There is no copy any more.
void end_copy() {
    let_original_go();
    if (copy.memory != nullptr) MemoryContextDelete(copy.memory);
    copy = kNone;
}

void abandon() {
    if (OidIsValid(copy.table)) swept = false;
    end_copy();
}

// False: somebody wants to have the table, or something went wrong.
bool start(const Bus& bus, const Candidate& candidate) {
    MemoryContext memory =
        AllocSetContextCreate(TopMemoryContext, "herald rewrite", ALLOCSET_DEFAULT_SIZES);
    copy.memory = memory;
    bool begun = false;
    return attempt(bus, [&] { in_transaction([&] { begun = begin_copy(candidate, memory); }); }) &&
           begun;
}

bool is_copied() {
    return copy.next_page >= copy.extent.pages;
}

// Copies until this time, at least something. False: somebody wants to have the table, or something
// went wrong.
bool copy_until(const Bus& bus, std::int64_t time) {
    bool fine = true;
    do {
        const BlockNumber count = Min(copy.extent.at_once, copy.extent.pages - copy.next_page);
        fine = attempt(bus, [&] { in_transaction([&] { copy_pages(copy.next_page, count); }); });
        copy.next_page += count;
        heed_signals();
        fine = fine && original_is_ours() && !bus.gone.load();
    } while (fine && !is_copied() && monotonic_us() < time);
    return fine;
}

}  // namespace

void give_way() {
    if (OidIsValid(copy.original.table) && !original_is_ours()) abandon();
}

bool is_copying() {
    return OidIsValid(copy.table) && !is_copied();
}

bool rewrite_tables(const Bus& bus) {
    if (!swept) {
        if (!attempt(bus, [] { in_transaction(sweep); })) return false;
        swept = true;
    }
    if (OidIsValid(copy.table)) {
        // It may have been removed meanwhile.
        bool wanted = false;
        in_transaction([&] { wanted = is_wanted(copy.original.table); });
        if (!wanted) {
            abandon();
            return false;
        }
    } else {
        Candidate candidate = {};
        in_transaction([&] { candidate = next_candidate(); });
        if (!OidIsValid(candidate.table)) {
            noted = InvalidTransactionId;
            return true;
        }
        if (somebody_is_slow()) return false;
        tried = candidate.table;
        const auto wait = [&] { in_transaction([&] { wait_for_users(candidate.table); }); };
        if (!attempt(bus, wait) || !lock_original(candidate.table)) return false;
        copy.original = candidate;
        if (!start(bus, candidate)) {
            abandon();
            return false;
        }
    }
    if (!is_copied() && !copy_until(bus, monotonic_us() + kSlice)) {
        abandon();
        return false;
    }
    if (!is_copied()) {
        SetLatch(MyLatch);  // the next round is due at once
        return false;
    }
    Outcome outcome = Outcome::kUnwanted;
    if (original_is_ours() && !attempt(bus, [&] { in_transaction([&] { outcome = replace(); }); }))
        outcome = Outcome::kUnwanted;
    if (outcome == Outcome::kDone) {
        (void)attempt(bus, [] { in_transaction([] { note_gone(copy.original); }); });
        end_copy();
    } else if (outcome == Outcome::kUnwanted || !original_is_ours() || bus.gone.load()) {
        abandon();
    }
    return false;  // perhaps there is another
}

// For herald.maintain(): in the caller's transaction, if nobody has the table open.
HERALD_FUNCTION(herald_rewrite_table) {
    const Oid table = PG_GETARG_OID(0);
    const LOCKTAG books = herald_lock(kBooksKey);
    const Candidate candidate =
        lock_held_by_me(&books, ExclusiveLock) ? find_table(table) : kNone.original;
    if (!OidIsValid(candidate.table))
        ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                        errmsg("%s is not to be rewritten",
                               DatumGetCString(DirectFunctionCall1(regclassout, table))),
                        errhint("herald.maintain() rewrites what needs it.")));
    int others = 0;
    if (!lock_now(table)) PG_RETURN_BOOL(false);
    (void)older_than(XidFromFullTransactionId(ReadNextFullTransactionId()), &others);
    Relation relation = table_open(table, NoLock);
    const bool in_use = relation->rd_refcnt > 1 || AfterTriggerPendingOnRel(table);
    table_close(relation, NoLock);
    if (others > 0 || in_use) PG_RETURN_BOOL(false);
    bool done = false;
    if (begin_copy(candidate, CurrentMemoryContext)) {
        as_owner([&] {
            copy_pages(0, copy.extent.pages);
            done = exchange();
        });
        if (done) {
            note_rewritten();
            note_gone(candidate);
        }
        as_owner([&] { drop_member_table(copy.table); });
    }
    copy = kNone;
    PG_RETURN_BOOL(done);
}

}  // namespace herald
