# The processor's tables, all filled in by the assembler so that no interpreted CPL0 instruction
# has to. They sit at a fixed address (guest.ld asserts it), which is what lets the assembler
# split addresses into descriptor fields.

    .set TABLES, 0x200000
    .set VECTORS, 0x20b000
    .set CODE0, 0x08
    .set DATA0, 0x10
    .set DATA3, 0x18 | 3
    .set CODE3, 0x20 | 3
    .set TASK, 0x28

    .section .tables, "aw", @progbits
    .balign 4096
tables_start:

# Identity map of the first 4 GiB in 2 MiB pages: present, writable, user, accessed, dirty.
    .globl guest_pml4
guest_pml4:
    .quad TABLES + (pdpt - tables_start) + 0x27
    .fill 511, 8, 0
    .globl guest_pdpt
guest_pdpt:
pdpt:
    .set i, 0
    .rept 4
    .quad TABLES + (page_directories - tables_start) + i * 4096 + 0x27
    .set i, i + 1
    .endr
    .fill 508, 8, 0
page_directories:
    .set i, 0
    .rept 2048
    .quad (i << 21) + 0xe7
    .set i, i + 1
    .endr

# Interrupt gates (IF cleared) to the 16-byte stubs of vectors.s.
idt:
    .set i, 0
    .rept 256
    .word (VECTORS + i * 16) & 0xffff
    .word CODE0
    .word 0x8e00
    .word (VECTORS + i * 16) >> 16
    .quad 0
    .set i, i + 1
    .endr

# Task state: the CPL0 stack, and an all-zero I/O permission bitmap, because the iretq of a host
# that interprets CPL0 drops IOPL.
    .set TSS, TABLES + (tss - tables_start)
    .set TSS_LIMIT, 104 + 8192
tss:
    .long 0
    .quad TABLES + (cpl0_stack_top - tables_start)
    .fill 90, 1, 0
    .word 104
    .fill 8192, 1, 0
    .byte 0xff

    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00cff3000000ffff
    .quad 0x00affb000000ffff
    .set task_access, . + 5
    .quad ((TSS & 0xff000000) << 32) + ((TSS & 0xffffff) << 16) + (0x89 << 40) + TSS_LIMIT
    .quad 0
gdt_end:

gdt_pointer:
    .word gdt_end - gdt - 1
    .quad TABLES + (gdt - tables_start)
idt_pointer:
    .word 4095
    .quad TABLES + (idt - tables_start)
    .globl null_pointer
null_pointer:
    .word 0
    .quad 0

    .balign 16
    .fill 4096, 1, 0
cpl0_stack_top:
