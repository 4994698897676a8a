# Interrupts, exceptions and the services CPL3 asks CPL0 for. Everything here is interpreted on
# hosts without VMX or SVM, so it is plain integer code and short.

    .set EXIT_PORT, 0xf4
    .set EXIT_FAULT, 2

# One 16-byte stub a vector: exceptions push what the processor did not and go to `fault`,
# all others count themselves and end the interrupt.
    .section .vectors, "ax", @progbits
vectors_start:
    .set i, 0
    .rept 256
    .balign 16
    .if i == 3
    jmp breakpoint
    .elseif i == 6
    jmp undefined
    .elseif (i == 8) || (i == 10) || (i == 11) || (i == 12) || (i == 13) || (i == 14) || (i == 17) || (i == 21)
    pushq $i
    jmp fault
    .elseif i < 32
    pushq $0
    pushq $i
    jmp fault
    .else
    incl guest_interrupts + 4 * i
    jmp interrupt
    .endif
    .set i, i + 1
    .endr
    .balign 16

interrupt:
    incl guest_interrupts
    pushq %rax
    pushq %rcx
    pushq %rdx
    movl $0x80b, %ecx               # x2APIC EOI
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
    popq %rdx
    popq %rcx
    popq %rax
    iretq

breakpoint:
    cmpl $CODE0, 8(%rsp)
    jne 1f
    incl guest_interrupts + 4 * 3
    iretq
1:  pushq $0
    pushq $3
    jmp fault

# Vector and error code are on the stack, above the processor's frame. The report is written by
# Rust in CPL3, on a stack of its own; a fault inside that ends the machine at once.
fault:
    popq guest_fault_info
    popq guest_fault_info + 8
    pushq %rax
    movq 8(%rsp), %rax
    movq %rax, guest_fault_info + 16
    movq 16(%rsp), %rax
    movq %rax, guest_fault_info + 24
    movq 32(%rsp), %rax
    movq %rax, guest_fault_info + 32
    movq %cr2, %rax
    movq %rax, guest_fault_info + 40
    popq %rax
    incl guest_fault_info + 48
    cmpl $1, guest_fault_info + 48
    jne 1f
    movl $cpl0_stack_top, %esp
    pushq $DATA3
    pushq $fault_stack_top - 8
    pushq $2
    pushq $CODE3
    pushq $guest_fault
    iretq
1:  movb $EXIT_FAULT, %al
    outb %al, $EXIT_PORT
    cli
    hlt
    jmp 1b

# The way in for services: operation in RDI, arguments in RSI, RDX and RCX, result in RAX, as a C
# function that may clobber what a C function may. Any other ud2 is a fault.
    .section .text.service, "ax", @progbits
    .globl guest_service
guest_service:
    ud2
    ret

    .section .vectors
undefined:
    cmpq $guest_service, (%rsp)
    jne 1f
    addq $2, (%rsp)
    jmp *services(, %rdi, 8)
1:  pushq $0
    pushq $6
    jmp fault

# In the order of `Service` in cpu.rs.
    .section .rodata.services, "a", @progbits
    .balign 8
services:
    .quad service_outs
    .quad service_config_read, service_config_write8, service_config_write16, service_config_write32
    .quad service_rdmsr, service_wrmsr, service_cpuid
    .quad service_wait, service_halt, service_triple_fault
    .quad service_int3, service_fwait, service_clac, service_stac, service_popcnt
    .quad service_refused
    .quad service_port_loop, service_load_loop

    .section .vectors
service_outs:                       # RSI bytes, RDX port, RCX count
    rep outsb
    iretq

# Configuration mechanism #1: RSI what 0xcf8 takes, RDX the data port, RCX the value.
service_config_read:
    movl %edx, %edi
    movl $0xcf8, %edx
    movl %esi, %eax
    outl %eax, %dx
    movl %edi, %edx
    inl %dx, %eax
    iretq
service_config_write8:
    movl %edx, %edi
    movl $0xcf8, %edx
    movl %esi, %eax
    outl %eax, %dx
    movl %edi, %edx
    movl %ecx, %eax
    outb %al, %dx
    iretq
service_config_write16:
    movl %edx, %edi
    movl $0xcf8, %edx
    movl %esi, %eax
    outl %eax, %dx
    movl %edi, %edx
    movl %ecx, %eax
    outw %ax, %dx
    iretq
service_config_write32:
    movl %edx, %edi
    movl $0xcf8, %edx
    movl %esi, %eax
    outl %eax, %dx
    movl %edi, %edx
    movl %ecx, %eax
    outl %eax, %dx
    iretq

service_rdmsr:                      # RSI register
    movl %esi, %ecx
    rdmsr
    shlq $32, %rdx
    orq %rdx, %rax
    iretq
service_wrmsr:                      # RSI register, RDX value
    movl %esi, %ecx
    movl %edx, %eax
    shrq $32, %rdx
    wrmsr
    iretq
service_cpuid:                      # RSI leaf, RDX subleaf, RCX where the four registers go
    movq %rcx, %r8
    movq %rbx, %r9
    movl %esi, %eax
    movl %edx, %ecx
    cpuid
    movl %eax, (%r8)
    movl %ebx, 4(%r8)
    movl %ecx, 8(%r8)
    movl %edx, 12(%r8)
    movq %r9, %rbx
    iretq

service_wait:                       # sleep until the count of interrupts is not RSI
    cmpl %esi, guest_interrupts
    jne 1f
    sti
    hlt
1:  iretq
service_halt:
    cli
    hlt
    jmp service_halt
service_triple_fault:
    lidt null_pointer
    ud2

# Instructions that an interpreting host cannot do by itself, with something to check of each.
service_int3:                       # how many breakpoints were taken
    movl guest_interrupts + 4 * 3, %ecx
    int3
    movl guest_interrupts + 4 * 3, %eax
    subl %ecx, %eax
    iretq
service_fwait:                      # RSI
    movq %rsi, %rax
    fwait
    iretq
service_clac:                       # RFLAGS, AC having been set
    pushfq
    orl $0x40000, (%rsp)
    popfq
    clac
    pushfq
    popq %rax
    iretq
service_stac:                       # RFLAGS, AC having been clear
    stac
    pushfq
    popq %rax
    pushq $2
    popfq
    iretq
service_popcnt:                     # bits set in RSI
    popcntq %rsi, %rax
    iretq
service_refused:                    # RSI a device's address: no emulator adds vectors from there
    addpd (%rsi), %xmm0
    iretq

service_port_loop:                  # RSI port, RCX times
    movl %esi, %edx
1:  inb %dx, %al
    decl %ecx
    jnz 1b
    iretq
service_load_loop:                  # RSI address, RCX times
    movl (%rsi), %eax
    decl %ecx
    jnz service_load_loop
    iretq

    .section .tables
    .balign 16
    .globl guest_interrupts
guest_interrupts:                   # [0] counts all, [3] breakpoints, [32..] each vector
    .fill 256, 4, 0
    .globl guest_fault_info
guest_fault_info:                   # vector, error, RIP, CS, RSP, CR2, number of faults
    .fill 7, 8, 0
