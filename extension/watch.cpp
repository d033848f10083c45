// herald.publish_change: the trigger that herald.watch puts on a user's table. It publishes each
// change as {"event":…,"table":…,"new":{row},"old":{row}} to the topic in its first argument; the
// other arguments name the columns, none meaning all.

#include <cstring>

#include "announce.h"
#include "core/json_escape.h"
#include "send.h"

namespace herald {

namespace {

// The watched columns, as attribute numbers; count 0 = all.
struct WatchedColumns {
    AttrNumber* numbers;
    int count;
};

WatchedColumns watched_columns(const Trigger* trigger, Relation table) {
    WatchedColumns columns{nullptr, trigger->tgnargs - 1};
    if (columns.count == 0) return columns;
    columns.numbers =
        static_cast<AttrNumber*>(palloc(sizeof(AttrNumber) * static_cast<Size>(columns.count)));
    for (int i = 0; i < columns.count; ++i) {
        const char* name = trigger->tgargs[i + 1];
        columns.numbers[i] = get_attnum(RelationGetRelid(table), name);
        if (columns.numbers[i] == InvalidAttrNumber)
            ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
                            errmsg("watched column \"%s\" of \"%s\" is gone", name,
                                   RelationGetRelationName(table)),
                            errhint("Call herald.watch again with the columns of today.")));
    }
    return columns;
}

bool any_changed(HeapTuple before, HeapTuple after, TupleDesc description,
                 const WatchedColumns& columns) {
    for (int i = 0; i < columns.count; ++i) {
        const AttrNumber number = columns.numbers[i];
        const Form_pg_attribute attribute = TupleDescAttr(description, number - 1);
        bool null_before = false;
        bool null_after = false;
        const Datum old_value = heap_getattr(before, number, description, &null_before);
        const Datum new_value = heap_getattr(after, number, description, &null_after);
        if (null_before != null_after) return true;
        if (!null_before &&
            !datum_image_eq(old_value, new_value, attribute->attbyval, attribute->attlen))
            return true;
    }
    return false;
}

// A row as JSON text: all columns, or the watched ones in their order.
std::string_view row_json(HeapTuple tuple, TupleDesc description, const WatchedColumns& columns) {
    Datum record;
    if (columns.count == 0) {
        record = heap_copy_tuple_as_datum(tuple, description);
    } else {
        TupleDesc chosen = CreateTemplateTupleDesc(columns.count);
        auto* values =
            static_cast<Datum*>(palloc(sizeof(Datum) * static_cast<Size>(columns.count)));
        auto* nulls = static_cast<bool*>(palloc(sizeof(bool) * static_cast<Size>(columns.count)));
        for (int i = 0; i < columns.count; ++i) {
            TupleDescCopyEntry(chosen, static_cast<AttrNumber>(i + 1), description,
                               columns.numbers[i]);
            values[i] = heap_getattr(tuple, columns.numbers[i], description, &nulls[i]);
        }
        record = HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(chosen), values, nulls));
    }
    return text_view(DirectFunctionCall1(row_to_json, record));
}

const char* qualified_name(Relation table) {
    return psprintf("%s.%s", get_namespace_name(RelationGetNamespace(table)),
                    RelationGetRelationName(table));
}

bool has_own_trigger(Relation table, const char* name) {
    const TriggerDesc* triggers = table->trigdesc;
    for (int i = 0; triggers != nullptr && i < triggers->numtriggers; ++i) {
        const Trigger& trigger = triggers->triggers[i];
        if (!trigger.tgisclone && std::strcmp(trigger.tgname, name) == 0) return true;
    }
    return false;
}

// The table that herald.watch was called for: of a partition, the partitioned table above it.
const char* watched_name(const TriggerData* data) {
    if (!data->tg_trigger->tgisclone) return qualified_name(data->tg_relation);
    const char* name = qualified_name(data->tg_relation);
    ListCell* cell;
    foreach (cell, get_partition_ancestors(RelationGetRelid(data->tg_relation))) {
        Relation ancestor = table_open(lfirst_oid(cell), AccessShareLock);
        const bool found = has_own_trigger(ancestor, data->tg_trigger->tgname);
        if (found) name = qualified_name(ancestor);
        table_close(ancestor, AccessShareLock);
        if (found) break;
    }
    return name;
}

struct Change {
    const char* event;
    HeapTuple before;  // nullptr where it does not apply
    HeapTuple after;
};

Change change_of(const TriggerData* data) {
    const TriggerEvent event = data->tg_event;
    if (TRIGGER_FIRED_BY_INSERT(event)) return {"insert", nullptr, data->tg_trigtuple};
    if (TRIGGER_FIRED_BY_UPDATE(event)) return {"update", data->tg_trigtuple, data->tg_newtuple};
    if (TRIGGER_FIRED_BY_DELETE(event)) return {"delete", data->tg_trigtuple, nullptr};
    return {"truncate", nullptr, nullptr};
}

}  // namespace

HERALD_FUNCTION(herald_publish_change) {
    if (!CALLED_AS_TRIGGER(fcinfo))
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("herald.publish_change is a trigger"),
                        errhint("Use herald.watch(table, topic).")));
    const auto* data = reinterpret_cast<const TriggerData*>(fcinfo->context);
    if (!TRIGGER_FIRED_AFTER(data->tg_event) || data->tg_trigger->tgnargs < 1)
        ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
                        errmsg("herald.publish_change must be an AFTER trigger with a topic"),
                        errhint("Use herald.watch(table, topic).")));
    const TupleDesc description = RelationGetDescr(data->tg_relation);
    const WatchedColumns columns = watched_columns(data->tg_trigger, data->tg_relation);
    const Change change = change_of(data);
    if (change.before != nullptr && change.after != nullptr && columns.count > 0 &&
        !any_changed(change.before, change.after, description, columns))
        return PointerGetDatum(nullptr);

    StringInfoSink sink;
    appendStringInfo(sink.out, "{\"event\":\"%s\",\"table\":", change.event);
    write_json_string(sink, watched_name(data));
    if (change.after != nullptr) {
        sink.append(",\"new\":");
        sink.append(row_json(change.after, description, columns));
    }
    if (change.before != nullptr) {
        sink.append(",\"old\":");
        sink.append(row_json(change.before, description, columns));
    }
    sink.append("}");

    Draft draft = Draft::empty();
    draft.row.set_text(kTopic, data->tg_trigger->tgargs[0]);
    draft.row.set_text(kMessageType, "notification");
    draft.row.set_text(kContent, sink.view());
    draft.row.set(kIsJson, BoolGetDatum(true));
    (void)send_one(draft);
    return PointerGetDatum(nullptr);
}

}  // namespace herald
