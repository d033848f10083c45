#include "log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <utility>

#include "core/json_escape.h"

namespace herald {

namespace {

struct BufferSink {
    spdlog::memory_buf_t& buffer;
    void append(std::string_view text) { buffer.append(text.data(), text.data() + text.size()); }
};

// The message as a JSON string, so that quotes and line ends in it can't break the record.
class JsonText final : public spdlog::custom_flag_formatter {
  public:
    void format(const spdlog::details::log_msg& message, const std::tm&,
                spdlog::memory_buf_t& out) override {
        BufferSink sink{out};
        write_json_string(sink, {message.payload.data(), message.payload.size()});
    }
    std::unique_ptr<spdlog::custom_flag_formatter> clone() const override {
        return std::make_unique<JsonText>();
    }
};

}  // namespace

void start_log(LogFormat format, const std::string& level) {
    auto logger = std::make_shared<spdlog::logger>(
        "herald", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
    if (format == LogFormat::kJson) {
        formatter->add_flag<JsonText>('*');
        formatter->set_pattern(R"({"at":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l","message":%*})");
    } else {
        formatter->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %^%l%$ %v");
    }
    logger->set_formatter(std::move(formatter));
    logger->set_level(spdlog::level::from_str(level));
    spdlog::set_default_logger(std::move(logger));
}

}  // namespace herald
