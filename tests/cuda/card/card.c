/* The card's file: opened on first use and mapped into memory. Linked into each stand-in library. */
#define _GNU_SOURCE
#include "card.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

struct entry {
    char name[24];
    _Atomic uint64_t value;
};

static struct entry *entries;
/* What this process took and did not give back: a process that ends leaves the card. */
static _Atomic uint64_t taken;

static uint64_t setting(const char *variable, uint64_t otherwise) {
    const char *text = getenv(variable);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void insert_card(void) {
    static const char *const names[] = {
#define X(field, name) [CARD_##field] = name,
        CARD_FIELDS(X)
#undef X
    };
    const size_t size = CARD_FIELD_COUNT * sizeof(struct entry);
    const char *path = getenv("STUB_CARD");
    if (!path || !*path) return;
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) {
        fprintf(stderr, "[card] cannot open STUB_CARD=%s\n", path);
        return;
    }
    flock(file, LOCK_EX);
    bool is_new = lseek(file, 0, SEEK_END) == 0;
    if (!is_new || ftruncate(file, (off_t)size) == 0) {
        void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED) entries = mapped;
    }
    if (entries && is_new) {
        for (int field = 0; field < CARD_FIELD_COUNT; field++)
            strncpy(entries[field].name, names[field], sizeof entries[field].name - 1);
        entries[CARD_SM].value = setting("STUB_SM", 90);
        entries[CARD_MEMORY].value = setting("STUB_MEMORY", 80ull << 30);
    }
    /* The mapping keeps the file open, and the lock with it. */
    flock(file, LOCK_UN);
    close(file);
}

bool card_is_there(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, insert_card);
    return entries != NULL;
}

uint64_t card_get(enum card_field field) {
    return card_is_there() ? atomic_load(&entries[field].value) : 0;
}

void card_add(enum card_field field, uint64_t amount) {
    if (card_is_there()) atomic_fetch_add(&entries[field].value, amount);
}

bool card_take(uint64_t bytes) {
    if (!card_is_there()) return false;
    uint64_t held = atomic_load(&entries[CARD_HELD].value);
    do {
        if (held + bytes > atomic_load(&entries[CARD_MEMORY].value)) return false;
    } while (!atomic_compare_exchange_weak(&entries[CARD_HELD].value, &held, held + bytes));
    atomic_fetch_add(&taken, bytes);
    uint64_t most = atomic_load(&entries[CARD_MOST_HELD].value);
    while (most < held + bytes && !atomic_compare_exchange_weak(&entries[CARD_MOST_HELD].value, &most, held + bytes)) {
    }
    return true;
}

void card_give_back(uint64_t bytes) {
    if (!card_is_there()) return;
    atomic_fetch_sub(&entries[CARD_HELD].value, bytes);
    atomic_fetch_sub(&taken, bytes);
}

__attribute__((destructor)) static void leave(void) {
    if (entries) atomic_fetch_sub(&entries[CARD_HELD].value, atomic_exchange(&taken, 0));
}
