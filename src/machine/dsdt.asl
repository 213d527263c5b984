/*
 * The board's differentiated description (ACPI 6.5 chapter 5): what a guest cannot find out by looking. Addresses repeat
 * machine/memmap.h, the wiring of PIRQs repeats pci_pirq() in core/pci.h, SLP_TYP repeats device/acpi_pm.h.
 */
/* A slot that functions may come to and go from while the guest runs. */
#define SLOT(name, adr, number) \
    Device (name) { Name (_ADR, adr) Name (_SUN, number) Method (_EJ0, 1, NotSerialized) { EJCT = (1 << number) } }

DefinitionBlock ("dsdt.aml", "DSDT", 2, "VIREO ", "VIREOQ35", 1)
{
    Name (_S5, Package () { 7, 7, 0, 0 })

    /* 0: the guest uses the PICs; 1: the IOAPIC. */
    Name (\PICM, 0)
    Method (_PIC, 1, NotSerialized)
    {
        PICM = Arg0
    }

    Scope (\_GPE)
    {
        Method (_E01, 0, NotSerialized)
        {
            \_SB.PCI0.SCAN ()
        }
    }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_SEG, 0)
            Name (_BBN, 0)
            Name (_UID, 0)

            Name (_CRS, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xFF, 0, 0x100)
                IO (Decode16, 0x0CF8, 0x0CF8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0, 0x0CF7, 0, 0x0CF8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0D00, 0xFFFF, 0, 0xF300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xC0000000, 0xFEBFFFFF, 0, 0x3EC00000)
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0x8000000000, 0xBFFFFFFFFF, 0, 0x4000000000)
            })

            /* PCI Firmware Specification 3.2 section 4.5.1: the guest may have the PCIe capability structure, no more is there. */
            Method (_OSC, 4, Serialized)
            {
                CreateDWordField (Arg3, 0, CDW1)
                If (Arg0 != ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766"))
                {
                    CDW1 |= 0x04
                    Return (Arg3)
                }
                If (Arg1 != 1)
                {
                    CDW1 |= 0x08
                }
                CreateDWordField (Arg3, 8, CDW3)
                Local0 = CDW3 & 0x10
                If (Local0 != CDW3)
                {
                    CDW1 |= 0x10
                }
                CDW3 = Local0
                Return (Arg3)
            }

            /* INTx: pin p (0 = INTA#) of slot s is on PIRQ (s + p) % 8, which is IOAPIC input 16 and up. */
            Method (_PRT, 0, Serialized)
            {
                Local0 = Package (128) {}
                Local1 = 0
                While (Local1 < 128)
                {
                    Local2 = Local1 >> 2
                    Local3 = Local1 & 3
                    Local4 = (Local2 + Local3) & 7
                    Local5 = Package (4) { 0, 0, 0, 0 }
                    If (PICM)
                    {
                        Local5 [3] = Local4 + 16
                    }
                    Else
                    {
                        If (Local4 == 0) { Local5 = Package (4) { 0, 0, ^ISA.LNKA, 0 } }
                        If (Local4 == 1) { Local5 = Package (4) { 0, 0, ^ISA.LNKB, 0 } }
                        If (Local4 == 2) { Local5 = Package (4) { 0, 0, ^ISA.LNKC, 0 } }
                        If (Local4 == 3) { Local5 = Package (4) { 0, 0, ^ISA.LNKD, 0 } }
                        If (Local4 == 4) { Local5 = Package (4) { 0, 0, ^ISA.LNKE, 0 } }
                        If (Local4 == 5) { Local5 = Package (4) { 0, 0, ^ISA.LNKF, 0 } }
                        If (Local4 == 6) { Local5 = Package (4) { 0, 0, ^ISA.LNKG, 0 } }
                        If (Local4 == 7) { Local5 = Package (4) { 0, 0, ^ISA.LNKH, 0 } }
                    }
                    Local5 [0] = (Local2 << 16) | 0xFFFF
                    Local5 [1] = Local3
                    Local0 [Local1] = Local5
                    Local1++
                }
                Return (Local0)
            }

            Device (MCH)
            {
                Name (_ADR, 0)
            }

            /* Hot plug: device/pci_hotplug.h. A bit a slot; ones clear. */
            OperationRegion (HPLG, SystemIO, 0xAE00, 0x0C)
            Field (HPLG, DWordAcc, NoLock, WriteAsZeros)
            {
                SLUP, 32,
                SLDN, 32,
                EJCT, 32,
            }

            SLOT (S01, 0x010000, 1)
            SLOT (S02, 0x020000, 2)
            SLOT (S03, 0x030000, 3)
            SLOT (S04, 0x040000, 4)
            SLOT (S05, 0x050000, 5)
            SLOT (S06, 0x060000, 6)
            SLOT (S07, 0x070000, 7)
            SLOT (S08, 0x080000, 8)
            SLOT (S09, 0x090000, 9)
            SLOT (S10, 0x0A0000, 10)
            SLOT (S11, 0x0B0000, 11)
            SLOT (S12, 0x0C0000, 12)
            SLOT (S13, 0x0D0000, 13)
            SLOT (S14, 0x0E0000, 14)
            SLOT (S15, 0x0F0000, 15)
            SLOT (S16, 0x100000, 16)
            SLOT (S17, 0x110000, 17)
            SLOT (S18, 0x120000, 18)
            SLOT (S19, 0x130000, 19)
            SLOT (S20, 0x140000, 20)
            SLOT (S21, 0x150000, 21)
            SLOT (S22, 0x160000, 22)
            SLOT (S23, 0x170000, 23)
            SLOT (S24, 0x180000, 24)
            SLOT (S25, 0x190000, 25)
            SLOT (S26, 0x1A0000, 26)
            SLOT (S27, 0x1B0000, 27)
            SLOT (S28, 0x1C0000, 28)
            SLOT (S29, 0x1D0000, 29)
            SLOT (S30, 0x1E0000, 30)

            /* Arg0: slots; Arg1: 1 to look at them, 3 to let go of what is in them (ACPI 6.5 section 5.6.6). */
            Method (SLNT, 2, NotSerialized)
            {
                If (Arg0 & (1 << 1)) { Notify (S01, Arg1) }
                If (Arg0 & (1 << 2)) { Notify (S02, Arg1) }
                If (Arg0 & (1 << 3)) { Notify (S03, Arg1) }
                If (Arg0 & (1 << 4)) { Notify (S04, Arg1) }
                If (Arg0 & (1 << 5)) { Notify (S05, Arg1) }
                If (Arg0 & (1 << 6)) { Notify (S06, Arg1) }
                If (Arg0 & (1 << 7)) { Notify (S07, Arg1) }
                If (Arg0 & (1 << 8)) { Notify (S08, Arg1) }
                If (Arg0 & (1 << 9)) { Notify (S09, Arg1) }
                If (Arg0 & (1 << 10)) { Notify (S10, Arg1) }
                If (Arg0 & (1 << 11)) { Notify (S11, Arg1) }
                If (Arg0 & (1 << 12)) { Notify (S12, Arg1) }
                If (Arg0 & (1 << 13)) { Notify (S13, Arg1) }
                If (Arg0 & (1 << 14)) { Notify (S14, Arg1) }
                If (Arg0 & (1 << 15)) { Notify (S15, Arg1) }
                If (Arg0 & (1 << 16)) { Notify (S16, Arg1) }
                If (Arg0 & (1 << 17)) { Notify (S17, Arg1) }
                If (Arg0 & (1 << 18)) { Notify (S18, Arg1) }
                If (Arg0 & (1 << 19)) { Notify (S19, Arg1) }
                If (Arg0 & (1 << 20)) { Notify (S20, Arg1) }
                If (Arg0 & (1 << 21)) { Notify (S21, Arg1) }
                If (Arg0 & (1 << 22)) { Notify (S22, Arg1) }
                If (Arg0 & (1 << 23)) { Notify (S23, Arg1) }
                If (Arg0 & (1 << 24)) { Notify (S24, Arg1) }
                If (Arg0 & (1 << 25)) { Notify (S25, Arg1) }
                If (Arg0 & (1 << 26)) { Notify (S26, Arg1) }
                If (Arg0 & (1 << 27)) { Notify (S27, Arg1) }
                If (Arg0 & (1 << 28)) { Notify (S28, Arg1) }
                If (Arg0 & (1 << 29)) { Notify (S29, Arg1) }
                If (Arg0 & (1 << 30)) { Notify (S30, Arg1) }
            }

            Mutex (HPLK, 0)
            Method (SCAN, 0, Serialized)
            {
                Acquire (HPLK, 0xFFFF)
                Local0 = SLUP
                SLUP = Local0
                Local1 = SLDN
                SLDN = Local1
                SLNT (Local0, 1)
                SLNT (Local1, 3)
                Release (HPLK)
            }

            Device (ISA)
            {
                Name (_ADR, 0x001F0000)

                OperationRegion (ROUT, PCI_Config, 0x60, 0x0C)
                Field (ROUT, ByteAcc, NoLock, Preserve)
                {
                    PRQA, 8, PRQB, 8, PRQC, 8, PRQD, 8,
                    Offset (8),
                    PRQE, 8, PRQF, 8, PRQG, 8, PRQH, 8,
                }

                /* Interrupt links: a PIRQ's way to the PIC (ICH9 datasheet 13.1.17). */
                Name (LPRS, ResourceTemplate ()
                {
                    IRQ (Level, ActiveLow, Shared) { 5, 10, 11 }
                })
                Method (LSTA, 1, NotSerialized)
                {
                    If (Arg0 & 0x80)
                    {
                        Return (0x09)
                    }
                    Return (0x0B)
                }
                Method (LCRS, 1, Serialized)
                {
                    Name (BUF0, ResourceTemplate ()
                    {
                        IRQ (Level, ActiveLow, Shared) {}
                    })
                    CreateWordField (BUF0, 1, IRQW)
                    If (!(Arg0 & 0x80))
                    {
                        IRQW = 1 << (Arg0 & 0x0F)
                    }
                    Return (BUF0)
                }
                Method (LSRS, 1, NotSerialized)
                {
                    CreateWordField (Arg0, 1, IRQW)
                    FindSetRightBit (IRQW, Local0)
                    If (Local0)
                    {
                        Return (Local0 - 1)
                    }
                    Return (0x80)
                }

                Device (LNKA)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 0)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQA)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQA)) }
                    Method (_SRS, 1, NotSerialized) { PRQA = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQA |= 0x80 }
                }

                Device (LNKB)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 1)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQB)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQB)) }
                    Method (_SRS, 1, NotSerialized) { PRQB = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQB |= 0x80 }
                }

                Device (LNKC)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 2)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQC)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQC)) }
                    Method (_SRS, 1, NotSerialized) { PRQC = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQC |= 0x80 }
                }

                Device (LNKD)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 3)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQD)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQD)) }
                    Method (_SRS, 1, NotSerialized) { PRQD = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQD |= 0x80 }
                }

                Device (LNKE)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 4)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQE)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQE)) }
                    Method (_SRS, 1, NotSerialized) { PRQE = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQE |= 0x80 }
                }

                Device (LNKF)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 5)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQF)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQF)) }
                    Method (_SRS, 1, NotSerialized) { PRQF = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQF |= 0x80 }
                }

                Device (LNKG)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 6)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQG)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQG)) }
                    Method (_SRS, 1, NotSerialized) { PRQG = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQG |= 0x80 }
                }

                Device (LNKH)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 7)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQH)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQH)) }
                    Method (_SRS, 1, NotSerialized) { PRQH = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQH |= 0x80 }
                }

                Device (PIC)
                {
                    Name (_HID, EisaId ("PNP0000"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0020, 0x0020, 1, 2)
                        IO (Decode16, 0x00A0, 0x00A0, 1, 2)
                        IO (Decode16, 0x04D0, 0x04D0, 1, 2)
                        IRQNoFlags () { 2 }
                    })
                }

                Device (TIMR)
                {
                    Name (_HID, EisaId ("PNP0100"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0040, 0x0040, 1, 4)
                        IRQNoFlags () { 0 }
                    })
                }

                Device (SPKR)
                {
                    Name (_HID, EisaId ("PNP0800"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0061, 0x0061, 1, 1)
                    })
                }

                Device (RTC)
                {
                    Name (_HID, EisaId ("PNP0B00"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0070, 0x0070, 1, 2)
                        IRQNoFlags () { 8 }
                    })
                }

                Device (KBD)
                {
                    Name (_HID, EisaId ("PNP0303"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0060, 0x0060, 1, 1)
                        IO (Decode16, 0x0064, 0x0064, 1, 1)
                        IRQNoFlags () { 1 }
                    })
                }

                /* The keyboard controller's second port, as firmware tells of it whether or not a mouse is plugged in. */
                Device (MOU)
                {
                    Name (_HID, EisaId ("PNP0F13"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IRQNoFlags () { 12 }
                    })
                }

                Device (COM1)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 1)
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x03F8, 0x03F8, 1, 8)
                        IRQNoFlags () { 4 }
                    })
                }

                Device (FWCF)
                {
                    Name (_HID, "QEMU0002")
                    Name (_STA, 0x0B)
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0510, 0x0510, 1, 12)
                    })
                }
            }
        }

        Device (HPET)
        {
            Name (_HID, EisaId ("PNP0103"))
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadOnly, 0xFED00000, 0x0400)
            })
        }

        /* What the board itself decodes: ECAM, chipset registers, local APICs, ports of power management. MADT tells of the IOAPIC. */
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 0)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xB0000000, 0x10000000)
                Memory32Fixed (ReadWrite, 0xFED1C000, 0x4000)
                Memory32Fixed (ReadWrite, 0xFEE00000, 0x1000)
                IO (Decode16, 0x0092, 0x0092, 1, 1)
                IO (Decode16, 0x00B2, 0x00B2, 1, 2)
                IO (Decode16, 0x0600, 0x0600, 1, 0x80)
                IO (Decode16, 0xAE00, 0xAE00, 1, 0x0C)
            })
        }
    }
}
