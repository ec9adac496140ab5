#include "train/device_open.h"

#include "train/cores.h"

#ifdef TW_WITH_CUDA
#include "autograd/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static tw_status open_cuda(int threads, int index, tw_device **out) {
    /* The host's own work (decoding, ranking) uses as many threads as on the CPU. */
    tw_device *host;
    TRY(tw_device_cpu(threads, &host));
    tw_device_free(host);
    return tw_device_cuda(index, out);
}

/* Fails where a GPU cannot be seen for want of a driver that serves this build: auto must not be slow in
 * silence. */
static tw_status look_for_gpu(int index, bool *found) {
    *found = index < tw_cuda_devices();
    return *found ? TW_OK : tw_cuda_check_driver();
}

/* ---- a GPU for each rank ---- */

enum { MOST = 16 }; /* GPUs that a process is taken to see */

typedef struct sight {
    int32_t gpus, taken; /* how many this rank sees; which of them it gets, -1: none is left */
    unsigned char id[MOST][TW_CUDA_ID];
    tw_machine machine;
} sight;

static tw_status look_around(sight *mine) {
    TRY(tw_cuda_check_driver());
    int n = tw_cuda_devices();
    *mine = (sight){.gpus = n < MOST ? n : MOST, .taken = -1};
    tw_machine_here(&mine->machine);
    for (int i = 0; i < mine->gpus; i++) TRY(tw_cuda_id(i, mine->id[i]));
    return TW_OK;
}

static bool is_taken(const sight *all, int ranks, const unsigned char *id) {
    for (int r = 0; r < ranks; r++)
        if (all[r].taken >= 0 && memcmp(all[r].id[all[r].taken], id, TW_CUDA_ID) == 0) return true;
    return false;
}

static void take(sight *all, int ranks) {
    for (int r = 0; r < ranks; r++)
        for (int g = 0; g < all[r].gpus && all[r].taken < 0; g++)
            if (!is_taken(all, r, all[r].id[g])) all[r].taken = g;
}

/* The first rank, in their order, that has no GPU; -1: all have one. */
static int without(const sight *all, int ranks) {
    for (int r = 0; r < ranks; r++)
        if (all[r].taken < 0) return r;
    return -1;
}

static tw_status refuse(const sight *all, int ranks, int rank) {
    int processes = 0, gpus = all[rank].gpus;
    const char *host = all[rank].machine.host;
    for (int r = 0; r < ranks; r++) processes += tw_machine_same(&all[r].machine, &all[rank].machine);
    if (gpus == 0)
        return FAIL(TW_ERR_CONFIG,
                    "rank %d on %s sees no GPU (CUDA_VISIBLE_DEVICES counts): leave its host out, or use "
                    "--device cpu",
                    rank, host);
    return FAIL(TW_ERR_CONFIG,
                "%d processes were started on %s, but for rank %d none of the %d GPUs that it sees "
                "(CUDA_VISIBLE_DEVICES counts) is left: NCCL serves one rank a GPU. Start fewer there "
                "(mpirun --map-by ppr:%d:node, srun --ntasks-per-node=%d), or use --device cpu",
                processes, host, rank, gpus, gpus, gpus);
}

/* *index -1: all ranks compute on CPUs. */
static tw_status share_gpus(enum tw_config_device choice, tw_comm *host, int *index) {
    sight mine;
    TRY(look_around(&mine));
    sight *all = calloc((size_t)host->ranks, sizeof *all);
    if (!all) return FAIL(TW_ERR_MEMORY, "out of memory");
    tw_status status = host->gather_all(host, &mine, sizeof mine, all);
    int seen = 0, lacks;
    for (int r = 0; status == TW_OK && r < host->ranks; r++) seen += all[r].gpus;
    *index = -1;
    if (status == TW_OK && (seen > 0 || choice == TW_CONFIG_DEVICE_CUDA)) {
        take(all, host->ranks);
        lacks = without(all, host->ranks);
        *index = all[host->rank].taken;
        /* Where there is none at all, the device itself says what is missing. */
        if (seen == 0)
            *index = 0;
        else if (lacks >= 0)
            status = refuse(all, host->ranks, lacks);
    }
    free(all);
    return status;
}

void tw_device_allow_tf32(tw_device *device, bool allowed) {
    if (!tw_on_cpu(device)) tw_cuda_set_tf32(device, allowed);
}

void tw_device_set_deterministic(tw_device *device, bool wanted) {
    if (!tw_on_cpu(device)) tw_cuda_set_deterministic(device, wanted);
}

bool tw_device_deterministic(const tw_device *device) {
    return tw_on_cpu(device) || tw_cuda_deterministic(device);
}

bool tw_device_choice(tw_device *device, int i, char *text, size_t size) {
    return !tw_on_cpu(device) && tw_cuda_choice_text(device, i, text, size);
}

const char *tw_device_trouble(tw_device *device) {
    if (tw_on_cpu(device)) return NULL;
    const char *graphs = tw_cuda_refusals(device);
    return graphs ? graphs
                  : tw_cuda_product_refusals(device); /* one at a time: the next call tells the other */
}
#else
static tw_status open_cuda(int threads, int index, tw_device **out) {
    (void)threads, (void)index;
    *out = NULL;
    return FAIL(TW_ERR_UNSUPPORTED,
                "this build has no CUDA; configure it with cmake --preset cuda, or use the device cpu");
}

static tw_status look_for_gpu(int index, bool *found) {
    (void)index;
    *found = false;
    return TW_OK;
}

static tw_status share_gpus(enum tw_config_device choice, tw_comm *host, int *index) {
    (void)host;
    *index = choice == TW_CONFIG_DEVICE_CUDA ? 0 : -1;
    return TW_OK;
}

void tw_device_allow_tf32(tw_device *device, bool allowed) {
    (void)device, (void)allowed;
}

void tw_device_set_deterministic(tw_device *device, bool wanted) {
    (void)device, (void)wanted;
}

bool tw_device_deterministic(const tw_device *device) {
    return tw_on_cpu(device);
}

bool tw_device_choice(tw_device *device, int i, char *text, size_t size) {
    (void)device, (void)i, (void)text, (void)size;
    return false;
}

const char *tw_device_trouble(tw_device *device) {
    (void)device;
    return NULL;
}
#endif

tw_status tw_device_open(enum tw_config_device choice, int threads, int index, tw_device **out) {
    bool found = choice == TW_CONFIG_DEVICE_CUDA;
    *out = NULL;
    if (threads == 0) threads = tw_cores_here();
    if (choice == TW_CONFIG_DEVICE_AUTO) {
        tw_status status = look_for_gpu(index, &found);
        if (status != TW_OK) return tw_fail_context(status, "device auto (cpu leaves the GPU alone)");
    }
    if (!found) return tw_device_cpu(threads, out);
    tw_status status = open_cuda(threads, index, out);
    return status == TW_OK
               ? TW_OK
               : tw_fail_context(status, choice == TW_CONFIG_DEVICE_CUDA ? "device cuda"
                                                                         : "device auto, a GPU is seen");
}

tw_status tw_device_open_rank(enum tw_config_device choice, int threads, tw_comm *host, tw_device **out) {
    int index = -1;
    *out = NULL;
    TRY(tw_cores_agree(host, &threads));
    if (choice != TW_CONFIG_DEVICE_CPU) TRY(share_gpus(choice, host, &index));
    return index >= 0 ? open_cuda(threads, index, out) : tw_device_cpu(threads, out);
}
