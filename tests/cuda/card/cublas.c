/* libcublas and libcublasLt: multiplications are counted and compute nothing.
 *
 * Neither library's header comes in a small package, so functions that do nothing are declared without parameters:
 * on x86-64 and arm64 a caller's arguments are then simply not looked at. */
#include <stdint.h>
#include <string.h>

#include "card.h"

enum { SUCCESS = 0, ALLOC_FAILED = 3 };

/* A handle takes some of the card for itself. */
#define WORKSPACE ((uint64_t)8 << 20)

#define DOES_NOTHING(name) \
    int name(void) { return SUCCESS; }
#define MULTIPLIES(name)                   \
    int name(void) {                       \
        card_add(CARD_MULTIPLICATIONS, 1); \
        return SUCCESS;                    \
    }
#define CREATES(name)         \
    int name(void **object) { \
        *object = &handle;    \
        return SUCCESS;       \
    }

static char handle;

#ifdef CUBLAS_LT

/* cublasLtMatmulHeuristicResult_t. */
struct heuristic_result {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d,
                                   void *preference, int wanted, struct heuristic_result *results, int *found) {
    (void)handle, (void)operation, (void)a, (void)b, (void)c, (void)d, (void)preference;
    *found = wanted > 0;
    if (wanted > 0) memset(results, 0, sizeof *results);
    return SUCCESS;
}

CREATES(cublasLtCreate)
CREATES(cublasLtMatmulDescCreate)
CREATES(cublasLtMatmulPreferenceCreate)
CREATES(cublasLtMatrixLayoutCreate)
CREATES(cublasLtMatrixTransformDescCreate)
MULTIPLIES(cublasLtMatmul)
MULTIPLIES(cublasLtMatrixTransform)
DOES_NOTHING(cublasLtDestroy)
DOES_NOTHING(cublasLtMatmulAlgoConfigSetAttribute)
DOES_NOTHING(cublasLtMatmulAlgoInit)
DOES_NOTHING(cublasLtMatmulDescDestroy)
DOES_NOTHING(cublasLtMatmulDescSetAttribute)
DOES_NOTHING(cublasLtMatmulPreferenceDestroy)
DOES_NOTHING(cublasLtMatmulPreferenceSetAttribute)
DOES_NOTHING(cublasLtMatrixLayoutDestroy)
DOES_NOTHING(cublasLtMatrixLayoutSetAttribute)
DOES_NOTHING(cublasLtMatrixTransformDescDestroy)

#else

int cublasCreate_v2(void **object) {
    *object = NULL;
    if (!card_take(WORKSPACE)) return ALLOC_FAILED;
    *object = &handle;
    return SUCCESS;
}
int cublasDestroy_v2(void *object) {
    if (object) card_give_back(WORKSPACE);
    return SUCCESS;
}

int cublasGetMathMode(void *object, int *mode) {
    (void)object;
    *mode = 0;
    return SUCCESS;
}

const char *cublasGetStatusName(int status) {
    return status == ALLOC_FAILED ? "CUBLAS_STATUS_ALLOC_FAILED" : "CUBLAS_STATUS_SUCCESS";
}
const char *cublasGetStatusString(int status) {
    return status == ALLOC_FAILED ? "the resource allocation failed" : "the operation completed successfully";
}

DOES_NOTHING(cublasSetMathMode)
DOES_NOTHING(cublasSetStream_v2)
MULTIPLIES(cublasDgeam)
MULTIPLIES(cublasDgemmBatched)
MULTIPLIES(cublasDgemmStridedBatched)
MULTIPLIES(cublasDgemm_v2)
MULTIPLIES(cublasDgetrfBatched)
MULTIPLIES(cublasDgetriBatched)
MULTIPLIES(cublasGemmBatchedEx)
MULTIPLIES(cublasGemmEx)
MULTIPLIES(cublasGemmStridedBatchedEx)
MULTIPLIES(cublasScopy_v2)
MULTIPLIES(cublasSgeam)
MULTIPLIES(cublasSgemmBatched)
MULTIPLIES(cublasSgemmStridedBatched)
MULTIPLIES(cublasSgemm_v2)
MULTIPLIES(cublasSgetrfBatched)
MULTIPLIES(cublasSgetriBatched)
MULTIPLIES(cublasSscal_v2)

#endif
