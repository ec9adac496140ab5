#include "data/pickle.h"

#include "data/pickle_machine.h"

#include <stdlib.h>
#include <string.h>

/* Memory for one pickle: blocks that are kept from one to the next. */
struct tw_pickle_block {
    tw_pickle_block *next;
    size_t size;
    _Alignas(16) unsigned char data[];
};

enum { BLOCK_BYTES = 16 * 1024 - sizeof(tw_pickle_block) };

tw_status tw_pickle_new(uint32_t max_values, tw_pickle **out) {
    *out = calloc(1, sizeof **out);
    if (!*out) return FAIL(TW_ERR_MEMORY, "no memory for a pickle reader");
    (*out)->max_values = max_values;
    return TW_OK;
}

void tw_pickle_allow(tw_pickle *p, const tw_pickle_global *globals, size_t count) {
    p->globals = globals;
    p->global_count = count;
}

void tw_pickle_allow_classes(tw_pickle *p, const char *module, uint8_t tag) {
    p->class_module = module;
    p->class_tag = tag;
}

void tw_pickle_limit(tw_pickle *p, size_t bytes) {
    p->max_bytes = bytes;
}

size_t tw_pickle_end(const tw_pickle *p) {
    return p->at;
}

void tw_pickle_free(tw_pickle *p) {
    if (!p) return;
    for (tw_pickle_block *b = p->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(p->stack);
    free(p->marks);
    free(p->memo);
    free(p);
}

static tw_status no_memory(void) {
    return FAIL(TW_ERR_MEMORY, "no memory for a pickle's values");
}

static tw_status account(tw_pickle *p, size_t bytes) {
    if (p->max_bytes && (p->bytes > p->max_bytes || bytes > p->max_bytes - p->bytes))
        return FAIL(TW_ERR_UNSUPPORTED, "pickle: its values need more than %zu bytes of memory",
                    p->max_bytes);
    p->bytes += bytes;
    return TW_OK;
}

tw_status tw_pickle_allocate(tw_pickle *p, size_t size, void **out) {
    size = (size + 15) & ~(size_t)15;
    while (!p->current || p->current->size - p->used < size) {
        tw_pickle_block *next = p->current ? p->current->next : p->blocks;
        if (!next || next->size < size) {
            size_t bytes = size > BLOCK_BYTES ? size : BLOCK_BYTES;
            TRY(account(p, sizeof(tw_pickle_block) + bytes));
            tw_pickle_block *fresh = malloc(sizeof *fresh + bytes);
            if (!fresh) return no_memory();
            *fresh = (tw_pickle_block){.next = next, .size = bytes};
            if (p->current)
                p->current->next = fresh;
            else
                p->blocks = fresh;
            next = fresh;
        }
        p->current = next;
        p->used = 0;
    }
    *out = p->current->data + p->used;
    p->used += size;
    return TW_OK;
}

tw_status tw_pickle_make(tw_pickle *p, tw_pickle_kind kind, tw_pickle_value **out) {
    if (p->made >= p->max_values)
        return FAIL(TW_ERR_UNSUPPORTED, "pickle: more than %u values", (unsigned)p->max_values);
    p->made++;
    void *memory = NULL;
    TRY(tw_pickle_allocate(p, sizeof(tw_pickle_value), &memory));
    *out = memory;
    **out = (tw_pickle_value){.kind = (uint8_t)kind, .values = 1};
    return TW_OK;
}

/* Makes room for one more element of `size` bytes in an array that doubles. */
static tw_status grow(tw_pickle *p, void **array, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity) return TW_OK;
    size_t larger = *capacity ? *capacity * 2 : 32;
    TRY(account(p, (larger - *capacity) * size));
    void *moved = realloc(*array, larger * size);
    if (!moved) return no_memory();
    *array = moved;
    *capacity = larger;
    return TW_OK;
}

tw_status tw_pickle_push(tw_pickle *p, tw_pickle_value *v) {
    void *array = p->stack;
    TRY(grow(p, &array, p->height, &p->stack_capacity, sizeof(tw_pickle_value *)));
    p->stack = array;
    p->stack[p->height++] = v;
    return TW_OK;
}

static size_t floor_of(const tw_pickle *p) {
    return p->mark_count ? p->marks[p->mark_count - 1] : 0;
}

tw_status tw_pickle_need(const tw_pickle *p, size_t values) {
    return p->height - floor_of(p) >= values ? TW_OK : tw_pickle_damaged(p, "the stack is empty");
}

static tw_status pop_mark(tw_pickle *p, size_t *height) {
    if (p->mark_count == 0) return tw_pickle_damaged(p, "no mark");
    *height = p->marks[--p->mark_count];
    return TW_OK;
}

/* ---- containers ---- */

/* Puts `child` into `parent`, whose items have room for it. */
static tw_status adopt(const tw_pickle *p, tw_pickle_value *parent, tw_pickle_value *child) {
    child->in_use = true;
    if (parent->in_use) return tw_pickle_damaged(p, "a value that contains itself, or grows after its use");
    if (child->depth + 1 > TW_PICKLE_MAX_DEPTH)
        return FAIL(TW_ERR_UNSUPPORTED, "pickle: nested more than %d deep", TW_PICKLE_MAX_DEPTH);
    if (child->values > p->max_values - parent->values)
        return FAIL(TW_ERR_UNSUPPORTED, "pickle: more than %u values", (unsigned)p->max_values);
    if (child->depth >= parent->depth) parent->depth = (uint8_t)(child->depth + 1);
    parent->values += child->values;
    parent->items.data[parent->items.size++] = child;
    return TW_OK;
}

tw_status tw_pickle_fill(tw_pickle *p, tw_pickle_value *parent, size_t from) {
    size_t count = p->height - from, wanted = parent->items.size + count;
    if (wanted > parent->items.capacity) {
        void *memory = NULL;
        size_t capacity = parent->items.capacity ? wanted + parent->items.capacity : wanted;
        TRY(tw_pickle_allocate(p, capacity * sizeof(tw_pickle_value *), &memory));
        if (parent->items.size)
            memcpy(memory, parent->items.data, parent->items.size * sizeof(tw_pickle_value *));
        parent->items.data = memory;
        parent->items.capacity = capacity;
    }
    for (size_t i = from; i < p->height; i++) TRY(adopt(p, parent, p->stack[i]));
    p->height = from;
    return TW_OK;
}

static tw_status build(tw_pickle *p, tw_pickle_kind kind, size_t from) {
    if (kind == TW_PICKLE_DICT && (p->height - from) % 2)
        return tw_pickle_damaged(p, "a dict key without value");
    tw_pickle_value *v = NULL;
    TRY(tw_pickle_make(p, kind, &v));
    TRY(tw_pickle_fill(p, v, from));
    return tw_pickle_push(p, v);
}

static tw_status build_marked(tw_pickle *p, tw_pickle_kind kind) {
    size_t from = 0;
    TRY(pop_mark(p, &from));
    return build(p, kind, from);
}

static tw_status build_last(tw_pickle *p, tw_pickle_kind kind, size_t count) {
    TRY(tw_pickle_need(p, count));
    return build(p, kind, p->height - count);
}

/* APPEND(S), SETITEM(S): the values from `from` up go into the list or dict below them. */
static tw_status extend(tw_pickle *p, tw_pickle_kind kind, size_t from) {
    if (from <= floor_of(p) || p->stack[from - 1]->kind != kind)
        return tw_pickle_damaged(p, kind == TW_PICKLE_LIST ? "append to what is no list"
                                                           : "an item for what is no dict");
    if (kind == TW_PICKLE_DICT && (p->height - from) % 2)
        return tw_pickle_damaged(p, "a dict key without value");
    return tw_pickle_fill(p, p->stack[from - 1], from);
}

static tw_status extend_marked(tw_pickle *p, tw_pickle_kind kind) {
    size_t from = 0;
    TRY(pop_mark(p, &from));
    return extend(p, kind, from);
}

static tw_status extend_last(tw_pickle *p, tw_pickle_kind kind, size_t count) {
    TRY(tw_pickle_need(p, count + 1));
    return extend(p, kind, p->height - count);
}

/* ---- memo ---- */

static tw_status memo_put(tw_pickle *p, uint64_t index) {
    TRY(tw_pickle_need(p, 1));
    /* Picklers number from 0, so an index past the input's length is no pickler's. */
    if (index >= p->size) return tw_pickle_damaged(p, "a memo index out of range");
    while (index >= p->memo_capacity) {
        size_t before = p->memo_capacity;
        void *array = p->memo;
        TRY(grow(p, &array, before, &p->memo_capacity, sizeof(tw_pickle_value *)));
        p->memo = array;
    }
    while (p->memo_count <= index) p->memo[p->memo_count++] = NULL;
    if (!p->memo[index]) p->memoized++;
    p->memo[index] = p->stack[p->height - 1];
    return TW_OK;
}

static tw_status memo_get(tw_pickle *p, uint64_t index) {
    if (index >= p->memo_count || !p->memo[index])
        return tw_pickle_damaged(p, "a memo index that was never set");
    return tw_pickle_push(p, p->memo[index]);
}

static tw_status memo_text(tw_pickle *p, tw_status (*then)(tw_pickle *, uint64_t)) {
    const char *line = NULL;
    size_t size = 0;
    TRY(tw_pickle_take_line(p, &line, &size));
    uint64_t index = 0;
    if (size == 0 || size > 18) return tw_pickle_damaged(p, "a bad memo index");
    for (size_t i = 0; i < size; i++) {
        if (line[i] < '0' || line[i] > '9') return tw_pickle_damaged(p, "a bad memo index");
        index = index * 10 + (uint64_t)(line[i] - '0');
    }
    return then(p, index);
}

static tw_status memo_binary(tw_pickle *p, int bytes, tw_status (*then)(tw_pickle *, uint64_t)) {
    uint64_t index = 0;
    TRY(tw_pickle_take_uint(p, bytes, &index));
    return then(p, index);
}

/* ---- the machine ---- */

static tw_status protocol(tw_pickle *p) {
    uint64_t version = 0;
    TRY(tw_pickle_take_uint(p, 1, &version));
    if (version > 5) return FAIL(TW_ERR_UNSUPPORTED, "pickle: protocol %d, known are 0 to 5", (int)version);
    return TW_OK;
}

static tw_status mark(tw_pickle *p) {
    void *array = p->marks;
    TRY(grow(p, &array, p->mark_count, &p->mark_capacity, sizeof *p->marks));
    p->marks = array;
    p->marks[p->mark_count++] = p->height;
    return TW_OK;
}

/* POP takes a mark off where one is on top, as Python does. */
static tw_status pop(tw_pickle *p) {
    if (p->mark_count && p->marks[p->mark_count - 1] == p->height) {
        p->mark_count--;
        return TW_OK;
    }
    TRY(tw_pickle_need(p, 1));
    p->height--;
    return TW_OK;
}

static tw_status step(tw_pickle *p, unsigned char op) {
    uint64_t ignored = 0;
    size_t height = 0;
    switch (op) {
    case 0x80:
        return protocol(p);
    case 0x95:
        return tw_pickle_take_uint(p, 8, &ignored); /* FRAME: a hint for reading ahead */
    case '(':
        return mark(p);
    case '0':
        return pop(p);
    case '1':
        TRY(pop_mark(p, &height));
        p->height = height;
        return TW_OK;
    case '2':
        TRY(tw_pickle_need(p, 1));
        return tw_pickle_push(p, p->stack[p->height - 1]);
    case ')':
        return build_last(p, TW_PICKLE_TUPLE, 0);
    case 0x85:
        return build_last(p, TW_PICKLE_TUPLE, 1);
    case 0x86:
        return build_last(p, TW_PICKLE_TUPLE, 2);
    case 0x87:
        return build_last(p, TW_PICKLE_TUPLE, 3);
    case 't':
        return build_marked(p, TW_PICKLE_TUPLE);
    case ']':
        return build_last(p, TW_PICKLE_LIST, 0);
    case 'l':
        return build_marked(p, TW_PICKLE_LIST);
    case 'a':
        return extend_last(p, TW_PICKLE_LIST, 1);
    case 'e':
        return extend_marked(p, TW_PICKLE_LIST);
    case '}':
        return build_last(p, TW_PICKLE_DICT, 0);
    case 'd':
        return build_marked(p, TW_PICKLE_DICT);
    case 's':
        return extend_last(p, TW_PICKLE_DICT, 2);
    case 'u':
        return extend_marked(p, TW_PICKLE_DICT);
    case 'p':
        return memo_text(p, memo_put);
    case 'q':
        return memo_binary(p, 1, memo_put);
    case 'r':
        return memo_binary(p, 4, memo_put);
    case 0x94:
        return memo_put(p, p->memoized);
    case 'g':
        return memo_text(p, memo_get);
    case 'h':
        return memo_binary(p, 1, memo_get);
    case 'j':
        return memo_binary(p, 4, memo_get);
    default:
        return tw_pickle_scalar(p, op);
    }
}

tw_status tw_pickle_read(tw_pickle *p, const void *data, size_t size, const tw_pickle_value **root) {
    *root = NULL;
    p->current = p->blocks;
    p->used = 0;
    p->height = p->mark_count = p->memo_count = p->memoized = 0;
    p->made = 0;
    p->data = data;
    p->size = size;
    p->at = p->op_at = 0;
    if (size == 0) return FAIL(TW_ERR_FORMAT, "pickle: empty");
    while (p->at < size) {
        p->op_at = p->at;
        unsigned char op = p->data[p->at++];
        if (op == '.') {
            TRY(tw_pickle_need(p, 1));
            *root = p->stack[p->height - 1];
            return TW_OK;
        }
        TRY(step(p, op));
    }
    return FAIL(TW_ERR_FORMAT, "pickle: cut off after %zu bytes", size);
}

const char *tw_pickle_kind_name(int kind) {
    static const char *const names[] = {"None",  "bool", "int",  "float", "str",    "bytes",
                                        "tuple", "list", "dict", "name",  "object", "persistent id"};
    return kind >= 0 && kind <= TW_PICKLE_PERSISTENT ? names[kind] : "unknown";
}
