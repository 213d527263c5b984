/* Instructions that real-address mode does not know */
//= n_exc=8 exc0=6 exc1=6 exc2=6 exc3=6 exc4=6 exc5=6 exc6=6 exc7=6
#include "real16.inc"

test:
        FAULTS  lar %ax, %ax
        FAULTS  lsl %ax, %ax
        FAULTS  verr %ax
        FAULTS  verw %ax
        FAULTS  sldt %ax
        FAULTS  str %ax
        FAULTS  lldt %ax
        FAULTS  arpl %ax, %ax
        END
