/* libcudart, device: what card it is, and errors. */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "cudart.h"

/* CUDA 13.0, as the wheel was built for. */
#define VERSION 13000
/* Of an H100; the other architectures get the same, since nothing here depends on them. */
#define MULTIPROCESSORS 132
#define SHARED_PER_BLOCK 49152
#define SHARED_PER_BLOCK_AT_MOST 232448
#define SHARED_PER_MULTIPROCESSOR 233472
#define REGISTERS 65536
#define L2_CACHE (50 << 20)

static _Thread_local cudaError_t last_error;

cudaError_t failed(cudaError_t error) { return last_error = error; }

cudaError_t fault(cudaError_t error, const char *why) {
    card_add(CARD_FAULTS, 1);
    fprintf(stderr, "[card] a fault: %s\n", why);
    return failed(error);
}

cudaError_t cudaPeekAtLastError(void) { return last_error; }
cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

/* The errors that the stand-ins give, in the words of the real runtime. */
static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
};

const char *cudaGetErrorString(cudaError_t error) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].error == error) return errors[i].text;
    return "unrecognized error code";
}
const char *cudaGetErrorName(cudaError_t error) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].error == error) return errors[i].name;
    return "unrecognized error code";
}

static cudaError_t check(int device) {
    if (!card_is_there()) return failed(cudaErrorNoDevice);
    return device == 0 ? cudaSuccess : failed(cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = card_is_there() ? 1 : 0;
    return check(0);
}
cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return check(0);
}
cudaError_t cudaSetDevice(int device) { return check(device); }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    if (check(device) != cudaSuccess) return check(device);
    *properties = (struct cudaDeviceProp){
        .name = "Pretended card",
        .totalGlobalMem = card_get(CARD_MEMORY),
        .sharedMemPerBlock = SHARED_PER_BLOCK,
        .regsPerBlock = REGISTERS,
        .warpSize = 32,
        .memPitch = INT_MAX,
        .maxThreadsPerBlock = 1024,
        .maxThreadsDim = {1024, 1024, 64},
        .maxGridSize = {INT_MAX, 65535, 65535},
        .totalConstMem = 65536,
        .major = (int)card_get(CARD_SM) / 10,
        .minor = (int)card_get(CARD_SM) % 10,
        .textureAlignment = 512,
        .texturePitchAlignment = 32,
        .multiProcessorCount = MULTIPROCESSORS,
        .concurrentKernels = 1,
        .asyncEngineCount = 3,
        .unifiedAddressing = 1,
        .memoryBusWidth = 5120,
        .l2CacheSize = L2_CACHE,
        .maxThreadsPerMultiProcessor = 2048,
        .sharedMemPerMultiprocessor = SHARED_PER_MULTIPROCESSOR,
        .regsPerMultiprocessor = REGISTERS,
        .cooperativeLaunch = 1,
        .sharedMemPerBlockOptin = SHARED_PER_BLOCK_AT_MOST,
        .maxBlocksPerMultiProcessor = 32,
        .reservedSharedMemPerBlock = 1024,
        .memoryPoolsSupported = 1,
    };
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    if (check(device) != cudaSuccess) return check(device);
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = (int)card_get(CARD_SM) / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = (int)card_get(CARD_SM) % 10; break;
    case cudaDevAttrMultiProcessorCount: *value = MULTIPROCESSORS; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = SHARED_PER_BLOCK; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = SHARED_PER_BLOCK_AT_MOST; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = SHARED_PER_MULTIPROCESSOR; break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = REGISTERS; break;
    case cudaDevAttrL2CacheSize: *value = L2_CACHE; break;
    /* The rest are questions whether something is supported. */
    default: *value = 1;
    }
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = VERSION;
    return cudaSuccess;
}

/* Asked for what only the newest drivers have; without, the provider takes another way. */
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    (void)symbol, (void)version, (void)flags;
    *function = NULL;
    if (result) *result = cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
