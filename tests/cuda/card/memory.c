/* libcudart, memory: allocations and copies.
 *
 * The card's memory is address space without access, so it costs the host nothing, and a host that follows a
 * pointer to the card crashes, as with a card. An address is never given out twice, so a copy to or from memory
 * that was freed, or beyond an allocation's end, is found. Nothing is computed, so what comes back is zero.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cudart.h"

/* Far more than all allocations of a process together. */
#define WINDOW ((size_t)1 << 42)
#define ALIGNMENT ((size_t)512)

struct allocation {
    uintptr_t begin;
    size_t size;
    bool is_live;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t window, next;
/* By address: each is behind the one before it. */
static struct allocation *allocations;
static size_t count, room;

static size_t rounded(size_t size) {
    return size ? (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
}

/* The allocation that holds `address`, or nothing. The lock is held. */
static struct allocation *find(uintptr_t address) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (allocations[middle].begin <= address) low = middle + 1;
        else high = middle;
    }
    if (low == 0) return NULL;
    struct allocation *found = &allocations[low - 1];
    return address < found->begin + rounded(found->size) ? found : NULL;
}

static bool is_on_card(const void *pointer) {
    return window && (uintptr_t)pointer >= window && (uintptr_t)pointer < window + WINDOW;
}

static bool is_live(const void *pointer, size_t size) {
    pthread_mutex_lock(&lock);
    struct allocation *found = find((uintptr_t)pointer);
    bool is_inside = found && found->is_live && (uintptr_t)pointer + size <= found->begin + found->size;
    pthread_mutex_unlock(&lock);
    return is_inside;
}

static cudaError_t allocate(void **pointer, size_t size) {
    if (!pointer) return failed(cudaErrorInvalidValue);
    *pointer = NULL;
    if (is_capturing()) return break_capture("an allocation");
    if (!card_is_there()) return failed(cudaErrorNoDevice);
    if (!card_take(rounded(size))) return failed(cudaErrorMemoryAllocation);
    pthread_mutex_lock(&lock);
    if (!window) {
        void *space = mmap(NULL, WINDOW, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (space != MAP_FAILED) window = next = ((uintptr_t)space + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    if (count == room) {
        size_t more = room ? 2 * room : 1024;
        struct allocation *moved = realloc(allocations, more * sizeof *moved);
        if (moved) allocations = moved, room = more;
    }
    bool fits = window && count < room && next + rounded(size) < window + WINDOW;
    if (fits) {
        allocations[count++] = (struct allocation){.begin = next, .size = size, .is_live = true};
        *pointer = (void *)next;
        next += rounded(size);
    }
    pthread_mutex_unlock(&lock);
    if (!fits) {
        card_give_back(rounded(size));
        return failed(cudaErrorMemoryAllocation);
    }
    card_add(CARD_ALLOCATIONS, 1);
    return cudaSuccess;
}

static cudaError_t release(void *pointer) {
    if (!pointer) return cudaSuccess;
    pthread_mutex_lock(&lock);
    struct allocation *found = find((uintptr_t)pointer);
    bool was_live = found && found->is_live && found->begin == (uintptr_t)pointer;
    size_t size = was_live ? rounded(found->size) : 0;
    if (was_live) found->is_live = false;
    pthread_mutex_unlock(&lock);
    if (!was_live) return fault(cudaErrorInvalidValue, "it frees what is not allocated");
    card_give_back(size);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **pointer, size_t size) { return allocate(pointer, size); }
cudaError_t cudaMallocFromPoolAsync(void **pointer, size_t size, cudaMemPool_t pool, cudaStream_t stream) {
    (void)pool, (void)stream;
    return allocate(pointer, size);
}
cudaError_t cudaFree(void *pointer) { return release(pointer); }
cudaError_t cudaFreeAsync(void *pointer, cudaStream_t stream) {
    (void)stream;
    return release(pointer);
}

cudaError_t cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
    (void)flags;
    if (is_capturing()) return break_capture("an allocation of pinned memory");
    card_add(CARD_PINNED, 1);
    return posix_memalign(pointer, 4096, size ? size : 1) ? failed(cudaErrorMemoryAllocation) : cudaSuccess;
}
cudaError_t cudaMallocHost(void **pointer, size_t size) { return cudaHostAlloc(pointer, size, 0); }
cudaError_t cudaFreeHost(void *pointer) {
    free(pointer);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    uint64_t held = card_get(CARD_HELD), memory = card_get(CARD_MEMORY);
    *free_bytes = held < memory ? memory - held : 0;
    *total = memory;
    return card_is_there() ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    memset(attributes, 0, sizeof *attributes);
    attributes->type = is_on_card(pointer) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
    if (is_on_card(pointer)) attributes->devicePointer = (void *)pointer;
    else attributes->hostPointer = (void *)pointer;
    return cudaSuccess;
}

/* `kind` is only checked: the pointers themselves tell from where to where. */
static cudaError_t copy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    if (size == 0) return cudaSuccess;
    bool to_card = is_on_card(to), from_card = is_on_card(from);
    enum cudaMemcpyKind real = from_card ? (to_card ? cudaMemcpyDeviceToDevice : cudaMemcpyDeviceToHost)
                                         : (to_card ? cudaMemcpyHostToDevice : cudaMemcpyHostToHost);
    if (kind != real && kind != cudaMemcpyDefault)
        return fault(cudaErrorInvalidMemcpyDirection, "a copy's direction is not that of its pointers");
    if ((to_card && !is_live(to, size)) || (from_card && !is_live(from, size)))
        return fault(cudaErrorIllegalAddress, "a copy leaves its allocation");
    switch (real) {
    case cudaMemcpyHostToDevice:
        card_add(CARD_TO_CARD, 1);
        card_add(CARD_TO_CARD_BYTES, size);
        break;
    case cudaMemcpyDeviceToHost:
        card_add(CARD_TO_HOST, 1);
        card_add(CARD_TO_HOST_BYTES, size);
        memset(to, 0, size);
        break;
    case cudaMemcpyDeviceToDevice:
        card_add(CARD_WITHIN, 1);
        break;
    default:
        memcpy(to, from, size);
    }
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    return is_capturing() ? break_capture("cudaMemcpy") : copy(to, from, size, kind);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)stream;
    return copy(to, from, size, kind);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)stream;
    cudaError_t error = cudaSuccess;
    for (size_t row = 0; row < height && error == cudaSuccess; row++)
        error = copy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width, kind);
    return error;
}
cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t offset, enum cudaMemcpyKind kind) {
    (void)symbol, (void)offset, (void)kind;
    memset(to, 0, size);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *pointer, int value, size_t size) {
    (void)value;
    return is_live(pointer, size) ? cudaSuccess : fault(cudaErrorIllegalAddress, "a memset leaves its allocation");
}
cudaError_t cudaMemsetAsync(void *pointer, int value, size_t size, cudaStream_t stream) {
    (void)stream;
    return cudaMemset(pointer, value, size);
}

/* One pool is as good as another. */
static char the_pool;
cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *properties) {
    (void)properties;
    *pool = (cudaMemPool_t)&the_pool;
    return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) { return (void)pool, cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep) { return (void)pool, (void)keep, cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value) {
    return (void)pool, (void)attribute, (void)value, cudaSuccess;
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value) {
    (void)pool, (void)attribute;
    *(uint64_t *)value = 0;
    return cudaSuccess;
}
