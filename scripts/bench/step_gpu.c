/* Times whole training steps on a GPU as `tuwen train` makes them: nothing waited for, inputs on the copy
 * queue, what repeats captured. Prints one JSON line; scripts/bench/step_gpu.py runs it beside PyTorch.
 *
 *     bench_step_gpu [name=value ...]
 *       model=ViT-B-16  batch=128 (0: the largest that fits)  steps=20  precision=bf16|f32|tf32
 *       recompute=none|light|block  graphs=1  text_length=0 (the whole context)  profile=0  micro=0 (all at
 * once)
 *
 * profile=1 adds milliseconds a step of every operation, from a second run without graphs. On the CPU too
 * (TW_DEVICE=cpu, the default of tests/test_device.h), to see that it runs. */
#include "autograd/op_timer.h"
#include "autograd/random.h"
#include "optim/adamw.h"
#include "tests/test_device.h"
#include "train/device_open.h"
#include "train/memory_need.h"
#include "train/model_file.h"
#include "train/step.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct request {
    const char *model, *precision, *recompute;
    int64_t batch, steps, graphs, text_length, profile, micro;
} request;

typedef struct bench {
    request r;
    tw_device *device;
    tw_comm *comm;
    tw_dual_encoder *model;
    tw_towers *towers;
    tw_stepper *stepper;
    tw_adamw *adamw;
    tw_step_results *results;
    tw_op_timer *timer;
    uint8_t *pixels; /* pinned, as the next two */
    int32_t *ids, *lengths;
    size_t room; /* of the device at first */
    int64_t step, batch;
    double loss;
    tw_event **marks; /* (steps + 1) */
} bench;

static tw_status parse(int argc, char **argv, request *r) {
    *r = (request){.model = "ViT-B-16",
                   .precision = "bf16",
                   .recompute = "none",
                   .batch = 128,
                   .steps = 20,
                   .graphs = 1};
    const struct {
        const char *name;
        const char **text;
        int64_t *number;
    } rows[] = {{"model=", &r->model, NULL},         {"precision=", &r->precision, NULL},
                {"recompute=", &r->recompute, NULL}, {"batch=", NULL, &r->batch},
                {"steps=", NULL, &r->steps},         {"graphs=", NULL, &r->graphs},
                {"profile=", NULL, &r->profile},     {"text_length=", NULL, &r->text_length},
                {"micro=", NULL, &r->micro}};
    for (int a = 1; a < argc; a++) {
        size_t i = 0, n = sizeof rows / sizeof *rows;
        while (i < n && strncmp(argv[a], rows[i].name, strlen(rows[i].name)) != 0) i++;
        if (i == n) return FAIL(TW_ERR_CONFIG, "%s: no such setting", argv[a]);
        const char *value = argv[a] + strlen(rows[i].name);
        if (rows[i].text) *rows[i].text = value;
        if (rows[i].number) *rows[i].number = atoll(value);
    }
    return r->steps < 1 || r->batch < 0 ? FAIL(TW_ERR_CONFIG, "steps must be 1 or more, batch 0 or more")
                                        : TW_OK;
}

static bool is(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}

static tw_status open_model(bench *b) {
    static const char *const no_decay[] = {"bn", "ln", "bias", "logit_scale"};
    const tw_adamw_config adamw = {0.9f, 0.98f, 1e-6f, 0.2f, no_decay, 4, 1.0f, 4.6052f};
    tw_model_config config;
    TRY(tw_model_config_load(b->r.model, &config));
    if (config.text.vocabulary == 0) config.text.vocabulary = 21128;
    config.text.hidden_dropout = config.text.attention_dropout = 0.1f;
    TRY(tw_test_device(0, &b->device));
    b->room = b->device->room(b->device);
    tw_device_allow_tf32(b->device, !is(b->r.precision, "f32"));
    TRY(tw_comm_self(b->device, &b->comm));
    TRY(tw_dual_encoder_create(&config, &b->model));
    TRY(tw_dual_encoder_allocate(b->model, b->device, is(b->r.precision, "bf16") ? TW_BF16 : TW_F32, true));
    TRY(tw_params_initialise(b->model->params, 1));
    return tw_adamw_create(b->model->params, b->device, &adamw, &b->adamw);
}

static tw_recompute recompute_of(const bench *b) {
    if (is(b->r.recompute, "light")) return TW_RECOMPUTE_LIGHT;
    return is(b->r.recompute, "block") ? TW_RECOMPUTE_BLOCK : TW_RECOMPUTE_NONE;
}

/* Bytes of a step of `batch` pairs: activations, inputs and loss. */
static tw_status bytes_of(const bench *b, int64_t batch, double *out) {
    size_t activations;
    double side = b->model->config.image.resolution, embed = b->model->config.embed;
    TRY(tw_memory_of_step(b->model, b->device, recompute_of(b), batch, &activations));
    *out = (double)activations + (double)batch * (2 * side * side * 3 + 8 * embed * 4);
    return TW_OK;
}

/* The largest multiple of 32 up to 4096 whose plan fits beside the libraries' workspaces. Halved, as a plan
 * of each batch that is tried is made and kept by the libraries. */
static tw_status choose_batch(bench *b) {
    enum { UNIT = 32, MOST = 4096 };
    b->batch = b->r.batch;
    if (b->batch) return TW_OK;
    double left = (double)b->device->room(b->device) * 0.95 - 600e6, bytes;
    int64_t good = 0, bad = MOST / UNIT + 1;
    while (bad - good > 1) {
        int64_t at = good + (bad - good) / 2;
        TRY(bytes_of(b, at * UNIT, &bytes));
        if (bytes < left)
            good = at;
        else
            bad = at;
    }
    b->batch = good * UNIT;
    return b->batch ? TW_OK : FAIL(TW_ERR_MEMORY, "not even %d pairs fit", UNIT);
}

static tw_status open_step(bench *b) {
    TRY(choose_batch(b));
    TRY(tw_towers_create(b->model, b->device, recompute_of(b), TW_U8, &b->towers));
    TRY(tw_stepper_create(b->model, b->towers, b->device, b->comm, NULL, b->r.micro, &b->stepper));
    TRY(tw_step_results_create(b->device, 1, &b->results));
    tw_stepper_watch(b->stepper, b->results);
    return tw_stepper_capture(b->stepper, b->r.graphs != 0);
}

/* Bytes that have nothing in common, in rounded-up whole blocks of 16. */
static void fill_pixels(uint8_t *pixels, int64_t bytes) {
    enum { CHUNK = 1 << 16 };
    const tw_draw draw = {.seed = 1, .purpose = TW_DRAW_TEST};
    int64_t blocks = (bytes + 15) / 16;
#pragma omp parallel for
    for (int64_t at = 0; at < blocks; at += CHUNK) {
        int64_t n = blocks - at < CHUNK ? blocks - at : CHUNK;
        tw_random_words(&draw, (uint32_t)at, n, (uint32_t *)(void *)(pixels + 16 * at));
    }
}

static tw_status make_data(bench *b) {
    const tw_model_config *c = &b->model->config;
    int64_t side = c->image.resolution, bytes = b->batch * side * side * 3, tokens = b->batch * c->context;
    int32_t length = b->r.text_length ? (int32_t)b->r.text_length : (int32_t)c->context;
    tw_device *d = b->device;
    TRY(d->pinned_alloc(d, (size_t)bytes + 15, (void **)&b->pixels));
    TRY(d->pinned_alloc(d, (size_t)tokens * sizeof *b->ids, (void **)&b->ids));
    TRY(d->pinned_alloc(d, (size_t)b->batch * sizeof *b->lengths, (void **)&b->lengths));
    const tw_draw draw = {.seed = 2, .purpose = TW_DRAW_TEST};
    fill_pixels(b->pixels, bytes);
    for (int64_t i = 0; i < tokens; i++) {
        int64_t t = i % c->context;
        uint64_t words = (uint64_t)c->text.vocabulary - 1;
        b->ids[i] = t < length ? 1 + (int32_t)tw_random_below(&draw, (uint32_t)i, words) : 0;
    }
    for (int64_t i = 0; i < b->batch; i++) b->lengths[i] = length;
    return TW_OK;
}

static tw_status queue_adamw(void *context) {
    const bench *b = context;
    return tw_adamw_queue(b->adamw, tw_stepper_record(b->stepper));
}

static tw_status take(bench *b, bool all) {
    for (;;) {
        tw_step_result r;
        tw_gradient_report report;
        bool taken;
        TRY(tw_step_results_take(b->results, all, &r, &taken));
        if (!taken) return TW_OK;
        TRY(tw_adamw_collect(b->adamw, &r.found, &report));
        if (report.offender) return FAIL(TW_ERR_NUMERIC, "the gradient of %s is not finite", report.offender);
        b->loss = r.loss.loss;
    }
}

static tw_status one_step(bench *b) {
    const tw_samples samples = {b->batch, b->pixels, b->ids, b->lengths};
    int64_t size;
    TRY(tw_stepper_wait_inputs(b->stepper));
    tw_stepper_set_rate(b->stepper, 1e-5);
    TRY(tw_stepper_run(b->stepper, &samples, 1, b->step, NULL, &size));
    TRY(tw_graphs_run(tw_stepper_graphs(b->stepper), 0, TW_GRAPH_OPTIMIZER, queue_adamw, b));
    TRY(tw_step_results_end(b->results, b->step++, size, tw_stepper_tallies(b->stepper),
                            tw_adamw_found(b->adamw)));
    return take(b, false);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median milliseconds a step; the others, sorted, in ms. */
static tw_status time_steps(bench *b, int64_t steps, double *ms) {
    tw_device *d = b->device;
    for (int i = 0; i < 3; i++) TRY(one_step(b)); /* plans and algorithms; captured; launched */
    TRY(d->stamp(d, TW_QUEUE_COMPUTE, &b->marks[0]));
    for (int64_t i = 0; i < steps; i++) {
        TRY(one_step(b));
        TRY(d->stamp(d, TW_QUEUE_COMPUTE, &b->marks[i + 1]));
    }
    TRY(take(b, true));
    TRY(d->sync(d, TW_QUEUE_COMPUTE));
    for (int64_t i = 0; i < steps; i++) {
        TRY(d->seconds(d, b->marks[i], b->marks[i + 1], &ms[i]));
        ms[i] *= 1e3;
    }
    qsort(ms, (size_t)steps, sizeof *ms, compare);
    return TW_OK;
}

/* Every operation's milliseconds a step, and what lies between them. */
static tw_status profile(bench *b, json_t *out) {
    enum { STEPS = 5 };
    double ms[STEPS], sum = 0, all = 0;
    TRY(tw_stepper_capture(b->stepper, false));
    TRY(tw_op_timer_create(b->device, &b->timer));
    TRY(time_steps(b, STEPS, ms));
    TRY(tw_op_timer_collect(b->timer));
    json_t *parts = json_object();
    for (int op = 0; op < TW_OP_COUNT; op++)
        for (int backward = 0; backward < 2; backward++) {
            tw_op_time t = tw_op_timer_total(b->timer, (tw_op)op, backward);
            if (t.calls == 0) continue;
            double mean = 1e3 * t.seconds / (STEPS + 3); /* the first three are timed as well */
            sum += mean;
            json_object_set_new(
                parts, backward ? tw_op_table[op].backward_name : tw_op_table[op].name,
                json_pack("{s:I,s:f}", "calls", (json_int_t)(t.calls / (STEPS + 3)), "ms", mean));
        }
    for (int i = 0; i < STEPS; i++) all += ms[i] / STEPS;
    json_object_set_new(out, "profiled_step_ms", json_real(all));
    json_object_set_new(out, "between_ms", json_real(all - sum));
    json_object_set_new(out, "operations", parts);
    return TW_OK;
}

/* What this program has asked the device for, which is less than what it took. */
static double allocated(const bench *b) {
    return (double)(tw_params_bytes(b->model->params) + tw_adamw_bytes(b->adamw) +
                    tw_towers_bytes(b->towers) + tw_stepper_bytes(b->stepper));
}

static json_t *figures(const bench *b, const double *ms) {
    double median = ms[b->r.steps / 2], used = (double)b->room - (double)b->device->room(b->device);
    const tw_dual_encoder *m = b->model;
    bool first_token_only = !m->text.whole_last_block;
    return json_pack(
        "{s:s,s:s,s:I,s:I,s:I,s:b,s:b,s:s,s:s,s:s,s:b,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:I}", "program", "tuwen",
        "model", b->r.model, "batch", (json_int_t)b->batch, "context", (json_int_t)m->config.context,
        "text_length", (json_int_t)(b->r.text_length ? b->r.text_length : m->config.context), "packed",
        !m->padded_text, "first_token_only", first_token_only, "precision", b->r.precision, "recompute",
        b->r.recompute, "device", b->device->name, "graphs", b->r.graphs != 0, "step_ms", median,
        "step_ms_min", ms[0], "step_ms_max", ms[b->r.steps - 1], "pairs_per_s",
        1e3 * (double)b->batch / median, "loss", b->loss, "taken_mb", used / 1e6, "allocated_mb",
        allocated(b) / 1e6, "graph_launches", (json_int_t)tw_graphs_launched(tw_stepper_graphs(b->stepper)));
}

/* What the device has had to do in slower ways, of graphs and of products. */
static void add_refusals(const bench *b, json_t *out) {
    char text[2048];
    size_t at = 0;
    for (const char *slow; at < sizeof text && (slow = tw_device_trouble(b->device));)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", at ? "; " : "", slow);
    if (at) json_object_set_new(out, "refused", json_string(text));
}

/* Which way each linear operation was measured to run faster; none on the CPU. */
static tw_status add_choices(const bench *b, json_t *out) {
    char text[256];
    json_t *list = json_array();
    bool whole = list != NULL;
    for (int i = 0; whole && tw_device_choice(b->device, i, text, sizeof text); i++)
        whole = json_array_append_new(list, json_string(text)) == 0;
    whole = json_object_set_new(out, "choices", list) == 0 && whole;
    return whole ? TW_OK : FAIL(TW_ERR_MEMORY, "out of memory");
}

static tw_status measure(bench *b) {
    b->marks = calloc((size_t)b->r.steps + 6, sizeof *b->marks);
    double *ms = calloc((size_t)b->r.steps, sizeof *ms);
    tw_status status = b->marks && ms ? time_steps(b, b->r.steps, ms) : FAIL(TW_ERR_MEMORY, "out of memory");
    json_t *o = status == TW_OK ? figures(b, ms) : NULL;
    if (status == TW_OK && !o) status = FAIL(TW_ERR_MEMORY, "out of memory");
    if (status == TW_OK) add_refusals(b, o);
    const char *trouble = status == TW_OK ? tw_graphs_trouble(tw_stepper_graphs(b->stepper)) : NULL;
    if (trouble) json_object_set_new(o, "not_captured", json_string(trouble));
    if (status == TW_OK && b->r.profile) status = profile(b, o);
    if (status == TW_OK) status = add_choices(b, o);
    if (status == TW_OK) json_dumpf(o, stdout, JSON_REAL_PRECISION(7));
    if (status == TW_OK) printf("\n");
    json_decref(o);
    free(ms);
    return status;
}

static void close_bench(bench *b) {
    tw_device *d = b->device;
    for (int64_t i = 0; d && b->marks && i < b->r.steps + 6; i++) d->event_release(d, b->marks[i]);
    tw_op_timer_free(b->timer);
    tw_step_results_free(b->results);
    tw_adamw_free(b->adamw);
    tw_stepper_free(b->stepper);
    tw_towers_free(b->towers);
    tw_dual_encoder_free(b->model);
    tw_comm_free(b->comm);
    if (d) d->pinned_release(d, b->pixels);
    if (d) d->pinned_release(d, b->ids);
    if (d) d->pinned_release(d, b->lengths);
    tw_device_free(d);
    free(b->marks);
}

int main(int argc, char **argv) {
    bench b = {0};
    tw_status status = parse(argc, argv, &b.r);
    if (status == TW_OK) status = open_model(&b);
    if (status == TW_OK) status = open_step(&b);
    if (status == TW_OK) status = make_data(&b);
    if (status == TW_OK) status = measure(&b);
    if (status != TW_OK) fprintf(stderr, "%s\n", tw_last_error());
    close_bench(&b);
    return status == TW_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
