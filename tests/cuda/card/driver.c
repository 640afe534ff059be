/* libcuda: the driver, as far as the provider and its attention kernels for Turing and Ampere ask for it by name.
 * Its header has other names for some functions (`_v2`), so they are declared as in cublas.c. */
#include "card.h"

#define DOES_NOTHING(name) \
    int name(void) { return 0; }
#define LAUNCHES(name)              \
    int name(void) {                \
        card_add(CARD_LAUNCHES, 1); \
        return 0;                   \
    }

int cuGetErrorName(int error, const char **name) {
    *name = error ? "CUDA_ERROR_UNKNOWN" : "CUDA_SUCCESS";
    return 0;
}
/* Which attribute does not matter: both that are asked for are sizes of shared memory. */
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)attribute, (void)device;
    *value = 232448;
    return 0;
}

DOES_NOTHING(cuFuncSetAttribute)
DOES_NOTHING(cuFuncSetCacheConfig)
DOES_NOTHING(cuLinkAddData_v2)
DOES_NOTHING(cuLinkAddFile_v2)
DOES_NOTHING(cuLinkComplete)
DOES_NOTHING(cuLinkCreate_v2)
DOES_NOTHING(cuLinkDestroy)
DOES_NOTHING(cuModuleGetFunction)
DOES_NOTHING(cuModuleLoadData)
DOES_NOTHING(cuModuleUnload)
DOES_NOTHING(cuTensorMapEncodeTiled)
LAUNCHES(cuLaunchCooperativeKernel)
LAUNCHES(cuLaunchKernel)
