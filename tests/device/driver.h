// A stand-in for the CUDA driver (libcuda.so.1), over host memory and threads: what its parts share.
//
// Only what the public driver API says (CUDA Toolkit, "CUDA Driver API"), and of it what pycuda and the
// engine call. Unlike a GPU it never forgives: device memory cannot be read by the host, addresses are
// never used twice, and work that was given to a stream waits until somebody waits for it.

#ifndef STANDIN_DRIVER_H
#define STANDIN_DRIVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// CUresult, as far as it is used here.
enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201, ECC = 214, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600,
    ILLEGAL_ADDRESS = 700, LAUNCH_TIMEOUT = 702, ALREADY_REGISTERED = 712, NOT_REGISTERED = 713,
    HARDWARE_STACK = 714, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903, CAPTURE_WRONG_THREAD = 908, UNKNOWN = 999,
};

enum { POISON = 0xA5, DEVICES = 8 };

// How soon a stream works: once somebody waits, at once on its own thread, or within the call; and
// within the call but for functions of the host, to see what everything else costs.
enum { DEFERRED = 0, EAGER = 1, WITHIN = 2, IDLE = 3 };

typedef uint64_t Address;
typedef void (*HostFunction)(void *);

typedef struct Context {
    int device;
    int users;
    int sticky;  // CUresult that every call fails with from now on
    struct Stream *streams;
    struct Stream *legacy;  // the NULL stream
} Context;

typedef struct Event {
    Context *context;
    unsigned flags;
    bool alive;
    struct Stream *stream;
    uint64_t place;  // in the stream, of the last record; 0 before the first
    uint64_t version, reached;
    double milliseconds;
} Event;

typedef enum { TO_DEVICE, TO_HOST, ON_DEVICE, FILL, TWICE, CALL, RECORD, WAIT, FAULT } Kind;

typedef struct Work {
    Kind kind;
    Address to, from;
    void *host;
    size_t bytes;
    int value;  // of FILL, or the CUresult of FAULT
    bool pinned;
    HostFunction call;
    Event *event;
    uint64_t version;
    struct Work *next;
} Work;

typedef struct Capture {
    int mode;
    pthread_t thread;
    bool invalid;
    Work *first, *last;
} Capture;

typedef struct Stream {
    Context *context;
    unsigned flags;
    bool alive;
    pthread_t thread;
    bool threaded;
    Work *first, *last;
    uint64_t given, done, wanted;  // pieces of work: handed over, finished, and asked for
    Capture *capture;
    struct Stream *next;
} Stream;

typedef struct Counter {
    const char *name;
    long calls;
    long fail_from, fail_to;  // calls that fail; 0: none
    int code;
    struct Counter *next;
} Counter;

extern pthread_mutex_t lock;     // of everything below
extern pthread_cond_t changed;   // some stream has more to do, or has done some
extern Context contexts[DEVICES];
extern int pace;
extern size_t memory_limit;

// What was taken and not given back; in a file where a test reads it of another process.
typedef struct Held {
    long bytes, pinned, registered, streams, events, graphs, violations;
} Held;
extern Held *held;

Counter *counter(const char *name);
int begin(Counter *called, Context **current);  // takes the lock; the code that the call fails with
int end(int code);                              // gives it back
bool is_sticky(int code);
void violation(const char *what);               // a use of what is gone: counted, or the end

// Every entry point begins with one of these: with a context, or without.
#define ENTER(name) \
    static Counter *called; Context *context = 0; (void)context; \
    if (!called) called = counter(name); \
    { int failed = begin(called, &context); if (failed) return end(failed); }
#define ENTER_ANYWHERE(name) \
    static Counter *called; \
    if (!called) called = counter(name); \
    { int failed = begin(called, 0); if (failed) return end(failed); }

uint8_t *device_bytes(Address address, size_t bytes);  // 0 where that is no memory
bool is_device_address(Address address);
bool is_pinned(const void *host, size_t bytes);

Stream *stream_of(void *handle, Context *context);
int give(Stream *stream, Work *work);         // enqueues a copy of it, or records it
void run_until(Stream *stream, uint64_t place);  // waits, without the lock meanwhile
int forbidden_while_capturing(void);
void drop_streams(Context *context);
#endif
