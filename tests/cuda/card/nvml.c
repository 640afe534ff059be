/* libnvidia-ml: how full the card is. */
#include <stddef.h>

#include "card.h"

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };

static char the_card;

int nvmlInit_v2(void) { return card_is_there() ? SUCCESS : DRIVER_NOT_LOADED; }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int error) { return error ? "the stand-in does not know this" : "success"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = card_is_there() ? 1 : 0;
    return SUCCESS;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &the_card;
    return index == 0 && card_is_there() ? SUCCESS : INVALID_ARGUMENT;
}

/* Both write a text that ends in 0, if there is room. */
static int write_text(const char *text, char *to, unsigned room) {
    for (unsigned i = 0; i < room; i++) {
        to[i] = text[i];
        if (!text[i]) return SUCCESS;
    }
    return INVALID_ARGUMENT;
}
int nvmlDeviceGetName(void *device, char *name, unsigned room) {
    (void)device;
    return write_text("Pretended card", name, room);
}
int nvmlSystemGetDriverVersion(char *version, unsigned room) { return write_text("580.00", version, room); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = 13000;
    return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    (void)device;
    *major = (int)card_get(CARD_SM) / 10;
    *minor = (int)card_get(CARD_SM) % 10;
    return SUCCESS;
}

/* nvmlMemory_v2_t. */
struct memory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory) {
    (void)device;
    memory->total = card_get(CARD_MEMORY);
    memory->reserved = 0;
    memory->used = card_get(CARD_HELD);
    memory->free = memory->used < memory->total ? memory->total - memory->used : 0;
    return SUCCESS;
}
