#include "train/report.h"

#include "tw_test.h"

#include <math.h>
#include <stdbool.h>
#include <unistd.h>

static char path[] = "/tmp/tw_test_report.html.XXXXXX";

static char *write_and_read(const tw_report *report) {
    snprintf(path, sizeof path, "/tmp/tw_test_report.html.XXXXXX");
    close(mkstemp(path));
    TW_ASSERT_OK(tw_report_write(path, report));
    FILE *in = fopen(path, "rb");
    fseek(in, 0, SEEK_END);
    size_t size = (size_t)ftell(in);
    rewind(in);
    char *text = malloc(size + 1);
    ck_assert_uint_eq(fread(text, 1, size, in), size);
    text[size] = 0;
    fclose(in);
    unlink(path);
    ck_assert_uint_eq(strlen(text), size);
    return text;
}

static size_t name_length(const char *p) {
    return strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
}

/* Every element closed in order, attributes quoted, no bare & or <: stricter than HTML asks for. */
static void check_well_formed(const char *html) {
    struct {
        const char *name;
        size_t length;
    } stack[64];
    int depth = 0;
    const char *p = strchr(html, '\n');
    for (; *p; p++) {
        if (*p == '&')
            ck_assert_msg(!strncmp(p, "&amp;", 5) || !strncmp(p, "&lt;", 4) || !strncmp(p, "&gt;", 4) ||
                              !strncmp(p, "&quot;", 6) || !strncmp(p, "&#39;", 5),
                          "bare & at: %.40s", p);
        ck_assert_msg(*p != '>' || (depth && !strncmp(stack[depth - 1].name, "style", 5)), "bare > at: %.40s",
                      p);
        if (*p != '<') continue;
        bool closing = p[1] == '/';
        const char *name = p + 1 + closing;
        size_t length = name_length(name);
        ck_assert_msg(length > 0, "bare < at: %.40s", p);
        if (closing) {
            ck_assert_msg(depth > 0 && stack[depth - 1].length == length &&
                              !strncmp(stack[depth - 1].name, name, length) && name[length] == '>',
                          "closes what is not open: %.40s", p);
            depth--;
            p = name + length;
            continue;
        }
        const char *a = name + length;
        while (*a == ' ') {
            a += 1 + strspn(a + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-0123456789");
            ck_assert_msg(a[0] == '=' && a[1] == '"', "attribute without a quoted value: %.40s", a);
            a = strchr(a + 2, '"') + 1;
        }
        bool empty = a[0] == '/';
        ck_assert_msg(a[empty] == '>', "tag does not end: %.60s", p);
        ck_assert_int_lt(depth, 63);
        if (!empty) stack[depth].name = name, stack[depth++].length = length;
        p = a + empty;
    }
    ck_assert_int_eq(depth, 0);
}

static void check_self_contained(const char *html) {
    static const char *const outside[] = {"http:",   "https:",  "//",    "url(",
                                          "@import", "<script", "<link", "<iframe"};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        const char *p = strstr(html, outside[i]);
        ck_assert_msg(p == NULL, "%s in: %.40s", outside[i], p ? p : "");
    }
    for (const char *p = html; (p = strstr(p, "src=\"")); p++)
        ck_assert_msg(!strncmp(p + 5, "data:image/", 11), "%.40s", p);
}

/* No coordinate may be nan or inf: looks at all d, x, y, cx, cy, width attributes at once. */
static void check_numbers(const char *html) {
    for (const char *p = html; (p = strstr(p, "<svg")); p++) {
        const char *end = strstr(p, "</svg>");
        for (const char *q = p; q < end; q++)
            ck_assert_msg(strncmp(q, "nan", 3) && strncmp(q, "inf", 3), "not a number in: %.60s", q - 20);
    }
}

static char *checked(const tw_report *report) {
    char *html = write_and_read(report);
    check_well_formed(html);
    check_self_contained(html);
    check_numbers(html);
    return html;
}

static void assert_has(const char *html, const char *part) {
    ck_assert_msg(strstr(html, part) != NULL, "'%s' is missing", part);
}

static int count(const char *html, const char *part) {
    int n = 0;
    for (const char *p = html; (p = strstr(p, part)); p++) n++;
    return n;
}

static tw_report_validation validation(int64_t step, double r1) {
    tw_report_recall r = {r1, r1 + 20, r1 + 30, r1 + 50.0 / 3};
    return (tw_report_validation){.step = step, .t2i = r, .i2t = r, .n_text = 500, .n_image = 500};
}

START_TEST(full_report) {
    enum { N = 1234 };
    static tw_report_point points[N];
    for (int i = 0; i < N; i++)
        points[i] = (tw_report_point){
            .step = i + 1, .loss = 5 - 0.003 * i, .lr = 1e-4, .logit_scale = 2.66, .grad_norm = 1};
    tw_report_validation v[] = {validation(0, 0.25), validation(600, 40.125), validation(1234, 61.5)};
    static const unsigned char image[] = {0xFF, 0xD8, 0xFF, 0xE0};
    tw_report_hit hits[] = {{image, 4, "image/jpeg", 0.5, false},
                            {image, 4, "image/png", 0.25, true},
                            {NULL, 0, NULL, NAN, false},
                            {image, 4, "text/html\"><b", 0, false}};
    tw_report_query queries[] = {
        {"左上角有一个红色的大三角形", hits, 4, 2}, {"b", hits, 1, 17}, {"c", hits, 1, 0}};
    tw_report_row rows[] = {{"batch_size", "128"}, {"precision", "bf16"}};
    tw_report report = {.title = "run",
                        .subtitle = "tiny on shapes",
                        .points = points,
                        .n_points = N,
                        .validations = v,
                        .n_validations = 3,
                        .config = rows,
                        .n_config = 2,
                        .queries = queries,
                        .n_queries = 3,
                        .global_batch = 128,
                        .best_step = 1234,
                        .parameters = 1300000,
                        .train_seconds = 141.2,
                        .pairs_per_s = 850};
    char *html = checked(&report);
    assert_has(html, "左上角有一个红色的大三角形");
    assert_has(html, "<b>61.5%</b><span>before 0.25% · chance 0.20%</span>");
    assert_has(html, "chance, ln 128 = 4.85");
    assert_has(html, "2 min 21 s");
    assert_has(html, "<b>1.3M</b><span>batch 128</span>");
    assert_has(html, "data:image/jpeg;base64,/9j/4A==");
    assert_has(html, "<span class=\"chip\">rank 2</span>");
    assert_has(html, "right one: rank 17");
    assert_has(html, "right one not found");
    assert_has(html, "<dt>batch_size</dt><dd>128</dd>");
    ck_assert_int_eq(count(html, "<svg"), 6);
    ck_assert_int_eq(count(html, "class=\"hit right\""), 1);
    ck_assert_int_eq(count(html, "✓"), 1);
    ck_assert_int_eq(count(html, "class=\"miss\""), 2);
    ck_assert_int_eq(count(html, "class=\"box"), 0);
    free(html);
}
END_TEST

START_TEST(escapes_everything_from_outside) {
    const char *evil = "<b a=\"1\" c='2'>&\x01\xFF<\x7F";
    const char *safe = "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\xEF\xBF\xBD\xEF\xBF\xBD&lt;\xEF\xBF\xBD";
    tw_report_hit hit = {evil, 4, evil, 1, true};
    tw_report_query query = {evil, &hit, 1, 1};
    tw_report_row row = {evil, evil};
    tw_report report = {
        .title = evil, .subtitle = evil, .config = &row, .n_config = 1, .queries = &query, .n_queries = 1};
    char *html = checked(&report);
    ck_assert_int_eq(count(html, safe), 6); /* title twice */
    ck_assert(strstr(html, "<b a") == NULL);
    free(html);
}
END_TEST

START_TEST(empty_and_null) {
    tw_report report = {.best_step = -1, .train_seconds = NAN, .pairs_per_s = NAN};
    char *html = checked(&report);
    assert_has(html, "never validated");
    ck_assert_int_eq(count(html, "<svg"), 0);
    ck_assert_int_eq(count(html, "no values were recorded"), 6);
    free(html);
}
END_TEST

START_TEST(not_a_number_leaves_gaps) {
    tw_report_point points[] = {
        {.step = 1, .loss = 4, .lr = NAN, .logit_scale = 1e308, .grad_norm = INFINITY},
        {.step = 2, .loss = NAN, .lr = NAN, .logit_scale = -1e308, .grad_norm = 0},
        {.step = 3, .loss = 3, .lr = NAN, .logit_scale = 2.5, .grad_norm = 0},
        {.step = 4, .loss = 2, .lr = NAN, .logit_scale = 2.5, .grad_norm = -INFINITY}};
    tw_report_validation v[] = {validation(0, NAN), validation(4, NAN)};
    v[1].t2i.r5 = 12;
    tw_report report = {
        .points = points, .n_points = 4, .validations = v, .n_validations = 2, .global_batch = 8};
    char *html = checked(&report);
    ck_assert_int_eq(count(html, "no values were recorded"), 2); /* the learning rate, image to text */
    assert_has(html, "\nsmoothed: –");
    free(html);
    report.n_points = 1; /* one point: an axis of no width */
    free(checked(&report));
}
END_TEST

START_TEST(warns_of_a_worse_model_and_of_losses) {
    tw_report_validation v[] = {validation(0, 41), validation(10, 45), validation(20, 40)};
    tw_report report = {
        .validations = v, .n_validations = 3, .best_step = 10, .skipped_steps = 1, .bad_records = 12};
    char *html = checked(&report);
    assert_has(html, "This run made the model worse");
    assert_has(html, "the best checkpoint is better");
    assert_has(html, "1 step skipped");
    assert_has(html, "12 bad records left out");
    assert_has(html, ">best</th><td>45.0</td>");
    free(html);
    v[2] = validation(20, 41); /* as good as before is not worse */
    report.skipped_steps = report.bad_records = 0;
    html = checked(&report);
    ck_assert_int_eq(count(html, "class=\"box"), 0);
    free(html);
    report.validations = &v[1], report.n_validations = 2; /* not measured before the first step */
    html = checked(&report);
    ck_assert_int_eq(count(html, "class=\"box"), 0);
    ck_assert(strstr(html, ">before</th>") == NULL);
    free(html);
}
END_TEST

/* Five captions an image: a random text is right with 5 in 5000. */
START_TEST(chance_knows_several_captions) {
    tw_report_validation v = validation(7, 50);
    v.n_text = 5000, v.n_image = 1000;
    tw_report report = {.validations = &v, .n_validations = 1};
    char *html = checked(&report);
    /* 1 - (1 - 5/5000)(1 - 5/4999)... : R@5 0.4992 %, R@10 0.9960 % */
    assert_has(html, ">chance</th><td>0.10</td><td>0.50</td><td>1.0</td><td>0.53</td>"
                     "<td>0.10</td><td>0.50</td><td>1.0</td><td>0.53</td>");
    free(html);
}
END_TEST

START_TEST(unwritable_path_is_an_error) {
    tw_report report = {0};
    TW_ASSERT_FAILS(tw_report_write("/nonexistent/folder/report.html", &report), TW_ERR_IO,
                    "/nonexistent/folder");
}
END_TEST

TW_TEST_MAIN("report", full_report, escapes_everything_from_outside, empty_and_null, not_a_number_leaves_gaps,
             warns_of_a_worse_model_and_of_losses, chance_knows_several_captions, unwritable_path_is_an_error)
