/* `tuwen doctor`: collects what the build and the machine are into one JSON object, and prints it. */
#include "autograd/status.h"
#ifdef TW_WITH_CUDA
#include "autograd/cuda/cuda.h"
#endif
#include "train/commands/commands.h"
#include "train/cores.h"
#include "train/host_memory.h"
#include "train/mpi_calls.h"
#include "train/nccl_calls.h"
#include "train/options.h"

#include <dnnl.h>
#include <hdf5.h>
#include <jansson.h>
#include <lmdb.h>
#include <spng.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>
#include <webp/decode.h>
#include <yaml.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZER "address"
#elif defined(__SANITIZE_THREAD__)
#define SANITIZER "thread"
#else
#define SANITIZER "none"
#endif

#if defined(__clang__)
#define COMPILER __VERSION__ /* begins with "Clang" */
#else
#define COMPILER "GCC " __VERSION__
#endif

#ifdef TW_WITH_CUDA
#define CUDA_BUILD "in this build"
#else
#define CUDA_BUILD "not in this build"
#endif

/* The CPU features that decide how fast products and the project's own loops run. */
static const char *const features[] = {"avx2",        "fma",         "avx512f",     "avx512bw",
                                       "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
                                       "amx_bf16",    "asimd",       "sve",         "bf16"};

/* The text after "name<blanks>:" in the first matching line of a /proc file; false when there is none. */
static bool proc_value(const char *path, const char *name, char *value, size_t size) {
    char *line = NULL;
    size_t capacity = 0;
    bool found = false;
    FILE *file = fopen(path, "r");
    if (!file) return false;
    while (!found && getline(&line, &capacity, file) >= 0) {
        size_t n = strlen(name);
        if (strncmp(line, name, n) != 0) continue;
        const char *text = line + n + strspn(line + n, " \t");
        if (*text != ':') continue;
        text += 1 + strspn(text + 1, " \t");
        snprintf(value, size, "%.*s", (int)strcspn(text, "\n"), text);
        found = true;
    }
    free(line);
    fclose(file);
    return found;
}

static bool has_word(const char *words, const char *word) {
    size_t n = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += n)
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) return true;
    return false;
}

static bool lists(const json_t *array, const char *word) {
    for (size_t i = 0; i < json_array_size(array); i++)
        if (strcmp(json_string_value(json_array_get(array, i)), word) == 0) return true;
    return false;
}

static json_int_t mib(double bytes) {
    return (json_int_t)(bytes / 0x1p20);
}

/* The most capable set that oneDNN's contains: newer versions know sets that older headers do not name. */
static const char *isa_name(unsigned isa) {
    static const struct {
        unsigned bits;
        const char *name;
    } sets[] = {
        {dnnl_cpu_isa_avx512_core_amx, "AVX-512 + AMX"},
        {dnnl_cpu_isa_avx512_core_bf16, "AVX-512 + bf16"},
        {dnnl_cpu_isa_avx512_core_vnni, "AVX-512 + VNNI"},
        {dnnl_cpu_isa_avx512_core, "AVX-512"},
        {dnnl_cpu_isa_avx2_vnni, "AVX2 + VNNI"},
        {dnnl_cpu_isa_avx2, "AVX2"},
        {dnnl_cpu_isa_avx, "AVX"},
        {dnnl_cpu_isa_sse41, "SSE4.1"},
    };
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++)
        if ((isa & sets[i].bits) == sets[i].bits) return sets[i].name;
    return "portable code";
}

static json_t *machine(void) {
    char cpu[256] = "unknown", flags[8192] = "", os[256] = "unknown", total[64];
    double memory = 0, available = 0;
    if (!proc_value("/proc/cpuinfo", "model name", cpu, sizeof cpu))
        proc_value("/proc/cpuinfo", "Model", cpu, sizeof cpu);
    if (!proc_value("/proc/cpuinfo", "flags", flags, sizeof flags))
        proc_value("/proc/cpuinfo", "Features", flags, sizeof flags);
    json_t *found = json_array();
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
        if (has_word(flags, features[i])) json_array_append_new(found, json_string(features[i]));
    FILE *release = fopen("/etc/os-release", "r");
    if (release) {
        if (fscanf(release, "PRETTY_NAME=\"%255[^\"]", os) != 1) snprintf(os, sizeof os, "unknown");
        fclose(release);
    }
    if (proc_value("/proc/meminfo", "MemTotal", total, sizeof total)) memory = atof(total) * 1024;
    (void)tw_memory_free(&available);
    return json_pack("{s:s, s:s, s:o, s:I, s:I, s:I, s:I}", "system", os, "cpu", cpu, "cpu features", found,
                     "cores", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN), "usable cores",
                     (json_int_t)tw_cores_here(), "memory MiB", mib(memory), "available MiB", mib(available));
}

static json_t *build(void) {
    const char *vectors = "baseline";
#if defined(__AVX512F__)
    vectors = "AVX-512";
#elif defined(__AVX2__)
    vectors = "AVX2";
#elif defined(__aarch64__)
    vectors = "Advanced SIMD";
#endif
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "version", TW_VERSION, "compiler", COMPILER,
                     "type", TW_BUILD_TYPE, "vector code", vectors, "sanitizer", SANITIZER, "MPI",
                     tw_mpi_version() ? tw_mpi_version() : "not in this build", "CUDA", CUDA_BUILD, "NCCL",
                     tw_nccl_version() ? tw_nccl_version() : "not in this build");
}

static json_t *libraries(void) {
    unsigned hdf5[3] = {0};
    int lmdb[3], yaml[3], webp = WebPGetDecoderVersion();
    const dnnl_version_t *dnnl = dnnl_version();
    const char *isa = isa_name(dnnl_get_effective_cpu_isa());
    H5get_libversion(&hdf5[0], &hdf5[1], &hdf5[2]);
    mdb_version(&lmdb[0], &lmdb[1], &lmdb[2]);
    yaml_get_version(&yaml[0], &yaml[1], &yaml[2]);
    json_t *all = json_object();
    json_object_set_new(all, "oneDNN",
                        json_sprintf("%d.%d.%d, uses %s", dnnl->major, dnnl->minor, dnnl->patch, isa));
    json_object_set_new(all, "HDF5", json_sprintf("%u.%u.%u", hdf5[0], hdf5[1], hdf5[2]));
    json_object_set_new(all, "LMDB", json_sprintf("%d.%d.%d", lmdb[0], lmdb[1], lmdb[2]));
    json_object_set_new(all, "libjpeg-turbo", json_string(TW_TURBOJPEG_VERSION));
    json_object_set_new(all, "libspng", json_string(spng_version_string()));
    json_object_set_new(all, "libwebp", json_sprintf("%d.%d.%d", webp >> 16, webp >> 8 & 255, webp & 255));
    json_object_set_new(all, "jansson", json_string(jansson_version_str()));
    json_object_set_new(all, "utf8proc", json_string(utf8proc_version()));
    json_object_set_new(all, "libyaml", json_sprintf("%d.%d.%d", yaml[0], yaml[1], yaml[2]));
    return all;
}

/* What CUDA says of itself and its GPUs; empty without CUDA. */
static json_t *gpus(void) {
    json_t *all = json_object();
#ifdef TW_WITH_CUDA
    char text[4096], *rest = NULL;
    tw_cuda_report(text, sizeof text);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *fact = strstr(line, ": ");
        if (!fact) continue;
        *fact = '\0';
        json_object_set_new(all, line, json_string(fact + 2));
    }
#endif
    return all;
}

/* Each limit of speed or safety, with what to do about it. */
static json_t *warnings(const json_t *host, const json_t *built) {
    json_t *all = json_array();
    const json_t *cpu = json_object_get(host, "cpu features");
    bool vector_build = strcmp(json_string_value(json_object_get(built, "vector code")), "baseline") != 0;
    if (!lists(cpu, "avx2") && !lists(cpu, "asimd"))
        json_array_append_new(all, json_string("the CPU has no AVX2: products run several times slower"));
    if (lists(cpu, "avx2") && !vector_build)
        json_array_append_new(
            all, json_string("built for any x86-64 CPU: configure with -DTW_NATIVE=ON to use AVX2"));
    if (!lists(cpu, "avx512_bf16") && !lists(cpu, "amx_bf16") && !lists(cpu, "bf16"))
        json_array_append_new(all,
                              json_string("the CPU has no bf16 products: precision bf16 saves memory but is "
                                          "slower than f32"));
    if (strcmp(TW_BUILD_TYPE, "Release") != 0 || strcmp(SANITIZER, "none") != 0)
        json_array_append_new(
            all, json_string("not a release build: configure with cmake --preset release for speed"));
    if (lists(cpu, "avx512f") &&
        (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) != dnnl_cpu_isa_avx512_core)
        json_array_append_new(all,
                              json_string("oneDNN does not use the CPU's AVX-512: is DNNL_MAX_CPU_ISA or "
                                          "ONEDNN_MAX_CPU_ISA set?"));
    if (json_integer_value(json_object_get(host, "usable cores")) < 2)
        json_array_append_new(all, json_string("one core: loading images and training share it"));
    if (json_integer_value(json_object_get(host, "available MiB")) < 4096)
        json_array_append_new(all, json_string("less than 4 GiB of memory available: ViT-B-16 needs a small "
                                               "micro_batch and recompute: block"));
    return all;
}

static void print_value(const json_t *value) {
    if (json_is_string(value)) printf("%s", json_string_value(value));
    if (json_is_integer(value)) printf("%lld", (long long)json_integer_value(value));
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++)
        printf("%s%s", i ? " " : "", json_string_value(json_array_get(value, i)));
    putchar('\n');
}

static void print_text(json_t *report) {
    const char *title = NULL, *key = NULL;
    json_t *section = NULL, *value = NULL;
    json_object_foreach(report, title, section) {
        if (!json_is_object(section) || json_object_size(section) == 0) continue;
        printf("%s\n", title);
        json_object_foreach(section, key, value) {
            printf("  %-16s", key);
            print_value(value);
        }
    }
    const json_t *all = json_object_get(report, "warnings");
    for (size_t i = 0; i < json_array_size(all); i++)
        printf("warning: %s\n", json_string_value(json_array_get(all, i)));
    if (json_array_size(all) == 0) puts("nothing found that limits this machine");
}

tw_status tw_command_doctor(int argc, char **argv) {
    bool as_json = false, help = false;
    const tw_option rows[] = {
        {.name = "json",
         .type = TW_OPTION_FLAG,
         .target = &as_json,
         .help = "print one JSON object instead of text"},
    };
    const tw_options options = {.command = "doctor",
                                .summary =
                                    "Prints what this build and this machine can do, and what limits them.",
                                .example = "tuwen doctor --json",
                                .rows = rows,
                                .count = sizeof rows / sizeof rows[0]};
    TRY(tw_options_parse(&options, argc, argv, &help));
    if (help) return TW_OK;
    json_t *built = build(), *host = machine();
    json_t *limits = built && host ? warnings(host, built) : NULL;
    json_t *report = json_pack("{s:o, s:o, s:o, s:o, s:o}", "build", built, "machine", host, "libraries",
                               libraries(), "CUDA", gpus(), "warnings", limits);
    if (!report) return FAIL(TW_ERR_MEMORY, "doctor: no memory for the report");
    if (as_json) {
        json_dumpf(report, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_text(report);
    }
    json_decref(report);
    return TW_OK;
}
