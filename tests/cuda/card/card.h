/* The pretended card, as all stand-in libraries see it.
 *
 * The card is a file: STUB_CARD names it, and without STUB_CARD there is no card. Every process that
 * has the file open uses the same card, and a test reads the file to see what a process did. The file
 * is a table of named numbers (tests/cuda/card.rs reads it), so its order can change at will.
 */
#ifndef CARD_H
#define CARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(field, name in the file) */
#define CARD_FIELDS(X)                                                                              \
    X(SM, "sm")                               /* architecture: 75, 80, 86, 89, 90, 100, 120 */      \
    X(MEMORY, "memory")                       /* bytes; a test may change it at any time */         \
    X(HELD, "held")                           /* bytes in use */                                    \
    X(MOST_HELD, "most held")                                                                       \
    X(ALLOCATIONS, "allocations")             /* of the card's memory */                            \
    X(PINNED, "pinned")                       /* allocations of pinned host memory */               \
    X(LAUNCHES, "launches")                   /* of ONNX Runtime's own kernels */                   \
    X(MULTIPLICATIONS, "multiplications")     /* calls of cuBLAS that compute */                    \
    X(PLANS, "plans")                         /* execution plans that cuDNN made */                 \
    X(EXECUTIONS, "executions")               /* executions of such plans, and other cuDNN work */  \
    X(TO_CARD, "to card")                     /* copies */                                          \
    X(TO_CARD_BYTES, "to card bytes")                                                               \
    X(TO_HOST, "to host")                                                                           \
    X(TO_HOST_BYTES, "to host bytes")                                                               \
    X(WITHIN, "within card")                                                                        \
    X(CAPTURES, "captures")                   /* CUDA graphs recorded */                            \
    X(REPLAYS, "replays")                     /* CUDA graphs launched */                            \
    X(FAULTS, "faults")                       /* calls that a real card would not forgive */

enum card_field {
#define X(field, name) CARD_##field,
    CARD_FIELDS(X)
#undef X
    CARD_FIELD_COUNT
};

/* Each library has its own copy of these functions. */
#pragma GCC visibility push(hidden)

bool card_is_there(void);

uint64_t card_get(enum card_field field);
void card_add(enum card_field field, uint64_t amount);

/* Takes memory. False: the card is full. */
bool card_take(uint64_t bytes);
void card_give_back(uint64_t bytes);

#pragma GCC visibility pop

#endif
