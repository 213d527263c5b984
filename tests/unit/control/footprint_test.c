#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../unit.h"
#include "control/footprint.h"
#include "core/ram.h"

#define SLACK (2 * MIB) /* the heap grows a bit, and the share in the C library moves with who else runs */

static struct footprint read_text(const char *text)
{
    FILE *f = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

    assert_non_null(f);
    struct footprint print = footprint_read(f);
    fclose(f);
    return print;
}

static struct footprint read_self(void)
{
    FILE *f = fopen("/proc/self/smaps", "re");

    assert_non_null(f);
    struct footprint print = footprint_read(f);
    fclose(f);
    return print;
}

static void test_text(void **state)
{
    struct footprint f = read_text("7f0000000000-7f0020000000 rw-s 00000000 00:01 5   /memfd:guest-ram (deleted)\n"
                                   "Size:             524288 kB\n"
                                   "Rss:                9000 kB\n"
                                   "Pss:                8000 kB\n"
                                   "Pss_Dirty:          7000 kB\n"
                                   "7f0040000000-7f0040010000 r-xs 00000000 00:01 6   /memfd:guest-ram-not (deleted)\n"
                                   "Pss:                  30 kB\n"
                                   "7f0050000000-7f0050010000 rw-p 00000000 00:00 0 \n"
                                   "Pss:                   5 kB\n");

    assert_int_equal(f.guest, 8000 * KIB);
    assert_int_equal(f.own, 35 * KIB);
}

/* A path longer than any buffer, full of what would count at the beginning of a line: sooner or later a buffer begins with it. */
static void test_long_path(void **state)
{
    static char text[10000];
    int n = snprintf(text, sizeof(text), "7f0000000000-7f0020000000 r--p 00000000 00:01 5 /");

    for (int i = n; i < 9000; i++)
        text[i] = "Pss: 7 kB "[i % 10];
    snprintf(text + 9000, sizeof(text) - 9000, "\nPss: 4 kB\n");
    struct footprint f = read_text(text);
    assert_int_equal(f.own, 4 * KIB);
    assert_int_equal(f.guest, 0);
}

/* Two aliases of one memfd, as a code cache has, count once; guest RAM counts as the guest's. */
static void test_aliases_and_ram(void **state)
{
    const size_t size = 8 * MIB;
    struct footprint before = read_self();
    int fd = memfd_create("code", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    volatile uint8_t *a = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    volatile uint8_t *b = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(a != MAP_FAILED && b != MAP_FAILED);
    for (size_t i = 0; i < size; i += RAM_PAGE_SIZE) {
        a[i] = 1;
        assert_int_equal(b[i], 1);
    }
    struct footprint with = read_self();
    assert_in_range(with.own, before.own + size - SLACK, before.own + size + SLACK);
    assert_int_equal(with.guest, 0);

    struct ram ram;
    struct err err;
    assert_int_equal(ram_open(&ram, 4 * MIB, 4 * MIB, &err), 0);
    memset(ram.base, 1, 4 * MIB);
    struct footprint guest = read_self();
    assert_int_equal(guest.guest, 4 * MIB);
    assert_in_range(guest.own, with.own - SLACK, with.own + SLACK);
    ram_close(&ram);
    munmap((void *)(uintptr_t)a, size);
    munmap((void *)(uintptr_t)b, size);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_long_path),
        cmocka_unit_test(test_aliases_and_ram),
    };

    return cmocka_run_group_tests_name("footprint", tests, NULL, NULL);
}
