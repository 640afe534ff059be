/* libcudnn: convolutions, attention and reductions are counted and compute nothing. The header comes in no small
 * package: numbers are those of cuDNN 9's documentation, and cublas.c says why many functions have no parameters. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "card.h"

enum { SUCCESS = 0, HOST_ALLOCATION_FAILED = 4003, DEVICE_ALLOCATION_FAILED = 4004 };
#define VERSION 91300
#define WORKSPACE ((uint64_t)8 << 20)

/* cudnnBackendDescriptorType_t, cudnnBackendAttributeType_t, cudnnBackendAttributeName_t. */
enum { EXECUTION_PLAN = 5 };
enum { TYPE_BOOLEAN = 2, TYPE_INT64 = 3, TYPE_DESCRIPTOR = 15, TYPE_INT32 = 23 };
enum { ATTRIBUTE_KNOB_CHOICES = 302 };

struct descriptor {
    int kind;
};

static char handle;

size_t cudnnGetVersion(void) { return VERSION; }

int cudnnCreate(void **object) {
    *object = NULL;
    if (!card_take(WORKSPACE)) return DEVICE_ALLOCATION_FAILED;
    *object = &handle;
    return SUCCESS;
}
int cudnnDestroy(void *object) {
    if (object) card_give_back(WORKSPACE);
    return SUCCESS;
}
int cudnnGetStream(void *object, void **stream) {
    (void)object;
    *stream = NULL;
    return SUCCESS;
}
const char *cudnnGetErrorString(int status) {
    switch (status) {
    case SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case HOST_ALLOCATION_FAILED: return "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED";
    default: return "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED";
    }
}
void cudnnGetLastErrorString(char *message, size_t size) {
    if (size) message[0] = 0;
}

/* The graph interface: operations are described by descriptors, and a finalized execution plan runs them. */

int cudnnBackendCreateDescriptor(int kind, struct descriptor **made) {
    *made = malloc(sizeof **made);
    if (!*made) return HOST_ALLOCATION_FAILED;
    (*made)->kind = kind;
    return SUCCESS;
}
int cudnnBackendDestroyDescriptor(struct descriptor *descriptor) {
    free(descriptor);
    return SUCCESS;
}
int cudnnBackendFinalize(struct descriptor *descriptor) {
    if (descriptor->kind == EXECUTION_PLAN) card_add(CARD_PLANS, 1);
    return SUCCESS;
}
/* Every engine suits, needs no workspace, and has no knobs: numbers are 0, and of descriptors there is one. */
int cudnnBackendGetAttribute(struct descriptor *descriptor, int name, int type, int64_t room, int64_t *count,
                             void *values) {
    (void)descriptor;
    static const size_t sizes[] = {[TYPE_BOOLEAN] = 1, [TYPE_INT64] = 8, [TYPE_INT32] = 4};
    bool is_number = type == TYPE_BOOLEAN || type == TYPE_INT64 || type == TYPE_INT32;
    /* With no room it is only asked how many there are. */
    bool is_there = is_number || type == TYPE_DESCRIPTOR || room == 0;
    if (is_number && values && room > 0) memset(values, 0, sizes[type]);
    if (count) *count = is_there && name != ATTRIBUTE_KNOB_CHOICES;
    return SUCCESS;
}

#define DOES_NOTHING(name) \
    int name(void) { return SUCCESS; }
#define COMPUTES(name)                \
    int name(void) {                  \
        card_add(CARD_EXECUTIONS, 1); \
        return SUCCESS;               \
    }
#define CREATES(name)                                 \
    int name(struct descriptor **made) {              \
        return cudnnBackendCreateDescriptor(0, made); \
    }
#define DESTROYS(name)                                    \
    int name(struct descriptor *descriptor) {             \
        return cudnnBackendDestroyDescriptor(descriptor); \
    }
#define NEEDS_NO_BYTES(name)                                           \
    int name(void *handle, void *a, void *b, void *c, size_t *bytes) { \
        (void)handle, (void)a, (void)b, (void)c;                       \
        *bytes = 0;                                                    \
        return SUCCESS;                                                \
    }

DOES_NOTHING(cudnnSetStream)
DOES_NOTHING(cudnnBackendSetAttribute)
COMPUTES(cudnnBackendExecute)

/* The interface before it, of which the provider still uses some. What is for training or recurrent networks alone is
 * left out: cuDNN is opened at run time, and a function that is missing fails the node that wants it. */
CREATES(cudnnCreateActivationDescriptor)
CREATES(cudnnCreateConvolutionDescriptor)
CREATES(cudnnCreateDropoutDescriptor)
CREATES(cudnnCreateFilterDescriptor)
CREATES(cudnnCreateLRNDescriptor)
CREATES(cudnnCreatePoolingDescriptor)
CREATES(cudnnCreateRNNDataDescriptor)
CREATES(cudnnCreateRNNDescriptor)
CREATES(cudnnCreateReduceTensorDescriptor)
CREATES(cudnnCreateTensorDescriptor)
DESTROYS(cudnnDestroyActivationDescriptor)
DESTROYS(cudnnDestroyConvolutionDescriptor)
DESTROYS(cudnnDestroyDropoutDescriptor)
DESTROYS(cudnnDestroyFilterDescriptor)
DESTROYS(cudnnDestroyLRNDescriptor)
DESTROYS(cudnnDestroyPoolingDescriptor)
DESTROYS(cudnnDestroyRNNDataDescriptor)
DESTROYS(cudnnDestroyRNNDescriptor)
DESTROYS(cudnnDestroyReduceTensorDescriptor)
DESTROYS(cudnnDestroyTensorDescriptor)
DOES_NOTHING(cudnnDeriveBNTensorDescriptor)
DOES_NOTHING(cudnnSetActivationDescriptor)
DOES_NOTHING(cudnnSetLRNDescriptor)
DOES_NOTHING(cudnnSetConvolutionGroupCount)
DOES_NOTHING(cudnnSetConvolutionMathType)
DOES_NOTHING(cudnnSetConvolutionNdDescriptor)
DOES_NOTHING(cudnnSetFilterNdDescriptor)
DOES_NOTHING(cudnnSetPoolingNdDescriptor)
DOES_NOTHING(cudnnSetReduceTensorDescriptor)
DOES_NOTHING(cudnnSetTensorNdDescriptor)
NEEDS_NO_BYTES(cudnnGetReductionIndicesSize)
NEEDS_NO_BYTES(cudnnGetReductionWorkspaceSize)
COMPUTES(cudnnActivationForward)
COMPUTES(cudnnAddTensor)
COMPUTES(cudnnBatchNormalizationForwardInference)
COMPUTES(cudnnBatchNormalizationForwardTraining)
COMPUTES(cudnnConvolutionBiasActivationForward)
COMPUTES(cudnnConvolutionForward)
COMPUTES(cudnnLRNCrossChannelForward)
COMPUTES(cudnnPoolingForward)
COMPUTES(cudnnReduceTensor)
COMPUTES(cudnnSoftmaxForward)
