/* libcuda: the driver, as far as stablehand, the provider and its attention kernels for Turing and Ampere ask for
 * functions by name. Those that do nothing are declared without parameters, as in cublas.c. */
#include <stdio.h>

#include "card.h"

enum { SUCCESS = 0, NO_DEVICE = 100, INVALID_DEVICE = 101 };
/* CUdevice_attribute. */
enum { COMPUTE_CAPABILITY_MAJOR = 75, COMPUTE_CAPABILITY_MINOR = 76 };

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
int cuInit(unsigned flags) {
    (void)flags;
    return card_is_there() ? SUCCESS : NO_DEVICE;
}
int cuDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}
int cuDeviceGetCount(int *count) {
    *count = card_is_there() ? 1 : 0;
    return SUCCESS;
}
int cuDeviceGet(int *device, int number) {
    *device = 0;
    return number == 0 && card_is_there() ? SUCCESS : INVALID_DEVICE;
}
int cuDeviceGetName(char *name, int room, int device) {
    (void)device;
    snprintf(name, (size_t)room, "Pretended card");
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    (void)device;
    *bytes = card_get(CARD_MEMORY);
    return SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case COMPUTE_CAPABILITY_MAJOR: *value = (int)card_get(CARD_SM) / 10; break;
    case COMPUTE_CAPABILITY_MINOR: *value = (int)card_get(CARD_SM) % 10; break;
    /* The rest that is asked for are sizes of shared memory. */
    default: *value = 232448;
    }
    return SUCCESS;
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
