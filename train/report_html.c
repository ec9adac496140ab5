/* Escaping, numbers, and the style sheet of the report. */
#include "train/report_html.h"

#include <math.h>
#include <utf8proc.h>

void tw_html_text(FILE *out, const char *text) {
    if (!text) return;
    const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;
    while (*p) {
        utf8proc_int32_t c;
        utf8proc_ssize_t used = utf8proc_iterate(p, -1, &c);
        if (used < 1 || (c < 0x20 && c != '\t' && c != '\n') || (c >= 0x7F && c < 0xA0)) {
            fputs("\xEF\xBF\xBD", out);
            p += used < 1 ? 1 : used;
            continue;
        }
        switch (c) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fwrite(p, 1, (size_t)used, out);
        }
        p += used;
    }
}

void tw_html_number(FILE *out, double value) {
    double size = fabs(value);
    if (!isfinite(value))
        fputs("–", out);
    else if (size >= 1e9 || (size > 0 && size < 1e-3))
        fprintf(out, "%.3g", value);
    else if (size >= 1e6)
        fprintf(out, "%.4gM", value / 1e6);
    else if (size >= 1e4)
        fprintf(out, "%.4gk", value / 1e3);
    else
        fprintf(out, "%.4g", value);
}

/* One string would be longer than C compilers must accept. */
const char *const tw_report_css[] = {
    ":root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1d2330;--soft:#667085;--line:#e3e6ec;"
    "--c0:#2667b5;--c1:#c2681c;--c2:#2f8a5f;--good:#1f8a52;--goodbg:#e7f5ed;--warn:#9a5b00;--warnbg:#fff4df;"
    "--bad:#b3261e;--badbg:#fdebe9}"
    "@media(prefers-color-scheme:dark){:root{--bg:#12151b;--card:#1a1f28;--ink:#e6e9ef;--soft:#98a2b3;"
    "--line:#2b323e;--c0:#6ea8ee;--c1:#e79a55;--c2:#62c295;--good:#4fc487;--goodbg:#16301f;--warn:#f0b55c;"
    "--warnbg:#33270f;--bad:#ff8a80;--badbg:#3a1a18}}"
    "*{box-sizing:border-box}"
    "body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,'Segoe UI',"
    "'Noto Sans CJK SC','PingFang SC','Microsoft YaHei',sans-serif;-webkit-text-size-adjust:100%}"
    "main{max-width:1080px;margin:0 auto;padding:32px 20px 56px}",
    "h1{font-size:1.6rem;line-height:1.25;margin:0;font-weight:650;overflow-wrap:anywhere}"
    "h2{font-size:1.05rem;font-weight:650;margin:36px 0 12px}"
    ".sub,.note{color:var(--soft);margin:4px 0 0;overflow-wrap:anywhere}.note{font-size:.85rem}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:10px}"
    ".tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:12px;margin-top:24px}"
    ".tile{padding:14px 16px}.tile b{display:block;font-size:1.6rem;line-height:1.3;font-weight:650;"
    "white-space:nowrap;font-variant-numeric:tabular-nums}.tile "
    "span{display:block;color:var(--soft);font-size:.83rem}"
    ".box{border-radius:10px;padding:12px 16px;margin-top:16px;border:1px solid}"
    ".box.bad{color:var(--bad);background:var(--badbg)}.box.warn{color:var(--warn);background:var(--warnbg)}"
    ".scroll{overflow-x:auto}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "th,td{padding:7px 12px;text-align:right;border-top:1px solid var(--line);white-space:nowrap}"
    "thead th{border-top:0;color:var(--soft);font-weight:500;font-size:.83rem}"
    "th[scope=row],th[rowspan]{text-align:left}th[colspan]{text-align:center}"
    "th[colspan],td:nth-child(2),td:nth-child(6),.sub1{border-left:1px solid var(--line)}thead "
    ".sub1{text-align:right}"

    "tbody th{font-weight:500}tbody tr.main td{font-weight:650}tr.dim td,tr.dim th{color:var(--soft)}",
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:14px}"
    "figure{margin:0;padding:12px 14px 8px;min-width:0}"
    "figcaption{display:flex;flex-wrap:wrap;gap:2px 14px;justify-content:space-between;font-size:.86rem;"
    "margin-bottom:6px}figcaption b{font-weight:600}"
    ".legend{display:flex;flex-wrap:wrap;gap:2px 12px;color:var(--soft)}"
    ".key{display:inline-block;width:14px;height:0;border-top:3px solid;border-radius:2px;margin-right:5px;"
    "vertical-align:middle}.key.dash{border-top:2px dashed var(--soft);border-radius:0}"
    ".c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}"
    "svg{display:block;width:100%;height:auto}svg text{font-size:11px;fill:var(--soft)}"
    ".ty,.te{text-anchor:end}.tx{text-anchor:middle}"
    ".grid{stroke:var(--line);fill:none}.axis{stroke:var(--soft);fill:none}"
    ".ref{stroke:var(--soft);stroke-dasharray:5 4;fill:none;stroke-width:1.3}"
    ".line{stroke:currentColor;fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".faint{stroke-width:1;opacity:.35}.dot{fill:currentColor;stroke:var(--card);stroke-width:1.2}"
    ".hover{fill:transparent}.hover:hover{fill:var(--soft);opacity:.16}"
    ".none{color:var(--soft);margin:24px 0;text-align:center}",
    ".queries{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:14px}"
    ".query{padding:12px 14px;min-width:0}.query p{margin:0 0 10px;display:flex;gap:10px;"
    "justify-content:space-between;align-items:flex-start;overflow-wrap:anywhere}"
    ".chip{flex:none;font-size:.76rem;border-radius:99px;padding:1px 9px;margin-top:2px;color:var(--soft);"
    "border:1px solid "
    "var(--line)}.chip.ok{color:var(--good);background:var(--goodbg);border-color:transparent}"
    ".hits{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));gap:8px}"
    ".hit{position:relative;font-size:.74rem;color:var(--soft);text-align:center;"
    "font-variant-numeric:tabular-nums}"
    ".hit img,.hit .miss{display:block;width:100%;aspect-ratio:1;object-fit:contain;border-radius:7px;"
    "border:1px solid var(--line);background:var(--bg);margin-bottom:3px}"
    ".hit .miss{display:flex;align-items:center;justify-content:center}"
    ".hit.right img,.hit.right .miss{border-color:var(--good);box-shadow:0 0 0 2px var(--good)}"
    ".hit.right{color:var(--good)}"
    ".hit em{position:absolute;top:-6px;right:-5px;width:18px;height:18px;border-radius:50%;font:700 "
    "12px/18px "
    "system-ui,sans-serif;background:var(--good);color:var(--card)}"
    "details summary{cursor:pointer;padding:10px 14px;font-weight:500}"
    ".config{columns:2 340px;column-gap:28px;padding:0 14px 12px;margin:0;font-size:.86rem}"
    ".config div{display:flex;justify-content:space-between;gap:16px;padding:4px 0;border-top:1px solid "
    "var(--line);break-inside:avoid}.config dt{color:var(--soft)}"
    ".config dd{margin:0;text-align:right;overflow-wrap:anywhere}"
    "@media(max-width:520px){main{padding:22px 14px 40px}h1{font-size:1.35rem}.tiles{gap:8px;"
    "grid-template-columns:1fr 1fr}.tile{padding:10px 12px}.tile "
    "b{font-size:1.35rem}table{font-size:.76rem}th,td,thead th{padding:6px "
    "4px;font-size:inherit}th:first-child{padding-left:10px}"
    "svg text{font-size:13.5px}"
    ".hits{gap:6px}}"
    "@media print{body{background:#fff}.card{break-inside:avoid}}",
    NULL,
};
