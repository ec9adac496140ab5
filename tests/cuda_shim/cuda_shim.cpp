#include "cuda_shim.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define SHIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHIM_ASAN 1
#endif
#endif
#ifdef SHIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

/* ---- switching stacks ---- */

#ifdef __x86_64__
/* Saves what the ABI says a call keeps on this stack, leaves the stack pointer in *from, goes on at `to`. */
extern "C" void tw_shim_switch(void **from, void *to);
asm(".text\n.globl tw_shim_switch\n.type tw_shim_switch,@function\ntw_shim_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size tw_shim_switch,.-tw_shim_switch\n");
typedef void *stack_point;
static void switch_stack(stack_point *from, stack_point *to) {
    tw_shim_switch(from, *to);
}
static void prepare_stack(stack_point *point, char *stack, size_t size, void (*entry)(void)) {
    void **top = reinterpret_cast<void **>(stack + size) - 1; /* entered as if called: 8 beyond 16 bytes */
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    *point = top;
}
#else
#include <ucontext.h>
typedef ucontext_t stack_point;
static void switch_stack(stack_point *from, stack_point *to) {
    swapcontext(from, to);
}
static void prepare_stack(stack_point *point, char *stack, size_t size, void (*entry)(void)) {
    getcontext(point);
    point->uc_stack.ss_sp = stack;
    point->uc_stack.ss_size = size;
    point->uc_link = nullptr;
    makecontext(point, entry, 0);
}
#endif

/* ---- threads of a block ---- */

namespace {

const size_t STACK = 64 << 10, PAGE = 4096, MOST_FIBERS = 1024;

struct barrier {
    unsigned generation = 0, arrived = 0;
};

struct fiber {
    stack_point point;
    int thread;
    uint3 index;           /* the thread's */
    bool done;             /* no thread is left for it */
    const unsigned *waits; /* for a generation other than `seen`; NULL: it can run */
    unsigned seen;
    const char *where;
    int line;
};

struct warp {
    barrier gate;
    unsigned given; /* lanes that gave a value since the gate opened */
    unsigned mask;  /* theirs */
    int unread[2];  /* lanes that have yet to look at a set */
    uint64_t value[2][32];
    bool valid[2][32];
};

struct machine {
    fiber fibers[MOST_FIBERS]; /* made when first needed, kept from launch to launch */
    size_t made;
    char *stacks; /* of all fibers, a page that cannot be touched below each */
    std::vector<warp> warps;
    std::vector<unsigned char> shared;
    barrier block;
    const char *block_file; /* of the __syncthreads that the block's threads arrive at */
    int block_line;
    const char *name;
    void (*body)(void *);
    void *context;
    int n, started, used; /* threads of the block, of them begun; fibers in use */
    int current, holder;  /* the thread that runs and its fiber */
    bool descending, active;
    stack_point caller;
    void *fake; /* AddressSanitizer's, of the fibers */
} m;

[[noreturn]] void die(const char *what) {
    fprintf(stderr, "cuda_shim: kernel %s, block (%u,%u,%u), thread %d: %s\n", m.name, blockIdx.x, blockIdx.y,
            blockIdx.z, m.current, what);
    for (int i = 0, shown = 0; i < m.used && shown < 4; i++) {
        const fiber &f = m.fibers[i];
        if (!f.waits) continue;
        fprintf(stderr, "  thread %d waits at %s:%d\n", f.thread, f.where, f.line);
        shown++;
    }
    abort();
}

fiber &me() {
    return m.fibers[m.holder];
}

/* The fiber that goes on: one more while threads are left to begin, then the next in turn whose barrier has
 * opened; -1: all have ended. */
int next_fiber() {
    if (m.started < m.n) {
        m.fibers[m.used].done = false, m.fibers[m.used].waits = nullptr;
        return m.used++;
    }
    bool waiting = false;
    for (int k = 0, i = m.holder; k < m.used; k++) {
        i = i + 1 < m.used ? i + 1 : 0;
        const fiber &f = m.fibers[i];
        if (f.done) continue;
        if (*f.waits != f.seen) return i;
        waiting = true;
    }
    if (waiting) die("the other threads of a barrier or shuffle have ended or wait elsewhere");
    return -1;
}

/* From one fiber to the next without a way over the caller's stack. */
void switch_on(stack_point *from) {
    int i = next_fiber();
    if (i < 0) {
        switch_stack(from, &m.caller);
        return;
    }
    fiber &f = m.fibers[i];
    m.holder = i;
    if (f.waits) m.current = f.thread, threadIdx = f.index;
    f.waits = nullptr;
    switch_stack(from, &f.point);
}

void begin(int thread) {
    unsigned t = (unsigned)thread;
    m.current = me().thread = thread;
    threadIdx = me().index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
}

/* A fiber runs thread after thread; one that waits keeps its fiber, and another fiber takes the rest. */
void entry() {
    for (;;) { /* once a block */
        while (m.started < m.n) {
            int thread = m.descending ? m.n - 1 - m.started : m.started;
            m.started++;
            begin(thread);
            m.body(m.context);
        }
        me().done = true;
        switch_on(&me().point);
    }
}

void wait(barrier &b, const char *where, int line) {
    fiber &f = me();
    f.waits = &b.generation, f.seen = b.generation, f.where = where, f.line = line;
    switch_on(&f.point);
}

void add_fibers(size_t n) {
    const size_t each = PAGE + STACK;
    if (!m.stacks) {
        void *p =
            mmap(nullptr, MOST_FIBERS * each, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) die("no address space for the fibers' stacks");
        m.stacks = static_cast<char *>(p);
    }
    for (; m.made < n; m.made++) {
        char *stack = m.stacks + m.made * each + PAGE;
        if (mprotect(stack, STACK, PROT_READ | PROT_WRITE) != 0) die("no memory for a fiber's stack");
        /* Not all at the same place of a page: the cache holds only a few of those. */
        prepare_stack(&m.fibers[m.made].point, stack, STACK - m.made % 16 * 256, entry);
    }
}

void run_block() {
    m.block = barrier();
    m.warps.assign((size_t)(m.n + 31) / 32, warp());
    if (!m.shared.empty()) memset(m.shared.data(), 0xff, m.shared.size());
    m.started = m.used = 0;
    switch_on(&m.caller);
}

/* To AddressSanitizer the fibers' stacks are one, which it is told of at a launch's begin and end: word of
 * each switch would take longer than the kernels. */
void run_blocks(dim3 grid) {
#ifdef SHIM_ASAN
    void *fake;
    const void *bottom;
    size_t size;
    __sanitizer_start_switch_fiber(&fake, m.stacks, m.made * (PAGE + STACK));
    __sanitizer_finish_switch_fiber(m.fake, &bottom, &size);
#endif
    uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t b = m.descending ? blocks - 1 - i : i;
        blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
        run_block();
    }
#ifdef SHIM_ASAN
    __sanitizer_start_switch_fiber(&m.fake, bottom, size);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

unsigned lanes_of(int first) {
    int n = m.n - first;
    return n >= 32 ? 0xffffffffu : (1u << n) - 1;
}

/* Gives a value to the warp and waits for the others; returns which of the two sets it is in. */
unsigned meet(unsigned mask, uint64_t mine) {
    warp &w = m.warps[(size_t)m.current / 32];
    unsigned lane = (unsigned)m.current % 32, needed = mask & lanes_of(m.current - (int)lane);
    if (!(needed >> lane & 1)) die("a lane is not in its own mask");
    unsigned set = w.gate.generation & 1;
    if (w.given == 0) {
        if (w.unread[set]) die("shuffles of parts of a warp overlap, which this shim cannot do");
        memset(w.valid[set], 0, sizeof w.valid[set]);
        w.mask = needed;
    }
    if (w.mask != needed) die("lanes of a warp meet with other masks");
    w.value[set][lane] = mine, w.valid[set][lane] = true;
    w.given |= 1u << lane;
    if (w.given == needed)
        w.given = 0, w.unread[set] = __builtin_popcount(needed), w.gate.generation++;
    else
        wait(w.gate, "a shuffle or __syncwarp of its warp", 0);
    w.unread[set]--;
    return set;
}

} // namespace

int tw_shim_lane(void) {
    return m.current % 32;
}

unsigned char *tw_shim_dynamic_shared(void) {
    if (m.shared.empty()) die("dynamic shared memory without bytes for it");
    return m.shared.data();
}

void tw_shim_sync_block(const char *file, int line) {
    if (m.block.arrived == 0) m.block_file = file, m.block_line = line;
    if (m.block_line != line || (m.block_file != file && strcmp(m.block_file, file) != 0))
        die("two __syncthreads of different lines meet");
    if (++m.block.arrived == (unsigned)m.n)
        m.block.arrived = 0, m.block.generation++;
    else
        wait(m.block, file, line);
}

void tw_shim_sync_warp(unsigned mask) {
    (void)meet(mask, 0);
}

uint64_t tw_shim_exchange(unsigned mask, uint64_t mine, int from) {
    unsigned set = meet(mask, mine);
    const warp &w = m.warps[(size_t)m.current / 32];
    if (from < 0 || from > 31 || !w.valid[set][from]) die("a shuffle reads a lane that takes no part");
    return w.value[set][from];
}

unsigned tw_shim_ballot(unsigned mask, bool mine) {
    unsigned set = meet(mask, mine ? 1 : 0), votes = 0;
    const warp &w = m.warps[(size_t)m.current / 32];
    for (unsigned i = 0; i < 32; i++)
        if (w.valid[set][i] && w.value[set][i] == 1) votes |= 1u << i;
    return votes;
}

void tw_shim_run(const char *name, dim3 grid, dim3 block, size_t shared, void (*body)(void *),
                 void *context) {
    m.name = name;
    if (m.active) die("a kernel was launched from a kernel");
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    /* The limits of every GPU that CUDA 13 serves. */
    if (threads == 0 || threads > 1024 || block.z > 64) die("a block has 1 to 1024 threads");
    if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) die("the grid is too large");
    if (shared > 99 << 10) die("more dynamic shared memory than every GPU from sm_80 on has (99 KB)");
    m.body = body, m.context = context, m.n = (int)threads;
    m.shared.assign(shared, 0xff);
    m.descending = !m.descending;
    blockDim = block, gridDim = grid;
    add_fibers(threads);
    m.active = true;
    run_blocks(grid);
    m.active = false;
}
