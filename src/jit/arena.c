/* See arena.h. x86 keeps its instruction caches coherent with stores, also those through another alias (SDM Vol. 3A 11.6). */
#include "jit/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

int jit_arena_open(struct jit_arena *arena, size_t size, struct err *err)
{
    int code;

    memset(arena, 0, sizeof(*arena));
    arena->size = align_up(size, PAGE);
    arena->fd = memfd_create("vireo-code", MFD_CLOEXEC);
    if (arena->fd < 0)
        return err_set(err, -errno, "no memory for generated code: memfd_create: %s", strerror(errno));
    if (ftruncate(arena->fd, (off_t)arena->size) < 0)
        goto fail_fd;
    arena->write = mmap(NULL, arena->size, PROT_READ | PROT_WRITE, MAP_SHARED, arena->fd, 0);
    if (arena->write == MAP_FAILED)
        goto fail_fd;
    void *exec = mmap(NULL, arena->size, PROT_READ | PROT_EXEC, MAP_SHARED, arena->fd, 0);
    if (exec == MAP_FAILED)
        goto fail_write;
    arena->exec = exec;
    return 0;

fail_write:
    code = -errno;
    munmap(arena->write, arena->size);
    close(arena->fd);
    return err_set(err, code, "cannot map memory for generated code as executable: %s", strerror(-code));
fail_fd:
    code = -errno;
    close(arena->fd);
    return err_set(err, code, "no memory for %zu bytes of generated code: %s", arena->size, strerror(-code));
}

void jit_arena_close(struct jit_arena *arena)
{
    munmap((void *)arena->exec, arena->size);
    munmap(arena->write, arena->size);
    close(arena->fd);
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
    /* Left as it is where the host cannot punch holes: the pages are then written over. */
    (void)!fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)arena->size);
    arena->used = 0;
}
