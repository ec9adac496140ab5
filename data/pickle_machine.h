/* What the parts of the pickle reader share: pickle.c (the machine: stack, memo, containers),
 * pickle_scalars.c (the input, numbers and strings) and pickle_objects.c (names, calls, persistent ids). */
#ifndef TW_DATA_PICKLE_MACHINE_H
#define TW_DATA_PICKLE_MACHINE_H

#include "data/pickle.h"

typedef struct tw_pickle_block tw_pickle_block;

struct tw_pickle {
    uint32_t max_values;
    size_t max_bytes, bytes; /* allocated at most (0: no limit) and so far */
    const tw_pickle_global *globals;
    size_t global_count;      /* 0: only plain data */
    const char *class_module; /* whose classes are allowed; NULL: none's */
    uint8_t class_tag;
    tw_pickle_block *blocks, *current;
    size_t used; /* of current */
    tw_pickle_value **stack;
    size_t height, stack_capacity;
    size_t *marks; /* stack heights */
    size_t mark_count, mark_capacity;
    tw_pickle_value **memo;
    size_t memo_count, memo_capacity; /* memo_count: one past the highest index used */
    size_t memoized;                  /* what MEMOIZE has as next index */
    uint32_t made;                    /* values made so far */
    /* The input. */
    const unsigned char *data;
    size_t size, at, op_at;
};

/* TW_ERR_FORMAT with the place of the current instruction. */
static inline TW_MUST_CHECK tw_status tw_pickle_damaged(const tw_pickle *p, const char *what) {
    return FAIL(TW_ERR_FORMAT, "pickle: %s (byte %zu of %zu)", what, p->op_at, p->size);
}
/* Memory until the parser's next pickle. */
TW_MUST_CHECK tw_status tw_pickle_allocate(tw_pickle *p, size_t size, void **out);
TW_MUST_CHECK tw_status tw_pickle_make(tw_pickle *p, tw_pickle_kind kind, tw_pickle_value **out);
TW_MUST_CHECK tw_status tw_pickle_push(tw_pickle *p, tw_pickle_value *v);

/* The stack holds at least `values` values above its last mark. */
TW_MUST_CHECK tw_status tw_pickle_need(const tw_pickle *p, size_t values);
/* Moves the stack's values from `from` up into `parent`, which has items. */
TW_MUST_CHECK tw_status tw_pickle_fill(tw_pickle *p, tw_pickle_value *parent, size_t from);

/* The input: a little-endian number of `bytes` bytes; the rest of a line. */
TW_MUST_CHECK tw_status tw_pickle_take_uint(tw_pickle *p, int bytes, uint64_t *out);
TW_MUST_CHECK tw_status tw_pickle_take_line(tw_pickle *p, const char **line, size_t *size);
/* Runs an instruction that pushes a number, string or None; refuses all others. */
TW_MUST_CHECK tw_status tw_pickle_scalar(tw_pickle *p, unsigned char op);
/* Runs an instruction that makes names and calls, or one that is unknown: refuses what is not allowed. */
TW_MUST_CHECK tw_status tw_pickle_object(tw_pickle *p, unsigned char op);

#endif
