#include "train/report.h"

#include "data/atomic_file.h"
#include "data/base64.h"
#include "train/report_html.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the numbers are compared with ---- */

/* The recall at k of a random order in percent: `right` of `n` candidates are right, k are looked at. */
static double chance_at(double k, double n, double right) {
    if (n <= 0) return NAN;
    double miss = 1; /* hypergeometric: the first k draws are all wrong */
    for (int i = 0; i < (int)k; i++) miss *= fmax(0, n - right - i) / fmax(1, n - i);
    return 100 * (1 - miss);
}

static tw_report_recall chance(double n, double right) {
    tw_report_recall r = {
        .r1 = chance_at(1, n, right), .r5 = chance_at(5, n, right), .r10 = chance_at(10, n, right)};
    r.mean = (r.r1 + r.r5 + r.r10) / 3;
    return r;
}

static tw_report_recall chance_t2i(const tw_report_validation *v) {
    return chance((double)v->n_image, 1);
}

static tw_report_recall chance_i2t(const tw_report_validation *v) {
    double captions = v->n_image > 0 ? round((double)v->n_text / (double)v->n_image) : 1;
    return chance((double)v->n_text, fmax(1, captions));
}

/* The mean recall of both directions, the measure of "worse". */
static double overall(const tw_report_validation *v) {
    return (v->t2i.mean + v->i2t.mean) / 2;
}

typedef struct outcome {
    const tw_report_validation *before, *after, *best; /* NULL where there is none */
} outcome;

static outcome find_outcome(const tw_report *r) {
    outcome o = {0};
    if (r->n_validations == 0) return o;
    const tw_report_validation *first = &r->validations[0], *last = &r->validations[r->n_validations - 1];
    if (first->step == 0) o.before = first;
    if (last->step > 0) o.after = last;
    for (size_t i = 0; i < r->n_validations; i++)
        if (r->validations[i].step == r->best_step && r->best_step > 0) o.best = &r->validations[i];
    return o;
}

/* ---- head: title, warnings, tiles, recall table ---- */

static void write_percent(FILE *out, double value) {
    if (isfinite(value))
        fprintf(out, value >= 99.95 ? "%.0f%%" : value < 0.95 ? "%.2f%%" : "%.1f%%", value);
    else
        fputs("–", out);
}

static void write_duration(FILE *out, double seconds) {
    if (!isfinite(seconds) || seconds < 0)
        fputs("–", out);
    else if (seconds < 100)
        fprintf(out, "%.1f s", seconds);
    else if (seconds < 3600)
        fprintf(out, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
    else
        fprintf(out, "%.0f h %02d min", floor(seconds / 3600), (int)fmod(seconds / 60, 60));
}

static void write_recall_tile(FILE *out, const char *name, double before, double after, double by_chance) {
    fprintf(out, "<div class=\"card tile\"><span>%s</span><b>", name);
    write_percent(out, after);
    fputs("</b><span>before ", out);
    write_percent(out, before);
    fputs(" · chance ", out);
    write_percent(out, by_chance);
    fputs("</span></div>\n", out);
}

static void write_tiles(FILE *out, const tw_report *r, const outcome *o) {
    tw_report_recall none = {NAN, NAN, NAN, NAN};
    tw_report_recall b_t2i = o->before ? o->before->t2i : none, b_i2t = o->before ? o->before->i2t : none;
    tw_report_recall a_t2i = o->after ? o->after->t2i : none, a_i2t = o->after ? o->after->i2t : none;
    const tw_report_validation *pool = o->after ? o->after : o->before;
    tw_report_recall c_t2i = pool ? chance_t2i(pool) : none, c_i2t = pool ? chance_i2t(pool) : none;
    fputs("<div class=\"tiles\">\n", out);
    write_recall_tile(out, "text → image R@1", b_t2i.r1, a_t2i.r1, c_t2i.r1);
    write_recall_tile(out, "image → text R@1", b_i2t.r1, a_i2t.r1, c_i2t.r1);
    write_recall_tile(out, "mean recall, both ways", (b_t2i.mean + b_i2t.mean) / 2,
                      (a_t2i.mean + a_i2t.mean) / 2, (c_t2i.mean + c_i2t.mean) / 2);
    fputs("<div class=\"card tile\"><span>training time</span><b>", out);
    write_duration(out, r->train_seconds);
    fputs("</b><span>", out);
    tw_html_number(out, r->pairs_per_s);
    fputs(" pairs/s</span></div>\n<div class=\"card tile\"><span>parameters</span><b>", out);
    tw_html_number(out, r->parameters > 0 ? (double)r->parameters : NAN);
    fprintf(out, "</b><span>%s %.0f</span></div>\n", r->global_batch > 0 ? "batch" : "batch unknown, steps",
            r->global_batch > 0 ? (double)r->global_batch
            : r->n_points       ? (double)r->points[r->n_points - 1].step
                                : 0.0);
    fputs("<div class=\"card tile\"><span>best step</span><b>", out);
    tw_html_number(out, r->best_step >= 0 ? (double)r->best_step : NAN);
    fprintf(out, "</b><span>of %" PRId64 "</span></div>\n</div>\n",
            r->n_points ? r->points[r->n_points - 1].step : 0);
}

static void write_boxes(FILE *out, const tw_report *r, const outcome *o) {
    if (o->before && o->after && overall(o->after) < overall(o->before)) {
        fputs("<div class=\"box bad\" role=\"alert\"><b>This run made the model worse.</b> Mean recall fell "
              "from ",
              out);
        write_percent(out, overall(o->before));
        fputs(" before the first step to ", out);
        write_percent(out, overall(o->after));
        fputs(". Try a lower learning rate, a larger batch or fewer epochs; ", out);
        fputs(o->best && overall(o->best) > overall(o->before)
                  ? "the best checkpoint is better than the start."
                  : "no checkpoint is known to beat the start.",
              out);
        fputs("</div>\n", out);
    }
    if (r->skipped_steps > 0)
        fprintf(out,
                "<div class=\"box warn\"><b>%" PRId64
                " step%s skipped</b>: the gradient was not finite.</div>\n",
                r->skipped_steps, r->skipped_steps == 1 ? "" : "s");
    if (r->bad_records > 0)
        fprintf(out,
                "<div class=\"box warn\"><b>%" PRId64
                " bad record%s left out</b>; the log names each.</div>\n",
                r->bad_records, r->bad_records == 1 ? "" : "s");
}

static void write_recall_row(FILE *out, const char *style, const char *name, const tw_report_recall *t2i,
                             const tw_report_recall *i2t) {
    const double cells[] = {t2i->r1, t2i->r5, t2i->r10, t2i->mean, i2t->r1, i2t->r5, i2t->r10, i2t->mean};
    fprintf(out, "<tr class=\"%s\"><th scope=\"row\">%s</th>", style, name);
    for (size_t i = 0; i < 8; i++) {
        fputs("<td>", out);
        if (isfinite(cells[i]))
            fprintf(out, cells[i] < 0.95 ? "%.2f" : "%.1f", cells[i]);
        else
            fputs("–", out);
        fputs("</td>", out);
    }
    fputs("</tr>\n", out);
}

static void write_recall_table(FILE *out, const outcome *o) {
    const tw_report_validation *pool = o->after ? o->after : o->before;
    if (!pool) {
        fputs("<p class=\"card none\">the run was never validated</p>\n", out);
        return;
    }
    fputs("<h2>Retrieval</h2>\n<div class=\"card scroll\"><table><thead><tr><th rowspan=\"2\">recall, %</th>"
          "<th colspan=\"4\">text → image</th><th colspan=\"4\">image → text</th></tr><tr>",
          out);
    for (int i = 0; i < 2; i++)
        fputs("<th class=\"sub1\">R@1</th><th>R@5</th><th>R@10</th><th>mean</th>", out);
    fputs("</tr></thead><tbody>\n", out);
    tw_report_recall t2i = chance_t2i(pool), i2t = chance_i2t(pool);
    write_recall_row(out, "dim", "chance", &t2i, &i2t);
    if (o->before) write_recall_row(out, "", "before", &o->before->t2i, &o->before->i2t);
    if (o->best && o->best != o->after) write_recall_row(out, "", "best", &o->best->t2i, &o->best->i2t);
    if (o->after) write_recall_row(out, "main", "after", &o->after->t2i, &o->after->i2t);
    fprintf(out,
            "</tbody></table></div>\n<p class=\"note\">over the whole validation pool: %" PRId64
            " texts, %" PRId64 " images</p>\n",
            pool->n_text, pool->n_image);
}

/* ---- curves ---- */

/* Averages the points into at most TW_SVG_POINTS buckets; a bucket without a finite value is NaN. Returns the
 * number of buckets. */
static size_t bucket(const tw_report *r, size_t offset, double *x, double *y) {
    size_t n = r->n_points < TW_SVG_POINTS ? r->n_points : TW_SVG_POINTS;
    for (size_t b = 0; b < n; b++) {
        size_t begin = b * r->n_points / n, end = (b + 1) * r->n_points / n, count = 0;
        double sum = 0;
        for (size_t i = begin; i < end; i++) {
            double value;
            memcpy(&value, (const char *)&r->points[i] + offset, sizeof value);
            if (isfinite(value)) sum += value, count++;
        }
        x[b] = (double)r->points[end - 1].step;
        y[b] = count ? sum / (double)count : NAN;
    }
    return n;
}

/* Mean over a window of about a fifteenth of the curve, centred, so that it neither lags nor starts late. */
static void smooth(const double *y, size_t n, double *out) {
    size_t half = n / 30;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        size_t count = 0, reach = i < half ? i : n - 1 - i < half ? n - 1 - i : half;
        for (size_t k = i - reach; k <= i + reach; k++)
            if (isfinite(y[k])) sum += y[k], count++;
        out[i] = count ? sum / (double)count : NAN;
    }
}

static void write_point_chart(FILE *out, const tw_report *r, const char *title, size_t offset, int smoothed,
                              double reference, const char *reference_name) {
    double x[TW_SVG_POINTS], y[TW_SVG_POINTS], mean[TW_SVG_POINTS];
    size_t n = bucket(r, offset, x, y);
    tw_svg_chart chart = {.title = title,
                          .x = x,
                          .n = n,
                          .reference = reference,
                          .unit = "",
                          .reference_name = reference_name,
                          .from_zero = 1};
    if (smoothed) {
        smooth(y, n, mean);
        chart.series[chart.n_series++] = (tw_svg_series){.y = y, .faint = 1};
    }
    chart.series[chart.n_series++] =
        (tw_svg_series){.name = smoothed ? "smoothed" : "value", .y = smoothed ? mean : y};
    if (offset == offsetof(tw_report_point, logit_scale)) chart.from_zero = 0;
    tw_svg_chart_write(out, &chart);
}

static void write_recall_chart(FILE *out, const tw_report *r, const char *title, int i2t) {
    double x[TW_SVG_POINTS], y[3][TW_SVG_POINTS];
    size_t n = r->n_validations < TW_SVG_POINTS ? r->n_validations : TW_SVG_POINTS;
    for (size_t i = 0; i < n; i++) {
        /* Of more than fit, evenly chosen ones, the first and the last among them. */
        const tw_report_validation *v = &r->validations[n > 1 ? i * (r->n_validations - 1) / (n - 1) : 0];
        const tw_report_recall *recall = i2t ? &v->i2t : &v->t2i;
        x[i] = (double)v->step, y[0][i] = recall->r1, y[1][i] = recall->r5, y[2][i] = recall->r10;
    }
    tw_svg_chart chart = {.title = title,
                          .x = x,
                          .n = n,
                          .series = {{.name = "R@1", .y = y[0]},
                                     {.name = "R@5", .y = y[1], .colour = 1},
                                     {.name = "R@10", .y = y[2], .colour = 2}},
                          .n_series = 3,
                          .markers = n <= 60,
                          .from_zero = 1,
                          .reference = NAN,
                          .unit = "%"};
    tw_svg_chart_write(out, &chart);
}

static void write_charts(FILE *out, const tw_report *r) {
    char name[64];
    double random_loss = r->global_batch > 0 ? log((double)r->global_batch) : NAN;
    snprintf(name, sizeof name, "chance, ln %" PRId64 " = %.2f", r->global_batch, random_loss);
    fputs("<h2>Curves over training steps</h2>\n<div class=\"charts\">\n", out);
    write_point_chart(out, r, "Training loss", offsetof(tw_report_point, loss), 1, random_loss, name);
    write_recall_chart(out, r, "Text → image", 0);
    write_recall_chart(out, r, "Image → text", 1);
    write_point_chart(out, r, "Learning rate", offsetof(tw_report_point, lr), 0, NAN, NULL);
    write_point_chart(out, r, "Gradient norm", offsetof(tw_report_point, grad_norm), 1, NAN, NULL);
    write_point_chart(out, r, "logit_scale", offsetof(tw_report_point, logit_scale), 0, NAN, NULL);
    fputs("</div>\n", out);
}

/* ---- contact sheet and configuration ---- */

static int is_image(const tw_report_hit *hit) {
    static const char *const known[] = {"image/jpeg", "image/png", "image/webp"};
    if (!hit->image || hit->size == 0 || !hit->mime) return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(hit->mime, known[i]) == 0) return 1;
    return 0;
}

static tw_status write_hit(FILE *out, const tw_report_hit *hit, size_t rank) {
    fprintf(out, "<div class=\"hit%s\">", hit->is_right ? " right" : "");
    if (is_image(hit)) {
        size_t length = tw_base64_encoded_size(hit->size);
        char *text = malloc(length);
        if (!text) return FAIL(TW_ERR_MEMORY, "report: no memory for an image of %zu bytes", hit->size);
        tw_base64_encode(hit->image, hit->size, text);
        fprintf(out, "<img alt=\"result %zu\" src=\"data:%s;base64,", rank, hit->mime);
        fwrite(text, 1, length, out);
        fputs("\"/>", out);
        free(text);
    } else {
        fputs("<span class=\"miss\">no image</span>", out);
    }
    if (hit->is_right) fputs("<em title=\"the right image\">✓</em>", out);
    if (isfinite(hit->score))
        fprintf(out, "%.3f", hit->score);
    else
        fputs("–", out);
    fputs("</div>", out);
    return TW_OK;
}

static tw_status write_query(FILE *out, const tw_report_query *query) {
    fputs("<div class=\"card query\"><p><span lang=\"zh\">", out);
    tw_html_text(out, query->text);
    fputs("</span>", out);
    size_t shown = 0; /* position of the first right image among the hits, from 1 */
    for (size_t i = query->n_hits; i-- > 0;)
        if (query->hits[i].is_right) shown = i + 1;
    int64_t rank = query->right_rank > 0 ? query->right_rank : (int64_t)shown;
    if (rank > 0)
        fprintf(out, "<span class=\"chip%s\">%srank %" PRId64 "</span>", rank == 1 ? " ok" : "",
                shown ? "" : "right one: ", rank);
    else
        fputs("<span class=\"chip\">right one not found</span>", out);
    fputs("</p><div class=\"hits\">", out);
    for (size_t i = 0; i < query->n_hits; i++) TRY(write_hit(out, &query->hits[i], i + 1));
    fputs("</div></div>\n", out);
    return TW_OK;
}

static tw_status write_sheet(FILE *out, const tw_report *r) {
    if (r->n_queries == 0) return TW_OK;
    fputs("<h2>Contact sheet</h2>\n<p class=\"sub\">Texts of the validation pool, each with the images found "
          "for "
          "it, best first, and their cosines. The right one has a green frame.</p>\n<div class=\"queries\" "
          "style=\"margin-top:12px\">\n",
          out);
    for (size_t i = 0; i < r->n_queries; i++) TRY(write_query(out, &r->queries[i]));
    fputs("</div>\n", out);
    return TW_OK;
}

static void write_rows(FILE *out, const char *title, const char *summary, const tw_report_row *rows,
                       size_t n) {
    if (n == 0) return;
    fprintf(out,
            "<h2>%s</h2>\n<details class=\"card\" open=\"open\"><summary>%s</summary><dl "
            "class=\"config\">\n",
            title, summary);
    for (size_t i = 0; i < n; i++) {
        fputs("<div><dt>", out);
        tw_html_text(out, rows[i].key);
        fputs("</dt><dd>", out);
        tw_html_text(out, rows[i].value);
        fputs("</dd></div>\n", out);
    }
    fputs("</dl></details>\n", out);
}

static tw_status write_page(FILE *out, const tw_report *r) {
    outcome o = find_outcome(r);
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
          "content=\"width=device-width, initial-scale=1\"/>\n<title>",
          out);
    tw_html_text(out, r->title);
    fputs("</title>\n<style>", out);
    for (size_t i = 0; tw_report_css[i]; i++) fputs(tw_report_css[i], out);
    fputs("</style></head>\n<body><main>\n<h1>", out);
    tw_html_text(out, r->title);
    fputs("</h1>\n<p class=\"sub\">", out);
    tw_html_text(out, r->subtitle);
    fputs("</p>\n", out);
    write_boxes(out, r, &o);
    write_tiles(out, r, &o);
    write_recall_table(out, &o);
    write_charts(out, r);
    TRY(write_sheet(out, r));
    write_rows(out, "Where the time went", "parts of a step", r->profile, r->n_profile);
    write_rows(out, "Configuration", "all keys", r->config, r->n_config);
    fputs("</main></body></html>\n", out);
    return TW_OK;
}

tw_status tw_report_write(const char *path, const tw_report *report) {
    tw_atomic_file file;
    TRY(tw_atomic_file_open(&file, path));
    return tw_atomic_file_end(&file, write_page(file.stream, report));
}
