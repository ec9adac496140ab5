/* Writes what cuDNN knows of GPU 0 as the JSON from which it judges graphs on machines without that GPU:
 *     bench_cudnn_properties FILE.json */
#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>

static void check(cudnnStatus_t status, const char *what) {
    if (status == CUDNN_STATUS_SUCCESS) return;
    fprintf(stderr, "cudnn_properties: %s: %s\n", what, cudnnGetErrorString(status));
    exit(1);
}

int main(int argc, char **argv) {
    cudnnBackendDescriptor_t device = NULL;
    int32_t index = 0;
    int64_t size = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: bench_cudnn_properties FILE.json\n");
        return 2;
    }
    check(cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device), "a descriptor");
    check(cudnnBackendSetAttribute(device, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &index),
          "choosing GPU 0");
    check(cudnnBackendFinalize(device), "reading GPU 0");
    check(cudnnBackendGetAttribute(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0,
                                   &size, NULL),
          "the size of its properties");
    char *json = malloc((size_t)size + 1);
    if (!json) return 1;
    check(cudnnBackendGetAttribute(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, size,
                                   &size, json),
          "its properties");
    FILE *file = fopen(argv[1], "w");
    if (!file || fwrite(json, 1, (size_t)size, file) != (size_t)size || fclose(file) != 0) {
        perror(argv[1]);
        return 1;
    }
    free(json);
    check(cudnnBackendDestroyDescriptor(device), "freeing");
    return 0;
}
