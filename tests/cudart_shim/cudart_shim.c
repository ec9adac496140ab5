#include "cudart_private.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BLOCKS = 512 };

typedef struct block {
    char *p;
    size_t bytes;
    enum cudaMemoryType type;
} block;

cudart_machine machine = {.devices = 2, .driver = 13000, .runtime = 13000, .major = 9, .memory = 1u << 30};

static block blocks[MOST_BLOCKS];
static size_t taken;
static int current = -1, alive;
static cudaError_t last;
static const char *failing;
static cudaError_t failure;

/* ---- errors ---- */

cudaError_t cudart_remember(cudaError_t error) {
    if (error != cudaSuccess) last = error;
    return error;
}

void cudart_fail(const char *function, cudaError_t error) {
    failing = function, failure = error;
}

bool cudart_fails(const char *function, cudaError_t *error) {
    if (!failing || strcmp(failing, function) != 0) return false;
    failing = NULL;
    *error = cudart_remember(failure);
    return true;
}
cudaError_t cudaGetLastError(void) {
    cudaError_t error = last;
    last = cudaSuccess;
    return error;
}

const char *cudaGetErrorName(cudaError_t error) {
    static char text[32];
    snprintf(text, sizeof text, "cudaError%d", (int)error);
    return text;
}

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : "an error of the shim";
}

int cudart_alive(void) {
    return alive;
}

void cudart_count(int change) {
    alive += change;
}

int cudart_current(void) {
    return current;
}

/* ---- the machine ---- */

cudaError_t cudaDriverGetVersion(int *version) {
    *version = machine.driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = machine.runtime;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 0;
    if (machine.driver < machine.runtime / 1000 * 1000) return cudart_remember(cudaErrorInsufficientDriver);
    if (machine.devices == 0) return cudart_remember(cudaErrorNoDevice);
    *count = machine.devices;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device) {
    MAY_FAIL;
    if (device < 0 || device >= machine.devices) return cudart_remember(cudaErrorInvalidDevice);
    memset(prop, 0, sizeof *prop);
    snprintf(prop->name, sizeof prop->name, "a stand-in");
    prop->major = machine.major;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    MAY_FAIL;
    if (device < 0 || device >= machine.devices) return cudart_remember(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value) {
    (void)function, (void)attribute;
    return value <= 227 << 10 ? cudaSuccess : cudart_remember(cudaErrorInvalidValue);
}

/* ---- memory ---- */

static block *find(const void *p) {
    for (int i = 0; i < MOST_BLOCKS; i++)
        if (blocks[i].p && (const char *)p >= blocks[i].p && (const char *)p < blocks[i].p + blocks[i].bytes)
            return &blocks[i];
    return NULL;
}

bool cudart_knows(const void *p) {
    return find(p) != NULL;
}

bool cudart_on_device(const void *p, size_t bytes) {
    const block *b = find(p);
    return b && b->type == cudaMemoryTypeDevice && (const char *)p + bytes <= b->p + b->bytes;
}

static cudaError_t take(void **p, size_t bytes, enum cudaMemoryType type) {
    int i = 0;
    while (i < MOST_BLOCKS && blocks[i].p) i++;
    *p = NULL;
    if (current < 0) return cudart_remember(cudaErrorInvalidDevice);
    if (type == cudaMemoryTypeDevice && bytes > machine.memory - taken)
        return cudart_remember(cudaErrorMemoryAllocation);
    if (i == MOST_BLOCKS || bytes == 0) return cudart_remember(cudaErrorInvalidValue);
    if (posix_memalign(p, 256, bytes) != 0) return cudart_remember(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    blocks[i] = (block){*p, bytes, type};
    if (type == cudaMemoryTypeDevice) taken += bytes;
    alive++;
    return cudaSuccess;
}

static cudaError_t give_back(void *p, enum cudaMemoryType type) {
    block *b = p ? find(p) : NULL;
    if (!p) return cudaSuccess;
    cudart_drain();
    if (!b || b->p != p || b->type != type) return cudart_remember(cudaErrorInvalidValue);
    if (type == cudaMemoryTypeDevice) taken -= b->bytes;
    free(p);
    b->p = NULL;
    alive--;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    MAY_FAIL;
    NOT_IN_CAPTURE;
    return take(p, bytes, cudaMemoryTypeDevice);
}

cudaError_t cudaFree(void *p) {
    return give_back(p, cudaMemoryTypeDevice);
}

cudaError_t cudaMallocHost(void **p, size_t bytes) {
    MAY_FAIL;
    NOT_IN_CAPTURE;
    return take(p, bytes, cudaMemoryTypeHost);
}

cudaError_t cudaFreeHost(void *p) {
    return give_back(p, cudaMemoryTypeHost);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    MAY_FAIL;
    *free_bytes = machine.memory - taken, *total = machine.memory;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *p) {
    const block *b = find(p);
    memset(attributes, 0, sizeof *attributes);
    attributes->type = b ? b->type : cudaMemoryTypeUnregistered;
    return cudaSuccess;
}
