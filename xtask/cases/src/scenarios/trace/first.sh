kho keep --trace --trace-hops 2
kho keep --list | grep -q 'the trace of 2 kernels'
record local global
kho plan "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE" >/tmp/plan
grep 'trace of 6.1.*(hop 1).*copied' /tmp/plan
hand_over
