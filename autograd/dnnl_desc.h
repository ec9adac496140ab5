/* What oneDNN 2 and 3 call differently about memory descriptions, and work space. Only matmul_dnnl.c and
 * conv_dnnl.c include this. */
#ifndef TW_AUTOGRAD_DNNL_DESC_H
#define TW_AUTOGRAD_DNNL_DESC_H

#include "autograd/status.h"

#include <dnnl.h>
#include <stdlib.h>

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t desc; /* a handle */
typedef const_dnnl_memory_desc_t desc_ref;
#define REF(d) (d)

static inline void desc_free(desc d) {
    if (d) dnnl_memory_desc_destroy(d);
}
#else
typedef dnnl_memory_desc_t desc;
typedef const dnnl_memory_desc_t *desc_ref;
#define REF(d) (&(d))

static inline void desc_free(desc d) {
    (void)d;
}
#endif

/* Makes *scratch, of *size bytes, at least `bytes` large; its contents are lost when it grows. `what` names
 * the user in the error. */
static inline tw_status grow_scratch(char **scratch, size_t *size, size_t bytes, const char *what) {
    if (bytes <= *size) return TW_OK;
    free(*scratch);
    *size = 0;
    size_t rounded = (bytes + 63) / 64 * 64;
    *scratch = aligned_alloc(64, rounded);
    if (!*scratch) return FAIL(TW_ERR_MEMORY, "out of memory: %zu bytes for a %s", rounded, what);
    *size = rounded;
    return TW_OK;
}

#endif
