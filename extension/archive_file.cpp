#include "archive_file.h"

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <cstring>

#include "archive_io.h"
#include "check.h"
#include "core/archive_line.h"

namespace herald {

namespace {

constexpr std::string_view kSuffix = ".jsonl.zst";
constexpr std::size_t kDigits = 16;  // of 2^53
constexpr int kLevel = 3;
// What is asked of memory to read a file: a window of 8 MiB, and a line.
constexpr int kMostWindowLog = 23;
constexpr std::size_t kBuffer = 128 * 1024;

constexpr std::size_t kHeaderSize = 1280;

enum class Kind : std::uint8_t { kText, kInteger, kSmall, kUuid, kTime, kJson, kTrue };

struct Member {
    std::string_view name;
    Column column;
    Kind kind;
};

constexpr Member kEnvelope[] = {
    {"pos", kPos, Kind::kInteger},
    {"id", kId, Kind::kUuid},
    {"topic", kTopic, Kind::kText},
    {"type", kMessageType, Kind::kText},
    {"sender", kSender, Kind::kText},
    {"recipient", kRecipient, Kind::kText},
    {"conversation", kConversation, Kind::kText},
    {"at", kAt, Kind::kTime},
    {"metadata", kMetadata, Kind::kJson},
    {"reply_to", kReplyTo, Kind::kUuid},
    {"priority", kPriority, Kind::kSmall},
    {"key", kOrderingKey, Kind::kText},
    {"expires_at", kExpiresAt, Kind::kTime},
};

// What the envelope lacks. A column that is not here and not in the envelope does not come back.
constexpr Member kBeyond[] = {
    {"workspace", kWorkspace, Kind::kText},
    {"idempotency_key", kIdempotencyKey, Kind::kText},
    {"is_json", kIsJson, Kind::kTrue},
    {"payload", kPayload, Kind::kUuid},
};

// The content: in the envelope text, or JSON as it is. JSON that has line breaks stands there
// without them, and once more at the end, as it was.
constexpr std::string_view kContentName = "content";
constexpr std::string_view kContentText = "content_text";
// Of a message with a payload.
constexpr std::string_view kReference = "ref";
constexpr std::string_view kNever = "infinity";

const Member* find_member(std::string_view name) {
    for (const Member& member : kEnvelope) {
        if (member.name == name) return &member;
    }
    for (const Member& member : kBeyond) {
        if (member.name == name) return &member;
    }
    return nullptr;
}

constexpr Column kNeeded[] = {kPos, kId, kTopic, kAt, kMessageType, kContent};

// In the current memory context.
struct TextSink {
    StringInfoData text;

    static TextSink make() {
        TextSink sink;
        initStringInfo(&sink.text);
        return sink;
    }
    void append(std::string_view piece) {
        appendBinaryStringInfo(&text, piece.data(), static_cast<int>(piece.size()));
    }
    std::string_view view() const { return {text.data, static_cast<std::size_t>(text.len)}; }
};

// JSON has line breaks between its parts only, where a space says the same.
bool has_line_break(std::string_view text) {
    return text.find_first_of("\n\r") != std::string_view::npos;
}

std::string_view without_line_breaks(std::string_view text) {
    char* copy = static_cast<char*>(
        MemoryContextAllocHuge(CurrentMemoryContext, Max(text.size(), std::size_t{1})));
    for (std::size_t i = 0; i < text.size(); ++i)
        copy[i] = text[i] == '\n' || text[i] == '\r' ? ' ' : text[i];
    return {copy, text.size()};
}

std::int64_t number_in(std::string_view name, std::size_t at) {
    return read_integer(name.substr(at, kDigits)).value_or(-1);
}

bool is_archive_name(std::string_view name, ArchiveFile* file) {
    if (name.size() != 2 * kDigits + 1 + kSuffix.size()) return false;
    if (name[kDigits] != '-' || name.substr(2 * kDigits + 1) != kSuffix) return false;
    *file = {number_in(name, 0), number_in(name, kDigits + 1)};
    return file->first > 0 && file->last >= file->first && name == file->name();
}

}  // namespace

const char* ArchiveFile::name() const {
    return psprintf("%016lld-%016lld%.*s", static_cast<long long>(first),
                    static_cast<long long>(last), static_cast<int>(kSuffix.size()), kSuffix.data());
}

ArchiveFiles list_archive(const char* directory, std::int64_t after) {
    ArchiveFiles found = {nullptr, 0};
    int room = 64;
    found.files = static_cast<ArchiveFile*>(palloc(sizeof(ArchiveFile) * room));
    DIR* entries = AllocateDir(directory);
    while (const struct dirent* entry = ReadDir(entries, directory)) {
        ArchiveFile file;
        if (!is_archive_name(entry->d_name, &file) || file.last <= after) continue;
        if (found.count == room) {
            room *= 2;
            found.files = static_cast<ArchiveFile*>(
                repalloc_huge(found.files, sizeof(ArchiveFile) * static_cast<std::size_t>(room)));
        }
        found.files[found.count++] = file;
    }
    (void)FreeDir(entries);
    qsort(found.files, static_cast<std::size_t>(found.count), sizeof(ArchiveFile),
          [](const void* a, const void* b) {
              const auto* left = static_cast<const ArchiveFile*>(a);
              const auto* right = static_cast<const ArchiveFile*>(b);
              if (left->first != right->first) return left->first < right->first ? -1 : 1;
              if (left->last != right->last) return left->last < right->last ? -1 : 1;
              return 0;
          });
    return found;
}

// Writing

const char* ArchiveWriter::temporary_name(const char* directory) {
    return psprintf("%s/.pg_herald.tmp", directory);
}

void ArchiveWriter::open(const char* directory) {
    path_ = temporary_name(directory);
    file_ = create_file(path_);
    zstd_ = ZSTD_createCCtx();
    if (zstd_ == nullptr) refuse_archive_memory();
    free_with_context(zstd_,
                      [](void* context) { ZSTD_freeCCtx(static_cast<ZSTD_CCtx*>(context)); });
    (void)ZSTD_CCtx_setParameter(zstd_, ZSTD_c_compressionLevel, kLevel);
    (void)ZSTD_CCtx_setParameter(zstd_, ZSTD_c_checksumFlag, 1);
    in_ = static_cast<char*>(palloc(kBuffer));
    out_ = static_cast<char*>(palloc(kBuffer));
    std::memset(out_, 0, kHeaderSize);
    write(out_, kHeaderSize);  // room for it
}

void ArchiveWriter::write(const void* data, std::size_t size) {
    write_file(file_, path_, data, size);
}

void ArchiveWriter::compress(bool end) {
    ZSTD_inBuffer in = {in_, filled_, 0};
    for (bool more = true; more;) {
        ZSTD_outBuffer out = {out_, kBuffer, 0};
        const std::size_t left =
            ZSTD_compressStream2(zstd_, &out, &in, end ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left) != 0)
            ereport(ERROR,
                    (errcode(ERRCODE_OUT_OF_MEMORY),
                     errmsg("could not compress file \"%s\": %s", path_, ZSTD_getErrorName(left))));
        write(out_, out.pos);
        more = end ? left > 0 : in.pos < in.size;
    }
    filled_ = 0;
}

void ArchiveWriter::put(std::string_view text) {
    line_ += text.size();
    while (!text.empty()) {
        if (filled_ == kBuffer) compress(false);
        const std::size_t part = Min(text.size(), kBuffer - filled_);
        std::memcpy(in_ + filled_, text.data(), part);
        filled_ += part;
        text.remove_prefix(part);
    }
}

void ArchiveWriter::append(std::string_view text) {
    if (text.empty()) return;
    if (brace_) put("}");
    brace_ = text.back() == '}';
    if (brace_) text.remove_suffix(1);
    put(text);
}

void ArchiveWriter::append(const Row& row) {
    MessageView view = view_of(row);
    const bool broken =
        view.content_is_json && !view.content_is_reference && has_line_break(view.content);
    const std::string_view content = view.content;
    if (broken) view.content = without_line_breaks(content);
    line_ = 0;
    write_envelope(*this, view, EnvelopeForm::kFull);
    brace_ = false;  // the object goes on
    const auto begin_member = [&](std::string_view name) {
        append(std::string_view(",\""));
        append(name);
        append(std::string_view("\":"));
    };
    for (const Member& member : kBeyond) {
        if (!row.has(member.column)) continue;
        if (member.kind == Kind::kTrue) {
            if (!DatumGetBool(row.values[member.column])) continue;
            begin_member(member.name);
            append(std::string_view("true"));
        } else if (member.kind == Kind::kUuid) {
            begin_member(member.name);
            write_json_string(
                *this, DatumGetCString(DirectFunctionCall1(uuid_out, row.values[member.column])));
        } else {
            begin_member(member.name);
            write_json_string(*this, row.text(member.column));
        }
    }
    if (row.has(kExpiresAt) && !view.expires_us) {
        begin_member("expires_at");
        write_json_string(*this, kNever);
    }
    if (broken) {
        begin_member(kContentText);
        write_json_string(*this, content);
    }
    append(std::string_view("}\n"));
    if (line_ > kMaxArchiveLine)
        ereport(ERROR,
                (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
                 errmsg("message %lld is too long for a line of an archive: %zu bytes",
                        static_cast<long long>(row.pos()), line_),
                 errhint("Archive its topic to a table, or stop the archive while it leaves.")));
    bytes_ += static_cast<std::int64_t>(line_);
    if (messages_++ == 0) span_.first = row.pos();
    span_.last = row.pos();
    last_id_ = *DatumGetUUIDP(row.values[kId]);
}

void ArchiveWriter::close(ArchiveHeader header) {
    compress(true);
    TextSink text = TextSink::make();
    header.last_id = UUIDPGetDatum(&last_id_);
    appendStringInfo(
        &text.text, "{\"pg_herald\":1,\"system\":\"" UINT64_FORMAT "\",\"database\":%u,\"topics\":",
        header.system, header.database);
    write_json_string(text, header.topics);
    appendStringInfo(&text.text,
                     ",\"after\":%lld,\"upto\":%lld,\"messages\":%lld,\"last_id\":\"%s\"}",
                     static_cast<long long>(header.after), static_cast<long long>(header.upto),
                     static_cast<long long>(messages_),
                     DatumGetCString(DirectFunctionCall1(uuid_out, header.last_id)));
    char frame[kHeaderSize];
    if (!make_header_frame(frame, sizeof frame, text.view()))
        elog(ERROR, "herald: the header of an archive is too long");
    if (lseek(file_, 0, SEEK_SET) != 0) refuse_file(path_, "seek in");
    write(frame, sizeof frame);
    finish_file(file_, path_);
    file_ = -1;
}

// Reading

bool ArchiveReader::open(const char* path) {
    path_ = path;
    file_ = OpenTransientFile(path, O_RDONLY | PG_BINARY);
    if (file_ < 0 && errno == ENOENT) return false;
    if (file_ < 0) refuse_file(path_, "open");
    home_ = CurrentMemoryContext;
    zstd_ = make_decompressor(kMostWindowLog);
    in_ = static_cast<char*>(palloc(kBuffer));
    out_ = static_cast<char*>(palloc(kBuffer));
    initStringInfo(&long_line_);
    read_header();
    return true;
}

void ArchiveReader::close() {
    if (file_ >= 0) (void)CloseTransientFile(file_);
    file_ = -1;
}

void ArchiveReader::refuse(const char* why) const {
    ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
                    errmsg("archive file \"%s\" is damaged at line %lld: %s", path_,
                           static_cast<long long>(line_), why),
                    errhint("Restore it from a backup, or read on behind it: after => the last "
                            "position in its name.")));
    pg_unreachable();
}

void ArchiveReader::add_context(void* reader) {
    const auto* self = static_cast<const ArchiveReader*>(reader);
    errcontext("line %lld of archive file \"%s\"", static_cast<long long>(self->line_),
               self->path_);
}

bool ArchiveReader::fill() {
    if (in_at_ < in_size_) return true;
    in_at_ = 0;
    in_size_ = read_file(file_, path_, in_, kBuffer);
    return in_size_ > 0;
}

// It may be missing; half of one is damage.
void ArchiveReader::read_header() {
    if (!fill()) refuse("the file is empty");
    if (!has_header_frame(in_, in_size_)) return;
    const std::string_view text = header_text(in_, in_size_, kHeaderSize);
    if (text.empty()) refuse("it is cut off, or its header is not of this version");
    JsonMembers members(text);
    int known = 0;
    while (members.next()) {
        const std::string_view value = members.value();
        const auto number = [&] { return read_integer(value).value_or(-1); };
        TextSink string = TextSink::make();
        const bool is_string = read_json_string(string, value);
        ++known;
        if (members.name() == "pg_herald" && number() == 1) continue;
        if (members.name() == "system" && is_string) {
            header_.system = strtoull(string.text.data, nullptr, 10);
        } else if (members.name() == "database") {
            header_.database = static_cast<Oid>(number());
        } else if (members.name() == "topics" && is_string) {
            header_.topics = string.view();
        } else if (members.name() == "after") {
            header_.after = number();
        } else if (members.name() == "upto") {
            header_.upto = number();
        } else if (members.name() == "messages") {
            header_.messages = number();
        } else if (members.name() == "last_id" && is_string && is_uuid_text(string.view())) {
            header_.last_id = DirectFunctionCall1(uuid_in, CStringGetDatum(string.text.data));
        } else {
            --known;
        }
    }
    if (!members.complete() || known != 8) refuse("its header is not of this version");
    has_header_ = true;
    in_at_ = kHeaderSize;
}

// Some more text; false at the end of the file.
bool ArchiveReader::decompress() {
    out_at_ = 0;
    out_size_ = 0;
    while (out_size_ == 0) {
        CHECK_FOR_INTERRUPTS();
        const bool more = fill();
        if (!more && !inside_frame_) return false;
        ZSTD_inBuffer in = {in_, in_size_, in_at_};
        ZSTD_outBuffer out = {out_, kBuffer, 0};
        const std::size_t left = ZSTD_decompressStream(zstd_, &out, &in);
        if (ZSTD_isError(left) != 0) refuse(ZSTD_getErrorName(left));
        in_at_ = in.pos;
        out_size_ = out.pos;
        inside_frame_ = left > 0;
        if (!more && out_size_ == 0 && inside_frame_) refuse("the file is cut off");
    }
    return true;
}

bool ArchiveReader::next_line(std::string_view* line) {
    ++line_;
    if (long_line_.maxlen > static_cast<int>(16 * kBuffer)) {
        pfree(long_line_.data);
        MemoryContext caller = MemoryContextSwitchTo(home_);
        initStringInfo(&long_line_);
        MemoryContextSwitchTo(caller);
    }
    resetStringInfo(&long_line_);
    for (;;) {
        if (out_at_ == out_size_ && !decompress()) {
            if (long_line_.len > 0) refuse("the line has no end");
            --line_;
            return false;
        }
        const char* begin = out_ + out_at_;
        const std::size_t there = out_size_ - out_at_;
        const auto* end = static_cast<const char*>(std::memchr(begin, '\n', there));
        const std::size_t size = end != nullptr ? static_cast<std::size_t>(end - begin) : there;
        out_at_ += size + (end != nullptr ? 1 : 0);
        if (end != nullptr && long_line_.len == 0) {
            *line = {begin, size};
            return true;
        }
        if (static_cast<std::size_t>(long_line_.len) + size > kMaxArchiveLine)
            refuse("the line is longer than any message");
        appendBinaryStringInfo(&long_line_, begin, static_cast<int>(size));
        if (end != nullptr) {
            *line = {long_line_.data, static_cast<std::size_t>(long_line_.len)};
            return true;
        }
    }
}

void ArchiveReader::parse(std::string_view line, Row* row) {
    *row = Row::with_defaults();
    if (!pg_verify_mbstr(PG_UTF8, line.data(), static_cast<int>(line.size()), true))
        refuse("it is not UTF-8");
    std::string_view content;
    std::string_view content_text;
    std::string_view reference;
    JsonMembers members(line);
    while (members.next()) {
        const std::string_view value = members.value();
        const std::string_view name = members.name();
        const auto refuse_value = [&] {
            refuse(psprintf("the value of \"%.*s\" is none", static_cast<int>(name.size()),
                            name.data()));
        };
        if (name == kContentName) {
            content = value;
            continue;
        }
        if (name == kContentText) {
            content_text = value;
            continue;
        }
        if (name == kReference) {
            reference = value;
            continue;
        }
        const Member* member = find_member(name);
        if (member == nullptr)
            refuse(psprintf("\"%.*s\" is not known",
                            pg_mbcliplen(name.data(), static_cast<int>(name.size()), 80),
                            name.data()));
        TextSink string = TextSink::make();
        switch (member->kind) {
            case Kind::kText:
                if (!read_json_string(string, value)) refuse_value();
                row->set_text(member->column, string.view());
                break;
            case Kind::kInteger:
            case Kind::kSmall: {
                const std::int64_t number = read_integer(value).value_or(-1);
                const bool small = member->kind == Kind::kSmall;
                if (number < 0 || (small && number > PG_INT16_MAX)) refuse_value();
                row->set(member->column, small ? Int16GetDatum(static_cast<std::int16_t>(number))
                                               : Int64GetDatum(number));
                break;
            }
            case Kind::kUuid:
                if (!read_json_string(string, value) || !is_uuid_text(string.view()))
                    refuse_value();
                row->set(member->column,
                         DirectFunctionCall1(uuid_in, CStringGetDatum(string.text.data)));
                break;
            case Kind::kTime: {
                if (!read_json_string(string, value)) refuse_value();
                const auto time = read_timestamp(string.view());
                const bool never = string.view() == kNever;
                if (!time && !never) refuse_value();
                const TimestampTz at = never ? DT_NOEND : *time - kUnixToPostgres;
                if (!never && !IS_VALID_TIMESTAMP(at)) refuse_value();
                row->set(member->column, TimestampTzGetDatum(at));
                break;
            }
            case Kind::kJson: {
                string.append(value);
                row->set(member->column,
                         DirectFunctionCall1(jsonb_in, CStringGetDatum(string.text.data)));
                break;
            }
            case Kind::kTrue:
                if (value != "true") refuse_value();
                row->set(member->column, BoolGetDatum(true));
                break;
        }
    }
    if (!members.complete())
        refuse(psprintf("it is not a JSON object, at byte %zu", members.at() + 1));
    if (row->has(kPayload)) {
        if (!reference.empty()) row->set_text(kContent, reference);
    } else if (DatumGetBool(row->values[kIsJson]) && content_text.empty()) {
        if (!content.empty()) row->set_text(kContent, content);
    } else {
        TextSink string = TextSink::make();
        if (!read_json_string(string, content_text.empty() ? content : content_text))
            refuse("the value of \"content\" is none");
        row->set_text(kContent, string.view());
    }
    for (const Column column : kNeeded) {
        if (!row->has(column)) refuse("something is missing that every message has");
    }
    require_json(*row);
}

bool ArchiveReader::next(Row* row) {
    std::string_view line;
    if (!next_line(&line)) {
        if (has_header_ && messages_ != header_.messages)
            refuse(psprintf("it has %lld messages, and should have %lld",
                            static_cast<long long>(messages_),
                            static_cast<long long>(header_.messages)));
        return false;
    }
    parse(line, row);
    if (row->pos() <= last_) refuse("its position is not above the one before");
    last_ = row->pos();
    ++messages_;
    return true;
}

}  // namespace herald
