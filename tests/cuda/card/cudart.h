/* What the files of the CUDA runtime's stand-in share. */
#ifndef CUDART_H
#define CUDART_H

#include <cuda_runtime_api.h>

#include "card.h"

#pragma GCC visibility push(hidden)

/* Remembers an error for cudaGetLastError, as every call of the runtime does, and returns it. */
cudaError_t failed(cudaError_t error);

/* A call that a real card would not forgive: prints why, counts it, and fails. */
cudaError_t fault(cudaError_t error, const char *why);

/* Whether any stream records a CUDA graph. Then a call that would wait, or allocate, ends the recording. */
bool is_capturing(void);
cudaError_t break_capture(const char *call);

#pragma GCC visibility pop

#endif
