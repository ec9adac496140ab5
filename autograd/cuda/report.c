#include "autograd/cuda/cuda.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <stdarg.h>
#include <stdio.h>

typedef struct page {
    char *text;
    size_t size, used;
} page;

__attribute__((format(printf, 2, 3))) static void add(page *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = p->used < p->size ? vsnprintf(p->text + p->used, p->size - p->used, format, args) : 0;
    va_end(args);
    p->used += n > 0 ? (size_t)n : 0;
}

int tw_cuda_devices(void) {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    (void)cudaGetLastError();
    return 0;
}

static void add_device(page *p, int index) {
    struct cudaDeviceProp prop;
    size_t free_bytes = 0, all = 0;
    if (cudaGetDeviceProperties(&prop, index) != cudaSuccess) {
        add(p, "GPU %d: does not answer (%s)\n", index, cudaGetErrorString(cudaGetLastError()));
        return;
    }
    if (cudaSetDevice(index) != cudaSuccess || cudaMemGetInfo(&free_bytes, &all) != cudaSuccess)
        all = prop.totalGlobalMem;
    add(p, "GPU %d: %s, %.1f GB (%.1f free), compute capability %d.%d, %d multiprocessors\n", index,
        prop.name, (double)all / 1e9, (double)free_bytes / 1e9, prop.major, prop.minor,
        prop.multiProcessorCount);
}

void tw_cuda_report(char *text, size_t size) {
    page p = {text, size, 0};
    int driver = 0, runtime = 0, count = 0;
    if (size) text[0] = '\0';
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    size_t lt = cublasLtGetVersion(), dnn = cudnnGetVersion();
    add(&p, "libraries: CUDA %d.%d, cuBLASLt %zu.%zu.%zu, cuDNN %zu.%zu.%zu\n", runtime / 1000,
        runtime % 1000 / 10, lt / 10000, lt / 100 % 100, lt % 100, dnn / 10000, dnn / 100 % 100, dnn % 100);
    if (driver == 0) {
        add(&p, "driver: none\n");
        return;
    }
    add(&p, "driver: CUDA %d.%d\n", driver / 1000, driver % 1000 / 10);
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
        (void)cudaGetLastError();
        add(&p, "GPU: none (%s)\n", error == cudaSuccess ? "0 are seen" : cudaGetErrorString(error));
    }
    for (int i = 0; error == cudaSuccess && i < count; i++) add_device(&p, i);
}
