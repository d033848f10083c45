#include "register.h"

#include "compat.h"
#include "log.h"
#include "scoped.h"

namespace herald {

namespace {

Oid register_oid(const char* name) {
    const Oid oid = get_relname_relid(name, log_schema());
    if (!OidIsValid(oid))
        ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("herald.%s does not exist", name),
                        errhint("ALTER EXTENSION pg_herald UPDATE")));
    return oid;
}

}  // namespace

bool registers_exist() {
    return OidIsValid(get_relname_relid(kTimelineRegister, log_schema()));
}

RegisterValue read_register(const char* name) {
    Relation relation = relation_open(register_oid(name), AccessShareLock);
    Buffer buffer = ReadBuffer(relation, 0);
    LockBuffer(buffer, BUFFER_LOCK_SHARE);
    Page page = BufferGetPage(buffer);
    auto* header = reinterpret_cast<HeapTupleHeader>(
        PageGetItem(page, PageGetItemId(page, FirstOffsetNumber)));
    const auto* data = reinterpret_cast<const FormData_pg_sequence_data*>(
        reinterpret_cast<const char*>(header) + header->t_hoff);
    const RegisterValue value{data->last_value, data->is_called};
    UnlockReleaseBuffer(buffer);
    relation_close(relation, NoLock);
    return value;
}

void write_register(const char* name, RegisterValue value) {
    const Oid oid = register_oid(name);
    as_owner([&] {
        (void)DirectFunctionCall3(setval3_oid, ObjectIdGetDatum(oid), Int64GetDatum(value.value),
                                  BoolGetDatum(value.flag));
    });
}

void flush_wal() {
    if (!XLogRecPtrIsInvalid(XactLastRecEnd)) XLogFlush(XactLastRecEnd);
}

std::int64_t first_free_position() {
    const RegisterValue counter = read_register(kPositionRegister);
    return counter.flag ? counter.value + 1 : counter.value;
}

void leave_lost_positions_behind() {
    const auto timeline = static_cast<std::int64_t>(current_timeline());
    const RegisterValue last = read_register(kTimelineRegister);
    if (last.flag && last.value == timeline) return;
    if (last.flag)
        write_register(kPositionRegister, {first_free_position() + kSegmentWidth, false});
    write_register(kTimelineRegister, {timeline, true});
    flush_wal();
}

}  // namespace herald
