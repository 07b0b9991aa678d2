// Device memory, which the host cannot read; pinned and registered host memory; copies.

#include "driver.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { GRAIN = 512, PAGE = 4096, FILLED = 16 << 20 };
static const size_t SPACE = (size_t)1 << 40;

typedef struct Block {  // device memory, or locked memory of the host
    Address start;
    size_t bytes;
    uint8_t *backing;
    Context *context;
    bool registered;
    struct Block *next;
} Block;
static Block *blocks, *locked;
static Address space, unused;

static Block *block_of(Block *list, Address address, size_t bytes) {
    for (Block *one = list; one; one = one->next)
        if (one->start <= address && address + bytes <= one->start + one->bytes) return one;
    return 0;
}
static Block *add(Block **list, Address start, size_t bytes, void *backing) {
    Block *made = calloc(1, sizeof *made);
    made->start = start, made->bytes = bytes, made->backing = backing, made->next = *list;
    return *list = made;
}
static Block *take(Block **list, Address start) {
    for (; *list; list = &(*list)->next)
        if ((*list)->start == start) {
            Block *found = *list;
            *list = found->next;
            return found;
        }
    return 0;
}
static void poison(void *memory, size_t bytes) {  // of much memory its ends: the rest costs nothing
    size_t some = bytes < FILLED ? bytes : FILLED;
    memset(memory, POISON, some);
    memset((char *)memory + bytes - some, POISON, some);
}

bool is_device_address(Address address) { return space && address >= space && address < space + SPACE; }
uint8_t *device_bytes(Address address, size_t bytes) {
    Block *found = block_of(blocks, address, bytes);
    return found ? found->backing + (address - found->start) : 0;
}
bool is_pinned(const void *host, size_t bytes) { return block_of(locked, (Address)host, bytes) != 0; }

// Where the double of TensorRT computes, on a stream; nobody else may look there.
void *standin_view(Address address, size_t bytes) {
    pthread_mutex_lock(&lock);
    void *found = device_bytes(address, bytes);
    pthread_mutex_unlock(&lock);
    return found;
}
int standin_pinned(void *host, size_t bytes) {
    pthread_mutex_lock(&lock);
    int found = is_pinned(host, bytes);
    pthread_mutex_unlock(&lock);
    return found;
}

int cuMemGetInfo_v2(size_t *unused_bytes, size_t *total) {
    ENTER("cuMemGetInfo")
    *total = memory_limit;
    *unused_bytes = (size_t)held->bytes < memory_limit ? memory_limit - held->bytes : 0;
    return end(SUCCESS);
}
int cuMemAlloc_v2(Address *address, size_t bytes) {
    ENTER("cuMemAlloc")
    int code = forbidden_while_capturing();
    if (code) return end(code);
    if (!bytes) return end(INVALID_VALUE);
    if (held->bytes + bytes > memory_limit) return end(OUT_OF_MEMORY);
    if (!space) {
        void *reserved = mmap(0, SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (reserved == MAP_FAILED) return end(OUT_OF_MEMORY);
        space = unused = (Address)reserved;
    }
    void *backing = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (backing == MAP_FAILED || unused + bytes > space + SPACE) return end(OUT_OF_MEMORY);
    poison(backing, bytes);
    add(&blocks, unused, bytes, backing)->context = context;
    *address = unused;
    unused += (bytes + 2 * GRAIN - 1) / GRAIN * GRAIN;
    held->bytes += bytes;
    return end(SUCCESS);
}
int cuMemFree_v2(Address address) {
    ENTER("cuMemFree")
    int code = forbidden_while_capturing();
    if (code) return end(code);
    Block *found = take(&blocks, address);
    if (!found) return end(INVALID_VALUE);
    munmap(found->backing, found->bytes);
    held->bytes -= found->bytes;
    free(found);
    return end(SUCCESS);
}
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
    ENTER("cuMemHostAlloc")
    (void)flags;
    int code = forbidden_while_capturing();
    if (code) return end(code);
    if (posix_memalign(host, PAGE, bytes ? bytes : 1)) return end(OUT_OF_MEMORY);
    if (bytes) poison(*host, bytes);
    add(&locked, (Address)*host, bytes, *host)->context = context;
    held->pinned++;
    return end(SUCCESS);
}
int cuMemAllocHost_v2(void **host, size_t bytes) { return cuMemHostAlloc(host, bytes, 0); }
int cuMemFreeHost(void *host) {
    ENTER("cuMemFreeHost")
    int code = forbidden_while_capturing();
    if (code) return end(code);
    Block *found = block_of(locked, (Address)host, 0);
    if (!found || found->registered || !take(&locked, (Address)host)) return end(INVALID_VALUE);
    if (found->bytes) poison(host, found->bytes);
    free(host);
    free(found);
    held->pinned--;
    return end(SUCCESS);
}
int cuMemHostRegister_v2(void *host, size_t bytes, unsigned flags) {
    ENTER("cuMemHostRegister")
    (void)flags;
    int code = forbidden_while_capturing();
    if (code) return end(code);
    Address start = (Address)host;
    // Older drivers want whole pages.
    if (!host || !bytes || start % PAGE || bytes % PAGE) return end(INVALID_VALUE);
    for (Block *one = locked; one; one = one->next)
        if (start < one->start + one->bytes && one->start < start + bytes) return end(ALREADY_REGISTERED);
    Block *made = add(&locked, start, bytes, host);
    made->context = context, made->registered = true;
    held->registered++;
    return end(SUCCESS);
}
int cuMemHostUnregister(void *host) {
    ENTER("cuMemHostUnregister")
    int code = forbidden_while_capturing();
    if (code) return end(code);
    Block *found = block_of(locked, (Address)host, 1);
    if (!found || !found->registered || found->start != (Address)host) return end(NOT_REGISTERED);
    free(take(&locked, found->start));
    held->registered--;
    return end(SUCCESS);
}

// Copies of pageable memory block, and cannot be captured.
static int copy(Stream *stream, Work work, Address device, bool wait) {
    if (!stream) return INVALID_HANDLE;
    if (!work.bytes) return SUCCESS;
    if (!device_bytes(device, work.bytes)) return INVALID_VALUE;
    if (work.kind != ON_DEVICE && work.kind != FILL) {
        if (!work.host || is_device_address((Address)work.host)) return INVALID_VALUE;
        work.pinned = is_pinned(work.host, work.bytes);
        wait = wait || !work.pinned;
    }
    if (wait && stream->capture) {
        stream->capture->invalid = true;
        return CAPTURE_UNSUPPORTED;
    }
    int code = give(stream, &work);
    if (wait) run_until(stream, stream->given);
    return code ? code : stream->context->sticky;
}
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
    ENTER("cuMemcpyHtoDAsync")
    Work work = {.kind = TO_DEVICE, .to = to, .host = (void *)from, .bytes = bytes};
    return end(copy(stream_of(stream, context), work, to, false));
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
    ENTER("cuMemcpyDtoHAsync")
    Work work = {.kind = TO_HOST, .from = from, .host = to, .bytes = bytes};
    return end(copy(stream_of(stream, context), work, from, false));
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) {
    ENTER("cuMemcpyDtoDAsync")
    Work work = {.kind = ON_DEVICE, .to = to, .from = from, .bytes = bytes};
    if (bytes && !device_bytes(from, bytes)) return end(INVALID_VALUE);
    return end(copy(stream_of(stream, context), work, to, false));
}
int cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void *stream) {
    ENTER("cuMemsetD8Async")
    Work work = {.kind = FILL, .to = to, .value = value, .bytes = bytes};
    return end(copy(stream_of(stream, context), work, to, false));
}
int cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) {
    ENTER("cuMemcpyHtoD")
    Work work = {.kind = TO_DEVICE, .to = to, .host = (void *)from, .bytes = bytes};
    return end(copy(stream_of(0, context), work, to, true));
}
int cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) {
    ENTER("cuMemcpyDtoH")
    Work work = {.kind = TO_HOST, .from = from, .host = to, .bytes = bytes};
    return end(copy(stream_of(0, context), work, from, true));
}
