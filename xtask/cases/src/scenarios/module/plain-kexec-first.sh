ring_add 2
kho load --arm "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
kho activate
frozen
# An abort forgets an armed kernel too.
kho abort
thawed
[ $(cat /sys/kernel/kexec_loaded) = 0 ]
kho status | grep 'loaded    nothing'
refused 'no kernel is loaded, and drivers or khofs keep something' kho capture
# Otherwise the image that is loaded while a kernel is armed is not a kernel (debian-*-never-begins starts it).
kho load --arm --on-failure plain "$KHO_NEXT_KERNEL" --initrd "$KHO_NEXT_INITRD" --append "$KHO_NEXT_CMDLINE"
kho activate
kho-guest loaded --bare
