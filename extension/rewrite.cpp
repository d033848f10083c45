#include "rewrite.h"

#include "compat.h"
#include "locks.h"
#include "log.h"
#include "scoped.h"
#include "settings.h"
#include "worker.h"

namespace herald {

namespace {

// So many pages of a segment are copied in one transaction.
constexpr BlockNumber kPages = 256;
// Rows that are stored at once.
constexpr int kBatch = 64;
// How long the exchange of files queues for its lock, and readers behind it.
constexpr const char* kMostQueue = "10ms";

// The copy of a segment that is under way.
struct Copy {
    std::int64_t number;
    Oid segment;
    Oid table;             // InvalidOid: there is none
    TransactionId unseen;  // snapshots that don't know a transaction before it see what is kept
    std::int64_t purges;   // the last purge that this copy heeds
    std::int64_t messages;
    std::int64_t bytes;  // of their contents
};
constexpr Copy kNone = {-1, InvalidOid, InvalidOid, InvalidTransactionId, 0, 0, 0};
constinit Copy copy = kNone;

// The keeper's: it has looked for what a keeper before it has left.
constinit bool swept = false;
// The segment that was tried last: the next time others come first, if it was in use.
constinit std::int64_t tried = -1;
// Transactions before this one had begun in an earlier round.
constinit TransactionId noted = InvalidTransactionId;

// What is kept of a segment: of each topic the messages from a position on. Topics are told apart
// by a hash; of two with the same one more is kept.
class Kept {
  public:
    // The caller's memory context outlives it.
    void create() {
        HASHCTL control = {};
        control.keysize = sizeof(std::uint64_t);
        control.entrysize = sizeof(Entry);
        control.hcxt = CurrentMemoryContext;
        topics_ = hash_create("herald kept topics", 1024, &control,
                              HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
    }
    void add(std::string_view topic, std::int64_t first) {
        const std::uint64_t key = hash_of(topic);
        bool found = false;
        auto* entry = static_cast<Entry*>(hash_search(topics_, &key, HASH_ENTER, &found));
        entry->first = found ? Min(entry->first, first) : first;
    }
    bool has(std::string_view topic, std::int64_t pos) const {
        const std::uint64_t key = hash_of(topic);
        const auto* entry =
            static_cast<const Entry*>(hash_search(topics_, &key, HASH_FIND, nullptr));
        return entry != nullptr && pos >= entry->first;
    }
    bool empty() const { return hash_get_num_entries(topics_) == 0; }

  private:
    struct Entry {
        std::uint64_t hash;
        std::int64_t first;
    };

    static std::uint64_t hash_of(std::string_view topic) {
        return hash_bytes_extended(reinterpret_cast<const unsigned char*>(topic.data()),
                                   static_cast<int>(topic.size()), 0);
    }

    HTAB* topics_ = nullptr;
};

// Stores rows of a segment in the table that is to replace it.
class Replacement {
  public:
    Replacement(Relation segment, Oid table) : relation_(table_open(table, RowExclusiveLock)) {
        // Values that stand apart are found by it after the exchange.
        relation_->rd_toastoid = segment->rd_rel->reltoastrelid;
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

// Copies what is kept on these pages.
void copy_pages(const Kept& kept, BlockNumber first, BlockNumber count) {
    PushActiveSnapshot(GetLatestSnapshot());
    Relation segment = table_open(copy.segment, AccessShareLock);
    Replacement replacement(segment, copy.table);
    TupleTableSlot* row = table_slot_create(segment, nullptr);
    TableScanDesc scan =
        table_beginscan_strat(segment, GetActiveSnapshot(), 0, nullptr, true, false);
    heap_setscanlimits(scan, first, count);
    MemoryContext scratch =
        AllocSetContextCreate(CurrentMemoryContext, "herald rewrite row", ALLOCSET_DEFAULT_SIZES);
    const TimestampTz now = GetCurrentTimestamp();
    while (table_scan_getnextslot(scan, ForwardScanDirection, row)) {
        slot_getallattrs(row);
        MemoryContext caller = MemoryContextSwitchTo(scratch);
        const bool is_kept =
            kept.has(text_view(row->tts_values[kTopic]), DatumGetInt64(row->tts_values[kPos])) &&
            !has_expired(row, now);
        MemoryContextSwitchTo(caller);
        MemoryContextReset(scratch);
        if (!is_kept) continue;
        replacement.add(row);
        copy.messages += 1;
        copy.bytes +=
            static_cast<std::int64_t>(toast_raw_datum_size(row->tts_values[kContent])) - VARHDRSZ;
    }
    table_endscan(scan);
    ExecDropSingleTupleTableSlot(row);
    replacement.close();
    table_close(segment, NoLock);
    PopActiveSnapshot();
}

BlockNumber pages_of(Oid table) {
    Relation relation = table_open(table, AccessShareLock);
    const BlockNumber pages = RelationGetNumberOfBlocks(relation);
    table_close(relation, NoLock);
    return pages;
}

// Looks what is kept, and makes the table for it. False: the segment is not to be rewritten (any
// more).
bool begin_copy(std::int64_t number, Oid segment, Kept& kept) {
    copy = kNone;
    copy.number = number;
    copy.segment = segment;
    kept.create();
    with_owner_spi([&] {
        // In one statement, so that all of it is of one moment.
        run_statement(psprintf("SELECT c.topic, c.first_pos,"
                               " (SELECT coalesce(max(p.id), 0) FROM herald.purge AS p)"
                               " FROM herald.topic_segment AS c WHERE c.segment = %lld"
                               " AND %lld IN (SELECT r.number FROM herald.rewritable_segments() r)",
                               static_cast<long long>(number), static_cast<long long>(number)),
                      SPI_OK_SELECT);
        // Read after it: what its snapshot saw was done by transactions before this one.
        copy.unseen = XidFromFullTransactionId(ReadNextFullTransactionId());
        for (std::uint64_t i = 0; i < SPI_tuptable->numvals; ++i) {
            const auto column = [&](int index) {
                bool null = false;
                return SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, index, &null);
            };
            kept.add(text_view(column(1)), DatumGetInt64(column(2)));
            copy.purges = DatumGetInt64(column(3));
        }
        if (kept.empty()) return;
        run_statement(psprintf("CREATE TABLE herald.rewrite_%lld"
                               " (LIKE herald.message_%lld INCLUDING ALL)",
                               static_cast<long long>(number), static_cast<long long>(number)),
                      SPI_OK_UTILITY);
    });
    if (kept.empty()) return false;
    copy.table =
        get_relname_relid(psprintf("rewrite_%lld", static_cast<long long>(number)), log_schema());
    add_table_to_extension(copy.table, get_extension_oid("pg_herald", false));
    CommandCounterIncrement();
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

// The segment is locked. False: somebody has an index or a TOAST table open by itself.
bool exchange() {
    Relation segment = table_open(copy.segment, NoLock);
    Relation table = table_open(copy.table, AccessExclusiveLock);
    List* pairs = NIL;
    const Oid toasts[] = {segment->rd_rel->reltoastrelid, table->rd_rel->reltoastrelid};
    bool locked =
        lock_now(toasts[0]) && lock_now(toasts[1]) && pair_indexes(segment, table, &pairs);
    if (locked) {
        pairs = lappend_oid(lappend_oid(pairs, toasts[0]), toasts[1]);
        for (const Oid oid : toasts) {
            Relation toast = table_open(oid, NoLock);
            const Oid index = only_index(toast);
            table_close(toast, NoLock);
            locked = locked && lock_now(index);
            pairs = lappend_oid(pairs, index);
        }
        pairs = lappend_oid(lappend_oid(pairs, copy.segment), copy.table);
        TransferPredicateLocksToHeapRelation(segment);
    }
    table_close(table, NoLock);
    table_close(segment, NoLock);
    if (!locked) return false;
    for (int i = 0; i < list_length(pairs); i += 2)
        exchange_files(list_nth_oid(pairs, i), list_nth_oid(pairs, i + 1));
    CommandCounterIncrement();
    return true;
}

void note_rewritten() {
    with_owner_spi([&] {
        run_statement(
            psprintf("SELECT herald.rewritten(%lld, %lld, %lld, %lld)",
                     static_cast<long long>(copy.number), static_cast<long long>(copy.messages),
                     static_cast<long long>(copy.bytes), static_cast<long long>(copy.purges)),
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

struct Candidate {
    std::int64_t number;
    Oid segment;  // InvalidOid: there is none
};

// The first segment that is to be rewritten; `which` is a condition, or an order.
Candidate find_candidate(const char* which) {
    Candidate found = {-1, InvalidOid};
    with_owner_spi([&] {
        run_statement(
            psprintf("SELECT number, segment::oid FROM herald.rewritable_segments() %s LIMIT 1",
                     which),
            SPI_OK_SELECT);
        if (SPI_processed == 0) return;
        const auto column = [](int number) {
            bool null = false;
            return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &null);
        };
        found = {DatumGetInt64(column(1)), DatumGetObjectId(column(2))};
    });
    return found;
}

// The table of this segment, if it is to be rewritten; otherwise InvalidOid.
Oid wanted_segment(std::int64_t number) {
    return find_candidate(psprintf("WHERE number = %lld", static_cast<long long>(number))).segment;
}

// Others come before the one that was tried last.
Candidate next_candidate() {
    return find_candidate(
        psprintf("ORDER BY number <= %lld, number", static_cast<long long>(tried)));
}

void lock_for_exchange() {
    int count = 0;
    const VirtualTransactionId* others = older_than(copy.unseen, &count);
    for (int i = 0; i < count; ++i) (void)VirtualXactLock(others[i], true);
    wait_for_users(copy.segment);
    if (lock_now(copy.segment)) return;
    // Only those are left that have begun since: they will be gone in a moment.
    const int level = NewGUCNestLevel();
    (void)set_config_option("lock_timeout", kMostQueue, PGC_SUSET, PGC_S_OVERRIDE, GUC_ACTION_SAVE,
                            true, 0, false);
    LockRelationOid(copy.segment, AccessExclusiveLock);
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
    // It may have been removed meanwhile.
    if (wanted_segment(copy.number) != copy.segment) return Outcome::kUnwanted;
    if (!waited_for(lock_for_exchange) || !exchange()) return Outcome::kInTheWay;
    note_rewritten();
    drop_member_table(copy.table);
    return Outcome::kDone;
}

// Against all who would write to the segment, for the session.
bool lock_segment(Oid segment) {
    const LOCKTAG tag = relation_lock(segment);
    return LockAcquire(&tag, ShareLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
}

// Whether nobody can have written to the segment since, and nobody wants to. An error that ended a
// transaction of this worker has taken the lock away.
bool segment_is_ours() {
    const LOCKTAG tag = relation_lock(copy.segment);
    return lock_held_by_me(&tag, ShareLock) && !LockHasWaiters(&tag, ShareLock, true);
}

// Drops tables that a keeper before has left.
void sweep() {
    with_owner_spi([&] {
        run_statement("SELECT leftover::oid FROM herald.rewrite_tables() AS leftover",
                      SPI_OK_SELECT);
        for (std::uint64_t i = 0; i < SPI_tuptable->numvals; ++i) {
            bool null = false;
            drop_member_table(DatumGetObjectId(
                SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &null)));
        }
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

// False: somebody wants to have the segment, or something went wrong.
bool copy_segment(const Bus& bus, const Candidate& candidate) {
    MemoryContext memory =
        AllocSetContextCreate(TopMemoryContext, "herald rewrite", ALLOCSET_DEFAULT_SIZES);
    Kept kept;
    bool begun = false;
    BlockNumber pages = 0;
    bool done = attempt(bus, [&] {
        in_transaction([&] {
            MemoryContext caller = MemoryContextSwitchTo(memory);
            begun = begin_copy(candidate.number, candidate.segment, kept);
            MemoryContextSwitchTo(caller);
            pages = pages_of(candidate.segment);
        });
    });
    for (BlockNumber page = 0; done && begun && page < pages; page += kPages) {
        done = attempt(bus, [&] {
            in_transaction([&] { copy_pages(kept, page, Min(kPages, pages - page)); });
        });
        heed_signals();
        done = done && segment_is_ours() && !bus.gone.load();
    }
    MemoryContextDelete(memory);
    return done && begun;
}

void let_segment_go() {
    const LOCKTAG tag = relation_lock(copy.segment);
    if (lock_held_by_me(&tag, ShareLock)) (void)LockRelease(&tag, ShareLock, true);
}

void abandon() {
    let_segment_go();
    if (OidIsValid(copy.table)) swept = false;
    copy = kNone;
}

}  // namespace

void give_way() {
    if (OidIsValid(copy.segment) && !segment_is_ours()) abandon();
}

bool rewrite_segments(const Bus& bus) {
    if (!swept) {
        if (!attempt(bus, [] { in_transaction(sweep); })) return false;
        swept = true;
    }
    if (!OidIsValid(copy.table)) {
        Candidate candidate = {};
        in_transaction([&] { candidate = next_candidate(); });
        if (!OidIsValid(candidate.segment)) {
            noted = InvalidTransactionId;
            return true;
        }
        if (somebody_is_slow()) return false;
        tried = candidate.number;
        const auto wait = [&] { in_transaction([&] { wait_for_users(candidate.segment); }); };
        if (!attempt(bus, wait) || !lock_segment(candidate.segment)) return false;
        copy.segment = candidate.segment;
        if (!copy_segment(bus, candidate)) {
            abandon();
            return false;
        }
    }
    Outcome outcome = Outcome::kUnwanted;
    if (segment_is_ours() && !attempt(bus, [&] { in_transaction([&] { outcome = replace(); }); }))
        outcome = Outcome::kUnwanted;
    if (outcome == Outcome::kDone) {
        let_segment_go();
        copy = kNone;
    } else if (outcome == Outcome::kUnwanted || !segment_is_ours() || bus.gone.load()) {
        abandon();
    }
    return false;  // perhaps there is another
}

// For herald.maintain(): in the caller's transaction, if nobody has the segment open.
HERALD_FUNCTION(herald_rewrite_segment) {
    const std::int64_t number = PG_GETARG_INT64(0);
    const LOCKTAG books = herald_lock(kBooksKey);
    const Oid segment =
        lock_held_by_me(&books, ExclusiveLock) ? wanted_segment(number) : InvalidOid;
    if (!OidIsValid(segment))
        ereport(ERROR,
                (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                 errmsg("segment %lld is not to be rewritten", static_cast<long long>(number)),
                 errhint("herald.maintain() rewrites what needs it.")));
    int others = 0;
    if (!lock_now(segment)) PG_RETURN_BOOL(false);
    (void)older_than(XidFromFullTransactionId(ReadNextFullTransactionId()), &others);
    Relation relation = table_open(segment, NoLock);
    const bool in_use = relation->rd_refcnt > 1 || AfterTriggerPendingOnRel(segment);
    table_close(relation, NoLock);
    if (others > 0 || in_use) PG_RETURN_BOOL(false);
    bool done = false;
    Kept kept;
    if (begin_copy(number, segment, kept)) {
        as_owner([&] {
            copy_pages(kept, 0, pages_of(segment));
            done = exchange();
        });
        if (done) note_rewritten();
        as_owner([&] { drop_member_table(copy.table); });
    }
    copy = kNone;
    PG_RETURN_BOOL(done);
}

}  // namespace herald
