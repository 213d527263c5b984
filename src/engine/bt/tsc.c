/* RDTSC and RDTSCP as a light call. It asks the host for the time, so its thunk saves vectors as well. */
#include "engine/bt/light.h"
#include "x86/msr.h"

const uint8_t *light_tsc(struct bt *bt)
{
    struct interp *c = &bt->c;
    struct msr_env env = {.st = &c->st, .cpuid = c->conf.cpuid, .port = c->conf.port, .clock = c->conf.clock};

    if ((c->st.cr4 & X86_CR4_TSD) && x86_cpl(&c->st))
        return (const uint8_t *)(uintptr_t)bt->arg1;
    uint64_t tsc = msr_tsc(&env);
    c->st.gpr[X86_RAX] = (uint32_t)tsc;
    c->st.gpr[X86_RDX] = tsc >> 32;
    if (bt->light_arg)
        c->st.gpr[X86_RCX] = (uint32_t)c->st.tsc_aux;
    return (const uint8_t *)(uintptr_t)bt->arg0;
}
