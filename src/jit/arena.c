/* See arena.h. x86 keeps its instruction caches coherent with stores, also those through another alias (SDM Vol. 3A 11.6). */
#include "jit/arena.h"

#include <errno.h>
#include <sys/mman.h>

#define PAGE 4096

/*
 * Shared anonymous memory, and not a memfd, for the sake of perf: it looks into /tmp/perf-PID.map for memory that has no file, which to it
 * is what the kernel calls "/dev/zero" or "//anon". A second mapping of shared pages comes from mremap() with an old size of 0.
 */
int jit_arena_open(struct jit_arena *arena, size_t size, struct err *err)
{
    memset(arena, 0, sizeof(*arena));
    arena->size = align_up(size, PAGE);
    arena->write = mmap(NULL, arena->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena->write == MAP_FAILED)
        return err_set(err, -errno, "no memory for %zu bytes of generated code: %s", arena->size, strerror(errno));
    void *exec = mremap(arena->write, 0, arena->size, MREMAP_MAYMOVE);
    if (exec == MAP_FAILED || mprotect(exec, arena->size, PROT_READ | PROT_EXEC) < 0) {
        int code = -errno;
        if (exec != MAP_FAILED)
            munmap(exec, arena->size);
        munmap(arena->write, arena->size);
        return err_set(err, code, "cannot map memory for generated code as executable: %s", strerror(-code));
    }
    arena->exec = exec;
    return 0;
}

void jit_arena_close(struct jit_arena *arena)
{
    munmap((void *)arena->exec, arena->size);
    munmap(arena->write, arena->size);
}

uint8_t *jit_arena_alloc(struct jit_arena *arena, size_t len)
{
    if (len > arena->size - arena->used)
        return NULL;
    uint8_t *p = arena->write + arena->used;
    arena->used += align_up(len, JIT_ARENA_ALIGN); /* whole pages are a multiple */
    return p;
}

void jit_arena_trim(struct jit_arena *arena, uint8_t *piece, size_t used)
{
    arena->used = (size_t)(piece - arena->write) + align_up(used, JIT_ARENA_ALIGN);
}

void jit_arena_reset(struct jit_arena *arena)
{
    /* Left as it is where the host cannot: the pages are then written over. */
    (void)!madvise(arena->write, arena->size, MADV_REMOVE);
    arena->used = 0;
}
