/* Numbers the requests that pass the proxy, and tells the client its number in the header `x-request-number`.
 *
 * A proxy with several workers runs this filter once for each of them, and their memories have nothing in common. So
 * the count lives with the proxy, as shared data, which all VMs with one `vm_id` see. Two of them may read the same
 * number at the same time and both want to write the next one: the proxy takes only the first, by the version (CAS)
 * that came with the number read, and the other one tries again.
 */
#include "../include/proxy_wasm.h"

#define TEXT(literal) literal, sizeof(literal) - 1 /* a text and its size, as the ABI wants them */

#define KEY TEXT("count_requests.last")
#define NUMBER TEXT("count_requests.number")
#define HEADER TEXT("x-request-number")
#define DIGITS 10   /* of the largest uint32_t */
#define ATTEMPTS 16 /* nobody loses so often by chance */

/* Memory for what the proxy hands out. All of it is used before a callback is over, so each callback that asks for
 * something begins with an empty arena, and there is nothing to free. A number is all that we ask for. */
static char arena[256] __attribute__((aligned(8)));
static size_t used;

GUEST(malloc) void *filter_malloc(size_t size) {
    if (size > sizeof(arena) - used) return NULL; /* the proxy answers STATUS_INVALID_MEMORY_ACCESS to the caller */
    void *block = arena + used;
    used += (size + 7) & ~(size_t)7;
    if (used > sizeof(arena)) used = sizeof(arena);
    return block;
}

/* Says which version of the ABI we were written for; never called. */
GUEST(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1(void) {}

static uint32_t to_number(const char *text, size_t size) {
    uint32_t number = 0;
    for (size_t i = 0; i < size && text[i] >= '0' && text[i] <= '9'; i++) number = number * 10 + (text[i] - '0');
    return number;
}

/* The digits of `number` in `text`, which has room for DIGITS; how many they are. */
static size_t to_text(uint32_t number, char *text) {
    char backwards[DIGITS];
    size_t size = 0;
    do {
        backwards[size++] = '0' + number % 10;
        number /= 10;
    } while (number != 0);
    for (size_t i = 0; i < size; i++) text[i] = backwards[size - 1 - i];
    return size;
}

/* One more than the last number that anybody has taken, or 0 when it could not be had. */
static uint32_t take_number(void) {
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        char *data = NULL, text[DIGITS];
        size_t size = 0;
        uint32_t version = 0; /* 0 writes whatever there is: for the first number of all */
        used = 0;
        status_t status = proxy_get_shared_data(KEY, &data, &size, &version);
        if (status != STATUS_OK && status != STATUS_NOT_FOUND) return 0;
        uint32_t number = to_number(data, size) + 1;
        status = proxy_set_shared_data(KEY, text, to_text(number, text), version);
        if (status == STATUS_OK) return number;
        if (status != STATUS_CAS_MISMATCH) return 0;
    }
    return 0;
}

GUEST(proxy_on_request_headers) action_t on_request_headers(uint32_t stream, uint32_t count, uint32_t end_of_stream) {
    uint32_t number = take_number();
    if (number == 0) {
        proxy_log(LOG_WARN, TEXT("no number for this request"));
        return ACTION_CONTINUE;
    }
    /* A request and its response are two calls, with those of other requests between them. What has to be known at
     * both is kept with the stream, as a property; other filters can read it, too. */
    char text[DIGITS];
    proxy_set_property(NUMBER, text, to_text(number, text));
    return ACTION_CONTINUE;
}

GUEST(proxy_on_response_headers) action_t on_response_headers(uint32_t stream, uint32_t count, uint32_t end_of_stream) {
    char *data = NULL;
    size_t size = 0;
    used = 0;
    if (proxy_get_property(NUMBER, &data, &size) == STATUS_OK) proxy_add_header_map_value(MAP_RESPONSE_HEADERS, HEADER, data, size);
    return ACTION_CONTINUE;
}
