/* Python pickles read as data. A pickle is a program for a small stack machine; this interpreter knows the
 * instructions that build numbers, strings, bytes, tuples, lists and dicts, of protocols 0 to 5, and refuses
 * every other one by name, so nothing in a file can run code.
 *
 * A kind of file that needs names ("collections.OrderedDict") lists them (tw_pickle_allow). They and calls of
 * them become values too: a record of what the file says, which its reader may interpret. Nothing is ever
 * called, and a name that is not in the list is refused with the name and its position. A kind of file whose
 * writer makes up names (TorchScript: a class a module) allows the classes of one module
 * (tw_pickle_allow_classes): their objects are attributes by name, nothing more.
 *
 * What a hostile file can cost is bounded: no recursion here, values are acyclic and nested at most
 * TW_PICKLE_MAX_DEPTH deep, and a walk over the result visits at most `max_values` values even if parts are
 * shared ("billion laughs"). Memory is at most about 64 bytes a byte of input.
 * Instruction set: CPython, Lib/pickletools.py. */
#ifndef TW_DATA_PICKLE_H
#define TW_DATA_PICKLE_H

#include "autograd/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TW_PICKLE_MAX_DEPTH = 64 };

typedef enum tw_pickle_kind {
    TW_PICKLE_NONE,
    TW_PICKLE_BOOL,
    TW_PICKLE_INT, /* fits int64_t; a longer integer is refused */
    TW_PICKLE_FLOAT,
    TW_PICKLE_STR,   /* valid UTF-8 */
    TW_PICKLE_BYTES, /* also bytearray, and Python 2's str if it is not UTF-8 */
    TW_PICKLE_TUPLE,
    TW_PICKLE_LIST,
    TW_PICKLE_DICT,
    /* Only with tw_pickle_allow: */
    TW_PICKLE_GLOBAL,     /* a name of the list; bytes: the name without its module */
    TW_PICKLE_OBJECT,     /* items: the called GLOBAL, its arguments (TUPLE), its state if it was given one;
                           * of an allowed class no arguments, and the state is a DICT */
    TW_PICKLE_PERSISTENT, /* items: the identifier of something outside the pickle */
} tw_pickle_kind;

typedef struct tw_pickle_value tw_pickle_value;
struct tw_pickle_value {
    uint8_t kind;    /* tw_pickle_kind */
    uint8_t depth;   /* 0: no children; else 1 + the deepest child's */
    bool in_use;     /* is inside another value, so it may not grow any more: this keeps values acyclic */
    uint8_t tag;     /* GLOBAL, OBJECT, and DICT made by a call: the name's tag; else 0 */
    uint32_t values; /* values that a walk from here visits, itself included */
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct {
            const char *data; /* not zero-terminated; in the input or in the parser */
            size_t size;
        } bytes; /* STR, BYTES, GLOBAL */
        struct {
            tw_pickle_value **data; /* DICT: key, value, key, value, … in file order; keys may repeat */
            size_t size;            /* elements; DICT: 2 × entries */
            size_t capacity;
        } items; /* TUPLE, LIST, DICT, OBJECT, PERSISTENT */
    };
};

typedef struct tw_pickle tw_pickle;

/* A parser, used again for many pickles. max_values: the most values one pickle may hold. One thread at a
 * time. */
TW_MUST_CHECK tw_status tw_pickle_new(uint32_t max_values, tw_pickle **out);
void tw_pickle_free(tw_pickle *pickle); /* accepts NULL */

/* A name that a kind of file may use. */
typedef struct tw_pickle_global {
    const char *module, *name;
    uint8_t tag; /* the reader's number for it, > 0; several names may share one */
    enum {
        TW_PICKLE_CONSTANT,   /* may be mentioned, not called */
        TW_PICKLE_MAKES,      /* a call is kept as OBJECT */
        TW_PICKLE_MAKES_DICT, /* a call without arguments, or with one list of pairs, is a DICT */
    } use;
    bool takes_state; /* BUILD is allowed: OBJECT keeps the state, DICT drops it */
} tw_pickle_global;

/* From now on allows these `count` names (kept by reference), calls of them and binary persistent ids. */
void tw_pickle_allow(tw_pickle *pickle, const tw_pickle_global *globals, size_t count);
/* Beside them any name of `module` (kept by reference) and of modules below it is a class from now on: a
 * GLOBAL with this tag, of which NEWOBJ without arguments makes an OBJECT and BUILD with a dict sets the
 * attributes. */
void tw_pickle_allow_classes(tw_pickle *pickle, const char *module, uint8_t tag);
/* Memory the parser may hold, in bytes (about; 0: no limit). More is TW_ERR_UNSUPPORTED. */
void tw_pickle_limit(tw_pickle *pickle, size_t bytes);
/* Where the last pickle that was read ended: the position after its STOP. */
size_t tw_pickle_end(const tw_pickle *pickle);

/* Reads the pickle that starts at data[0]; bytes after its STOP are ignored, as Python does. *root points
 * into the parser and `data` and is valid until the parser's next call or the end of `data`. TW_ERR_FORMAT:
 * damaged; TW_ERR_UNSUPPORTED: needs an instruction that is refused, or is too large. Messages give the byte
 * position. */
TW_MUST_CHECK tw_status tw_pickle_read(tw_pickle *pickle, const void *data, size_t size,
                                       const tw_pickle_value **root);

/* "int", "str", … Never NULL. */
const char *tw_pickle_kind_name(int kind);

#endif
