/* libcudart, streams: work is done when it is given, so there is nothing to wait for. Recording of CUDA graphs is
 * checked as a card checks it: what would wait or allocate meanwhile breaks the recording. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "cudart.h"

struct CUstream_st {
    enum cudaStreamCaptureStatus status;
};
struct CUgraph_st {
    char nothing;
};
struct CUgraphExec_st {
    char nothing;
};
struct CUevent_st {
    char nothing;
};

static struct CUstream_st default_stream;
static _Atomic(struct CUstream_st *) capturing;

static struct CUstream_st *of(cudaStream_t stream) {
    /* Null, 1 and 2 are names of default streams. */
    return (uintptr_t)stream <= 2 ? &default_stream : stream;
}

bool is_capturing(void) { return atomic_load(&capturing) != NULL; }

cudaError_t break_capture(const char *call) {
    struct CUstream_st *stream = atomic_load(&capturing);
    if (stream) stream->status = cudaStreamCaptureStatusInvalidated;
    fprintf(stderr, "[card] %s while a CUDA graph is recorded\n", call);
    return fault(cudaErrorStreamCaptureUnsupported, "a call that recording does not allow");
}

static cudaError_t wait(const char *call) { return is_capturing() ? break_capture(call) : cudaSuccess; }

/* An object with no content, or an error. */
static cudaError_t new(void *object, size_t size) {
    void *made = calloc(1, size);
    *(void **)object = made;
    return made ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return new(stream, sizeof **stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    return (void)flags, new(stream, sizeof **stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return free(stream), cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return (void)stream, wait("cudaStreamSynchronize"); }
cudaError_t cudaDeviceSynchronize(void) { return wait("cudaDeviceSynchronize"); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    return (void)stream, (void)event, (void)flags, cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = of(stream)->status;
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    (void)mode;
    if (is_capturing()) return fault(cudaErrorStreamCaptureUnsupported, "two recordings at once");
    of(stream)->status = cudaStreamCaptureStatusActive;
    atomic_store(&capturing, of(stream));
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = NULL;
    enum cudaStreamCaptureStatus status = of(stream)->status;
    of(stream)->status = cudaStreamCaptureStatusNone;
    atomic_store(&capturing, NULL);
    if (status != cudaStreamCaptureStatusActive) return failed(cudaErrorStreamCaptureInvalidated);
    card_add(CARD_CAPTURES, 1);
    return new(graph, sizeof **graph);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags) {
    return (void)graph, (void)flags, new(executable, sizeof **executable);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    (void)stream;
    if (!executable) return fault(cudaErrorInvalidValue, "there is no such graph");
    card_add(CARD_REPLAYS, 1);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return free(graph), cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return free(executable), cudaSuccess; }

cudaError_t cudaEventCreate(cudaEvent_t *event) { return new(event, sizeof **event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    return (void)flags, new(event, sizeof **event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return free(event), cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return (void)event, (void)stream, cudaSuccess; }
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    return (void)event, (void)stream, (void)flags, cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return (void)event, wait("cudaEventSynchronize"); }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    (void)start, (void)end;
    *milliseconds = 0.1f;
    return cudaSuccess;
}
