/* cuBLASLt without a GPU, for tests: column-major products by plain loops, of SHIM_ALGORITHMS algorithms that
 * differ in what a test gives them. As the library it proposes algorithms for alignments that it is told, or
 * sees in the bias's pointer, and refuses to run them on memory that is not aligned so. */
#ifndef TW_TESTS_CUDART_SHIM_CUBLASLT_SHIM_H
#define TW_TESTS_CUDART_SHIM_CUBLASLT_SHIM_H

#include "cudart_shim.h"

#include <cublasLt.h>

enum { SHIM_ALGORITHMS = 10 };

typedef struct cublaslt_algorithm {
    double seconds;                   /* of a run */
    int alignment;                    /* bytes, of all memory */
    cublasLtReductionScheme_t scheme; /* OUTPUT_TYPE: the sum's halves are added in the result's type */
    bool refuses;                     /* to run, though proposed */
    int runs;                         /* asked for, refused ones too */
} cublaslt_algorithm;

typedef struct cublaslt_library {
    cublaslt_algorithm algorithm[SHIM_ALGORITHMS]; /* in the order of its preference */
    int refused_epilogues;                         /* bits of cublasLtEpilogue_t for which there is nothing */
    double sums_seconds;         /* more that every algorithm takes with BGRADA and BGRADB */
    bool counts;                 /* nothing is multiplied: the first element becomes 1, and beta C is added */
    int proposals, device;       /* calls of the heuristic; the current device at the last one */
    int opened_on, alive;        /* the current device when the handle was made; descriptors and handles */
    int wanted;                  /* algorithms, by the last call */
    cublasComputeType_t compute; /* of the last product */
} cublaslt_library;
extern cublaslt_library library;

/* All algorithms alike: 1 ms, 2 bytes, no split sums. */
void cublaslt_reset(void);

#endif
