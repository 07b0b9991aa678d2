// Capture and graphs, as strict as "thread-local" and "global" are; and two kernels.

#include "driver.h"

#include <stdlib.h>
#include <string.h>

enum { GLOBAL = 0, THREAD_LOCAL = 1 };
enum { KEEP_ALL = 0, NO_RUN = 1, NOTHING = 2 };  // what of a capture becomes the graph
static int kept = KEEP_ALL;
static long captures, launches;

typedef struct Graph {
    bool alive, executable;
    Context *context;
    Work *first;
} Graph;

void standin_keep(int what) { kept = what; }
long standin_launches(void) { return launches; }
int standin_capturing(Stream *stream) {
    pthread_mutex_lock(&lock);
    int found = stream->capture != 0;
    pthread_mutex_unlock(&lock);
    return found;
}

// Calls that might wait for, or be waited for by, what is captured: they spoil it.
int forbidden_while_capturing(void) {
    if (!captures) return SUCCESS;
    int code = SUCCESS;
    for (int i = 0; i < DEVICES; i++)
        for (Stream *one = contexts[i].streams; one; one = one->next) {
            Capture *capture = one->capture;
            if (!capture || capture->mode > THREAD_LOCAL) continue;
            if (capture->mode == GLOBAL || pthread_equal(capture->thread, pthread_self())) {
                capture->invalid = true;
                code = CAPTURE_UNSUPPORTED;
            }
        }
    return code;
}

static void free_work(Work *first) {
    while (first) {
        Work *next = first->next;
        free(first);
        first = next;
    }
}

int cuStreamBeginCapture_v2(void *handle, int mode) {
    ENTER("cuStreamBeginCapture")
    Stream *stream = stream_of(handle, context);
    if (!stream) return end(INVALID_HANDLE);
    if (stream->capture || stream == context->legacy) return end(CAPTURE_UNSUPPORTED);
    stream->capture = calloc(1, sizeof *stream->capture);
    stream->capture->mode = mode;
    stream->capture->thread = pthread_self();
    captures++;
    return end(SUCCESS);
}
int cuStreamEndCapture(void *handle, Graph **made) {
    ENTER("cuStreamEndCapture")
    Stream *stream = stream_of(handle, context);
    *made = 0;
    if (!stream) return end(INVALID_HANDLE);
    Capture *capture = stream->capture;
    if (!capture) return end(CAPTURE_UNMATCHED);
    if (capture->mode <= THREAD_LOCAL && !pthread_equal(capture->thread, pthread_self())) return end(CAPTURE_WRONG_THREAD);
    stream->capture = 0;
    captures--;
    Work *first = capture->first;
    bool invalid = capture->invalid;
    free(capture);
    if (invalid) {
        free_work(first);
        return end(CAPTURE_INVALIDATED);
    }
    for (Work **at = &first; *at;) {
        if (kept == NOTHING || (kept == NO_RUN && (*at)->kind == CALL)) {
            Work *gone = *at;
            *at = gone->next;
            free(gone);
        } else {
            at = &(*at)->next;
        }
    }
    *made = calloc(1, sizeof **made);
    (*made)->alive = true, (*made)->context = context, (*made)->first = first;
    held->graphs++;
    return end(SUCCESS);
}
int cuStreamIsCapturing(void *handle, int *status) {
    ENTER("cuStreamIsCapturing")
    Stream *stream = stream_of(handle, context);
    if (!stream) return end(INVALID_HANDLE);
    *status = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
    return end(SUCCESS);
}
int cuGraphInstantiateWithFlags(Graph **made, Graph *graph, unsigned long long flags) {
    ENTER("cuGraphInstantiate")
    (void)flags;
    *made = 0;
    if (!graph || !graph->alive) return end(INVALID_VALUE);
    *made = calloc(1, sizeof **made);
    (*made)->alive = (*made)->executable = true, (*made)->context = context;
    Work **at = &(*made)->first;
    for (Work *one = graph->first; one; one = one->next) {
        *at = malloc(sizeof **at);
        **at = *one;
        (*at)->next = 0;
        at = &(*at)->next;
    }
    held->graphs++;
    return end(SUCCESS);
}
// Runs what was captured, on the addresses of then.
int cuGraphLaunch(Graph *graph, void *handle) {
    ENTER("cuGraphLaunch")
    Stream *stream = stream_of(handle, context);
    if (!graph || !graph->alive || !graph->executable) {
        violation("a graph is launched that was destroyed");
        return end(INVALID_VALUE);
    }
    if (!stream || stream->context != graph->context) return end(INVALID_HANDLE);
    launches++;
    for (Work *one = graph->first; one; one = one->next) give(stream, one);
    return end(context->sticky);
}
static int destroy(Graph *graph, bool executable) {
    if (!graph || !graph->alive || graph->executable != executable) return INVALID_VALUE;
    graph->alive = false;
    free_work(graph->first);
    graph->first = 0;
    held->graphs--;
    return SUCCESS;  // the record of it stays, to know it when it is used again
}
int cuGraphExecDestroy(Graph *graph) { ENTER("cuGraphExecDestroy") return end(destroy(graph, true)); }
int cuGraphDestroy(Graph *graph) { ENTER("cuGraphDestroy") return end(destroy(graph, false)); }

// ---- modules: one kernel doubles floats, and all others write where nobody has memory ----

static const char *const TWICE_NAME = "twice";

int cuModuleLoadDataEx(void **module, const void *image, unsigned options, void *names, void *values) {
    ENTER("cuModuleLoadDataEx")
    (void)image, (void)options, (void)names, (void)values;
    *module = calloc(1, 1);
    return end(SUCCESS);
}
int cuModuleLoadData(void **module, const void *image) { return cuModuleLoadDataEx(module, image, 0, 0, 0); }
int cuModuleUnload(void *module) { ENTER("cuModuleUnload") free(module); return end(SUCCESS); }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    ENTER("cuModuleGetFunction")
    *function = strcmp(name, TWICE_NAME) ? module : (void *)TWICE_NAME;
    return end(SUCCESS);
}
int cuFuncSetBlockShape(void *function, int x, int y, int z) { (void)function, (void)x, (void)y, (void)z; return SUCCESS; }
int cuFuncSetSharedSize(void *function, unsigned bytes) { (void)function, (void)bytes; return SUCCESS; }
int cuParamSetSize(void *function, unsigned bytes) { (void)function, (void)bytes; return SUCCESS; }
int cuParamSetv(void *function, int offset, void *data, unsigned bytes) { (void)function, (void)offset, (void)data, (void)bytes; return SUCCESS; }
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *handle, void **parameters, void **extra) {
    ENTER("cuLaunchKernel")
    (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)extra;
    Stream *stream = stream_of(handle, context);
    if (!stream) return end(INVALID_HANDLE);
    Work work = {.kind = FAULT, .value = ILLEGAL_ADDRESS};
    if (function == TWICE_NAME) {
        work = (Work){.kind = TWICE, .to = *(Address *)parameters[0], .from = *(Address *)parameters[1]};
        work.bytes = *(uint32_t *)parameters[2] * sizeof(float);
    }
    return end(give(stream, &work));
}
int cuLaunchGrid(void *function, int x, int y) { return cuLaunchKernel(function, x, y, 1, 1, 1, 1, 0, 0, 0, 0); }
