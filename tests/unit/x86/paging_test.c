/* Page walks: formats, permissions, error codes, accessed and dirty flags. */
#include "x86/paging.h"

#include <errno.h>

#include "unit.h"
#include "x86/state.h"

enum { P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100 };
#define XD (UINT64_C(1) << 63)

/* Tables at 0x1000 (root), 0x2000, 0x3000, 0x4000; the page at 0x9000. */
struct world {
    struct ram ram;
    struct paging p;
    struct paging_result r;
};

static uint8_t *at(struct world *w, uint64_t gpa)
{
    uint8_t *host = ram_host(&w->ram, gpa, 8);
    assert_non_null(host);
    return host;
}

static void open_world(struct world *w, uint64_t cr4, uint64_t efer)
{
    struct err err;

    memset(w, 0, sizeof(*w));
    assert_int_equal(ram_open(&w->ram, 1 << 20, 1 << 20, &err), 0);
    w->p = (struct paging){
        .ram = &w->ram, .cr0 = X86_CR0_PG | X86_CR0_WP, .cr3 = 0x1000, .cr4 = cr4, .efer = efer, .phys_bits = 36};
}

/* Maps linear 0x8080604000 + 0x123: index 1, 2, 3, 4 at the levels. */
#define LIN UINT64_C(0x0000008080604123)

static void open_long(struct world *w, uint64_t efer)
{
    open_world(w, X86_CR4_PAE, efer | X86_EFER_LME | X86_EFER_LMA);
    store_le64(at(w, 0x1000 + 8), 0x2000 | P | W | U);
    store_le64(at(w, 0x2000 + 16), 0x3000 | P | W | U);
    store_le64(at(w, 0x3000 + 24), 0x4000 | P | W | U);
    store_le64(at(w, 0x4000 + 32), 0x9000 | P | W | U);
}

static void expect_fault(struct world *w, uint64_t lin, unsigned access, uint32_t error)
{
    assert_int_equal(paging_walk(&w->p, lin, access, &w->r), -EFAULT);
    assert_int_equal(w->r.error, error);
}

static void expect_page(struct world *w, uint64_t lin, unsigned access, uint64_t gpa)
{
    assert_int_equal(paging_walk(&w->p, lin, access, &w->r), 0);
    assert_int_equal(w->r.gpa, gpa);
}

static void flags_follow_the_access(void **state)
{
    struct world w;
    open_long(&w, 0);
    expect_page(&w, LIN, PAGING_USER, 0x9123);
    assert_false(w.r.writable); /* not dirty yet */
    for (unsigned i = 1; i <= 4; i++)
        assert_int_equal(load_le64(at(&w, i * 0x1000 + i * 8)) & (A | D), A);
    expect_page(&w, LIN, PAGING_USER | PAGING_WRITE, 0x9123);
    assert_true(w.r.writable);
    assert_int_equal(load_le64(at(&w, 0x4000 + 32)) & (A | D), A | D);
    assert_int_equal(load_le64(at(&w, 0x3000 + 24)) & (A | D), A);
    ram_close(&w.ram);
}

static void refused_access_leaves_the_page_untouched(void **state)
{
    struct world w;
    open_long(&w, 0);
    store_le64(at(&w, 0x4000 + 32), 0x9000 | P | W);
    expect_fault(&w, LIN, PAGING_USER | PAGING_WRITE, X86_PF_P | X86_PF_U | X86_PF_W);
    assert_int_equal(load_le64(at(&w, 0x4000 + 32)), 0x9000 | P | W);
    ram_close(&w.ram);
}

static void absent_at_each_level(void **state)
{
    for (unsigned i = 1; i <= 4; i++) {
        struct world w;
        open_long(&w, 0);
        store_le64(at(&w, i * 0x1000 + i * 8), ~(uint64_t)P);
        expect_fault(&w, LIN, PAGING_USER, X86_PF_U);
        ram_close(&w.ram);
    }
}

static void reserved_bits_at_each_level(void **state)
{
    static const uint64_t bits[4] = {PS, UINT64_C(1) << 36, UINT64_C(1) << 51, XD};
    for (unsigned i = 1; i <= 4; i++) {
        struct world w;
        uint8_t *entry;
        open_long(&w, 0); /* NXE clear: XD is reserved */
        entry = at(&w, i * 0x1000 + i * 8);
        store_le64(entry, load_le64(entry) | bits[i - 1]);
        expect_fault(&w, LIN, 0, X86_PF_P | X86_PF_RSVD);
        ram_close(&w.ram);
    }
}

static void write_protection_of_supervisor(void **state)
{
    struct world w;
    open_long(&w, 0);
    store_le64(at(&w, 0x3000 + 24), 0x4000 | P | U);
    expect_fault(&w, LIN, PAGING_WRITE, X86_PF_P | X86_PF_W);
    w.p.cr0 &= ~(uint64_t)X86_CR0_WP;
    expect_page(&w, LIN, PAGING_WRITE, 0x9123);
    expect_fault(&w, LIN, PAGING_WRITE | PAGING_USER, X86_PF_P | X86_PF_W | X86_PF_U);
    ram_close(&w.ram);
}

static void execute_disable(void **state)
{
    struct world w;
    open_long(&w, X86_EFER_NX);
    store_le64(at(&w, 0x2000 + 16), 0x3000 | P | W | U | XD);
    expect_fault(&w, LIN, PAGING_FETCH | PAGING_USER, X86_PF_P | X86_PF_U | X86_PF_I);
    expect_page(&w, LIN, PAGING_USER, 0x9123);
    ram_close(&w.ram);
}

static void smep_and_smap(void **state)
{
    struct world w;
    open_long(&w, 0);
    expect_page(&w, LIN, PAGING_FETCH, 0x9123);
    w.p.cr4 |= X86_CR4_SMEP | X86_CR4_SMAP;
    expect_fault(&w, LIN, PAGING_FETCH, X86_PF_P | X86_PF_I);
    expect_fault(&w, LIN, PAGING_SMAP, X86_PF_P);
    expect_page(&w, LIN, 0, 0x9123);
    expect_page(&w, LIN, PAGING_USER | PAGING_FETCH, 0x9123);
    /* One supervisor level makes a supervisor page. */
    store_le64(at(&w, 0x1000 + 8), 0x2000 | P | W);
    expect_page(&w, LIN, PAGING_FETCH, 0x9123);
    ram_close(&w.ram);
}

static void no_fetch_bit_without_nx(void **state)
{
    struct world w;
    open_world(&w, 0, 0);
    expect_fault(&w, 0x1000, PAGING_FETCH | PAGING_USER, X86_PF_U);
    ram_close(&w.ram);
}

static void large_pages(void **state)
{
    struct world w;
    open_long(&w, 0);
    w.p.cr4 |= X86_CR4_PGE;
    store_le64(at(&w, 0x3000 + 24), 0x200000 | P | W | U | PS | G);
    expect_page(&w, LIN, PAGING_WRITE, 0x200000 | (LIN & 0x1fffff));
    assert_true(w.r.large && w.r.global && w.r.writable);
    store_le64(at(&w, 0x3000 + 24), 0x200000 | 1 << 13 | P | PS);
    expect_fault(&w, LIN, 0, X86_PF_P | X86_PF_RSVD);
    store_le64(at(&w, 0x2000 + 16), 0x40000000 | P | W | U | PS);
    expect_page(&w, LIN, 0, 0x40000000 | (LIN & 0x3fffffff));
    store_le64(at(&w, 0x2000 + 16), 0x40000000 | 1 << 29 | P | PS);
    expect_fault(&w, LIN, 0, X86_PF_P | X86_PF_RSVD);
    ram_close(&w.ram);
}

static void legacy_32_bit(void **state)
{
    struct world w;
    open_world(&w, X86_CR4_PSE, 0);
    store_le32(at(&w, 0x1000 + 4 * 1), 0x2000 | P | W | U);
    store_le32(at(&w, 0x2000 + 4 * 2), 0x9000 | P | W | U);
    store_le32(at(&w, 0x1000 + 4 * 2), 0x800000 | P | W | PS);
    expect_page(&w, 0x402345, PAGING_WRITE, 0x9345);
    assert_int_equal(load_le32(at(&w, 0x2000 + 4 * 2)), 0x9000 | P | W | U | A | D);
    assert_int_equal(load_le32(at(&w, 0x2000 + 4 * 3)), 0);
    expect_page(&w, 0x812345, PAGING_WRITE, 0x812345);
    store_le32(at(&w, 0x1000 + 4 * 2), 0x800000 | 1 << 13 | P | PS); /* no PSE-36 */
    expect_fault(&w, 0x812345, 0, X86_PF_P | X86_PF_RSVD);
    ram_close(&w.ram);
}

static void pae(void **state)
{
    struct world w;
    open_world(&w, X86_CR4_PAE, 0);
    store_le64(at(&w, 0x1000 + 8), 0x2000 | P);
    store_le64(at(&w, 0x2000 + 8 * 2), 0x3000 | P | W | U);
    store_le64(at(&w, 0x3000 + 8 * 3), 0x9000 | P | W | U);
    assert_int_equal(paging_load_pdpte(&w.ram, 0x1000, 36, w.p.pdpte), 0);
    expect_page(&w, 0x40403456, PAGING_USER | PAGING_WRITE, 0x9456);
    expect_fault(&w, 0x403456, 0, 0);
    store_le64(at(&w, 0x3000 + 8 * 3), 0x9000 | P | UINT64_C(1) << 52);
    expect_fault(&w, 0x40403456, 0, X86_PF_P | X86_PF_RSVD);
    ram_close(&w.ram);
}

static void pdpte_reserved_bits(void **state)
{
    struct world w;
    uint64_t pdpte[4] = {7, 7, 7, 7};
    open_world(&w, X86_CR4_PAE, 0);
    store_le64(at(&w, 0x1000 + 16), 0x2000 | P | W);
    assert_int_equal(paging_load_pdpte(&w.ram, 0x1000, 36, pdpte), -EINVAL);
    assert_int_equal(pdpte[2], 7);
    store_le64(at(&w, 0x1000 + 16), 0x2000 | W); /* absent: nothing is reserved */
    assert_int_equal(paging_load_pdpte(&w.ram, 0x1000, 36, pdpte), 0);
    ram_close(&w.ram);
}

static void peeking_leaves_no_trace(void **state)
{
    struct world w;
    open_long(&w, X86_EFER_NX);
    w.p.cr4 |= X86_CR4_SMEP | X86_CR4_SMAP;
    store_le64(at(&w, 0x4000 + 32), 0x9000 | P | U | XD);
    expect_page(&w, LIN, PAGING_PEEK, 0x9123);
    for (unsigned i = 1; i <= 4; i++)
        assert_int_equal(load_le64(at(&w, i * 0x1000 + i * 8)) & (A | D), 0);
    store_le64(at(&w, 0x4000 + 32), 0x9000 | U);
    expect_fault(&w, LIN, PAGING_PEEK, 0);
    ram_close(&w.ram);
}

static void tables_outside_ram_fault(void **state)
{
    struct world w;
    open_long(&w, 0);
    w.p.cr3 = UINT64_C(0x800000000);
    expect_fault(&w, LIN, PAGING_WRITE, X86_PF_P | X86_PF_RSVD | X86_PF_W);
    ram_close(&w.ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_follow_the_access),
        cmocka_unit_test(refused_access_leaves_the_page_untouched),
        cmocka_unit_test(absent_at_each_level),
        cmocka_unit_test(reserved_bits_at_each_level),
        cmocka_unit_test(write_protection_of_supervisor),
        cmocka_unit_test(execute_disable),
        cmocka_unit_test(smep_and_smap),
        cmocka_unit_test(no_fetch_bit_without_nx),
        cmocka_unit_test(large_pages),
        cmocka_unit_test(legacy_32_bit),
        cmocka_unit_test(pae),
        cmocka_unit_test(pdpte_reserved_bits),
        cmocka_unit_test(peeking_leaves_no_trace),
        cmocka_unit_test(tables_outside_ram_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
