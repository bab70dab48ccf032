/* The part of the proxy-wasm ABI 0.2.1 that our filters in C and C++ use, declared by hand: no SDK.
 *
 * A filter is a WebAssembly module. The proxy calls what it exports (GUEST) whenever something happens to a request,
 * and it asks the proxy for everything else through imports of the module `env` (HOST). All that passes between them
 * are 32-bit numbers; texts are an address in the filter's memory and a size, and are not ended by a zero byte.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define EXTERN_C extern "C"
#else
#define EXTERN_C
#endif

#define HOST(name) EXTERN_C __attribute__((import_module("env"), import_name(#name)))
#define GUEST(name) EXTERN_C __attribute__((export_name(#name)))

/* What nearly every host function returns. */
typedef enum {
    STATUS_OK = 0,
    STATUS_NOT_FOUND = 1,
    STATUS_BAD_ARGUMENT = 2,
    STATUS_INVALID_MEMORY_ACCESS = 6,
    STATUS_EMPTY = 7,
    STATUS_CAS_MISMATCH = 8,
} status_t;

/* What a callback of a stream answers. */
typedef enum { ACTION_CONTINUE = 0, ACTION_PAUSE = 1 } action_t;

typedef enum { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_CRITICAL } log_level_t;
typedef enum { MAP_REQUEST_HEADERS = 0, MAP_REQUEST_TRAILERS, MAP_RESPONSE_HEADERS, MAP_RESPONSE_TRAILERS } map_t;
typedef enum { BUFFER_VM_CONFIGURATION = 6, BUFFER_PLUGIN_CONFIGURATION = 7 } buffer_t;
typedef enum { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM } metric_t;

/* Data that the proxy hands out lies in a block that it has got from the filter's own `malloc`; the address and the
 * size are written where `data` and `size` say. The block is the filter's from then on. */
HOST(proxy_log) status_t proxy_log(log_level_t level, const char *text, size_t size);
HOST(proxy_get_buffer_bytes)
status_t proxy_get_buffer_bytes(buffer_t buffer, size_t start, size_t length, char **data, size_t *size);
HOST(proxy_get_property)
status_t proxy_get_property(const char *path, size_t path_size, char **data, size_t *size);
HOST(proxy_set_property)
status_t proxy_set_property(const char *path, size_t path_size, const char *value, size_t value_size);
HOST(proxy_get_header_map_value)
status_t proxy_get_header_map_value(map_t map, const char *name, size_t name_size, char **data, size_t *size);
HOST(proxy_add_header_map_value)
status_t proxy_add_header_map_value(map_t map, const char *name, size_t name_size, const char *value,
                                    size_t value_size);
HOST(proxy_get_shared_data)
status_t proxy_get_shared_data(const char *key, size_t key_size, char **data, size_t *size, uint32_t *version);
HOST(proxy_set_shared_data)
status_t proxy_set_shared_data(const char *key, size_t key_size, const char *value, size_t value_size,
                               uint32_t version);
HOST(proxy_define_metric)
status_t proxy_define_metric(metric_t type, const char *name, size_t name_size, uint32_t *id);
HOST(proxy_increment_metric) status_t proxy_increment_metric(uint32_t id, int64_t offset);
HOST(proxy_record_metric) status_t proxy_record_metric(uint32_t id, uint64_t value);
