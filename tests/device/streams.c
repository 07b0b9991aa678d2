// Streams, each with a thread of its own, and events.

#include "driver.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static int once;  // what the next wait fails with, though nothing sticks

void standin_fail_wait(int code) { once = code; }
static int waited(Context *context) {
    int code = context->sticky ? context->sticky : once;
    once = 0;
    return code;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

// Does one piece of work; the lock is held, but while a function of the host runs.
static void carry_out(Stream *stream, Work *work) {
    Context *context = stream->context;
    if (context->sticky) return;
    uint8_t *to = work->kind == TO_HOST ? work->host : 0, *from = work->kind == TO_DEVICE ? work->host : 0;
    switch (work->kind) {
        case TO_DEVICE: to = device_bytes(work->to, work->bytes); break;
        case TO_HOST: from = device_bytes(work->from, work->bytes); break;
        case TWICE:
        case ON_DEVICE: to = device_bytes(work->to, work->bytes), from = device_bytes(work->from, work->bytes); break;
        case FILL: to = from = device_bytes(work->to, work->bytes); break;
        case CALL:
            if (pace == IDLE) return;
            pthread_mutex_unlock(&lock);
            work->call(work->host);
            pthread_mutex_lock(&lock);
            return;
        case RECORD:
            if (!work->event->alive) return;
            work->event->milliseconds = now();
            work->event->reached = work->version;
            return;
        case WAIT:
            if (work->event->stream != stream && work->event->reached < work->version) run_until(work->event->stream, work->bytes);
            return;
        case FAULT: context->sticky = work->value; return;
    }
    if (!to || !from) {
        violation("work on a stream uses device memory that was given back");
        context->sticky = ILLEGAL_ADDRESS;
    } else if (work->pinned && !is_pinned(work->host, work->bytes)) {
        violation("work on a stream uses host memory that is not locked any more");
        context->sticky = ILLEGAL_ADDRESS;
    } else if (work->kind == FILL) {
        memset(to, work->value, work->bytes);
    } else if (work->kind == TWICE) {
        for (size_t i = 0; i < work->bytes / sizeof(float); i++) ((float *)to)[i] = 2 * ((float *)from)[i];
    } else {
        memcpy(to, from, work->bytes);
    }
}

static void do_next(Stream *stream) {
    Work *work = stream->first;
    stream->first = work->next;
    if (!stream->first) stream->last = 0;
    carry_out(stream, work);
    free(work);
    stream->done++;
    // Nobody waits for what is done within the call.
    if (pace < WITHIN) pthread_cond_broadcast(&changed);
}

static void *work_on(void *given) {
    Stream *stream = given;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (stream->first && (stream->done < stream->wanted || pace == EAGER)) do_next(stream);
        if (!stream->alive && !stream->first) break;
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

void run_until(Stream *stream, uint64_t place) {
    if (stream->wanted < place) stream->wanted = place;
    if (stream->done >= place) return;
    if (!stream->threaded) {
        stream->threaded = true;
        pthread_create(&stream->thread, 0, work_on, stream);
        pthread_detach(stream->thread);
    }
    pthread_cond_broadcast(&changed);
    while (stream->done < place) pthread_cond_wait(&changed, &lock);
}

static Stream *make(Context *context, unsigned flags) {
    Stream *made = calloc(1, sizeof *made);
    made->context = context, made->flags = flags, made->alive = true;
    made->next = context->streams;
    return context->streams = made;
}

Stream *stream_of(void *handle, Context *context) {
    if (!handle || handle == (void *)1) return context->legacy ? context->legacy : (context->legacy = make(context, 0));
    for (Stream *one = context->streams; one; one = one->next)
        if (one == handle) return one->alive ? one : 0;
    return 0;
}

int give(Stream *stream, Work *work) {
    Work *kept = malloc(sizeof *kept);
    *kept = *work;
    kept->next = 0;
    Capture *capture = stream->capture;
    if (capture) {
        if (capture->last) capture->last->next = kept;
        else capture->first = kept;
        capture->last = kept;
        return SUCCESS;
    }
    if (stream->last) stream->last->next = kept;
    else stream->first = kept;
    stream->last = kept;
    stream->given++;
    if (pace >= WITHIN && stream->done + 1 == stream->given) do_next(stream);
    if (pace == EAGER) {
        if (!stream->threaded) {
            stream->threaded = true;
            pthread_create(&stream->thread, 0, work_on, stream);
            pthread_detach(stream->thread);
        }
        pthread_cond_broadcast(&changed);
    }
    return SUCCESS;
}

int cuStreamCreate(Stream **made, unsigned flags) {
    ENTER("cuStreamCreate")
    *made = make(context, flags);
    held->streams++;
    return end(SUCCESS);
}
int cuStreamDestroy_v2(Stream *stream) {
    ENTER("cuStreamDestroy")
    if (!stream_of(stream, context) || stream == context->legacy) return end(INVALID_HANDLE);
    stream->alive = false;
    stream->wanted = stream->given;
    held->streams--;
    // What it was given is done all the same.
    if (stream->first && !stream->threaded) run_until(stream, stream->given);
    for (Stream **at = &context->streams; *at; at = &(*at)->next)
        if (*at == stream) {
            *at = stream->next;
            break;
        }
    pthread_cond_broadcast(&changed);
    return end(SUCCESS);  // the record of it stays: its thread may look at it
}
static int refused_by_capture(Stream *stream) {
    if (!stream->capture) return SUCCESS;
    stream->capture->invalid = true;
    return CAPTURE_UNSUPPORTED;
}
int cuStreamSynchronize(void *handle) {
    ENTER("cuStreamSynchronize")
    Stream *stream = stream_of(handle, context);
    if (!stream) return end(INVALID_HANDLE);
    int code = refused_by_capture(stream);
    if (code) return end(code);
    run_until(stream, stream->given);
    return end(waited(context));
}
int cuStreamQuery(void *handle) {
    ENTER("cuStreamQuery")
    Stream *stream = stream_of(handle, context);
    if (!stream) return end(INVALID_HANDLE);
    int code = refused_by_capture(stream);
    if (code) return end(code);
    bool done = stream->done == stream->given;
    if (!done) stream->wanted = stream->given, pthread_cond_broadcast(&changed);
    return end(done ? context->sticky : NOT_READY);
}
int cuStreamWaitEvent(void *handle, Event *event, unsigned flags) {
    ENTER("cuStreamWaitEvent")
    (void)flags;
    Stream *stream = stream_of(handle, context);
    if (!stream || !event->alive) return end(INVALID_HANDLE);
    Work work = {.kind = WAIT, .event = event, .version = event->version, .bytes = event->place};
    return end(event->place ? give(stream, &work) : SUCCESS);
}
// Functions of the host run on the stream's thread, and may call nothing of CUDA.
int cuLaunchHostFunc(void *handle, HostFunction call, void *data) {
    ENTER("cuLaunchHostFunc")
    Stream *stream = stream_of(handle, context);
    if (!stream) return end(INVALID_HANDLE);
    Work work = {.kind = CALL, .call = call, .host = data};
    return end(give(stream, &work));
}

enum { DISABLE_TIMING = 2 };
static unsigned last_flags;
unsigned standin_event_flags(void) { return last_flags; }
int cuEventCreate(Event **made, unsigned flags) {
    ENTER("cuEventCreate")
    *made = calloc(1, sizeof **made);
    (*made)->context = context, (*made)->flags = last_flags = flags, (*made)->alive = true;
    held->events++;
    return end(SUCCESS);
}
int cuEventDestroy_v2(Event *event) {
    ENTER("cuEventDestroy")
    if (!event->alive) return end(INVALID_HANDLE);
    event->alive = false;
    held->events--;
    return end(SUCCESS);
}
int cuEventRecord(Event *event, void *handle) {
    ENTER("cuEventRecord")
    Stream *stream = stream_of(handle, context);
    if (!stream || !event->alive || event->context != stream->context) return end(INVALID_HANDLE);
    event->stream = stream;
    event->version++;
    event->place = stream->given + 1;
    Work work = {.kind = RECORD, .event = event, .version = event->version};
    return end(give(stream, &work));
}
int cuEventSynchronize(Event *event) {
    ENTER("cuEventSynchronize")
    if (!event->alive) return end(INVALID_HANDLE);
    if (event->place) run_until(event->stream, event->place);
    return end(waited(context));
}
int cuEventQuery(Event *event) {
    ENTER("cuEventQuery")
    int code = forbidden_while_capturing();
    if (code) return end(code);
    if (!event->alive) return end(INVALID_HANDLE);
    if (!event->place || event->stream->done >= event->place) return end(context->sticky);
    if (event->stream->wanted < event->place) event->stream->wanted = event->place;
    pthread_cond_broadcast(&changed);
    return end(NOT_READY);
}
int cuEventElapsedTime(float *milliseconds, Event *first, Event *last) {
    ENTER("cuEventElapsedTime")
    if ((first->flags | last->flags) & DISABLE_TIMING || !first->place || !last->place) return end(INVALID_HANDLE);
    if (first->reached < first->version || last->reached < last->version) return end(NOT_READY);
    *milliseconds = (float)(last->milliseconds - first->milliseconds);
    return end(SUCCESS);
}
int cuEventElapsedTime_v2(float *milliseconds, Event *first, Event *last) { return cuEventElapsedTime(milliseconds, first, last); }
