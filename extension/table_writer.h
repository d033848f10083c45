// Stores rows in a table directly, as COPY would, without planning a statement. No triggers, no
// constraints but those of indexes.
#pragma once

#include "pg.h"

namespace herald {

class TableWriter {
  public:
    // Of a table that the caller has locked, or with a lock that it keeps.
    void open(Oid table, LOCKMODE lock);
    bool is_open() const { return relation_ != nullptr; }
    int columns() const { return RelationGetDescr(relation_)->natts; }
    const char* name() const { return RelationGetRelationName(relation_); }
    // As many values as the table has columns.
    void append(const Datum* values, const bool* nulls);
    // What was stored is visible to later commands of the transaction.
    void close();

  private:
    MemoryContext home_ = CurrentMemoryContext;  // outlives the context that append is called in
    EState* state_ = nullptr;
    Relation relation_ = nullptr;
    ResultRelInfo* target_ = nullptr;
    TupleTableSlot* slot_ = nullptr;
};

// Runs `work(writer)` on a table.
template <typename Work>
void with_table_writer(Oid table, Work&& work) {
    TableWriter writer;
    writer.open(table, RowExclusiveLock);
    work(writer);
    writer.close();
}

}  // namespace herald
