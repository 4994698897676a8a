# From the PVH entry (32-bit protected mode, paging off, EBX = hvm_start_info) to Rust in CPL3.

    .section .note.pvh, "a", @note
    .balign 4
    .long 4
    .long 8
    .long 18                        # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

    .section .text.boot, "ax", @progbits
    .code32
    .globl pvh_start
pvh_start:
    cli
    movl $0x620, %eax               # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $guest_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          # EFER: LME
    movl $0x100, %eax
    xorl %edx, %edx
    wrmsr
    movl $0x80010033, %eax          # PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $CODE0, $long_mode

    .code64
long_mode:
    movl $DATA0, %eax
    movl %eax, %ss
    movl $cpl0_stack_top, %esp
    movl $DATA3, %eax
    movl %eax, %ds
    movl %eax, %es
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movb $0x89, task_access         # available again, when this is not the first start
    movl $0, guest_fault_info + 48
    movl $TASK, %eax
    ltr %ax
    lidt idt_pointer
    movb $0xff, %al                 # the 8259s stay masked: everything comes by the I/O APIC or MSI
    outb %al, $0x21
    outb %al, $0xa1
    movl $1, %eax
    movl %ebx, %esi
    cpuid
    movl %esi, %ebx
    btl $21, %ecx
    jnc no_x2apic
    movl $0x1b, %ecx                # IA32_APIC_BASE: enabled, x2APIC
    rdmsr
    orl $0xc00, %eax
    wrmsr
    movl $0x80f, %ecx               # spurious vector 0xff, software enable
    movl $0x1ff, %eax
    xorl %edx, %edx
    wrmsr
    movl %ebx, %edi
    pushq $DATA3
    pushq $guest_stack_top
    pushq $0x202                    # IF
    pushq $CODE3
    pushq $cpl3_start
    iretq

no_x2apic:
    movl $no_x2apic_text, %esi
    movl $no_x2apic_text_end - no_x2apic_text, %ecx
    movl $0x3f8, %edx
    rep outsb
    movb $4, %al
    outb %al, $0xf4
1:  hlt
    jmp 1b
no_x2apic_text:
    .ascii "guest: this CPU model has no x2APIC, which the guest needs: start it with -cpu host\r\n"
no_x2apic_text_end:

# CPL3 from here on. The loader may not clear .bss again after a reset.
cpl3_start:
    movq %rdi, %rdx
    movl $guest_bss_start, %edi
    movl $guest_bss_end, %ecx
    subl %edi, %ecx
    xorl %eax, %eax
    rep stosb
    movq %rdx, %rdi
    xorl %ebp, %ebp
    call guest_start
    ud2

    .section .stack, "aw", @nobits
    .balign 16
    .fill 262144, 1, 0
guest_stack_top:
    .fill 16384, 1, 0
fault_stack_top:
