/* The sixteen conditions of Jcc, SETcc and CMOVcc (SDM Vol. 1 appendix B), from RFLAGS. */
#ifndef ENGINE_INTERP_COND_H
#define ENGINE_INTERP_COND_H

#include "engine/interp/op.h"

/* X(suffix, condition on f) in the order of the encoding; names as Zydis has them. */
#define COND_LIST(X)                                        \
    X(O, f &X86_FLAG_OF)                                    \
    X(NO, !(f & X86_FLAG_OF))                               \
    X(B, f &X86_FLAG_CF)                                    \
    X(NB, !(f & X86_FLAG_CF))                               \
    X(Z, f &X86_FLAG_ZF)                                    \
    X(NZ, !(f & X86_FLAG_ZF))                               \
    X(BE, f &(X86_FLAG_CF | X86_FLAG_ZF))                   \
    X(NBE, !(f & (X86_FLAG_CF | X86_FLAG_ZF)))              \
    X(S, f &X86_FLAG_SF)                                    \
    X(NS, !(f & X86_FLAG_SF))                               \
    X(P, f &X86_FLAG_PF)                                    \
    X(NP, !(f & X86_FLAG_PF))                               \
    X(L, (f ^ f >> 4) & X86_FLAG_SF)                        \
    X(NL, !((f ^ f >> 4) & X86_FLAG_SF))                    \
    X(LE, ((f ^ f >> 4) & X86_FLAG_SF) | (f & X86_FLAG_ZF)) \
    X(NLE, !(((f ^ f >> 4) & X86_FLAG_SF) | (f & X86_FLAG_ZF)))

#define COND_FUNCTION(cc, test)                      \
    OP_INLINE bool cond_##cc(const struct interp *c) \
    {                                                \
        uint32_t f = (uint32_t)c->st.rflags;         \
        return test;                                 \
    }
COND_LIST(COND_FUNCTION)
#undef COND_FUNCTION

#endif
