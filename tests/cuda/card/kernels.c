/* libcudart, kernels: they are counted and compute nothing. The names with underscores are those that nvcc puts
 * into the code it compiles. */
#include <stdint.h>
#include <string.h>

#include "cudart.h"

static cudaError_t launched(void) {
    card_add(CARD_LAUNCHES, 1);
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared,
                             cudaStream_t stream) {
    (void)function, (void)arguments, (void)shared, (void)stream;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 || block.y == 0 || block.z == 0)
        return fault(cudaErrorInvalidConfiguration, "a launch of no threads");
    return launched();
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared,
                               cudaStream_t stream) {
    return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *configuration, const void *function, void **arguments) {
    return (void)configuration, (void)function, (void)arguments, launched();
}
cudaError_t cudaLaunchCooperativeKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared,
                                        cudaStream_t stream) {
    return cudaLaunchKernel(function, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *data) {
    (void)stream;
    function(data);
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    (void)function;
    *attributes = (struct cudaFuncAttributes){
        .maxThreadsPerBlock = 1024,
        .numRegs = 64,
        .ptxVersion = (int)card_get(CARD_SM),
        .binaryVersion = (int)card_get(CARD_SM),
        .maxDynamicSharedSizeBytes = 232448,
    };
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value) {
    return (void)function, (void)attribute, (void)value, cudaSuccess;
}
cudaError_t cudaKernelSetAttributeForDevice(cudaKernel_t kernel, enum cudaFuncAttribute attribute, int value,
                                            int device) {
    return (void)kernel, (void)attribute, (void)value, (void)device, cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int block_size,
                                                                   size_t shared, unsigned flags) {
    (void)function, (void)block_size, (void)shared, (void)flags;
    *blocks = 2;
    return cudaSuccess;
}

/* Code that is loaded while the program runs: any name is found in it. */
static char library, kernel;
cudaError_t cudaLibraryLoadData(cudaLibrary_t *loaded, const void *code, enum cudaJitOption *jit_options,
                                void **jit_values, unsigned jit_count, enum cudaLibraryOption *options, void **values,
                                unsigned count) {
    (void)code, (void)jit_options, (void)jit_values, (void)jit_count, (void)options, (void)values, (void)count;
    *loaded = (cudaLibrary_t)&library;
    return cudaSuccess;
}
cudaError_t cudaLibraryUnload(cudaLibrary_t loaded) { return (void)loaded, cudaSuccess; }
cudaError_t cudaLibraryGetKernel(cudaKernel_t *found, cudaLibrary_t loaded, const char *name) {
    (void)loaded, (void)name;
    *found = (cudaKernel_t)&kernel;
    return cudaSuccess;
}

/* The code inside the provider. */
void **__cudaRegisterFatBinary(void *code);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
void __cudaRegisterFunction(void);
void __cudaRegisterVar(void);
cudaError_t __cudaGetKernel(cudaKernel_t *found, const void *function);

static void *registered;
void **__cudaRegisterFatBinary(void *code) {
    (void)code;
    return &registered;
}
void __cudaRegisterFatBinaryEnd(void **handle) { (void)handle; }
void __cudaUnregisterFatBinary(void **handle) { (void)handle; }
void __cudaRegisterFunction(void) {}
void __cudaRegisterVar(void) {}
cudaError_t __cudaGetKernel(cudaKernel_t *found, const void *function) {
    *found = (cudaKernel_t)(uintptr_t)function;
    return cudaSuccess;
}

/* `kernel<<<grid, block, shared, stream>>>` is compiled into a push, a pop in the kernel's stub, and a launch. */
static _Thread_local struct {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
} configuration;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    configuration.grid = grid;
    configuration.block = block;
    configuration.shared = shared;
    configuration.stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = configuration.grid;
    *block = configuration.block;
    *shared = configuration.shared;
    memcpy(stream, &configuration.stream, sizeof configuration.stream);
    return cudaSuccess;
}
