# The kernel's own loader hands the kernel's own state over.
kho kexec -l -s "$KHO_NEXT_KERNEL" --initrd="$KHO_NEXT_INITRD" --command-line="$KHO_NEXT_CMDLINE"
kho-guest loaded --bare
