/* The on-disk format of LMDB 0.9 (mdb.c: MDB_page, MDB_meta, MDB_node), read with pread: nothing is mapped
 * before it is known to be there. Little-endian and 64-bit, as every file this program can open. */
#include "data/files.h"
#include "data/lmdb_env.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER = 16, NODE = 8, MAX_KEY = 511, MAX_DEPTH = 32, META_BYTES = 152, WALK_PAGES = 65536 };
enum { BRANCH = 1, LEAF = 2, META = 8 };           /* page flags */
enum { BIG_DATA = 1, SUB_DATA = 2, DUP_DATA = 4 }; /* node flags */

typedef struct tree {
    const char *file;
    int fd;
    uint64_t page_size, file_size;
    uint64_t last_page, root, entries, depth;
    uint64_t seen, visited; /* entries, pages */
    unsigned char *pages;   /* (depth, page_size) */
    unsigned char last_key[MAX_KEY];
    size_t last_key_size;
} tree;

static uint64_t number(const unsigned char *s, int bytes) {
    uint64_t value = 0;
    for (int i = bytes; i-- > 0;) value = value << 8 | s[i];
    return value;
}

static tw_status damaged(const tree *t, uint64_t page, const char *what) {
    return FAIL(TW_ERR_FORMAT, "%s: damaged LMDB file: page %llu: %s; prepare the data again", t->file,
                (unsigned long long)page, what);
}

static tw_status truncated(const tree *t, uint64_t wanted) {
    return FAIL(TW_ERR_FORMAT,
                "%s: truncated LMDB file: %llu bytes, but its pages go up to %llu; copy it again", t->file,
                (unsigned long long)t->file_size, (unsigned long long)wanted);
}

static tw_status read_at(const tree *t, uint64_t offset, unsigned char *out, size_t size) {
    int error = tw_read_at(t->fd, offset, out, size);
    if (error == TW_READ_SHORT) return truncated(t, offset + size);
    return error ? FAIL(TW_ERR_IO, "%s: %s", t->file, strerror(error)) : TW_OK;
}

/* Takes the newer of the two meta pages, as LMDB does. */
static tw_status read_meta(tree *t, uint64_t *main_pages) {
    unsigned char meta[2][META_BYTES];
    if (t->file_size < META_BYTES)
        return FAIL(TW_ERR_FORMAT, "%s: %s LMDB file (%llu bytes)", t->file,
                    t->file_size ? "truncated" : "empty", (unsigned long long)t->file_size);
    TRY(read_at(t, 0, meta[0], META_BYTES));
    if (number(meta[0] + 16, 4) != 0xBEEFC0DE) return FAIL(TW_ERR_FORMAT, "%s: not an LMDB file", t->file);
    t->page_size = number(meta[0] + 40, 4);
    if (t->page_size < 512 || t->page_size > 65536 || (t->page_size & (t->page_size - 1)))
        return FAIL(TW_ERR_FORMAT, "%s: damaged LMDB file: its page size is %llu", t->file,
                    (unsigned long long)t->page_size);
    TRY(read_at(t, t->page_size, meta[1], META_BYTES));
    for (int i = 0; i < 2; i++) {
        if (!(number(meta[i] + 10, 2) & META) || number(meta[i] + 16, 4) != 0xBEEFC0DE)
            return damaged(t, (uint64_t)i, "not a meta page");
        if (number(meta[i] + 20, 4) != 1)
            return FAIL(TW_ERR_UNSUPPORTED, "%s: LMDB format version %u, known is 1", t->file,
                        (unsigned)number(meta[i] + 20, 4));
    }
    const unsigned char *m = meta[number(meta[0] + 144, 8) < number(meta[1] + 144, 8)];
    const unsigned char *db = m + 88; /* the unnamed database's MDB_db */
    if (number(db + 4, 2) != 0)
        return FAIL(TW_ERR_UNSUPPORTED, "%s: an LMDB database with flags 0x%x, not one of plain keys",
                    t->file, (unsigned)number(db + 4, 2));
    t->depth = number(db + 6, 2);
    *main_pages = number(db + 8, 8) + number(db + 16, 8);
    t->entries = number(db + 32, 8);
    t->root = number(db + 40, 8);
    t->last_page = number(m + 136, 8);
    return TW_OK;
}

static tw_status check_key(tree *t, uint64_t page, const unsigned char *key, size_t size) {
    if (t->seen++ > 0) {
        size_t shorter = size < t->last_key_size ? size : t->last_key_size;
        int order = memcmp(t->last_key, key, shorter);
        if (order > 0 || (order == 0 && t->last_key_size >= size))
            return damaged(t, page, "its keys are not sorted");
    }
    memcpy(t->last_key, key, size);
    t->last_key_size = size;
    return TW_OK;
}

/* One node of a leaf: key in the page; value in the page or on pages of its own. */
static tw_status check_leaf_node(tree *t, uint64_t page, const unsigned char *node, size_t room) {
    uint64_t value = number(node, 4), flags = number(node + 4, 2), key = number(node + 6, 2);
    if (key == 0 || key > MAX_KEY || NODE + key > room) return damaged(t, page, "a key outside of it");
    if (flags & (SUB_DATA | DUP_DATA)) return damaged(t, page, "a value that is a database");
    TRY(check_key(t, page, node + NODE, (size_t)key));
    if (!(flags & BIG_DATA))
        return NODE + key + value > room ? damaged(t, page, "a value outside of it") : TW_OK;
    if (NODE + key + 8 > room) return damaged(t, page, "a value outside of it");
    uint64_t first = number(node + NODE + key, 8), pages = (HEADER + value + t->page_size - 1) / t->page_size;
    if (first < 2 || first > t->last_page || pages > t->last_page - first + 1)
        return damaged(t, page, "a value outside of the file");
    if ((first + pages) * t->page_size > t->file_size) return truncated(t, (first + pages) * t->page_size);
    return TW_OK;
}

static tw_status walk(tree *t, uint64_t page, uint64_t level) {
    if (page < 2 || page > t->last_page) return damaged(t, page, "outside of the file");
    if ((page + 1) * t->page_size > t->file_size) return truncated(t, (page + 1) * t->page_size);
    if (++t->visited > t->last_page) return damaged(t, page, "reached twice");
    unsigned char *p = t->pages + level * t->page_size;
    TRY(read_at(t, page * t->page_size, p, t->page_size));
    bool leaf = level + 1 == t->depth;
    uint64_t lower = number(p + 12, 2), upper = number(p + 14, 2);
    if (number(p, 8) != page || number(p + 10, 2) != (leaf ? LEAF : BRANCH))
        return damaged(t, page, "not the kind of page that belongs there");
    if (lower < HEADER || lower % 2 || lower > upper || upper > t->page_size)
        return damaged(t, page, "impossible bounds");
    uint64_t nodes = (lower - HEADER) / 2;
    if (nodes < (leaf ? 1 : 2)) return damaged(t, page, "too few keys");
    for (uint64_t i = 0; i < nodes; i++) {
        uint64_t at = number(p + HEADER + 2 * i, 2);
        if (at < upper || at + NODE > t->page_size) return damaged(t, page, "a key outside of it");
        const unsigned char *node = p + at;
        if (leaf) {
            TRY(check_leaf_node(t, page, node, t->page_size - at));
        } else {
            if (NODE + number(node + 6, 2) > t->page_size - at)
                return damaged(t, page, "a key outside of it");
            TRY(walk(t, number(node, 6), level + 1)); /* depth is at most MAX_DEPTH */
        }
    }
    return TW_OK;
}

static tw_status check_tree(tree *t) {
    if (t->entries == 0) return TW_OK;
    if (t->depth < 1 || t->depth > MAX_DEPTH) return damaged(t, 0, "impossible depth");
    t->pages = malloc(t->depth * t->page_size);
    if (!t->pages) return FAIL(TW_ERR_MEMORY, "%s: no memory to check it", t->file);
    tw_status status = walk(t, t->root, 0);
    free(t->pages);
    if (status) return status;
    return t->seen == t->entries ? TW_OK : damaged(t, t->root, "another number of keys than the file says");
}

tw_status tw_lmdb_check(const char *file) {
    tree t = {.file = file};
    struct stat info;
    if (tw_open_file(file, &t.fd) != TW_OK) return TW_ERR_IO;
    if (fstat(t.fd, &info) != 0) {
        close(t.fd);
        return FAIL(TW_ERR_IO, "%s: %s", file, strerror(errno));
    }
    t.file_size = (uint64_t)info.st_size;
    uint64_t main_pages = 0;
    tw_status status = read_meta(&t, &main_pages);
    if (status == TW_OK) {
        /* A file may end before its last page if that one is free: then only the walk can tell. */
        bool is_short = t.last_page >= t.file_size / t.page_size;
        bool is_small = main_pages <= WALK_PAGES || t.last_page <= WALK_PAGES;
        if (main_pages > t.last_page)
            status = damaged(&t, 0, "more pages than the file has");
        else if (is_short || is_small)
            status = check_tree(&t);
    }
    close(t.fd);
    return status;
}
