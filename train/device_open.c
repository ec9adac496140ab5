#include "train/device_open.h"

#ifdef TW_WITH_CUDA
#include "autograd/cuda/cuda.h"

static tw_status open_cuda(int threads, int index, tw_device **out) {
    /* The host's own work (decoding, ranking) uses as many threads as on the CPU. */
    tw_device *host;
    TRY(tw_device_cpu(threads, &host));
    tw_device_free(host);
    return tw_device_cuda(index, out);
}

static bool has_gpu(int index) {
    return index < tw_cuda_devices();
}
#else
static tw_status open_cuda(int threads, int index, tw_device **out) {
    (void)threads, (void)index;
    *out = NULL;
    return FAIL(TW_ERR_UNSUPPORTED,
                "--device cuda: this build has no CUDA; configure it with cmake --preset cuda, "
                "or use --device cpu");
}

static bool has_gpu(int index) {
    (void)index;
    return false;
}
#endif

tw_status tw_device_open(enum tw_config_device choice, int threads, int index, tw_device **out) {
    bool cuda = choice == TW_CONFIG_DEVICE_CUDA || (choice == TW_CONFIG_DEVICE_AUTO && has_gpu(index));
    return cuda ? open_cuda(threads, index, out) : tw_device_cpu(threads, out);
}
