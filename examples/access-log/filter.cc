// Writes one line about every request that passes the proxy, when it is over, and keeps two metrics about them.
//
//     GET /hello -> 200 (via_upstream) from 127.0.0.1:51724, 0+12 bytes, 3 ms
//
// Everything in the line is a property of the stream: values that the proxy knows and a filter may ask for by a path.
// A path's parts are separated by zero bytes. Texts come as their bytes, numbers as 64 bits, little-endian, which is
// how wasm keeps them in memory. No library is linked: the few classes here are all that is needed.
#include "../include/proxy_wasm.h"

namespace {

// Where `malloc` puts what the proxy hands out. All of it is used before the callback returns, so each callback
// begins with an empty arena, and nothing is freed.
class Arena {
public:
    void empty() { used_ = 0; }

    void *take(size_t size) {
        if (size > sizeof(bytes_) - used_) return nullptr; // the proxy then answers STATUS_INVALID_MEMORY_ACCESS
        void *block = bytes_ + used_;
        size_t rounded = (size + 7) & ~size_t{7};
        used_ = rounded > sizeof(bytes_) - used_ ? sizeof(bytes_) : used_ + rounded;
        return block;
    }

private:
    alignas(8) char bytes_[16 * 1024];
    size_t used_ = 0;
};

Arena arena;

// A text somewhere in memory, with its size, as the ABI has them.
struct Text {
    const char *data = "";
    size_t size = 0;

    constexpr Text() = default;
    constexpr Text(const char *data, size_t size) : data(data), size(size) {}
    template <size_t N> constexpr Text(const char (&literal)[N]) : data(literal), size(N - 1) {}
};

// A line of the log, built piece by piece; what is too long for it is cut off.
class Line {
public:
    Line &operator<<(Text text) {
        for (size_t i = 0; i < text.size && size_ < sizeof(bytes_); i++) bytes_[size_++] = printable(text.data[i]);
        return *this;
    }

    Line &operator<<(uint64_t number) {
        char digits[20];
        size_t first = sizeof(digits);
        do {
            digits[--first] = char('0' + number % 10);
            number /= 10;
        } while (number != 0);
        return *this << Text(digits + first, sizeof(digits) - first);
    }

    void write(log_level_t level) const { proxy_log(level, bytes_, size_); }

private:
    // Clients choose paths: none shall be able to write a second line into the log.
    static char printable(char c) { return c >= ' ' && c != 0x7f ? c : '?'; }

    char bytes_[1024];
    size_t size_ = 0;
};

// The value of a property; nothing (an empty text) when the proxy has none, as for a response that never came.
Text property(Text path) {
    char *data = nullptr;
    size_t size = 0;
    if (proxy_get_property(path.data, path.size, &data, &size) != STATUS_OK || size == 0) return {};
    return {data, size};
}

uint64_t number(Text path) {
    Text value = property(path);
    uint64_t result = 0;
    if (value.size == sizeof(result)) __builtin_memcpy(&result, value.data, sizeof(result));
    return result;
}

Text or_dash(Text text) { return text.size ? text : Text("-"); }

// A metric has a name for people and a number for calls. Asking for the number is defining it; both are done once.
class Metric {
public:
    Metric(metric_t type, Text name) : type_(type), name_(name) {}

    void define() { proxy_define_metric(type_, name_.data, name_.size, &id_); }
    void increment() { proxy_increment_metric(id_, 1); }
    void record(uint64_t value) { proxy_record_metric(id_, value); }

private:
    metric_t type_;
    Text name_;
    uint32_t id_ = 0;
};

Metric server_errors(METRIC_COUNTER, "access_log.server_errors");
Metric durations(METRIC_HISTOGRAM, "access_log.milliseconds");

} // namespace

GUEST(malloc) void *filter_malloc(size_t size) { return arena.take(size); }

GUEST(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1() {}

// Objects with constructors are made before anything else runs: this is where the compiler does it.
extern "C" void __wasm_call_ctors();
GUEST(_initialize) void initialize() { __wasm_call_ctors(); }

GUEST(proxy_on_configure) uint32_t on_configure(uint32_t, size_t) {
    server_errors.define();
    durations.define();
    return 1; // 0 would say that we cannot work like this
}

// Called when a stream is over, for better or worse: also for one that was refused, or whose client went away.
GUEST(proxy_on_log) void on_log(uint32_t) {
    arena.empty();
    uint64_t status = number("response\0code");
    uint64_t milliseconds = number("request\0duration") / 1000000;
    Line line;
    line << or_dash(property("request\0method")) << " " << or_dash(property("request\0path")) << " -> " << status
         << " (" << or_dash(property("response\0code_details")) << ") from "
         << or_dash(property("source\0address")) << ", " << number("request\0size") << "+"
         << number("response\0size") << " bytes, " << milliseconds << " ms";
    line.write(status >= 500 ? LOG_WARN : LOG_INFO);
    if (status >= 500) server_errors.increment();
    durations.record(milliseconds);
}
