#include "table_writer.h"

#include <cstring>

#include "compat.h"

namespace herald {

void TableWriter::open(Oid table, LOCKMODE lock) {
    close();
    MemoryContext caller = MemoryContextSwitchTo(home_);
    relation_ = table_open(table, lock);
    state_ = CreateExecutorState();
    target_ = makeNode(ResultRelInfo);
    InitResultRelInfo(target_, relation_, 0, nullptr, 0);
    ExecOpenIndices(target_, false);
    slot_ = ExecInitExtraTupleSlot(state_, RelationGetDescr(relation_),
                                   table_slot_callbacks(relation_));
    MemoryContextSwitchTo(caller);
}

void TableWriter::append(const Datum* values, const bool* nulls) {
    const auto count = static_cast<std::size_t>(columns());
    ExecClearTuple(slot_);
    std::memcpy(slot_->tts_values, values, count * sizeof *values);
    std::memcpy(slot_->tts_isnull, nulls, count * sizeof *nulls);
    ExecStoreVirtualTuple(slot_);
    GetPerTupleExprContext(state_)->ecxt_scantuple = slot_;
    simple_table_tuple_insert(relation_, slot_);
    insert_index_entries(target_, slot_, state_);
    ResetPerTupleExprContext(state_);
}

void TableWriter::close() {
    if (relation_ == nullptr) return;
    ExecCloseIndices(target_);
    ExecResetTupleTable(state_->es_tupleTable, false);
    FreeExecutorState(state_);
    table_close(relation_, NoLock);
    relation_ = nullptr;
    CommandCounterIncrement();
}

}  // namespace herald
