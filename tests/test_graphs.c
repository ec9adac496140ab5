/* Work that repeats runs once each time it is asked for, whatever the device makes of its capture. */
#include "train/graphs.h"
#include "tw_test.h"

static bool captures, refuses;
static int launches;

static tw_status begin(tw_device *d) {
    (void)d;
    return refuses ? FAIL(TW_ERR_UNSUPPORTED, "no captures today") : TW_OK;
}

static tw_status end(tw_device *d, tw_graph **out) {
    static int something;
    (void)d;
    *out = captures ? (tw_graph *)&something : NULL;
    return TW_OK;
}

static tw_status launch(tw_device *d, tw_graph *g) {
    (void)d, (void)g;
    launches++;
    return TW_OK;
}

static void release(tw_device *d, tw_graph *g) {
    (void)d, (void)g;
}

static void range(tw_device *d, const char *name) {
    (void)d, (void)name;
}

static tw_status count(void *context) {
    ++*(int *)context;
    return TW_OK;
}

/* How often the body of a plan ran that was asked for four times, and on a device that really captures,
 * launched. */
static int runs_of_four(bool on) {
    tw_device device = {.kind = (tw_device_kind)(TW_CPU + 1),
                        .capture_begin = begin,
                        .capture_end = end,
                        .launch = launch,
                        .graph_release = release,
                        .range = range};
    tw_graphs *graphs;
    int runs = 0;
    launches = 0;
    TW_ASSERT_OK(tw_graphs_create(&device, on, &graphs));
    for (int i = 0; i < 4; i++) TW_ASSERT_OK(tw_graphs_run(graphs, 7, TW_GRAPH_BACKWARD, count, &runs));
    const char *trouble = tw_graphs_trouble(graphs);
    ck_assert_int_eq(trouble != NULL, on && !captures);
    ck_assert_ptr_null(tw_graphs_trouble(graphs)); /* it is told once */
    tw_graphs_free(graphs);
    return runs;
}

START_TEST(captured_work_is_launched) {
    captures = true, refuses = false;
    ck_assert_int_eq(runs_of_four(true), 2); /* as it is, and into the graph */
    ck_assert_int_eq(launches, 3);
}
END_TEST

START_TEST(a_device_that_runs_at_once_runs_once) {
    captures = refuses = false;
    ck_assert_int_eq(runs_of_four(true), 4);
    ck_assert_int_eq(launches, 0);
}
END_TEST

START_TEST(what_cannot_be_captured_runs_as_it_is) {
    captures = false, refuses = true;
    ck_assert_int_eq(runs_of_four(true), 4);
    ck_assert_int_eq(launches, 0);
    ck_assert_int_eq(runs_of_four(false), 4);
}
END_TEST

TW_TEST_MAIN("graphs", captured_work_is_launched, a_device_that_runs_at_once_runs_once,
             what_cannot_be_captured_runs_as_it_is)
