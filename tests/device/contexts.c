// Devices, contexts, errors: those that stick, those that are asked for, and how often what was called.

#include "driver.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
Context contexts[DEVICES];
int pace = DEFERRED;
size_t memory_limit = (size_t)1 << 30;

void standin_keep(int what);
void standin_fail_wait(int code);
static int devices = 1, capability = 90, strict, init_code;
static const char *broken;  // a folder: the devices that have a file there, by number, do not work
static unsigned waiting[DEVICES];  // CU_CTX_SCHED_* of each
static int visible[DEVICES] = {0, 1, 2, 3, 4, 5, 6, 7};
static Held own;
Held *held = &own;
static char said[256];
static Counter *counters;
static pthread_mutex_t naming = PTHREAD_MUTEX_INITIALIZER;

enum { DEEPEST = 64 };
static __thread Context *stack[DEEPEST];
static __thread int depth;

Counter *counter(const char *name) {
    pthread_mutex_lock(&naming);
    Counter *found = counters;
    while (found && strcmp(found->name, name)) found = found->next;
    if (!found) {
        found = calloc(1, sizeof *found);
        found->name = strdup(name);
        found->next = counters;
        counters = found;
    }
    pthread_mutex_unlock(&naming);
    return found;
}

bool is_sticky(int code) {
    return code == ECC || code == ILLEGAL_ADDRESS || code == LAUNCH_TIMEOUT ||
           (code >= HARDWARE_STACK && code <= LAUNCH_FAILED);
}

static bool is_broken(int device) {
    char path[512];
    if (!broken) return false;
    snprintf(path, sizeof path, "%s/%d", broken, visible[device]);
    return !access(path, F_OK);
}

int begin(Counter *called, Context **current) {
    pthread_mutex_lock(&lock);
    called->calls++;
    bool fails = called->calls >= called->fail_from && called->calls < called->fail_to;
    if (current) {
        if (!depth) return INVALID_CONTEXT;
        *current = stack[depth - 1];
        if (!(*current)->sticky && is_broken((*current)->device)) (*current)->sticky = ECC;
        if (fails && is_sticky(called->code)) (*current)->sticky = called->code;
        if ((*current)->sticky) return (*current)->sticky;
    }
    return fails ? called->code : SUCCESS;
}

int end(int code) {
    pthread_mutex_unlock(&lock);
    return code;
}

void violation(const char *what) {
    held->violations++;
    snprintf(said, sizeof said, "%s", what);
    if (!strict) return;
    fprintf(stderr, "the stand-in for the CUDA driver: %s\n", what);
    abort();
}

// ---- what tests tell it and ask it ----

long standin_calls(const char *name) { return counter(name)->calls; }
void standin_fail(const char *name, long nth, long times, int code) {
    Counter *found = counter(name);
    found->fail_from = found->calls + nth;
    found->fail_to = found->fail_from + times;
    found->code = code;
}
void standin_break(int device, int code) { contexts[device].sticky = code; }
void standin_pace(int wanted) { pace = wanted; }
void standin_limit(size_t bytes) { memory_limit = bytes; }
void standin_devices(int count, int init) { devices = count, init_code = init; }
long standin_violations(void) { return held->violations; }
const char *standin_said(void) { return said; }
int standin_depth(void) { return depth; }
long standin_held(const char *what) {
    const struct { const char *name; long *value; } all[] = {
        {"bytes", &held->bytes}, {"pinned", &held->pinned}, {"registered", &held->registered},
        {"streams", &held->streams}, {"events", &held->events}, {"graphs", &held->graphs}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, what)) return *all[i].value;
    return -1;
}
int standin_broken(void) {
    for (int i = 0; i < DEVICES; i++)
        if (contexts[i].sticky) return contexts[i].sticky;
    return 0;
}
// As if nobody had ever failed: errors stick to a process, and tests share one.
void standin_forget(void) {
    for (int i = 0; i < DEVICES; i++) contexts[i].sticky = 0;
    for (Counter *one = counters; one; one = one->next) one->fail_to = 0;
    held->violations = 0, said[0] = 0;
    memory_limit = (size_t)1 << 30, pace = DEFERRED, devices = 1, init_code = 0;
    standin_keep(0);
    standin_fail_wait(0);
}

// Processes that a test starts are told by their environment.
__attribute__((constructor)) static void read_environment(void) {
    const char *text;
    if ((text = getenv("STANDIN_DEVICES"))) devices = atoi(text);
    if ((text = getenv("STANDIN_CAPABILITY"))) capability = atoi(text);
    if ((text = getenv("STANDIN_MEMORY"))) memory_limit = strtoull(text, 0, 10);
    if ((text = getenv("STANDIN_PACE"))) pace = atoi(text);
    strict = getenv("STANDIN_STRICT") != 0;
    broken = getenv("STANDIN_BROKEN");
    if ((text = getenv("STANDIN_REPORT"))) {  // a folder, in which each process has a file
        char path[512];
        snprintf(path, sizeof path, "%s/%d", text, getpid());
        int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        if (file >= 0 && !ftruncate(file, sizeof *held))
            held = mmap(0, sizeof *held, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (file < 0 || held == MAP_FAILED) abort();
    }
    if ((text = getenv("STANDIN_FAIL"))) {  // NAME:NTH:CODE
        char name[64] = "";
        long nth = 0;
        int code = 0;
        if (sscanf(text, "%63[^:]:%ld:%d", name, &nth, &code) == 3) standin_fail(name, nth, 1, code);
    }
    if ((text = getenv("CUDA_VISIBLE_DEVICES"))) {
        int count = 0;
        char *copy = strdup(text), *rest = copy, *one;
        while ((one = strsep(&rest, ",")) && count < devices) {
            // GPU-00000000-0000-0000-0000-00000000000N
            bool uuid = !strncmp(one, "GPU-", 4) || !strncmp(one, "MIG-", 4);
            int index = uuid ? (int)strtol(one + strlen(one) - 1, 0, 16) : atoi(one);
            if (!*one || index < 0 || index >= devices) break;
            visible[count++] = index;
        }
        devices = count;
        free(copy);
    }
}

// ---- the driver's ----

int cuInit(unsigned flags) {
    ENTER_ANYWHERE("cuInit")
    if (flags) return end(INVALID_VALUE);
    return end(init_code ? init_code : SUCCESS);
}
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuDeviceGetCount(int *count) { ENTER_ANYWHERE("cuDeviceGetCount") *count = devices; return end(SUCCESS); }
int cuDeviceGet(int *device, int index) {
    ENTER_ANYWHERE("cuDeviceGet")
    if (index < 0 || index >= devices) return end(INVALID_DEVICE);
    *device = index;
    return end(SUCCESS);
}
int cuDeviceGetName(char *name, int size, int device) {
    (void)device;
    snprintf(name, size, "%s", getenv("STANDIN_NAME") ? getenv("STANDIN_NAME") : "Fake GPU");
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = memory_limit; return SUCCESS; }
int cuDeviceComputeCapability(int *major, int *minor, int device) {
    (void)device;
    *major = capability / 10, *minor = capability % 10;
    return SUCCESS;
}
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    memset(uuid, 0, 16);
    uuid[15] = (unsigned char)visible[device];
    return SUCCESS;
}
int cuDeviceGetUuid(unsigned char *uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }
int cuDeviceGetPCIBusId(char *text, int size, int device) { snprintf(text, size, "0000:%02x:00.0", visible[device] + 1); return SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
        case 1: *value = 1024; break;              // threads in a block
        case 10: *value = 32; break;               // warp
        case 16: *value = 132; break;              // multiprocessors
        case 41: *value = 1; break;                // unified addressing
        case 75: *value = capability / 10; break;
        case 76: *value = capability % 10; break;
        default: *value = 0;
    }
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(Context **made, int device) {
    ENTER_ANYWHERE("cuDevicePrimaryCtxRetain")
    if (device < 0 || device >= devices) return end(INVALID_DEVICE);
    if (is_broken(device)) return end(ECC);
    contexts[device].device = device;
    contexts[device].users++;
    *made = &contexts[device];
    return end(SUCCESS);
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER_ANYWHERE("cuDevicePrimaryCtxRelease")
    if (!contexts[device].users) return end(INVALID_CONTEXT);
    contexts[device].users--;
    return end(SUCCESS);
}
// pycuda's way of letting go of a context, whichever it is.
int cuCtxDetach(Context *context) { return cuDevicePrimaryCtxRelease_v2(context->device); }
int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
    ENTER_ANYWHERE("cuDevicePrimaryCtxSetFlags")
    if (device < 0 || device >= devices || (flags & 7) > 4) return end(INVALID_VALUE);
    waiting[device] = flags;
    return end(SUCCESS);
}
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = waiting[device], *active = contexts[device].users > 0;
    return SUCCESS;
}
int cuCtxPushCurrent_v2(Context *context) {
    ENTER_ANYWHERE("cuCtxPushCurrent")
    if (!context || !context->users || depth == DEEPEST) return end(INVALID_CONTEXT);
    stack[depth++] = context;
    return end(SUCCESS);
}
int cuCtxPopCurrent_v2(Context **context) {
    ENTER_ANYWHERE("cuCtxPopCurrent")
    if (!depth) return end(INVALID_CONTEXT);
    depth--;
    if (context) *context = stack[depth];
    return end(SUCCESS);
}
int cuCtxGetCurrent(Context **context) { *context = depth ? stack[depth - 1] : 0; return SUCCESS; }
int cuCtxSetCurrent(Context *context) {
    if (depth) depth--;
    if (context) stack[depth++] = context;
    return SUCCESS;
}
int cuCtxGetDevice(int *device) {
    if (!depth) return INVALID_CONTEXT;
    *device = stack[depth - 1]->device;
    return SUCCESS;
}
int cuCtxGetApiVersion(Context *context, unsigned *version) { (void)context; *version = 3020; return SUCCESS; }
int cuCtxGetFlags(unsigned *flags) { *flags = 0; return SUCCESS; }
int cuCtxSynchronize(void) {
    ENTER("cuCtxSynchronize")
    int code = forbidden_while_capturing();
    if (code) return end(code);
    for (Stream *one = context->streams; one; one = one->next) run_until(one, one->given);
    return end(context->sticky);
}

static const struct { int code; const char *name, *text; } ERRORS[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {ECC, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {HARDWARE_STACK, "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"},
    {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"},
    {CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture sequence from another thread"},
    {UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};
static int look_up(int code, const char **found, bool text) {
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].code == code) {
            *found = text ? ERRORS[i].text : ERRORS[i].name;
            return SUCCESS;
        }
    *found = "an error that the stand-in has no name for";
    return INVALID_VALUE;
}
int cuGetErrorString(int code, const char **text) { return look_up(code, text, true); }
int cuGetErrorName(int code, const char **name) { return look_up(code, name, false); }
